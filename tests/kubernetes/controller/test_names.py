"""`adainf render --name`: two runs side by side, in one namespace and in two."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from adainf.cli import main
from adainf.errors import BadInput
from adainf.kubernetes.rename import MAX_NAME, rename
from adainf.kubernetes.render import render
from tests.cluster import Cluster
from tests.cluster.store import Object
from tests.kubernetes.controller.pipeline import Pipeline
from tests.kubernetes.controller.test_scenarios import ONCE, hold
from tests.manifests.objects import COMPONENTS

OURS = re.compile(r"(?<![/.])\badainf(-[a-z]+)*\b(?![./])")
ALLOWED = {"adainf-train", "adainf-generate", "adainf-controller", "adainf-train-cpu"}
"""Images."""


def test_runs_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two in one namespace, and one of the same name in another. One runs to its end while the others have running gangs."""
    with Cluster(tmp_path, speed=1000) as cluster:
        runs = {
            (namespace, name): Pipeline(cluster.in_namespace(namespace), tmp_path / namespace / name, name=name)
            for namespace, name in (("lab", "cifar"), ("lab", "mine"), ("b", "cifar"))
        }
        cluster.on_pod(
            lambda pod: runs[pod["metadata"]["namespace"], pod["metadata"]["labels"]["app.kubernetes.io/instance"]].plays(pod)
        )
        here, mine, there = runs.values()
        here.play = there.play = hold("fit")
        for run in runs.values():
            run.apply()
        gangs = [run.pod("fit")["metadata"]["uid"] for run in (here, there)]
        assert mine.end()["type"] == "Complete"
        assert mine.jobs() == ONCE
        monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
        for run, ending in ((mine, "is complete"), (here, "is running"), (there, "is running")):
            assert main(["status", "--name", run.name, "-n", run.cluster.namespace]) == 0
            assert f"Job/{run.name} {ending}" in capsys.readouterr().out
        mine.cluster.kubectl("delete", "-f", "-", stdin=mine.text())
        there.cluster.kubectl("delete", f"job/{there.name}")
        assert here.pod("fit")["metadata"]["uid"] == gangs[0]
        assert gangs[0] != gangs[1]
        assert cluster.store.get("roles", "lab", "mine-controller") is None
        here.kill_controller()
        here.finish(here.pod("fit"))
        cluster.until(lambda: "generate-1" in here.jobs(), 30)


def objects(name: str, *arguments: str) -> list[Object]:
    overlay, *components = arguments or [""]
    return list(yaml.load_all(render(overlay=overlay or None, components=components, name=name), yaml.CSafeLoader))


@pytest.mark.parametrize("overlay", ["", "cpu"])
def test_no_default_name_is_left(overlay: str) -> None:
    """All names and references; also those in CEL, in addresses and in variables."""
    parts = [each for each in COMPONENTS if each != "static-secret"]
    found = objects("cifar", overlay, *parts)
    default = objects("adainf", overlay, *parts)
    assert [each["kind"] for each in found] == [each["kind"] for each in default]
    assert len(found) > 20
    for each in found:
        assert each["metadata"]["name"].split("-")[0] == "cifar"
        assert each["metadata"]["labels"]["app.kubernetes.io/instance"] == "cifar"
        if each["kind"] == "ConfigMap":
            each["data"].pop("recipe.yaml", None)
        text = re.sub(
            r"(?:name|part-of|queue-name): adainf$|bucket=adainf|s3://adainf/|adainf render",
            "",
            yaml.safe_dump(each),
            flags=re.M,
        )
        left = {match[0] for match in OURS.finditer(text)}
        assert left <= ALLOWED, (each["kind"], each["metadata"]["name"])


def test_recipes_and_other_values_stay() -> None:
    def data(name: str) -> dict[str, str]:
        (found,) = (each["data"] for each in objects(name, "cpu") if each["metadata"]["name"] == f"{name}-recipe")
        return dict(found)

    assert data("cifar") == data("adainf")
    text = render(run="s3://bucket/adainf", images={"train": "adainf-x:1"}, name="cifar")
    assert "adainf-x:1" in text


def test_selectors_of_runs_are_disjoint() -> None:
    parts = ("cpu", "networkpolicy", "podmonitor")
    for each in objects("cifar", *parts):
        if each["kind"] in ("Service", "Deployment", "NetworkPolicy", "PodMonitor"):
            assert "app.kubernetes.io/instance: cifar" in yaml.safe_dump(each["spec"]), each["metadata"]["name"]


@pytest.mark.parametrize("name", ["", "Cifar", "1st", "a_b", "-a", "a-", "a.b", "a" * (MAX_NAME + 1), "ä", "a b", "a\n"])
def test_invalid_names(name: str) -> None:
    with pytest.raises(BadInput, match="invalid --name"):
        render(name=name)


@pytest.mark.parametrize("command", ["status", "wait", "clean"])
@pytest.mark.parametrize("name", ["", "../x", "A", "a b", "a/status"])
def test_names_that_no_job_has(command: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--name", name]) == 64
    assert f"invalid --name {name!r}" in capsys.readouterr().err


def test_ambiguous_words_stay_strings() -> None:
    values = {"a": "1e3", "b": "y", "c": "0x1F", "d": "8", "e": "1_0", "f": "on", "g": "~", "h": "text\nlines", "i": ".5"}
    text = rename([{"kind": "ConfigMap", "metadata": {"name": "adainf-x"}, "data": values}], "b")
    assert yaml.safe_load(text)["data"] == values
    for value in ("1e3", "y", "0x1F", "1_0", ".5"):
        assert f"'{value}'" in text, "YAML 1.2 and Go read more words as numbers and bools than PyYAML does"


def test_the_longest_name_fits() -> None:
    for each in objects("a" * MAX_NAME):
        assert len(each["metadata"]["name"]) <= (52 if each["kind"] == "CronJob" else 63)
