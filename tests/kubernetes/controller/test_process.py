"""The controller as a real process, with an API server over HTTP and a run on real S3."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from adainf.cli import main
from adainf.kubernetes.controller.scrape import progress_line
from adainf.pipeline.artifacts import Run
from adainf.pipeline.graph import build_graph, request, tasks
from adainf.pipeline.load_recipe import load_recipe
from adainf.pipeline.records import Manifest, Request
from adainf.pipeline.stages import STAGES
from tests.conftest import S3Server
from tests.kubernetes.controller.api_server import ApiServer, api_server
from tests.kubernetes.controller.test_templates import cronjob
from tests.storage.faulty_proxy import FaultyProxy

RECIPE = Path("recipes/demo.yaml")
JOBS = "/apis/batch/v1/namespaces/ns/jobs"
CRONJOBS = "/apis/batch/v1/namespaces/ns/cronjobs"
EVENTS = "/apis/events.k8s.io/v1/namespaces/ns/events"
MEMORY_MIB = 128


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    with api_server() as running:
        cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{running.server_address[1]}"}}
        context = {"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "ns"}}
        config = {"clusters": [cluster], "contexts": [context], "users": [{"name": "u", "user": {}}], "current-context": "c"}
        (tmp_path / "kubeconfig").write_text(json.dumps(config))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        for stage in STAGES:
            running.put(f"{CRONJOBS}/adainf-{stage}", cronjob(stage))
        running.put(f"{JOBS}/adainf", {"metadata": {"name": "adainf", "uid": "ab12cd34"}, "status": {}})
        yield running


@contextmanager
def controller(run: str, recipe: Path = RECIPE) -> Iterator[subprocess.Popen[str]]:
    env = {
        **os.environ,
        "OWNER_NAME": "adainf",
        "OWNER_UID": "ab12cd34",
        "POD_NAMESPACE": "ns",
        "ADAINF_RUN": run,
        "ADAINF_RECIPE": str(recipe),
        "ADAINF_BACKOFF_S": "0.1",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "adainf.kubernetes.controller"], env=env, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


class Kubelet(threading.Thread):
    """Ends each new Job: commits its artifacts and marks it Complete. `fail`: Job → termination record of its failure."""

    def __init__(self, server: ApiServer, run: str, fail: dict[str, dict[str, Any]] | None = None) -> None:
        super().__init__(daemon=True)
        self.server, self.run_, self.fail = server, Run(run), fail or {}
        self.ended_at: dict[str, float] = {}
        self.seen_at: dict[str, float] = {}
        self.stop = threading.Event()

    def run(self) -> None:
        while not self.stop.wait(0.02):
            for path, job in list(self.server.objects.items()):
                name = job["metadata"]["name"]
                if path.startswith(JOBS) and name != "adainf" and name not in self.seen_at:
                    self.seen_at[name] = time.monotonic()
                    self.end(path, job)

    def end(self, path: str, job: dict[str, Any]) -> None:
        name, label = job["metadata"]["name"], job["metadata"]["labels"]
        record = self.fail.pop(name, None)
        if record:
            self.run_.store.put(f"logs/pods/{name}-0.json", json.dumps(record).encode())
        else:
            commit(self.run_, ".".join(filter(None, (label["adainf.dev/stage"], label.get("adainf.dev/arm")))))
        condition = {
            "type": "Failed" if record else "Complete",
            "status": "True",
            "reason": "BackoffLimitExceeded" if record else "",
        }
        condition["lastTransitionTime"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.ended_at[name] = time.monotonic()
        self.server.put(path, {**job, "status": {"conditions": [condition]}})


def commit(run: Run, task: str) -> None:
    """Commit a task's artifacts: empty, but matching the recipe."""
    recipe = load_recipe(RECIPE)
    for name in tasks(recipe)[task]:
        names = list(build_graph(recipe)) if name == "report" else build_graph(recipe)[name].inputs
        inputs = {before: made for before in names if (made := run.find(before))}
        digests = {before: made.digest for before, made in inputs.items()}
        matching = Request(stage="report", settings={}, inputs=digests) if name == "report" else request(recipe, name, inputs)
        run.commit(name, Manifest(request=matching))


def events(server: ApiServer) -> dict[str, str]:
    return {thing["reason"]: thing["note"] for path, thing in server.objects.items() if path.startswith(EVENTS)}


def test_a_pipeline_from_end_to_end(server: ApiServer, s3_env: str) -> None:
    lost = {"exit_code": 1, "reason": "the connection was reset", "done": 3}
    kubelet = Kubelet(server, s3_env, fail={"adainf-fit-ab12-1": lost})
    kubelet.start()
    with controller(s3_env) as process:
        lines = []
        for line in process.stdout or ():
            lines.append(line)
            status = Path(f"/proc/{process.pid}/status").read_text()
            peak_kib = next((int(row.split()[1]) for row in status.splitlines() if row.startswith("VmHWM")), 0)
            if peak_kib:
                assert peak_kib < MEMORY_MIB * 1024
                print(f"peak {peak_kib / 1024:.0f} MiB")
        assert process.wait() == 0, lines
    kubelet.stop.set()
    assert lines[-1].endswith("every stage is done\n")
    assert len(kubelet.seen_at) == len(tasks(load_recipe(RECIPE))) + 1, "each task once, and the failed one twice"
    assert "the connection was reset" in events(server)["AttemptFailed"]
    assert events(server)["Finished"] == "every stage is done"
    gap_s = kubelet.seen_at["adainf-report-ab12-1"] - kubelet.ended_at["adainf-evaluate-ab12-1"]
    assert gap_s < 2
    dry = [path for verb, path in server.calls if path.endswith("dryRun=All")]
    first = next(n for n, (verb, path) in enumerate(server.calls) if verb == "POST" and path == JOBS)
    assert len(dry) == len(tasks(load_recipe(RECIPE)))
    assert all("dryRun" not in path for _, path in server.calls[first:]), "dry runs come before the first Job"


