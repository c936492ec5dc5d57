"""doctor: what this machine, or this pod, lacks for a recipe and a run; each line with the mend.

adainf doctor [RECIPE] [--run URI] [--json]
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from rich.table import Table

from adainf.doctor import machine, run
from adainf.doctor.finding import Finding, failed
from adainf.errors import BadInput
from adainf.pipeline.load_recipe import load_recipe
from adainf.pipeline.progress import Reporter
from adainf.recipe import Recipe

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor(reporter: Reporter, recipe: str | None = None, uri: str | None = None, as_json: bool = False) -> None:
    """Look at everything and print it. Raises `BadInput` where something fails; a warning is none."""
    findings = list(examine(recipe, uri))
    if as_json:
        print(json.dumps([finding._asdict() for finding in findings], indent=2))
    else:
        table = Table("what", "", "found", "mend", box=None)
        for finding in findings:
            table.add_row(finding.what, f"[{_COLOURS[finding.status]}]{finding.status}[/]", finding.found, finding.mend)
        reporter.console.print(table)
    bad = [finding.what for finding in findings if finding.status == "fail"]
    if bad:
        raise BadInput(f"doctor: {', '.join(bad)} {'fails' if len(bad) == 1 else 'fail'}; mend as the lines above say")


def examine(recipe_uri: str | None, uri: str | None) -> Iterator[Finding]:
    """One finding after the other, the cheap ones first."""
    yield from machine.environment()
    yield machine.processors()
    yield from machine.graphics()
    yield machine.shared_memory()
    yield machine.temporary_files()
    recipe: Recipe | None = None
    if recipe_uri is not None:
        try:
            recipe = load_recipe(recipe_uri)
            yield Finding("recipe", "ok", recipe.name)
        except BadInput as error:
            yield failed("recipe", error)
    if uri is None and recipe is not None:
        uri = f"runs/{recipe.name}"
    if uri is not None:
        yield from run.store(uri)
        yield from run.clock(uri)
        if recipe is not None:
            yield from run.cache(uri, recipe)
