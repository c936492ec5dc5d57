"""Figures of the theory as PNG: four for the toy data, three for a run."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from adainf.report.figures import ARM_COLOURS, INK, PAPER, style
from adainf.theory.record import Theory
from adainf.theory.toy import Toy, ToyCurve

_SHADES = ("#b6d4fe", "#74a9f7", "#1f6feb", "#0b3d91")
_COLOURS = {"real": ARM_COLOURS["none"], "inflated": ARM_COLOURS["adainf"], "more real": ARM_COLOURS["vanilla"]}


def toy_figures(toy: Toy, features: int) -> dict[str, bytes]:
    """File name → PNG of four plots; connectivity and bound are those of k = `features`."""
    curves = [curve for curve in toy.curves if curve.features == features]
    radii, symbol = toy.radii, rf"$\lambda_{{{features + 1}}}$"

    def by_radius(axes: Axes, values: Callable[[ToyCurve], list[float]]) -> None:
        for colour, curve in zip(_shades(len(curves)), curves, strict=True):
            axes.plot(radii, values(curve), color=colour, marker="o", markersize=3, label=f"{curve.points:,} points")
        axes.set_xlabel("augmentation radius")

    def error(axes: Axes) -> None:
        axes.plot(radii, toy.labelling_error, color=INK, marker="o", markersize=3)
        axes.set(xlabel="augmentation radius", ylabel=r"labelling error $\alpha$", ylim=(0, None))

    def connectivity(axes: Axes) -> None:
        by_radius(axes, lambda curve: curve.connectivity)
        axes.set_ylabel(f"connectivity {symbol}")
        _legend(axes)

    def by_points(axes: Axes) -> None:
        chosen = range(2, len(radii), 2)
        for colour, index in zip(_shades(len(chosen)), chosen, strict=True):
            values = [curve.connectivity[index] for curve in curves]
            axes.plot([curve.points for curve in curves], values, color=colour, marker="o", label=f"radius {radii[index]:g}")
        axes.set(xlabel="points", ylabel=f"connectivity {symbol}", xscale="log")
        _legend(axes)

    def bound(axes: Axes) -> None:
        by_radius(axes, lambda curve: [math.nan if value is None else value for value in curve.bound])
        for colour, curve in zip(_shades(len(curves)), curves, strict=True):
            least = min(value for value in curve.bound if value is not None)
            axes.plot([curve.best_radius], [least], "o", color=colour, markerfacecolor=PAPER, markersize=8)
        axes.set(ylabel=rf"bound $4\alpha / ${symbol}$ + 8\alpha$", yscale="log")
        _legend(axes)

    drawn = {"labelling-error": error, "connectivity": connectivity, "connectivity-by-points": by_points, "bound": bound}
    return {f"toy-{name}.png": _png(draw) for name, draw in drawn.items()}


def run_figures(theory: Theory) -> dict[str, bytes]:
    """File name → PNG: labelling error, ACR and connectivity by the crop's min scale, with strong crops at the right."""
    scales = [rung.min_scale for rung in theory.rungs]

    def error(axes: Axes) -> None:
        axes.plot(scales, [rung.labelling_error for rung in theory.rungs], color=INK, marker="o")
        axes.set(ylabel=r"labelling error $\alpha$", ylim=(0, None))

    def confusion(axes: Axes) -> None:
        for name, colour in _COLOURS.items():
            graphs = [rung.graphs[name] for rung in theory.rungs if name in rung.graphs]
            if graphs:
                axes.plot(scales, [graph.acr for graph in graphs], color=colour, marker="o", label=name)
                axes.plot(scales, [graph.acr_untrained for graph in graphs], color=colour, linestyle="--")
        axes.set(ylabel="ACR (dashed: untrained encoder)", ylim=(0, 1))
        _legend(axes)

    def connectivity(axes: Axes) -> None:
        for name, colour in _COLOURS.items():
            values = [rung.graphs[name].connectivity for rung in theory.rungs if name in rung.graphs]
            if values:
                axes.plot(scales, values, color=colour, marker="o", label=name)
        axes.set(ylabel=rf"connectivity $\lambda_{{{theory.features + 1}}}$", ylim=(0, None))
        _legend(axes)

    def against_scale(draw: Callable[[Axes], None]) -> Callable[[Axes], None]:
        def drawn(axes: Axes) -> None:
            draw(axes)
            axes.set(xlabel="min scale of the crop (stronger →)", xscale="log")
            axes.set_xticks(scales, [f"{scale:g}" for scale in scales])
            axes.minorticks_off()
            axes.invert_xaxis()

        return drawn

    drawn = {"labelling-error": error, "acr": confusion, "connectivity": connectivity}
    return {f"{name}.png": _png(against_scale(draw)) for name, draw in drawn.items()}


def _shades(count: int) -> list[str]:
    """Shades from light (smallest) to dark (largest)."""
    return [_SHADES[min(index, len(_SHADES) - 1)] for index in range(count)]


def _legend(axes: Axes) -> None:
    """Draws the legend above the plot, where it covers no line."""
    columns = 3 if len(axes.get_legend_handles_labels()[0]) == 3 else 2
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0, columnspacing=1.2)


def _png(draw: Callable[[Axes], None]) -> bytes:
    with style("theory"):
        figure = Figure(figsize=(5.0, 3.4), layout="constrained", facecolor=PAPER)
        draw(figure.add_subplot(facecolor=PAPER))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None}, dpi=120)
        return buffer.getvalue()
