"""Records of generated images' quality: the content of the manifest of ``quality/``. Imports no torch."""

from __future__ import annotations

from typing import NamedTuple

from adainf.pipeline.records import Record


class Estimate(NamedTuple):
    """A value and, where known, its 95 % interval."""

    value: float
    low: float | None = None
    high: float | None = None


class Score(Record):
    """A metric of the generated images and its null."""

    value: float
    low: float | None = None
    """Ends of the value's 95 % interval, where known."""
    high: float | None = None
    null: float
    """The same metric for real images in place of the generated ones."""

    @classmethod
    def of(cls, estimate: Estimate, null: float) -> Score:
        low, high = (None if end is None else _short(end) for end in estimate[1:])
        return cls(value=_short(estimate.value), low=low, high=high, null=_short(null))


def _short(value: float) -> float:
    return float(f"{value:.8g}")


def score_name(metric: str, space: str) -> str:
    """METRIC_SPACE; only on Inception features is a Fréchet distance called FID, and a kernel distance KID."""
    return {"fd_inception": "fid_inception", "kd_inception": "kid_inception"}.get(f"{metric}_{space}", f"{metric}_{space}")


class Network(Record):
    """The network of a feature space."""

    sha256: str
    """Of its weights."""
    features: int
    """D."""


class ShardScores(Record):
    """Columns with one entry per generated shard, in order; the inner keys are the feature spaces."""

    images: list[int]
    fd: dict[str, list[float]]
    """Fréchet distance of all images of the shard to the reference."""
    coverage: dict[str, list[float]]
    """Over as many images of the shard as the reference has, or all if it has fewer, which lowers the value."""
    coverage_halves: dict[str, list[tuple[float, float]]]
    """Over the even and the odd ones of these images: two estimates that share no image."""


class Quality(Record):
    """Values are comparable only for the same `images`, `neighbours` and network SHA-256."""

    images: int
    """n: size of the reference (validation) and of each set compared with it."""
    neighbours: int
    """k."""
    training_images: int
    """All training images; copies are searched among them."""
    generated_images: int
    spaces: dict[str, Network]
    """`rand`: a randomly initialised network. `ssl`: the first encoder of arm `none`. `inception`: Inception-v3."""
    scores: dict[str, Score]
    """By METRIC_SPACE: `fd_rand`, `coverage_ssl`, `fid_inception`, …; those of pixels are `copy_rate`, `authenticity_pixels`,
    `duplicate_rate`, `exact_copy_rate` and `held_out_copied`."""
    shards: ShardScores
    warnings: list[str]
    """What to know before using these images."""
    weak_encoder: bool = False
    """Whether the run's own encoder detects noise less well than the random network."""

    @property
    def primary_space(self) -> str:
        """The space that the plan uses: the run's own encoder, or the random network where that is missing or weak."""
        return "ssl" if "ssl" in self.spaces and not self.weak_encoder else "rand"


class PositivesQuality(Record):
    """The content of the manifest of ``quality/positives/``; see docs/positives.md."""

    images: int
    """n: parents, evenly spaced over the training images."""
    candidates: int
    """K: candidates of each."""
    spaces: dict[str, Network]
    """The judge: `ssl`, the first encoder of arm `none`, or `rand`."""
    scores: dict[str, Score]
    """`retrieval`, `distance`, `diversity` (for K above 1) and `copy_rate`."""
