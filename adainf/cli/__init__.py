"""The command line: ``adainf run RECIPE`` runs the complete pipeline, and each stage is a command of its own."""

from __future__ import annotations

import argparse
import importlib
import io
import json
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

import yaml

from adainf.cli.arguments import CLUSTER, ENCODERS, RUNS, build_parser
from adainf.errors import OK, AdaInfError, AdaInfWarning, BadInput, Stopped
from adainf.kubernetes import render
from adainf.pipeline.artifacts import Run
from adainf.pipeline.load_recipe import check_external, load_recipe
from adainf.pipeline.progress import Reporter, Verbosity, set_verbosity, verbosity
from adainf.pipeline.variants import find_place, from_run
from adainf.recipe import Recipe
from adainf.recipe.sections import ALL_SETTINGS
from adainf.runtime import environment, signals


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code; prints an error as one sentence."""
    signals.install()
    warnings.formatwarning = _format_warning
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a character that the terminal cannot encode must not fail the command
    set_verbosity(Verbosity.NORMAL)
    try:
        parsed = build_parser().parse_args(arguments)
        set_verbosity(vars(parsed).pop("verbosity", Verbosity.NORMAL))
        if parsed.command == "recipe":
            _show_recipe(parsed)
        elif parsed.command == "shards":
            _shards(**vars(parsed))
        elif parsed.command in CLUSTER:
            return _query_cluster(**vars(parsed)) or OK
        elif parsed.command == "doctor":
            from adainf.doctor import doctor

            doctor(Reporter(), parsed.recipe, parsed.run, parsed.as_json, parsed.settings)
        elif parsed.command == "init":
            from adainf.cli.init import init  # reads images: a tenth of a second that other commands need not wait

            init(Reporter(), parsed.uri, parsed.output, parsed.method, parsed.gpu)
        elif parsed.command in RUNS:
            _use_runs(**vars(parsed))
        elif parsed.command == "render":
            print(render.from_arguments(parsed), end="")
        elif parsed.command in ENCODERS:
            _use_encoder(**vars(parsed))
        elif parsed.command == "theory":
            _theory(**vars(parsed))
        elif parsed.command == "plan" and parsed.what_if is not None:
            _what_if(parsed)
        elif parsed.recipe is None:
            raise BadInput(f"adainf {parsed.command}: RECIPE is missing; see `adainf {parsed.command} --help`")
        else:
            given = vars(parsed)
            handled = {"command", "recipe", "run", "what_if", "settings", "allow_external"}
            options = {name: given[name] for name in given.keys() - handled}
            recipe = load_recipe(parsed.recipe, parsed.settings)
            if "allow_external" in given:
                check_external(parsed.recipe, recipe, parsed.allow_external)
            run_stage(parsed.command, recipe, parsed.run, **options)
    except (AdaInfError, Stopped) as error:
        sentence = "".join(c if c.isprintable() else " " for c in str(error))  # file names may contain control characters
        if verbosity() == Verbosity.VERBOSE:
            traceback.print_exc()
        print(f"adainf: {sentence}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # the reader of our output has exited, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return OK


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """One line for our own warnings, without the place in the code; others as Python prints them."""
    if issubclass(category, AdaInfWarning):
        return f"adainf: warning: {message}\n"
    return f"{filename}:{lineno}: {category.__name__}: {message}\n"


def _show_recipe(parsed: argparse.Namespace) -> None:
    if parsed.view == "schema":
        print(json.dumps(Recipe.model_json_schema(), indent=2))
    else:
        settings = load_recipe(parsed.recipe, parsed.settings).model_dump(mode="json", context=ALL_SETTINGS)
        print(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True), end="")


def _shards(command: str, view: str, uri: str, **options: Any) -> None:
    if view == "index":
        from adainf.shards.format.folder import is_set
        from adainf.sources.indexing import index_tars

        other, reporter = options["other"], Reporter()
        if other is None or not is_set(uri):
            index_tars(uri, reporter, _fields(options), options["skip"])
        if other is not None:
            from adainf.sources.other_indexes import write_indexes

            write_indexes(uri, other, reporter)
    elif view == "import":
        from adainf.sources.importing import import_images

        given = options["source"], uri, options["image_size"], options["shard_images"]
        import_images(Reporter(), *given, _fields(options), options["skip"])
    elif view == "verify":
        _verify(uri, **options)
    else:
        from adainf.browse import commands

        getattr(commands, view)(Reporter(), uri, **options)


def _fields(options: dict[str, Any]) -> Any:
    from adainf.shards.format.samples import Fields

    return Fields(options["image_field"], options["label_field"], options["text_field"])


def _verify(uri: str, regenerate: int | None, seed: int | None) -> None:
    from adainf.shards.format.verify import verify

    verify(uri, Reporter())
    if regenerate is not None:
        from adainf.stages import regenerate as stage  # imports torch, which takes seconds and which only this option needs

        stage.regenerate(uri, regenerate, seed, Reporter())


def _use_encoder(command: str, **options: object) -> None:
    environment.check_launch()
    getattr(importlib.import_module(f"adainf.stages.{command}"), command)(Reporter(), **options)


def _use_runs(command: str, **options: Any) -> None:
    from adainf.cli import runs

    getattr(runs, command)(Reporter(), **options)


def _theory(
    command: str, recipe: str, run: str | None, arm: str | None, output: str | None, as_json: bool, settings: Sequence[str]
) -> None:
    if recipe != "toy":
        if output is not None:
            raise BadInput("-o applies only to the toy; leave it out: figures of a run are written to its theory/")
        run_stage(command, load_recipe(recipe, settings), run, arm=arm, as_json=as_json)
        return
    if run is not None or arm is not None or settings:
        raise BadInput("--run, --arm and --set do not apply to the toy; leave them out, or pass a recipe instead of toy")
    from adainf.stages.toy import toy

    toy(Reporter(), output, as_json)


def _query_cluster(command: str, **options: Any) -> int | None:
    try:
        from adainf.kubernetes.controller import clean, status
    except ModuleNotFoundError as error:
        raise BadInput(f"adainf {command} requires {error.name}; run pip install 'adainf[kubernetes]'") from None
    return getattr(clean if command == "clean" else status, command)(**options)


def _what_if(parsed: argparse.Namespace) -> None:
    from adainf.stages.plan import what_if

    recipe = load_recipe(parsed.recipe, parsed.settings) if parsed.recipe else None
    run = find_place(recipe, Run(parsed.run or f"runs/{recipe.name}"), create=False).run if recipe else None
    what_if(recipe, run, Reporter(), parsed.what_if, parsed.as_json)


def run_stage(command: str, recipe: Recipe, uri: str | None, **options: object) -> None:
    """Run one stage on one run. Raises `AdaInfError`."""
    environment.check_launch()
    place = find_place(recipe, Run(uri or f"runs/{recipe.name}"), create=command == "run")
    run = place.run
    if command == "run":
        reused = options.pop("from_run")
        options["others"] = (*place.others, *(from_run(str(reused)) if reused else ()))
    reporter = Reporter(run.store, command, quiet=int(os.environ.get("RANK", "0")) > 0)
    if place.reason and not options.get("as_json"):
        reporter.info(f"{command}: {place.reason}; this recipe's artifacts are in {run.uri}")
    # Imported when it is wanted: torch takes seconds, and help and recipes do not need it.
    stage = getattr(importlib.import_module(f"adainf.stages.{command}"), command)
    try:
        stage(recipe, run, reporter, **options)
    finally:
        reporter.close()
