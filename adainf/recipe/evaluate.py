"""How encoders are evaluated."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from adainf.recipe.arm import Arm
from adainf.recipe.sections import Positive, PositiveInt, Rate, Section


class Finetune(Section):
    """Fine-tune the complete network with labels: momentum SGD, cosine decay, images without augmentation."""

    epochs: PositiveInt = 30
    """Passes over the labelled images."""
    learning_rate: Rate = 0.05
    """At the start; cosine decay to zero."""
    batch: Annotated[int, Field(ge=2)] = 128
    """Images per optimiser step."""
    label_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Fraction of the labels of each training class that is used; 0.01 and 0.1 are customary."""


class Evaluate(Section):
    """One protocol for all arms: frozen backbone, features of images without augmentation, probes fitted on train labels."""

    linear: Literal["lbfgs", "sgd"] = "lbfgs"
    """Solver of the linear probe: L-BFGS to the optimum of a penalised loss, or 100 epochs of SGD as in the paper."""
    l2_grid: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    """L2 penalties (per image) for `lbfgs`; the validation split selects one."""
    learning_rate_grid: Annotated[tuple[Rate, ...], Field(min_length=1)] = (0.003, 0.01, 0.03, 0.1, 0.3)
    """Learning rates for `sgd`; the validation split selects one."""
    knn_neighbours: PositiveInt = 20
    """k of the unweighted vote among training images, by cosine similarity."""
    weighted_knn_neighbours: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (20, 200)
    """k of the votes weighted by exp(cos / T); each k is a metric of its own."""
    knn_temperature: Annotated[float, Field(ge=0.001)] = 0.1
    """T of the weighted votes."""
    finetune: Finetune | None = None
    """Fine-tune every encoder too; null does not. It costs one more training per encoder."""
    batch: PositiveInt = 512
    """Images per batch of feature extraction; not part of the request."""


class Published(Section):
    """Published results for this experiment; the report shows them beside those of the run."""

    source: Annotated[str, Field(min_length=1)]
    """Reference and conditions: backbone, budget, split."""
    linear_pct: Annotated[dict[Arm, Annotated[float, Field(ge=0, le=100)]], Field(min_length=1)]
    """Accuracy of the linear probe by arm, in percent; arms that the recipe does not run are allowed."""
