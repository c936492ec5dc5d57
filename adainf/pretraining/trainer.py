"""One optimiser step of any method, on any number of processes, with or without chunks; and its state for checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from adainf.augment.originals import OriginalCrops, identities_of
from adainf.augment.profiles import Views
from adainf.augment.views import augment, augment_crops
from adainf.errors import BadInput
from adainf.methods import build_method
from adainf.methods.method import Embedded, Method
from adainf.methods.third_view import ThirdView
from adainf.models.backbones import Backbone, build_backbone
from adainf.models.encoder import Normalisation
from adainf.models.norm import batch_norms, synchronise_batch_norm
from adainf.pipeline.serialization import flatten_optimizer, restore_optimizer, with_prefix, without_prefix
from adainf.pretraining.optim import apply_schedules, build_optimizer, clip_gradients
from adainf.pretraining.timing import Stopwatch
from adainf.recipe import Add, Pretrain, Replace
from adainf.runtime import distributed
from adainf.runtime.determinism import seeded_init, to_device
from adainf.shards import Stream
from adainf.shards.loader.device import DeviceBatch, DeviceStream


@dataclass(frozen=True)
class Experiment:
    """Data and settings of one encoder: everything that determines its weights."""

    config: Pretrain
    seed: int
    stream: Stream
    """The images of this process."""
    views: Views
    normalisation: Normalisation
    tokens: Sequence[NDArray[np.uint8]] = ()
    """Per source the bytes of its captions, N x T; for methods with `reads_text`."""
    positives: Replace | Add | None = None
    """How the companions of the stream are used; `Add` without companions adds a third view of the image itself."""


class Step(NamedTuple):
    """Results of a step, for metrics."""

    loss: Tensor
    """Loss of the local rows."""
    embedded: Embedded
    labels: Tensor
    """b; -1 for no label."""


class Trainer:
    """Method, optimiser, stream and accelerator of one encoder."""

    def __init__(self, experiment: Experiment, accelerator: Accelerator) -> None:
        self.experiment, self.accelerator, self.device = experiment, accelerator, accelerator.device
        self.config = config = experiment.config
        with seeded_init(experiment.seed):  # backbone first: it is the same for every arm of this seed
            method = build_method(config.method, build_backbone(config.backbone))
        if isinstance(experiment.positives, Add):
            method = ThirdView(method, experiment.positives)
        _check_chunks(config, method)
        self.method = synchronise_batch_norm(method, self.device)
        self.method.to(self.device)
        self.views = self.method.views(experiment.views)
        if config.compile:
            for module in self.method.modules():
                if isinstance(module, Backbone):
                    module.compile()
        self.optimizer = build_optimizer(self.method.parameters(), config.optimizer)
        # Only model and optimiser: a prepared scheduler would step once per process, a prepared loader would drop data.
        self.wrapped, self.prepared = accelerator.prepare(self.method, self.optimizer)
        if experiment.stream.originals:
            size_px = experiment.stream.image_size[0]
            experiment.stream.crop(OriginalCrops(experiment.seed, self.views, size_px))
        self.batches = DeviceStream(experiment.stream, self.device, config.stream.on_device)
        self.checked = False  # per process: a resumed launch may have other processes
        self.learning_rate = 0.0
        self.watch = Stopwatch(self.device)

    def step(self, step: int) -> Step:
        """One optimiser step: images → views → rows → loss → gradient averaged over the processes → update."""
        self.learning_rate = apply_schedules(self.optimizer, self.config, step)
        self.method.before_step(step, self.config.steps)
        with self.watch("data"):
            batch = next(self.batches)
            self._check(step, batch)
        with self.watch("augment"):
            identities = to_device(torch.from_numpy(identities_of(batch.sources, batch.indices)), self.device)
            views = self._views(step, batch, identities)
        with self.watch("model"):
            self.prepared.zero_grad()
            loss, embedded = self._backward(views, identities)
            self.method.before_update()
            if self.config.optimizer.gradient_clip is not None:
                self.accelerator.unscale_gradients()
                clip_gradients(self.method.parameters(), self.config.optimizer.gradient_clip)
            self.prepared.step()
            embedded = Embedded(tuple(row.detach() for row in embedded.rows), embedded.features_bD)
            if not self.accelerator.optimizer_step_was_skipped:
                self.method.after_update(embedded.rows, identities)
        return Step(loss.detach(), embedded, batch.labels)

    def _check(self, step: int, batch: DeviceBatch) -> None:
        if not self.checked or step % self.config.stream.check_every_steps == 0:
            self.checked = True
            gather = partial(distributed.gather_uint64, device=self.device)
            self.experiment.stream.check(step, batch.sources, batch.indices, gather)

    def _views(self, step: int, batch: DeviceBatch, identities: Tensor) -> list[Tensor]:
        experiment, normalisation = self.experiment, self.experiment.normalisation
        mean, std, hue = normalisation.mean, normalisation.std, self.config.augmentation.hue
        settings = (mean, std, hue)

        def augmented(images_BHWC: Tensor, numbers: Sequence[int]) -> list[Tensor]:
            profiles = [self.views[number] for number in numbers]
            return augment(images_BHWC, identities, experiment.seed, step, profiles, *settings, numbers)

        companions, numbers = batch.companions, range(len(self.views))
        if batch.views_VBHWC:
            views = augment_crops(batch.views_VBHWC, identities, experiment.seed, step, self.views, *settings)
        elif companions is None:
            views = augmented(batch.images_BHWC, numbers)
        else:
            images = batch.images_BHWC.clone()
            images[companions.rows] = companions.images_BHWC
            # A third view is the last one. Replaced is the second view, of DINO the second large one, of CLIP the only one.
            of_companion = len(self.views) - 1 if isinstance(experiment.positives, Add) else min(len(self.views) - 1, 1)
            views = augmented(batch.images_BHWC, [number for number in numbers if number != of_companion])
            views[of_companion:of_companion] = augmented(images, [of_companion])
        if isinstance(experiment.positives, Add):
            has_b = torch.full((len(identities),), float(companions is None), device=self.device)
            if companions is not None:
                has_b[companions.rows] = 1
            views.append(has_b)
        if self.method.reads_text:
            tokens = np.empty((len(batch.sources), experiment.tokens[0].shape[1]), np.uint8)
            for source, captions in enumerate(experiment.tokens):
                tokens[batch.sources == source] = captions[batch.indices[batch.sources == source]]
            views.append(to_device(torch.from_numpy(tokens), self.device))
        return views

    def _backward(self, views: Sequence[Tensor], identities: Tensor) -> tuple[Tensor, Embedded]:
        """Compute the gradients of the batch; returns its loss and rows."""
        size = self.config.chunk_images
        if size is None or size >= len(identities):
            embedded = self.wrapped(views)
            loss: Tensor = self.method.loss(embedded.rows, identities)
            self.accelerator.backward(loss)
            return loss, embedded
        chunks = [slice(at, at + size) for at in range(0, len(identities), size)]
        backward = _gradcache if self.config.chunking == "gradcache" else _accumulate
        with self.accelerator.no_sync(self.wrapped):
            loss, embedded = backward(self.wrapped, self.method, views, identities, chunks, self.accelerator.backward)
        distributed.average_gradients(self.method.parameters())
        return loss, embedded

    def state(self) -> tuple[dict[str, Tensor], Any]:
        """Everything that the next step depends on, except the position of the stream."""
        scaler = self.accelerator.scaler
        tensors = with_prefix("model", self.method.state_dict()) | flatten_optimizer(self.optimizer)
        return tensors, scaler.state_dict() if scaler else None

    def restore(self, tensors: dict[str, Tensor], scaler: Any) -> None:
        self.method.load_state_dict(without_prefix("model", tensors))
        restore_optimizer(self.optimizer, tensors)
        if scaler and self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(scaler)


Backward = Callable[[Tensor], None]


def _gradcache(
    embed: Callable[[Sequence[Tensor]], Embedded],
    method: Method,
    views: Sequence[Tensor],
    identities: Tensor,
    chunks: Sequence[slice],
    backward: Backward,
) -> tuple[Tensor, Embedded]:
    """GradCache (Gao et al. 2021, arXiv 2101.06983): embed all chunks without a graph, compute the gradient of the loss by row,
    then embed each chunk again with a graph and backpropagate its row gradients. Exact: rows are independent in `embed`."""
    with torch.no_grad():
        first = _joined([embed(_part(views, chunk)) for chunk in chunks])
    for row in first.rows:
        row.requires_grad_()
    loss = method.loss(first.rows, identities)
    backward(loss)
    for chunk in chunks:
        again = embed(_part(views, chunk)).rows
        pairs = [(row, cached.grad[chunk]) for row, cached in zip(again, first.rows, strict=True) if cached.grad is not None]
        learning = [(row, gradient) for row, gradient in pairs if row.requires_grad]
        torch.autograd.backward([row for row, _ in learning], [gradient for _, gradient in learning])
    return loss, first


def _accumulate(
    embed: Callable[[Sequence[Tensor]], Embedded],
    method: Method,
    views: Sequence[Tensor],
    identities: Tensor,
    chunks: Sequence[slice],
    backward: Backward,
) -> tuple[Tensor, Embedded]:
    """The mean of the losses of the chunks, for methods with `independent_rows`."""
    parts, total = [], torch.zeros((), device=identities.device)
    for chunk in chunks:
        embedded = embed(_part(views, chunk))
        mine = identities[chunk]
        loss = method.loss(embedded.rows, mine) * (len(mine) / len(identities))
        backward(loss)
        total = total + loss.detach()
        parts.append(Embedded(tuple(row.detach() for row in embedded.rows), embedded.features_bD))
    return total, _joined(parts)


def _part(views: Sequence[Tensor], chunk: slice) -> list[Tensor]:
    return [view[chunk] for view in views]


def _joined(parts: Sequence[Embedded]) -> Embedded:
    rows = tuple(torch.cat(row) for row in zip(*[part.rows for part in parts], strict=True))
    return Embedded(rows, torch.cat([part.features_bD for part in parts]))


def _check_chunks(config: Pretrain, method: Method) -> None:
    """Raise `BadInput` where chunks would give another result than the complete batch."""
    if config.chunk_images is None:
        return
    if batch_norms(method):
        raise BadInput(
            "pretrain.chunk_images would normalise each chunk by its own batch statistics; set pretrain.backbone.norm to group "
            "(or use a ViT) with a method whose heads have no batch normalisation (simclr, moco, dino, clip), or remove "
            "chunk_images"
        )
    if config.chunking == "accumulate" and not method.independent_rows:
        raise BadInput(
            f"pretrain.chunking is accumulate, but the loss of {config.method.kind} compares each row with the complete batch, "
            "so the sum over chunks is another loss; set it to gradcache"
        )
