"""The argument parser: every command and its options. `cli` dispatches the parsed arguments."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from adainf import __version__
from adainf.cli.parser import Parser
from adainf.cli.starter import METHODS
from adainf.cli.values import address, field, job_name, pixels, positive, worker
from adainf.kubernetes import render
from adainf.pipeline.stages import STAGES

RUN = "run all stages in order on this machine"
WORKER = {
    "positives": "write only shards K, K + N, … of all candidates; without K/, K is JOB_COMPLETION_INDEX (default: all shards)",
    "generate": "write only shards K, K + N, …; without K/, K is JOB_COMPLETION_INDEX (default: all shards)",
    "verify": "run only probes K, K + N, …; without K/, K is JOB_COMPLETION_INDEX (default: all probes)",
    "evaluate": "evaluate only arms K, K + N, …; without K/, K is JOB_COMPLETION_INDEX (default: all arms)",
}

SHARDS = {
    "ls": "list the sources with shards, samples, bytes, weight in the plan, quality score and digest",
    "show": "show the metadata of one sample, with a preview in the terminal",
    "cat": "write the encoded image of one sample to standard output",
    "stats": "print channel means, label counts and exact duplicates",
    "export": "export images as PNG files or as one .npz",
    "serve": "serve a web page for browsing a run or a shard set",
    "import": "convert an image folder, a .npz or WebDataset tars into a shard set",
    "index": "index existing WebDataset tars in place, as a shard set",
    "verify": "verify every checksum of a shard set and decode every image",
}

ENCODERS = {
    "embed": "compute the features of any images with a trained encoder, as one .npz",
    "transfer": "evaluate a trained encoder on another labelled dataset: linear probe and nearest neighbours",
    "export": "export the weights and the model card of a trained encoder, for use without AdaInf",
}

THEORY = "measure labelling error and connectivity by augmentation strength, on a finished run or on the paper's toy data"

CEILING = "measure what inflation can gain at most, with real images in place of generated ones, before a generator is fitted"

CLUSTER = {
    "status": "show the pipeline on a cluster: stage, attempt, progress, reason",
    "wait": "wait until the pipeline on a cluster completes (exit code 0) or fails (1, with the reason); print changes",
    "clean": "delete the objects of an ended pipeline from a cluster; the run stays",
}

DOCTOR = "run checks of this machine and of the run's store, each with a fix"

EXTERNAL = "run the program of an external generator although the recipe is an object in a store"
FOREIGN = "accept an external generator that was fitted on other images or on labels; the report states it"

EPILOG = (
    "Exit codes: 0 success; 64 bad input (do not retry); 65 stage failed (do not retry); 66 superseded by another attempt of "
    "the stage (do not retry); 75 interrupted (run again to resume)."
)


RUNS = {
    "ls": "list runs and their variants with sizes",
    "gc": "list what can be deleted from runs, with sizes, and delete it with --delete",
    "compare": "compare runs: the settings that differ, and the differences of their arms with intervals",
}

INIT = "inspect images and write a short recipe that runs, with the reason for each choice"


_RECIPE = ("RECIPE", "recipe: a YAML file, or the name of one that AdaInf provides, such as demo")
"""Name and help of the argument."""


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="adainf", description="Adaptive data inflation for contrastive learning.", epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"adainf {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_init_arguments(commands.add_parser("init", help=INIT, description=f"init: {INIT}."))
    _add_stage_arguments(commands.add_parser("run", help=RUN, description=f"run: {RUN}."), "run", ("allow_foreign",))
    for stage in STAGES.values():
        command = commands.add_parser(stage.name, help=stage.help, description=f"{stage.name}: {stage.help}.")
        _add_stage_arguments(command, stage.name, stage.options)
    _add_theory_arguments(commands.add_parser("theory", help=THEORY, description=f"theory: {THEORY}."))
    _add_ceiling_arguments(commands.add_parser("ceiling", help=CEILING, description=f"ceiling: {CEILING}."))
    for name, what in ENCODERS.items():
        _add_encoder_arguments(commands.add_parser(name, help=what, description=f"{name}: {what}."), name)
    for name, what in RUNS.items():
        _add_runs_arguments(commands.add_parser(name, help=what, description=f"{name}: {what}."), name)
    for name, what in CLUSTER.items():
        look = commands.add_parser(name, help=what, description=f"{name}: {what}.")
        look.add_argument("-n", "--namespace", help="namespace (default: that of the kubeconfig's context)")
        look.add_argument("--name", type=job_name, default="adainf", help="name of the controller's Job (default: adainf)")
        if name == "status":
            look.add_argument("--json", action="store_true", dest="as_json", help="print JSON")
        if name == "wait":
            look.add_argument("--timeout", metavar="S", type=float, dest="timeout_s", help="give up after S seconds")
        if name == "clean":
            look.add_argument("--store", action="store_true", help="also delete a store in the cluster, with the run")
            look.add_argument("--dry-run", action="store_true", help="only print what would be deleted")
    doctor = commands.add_parser("doctor", help=DOCTOR, description=f"doctor: {DOCTOR}.")
    doctor.add_argument("recipe", metavar="RECIPE", nargs="?", help="also check the requirements of this recipe")
    doctor.add_argument("--run", metavar="URI", type=address, help="check the store of this run (default: runs/NAME)")
    _add_set(doctor)
    doctor.add_argument("--json", action="store_true", dest="as_json", help="print JSON")
    recipe = commands.add_parser("recipe", help="inspect recipes", description="recipe: inspect recipes.")
    views = recipe.add_subparsers(dest="view", required=True, metavar="VIEW")
    views.add_parser("schema", help="print every setting as JSON Schema")
    show = views.add_parser("show", help="print a recipe with all defaults filled in")
    show.add_argument("recipe", metavar="RECIPE")
    _add_set(show)
    render.add_arguments(commands.add_parser("render", help=render.WHAT, description=f"render: {render.WHAT}."))
    shards = commands.add_parser("shards", help="manage shard sets", description="shards: manage shard sets.")
    actions = shards.add_subparsers(dest="view", required=True, metavar="ACTION")
    for name, what in SHARDS.items():
        action = actions.add_parser(name, help=what, description=f"{name}: {what}.")
        if name == "import":
            action.add_argument(
                "source", metavar="SOURCE", help="an image folder, a .npz, tars (folder, .tar or pattern); or s3://…"
            )
            action.add_argument("--image-size", metavar="PX", type=pixels, help="resize images to PX x PX")
            action.add_argument(
                "--shard-images", metavar="N", type=positive, default=10_000, help="images per shard (default: %(default)d)"
            )
        if name in ("import", "index"):
            _add_tar_arguments(action)
        if name == "index":
            action.add_argument(
                "--as",
                choices=("dali", "webshart"),
                dest="other",
                help="also write the index of another reader beside each tar: NAME.idx (dali), NAME.json (webshart, hfutils)",
            )
        tars = "" if name in ("import", "index", "verify") else "; or one .tar, or a pattern of tars"
        action.add_argument("uri", metavar="URI", help=f"a folder or s3://bucket/prefix{tars}")
        if name == "verify":
            action.add_argument(
                "--regenerate",
                metavar="N",
                type=positive,
                help="regenerate N shards of RUN/generated (or RUN/generated/NAME) and compare their pixels",
            )
            action.add_argument("--seed", type=int, help="seed that selects the N shards (default: random, and printed)")
        _add_browse_arguments(action, name)
    return parser


def _add_init_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("uri", metavar="FOLDER|URI", help="an image folder, a .npz, tars (folder, .tar or pattern); or s3://…")
    parser.add_argument(
        "-o", "--output", metavar="FILE", default="recipe.yaml", help="recipe to write; - prints it (default: %(default)s)"
    )
    parser.add_argument("--method", choices=METHODS, default="simclr", help="contrastive method (default: %(default)s)")
    device = parser.add_mutually_exclusive_group()
    device.add_argument("--gpu", action="store_true", default=None, help="sizes for a GPU (default: if this machine has one)")
    device.add_argument("--cpu", action="store_false", dest="gpu", help="sizes for CPUs")


def _add_runs_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    if command == "compare":
        parser.add_argument("uris", metavar="RUN", nargs="+", help="runs; of one run, it and its variants")
    else:
        parser.add_argument(
            "uri", metavar="URI", nargs="?" if command == "ls" else None, default="runs", help="run, or folder of runs"
        )
    if command == "gc":
        parser.add_argument(
            "--unfinished", action="store_true", help="also artifacts that were not finished; no stage may be running"
        )
        parser.add_argument("--all", action="store_true", dest="complete", help="the complete run and its variants")
        parser.add_argument("--delete", action="store_true", help="delete it (default: only list it)")
    parser.add_argument("--json", action="store_true", dest="as_json", help="print JSON")


def _add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        metavar="SECTION.KEY=VALUE",
        action="append",
        default=[],
        dest="settings",
        help="change one setting of the recipe, as pretrain.steps=600; can be repeated",
    )


def _add_stage_arguments(parser: argparse.ArgumentParser, command: str, options: Sequence[str]) -> None:
    _add_run_arguments(parser, optional=command == "plan")
    if command == "plan":
        parser.add_argument("--what-if", metavar="NAME=NUMBER,…", help="print the plan for other inputs without writing it")
    if command == "run":
        stages: dict[str, Any] = {"choices": tuple(STAGES), "metavar": "STAGE"}
        parser.add_argument("--only", action="append", default=[], help="run only this stage; can be repeated", **stages)
        parser.add_argument("--until", help="run the stages up to this one", **stages)
        parser.add_argument(
            "--from", metavar="URI", type=address, dest="from_run", help="reuse the artifacts of another run where they fit"
        )
    for option in options:
        match option:
            case "arm":
                parser.add_argument("--arm", help="only this arm (default: all of the recipe's)")
            case "seed":
                parser.add_argument("--seed", type=int, help="only this seed (default: all of the recipe's)")
            case "worker":
                parser.add_argument("--worker", metavar="[K/]N", type=worker, default=(0, 1), help=WORKER[command])
            case "allow_foreign":
                parser.add_argument("--allow-foreign", action="store_true", help=FOREIGN)
                parser.add_argument("--allow-external", action="store_true", help=EXTERNAL)
            case "as_json":
                parser.add_argument("--json", action="store_true", dest="as_json", help="print JSON")


def _add_run_arguments(
    parser: argparse.ArgumentParser,
    optional: bool = False,
    recipe: tuple[str, str] = _RECIPE,
) -> None:
    parser.add_argument("recipe", metavar=recipe[0], nargs="?" if optional else None, help=recipe[1])
    parser.add_argument(
        "--run", metavar="URI", type=address, help="folder or s3://bucket/prefix of the run (default: runs/NAME)"
    )
    _add_set(parser)


def _add_theory_arguments(parser: argparse.ArgumentParser) -> None:
    _add_run_arguments(parser, recipe=("RECIPE|toy", "recipe of a finished run, or the word toy"))
    parser.add_argument("--arm", help="arm of the encoder (default: the first of the recipe)")
    parser.add_argument("-o", "--output", metavar="FOLDER", help="output folder for the toy's figures and numbers")
    parser.add_argument("--json", action="store_true", dest="as_json", help="print JSON")


def _add_ceiling_arguments(parser: argparse.ArgumentParser) -> None:
    _add_stage_arguments(parser, "ceiling", ("as_json",))
    what = "real training images that stand for those of the run; the others inflate them (default: half)"
    parser.add_argument("--real", metavar="N", type=positive, help=what)
    parser.add_argument("--seeds", metavar="N", type=positive, default=3, help="draws and seeds (default: %(default)d)")
    parser.add_argument("--steps", metavar="N", type=positive, help="steps of each training (default: pretrain.steps)")


def _add_encoder_arguments(parser: argparse.ArgumentParser, command: str) -> None:
    run_is_optional = command != "export"  # a weights file has too little metadata for a model card
    parser.add_argument("run", metavar="RUN", nargs="?" if run_is_optional else None, help="run of the encoder")
    parser.add_argument("--arm", required=not run_is_optional, help="arm of the encoder")
    parser.add_argument("--seed", type=int, help="seed of the encoder (default: the first)")
    if run_is_optional:
        parser.add_argument("--encoder", metavar="FILE", help="an encoder.safetensors file, instead of RUN")
        parser.add_argument(
            "--data", metavar="URI", required=True, help="RUN/real or another shard set, an image folder, or a .npz"
        )
        parser.add_argument("--image-size", metavar="PX", type=pixels, help="resize images to PX x PX (default: no resizing)")
    if command == "transfer":
        parser.add_argument("--json", action="store_true", dest="as_json", help="print JSON")
    else:
        what = "output .npz" if command == "embed" else "output folder"
        parser.add_argument("-o", "--output", metavar="FILE" if command == "embed" else "FOLDER", required=True, help=what)
    if command == "embed":
        parser.add_argument("--split", help="only this split (default: all)")


def _add_tar_arguments(parser: argparse.ArgumentParser) -> None:
    what = "of a sample in a tar: what follows the first dot of the name"
    parser.add_argument(
        "--image-field", metavar="FIELD", type=field, help=f"image {what}, as jpg or image.png (default: the only image)"
    )
    parser.add_argument(
        "--label-field",
        metavar="FIELD",
        type=field,
        help=f"label {what}, json:KEY, or none (default: cls, else the only NAME.cls)",
    )
    parser.add_argument(
        "--text-field",
        metavar="FIELD",
        type=field,
        help=f"caption {what}, json:KEY, or none (default: txt, else the only NAME.txt)",
    )
    parser.add_argument("--skip", action="store_true", help="leave out samples that cannot be used, and report their number")


def _add_browse_arguments(parser: argparse.ArgumentParser, action: str) -> None:
    if action in ("show", "cat"):
        parser.add_argument("sample", metavar="KEY|INDEX", help="key of a sample, or its index in the source")
    if action in ("show", "cat", "stats", "export"):
        parser.add_argument(
            "--source",
            metavar="NAME",
            help="source as listed by `adainf shards ls`, for example real/train (default: the first)",
        )
    if action == "export":
        parser.add_argument("-o", "--output", metavar="PATH", required=True, help="output folder or .npz")
        parser.add_argument("--limit", metavar="N", type=int, help="export only the first N images")
    if action == "ls":
        parser.add_argument("--json", action="store_true", dest="as_json", help="print JSON")
    if action == "serve":
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: loopback only)")
        parser.add_argument("--port", type=int, default=8080, help="port; 0 picks a free one (default: 8080)")
        parser.add_argument(
            "--no-token", action="store_true", help="on loopback, give the images to every user of this machine without a token"
        )
