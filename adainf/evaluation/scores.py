"""Records of encoders' scores: measures, and the content of ``evaluate/ARM.json``."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, JsonValue

from adainf.evaluation.intervals import wilson_interval
from adainf.pipeline.records import Record

Protocol = Literal["linear", "knn", "knn-weighted", "finetune"]


class Measure(Record):
    """One accuracy with its protocol, settings and interval."""

    protocol: Protocol
    settings: dict[str, JsonValue]
    """Settings of the protocol, the same for every encoder: the solver, the number of neighbours."""
    chosen: dict[str, float] = Field(default={})
    """Selected on the validation split: the probe's penalty or learning rate."""
    seed: int | None
    """Of the encoder; None for an encoder file."""
    split: Literal["test"] = "test"
    images: int
    """Number of labelled images in the split."""
    accuracy: float
    """0..1."""
    interval: tuple[float, float]
    """95 %, Wilson: variation over test images."""

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
        low, high = (round(end, 6) for end in wilson_interval(accuracy, images))
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
        """Short description of the protocol."""
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
    """Measures of one seed's encoder: at least a linear probe and a kNN majority vote."""

    measures: list[Measure]

    def accuracy(self, protocol: Protocol) -> float:
        """0..1, of the first measure by that protocol."""
        return next(measure.accuracy for measure in self.measures if measure.protocol == protocol)


class InfoNceGap(Record):
    """InfoNCE of training and of held-out images: a label-free measure of overfitting."""

    images: int
    """Of either side."""
    batch: int
    """Batch size; more negatives raise both losses."""
    temperature: float
    train: float
    """On training images, in nats; lower is better."""
    held_out: float
    """On images of the validation split."""
    gap: float
    """`held_out` minus `train`; above zero, the encoder discriminates training images better than others."""
    interval: tuple[float, float]
    """95 % interval of the gap over images."""


class ArmScores(Record):
    """All seeds of one arm, or of the untrained encoder."""

    arm: str
    """One of the recipe's, or `untrained`."""
    test_images: int
    """Number of labelled ones."""
    chance: float
    """Test accuracy of always predicting the most frequent label of the training split."""
    seeds: dict[str, SeedScores]
    """By seed; empty if no probe is possible (see `protocol.can_evaluate`)."""
    infonce: dict[str, InfoNceGap]
    """By seed; empty if the validation split has fewer than three images."""
