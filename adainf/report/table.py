"""The results table: its cells as text, for the terminal and the page, and the table for the terminal."""

from __future__ import annotations

from rich import box
from rich.table import Table

from adainf.evaluation.accuracy import NOT_AVAILABLE, accuracy_text, amount, digits_for, share_text, weight_text
from adainf.report.summary import Row, Summary

COLUMNS = ("arm", "linear\nprobe %", "kNN %", "points\nvs none", "real\nweight", "generated\nshare", "passes per\nreal image")
"""Column headers, with line breaks that fit a terminal of 80 columns."""


def results_table(summary: Summary) -> Table:
    """The table that a command prints at its end: arms, untrained encoder and chance."""
    table = Table(title=_title(summary), box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False, padding=(0, 0, 0, 1))
    if summary.linked:
        pairs = ", ".join(f"{arm} = {other}" for arm, other in summary.linked.items())
        table.caption, table.caption_justify = f"{pairs}: linked, not trained again", "left"
    for number, name in enumerate(COLUMNS):
        table.add_column(name, justify="right" if number else "left", no_wrap=True, vertical="bottom")
    for row in summary.rows:
        # The baselines are dimmed: they were not trained.
        table.add_row(*cells(row, digits_for(summary.test_images)), style=None if row.trained else "dim")
    return table


def cells(row: Row, digits: int) -> tuple[str, ...]:
    """The cells of a row, in the order of `COLUMNS`."""
    arm = row.trained
    return (
        row.name,
        accuracy_text(row.linear, digits),
        accuracy_text(row.knn, digits),
        NOT_AVAILABLE if row.difference is None else signed(row.difference, digits),
        NOT_AVAILABLE if arm is None else weight_text(arm.real_weight, arm.generated_share),
        NOT_AVAILABLE if arm is None else share_text(arm.generated_share),
        NOT_AVAILABLE if arm is None else amount(arm.passes_per_real_image),
    )


def signed(difference: float, digits: int) -> str:
    """A difference of accuracies in percentage points, with its sign; never "-0.0"."""
    shown = f"{100 * difference:+.{digits}f}"
    return shown.replace("-", "−") if float(shown) else f"{0:.{digits}f}"


def _title(summary: Summary) -> str:
    if summary.no_probe_reason is not None:
        return f"{summary.recipe.name}: {summary.no_probe_reason}, so no probe"
    seeds = f"mean ± sample standard deviation over {summary.seeds} seeds" if summary.seeds > 1 else "one seed"
    return f"{summary.recipe.name}: accuracy on {summary.test_images:,} test images, {seeds}"
