"""The command line: ``adainf run RECIPE`` is the whole chain, and each stage is a command of its own."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import yaml

from adainf import __version__, render, stopping
from adainf.artifacts import Run
from adainf.exitcodes import OK, AdaInfError, BadInput, Stopped
from adainf.progress import Reporter
from adainf.recipe import Recipe
from adainf.recipefile import load_recipe

STAGES = {
    "run": "the whole chain: every stage below, in order",
    "ingest": "real images into shards, with held-out splits",
    "fit": "the generator, on the real training images only",
    "generate": "generated images into shards",
    "measure": "quality of the generated images, beside that of real ones",
    "plan": "weight of a real image and strength of augmentation",
    "verify": "short probes around the plan, for arm verified",
    "pretrain": "one encoder per arm and seed",
    "evaluate": "linear probe and nearest neighbours",
    "report": "the results as one HTML page",
}


STAGE_OPTIONS = ("allow_foreign", "arm", "as_json", "seed", "worker")
"""What a stage's function is told beside recipe and run, where its command knows it."""

SHARDS = {
    "ls": "what lies there: sources, shards, samples, bytes, quality, digest, weight in the plan",
    "show": "one sample, with a preview where the terminal can",
    "cat": "one sample's encoded image, to standard output",
    "stats": "channel means, labels and copies",
    "export": "the images as PNG files, or as one .npz",
    "serve": "a web page to look through it all",
    "import": "make a set of an image folder, a .npz or others' tars, as new shards",
    "index": "make a set of a folder of tars that others wrote, where it lies",
    "verify": "check every byte of a set, and decode every image",
}

ENCODERS = {
    "embed": "the features that a finished encoder gives to any images, as one .npz",
    "transfer": "linear probe and nearest neighbours of a finished encoder on another labelled data set",
    "export": "a finished encoder's weights with their card, for use without AdaInf",
}

THEORY = "labelling error and connectivity against augmentation, of a finished run or of the paper's toy"

CLUSTER = {
    "status": "the chain on a cluster: stage, attempt, progress, reason",
    "wait": "until the chain on a cluster is complete (exit code 0) or has failed (1, with the reason)",
}

DOCTOR = "what this machine and a run's store lack, each with its mend"

FOREIGN = "take an external generator that was fitted on other images or on labels; the report will say so"

EPILOG = "Exit codes: 0 done, 64 bad input (never retry), 65 a stage failed for good, 75 interrupted after saving (run again)."


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{self.prog}: {message}; see `{self.prog} --help`")


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="adainf", description="Adaptive data inflation for contrastive learning.", epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"adainf {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, what in STAGES.items():
        stage = commands.add_parser(name, help=what, description=f"{name}: {what}.")
        _add_run_arguments(stage, optional=name == "plan")
        if name == "plan":
            stage.add_argument("--what-if", metavar="NAME=NUMBER,…", help="print the plan for other numbers; makes nothing")
            stage.add_argument("--json", action="store_true", dest="as_json", help="print the plan as JSON")
        if name in ("pretrain", "evaluate"):
            stage.add_argument("--arm", help="only this arm (default: all of the recipe's)")
        if name in ("generate", "evaluate"):
            parts = "shards" if name == "generate" else "arms"
            stage.add_argument(
                "--worker",
                metavar="[K/]N",
                type=_worker,
                default=(0, 1),
                help=f"do {parts} K, K + N, … alone, K from 0; without K it is JOB_COMPLETION_INDEX (default: all {parts})",
            )
        if name == "verify":
            stage.add_argument(
                "--worker", metavar="[K/]N", type=_worker, default=(0, 1), help="share the probes, as generate does the shards"
            )
        if name in ("fit", "generate", "run"):
            stage.add_argument("--allow-foreign", action="store_true", help=FOREIGN)
        if name == "pretrain":
            stage.add_argument("--seed", type=int, help="only this seed (default: all of the recipe's)")
    _add_theory_arguments(commands.add_parser("theory", help=THEORY, description=f"theory: {THEORY}."))
    for name, what in ENCODERS.items():
        _add_encoder_arguments(commands.add_parser(name, help=what, description=f"{name}: {what}."), name)
    for name, what in CLUSTER.items():
        look = commands.add_parser(name, help=what, description=f"{name}: {what}.")
        look.add_argument("-n", "--namespace", help="default: that of the kubeconfig's context")
        look.add_argument("--name", default="adainf", help="of the orchestrator's Job (default: adainf)")
        if name == "wait":
            look.add_argument("--timeout", metavar="S", type=float, dest="timeout_s", help="give up after so many seconds")
    doctor = commands.add_parser("doctor", help=DOCTOR, description=f"doctor: {DOCTOR}.")
    doctor.add_argument("recipe", metavar="RECIPE", nargs="?", help="what it is to be enough for")
    doctor.add_argument("--run", metavar="URI", help="the run whose store is tried (default: runs/NAME)")
    doctor.add_argument("--json", action="store_true", dest="as_json", help="print JSON")
    recipe = commands.add_parser("recipe", help="look at recipes", description="recipe: look at recipes.")
    views = recipe.add_subparsers(dest="view", required=True, metavar="VIEW")
    views.add_parser("schema", help="every setting, as JSON Schema")
    views.add_parser("show", help="a recipe with all defaults filled in").add_argument("recipe")
    render.add_arguments(commands.add_parser("render", help=render.WHAT, description=f"render: {render.WHAT}."))
    shards = commands.add_parser("shards", help="look after sets of shards", description="shards: look after sets of shards.")
    actions = shards.add_subparsers(dest="view", required=True, metavar="ACTION")
    for name, what in SHARDS.items():
        action = actions.add_parser(name, help=what, description=f"{name}: {what}.")
        if name == "import":
            action.add_argument("source", metavar="SOURCE", help="an image folder, a .npz, or a folder or s3://… of tars")
            action.add_argument("--image-size", metavar="PX", type=_pixels, help="bring images to this square")
            action.add_argument("--shard-images", metavar="N", type=_positive, default=10_000, help="default: %(default)d")
        action.add_argument("uri", metavar="URI", help="a folder or s3://bucket/prefix")
        if name == "verify":
            action.add_argument(
                "--regenerate",
                metavar="N",
                type=_positive,
                help="draw N shards of RUN/generated again and compare their pixels",
            )
            action.add_argument("--seed", type=int, help="which ones (default: any; it is told)")
        _add_browse_arguments(action, name)
    return parser


