"""doctor: checks of this machine (or pod) and of the run's store, each with a fix.

adainf doctor [RECIPE] [--run URI] [--json]
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from rich.table import Table

from adainf.doctor import machine, store
from adainf.doctor.check import Check, failed
from adainf.errors import BadInput
from adainf.pipeline.load_recipe import load_recipe
from adainf.pipeline.progress import Reporter
from adainf.recipe import Recipe

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor(
    reporter: Reporter, recipe: str | None = None, uri: str | None = None, as_json: bool = False, settings: Sequence[str] = ()
) -> None:
    """Run all checks and print the results. Raises `BadInput` if a check fails; a warning does not fail."""
    checks = list(run_checks(recipe, uri, settings))
    if as_json:
        print(json.dumps([check._asdict() for check in checks], indent=2))
    else:
        table = Table("check", "status", "detail", "fix", box=None)
        for check in checks:
            table.add_row(check.name, f"[{_COLOURS[check.status]}]{check.status}[/]", check.detail, check.fix)
        reporter.console.print(table)
    bad = [check.name for check in checks if check.status == "fail"]
    if bad:
        raise BadInput(f"doctor: {', '.join(bad)} {'fails' if len(bad) == 1 else 'fail'}; apply the fixes listed above")


def run_checks(recipe_uri: str | None, uri: str | None, settings: Sequence[str] = ()) -> Iterator[Check]:
    """Run one check after the other, cheap ones first."""
    yield from machine.environment()
    yield machine.cpus()
    yield from machine.gpus()
    yield machine.shared_memory()
    yield machine.temporary_files()
    recipe: Recipe | None = None
    if recipe_uri is not None:
        try:
            recipe = load_recipe(recipe_uri, settings)
            yield Check("recipe", "ok", recipe.name)
        except BadInput as error:
            yield failed("recipe", error)
    if uri is None and recipe is not None:
        uri = f"runs/{recipe.name}"
    if uri is not None:
        yield from store.operations(uri)
        yield from store.clock(uri)
        if recipe is not None:
            yield from store.cache(uri, recipe)
