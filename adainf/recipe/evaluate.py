"""How encoders are judged."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from adainf.recipe.arm import Arm
from adainf.recipe.sections import Positive, PositiveInt, Rate, Section


class Finetune(Section):
    """Train the whole network on with labels: momentum SGD, cosine decay, un-augmented images."""

    epochs: PositiveInt = 30
    """Passes over the labelled images."""
    learning_rate: Rate = 0.05
    """At the start; it decays to zero."""
    batch: Annotated[int, Field(ge=2)] = 128
    """Images per optimiser step."""
    label_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of each class of train whose labels are used; 0.01 and 0.1 are customary."""


class Evaluate(Section):
    """One protocol for all arms: frozen backbone, features of the un-augmented images, probes fitted on train labels."""

    linear: Literal["lbfgs", "sgd"] = "lbfgs"
    """Solver of the linear probe: to the optimum of a penalised loss, or 100 epochs of SGD as the paper does."""
    l2_grid: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    """L2 penalties (per image) that the validation split chooses from, for `lbfgs`."""
    learning_rate_grid: Annotated[tuple[Rate, ...], Field(min_length=1)] = (0.003, 0.01, 0.03, 0.1, 0.3)
    """Learning rates that the validation split chooses from, for `sgd`."""
    knn_neighbours: PositiveInt = 20
    """Nearest training images, by cosine, that vote with one vote each."""
    weighted_knn_neighbours: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (20, 200)
    """The same with votes exp(cos / T), each number a measure of its own."""
    knn_temperature: Annotated[float, Field(ge=0.001)] = 0.1
    """T of those votes."""
    finetune: Finetune | None = None
    """Fine-tune every encoder too; null does not. It costs a training of its own."""
    batch: PositiveInt = 512
    """Images whose features are computed together; no part of the identity."""


class Published(Section):
    """Numbers that others have published for this experiment, for the report to show beside ours."""

    source: Annotated[str, Field(min_length=1)]
    """Where they stand, and what they are of: backbone, budget, split."""
    linear_pct: Annotated[dict[Arm, Annotated[float, Field(ge=0, le=100)]], Field(min_length=1)]
    """Accuracy of the linear probe by arm, in percent; also of arms that this recipe does not run."""
