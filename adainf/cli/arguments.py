"""The commands and their options, as the command line has them; what they do is in `cli`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import NoReturn

from adainf import __version__
from adainf.errors import BadInput
from adainf.kubernetes import render
from adainf.pipeline.stages import STAGES

RUN = "run all stages, in order, on this machine"
WORKER = {
    "generate": "write shards K, K + N, … only, K from 0; without K it is JOB_COMPLETION_INDEX (default: all shards)",
    "verify": "share the probes, as generate shares the shards (default: all probes)",
    "evaluate": "evaluate arms K, K + N, … only, K from 0; without K it is JOB_COMPLETION_INDEX (default: all arms)",
}

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

EPILOG = (
    "Exit codes: 0 done, 64 bad input (never retry), 65 a stage failed for good, 66 another start of the stage goes on, 75 "
    "interrupted after saving (run again)."
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{self.prog}: {message}; see `{self.prog} --help`")


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="adainf", description="Adaptive data inflation for contrastive learning.", epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"adainf {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_stage_arguments(commands.add_parser("run", help=RUN, description=f"run: {RUN}."), "run", ("allow_foreign",))
    for stage in STAGES.values():
        command = commands.add_parser(stage.name, help=stage.help, description=f"{stage.name}: {stage.help}.")
        _add_stage_arguments(command, stage.name, stage.options)
    _add_theory_arguments(commands.add_parser("theory", help=THEORY, description=f"theory: {THEORY}."))
    for name, what in ENCODERS.items():
        _add_encoder_arguments(commands.add_parser(name, help=what, description=f"{name}: {what}."), name)
    for name, what in CLUSTER.items():
        look = commands.add_parser(name, help=what, description=f"{name}: {what}.")
        look.add_argument("-n", "--namespace", help="default: that of the kubeconfig's context")
        look.add_argument("--name", default="adainf", help="of the controller's Job (default: adainf)")
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
                help="draw N shards of RUN/generated (or RUN/generated/NAME) again and compare their pixels",
            )
            action.add_argument("--seed", type=int, help="which ones (default: any; it is told)")
        _add_browse_arguments(action, name)
    return parser


def _add_stage_arguments(parser: argparse.ArgumentParser, command: str, options: Sequence[str]) -> None:
    _add_run_arguments(parser, optional=command == "plan")
    if command == "plan":
        parser.add_argument("--what-if", metavar="NAME=NUMBER,…", help="print the plan for other numbers; writes nothing")
    for option in options:
        match option:
            case "arm":
                parser.add_argument("--arm", help="only this arm (default: all of the recipe's)")
            case "seed":
                parser.add_argument("--seed", type=int, help="only this seed (default: all of the recipe's)")
            case "worker":
                parser.add_argument("--worker", metavar="[K/]N", type=_worker, default=(0, 1), help=WORKER[command])
            case "allow_foreign":
                parser.add_argument("--allow-foreign", action="store_true", help=FOREIGN)
            case "as_json":
                parser.add_argument("--json", action="store_true", dest="as_json", help="print JSON")


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
