"""What is written about one arm: the content of ``evaluate/ARM.json``."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class SeedScores(BaseModel):
    """The encoder of one seed."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    linear_accuracy: float
    """0..1, on the test split."""
    knn_accuracy: float
    l2: float
    """The linear probe's penalty, chosen on the validation split."""


class ArmScores(BaseModel):
    """All seeds of one arm, or of the untrained encoder."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    arm: str
    """`none`, `vanilla`, `adainf`, or `untrained`."""
    test_images: int
    """Those that have a label."""
    chance: float
    """Test accuracy of always naming the most common label of the training split."""
    seeds: dict[str, SeedScores]
    """By seed; empty where the data have no labels, and then no probe is possible."""
