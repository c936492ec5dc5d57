"""Records of encoders' scores: measures, and the content of ``evaluate/ARM.json``."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, JsonValue

from adainf.evaluation.intervals import wilson_interval
from adainf.pipeline.records import Record

Protocol = Literal["linear", "knn", "knn-weighted", "finetune"]


def title(protocol: str, settings: Mapping[str, Any]) -> str:
    """Short description of a measure; measures with other settings have other titles."""
    match protocol:
        case "linear":
            return f"linear probe, {settings['solver']}"
        case "knn":
            return f"kNN, k = {settings['neighbours']}"
        case "knn-weighted":
            return f"kNN, k = {settings['neighbours']}, weighted by exp(cos / {settings['temperature']:g})"
        case "finetune":
            return f"fine-tuned, label fraction {settings['label_fraction']:g}"
        case _:
            return protocol


class Measure(Record):
    """One accuracy with its protocol, settings and interval."""

    protocol: Protocol
    settings: dict[str, JsonValue]
    """Settings of the protocol, the same for every encoder: the solver, the number of neighbours."""
    chosen: dict[str, float] = Field(default={})
    """Selected on the validation split: the probe's penalty or learning rate."""
    seed: int | None
    """Of the encoder; None for an encoder file."""
    split: Literal["test", "validation"] = "test"
    """`validation` only for decisions before the evaluation."""
    images: int
    """Number of labelled images in the split."""
    accuracy: float
    """0..1."""
    interval: tuple[float, float]
    """95 %, Wilson: variation over test images."""
    packed_hits: str = ""
    """Base64 of one bit per image, in the order of the split: whether it is classified correctly. Older scores lack it."""

    @classmethod
    def of(
        cls,
        protocol: Protocol,
        hits: NDArray[np.bool_],
        seed: int | None,
        settings: dict[str, JsonValue],
        chosen: dict[str, float] | None = None,
        split: Literal["test", "validation"] = "test",
    ) -> Self:
        """`hits`: for each labelled image of the split, whether it is classified correctly."""
        images, accuracy = len(hits), float(np.mean(hits))
        low, high = (round(end, 6) for end in wilson_interval(accuracy, images))
        return cls(
            protocol=protocol,
            settings=settings,
            chosen=chosen or {},
            seed=seed,
            split=split,
            images=images,
            accuracy=accuracy,
            interval=(low, high),
            packed_hits=base64.b64encode(np.packbits(hits).tobytes()).decode(),
        )

    @property
    def hits(self) -> NDArray[np.bool_] | None:
        """Inverse of `packed_hits`; None where the scores lack it."""
        packed = np.frombuffer(base64.b64decode(self.packed_hits), np.uint8)
        return np.unpackbits(packed, count=self.images).astype(bool) if len(packed) else None

    @property
    def title(self) -> str:
        """Short description of the protocol."""
        return title(self.protocol, self.settings)


class SeedScores(Record):
    """Measures of one seed's encoder: at least a linear probe and a kNN majority vote."""

    measures: list[Measure]

    def first(self, protocol: Protocol) -> Measure:
        """The first measure by that protocol."""
        return next(measure for measure in self.measures if measure.protocol == protocol)


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
