"""Overfitting by arm, measured without labels: the gap between the InfoNCE loss of training and of held-out images."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from adainf.evaluation.intervals import half_width
from adainf.evaluation.scores import ArmScores


@dataclass(frozen=True)
class Overfitting:
    """The losses of one arm in nats, as means over its seeds; see `InfoNceGap`."""

    arm: str
    images: int
    """Number of training images, and of held-out images."""
    train: float
    held_out: float
    gap: float
    interval: tuple[float, float]
    """The 95 % interval of the gap: the wider one of the variance between images and of the variance between seeds."""

    @property
    def cells(self) -> tuple[str, ...]:
        """Training loss, held-out loss, gap and interval of the gap, as the page shows them."""
        low, high = map(_signed, self.interval)
        return f"{self.train:.3f}", f"{self.held_out:.3f}", _signed(self.gap), f"{low} to {high}"

    def as_json(self) -> dict[str, JsonValue]:
        low, high = (round(end, 6) for end in self.interval)
        means = {name: round(getattr(self, name), 6) for name in ("train", "held_out", "gap")}
        return {"images": self.images, **means, "interval": [low, high]}


def overfitting(scores: Mapping[str, ArmScores]) -> list[Overfitting]:
    """One per arm, including the untrained encoder, whose gap is only the difference between the two sets of images."""
    return [_of_arm(arm, of_arm) for arm, of_arm in scores.items() if of_arm.infonce]


def _signed(nats: float) -> str:
    return f"{nats:+.3f}".replace("-", "−")


def _of_arm(arm: str, scores: ArmScores) -> Overfitting:
    seeds = list(scores.infonce.values())
    gaps = [one.gap for one in seeds]
    # The seeds share the images, so more seeds do not reduce the variance between images.
    between_images = statistics.fmean((one.interval[1] - one.interval[0]) / 2 for one in seeds)
    half = max(between_images, half_width(gaps)) if len(gaps) > 1 else between_images
    gap = statistics.fmean(gaps)
    train, held_out = (statistics.fmean(getattr(one, side) for one in seeds) for side in ("train", "held_out"))
    return Overfitting(arm, seeds[0].images, train, held_out, gap, (gap - half, gap + half))
