"""Quality of the generated images as the page shows it: metrics beside their values for real images, and sample sheets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from adainf.pipeline.artifacts import Run
from adainf.pipeline.records import Manifest
from adainf.quality.record import PositivesQuality, Quality, Score, score_name
from adainf.report.grids import grid_png
from adainf.shards.format.png import decode_image

_BY_SPACE = {
    "coverage": "Share of the real images with a generated image in their neighbourhood: diversity. The plan uses it to decide "
    "whether to inflate and, with the classifier, how to weight.",
    "fd": "Fréchet distance; lower is better. Ranks checkpoints of one generator. FID on Inception features.",
    "kd": "Kernel distance, unbiased: 0 for equal distributions, and can be negative. KID on Inception features.",
    "precision": "Share of the generated images within the manifold of the real ones. Can be high for poor generators.",
    "recall": "Share of the real images within the manifold of the generated ones. Can be high for scattered images.",
    "density": "Mean number of real neighbourhoods that contain a generated image, over k; about 1 for real images.",
    "classifier": "Balanced accuracy of a linear classifier of generated against real images; 0.5 is chance.",
    "total_variation": "Lower bound of the total variation distance between the distributions, 0 to 1, from the classifier.",
    "authenticity": "Share of images that are farther from their nearest training image than that image is from its own "
    "nearest neighbour (AuthPct). A value below that of real images indicates memorized images.",
}
_OF_PIXELS = {
    "copy_rate": "Share of near-duplicates: images three times nearer to one training image than to any other.",
    "authenticity_pixels": "AuthPct by pixel distance.",
    "exact_copy_rate": "Share of images whose pixels equal those of a training image.",
    "held_out_copied": "Share of the validation and test images of which a generated image is an exact copy.",
    "duplicate_rate": "Share of images whose pixels equal those of an earlier image of the set; real: the training split.",
}


class Values(NamedTuple):
    generated: str
    interval: str
    """Empty where not available."""
    real: str


@dataclass(frozen=True)
class MetricRow:
    name: str
    values: list[Values]
    """One per space."""
    meaning: str


def by_space(quality: Quality) -> list[MetricRow]:
    """A row per metric, with its values in the spaces of `quality`, in their order."""
    return [
        MetricRow(
            metric,
            [_values(quality.scores[score_name(metric, space)]) for space in quality.spaces],
            meaning,
        )
        for metric, meaning in _BY_SPACE.items()
    ]


def of_pixels(quality: Quality) -> list[MetricRow]:
    """A row per metric of pixels; a quality measured by an older version lacks some."""
    measured = {name: meaning for name, meaning in _OF_PIXELS.items() if name in quality.scores}
    return [MetricRow(name, [_values(quality.scores[name])], meaning) for name, meaning in measured.items()]


def shards_text(quality: Quality) -> str:
    """The range of coverage and Fréchet distance over the shards."""
    space = quality.primary_space
    fd, coverage = quality.shards.fd[space], quality.shards.coverage[space]
    return (
        f"By shard ({len(fd):,} shards), coverage_{space} is {min(coverage):.3g} to {max(coverage):.3g} and "
        f"fd_{space} {min(fd):.4g} to {max(fd):.4g}."
    )


def extremes(run: Run, manifest: Manifest, name: str, size: tuple[int, int]) -> bytes | None:
    """The sheet `name` (``best`` or ``worst``), of images of `size` (height, width), as a PNG for the page."""
    sheet = decode_image(run.read(manifest.output(f"{name}.png")))
    height, width = size
    lefts = range(0, sheet.shape[1], width)
    return grid_png([sheet[top : top + height, left : left + width] for top in (0, height) for left in lefts], len(lefts))


def _values(score: Score) -> Values:
    interval = "" if score.low is None or score.high is None else f"{_short(score.low)} to {_short(score.high)}"
    return Values(_short(score.value), interval, _short(score.null))


def _short(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def positives_text(manifest: Manifest | None) -> str:
    """The measurements of candidates as the end of a caption; empty where they were not measured."""
    if manifest is None:
        return ""
    scores = manifest.content_as(PositivesQuality).scores
    retrieval, distance = scores["retrieval"], scores["distance"]
    return (
        f"; {100 * retrieval.value:.3g} % have their parent as the nearest real image (chance: {100 * retrieval.null:.2g} %), "
        f"and they are {distance.value:.2g} as far from it as two random images (augmented views: {distance.null:.2g})"
    )
