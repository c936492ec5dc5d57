"""theory toy: labelling error, connectivity and the bound on the paper's two Gaussians; needs no run."""

from __future__ import annotations

from rich import box
from rich.table import Table

from adainf.pipeline.progress import Reporter
from adainf.report.theory import toy_figures
from adainf.storage import open_store
from adainf.theory.toy import FEATURES, Toy, measure_toy

SHOWN = FEATURES[0]
"""k of the figures: as many features as there are classes."""


def toy(reporter: Reporter, output: str | None, as_json: bool) -> None:
    """Measure the toy and print what was found; with `output` write ``toy.json`` and four plots into that folder."""
    found = measure_toy()
    if output is not None:
        store = open_store(output)
        for name, data in {"toy.json": found.to_json(), **toy_figures(found, SHOWN)}.items():
            store.put(name, data)
    if as_json:
        print(found.to_json().decode(), end="")
        return
    reporter.console.print(_table(found))
    if output is not None:
        reporter.info(f"theory toy: figures and toy.json in {output}")


def _table(found: Toy) -> Table:
    curves = [curve for curve in found.curves if curve.features == SHOWN]
    title = f"lambda_{SHOWN + 1} and the least bound, two Gaussians, mean over {len(found.seeds)} seeds"
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for heading in ("radius", "alpha", *(f"{curve.points:,} points" for curve in curves)):
        table.add_column(heading, justify="right")
    for place, radius in enumerate(found.radii):
        values = (f"{curve.connectivity[place]:.4f}{'*' if curve.best_radius == radius else ''}" for curve in curves)
        table.add_row(f"{radius:g}", f"{found.labelling_error[place]:.4f}", *values)
    table.caption = "* least bound 4 alpha / lambda + 8 alpha of that many points"
    return table
