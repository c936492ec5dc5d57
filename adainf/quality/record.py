"""What is written about generated images: the content of the manifest of ``quality/``. Imports no torch."""

from __future__ import annotations

from typing import NamedTuple

from adainf.pipeline.artifacts import Record


class Estimate(NamedTuple):
    """A number and, where it is known, its 95 % interval."""

    value: float
    low: float | None = None
    high: float | None = None


class Score(Record):
    """A number for the generated images and its null."""

    value: float
    low: float | None = None
    """Of the value's 95 % interval, where one is known."""
    high: float | None = None
    null: float
    """The same number for real images in the generated ones' place."""

    @classmethod
    def of(cls, estimate: Estimate, null: float) -> Score:
        low, high = (None if end is None else _short(end) for end in estimate[1:])
        return cls(value=_short(estimate.value), low=low, high=high, null=_short(null))


def _short(value: float) -> float:
    return float(f"{value:.8g}")


def score_name(metric: str, space: str) -> str:
    """METRIC_SPACE; a Fréchet distance is called FID, and a kernel distance KID, on features of Inception alone."""
    return {"fd_inception": "fid_inception", "kd_inception": "kid_inception"}.get(f"{metric}_{space}", f"{metric}_{space}")


class Network(Record):
    """What gives the features of a space."""

    sha256: str
    """Of its weights."""
    features: int
    """D."""


class ShardScores(Record):
    """Columns with one entry for each generated shard, in order; the inner keys are the spaces."""

    images: list[int]
    fd: dict[str, list[float]]
    """Fréchet distance of all images of the shard to the reference."""
    coverage: dict[str, list[float]]
    """By as many images of the shard as the reference has, or all where it has fewer, which lowers the number."""
    coverage_halves: dict[str, list[tuple[float, float]]]
    """By every second one of these, from the first on and from the second on: two measurements that share no image."""


class Quality(Record):
    """Numbers are comparable where `images`, `neighbours` and the network's SHA-256 are the same."""

    images: int
    """n: of the reference (validation) and of what is compared with it."""
    neighbours: int
    """k."""
    training_images: int
    """All of them: what copies are looked for in."""
    generated_images: int
    spaces: dict[str, Network]
    """`rand`: a random network. `ssl`: the first encoder of arm `none`. `inception`: Inception-v3."""
    scores: dict[str, Score]
    """By METRIC_SPACE: `fd_rand`, `coverage_ssl`, `fid_inception`, …; those of pixels are `copy_rate`, `authenticity_pixels`,
    `duplicate_rate` and `exact_copy_rate`."""
    shards: ShardScores
    warnings: list[str]
    """What must be known before such images are used."""

    @property
    def judge(self) -> str:
        """The space that counts where one must be chosen: the run's own encoder, or else the random network."""
        return "ssl" if "ssl" in self.spaces else "rand"
