"""report: the results as a table and as one self-contained page, ``report/index.html``."""

from __future__ import annotations

import json

from adainf.errors import BadInput
from adainf.pipeline.artifacts import Run
from adainf.pipeline.lifecycle import ArtifactJob
from adainf.pipeline.progress import Reporter
from adainf.pipeline.records import Manifest, Request, sha256
from adainf.recipe import Recipe
from adainf.report.html import render, shown_recipe
from adainf.report.summary import Summary, collect, rows_as_json
from adainf.report.table import results_table

NAME = "report"
PAGE = f"{NAME}/index.html"


def report(recipe: Recipe, run: Run, reporter: Reporter, as_json: bool = False) -> Manifest:
    """Write ``report/``, then print the results as a table or as JSON. A missing or corrupt page is recreated; a report of
    fewer arms is replaced.

    Raises `BadInput` as `graph.require` does, and where the page cannot be recreated with the same bytes.
    """
    summary = collect(recipe, run)
    request = Request(
        stage="report",
        # The page prints the recipe, so the recipe decides its bytes as much as the artifacts do.
        settings={"name": recipe.name, "arms": list(recipe.arms), "recipe": shown_recipe(recipe)},
        inputs={name: manifest.digest for name, manifest in summary.manifests.items()},
    )
    job = ArtifactJob(run, NAME, request, summary.manifests, extends=_extends)
    manifest = job.finished
    if manifest is not None:
        _ensure_page(manifest, summary, run, Reporter(quiet=True) if as_json else reporter)
    else:
        job.claim()
        job.write(PAGE.removeprefix(f"{NAME}/"), render(summary, run))
        manifest = job.commit(rows_as_json(summary))
    if as_json:
        print(json.dumps(rows_as_json(summary), indent=2, ensure_ascii=False))
    else:
        _print(summary, run, reporter)
    return manifest


def _extends(stored: Request, wanted: Request) -> bool:
    """Whether `wanted` covers the artifacts of `stored` and more: arms were added to the recipe."""
    return stored.inputs.items() < wanted.inputs.items()


def _ensure_page(manifest: Manifest, summary: Summary, run: Run, reporter: Reporter) -> None:
    """Recreate the page where it is missing or does not match the manifest."""
    expected = manifest.output(PAGE.removeprefix(f"{NAME}/"))
    try:
        run.read(expected)
    except BadInput:
        page = render(summary, run)
        if sha256(page) != expected.sha256:
            raise BadInput(
                f"{run.locate(PAGE)} is missing or corrupt, and a new page differs from the one in its manifest "
                f"(another version of AdaInf or of a library?); delete {run.locate(NAME)}/ and run `adainf report` again"
            ) from None
        run.write(PAGE, page)
        reporter.info("report: done already (same recipe and inputs), but its page was missing or corrupt; recreated")
    else:
        reporter.info("report: done already (same recipe and inputs); skipped")


def _print(summary: Summary, run: Run, reporter: Reporter) -> None:
    reporter.console.print(results_table(summary))
    reporter.result(summary.conclusion.text)
    reporter.result(f"report: {run.locate(PAGE)}")
