"""The results as text: the cells that the terminal's table and the page share, and the terminal's table."""

from __future__ import annotations

from rich import box
from rich.table import Table

from adainf.report.summary import Row, Summary
from adainf.report.verdict import Score, digits_for, percent

NOTHING = "–"

COLUMNS = ("arm", "linear\nprobe %", "kNN %", "points\nvs none", "real\nweight", "generated\nshare", "passes per\nreal image")
"""Headings; broken where they fit a terminal of 80 columns."""


def results_table(summary: Summary) -> Table:
    """Arms, untrained encoder and chance: for the end of a command."""
    table = Table(title=_title(summary), box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, padding=(0, 0, 0, 1))
    for number, name in enumerate(COLUMNS):
        table.add_column(name, justify="right" if number else "left", no_wrap=True, vertical="bottom")
    for row in summary.rows:
        # The baselines were not trained: they are there to be compared with.
        table.add_row(*cells(row, digits_for(summary.test_images)), style=None if row.trained else "dim")
    return table


def cells(row: Row, digits: int) -> tuple[str, ...]:
    """A row's texts, in the order of `COLUMNS`."""
    arm = row.trained
    mixed = arm is not None and arm.generated_share > 0
    return (
        row.name,
        score_text(row.linear, digits),
        score_text(row.knn, digits),
        NOTHING if row.difference is None else signed(row.difference, digits),
        f"{arm.real_weight:g}" if arm and mixed else NOTHING,
        NOTHING if arm is None else f"{100 * arm.generated_share:.0f} %",
        NOTHING if arm is None else amount(arm.passes_per_real_image),
    )


def signed(difference: float, digits: int) -> str:
    """A difference of accuracies in points, with its sign; no "-0.0"."""
    shown = f"{100 * difference:+.{digits}f}"
    return shown.replace("-", "−") if float(shown) else f"{0:.{digits}f}"


def amount(value: float) -> str:
    """A count of passes with three digits or more: 0.52, 39.6, 1,024."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def score_text(score: Score | None, digits: int) -> str:
    """In per cent, with the deviation over the seeds."""
    if score is None:
        return NOTHING
    spread = "" if score.deviation is None else f" ± {percent(score.deviation, digits)}"
    return percent(score.mean, digits) + spread


def _title(summary: Summary) -> str:
    if summary.lacking is not None:
        return f"{summary.recipe.name}: {summary.lacking}, so no probe"
    seeds = f"mean ± sample standard deviation over {summary.seeds} seeds" if summary.seeds > 1 else "one seed"
    return f"{summary.recipe.name}: accuracy on {summary.test_images:,} test images, {seeds}"
