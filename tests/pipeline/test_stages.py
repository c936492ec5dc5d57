"""The stage registry: everything that lists stages agrees with it."""

from __future__ import annotations

import argparse
import inspect
from typing import get_args

import pytest
import yaml

from adainf.cli.arguments import build_parser
from adainf.kubernetes.render import K8S
from adainf.pipeline.graph import REPORT, build_graph, tasks
from adainf.pipeline.load_recipe import load_recipe
from adainf.pipeline.stages import STAGES
from adainf.recipe import Add, Arm, NearestGenerated, Positives, Recipe, Verify
from tests.manifests.objects import template

ADD = Positives(use=Add(kind="add"))
NEIGHBOURS = Positives(draw=NearestGenerated(kind="neighbour"), use=Add(kind="add"))
RECIPES = sorted((K8S.parent / "recipes").glob("*.yaml"))


def full_recipe() -> Recipe:
    """The demo with every arm and with verify: it needs every stage."""
    demo = load_recipe(K8S.parent / "recipes" / "demo.yaml")
    return demo.model_copy(
        update={"arms": get_args(Arm), "plan": demo.plan.model_copy(update={"verify": Verify()}), "positives": ADD}
    )


def commands() -> dict[str, argparse.ArgumentParser]:
    (action,) = (each for each in build_parser()._actions if isinstance(each, argparse._SubParsersAction))
    return dict(action.choices)


def test_the_graph_has_every_stage_in_the_registrys_order() -> None:
    order = [task.partition(".")[0] for task in tasks(full_recipe())]
    assert set(order) == set(STAGES)
    late = [stage for index, stage in enumerate(order) if stage not in order[:index] and stage != "pretrain"]
    assert late == [stage for stage in STAGES if stage != "pretrain"]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_stage_reads_no_other_stages_than_it_declares(path: object) -> None:
    graph = build_graph(load_recipe(str(path)))
    for node in graph.values():
        assert {graph[name].stage for name in node.inputs} <= set(STAGES[node.stage].inputs), node


def test_the_declared_inputs_are_all_in_use() -> None:
    graph = build_graph(full_recipe())
    neighbours = build_graph(full_recipe().model_copy(update={"positives": NEIGHBOURS}))
    for name, stage in STAGES.items():
        read = {g[i].stage for g in (graph, neighbours) for node in g.values() if node.stage == name for i in node.inputs}
        assert set(stage.inputs) == (set(STAGES) - {REPORT} if name == REPORT else read)


def test_artifacts_lie_below_the_declared_name() -> None:
    for artifact, node in build_graph(full_recipe()).items():
        assert artifact.partition("/")[0] == STAGES[node.stage].artifacts


def test_the_settings_of_a_request_come_from_the_declared_sections() -> None:
    recipe = full_recipe()
    changed = recipe.model_copy(update={"evaluate": recipe.evaluate.model_copy(update={"l2_grid": (1.0, 2.0)})})
    before, after = build_graph(recipe), build_graph(changed)
    differing = {node.stage for name, node in before.items() if node.settings != after[name].settings}
    assert differing == {name for name, stage in STAGES.items() if "evaluate" in stage.recipe_sections}


OF_CLI = {"help", "recipe", "run", "what_if", "settings", "verbosity", "allow_external"}
"""Options that the command line handles, not the stage."""


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_every_stage_is_a_command_and_a_function_with_its_options(stage: object) -> None:
    name, options = stage.name, set(stage.options)  # type: ignore[attr-defined]
    accepted = {action.dest for action in commands()[name]._actions} - OF_CLI
    assert accepted == options
    parameters = list(inspect.signature(STAGES[name].load()).parameters)
    assert parameters[:3] == ["recipe", "run", "reporter"]
    assert set(parameters[3:]) == options


@pytest.mark.parametrize("stage", STAGES)
def test_kubernetes_templates_agree(stage: str) -> None:
    found, declared = template(stage), STAGES[stage]
    job, container = found.job, found.spec["containers"][0]
    assert job is not None
    assert container["image"].partition(":")[0] == f"adainf-{declared.image}"
    assert (job.get("completionMode") == "Indexed") is (declared.parallelism != "single")
    assert job.get("completions", 1) == declared.default_size.pods
    assert container["resources"]["requests"]["cpu"] == declared.default_size.cpu
    assert container["resources"]["requests"]["memory"] == declared.default_size.memory
    assert int(container["resources"]["limits"].get("nvidia.com/gpu", 0)) == declared.default_size.gpus
    annotations = found.owner["metadata"]["annotations"]
    words = {word for name, text in annotations.items() if name.startswith("adainf.dev/after") for word in text.split()}
    assert {word.partition(".")[0] for word in words} <= set(declared.inputs)


def test_images_run_the_stages_that_name_them() -> None:
    images = {
        image["target"]: image["runs"] for image in yaml.safe_load((K8S.parent / "images/matrix.yaml").read_text())["images"]
    }
    assert images["train"] == [name for name, stage in STAGES.items() if stage.image == "train"]
    assert images["generate"] == [name for name, stage in STAGES.items() if stage.image == "generate"]
    assert images["train-cpu"] == list(STAGES)
