"""What is written about one arm: the content of ``evaluate/ARM.json``."""

from __future__ import annotations

from adainf.artifacts import Record


class SeedScores(Record):
    """The encoder of one seed."""

    linear_accuracy: float
    """0..1, on the test split."""
    knn_accuracy: float
    l2: float
    """The linear probe's penalty, chosen on the validation split."""


class ArmScores(Record):
    """All seeds of one arm, or of the untrained encoder."""

    arm: str
    """`none`, `vanilla`, `adainf`, or `untrained`."""
    test_images: int
    """Those that have a label."""
    chance: float
    """Test accuracy of always naming the most common label of the training split."""
    seeds: dict[str, SeedScores]
    """By seed; empty where train or test have no labels (of two classes), and then no probe is possible."""
