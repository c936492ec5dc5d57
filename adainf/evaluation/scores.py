"""What is written about encoders: measures, and the content of ``evaluate/ARM.json``."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, JsonValue

from adainf.evaluation.intervals import wilson
from adainf.pipeline.artifacts import Record

Protocol = Literal["linear", "knn", "knn-weighted", "finetune"]


class Measure(Record):
    """One accuracy, and all that it takes to read it."""

    protocol: Protocol
    settings: dict[str, JsonValue]
    """What the protocol was run with, the same for every encoder: the solver, the number of neighbours."""
    chosen: dict[str, float] = Field(default={})
    """What the validation split chose: the probe's penalty, or its learning rate."""
    seed: int | None
    """Of the encoder; None where its file alone is known."""
    split: Literal["test"] = "test"
    images: int
    """Of the split, with a label."""
    accuracy: float
    """0..1."""
    interval: tuple[float, float]
    """95 %, Wilson: what other test images would change."""

    @classmethod
    def of(
        cls,
        protocol: Protocol,
        accuracy: float,
        images: int,
        seed: int | None,
        settings: dict[str, JsonValue],
        chosen: dict[str, float] | None = None,
    ) -> Self:
        low, high = (round(end, 6) for end in wilson(accuracy, images))
        return cls(
            protocol=protocol,
            settings=settings,
            chosen=chosen or {},
            seed=seed,
            images=images,
            accuracy=accuracy,
            interval=(low, high),
        )

    @property
    def title(self) -> str:
        """The protocol in a few words."""
        s = self.settings
        match self.protocol:
            case "linear":
                return f"linear probe, {s['solver']}"
            case "knn":
                return f"kNN, k = {s['neighbours']}"
            case "knn-weighted":
                return f"kNN, k = {s['neighbours']}, weighted by exp(cos / {s['temperature']:g})"
            case "finetune":
                return f"fine-tuned, label fraction {s['label_fraction']:g}"


class SeedScores(Record):
    """The encoder of one seed: a linear probe and a plain vote of neighbours at least."""

    measures: list[Measure]

    def accuracy(self, protocol: Protocol) -> float:
        """0..1, of the first measure by that protocol."""
        return next(measure.accuracy for measure in self.measures if measure.protocol == protocol)


class InfoNceGap(Record):
    """InfoNCE of images that an encoder was trained on and of held-out ones: how much it overfits, told without labels."""

    images: int
    """Of either side."""
    batch: int
    """Images among which each is to be told; the more, the larger both losses."""
    temperature: float
    train: float
    """Of training images, in nats; less is better."""
    held_out: float
    """Of images of the validation split."""
    gap: float
    """`held_out` less `train`: beyond zero, the encoder knows images that it was trained on better than others."""
    interval: tuple[float, float]
    """95 % of the gap: what other images would change."""


class ArmScores(Record):
    """All seeds of one arm, or of the untrained encoder."""

    arm: str
    """One of the recipe's, or `untrained`."""
    test_images: int
    """Those that have a label."""
    chance: float
    """Test accuracy of always naming the most common label of the training split."""
    seeds: dict[str, SeedScores]
    """By seed; empty where train or test have no labels (of two classes), and then no probe is possible."""
    infonce: dict[str, InfoNceGap]
    """By seed; empty where the validation split has fewer than three images."""
