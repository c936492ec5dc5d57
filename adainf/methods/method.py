"""The interface between a contrastive method and the training loop, and what several methods share."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from adainf.augment.profiles import Views
from adainf.models.backbones import Backbone
from adainf.runtime.distributed import gather_rows

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class Embedded(NamedTuple):
    """The outputs of the networks for b images."""

    rows: tuple[Tensor, ...]
    """All inputs of the loss, b rows each; those of the first two views first."""
    features_bD: Tensor
    """Features of the backbone for the first view, detached; for metrics."""


class Method(nn.Module):
    """A step calls `before_step`, `forward`, `loss`, backward, `before_update`, the optimiser and `after_update`.

    Rows are independent in `forward` (except through batch normalisation); `loss` compares them across all processes. So
    `forward` can process a large batch in chunks, and all communication between processes is in the collectives of `loss`.
    """

    backbone: Backbone
    independent_rows = False
    """Whether the loss is a mean over independent rows; then the mean of the losses of chunks is the loss of the batch."""

    reads_text = False
    """Whether the last view contains the bytes of the image's caption."""

    collapses_by = "a learning rate that is too high for the batch (pretrain.optimizer.learning_rate)"
    """The likely cause of collapse, that is, of equal features for all images."""

    def views(self, views: Views) -> Views:
        """The profiles of the views of every image, given the two of the arm."""
        return views

    def before_step(self, step: int, steps: int) -> None:
        """Apply the schedules for `step` of `steps`."""

    def forward(self, views: Sequence[Tensor]) -> Embedded:
        """`views`: b x 3 x h x w each, normalised."""
        raise NotImplementedError

    def projection(self, view_bCHW: Tensor) -> Tensor:
        """The row of `Embedded` that the method computes of a first view: b x D. For methods with `aligns_third_view`."""
        projected: Tensor = self.get_submodule("projector")(self.backbone(view_bCHW))
        return projected

    def loss(self, rows: Sequence[Tensor], identities_b: Tensor) -> Tensor:
        """The loss of the local rows against those of all processes. `identities_b`: image ids, equal for copies."""
        raise NotImplementedError

    def before_update(self) -> None:
        """Modify the complete gradients before the optimiser reads them."""

    def after_update(self, rows: Sequence[Tensor], identities_b: Tensor) -> None:
        """Update teachers, queues and centres. Not called for a step that fp16 skips."""


def project_each(backbone: Backbone, projector: nn.Module, views: Sequence[Tensor]) -> Embedded:
    """The projections of views that pass the networks one after the other, each with its own batch statistics."""
    features = [backbone(view) for view in views]
    return Embedded(tuple(projector(x) for x in features), features[0].detach())


def full_precision(x: Tensor) -> Tensor:
    """float32, or float64 for float64: losses never have half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def same_image(identities_b: Tensor) -> Tensor:
    """b x B: whether a local row and a row of the global batch belong to the same image."""
    return identities_b[:, None] == gather_rows(identities_b)


def cosine(start: float, end: float, step: int, steps: int) -> float:
    """From `start` at step 0 to `end` at step `steps` - 1: end - (end - start) (cos(pi k / K) + 1) / 2, as BYOL's tau."""
    return end - (end - start) * (math.cos(math.pi * step / max(steps - 1, 1)) + 1) / 2


def make_teacher(module: ModuleT) -> ModuleT:
    """A copy without gradients."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Exponential moving average (EMA) of the parameters. Batch statistics of the teacher come from its own batches."""
    torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1 - momentum)