def _add_run_arguments(parser: argparse.ArgumentParser, optional: bool = False) -> None:
    parser.add_argument("recipe", metavar="RECIPE", nargs="?" if optional else None, help="a YAML file; see recipes/")
    parser.add_argument("--run", metavar="URI", help="folder or s3://bucket/prefix of the run (default: runs/NAME)")


def _add_theory_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE|toy", help="a YAML file whose run is finished; or the word toy")
    parser.add_argument("--run", metavar="URI", help="folder or s3://bucket/prefix of the run (default: runs/NAME)")
    parser.add_argument("--arm", help="whose encoder (default: the recipe's first)")
    parser.add_argument("-o", "--output", metavar="FOLDER", help="where to write the toy's figures and numbers")
    parser.add_argument("--json", action="store_true", dest="as_json", help="print JSON")


def _add_encoder_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    stands_alone = command != "export"  # a file of weights says too little of itself for a card
    parser.add_argument("run", metavar="RUN", nargs="?" if stands_alone else None, help="the run that has the encoder")
    parser.add_argument("--arm", required=not stands_alone, help="which of the run's arms")
    parser.add_argument("--seed", type=int, help="which of the arm's seeds (default: the first)")
    if stands_alone:
        parser.add_argument("--encoder", metavar="FILE", help="an encoder.safetensors, instead of RUN")
        parser.add_argument(
            "--data", metavar="URI", required=True, help="RUN/real or any set of shards, an image folder, a .npz"
        )
        parser.add_argument(
            "--image-size", metavar="PX", type=_pixels, help="bring images to this square (default: as they are)"
        )
    if command == "transfer":
        parser.add_argument("--json", action="store_true", dest="as_json", help="print JSON")
    else:
        what = "the .npz to write" if command == "embed" else "the folder to write to"
        parser.add_argument("-o", "--output", metavar="FILE" if command == "embed" else "FOLDER", required=True, help=what)
    if command == "embed":
        parser.add_argument("--split", help="only this split (default: all)")


def _worker(text: str) -> tuple[int, int]:
    index, slash, count = text.rpartition("/")
    if not slash:  # in a pod of an Indexed Job
        index = os.environ.get("JOB_COMPLETION_INDEX", "")
    if not (index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no worker: give K/N with K from 0 to N - 1, or N where JOB_COMPLETION_INDEX is set"
        )
    return int(index), int(count)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 on")
    return int(text)


def _add_browse_arguments(parser: argparse.ArgumentParser, action: str) -> None:
    if action in ("show", "cat"):
        parser.add_argument("sample", metavar="KEY|INDEX", help="a sample's key, or its number in the source")
    if action in ("show", "cat", "stats", "export"):
        parser.add_argument(
            "--source", metavar="NAME", help="as `adainf shards ls` names it, real/train say (default: the first)"
        )
    if action == "export":
        parser.add_argument("-o", "--output", metavar="PATH", required=True, help="the folder to make, or the .npz")
        parser.add_argument("--limit", metavar="N", type=int, help="only the first N images")
    if action == "serve":
        parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: this machine alone)")
        parser.add_argument("--port", type=int, default=8080, help="0 takes a free one (default: 8080)")


