"""The pretraining loop of one arm and seed: the same steps, batch and learning rate whatever the data.

One step: positions of the schedule → images → two views → loss → gradient averaged over the processes → update. All
randomness is addressed by (seed, step), so what is trained does not depend on the number of processes, and resuming is
loading a state and going on.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor

from adainf import dist
from adainf.augment.profiles import Views
from adainf.augment.views import augment, draw
from adainf.checkpoint import Checkpoint, flatten_optimizer, restore_optimizer, with_prefix, without_prefix
from adainf.compute import fresh_weights
from adainf.exitcodes import BadInput, Interrupted, StageFailed
from adainf.methods import build_method
from adainf.models.backbones import Backbone, build_backbone
from adainf.models.encoder import Normalisation
from adainf.models.norm import synchronise_batch_norm
from adainf.pretraining.optim import Lars, learning_rate_at, trainable
from adainf.progress import Reporter
from adainf.recipe import Pretrain
from adainf.shards import Stream
from adainf.shards.device import DeviceStream
from adainf.stopping import deferred


@dataclass(frozen=True)
class Experiment:
    """What one encoder is trained on and how; all that decides its weights."""

    config: Pretrain
    seed: int
    stream: Stream
    """Of this process's slices."""
    views: Views
    normalisation: Normalisation


@dataclass(frozen=True)
class Trained:
    """What a run of the loop leaves."""

    backbone: Backbone
    curve: list[tuple[int, float]]
    """(step, loss averaged over the processes) every `log_every_steps`."""


def build_encoder(config: Pretrain, seed: int) -> Backbone:
    """The backbone before any training, as every arm of this seed starts from it."""
    with fresh_weights(seed):
        return build_backbone(config.backbone)


def make_accelerator(config: Pretrain) -> Accelerator:
    """Devices, processes and precision as `accelerate launch` set them up; alone it is one process on one device.

    Raises `BadInput` for a batch that the processes cannot share.
    """
    # Batch statistics are synchronised in the layers; broadcasting them again would overwrite some.
    handlers = [DistributedDataParallelKwargs(broadcast_buffers=False)]
    accelerator = Accelerator(mixed_precision=config.precision, kwargs_handlers=handlers)
    world = accelerator.num_processes
    if config.global_batch % world:
        raise BadInput(
            f"pretrain.global_batch is {config.global_batch}, which {world} processes cannot share equally; choose a "
            f"multiple of {world}, or another number of processes"
        )
    return accelerator


def pretrain_arm(
    experiment: Experiment, accelerator: Accelerator, checkpoint: Checkpoint, reporter: Reporter, label: str
) -> Trained:
    """Train one encoder, from the last checkpoint if there is one.

    Raises `Interrupted` after saving when asked to stop, and `StageFailed` when the loss is no longer finite.
    """
    config, loop = experiment.config, _Loop(experiment, accelerator)
    start, curve = loop.restore(checkpoint)
    main = accelerator.is_main_process
    with reporter.track(label, config.steps, start) as track, deferred() as stop:
        for step in range(start, config.steps):
            loss = loop.step(step)
            done = step + 1
            if done % config.log_every_steps == 0 or done == config.steps:
                value = dist.mean_over_ranks(loss)
                if not np.isfinite(value):
                    raise StageFailed(f"{label}: the loss is {value} at step {done}; lower pretrain.optimizer.learning_rate")
                curve.append((done, round(value, 6)))
                track.advance(done - track.done, loss=value)
            # One number a step among the ranks, who must stop at the same one; nothing beside a step's gradients.
            if dist.any_rank(stop.received, accelerator.device):
                if main:
                    checkpoint.save(*loop.state(done, curve))
                dist.wait_for_all()
                raise Interrupted(f"{label}: saved at step {done} of {config.steps}; run the same command to go on")
            if main and done % config.checkpoint_every_steps == 0 and done < config.steps:
                checkpoint.save(*loop.state(done, curve))
    return Trained(loop.method.backbone, curve)


class _Loop:
    """Everything that one step needs."""

    def __init__(self, experiment: Experiment, accelerator: Accelerator) -> None:
        self.experiment, self.accelerator = experiment, accelerator
        self.config = config = experiment.config
        with fresh_weights(experiment.seed):  # the backbone first: it starts as `build_encoder` gives it
            method = build_method(config.method, build_backbone(config.backbone))
        self.method = synchronise_batch_norm(method, accelerator.device)
        self.method.to(accelerator.device)
        self.optimizer = Lars(trainable(self.method), config.optimizer)
        # Only the model and its optimiser: a prepared scheduler would step once per process, a prepared loader drops data.
        self.wrapped, self.prepared = accelerator.prepare(self.method, self.optimizer)
        self.checked = False  # by this process: a launch that was stopped may go on with other processes
        self.batches = DeviceStream(experiment.stream, accelerator.device, config.stream.on_device)

    def step(self, step: int) -> Tensor:
        """One optimiser step; returns the local loss."""
        config, experiment = self.config, self.experiment
        rate = learning_rate_at(step, config.steps, config.optimizer.learning_rate, config.warmup_fraction)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = next(self.batches)
        if not self.checked or step % config.stream.check_every_steps == 0:
            self.checked = True
            gather = partial(dist.gather_words, device=self.accelerator.device)
            experiment.stream.check(step, batch.sources, batch.indices, gather)
        images = batch.images_BHWC
        draws = torch.from_numpy(draw(experiment.seed, step, config.global_batch)[experiment.stream.slice]).to(images.device)
        views = [augment(images, draws[:, index], profile) for index, profile in enumerate(experiment.views)]
        view1, view2 = (experiment.normalisation.apply(view) for view in views)
        loss: Tensor = self.wrapped(view1, view2)
        self.prepared.zero_grad()
        self.accelerator.backward(loss)
        self.prepared.step()
        return loss.detach()

    def state(self, step: int, curve: list[tuple[int, float]]) -> tuple[dict[str, Tensor], Any]:
        """All that the next step depends on."""
        tensors = with_prefix("model", self.method.state_dict()) | flatten_optimizer(self.optimizer)
        scaler = self.accelerator.scaler
        scaler_state = scaler.state_dict() if scaler else None
        return tensors, {"stream": self.experiment.stream.state_at(step), "curve": curve, "scaler": scaler_state}

    def restore(self, checkpoint: Checkpoint) -> tuple[int, list[tuple[int, float]]]:
        """Load the last state; returns the next step and the curve so far."""
        saved = checkpoint.load()
        if saved is None:
            return 0, []
        tensors, extra = saved
        self.method.load_state_dict(without_prefix("model", tensors))
        restore_optimizer(self.optimizer, tensors)
        if extra["scaler"] and self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(extra["scaler"])
        step = self.batches.load_state_dict(extra["stream"])
        return step, [(int(at), float(loss)) for at, loss in extra["curve"]]
