"""jobs/adainf-cpu.yaml on a simulated cluster with real pods: the controller, the launchers and S3 are processes."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch
import yaml

from adainf.cli import main
from adainf.errors import OK
from adainf.pipeline.artifacts import Run
from adainf.pipeline.graph import build_graph
from adainf.pipeline.load_recipe import load_recipe
from adainf.pipeline.serialization import decode
from tests.cluster import Cluster, Process
from tests.cluster.store import Object
from tests.conftest import S3Server
from tests.kubernetes.controller.pipeline import ROOT, task
from tests.storage.faulty_proxy import Fault, FaultyProxy
from tests.tiny import RECIPE, write_recipe

SHORT = RECIPE.replace("name: tiny", "name: tiny\narms: [none, adainf]").replace("  steps: 12\n", "  steps: 5\n")
"""Five steps: with more, rounding differences from another order of summation grow."""
LONG = RECIPE.replace("name: tiny", "name: tiny\narms: [none]").replace("  steps: 12\n", "  steps: 300\n")
OUTAGE_S = 60
SPEED = 10
"""Seconds of the cluster per real second: back-offs are short, deadlines still far."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path, speed=SPEED) as cluster:
        yield cluster


class RealPipeline:
    """The manifest with another recipe and another store. Every pod runs its own command."""

    def __init__(self, cluster: Cluster, server: S3Server, run: str, recipe: str) -> None:
        self.cluster, self.server, self.uri, self.recipe = cluster, server, run, recipe
        self.run = Run(run)
        self._ports: dict[str, str] = {}
        cluster.on_pod(self._play)

    def apply(self) -> None:
        objects = [each for each in yaml.safe_load_all((ROOT / "jobs" / "adainf-cpu.yaml").read_text()) if self._patched(each)]
        self.cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))

    def log(self) -> str:
        """Logs of all pods, and termination records of the deleted ones."""
        printed = [f"--- {pod['metadata']['name']}\n{self.cluster.kubelet.log(pod)}" for pod in self.cluster.pods()]
        left = [f"--- {each.key}\n{self.run.store.get(each.key).decode()}" for each in self.run.store.list("logs/pods/")]
        return "".join([*printed, *left])

    def tasks(self) -> list[str]:
        """TASK-ATTEMPT of each stage Job."""
        labels = [job["metadata"]["labels"] for job in self.cluster.store.list("jobs") if job["metadata"]["name"] != "adainf"]
        return sorted(f"{task(label)}-{label['adainf.dev/attempt']}" for label in labels)

    def complete(self, timeout_s: float) -> None:
        assert self.cluster.until_ended("adainf", timeout_s)["type"] == "Complete", self.log()

    def _patched(self, thing: Object) -> bool:
        match thing["kind"], thing["metadata"]["name"]:
            case "ConfigMap", "adainf-recipe":
                thing["data"] = {"recipe.yaml": self.recipe}
            case "ConfigMap", "adainf-store":
                thing["data"] = {"ADAINF_RUN": self.uri, **self.server.env}
            case (("Deployment" | "Service"), "adainf-seaweedfs"):
                return False
        return True

    def _play(self, pod: Object) -> Process:
        """On one machine, concurrent gangs need different ports: torch listens on all addresses."""
        label = pod["metadata"]["labels"]
        if task(label) == "controller":
            return Process({"ADAINF_BACKOFF_S": "0.2"})
        return Process({"ADAINF_MASTER_PORT": self._ports.setdefault(label["job-name"], free_port())})


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def encoder(run: Run) -> bytes:
    return run.store.get("pretrain/none/seed-0/encoder.safetensors")


