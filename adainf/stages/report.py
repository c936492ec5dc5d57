"""report: the results as a table and as one self-contained page, ``report/index.html``."""

from __future__ import annotations

from adainf.artifacts import Manifest, Request, Run
from adainf.progress import Reporter
from adainf.recipe import Recipe
from adainf.report.html import render, shown_recipe
from adainf.report.summary import Summary, collect, rows_as_json
from adainf.report.table import results_table

NAME = "report"
PAGE = f"{NAME}/index.html"


def report(recipe: Recipe, run: Run, reporter: Reporter) -> Manifest:
    """Write ``report/``, then print the results. Raises `BadInput` as `chain.require` does."""
    summary = collect(recipe, run)
    request = Request(
        stage="report",
        # The page prints the recipe, so the recipe decides its bytes as much as the artifacts do.
        settings={"name": recipe.name, "arms": list(recipe.arms), "recipe": shown_recipe(recipe)},
        inputs={name: manifest.digest for name, manifest in summary.manifests.items()},
    )
    manifest = run.claim(NAME, request)
    if manifest is not None:
        reporter.say("report: done already (same recipe and inputs); skipped")
    else:
        output = run.write(PAGE, render(summary, run))
        manifest = run.commit(NAME, Manifest(request=request, outputs=[output], content=rows_as_json(summary)))
    _print(summary, run, reporter)
    return manifest


def _print(summary: Summary, run: Run, reporter: Reporter) -> None:
    reporter.console.print(results_table(summary))
    reporter.say(summary.verdict.text)
    reporter.say(f"report: {run.locate(PAGE)}")
