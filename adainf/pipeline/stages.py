"""The stage registry: every stage of the pipeline, in order of execution.

The command line, the pipeline graph, the controller, the launcher and the browser take their lists of stages from here. Tests
check that the Kubernetes manifests and the image matrix agree with it. docs/extending.md describes how to add a stage.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Parallelism = Literal["single", "indexed", "gang"]
"""How the pods of a stage share the work: one pod; independent workers, each with an index; or one process group."""


@dataclass(frozen=True)
class Size:
    """Default resources of a stage; quantities as in the Kubernetes API, for one pod."""

    cpu: str
    memory: str
    gpus: int = 0
    pods: int = 1


@dataclass(frozen=True)
class Stage:
    """One stage: a function of (recipe, run) that reads finished artifacts of the run and commits its own."""

    name: str
    """Also its command, its module ``adainf.stages.NAME``, the function there, and its Kubernetes template."""
    help: str
    artifacts: str
    """Name of its artifact, or the folder that contains its artifacts."""
    inputs: tuple[str, ...]
    """The stages whose artifacts it reads; a recipe may need fewer of them (see `graph`)."""
    recipe_sections: tuple[str, ...]
    """The sections of the recipe that are part of its request."""
    default_size: Size
    parallelism: Parallelism = "single"
    image: Literal["train", "generate"] = "train"
    options: tuple[str, ...] = ()
    """Options of its command beside RECIPE and --run; its function has a parameter of the same name."""
    default_node: bool = False
    """Whether `graph` derives the node of its artifact from this entry: one artifact, `artifacts`, made from all artifacts of
    `inputs`, with `recipe_sections` as settings. Stages with other nodes have them in `graph.build_graph`."""
    piece_key: tuple[str, str] | None = None
    """Of an indexed stage: first and last part of the keys of the pieces that its workers commit one by one."""

    @property
    def module(self) -> str:
        return f"adainf.stages.{self.name}"

    @property
    def is_gang(self) -> bool:
        return self.parallelism == "gang"

    def load(self) -> Callable[..., Any]:
        """The stage's function. Imports its module, which for most stages imports torch (seconds)."""
        function: Callable[..., Any] = getattr(importlib.import_module(self.module), self.name)
        return function


STAGES = {
    stage.name: stage
    for stage in (
        Stage(
            "ingest",
            "write real images as shards, with held-out splits",
            artifacts="real",
            inputs=(),
            recipe_sections=("real",),
            default_size=Size("2", "8Gi"),
        ),
        Stage(
            "fit",
            "fit the generator on the real training images",
            artifacts="generator",
            inputs=("ingest",),
            recipe_sections=("generator", "generators"),
            default_size=Size("8", "32Gi", gpus=1),
            parallelism="gang",
            image="generate",
            options=("allow_foreign",),
        ),
        Stage(
            "generate",
            "write generated images as shards",
            artifacts="generated",
            inputs=("ingest", "fit"),
            recipe_sections=("generator", "generate", "generators"),
            default_size=Size("4", "16Gi", gpus=1, pods=4),
            parallelism="indexed",
            image="generate",
            options=("worker", "allow_foreign"),
            piece_key=("generated/", ".index.json"),
        ),
        Stage(
            "positives",
            "draw candidates for each real training image, for the arms with generated positives",
            artifacts="positives",
            inputs=("ingest", "fit", "generate", "pretrain"),
            recipe_sections=("positives", "generator", "generators"),
            default_size=Size("4", "16Gi", gpus=1, pods=4),
            parallelism="indexed",
            image="generate",
            options=("worker",),
            piece_key=("positives/", ".index.json"),
        ),
        Stage(
            "measure",
            "measure the quality of the generated images against held-out real images",
            artifacts="quality",
            inputs=("ingest", "generate", "positives", "pretrain"),
            recipe_sections=("quality", "pretrain"),
            default_size=Size("4", "32Gi", gpus=1),
        ),
        Stage(
            "plan",
            "choose the weight of a real image and the strength of augmentation",
            artifacts="plan",
            inputs=("ingest", "generate", "measure"),
            recipe_sections=("plan", "pretrain"),
            default_size=Size("1", "2Gi"),
            options=("as_json",),
        ),
        Stage(
            "verify",
            "check the plan by short training runs, for arm verified",
            artifacts="verify",
            inputs=("ingest", "generate", "plan"),
            recipe_sections=("plan", "pretrain", "evaluate"),
            default_size=Size("4", "32Gi", gpus=1, pods=2),
            parallelism="indexed",
            options=("worker",),
            piece_key=("verify/probes/", ".json"),
        ),
        Stage(
            "pretrain",
            "pretrain one encoder per arm and seed",
            artifacts="pretrain",
            inputs=("ingest", "generate", "positives", "measure", "plan", "verify"),
            recipe_sections=("pretrain", "positives"),
            default_size=Size("8", "64Gi", gpus=1, pods=2),
            parallelism="gang",
            options=("arm", "seed"),
        ),
        Stage(
            "evaluate",
            "evaluate each encoder: linear probe and nearest neighbours",
            artifacts="evaluate",
            inputs=("ingest", "pretrain"),
            recipe_sections=("evaluate", "pretrain"),
            default_size=Size("4", "32Gi", gpus=1, pods=2),
            parallelism="indexed",
            options=("arm", "worker"),
            piece_key=("evaluate/", ".json"),
        ),
        Stage(
            "report",
            "write the results as one HTML page",
            artifacts="report",
            inputs=("ingest", "fit", "generate", "positives", "measure", "plan", "verify", "pretrain", "evaluate"),
            recipe_sections=("name", "arms"),
            default_size=Size("1", "4Gi"),
            options=("as_json",),
        ),
    )
}
"""Name → stage, in order of execution."""
