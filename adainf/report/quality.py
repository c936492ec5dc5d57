"""The measured quality of the generated images as the page shows it: a table with nulls, and the extremes side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from adainf.pipeline.artifacts import Manifest, Run
from adainf.quality.record import Quality, Score, score_name
from adainf.report.grids import grid_png
from adainf.shards.format.png import decode_image

_BY_SPACE = {
    "coverage": "Share of the real images that have a generated one close by: how much of their variety is there. Whether "
    "to inflate at all hangs on this one, and with the classifier below the weight.",
    "fd": "Fréchet distance, less is better. Ranks states of one generator. On features of Inception it is the FID.",
    "kd": "Kernel distance, unbiased: 0 where nothing differs, and at times below. On features of Inception it is the KID.",
    "precision": "Share of the generated images that lie among real ones. Bad generators can have much of it.",
    "recall": "Share of the real images that lie among generated ones. Scattered images can have much of it.",
    "density": "How many real images a generated one lies close to, beside how many real ones do: 1 is usual.",
    "classifier": "Balanced accuracy of a linear classifier that tells generated from real images; 0.5 is chance.",
    "total_variation": "How far apart the two distributions are at least, from 0 to 1, as that classifier shows.",
    "authenticity": "Share of images that are farther from their nearest training image than that one is from its own "
    "nearest (AuthPct). Only less than real images have says something: copies.",
}
_OF_PIXELS = {
    "copy_rate": "Share of images that are three times nearer to one training image than to any other.",
    "authenticity_pixels": "AuthPct by distance in pixels.",
    "exact_copy_rate": "Share of images that are a training image, pixel by pixel.",
    "duplicate_rate": "Share of images that an earlier one of them equals, pixel by pixel; real ones are the training split.",
}


class Numbers(NamedTuple):
    generated: str
    interval: str
    """Empty where none is known."""
    real: str


@dataclass(frozen=True)
class Line:
    name: str
    numbers: list[Numbers]
    """One of each space."""
    meaning: str


def by_space(quality: Quality) -> list[Line]:
    """A line for each metric, with its numbers in the spaces of `quality`, in their order."""
    return [
        Line(
            metric,
            [_numbers(quality.scores[score_name(metric, space)]) for space in quality.spaces],
            meaning,
        )
        for metric, meaning in _BY_SPACE.items()
    ]


def of_pixels(quality: Quality) -> list[Line]:
    """A line for each number that is about pixels."""
    return [Line(name, [_numbers(quality.scores[name])], meaning) for name, meaning in _OF_PIXELS.items()]


def shards_text(quality: Quality) -> str:
    """How far the shards differ."""
    space = quality.primary_space
    fd, coverage = quality.shards.fd[space], quality.shards.coverage[space]
    return (
        f"Shard by shard (there are {len(fd):,}), coverage_{space} is {min(coverage):.3g} to {max(coverage):.3g} and "
        f"fd_{space} {min(fd):.4g} to {max(fd):.4g}."
    )


def extremes(run: Run, manifest: Manifest, name: str, size: tuple[int, int]) -> bytes | None:
    """The sheet `name` (``best`` or ``worst``), of images of `size` (height, width), as a PNG for the page."""
    sheet = decode_image(run.read(manifest.output(f"{name}.png")))
    height, width = size
    lefts = range(0, sheet.shape[1], width)
    return grid_png([sheet[top : top + height, left : left + width] for top in (0, height) for left in lefts], len(lefts))


def _numbers(score: Score) -> Numbers:
    interval = "" if score.low is None or score.high is None else f"{_short(score.low)} to {_short(score.high)}"
    return Numbers(_short(score.value), interval, _short(score.null))


def _short(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")