def test_it_resumes_after_kills(server: ApiServer, s3_env: str) -> None:
    kubelet = Kubelet(server, s3_env)
    kubelet.start()
    for _ in range(2):
        before = len(kubelet.seen_at)
        with controller(s3_env):
            deadline = time.monotonic() + 20
            while len(kubelet.seen_at) < before + 2 and time.monotonic() < deadline:
                time.sleep(0.01)
    with controller(s3_env) as process:
        assert process.wait(30) == 0
    kubelet.stop.set()
    assert all(name.endswith("-1") for name in kubelet.seen_at), "nothing ran twice"


def test_a_permanent_failure(
    server: ApiServer, s3_env: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kubelet = Kubelet(server, s3_env, fail={"adainf-ingest-ab12-1": {"exit_code": 65, "reason": "no image is left"}})
    kubelet.start()
    with controller(s3_env) as process:
        output = process.communicate(timeout=30)[0]
        assert process.returncode == 65
    kubelet.stop.set()
    assert "no image is left" in output.splitlines()[-1]
    condition = {"type": "Failed", "status": "True", "message": "Container failed with exit code 65"}
    server.put(f"{JOBS}/adainf", {**server.objects[f"{JOBS}/adainf"], "status": {"conditions": [condition]}})
    assert main(["wait"]) == 1
    assert "no image is left" in capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["status"]) == 0
    rows = table(capsys.readouterr().out)
    assert rows["ingest", ""][1:2] == ["failed"]
    assert rows["generate", ""] == ["", "waiting", "", "", "", "", "for fit, ingest"]


def test_status_shows_tasks_of_an_earlier_run_of_the_controller(
    server: ApiServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Would catch a table without the tasks that have no Job."""
    summary = {"ingest": None, "fit": [], "pretrain.none": ["fit"]}
    about = {"name": "adainf", "uid": "ab12cd34", "annotations": {"adainf.dev/outline": json.dumps(summary)}}
    server.put(f"{JOBS}/adainf", {"metadata": about, "status": {}})
    monkeypatch.setenv("COLUMNS", "160")
    assert main(["status"]) == 0
    rows = table(capsys.readouterr().out)
    assert {task: row[1] for task, row in rows.items()} == {
        ("ingest", ""): "already done", ("fit", ""): "next", ("pretrain", "none"): "waiting",
    }  # fmt: skip
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["status"]) == 0
    assert "…" not in capsys.readouterr().out, "a narrow terminal truncates words"


def table(shown: str) -> dict[tuple[str, str], list[str]]:
    """(stage, arm) → the other cells."""
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines() if line.startswith("│")]
    return {(stage, arm): rest for stage, arm, *rest in rows}


def test_sigterm_is_not_a_failure(server: ApiServer, s3_env: str) -> None:
    with controller(s3_env) as process:
        deadline = time.monotonic() + 20
        while f"{JOBS}/adainf-ingest-ab12-1" not in server.objects and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 75


def test_bad_input_is_reported_and_starts_nothing(
    server: ApiServer, s3_env: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "recipe.yaml"
    broken.write_text(f"{RECIPE.read_text()}armz: [none]\n")
    with controller(s3_env, broken) as process:
        assert process.wait(30) == 64
    assert "armz is not a setting" in events(server)["Failed"]
    server.objects = {path: thing for path, thing in server.objects.items() if not path.startswith(EVENTS)}
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with controller(s3_env) as process:
        assert process.wait(30) == 64
    assert "Secret/adainf-s3" in events(server)["Failed"]
    assert [path for path in server.objects if path.startswith(JOBS)] == [f"{JOBS}/adainf"]


def test_a_store_that_starts_after_the_controller_is_waited_for(
    server: ApiServer, s3_server: S3Server, s3_env: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of jobs/adainf-cpu.yaml does. Would catch a store that is still starting being reported as bad input."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{port}")
    with controller(s3_env) as process:
        deadline = time.monotonic() + 30
        while "StoreUnreachable" not in events(server) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "cannot be reached" in events(server)["StoreUnreachable"]
        assert process.poll() is None
        with FaultyProxy(s3_server.port, lambda request: None, at=port):
            while f"{JOBS}/adainf-ingest-ab12-1" not in server.objects and time.monotonic() < deadline:
                time.sleep(0.05)
            assert f"{JOBS}/adainf-ingest-ab12-1" in server.objects


def test_progress_fits_a_line() -> None:
    """Would catch a line with all of a trainer's metrics, which hide the progress."""
    values = {"loss": 5.3081, "images_per_s": 1040.2, "rank_me": 44.6}
    progress: dict[str, object] = {"done": 48120, "total": 100000, "values": values, "rate": 4.9112, "eta_s": 7380}
    assert progress_line(progress) == "48120/100000 loss 5.31 4.911/s eta 2h03m"
    assert progress_line({"done": None, "total": None, "values": None, "rate": None, "eta_s": None}) == ""


def test_wait_for_a_missing_job(server: ApiServer) -> None:
    assert main(["wait", "--name", "other"]) == 64
    assert main(["wait", "--timeout", "0"]) == 1
