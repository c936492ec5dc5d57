"""The report's plots as inline SVG: the same data give the same bytes; colours are CSS variables, so the page themes them.

Uses only matplotlib's object interface (no pyplot, no global figure). Text remains text in the font of the page. The layout
uses matplotlib's DejaVu Sans, which is wider than most fonts.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from adainf.augment.profiles import default_views
from adainf.evaluation.accuracy import Accuracy, digits_for, percent
from adainf.inflation.policy import PAPER_MIN_SCALES, PAPER_SIZES, RECIPE_MIN_SCALE, min_scale
from adainf.inflation.record import EFFECTIVE, PAPER_REFERENCE_IMAGES, InflationPlan
from adainf.pipeline.graph import UNTRAINED
from adainf.recipe import Recipe
from adainf.report.summary import CHANCE, Curve, Row

INK, MUTED, FAINT, PAPER = "#1f2328", "#656d78", "#d8dde3", "#fefefd"
ARM_COLOURS = {
    "none": "#6e7681",
    "none-weak": "#3d4d63",
    "vanilla": "#c2660a",
    "reweighted": "#8250df",
    "weak": "#0f7f86",
    "adainf": "#1f6feb",
    "verified": "#bf3989",
    "positives": "#1a7f37",
    "adainf-positives": "#8a6d00",
    "third-view": "#8b5a3c",
    "random-positives": "#c93c37",
    UNTRAINED: "#9a8f80",
}
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    FAINT: "faint",
    PAPER: "card",
    **{colour: f"arm-{arm}" for arm, colour in ARM_COLOURS.items()},
}
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10.5,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",
    "legend.frameon": False,
    "legend.fontsize": 10.5,
}
_DEFAULTS = {name: value for name, value in matplotlib.rcParamsDefault.items() if not name.startswith("backend")}
_LINEAR_OFFSET, _KNN_OFFSET = -0.13, 0.17
"""Of the dots of an arm, below its position on the axis."""
_WIDTH_INCHES = 6.0  # 432 px at 72 px per inch: the width of a column of the page, or of a phone


def loss_curves(by_arm: Mapping[str, Sequence[Curve]]) -> str | None:
    """Contrastive loss by step, one line per arm and seed; None if no arm logged a point."""
    curves = [(arm, curve) for arm, seeds in by_arm.items() for curve in seeds if curve]
    if not curves:
        return None

    def draw(axes: Axes) -> None:
        labelled = set()
        for arm, curve in curves:
            steps, losses = zip(*curve, strict=True)
            label = None if arm in labelled else arm
            axes.plot(steps, losses, color=ARM_COLOURS[arm], label=label, marker=_mark(curve))
            labelled.add(arm)
        axes.set(xlabel="step", ylabel="contrastive loss")
        if len(labelled) > 1:
            axes.legend(loc="upper right")

    return _figure("loss", 3.4, draw)


def generator_curve(curve: Curve) -> str | None:
    """Loss of a generator by step; None for an empty curve."""
    if not curve:
        return None

    def draw(axes: Axes) -> None:
        steps, losses = zip(*curve, strict=True)
        axes.plot(steps, losses, color=INK, marker=_mark(curve))
        axes.set(xlabel="step", ylabel="loss")

    return _figure("generator", 3.4, draw)


def accuracy(rows: Sequence[Row], test_images: int) -> str | None:
    """Linear probe (filled) and kNN (hollow) by arm, with error bars of one standard error; None without labels.

    A dot encodes its value only by position, so the axis need not start at zero. An arrow marks chance outside of the axis.
    """
    arms = [row for row in rows if row.linear and row.name not in (CHANCE, UNTRAINED)]
    if not arms:
        return None
    untrained = next((row for row in rows if row.name == UNTRAINED), None)
    chance = next((row.linear.mean for row in rows if row.name == CHANCE and row.linear), None)

    def draw(axes: Axes) -> None:
        ranges = [_draw_arm(axes, position, row, test_images) for position, row in enumerate(arms)]
        values = [value for pair in ranges for value in pair]
        if untrained and untrained.linear:
            values.append(100 * untrained.linear.mean)
            _mark_untrained(axes, untrained.linear.mean, len(arms), test_images)
        low, high = _axis(values)
        _mark_chance(axes, chance, low, len(arms), test_images)
        axes.set(xlim=(low, high), ylim=(len(arms) - 0.3, -0.85), xlabel="test accuracy, %")
        axes.set_yticks(range(len(arms)), [row.name for row in arms])
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        _accuracy_legend(axes)

    return _figure("accuracy", 1.55 + 0.5 * len(arms), draw)


def crop_policy(plan: InflationPlan, recipe: Recipe) -> str:
    """Min crop scale by effective data size: the policy, the four points of the paper, and the point of this run."""
    reference, base = plan.inputs.reference_images, default_views(recipe.pretrain.augmentation)[0].min_scale
    effective = plan.choice(EFFECTIVE).value
    here = effective / reference
    ratios = np.geomspace(min(0.3, here / 1.5), max(32.0, here * 1.5), 257)
    curve = np.array([min_scale(ratio * reference, reference, base)[0] for ratio in ratios])

    def draw(axes: Axes) -> None:
        if recipe.plan.augmentation_rule == "recipe":
            cap = max(RECIPE_MIN_SCALE, base)
            if curve.max() > cap:
                axes.plot(ratios, curve, color=MUTED, linewidth=1.2, linestyle=(0, (3, 2)), label="crop only")
            axes.plot(ratios, np.minimum(curve, cap), color=MUTED, label="policy, with weaker jitter")
        else:
            axes.plot(ratios, curve, color=MUTED, label="policy")
        paper = [size / PAPER_REFERENCE_IMAGES for size in PAPER_SIZES]
        axes.plot(paper, PAPER_MIN_SCALES, "o", color=PAPER, markeredgecolor=INK, markersize=6, label="the paper's points")
        blue = ARM_COLOURS["adainf"]
        axes.plot([here], [plan.views[0].min_scale], "o", color=blue, markersize=8, label="this run")
        axes.set_xscale("log", base=2)
        axes.set(xlabel="effective images / reference images", ylabel="min crop scale", ylim=(0, None))
        ticks = _powers_of_two(ratios[0], ratios[-1])
        axes.set_xticks(ticks, [f"{tick:g}" if tick >= 1 else f"1/{1 / tick:g}" for tick in ticks], minor=False)
        axes.minorticks_off()
        axes.legend(loc="upper left")

    return _figure("policy", 3.4, draw)


def _powers_of_two(low: float, high: float) -> list[float]:
    """The powers of two in the range, or every second, third … if there are too many labels. Always includes 1."""
    first, last = math.ceil(math.log2(low)), math.floor(math.log2(high))
    stride = math.ceil((last - first + 1) / 8)
    return [2.0**exponent for exponent in range(first, last + 1) if exponent % stride == 0]


def _draw_arm(axes: Axes, position: int, row: Row, test_images: int) -> tuple[float, float]:
    """Draws the dots and error bars of one arm. Returns the smallest and largest percentage drawn."""
    drawn: list[float] = []
    for accuracy, offset, hollow in ((row.linear, _LINEAR_OFFSET, False), (row.knn, _KNN_OFFSET, True)):
        if accuracy is None:
            continue
        colour = ARM_COLOURS[row.name]
        centre, error = 100 * accuracy.mean, 100 * accuracy.standard_error(test_images)
        axes.errorbar(
            centre,
            position + offset,
            xerr=error,
            fmt="o",
            markersize=6.5,
            color=colour,
            markerfacecolor=PAPER if hollow else colour,
            elinewidth=1.3,
        )
        _write_value(axes, accuracy, position + offset, centre + error, test_images)
        drawn += [centre - error, centre + error]
    return min(drawn), max(drawn)


def _write_value(axes: Axes, accuracy: Accuracy, position: float, right: float, test_images: int) -> None:
    text = percent(accuracy.mean, digits_for(test_images))
    axes.annotate(text, (right, position), (5, 0), textcoords="offset points", va="center", fontsize=9.5, color=MUTED)


def _mark_untrained(axes: Axes, linear: float, arms: int, test_images: int) -> None:
    """Draws the linear probe of the untrained encoder beside the linear probes only, as a line across the dot of each arm."""
    centres = np.arange(arms) + _LINEAR_OFFSET
    axes.vlines([100 * linear] * arms, centres - 0.14, centres + 0.14, color=MUTED, linewidth=1)
    _name_level(axes, linear, "untrained", " (linear probe)", test_images)


def _mark_level(axes: Axes, value: float, name: str, arms: int, test_images: int) -> None:
    """Draws a vertical line across all arms, with its name above."""
    axes.vlines(100 * value, -0.45, arms - 0.65, color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
    _name_level(axes, value, name, "", test_images)


def _name_level(axes: Axes, value: float, name: str, suffix: str, test_images: int) -> None:
    text = f"{name} {percent(value, digits_for(test_images))}{suffix}"
    axes.annotate(text, (100 * value, -0.62), ha="center", va="center", fontsize=9.5, color=MUTED)


def _mark_chance(axes: Axes, chance: float | None, low: float, arms: int, test_images: int) -> None:
    """Draws chance as a line or, outside of the axis, as an arrow at the bottom left."""
    if chance is None:
        return
    if 100 * chance >= low:
        _mark_level(axes, chance, "chance", arms, test_images)
        return
    text = f"← chance {percent(chance, digits_for(test_images))}"
    axes.annotate(text, (low, arms - 0.5), (2, 0), textcoords="offset points", va="center", fontsize=9.5, color=MUTED)


def _accuracy_legend(axes: Axes) -> None:
    for label, face in (("linear probe", MUTED), ("kNN", PAPER)):
        axes.plot([], [], "o", color=MUTED, markerfacecolor=face, markersize=6.5, label=label)
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0, handletextpad=0.2)


def _axis(values: Sequence[float]) -> tuple[float, float]:
    """Axis limits in percent: with a margin for the labels, at least five points wide, within the possible range."""
    low, high = min(values), max(values)
    margin = max(0.18 * (high - low), (5 - (high - low)) / 2, 0.5)
    return max(low - margin, -2.0), min(high + margin, 103.0)


def _mark(curve: Curve) -> str:
    return "o" if len(curve) == 1 else ""  # a line of one point is invisible


def style(name: str) -> AbstractContextManager[None]:
    """The style of all plots, independent of the user's matplotlibrc, so that the same data give the same bytes."""
    settings: Any = {**_DEFAULTS, **_STYLE, "svg.hashsalt": f"adainf-{name}"}
    return matplotlib.rc_context(settings)


def _figure(name: str, height_inches: float, draw: Callable[[Axes], None]) -> str:
    """One plot, drawn by `draw`. `name` makes the ids inside the SVG unique within the page."""
    with style(name):
        figure = Figure(figsize=(_WIDTH_INCHES, height_inches), layout="constrained")
        draw(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _for_inlining(buffer.getvalue())


def _for_inlining(svg: str) -> str:
    """The bare <svg> element: sized by the page, coloured by its variables, without ids that two plots could share."""
    # Its <style> would apply to the complete page, which has its own style for plots.
    svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    size = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert size is not None
    width, height = (math.ceil(float(value)) for value in size.groups())
    svg = f'<svg viewBox="0 0 {width} {height}" aria-hidden="true">' + svg[svg.index(">") + 1 :]
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable}, {colour})")
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)  # the font of the page, in the size of the layout
    return re.sub(r"font-family: [^;\"]*;? ?", "", svg).strip()
