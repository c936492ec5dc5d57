"""Rows of the page's tables: every measure of every arm, and a comparison with published accuracies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adainf.evaluation.accuracy import Accuracy, accuracy_text, percent
from adainf.evaluation.scores import ArmScores
from adainf.recipe import Published
from adainf.report.summary import Row


@dataclass(frozen=True)
class MeasureRow:
    arm: str
    title: str
    accuracy: str
    """The mean over the seeds, in percent."""
    interval: str


def measure_rows(scores: Mapping[str, ArmScores], digits: int) -> list[MeasureRow]:
    """Sorted by measure, so that the arms of a measure are adjacent."""
    rows = []
    for arm, of_arm in scores.items():
        seeds = [seed.measures for seed in of_arm.seeds.values()]
        for position, measures in enumerate(zip(*seeds, strict=True)):  # all seeds have the same measures in the same order
            accuracy = Accuracy(tuple(one.accuracy for one in measures))
            low, high = (percent(end, digits) for end in accuracy.interval(of_arm.test_images))
            rows.append((position, MeasureRow(arm, measures[0].title, percent(accuracy.mean, digits), f"{low} to {high}")))
    return [row for _, row in sorted(rows, key=lambda pair: pair[0])]


def compare_with_published(published: Published | None, rows: Sequence[Row], digits: int) -> list[tuple[str, str, str]]:
    """(arm, accuracy in this run, published accuracy) on the linear probe, for every arm with a published one."""
    measured = {row.name: row.linear for row in rows}
    reference = published.linear_pct if published else {}
    return [(arm, accuracy_text(measured.get(arm), digits), f"{value:g}") for arm, value in reference.items()]
