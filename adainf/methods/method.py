"""What every contrastive method is to the training loop, and what several of them share."""

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
    """What the networks made of b images."""

    rows: tuple[Tensor, ...]
    """b rows each: all that the loss is computed from, those of the first two views first."""
    features_bD: Tensor
    """The backbone's features of the first view, without gradient; for those who watch."""


class Method(nn.Module):
    """A step is `begin`, `forward`, `loss`, the gradient, `before_update`, the optimiser's step and `follow`.

    `forward` treats rows apart (but for batch normalisation), and `loss` sees those of all processes. So a large batch can
    pass `forward` in parts, and what is left of several processes is in the collectives of `loss`.
    """

    backbone: Backbone
    independent_rows = False
    """Whether the loss is a mean over rows that do not meet: then the mean of parts of a batch is that of the batch."""

    reads_text = False
    """Whether the last view is the bytes of the image's caption."""

    collapses_by = "a learning rate that is too high for the batch (pretrain.optimizer.learning_rate)"
    """What is to blame where all images get the same features."""

    def views(self, views: Views) -> Views:
        """The views that the method takes of every image, given the two of the arm."""
        return views

    def begin(self, step: int, steps: int) -> None:
        """Set what the schedules say for this step of so many."""

    def forward(self, views: Sequence[Tensor]) -> Embedded:
        """`views`: b x 3 x h x w each, normalised."""
        raise NotImplementedError

    def loss(self, rows: Sequence[Tensor], identities_b: Tensor) -> Tensor:
        """The loss of the local rows against those of all processes. `identities_b`: one number for each real image, by which
        copies of it are told."""
        raise NotImplementedError

    def before_update(self) -> None:
        """Change gradients that are whole."""

    def follow(self, rows: Sequence[Tensor], identities_b: Tensor) -> None:
        """What moves after the optimiser has moved: teachers, queues, centres. Not called for a step that fp16 skips."""


def projected_apart(backbone: Backbone, projector: nn.Module, views: Sequence[Tensor]) -> Embedded:
    """The projections of views that pass one after the other, each with its own batch statistics."""
    features = [backbone(view) for view in views]
    return Embedded(tuple(projector(x) for x in features), features[0].detach())


def full_precision(x: Tensor) -> Tensor:
    """float32, or float64 where it is that already: losses are never of half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def same_image(identities_b: Tensor) -> Tensor:
    """b x B: whether a local row and a row of the global batch are of the same image, itself or a copy."""
    return identities_b[:, None] == gather_rows(identities_b)


def cosine(start: float, end: float, step: int, steps: int) -> float:
    """From `start` at step 0 to `end` at step `steps` - 1: end - (end - start) (cos(pi k / K) + 1) / 2, as BYOL's tau."""
    return end - (end - start) * (math.cos(math.pi * step / max(steps - 1, 1)) + 1) / 2


def teacher_of(module: ModuleT) -> ModuleT:
    """A copy that no gradient reaches."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def follow_average(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Exponential moving average of the parameters. (Statistics of batch normalisation come from the teacher's own batches.)"""
    torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 1 - momentum)
