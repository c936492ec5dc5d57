"""The InfoNCE of training and of held-out images by arm: whether an encoder overfits, told without labels."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from adainf.evaluation.intervals import margin
from adainf.evaluation.scores import ArmScores


@dataclass(frozen=True)
class Overfitting:
    """One arm's, in nats and as means over its seeds; see `InfoNceGap`."""

    arm: str
    images: int
    """Of either side."""
    train: float
    held_out: float
    gap: float
    interval: tuple[float, float]
    """95 % of the gap: what other images would change, or where that is more, other seeds."""

    @property
    def cells(self) -> tuple[str, ...]:
        """Training, held-out, gap and its interval, as the page shows them."""
        low, high = map(_signed, self.interval)
        return f"{self.train:.3f}", f"{self.held_out:.3f}", _signed(self.gap), f"{low} to {high}"

    def as_json(self) -> dict[str, JsonValue]:
        low, high = (round(end, 6) for end in self.interval)
        means = {name: round(getattr(self, name), 6) for name in ("train", "held_out", "gap")}
        return {"images": self.images, **means, "interval": [low, high]}


def overfitting(scores: Mapping[str, ArmScores]) -> list[Overfitting]:
    """Of every arm, and of the untrained encoder: that has seen no image, so its gap is what the two sides differ by."""
    return [_of_arm(arm, judged) for arm, judged in scores.items() if judged.infonce]


def _signed(nats: float) -> str:
    return f"{nats:+.3f}".replace("-", "−")


def _of_arm(arm: str, judged: ArmScores) -> Overfitting:
    seeds = list(judged.infonce.values())
    gaps = [one.gap for one in seeds]
    # The seeds share the images: more of them do not narrow what other images would change.
    of_images = statistics.fmean((one.interval[1] - one.interval[0]) / 2 for one in seeds)
    half = max(of_images, margin(gaps)) if len(gaps) > 1 else of_images
    gap = statistics.fmean(gaps)
    train, held_out = (statistics.fmean(getattr(one, side) for one in seeds) for side in ("train", "held_out"))
    return Overfitting(arm, seeds[0].images, train, held_out, gap, (gap - half, gap + half))
