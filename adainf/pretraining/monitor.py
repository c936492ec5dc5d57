"""Metrics of the training loop: time per step, images drawn, geometry of the features; and alarms on NaN and collapse."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from adainf.errors import BadInput, StageFailed
from adainf.models.backbones import Backbone, build_backbone
from adainf.pretraining.online import OnlineProbe
from adainf.pretraining.trainer import Step, Trainer
from adainf.runtime import distributed
from adainf.runtime.determinism import memory_gib

_PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L4": 121e12, "V100": 125e12}
"""Vendors' dense half-precision peaks, by part of the device name."""
_COLLAPSED_SPREAD = 0.01
_ALARM_AFTER = 3
"""Consecutive collapsed log steps that raise the alarm: a single one may be noise."""
_MOST_ROWS = 1024


class Monitor:
    """Observes every step and computes metrics every `log_every_steps`. Identical on all ranks: means are over all ranks."""

    def __init__(self, trainer: Trainer, label: str, probe: OnlineProbe | None, main: bool) -> None:
        self._trainer, self._label, self._probe = trainer, label, probe
        self._steps = self._collapsed = 0
        self._summary: Any = None
        folder = trainer.config.monitor.tensorboard
        if folder is not None and main:
            self._summary = _tensorboard(folder)
        self._flops = _flops(trainer) if _peak(trainer.device) else 0.0

    def observe(self, step: Step) -> None:
        """Count one step, and train the online probe on it."""
        self._steps += 1
        if self._probe is not None:
            self._probe.update(step.embedded.features_bD, step.labels)

    def measure(self, done: int, step: Step) -> dict[str, float]:
        """All metrics after `done` steps. Raises `StageFailed` where the loss is not finite or the encoder has collapsed."""
        trainer, config = self._trainer, self._trainer.config
        loss = checked_loss(done, step, trainer, self._label)
        seconds = trainer.watch.read()
        every = max(seconds["all"], 1e-9)
        images = self._steps * config.global_batch
        measured = {
            "loss": round(loss, 6),
            "learning_rate": trainer.learning_rate,
            "images_per_s": images / every,
            "step_ms": 1000 * every / max(self._steps, 1),
            "data_wait_pct": 100 * seconds.get("data", 0.0) / every,
            "augment_pct": 100 * seconds.get("augment", 0.0) / every,
            "model_pct": 100 * seconds.get("model", 0.0) / every,
            "memory_gib": memory_gib(trainer.device),
            **_drawn(trainer, done),
            **_geometry(step),
        }
        if self._flops:
            flops = self._flops * images / distributed.world_size() / every
            measured["mfu_pct"] = 100 * flops / _peak(trainer.device)
        if self._probe is not None:
            measured |= self._probe.read()
        self._steps = 0
        self._alarm(done, measured["feature_spread"])
        return measured

    def write(self, done: int, measured: dict[str, float]) -> None:
        """Write the metrics to TensorBoard, where it is enabled."""
        if self._summary is not None:
            for name, value in measured.items():
                self._summary.add_scalar(f"{self._label}/{name}", value, done)

    def close(self) -> None:
        if self._summary is not None:
            self._summary.close()

    def _alarm(self, done: int, spread: float) -> None:
        self._collapsed = self._collapsed + 1 if spread < _COLLAPSED_SPREAD else 0
        if self._collapsed >= _ALARM_AFTER:
            raise StageFailed(
                f"{self._label}: the encoder collapsed at step {done}: all images have nearly the same features (spread "
                f"{spread:.2g} of 1); fix the likely cause: {self._trainer.method.collapses_by}"
            )


def checked_loss(done: int, step: Step, trainer: Trainer, label: str) -> float:
    """The loss, averaged over the processes. Raises `StageFailed` where it is not finite."""
    loss = distributed.mean_over_ranks(step.loss)
    if not np.isfinite(loss):
        fix = "set pretrain.precision to bf16 (fp16 overflowed), or " if trainer.config.precision == "fp16" else ""
        raise StageFailed(f"{label}: the loss is {loss} at step {done}; {fix}lower pretrain.optimizer.learning_rate")
    return loss


def rank_me(features_BD: Tensor) -> float:
    """The effective rank exp(-sum p ln p), p the normalised singular values (Garrido et al. 2023, arXiv 2210.02885, eq. 3)."""
    singular = torch.linalg.svdvals(features_BD.float())
    p = singular / singular.sum().clamp(min=1e-12) + 1e-7
    return float(torch.exp(-(p * p.log()).sum()))


def spread(features_BD: Tensor) -> float:
    """Spread of the directions of features: sqrt(1 - |mean of the normalised|^2), 0 for equal features, 1 for centred ones.

    For centred features it is sqrt(D) times the standard deviation by which SimSiam (section 4.1) detects collapse.
    """
    mean = F.normalize(features_BD.double(), dim=1).mean(0)
    return float((1 - mean.square().sum()).clamp(min=0).sqrt())


def alignment(z1_BD: Tensor, z2_BD: Tensor) -> float:
    """Mean squared distance of an image's two views on the sphere (Wang and Isola 2020, arXiv 2005.10242, equation 4)."""
    return float((F.normalize(z1_BD.float(), dim=1) - F.normalize(z2_BD.float(), dim=1)).square().sum(1).mean())


def uniformity(z_BD: Tensor) -> float:
    """ln of the mean of exp(-2 d^2) over pairs (equation 5 there); lower is more uniform."""
    return float(torch.pdist(F.normalize(z_BD.float(), dim=1)).square().mul(-2).exp().mean().log())


def _geometry(step: Step) -> dict[str, float]:
    features = distributed.gather_rows(step.embedded.features_bD.float())
    z1, z2 = (distributed.gather_rows(row.float())[:_MOST_ROWS] for row in step.embedded.rows[:2])
    measured = {"feature_spread": spread(features), "rank_me": rank_me(features[:_MOST_ROWS])}
    if len(z1) > 1:
        measured |= {"alignment": alignment(z1, z2), "uniformity": uniformity(z1)}
    return measured


def _drawn(trainer: Trainer, done: int) -> dict[str, float]:
    """Images per source so far, the real fraction beta, and passes per image."""
    stream = trainer.experiment.stream
    drawn, counts = stream.drawn(done), stream.counts
    real, generated = drawn[0], sum(drawn[1:])
    measured = {"real_images": real, "generated_images": generated, "beta": real / max(sum(drawn), 1)}
    measured["passes_per_real_image"] = real / counts[0]
    if len(counts) > 1:
        measured["passes_per_generated_image"] = generated / sum(counts[1:])
    return measured


def _peak(device: torch.device) -> float:
    if device.type != "cuda":
        return 0.0
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in _PEAK_FLOPS.items() if part in name), 0.0)


def _flops(trainer: Trainer) -> float:
    """FLOPs per image and step: forward and backward (twice the forward) of its views in the backbone, without heads."""
    height, width = trainer.experiment.stream.image_size
    with torch.device("meta"):
        backbone: Backbone = build_backbone(trainer.config.backbone).eval()
    total = 0.0
    for view in trainer.views:
        size = (height, width) if view.size_px is None else (view.size_px, view.size_px)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            backbone(torch.empty(1, 3, *size, device="meta"))
        total += 3 * counter.get_total_flops()
    return total


def _tensorboard(folder: str) -> Any:
    with contextlib.suppress(ImportError):
        from torch.utils.tensorboard import SummaryWriter  # optional dependency

        return SummaryWriter(folder)
    raise BadInput("pretrain.monitor.tensorboard needs the package tensorboard; pip install tensorboard, or set it to null")