def _pixels(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 4096:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of pixels from 1 to 4096")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code and prints any error as one sentence."""
    stopping.install()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a letter is no reason to fail
    try:
        parsed = build_parser().parse_args(arguments)
        if parsed.command == "recipe":
            _show(parsed)
        elif parsed.command == "shards":
            _shards(**vars(parsed))
        elif parsed.command in CLUSTER:
            return _ask_cluster(**vars(parsed)) or OK
        elif parsed.command == "doctor":
            from adainf.doctor import doctor

            doctor(Reporter(), parsed.recipe, parsed.run, parsed.as_json)
        elif parsed.command == "render":
            print(render.from_arguments(parsed), end="")
        elif parsed.command in ENCODERS:
            _use_encoder(**vars(parsed))
        elif parsed.command == "theory":
            _theory(**vars(parsed))
        elif parsed.command == "plan" and parsed.what_if is not None:
            _what_if(parsed)
        elif parsed.recipe is None:
            raise BadInput(f"adainf {parsed.command} needs a RECIPE; see `adainf {parsed.command} --help`")
        else:
            options = {name: value for name, value in vars(parsed).items() if name in STAGE_OPTIONS}
            run_stage(parsed.command, load_recipe(parsed.recipe), parsed.run, **options)
    except (AdaInfError, Stopped) as error:
        sentence = "".join(c if c.isprintable() else " " for c in str(error))  # names of files may hold anything
        print(f"adainf: {sentence}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # whoever read our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return OK


def _show(parsed: argparse.Namespace) -> None:
    if parsed.view == "schema":
        print(json.dumps(Recipe.model_json_schema(), indent=2))
    else:
        print(yaml.safe_dump(load_recipe(parsed.recipe).model_dump(mode="json"), sort_keys=False), end="")


def _shards(command: str, view: str, uri: str, **options: Any) -> None:
    if view == "index":
        from adainf.sources.indexing import index_tars

        index_tars(uri, Reporter())
    elif view == "import":
        from adainf.sources.importing import import_images

        import_images(Reporter(), options["source"], uri, options["image_size"], options["shard_images"])
    elif view == "verify":
        _verify(uri, **options)
    else:
        from adainf.browse import commands

        getattr(commands, view)(Reporter(), uri, **options)


def _verify(uri: str, regenerate: int | None, seed: int | None) -> None:
    from adainf.shards.verify import verify

    verify(uri, Reporter())
    if regenerate is not None:
        from adainf.stages import regenerate as again  # torch takes seconds, and nothing else here needs it

        again.regenerate(uri, regenerate, seed, Reporter())


def _use_encoder(command: str, **options: object) -> None:
    getattr(importlib.import_module(f"adainf.stages.{command}"), command)(Reporter(), **options)


def _theory(command: str, recipe: str, run: str | None, arm: str | None, output: str | None, as_json: bool) -> None:
    if recipe != "toy":
        if output is not None:
            raise BadInput("-o is for the toy alone: figures of a run lie in its theory/; leave it out")
        run_stage(command, load_recipe(recipe), run, arm=arm, as_json=as_json)
        return
    if run is not None or arm is not None:
        raise BadInput("the toy has neither run nor arm: leave --run and --arm out, or give a recipe")
    from adainf.stages.toy import toy

    toy(Reporter(), output, as_json)


def _ask_cluster(command: str, **options: Any) -> int | None:
    try:
        from adainf.orchestrate import status
    except ModuleNotFoundError as error:
        raise BadInput(f"adainf {command} needs {error.name}: pip install 'adainf[orchestrate]'") from None
    return getattr(status, command)(**options)


def _what_if(parsed: argparse.Namespace) -> None:
    from adainf.stages.plan import what_if

    recipe = load_recipe(parsed.recipe) if parsed.recipe else None
    run = Run(parsed.run or f"runs/{recipe.name}") if recipe else None
    what_if(recipe, run, Reporter(), parsed.what_if, parsed.as_json)


def run_stage(command: str, recipe: Recipe, uri: str | None, **options: object) -> None:
    """One stage on one run, by the function of the stage's name. Raises `AdaInfError`."""
    run = Run(uri or f"runs/{recipe.name}")
    reporter = Reporter(run.store, command, quiet=int(os.environ.get("RANK", "0")) > 0)
    # Imported when it is wanted: torch takes seconds, and help and recipes do not need it.
    stage = getattr(importlib.import_module(f"adainf.stages.{command}"), command)
    try:
        stage(recipe, run, reporter, **options)
    except BaseException:
        with contextlib.suppress(AdaInfError):  # the reason why the stage ended counts, not that of its log
            reporter.flush()
        raise
    reporter.flush()
