"""Every measure of every arm as texts, for the page; the results table has the two that matter most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adainf.evaluation.scores import ArmScores
from adainf.recipe import Published
from adainf.report.summary import Row
from adainf.report.table import score_text
from adainf.report.verdict import Score, percent


@dataclass(frozen=True)
class Line:
    arm: str
    title: str
    accuracy: str
    """The mean over the seeds, in per cent."""
    interval: str


def measured(scores: Mapping[str, ArmScores], digits: int) -> list[Line]:
    """Measure by measure, so that the arms stand below each other."""
    lines = []
    for arm, judged in scores.items():
        seeds = [seed.measures for seed in judged.seeds.values()]
        for place, measures in enumerate(zip(*seeds, strict=True)):  # one protocol, so the same measures in the same order
            score = Score(tuple(one.accuracy for one in measures))
            low, high = (percent(end, digits) for end in score.interval(judged.test_images))
            lines.append((place, Line(arm, measures[0].title, percent(score.mean, digits), f"{low} to {high}")))
    return [line for _, line in sorted(lines, key=lambda line: line[0])]


def beside_published(published: Published | None, rows: Sequence[Row], digits: int) -> list[tuple[str, str, str]]:
    """Arm, our linear probe and the published one, for every arm that has the latter; ours is empty where it was not run."""
    ours = {row.name: row.linear for row in rows}
    given = published.linear_pct if published else {}
    return [(arm, score_text(ours.get(arm), digits), f"{value:g}") for arm, value in given.items()]