@pytest.mark.slow
def test_from_apply_to_complete(
    cluster: Cluster, s3_server: S3Server, s3_env: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each stage runs once, with the workers and nodes of the manifest. The run is as `adainf run` would leave it."""
    real = RealPipeline(cluster, s3_server, s3_env, SHORT)
    real.apply()
    real.complete(300)
    arms = ["pretrain.adainf-1", "pretrain.none-1"]
    assert real.tasks() == [
        *(f"{each}-1" for each in ("evaluate", "fit", "generate", "ingest", "measure", "plan")),
        *arms,
        "report-1",
    ]
    recipe = write_recipe(tmp_path, SHORT)
    capsys.readouterr()
    assert main(["run", str(recipe), "--run", s3_env]) == OK
    assert capsys.readouterr().out.count("done already") == len(build_graph(load_recipe(recipe))) + 1  # and the report
    one = tmp_path / "one"
    for stage, *options in (["ingest"], ["pretrain", "--arm", "none"]):
        assert main([stage, str(recipe), "--run", str(one), *options]) == OK
    expected, found = (decode(encoder(run), "encoder")[0] for run in (Run(str(one)), real.run))
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, atol=1e-6, rtol=1e-6, msg=key)


@pytest.fixture(scope="module")
def undisturbed(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The encoder of an undisturbed gang."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.env.items():
            patch.setenv(name, value)
        made, attempts, _ = encoder_of_gang(tmp_path_factory.mktemp("once"), s3_server, f"s3://{s3_server.bucket}/undisturbed")
    assert attempts == 1
    return made


@pytest.mark.slow
@pytest.mark.parametrize("who", ["one", "all"])
def test_a_preempted_gang_resumes(who: str, undisturbed: bytes, s3_server: S3Server, s3_env: str, tmp_path: Path) -> None:
    """SIGTERM to one of two pods, or to every pod including the controller's: the next attempt resumes from the checkpoint,
    and its encoder has the same bytes as that of an undisturbed gang."""

    def preempt(cluster: Cluster, pod: Object) -> None:
        running = [each for each in cluster.pods() if each["status"]["phase"] == "Running"]
        for each in [pod] if who == "one" else running:
            cluster.preempt(each)

    made, attempts, log = encoder_of_gang(tmp_path, s3_server, s3_env, preempt)
    assert (attempts, made == undisturbed) == (2, True), log
    assert "saved at step" in log


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["503", "silence"])
def test_a_store_outage_of_a_minute_does_not_fail_the_run(
    fault: Fault, undisturbed: bytes, s3_server: S3Server, s3_env: str, tmp_path: Path
) -> None:
    """Would catch an outage that uses up the attempts or ends the controller."""
    out = threading.Event()

    def outage(cluster: Cluster, pod: Object) -> None:
        out.set()
        time.sleep(OUTAGE_S)
        out.clear()

    with FaultyProxy(s3_server.port, lambda request: fault if out.is_set() else None) as proxy:
        port = urlsplit(proxy.endpoint).port
        assert port
        made, _, log = encoder_of_gang(tmp_path, replace(s3_server, port=port), s3_env, outage)
        assert any(fault for _, fault in proxy.requests)
    assert made == undisturbed, log


def encoder_of_gang(
    folder: Path, server: S3Server, uri: str, trouble: Callable[[Cluster, Object], None] | None = None
) -> tuple[bytes, int, str]:
    """The encoder of a pipeline in which `trouble` disturbs a running pod; the number of attempts; and all logs."""
    with Cluster(folder, speed=SPEED) as cluster:
        real = RealPipeline(cluster, server, uri, LONG)
        real.apply()
        if trouble:
            pod = cluster.until(lambda: at_work(real), 90)
            assert pod
            trouble(cluster, pod)
        cluster.until(lambda: has_progress(cluster), 90)
        real.complete(300)
        attempts = [each for each in real.tasks() if each.startswith("pretrain")]
        return encoder(real.run), len(attempts), real.log()


def at_work(real: RealPipeline) -> Object | None:
    """The second pod of arm none, once a checkpoint exists."""
    for pod in real.cluster.pods():
        label = pod["metadata"]["labels"]
        if task(label) == "pretrain.none" and label["batch.kubernetes.io/job-completion-index"] == "1":
            saved = real.run.store.list("pretrain/none/seed-0/checkpoints/")
            return pod if any(info.key.endswith(".safetensors") for info in saved) else None
    return None


def has_progress(cluster: Cluster) -> bool:
    """Whether a Job of arm none is annotated with its progress, which its launcher reports on port 8080."""
    return any(
        "/300" in job["metadata"].get("annotations", {}).get("adainf.dev/progress", "") for job in cluster.store.list("jobs")
    )
