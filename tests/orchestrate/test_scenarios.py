"""What clusters do to a chain: each time jobs/adainf.yaml by real kubectl, and the orchestrator as its real process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from adainf.orchestrate.graph import artifacts_of

from adainf.recipefile import load_recipe
from tests.cluster import Cluster, Exit, Script
from tests.cluster.access import Call
from tests.cluster.store import Object
from tests.orchestrate.chain import FOREVER, INDEX, RECIPE, ROOT, Chain, task

TASKS = sorted(artifacts_of(load_recipe(RECIPE)))
ONCE = [f"{name}-1" for name in TASKS]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A second of it takes 1 ms, so that back-offs of the Job controller are no matter."""
    with Cluster(tmp_path, speed=1000) as cluster:
        yield cluster


@pytest.fixture
def chain(cluster: Cluster, tmp_path: Path) -> Chain:
    return Chain(cluster, tmp_path)


def hold(name: str) -> object:
    """A play in which the first pods of one task wait for the test."""
    return lambda pod: FOREVER if task(pod["metadata"]["labels"]) == name else None


def attempt(pod: Object) -> str:
    return str(pod["metadata"]["labels"]["adainf.dev/attempt"])


def test_the_chain_and_its_rights(chain: Chain, cluster: Cluster) -> None:
    """From apply to Complete; each call that was made is in the Role, and each right of the Role was used."""
    chain.apply()
    assert chain.end()["type"] == "Complete"
    assert chain.jobs() == ONCE
    assert chain.log().rstrip().endswith("every stage is done")
    used = {(call.group, call.resource, call.verb) for call in cluster.calls_of("adainf-orchestrator")}
    role = next(each for each in yaml.safe_load_all((ROOT / "jobs" / "adainf.yaml").read_text()) if each["kind"] == "Role")
    granted = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert used <= granted
    # What a smooth run has no use for: adopting, mirroring, and asking why there are no pods.
    assert granted - used <= {("batch", "jobs", "get"), ("batch", "jobs", "patch"), ("events.k8s.io", "events", "list")}


def test_apply_twice(chain: Chain) -> None:
    chain.play = hold("fit")  # type: ignore[assignment]
    chain.apply()
    pod = chain.pod("fit")
    assert {line.split()[-1] for line in chain.apply().splitlines()} == {"unchanged"}
    assert chain.pod("fit")["metadata"]["uid"] == pod["metadata"]["uid"]
    chain.finish(pod)
    assert chain.end()["type"] == "Complete"
    assert chain.jobs() == ONCE


def test_another_image_mid_run(chain: Chain, cluster: Cluster) -> None:
    """The running stage goes on, the next begins with the new image, and the drift is told."""
    chain.play = hold("fit")  # type: ignore[assignment]
    chain.apply()
    pod = chain.pod("fit")
    chain.images = {"adainf-fit": "adainf-train:2", "adainf-report": "adainf-train:2"}
    chain.apply()
    cluster.faults.drop_watches()  # so that it looks
    cluster.until(lambda: "TemplateChanged" in chain.notes(), 90)
    chain.finish(pod)
    assert chain.end()["type"] == "Complete"
    images = {task(job["metadata"]["labels"]): image(job) for job in cluster.store.list("jobs")}
    assert images["fit"] == "adainf-train:0.1.0"
    assert images["report"] == "adainf-train:2"


def image(job: Object) -> str:
    return str(job["spec"]["template"]["spec"]["containers"][0]["image"])


def test_preemption_of_one_pod_of_a_gang(chain: Chain, cluster: Cluster) -> None:
    first = lambda pod: FOREVER if task(pod["metadata"]["labels"]) == "pretrain.none" and attempt(pod) == "1" else None  # noqa: E731
    chain.play = first
    chain.apply()
    cluster.preempt(chain.pod("pretrain.none", index=1))
    assert chain.end()["type"] == "Complete"
    assert chain.jobs() == sorted([*ONCE, "pretrain.none-2"])
    assert "disrupted" in chain.notes()["AttemptFailed"]


def test_out_of_memory(chain: Chain) -> None:
    def play(pod: Object) -> Script | None:
        fits = task(pod["metadata"]["labels"]) != "fit" or attempt(pod) != "1"
        return None if fits else Script(Exit(137, reason="OOMKilled"))

    chain.play = play
    chain.apply()
    assert chain.end()["type"] == "Complete"
    assert "fit-2" in chain.jobs()
    assert "OOMKilled" in chain.notes()["AttemptFailed"]


def test_a_stage_that_refuses_its_input(chain: Chain) -> None:
    def play(pod: Object) -> Script | None:
        if task(pod["metadata"]["labels"]) != "ingest":
            return None
        chain.record(pod, 64, "no image is left after the filter; lower it")
        return Script(Exit(64))

    chain.play = play
    chain.apply()
    ended = chain.end()
    assert (ended["type"], ended["reason"]) == ("Failed", "PodFailurePolicy")
    assert "exit code 64" in ended["message"]
    assert "no image is left" in chain.notes()["Failed"]
    assert "no image is left" in chain.log().splitlines()[-1]
    assert chain.jobs() == ["ingest-1"]


def test_dead_node(chain: Chain, cluster: Cluster) -> None:
    """A pod that hangs in Terminating does not keep the next attempt."""
    chain.env["ADAINF_STUCK_S"] = "2"

    def play(pod: Object) -> Script | None:
        label = pod["metadata"]["labels"]
        return FOREVER if task(label) == "pretrain.none" and attempt(pod) == "1" else None

    chain.play = play
    chain.apply()
    lost = chain.pod("pretrain.none", index=1)
    orchestrator = chain.orchestrator()
    if orchestrator["spec"]["nodeName"] == lost["spec"]["nodeName"]:
        cluster.preempt(orchestrator)
    cluster.node(lost["spec"]["nodeName"]).kill()
    survivor = [pod for pod in cluster.pods() if pod["metadata"]["labels"].get(INDEX) == "0" and "gang" in str(pod["metadata"])]
    assert survivor
    assert chain.end(90)["type"] == "Complete"
    assert "pretrain.none-2" in chain.jobs()


def test_quota_of_jobs_ends_it_before_it_begins(chain: Chain, cluster: Cluster) -> None:
    cluster.request("POST", "resourcequotas", {"metadata": {"name": "small"}, "spec": {"hard": {"count/jobs.batch": "1"}}})
    chain.apply()
    assert chain.end()["type"] == "Failed"
    assert "exceeded quota: small" in chain.notes()["Failed"]
    assert chain.started == []


def test_image_that_cannot_be_pulled(chain: Chain, cluster: Cluster) -> None:
    chain.images = {"adainf-ingest": "adainf-train:none"}
    cluster.kubelet.missing_images.add("adainf-train:none")
    chain.apply()
    cluster.until(lambda: {"ErrImagePull", "ImagePullBackOff"} & set(chain.notes()), 60)
    assert chain.started == []


def test_delete_and_apply_resumes(chain: Chain, cluster: Cluster) -> None:
    chain.play = hold("plan")  # type: ignore[assignment]
    chain.apply()
    chain.pod("plan")
    cluster.kubectl("delete", "job/adainf")
    cluster.until(lambda: not cluster.store.list("jobs") and not cluster.pods())
    chain.play = lambda pod: None
    chain.started.clear()
    chain.apply()
    assert chain.end()["type"] == "Complete"
    assert not {"ingest", "fit", "generate", "pretrain.none"} & set(chain.started)


def test_a_job_of_the_same_name(chain: Chain, cluster: Cluster) -> None:
    """409: made from the same template it is taken over, made from another the chain ends and says so."""
    taken: list[str] = []

    def steal(call: Call) -> None:
        """Answers the first real creation with a server error, though the Job is there."""
        if call.verb == "create" and call.resource == "jobs" and len(cluster.store.list("jobs")) == 2 and not taken:
            taken.append("ingest")
            cluster.kubelet.runs[chain.orchestrator()["metadata"]["uid"]].kill()

    cluster.faults.after = steal
    chain.apply()
    assert chain.end()["type"] == "Complete"
    assert taken == ["ingest"]
    assert chain.jobs() == ONCE


@pytest.mark.parametrize("code", [429, 500, 503])
def test_an_api_that_stumbles(chain: Chain, cluster: Cluster, code: int) -> None:
    cluster.faults.refuse(code, times=3, when=lambda call: call.verb == "create", retry_after_s=0)
    cluster.faults.refuse(code, times=3, when=lambda call: call.verb in ("list", "watch"), retry_after_s=0)
    chain.apply()
    assert chain.end()["type"] == "Complete"
    assert chain.jobs() == ONCE


def test_watches_that_break(chain: Chain, cluster: Cluster) -> None:
    """Dropped, and with a version that the server has forgotten."""

    def break_watches(call: Call) -> None:
        if call.verb == "create":
            cluster.store.forget()
            cluster.faults.drop_watches()

    cluster.faults.after = break_watches
    chain.apply()
    assert chain.end()["type"] == "Complete"
    assert chain.jobs() == ONCE


def test_killed_after_each_creation(chain: Chain, cluster: Cluster) -> None:
    """SIGKILL when the server has done what was asked and before it says so."""
    made: set[str] = set()

    def kill(call: Call) -> None:
        now = {job["metadata"]["name"] for job in cluster.store.list("jobs")} - made - {"adainf"}
        if now:
            made.update(now)
            cluster.kubelet.runs[chain.orchestrator()["metadata"]["uid"]].kill()

    cluster.faults.after = kill
    chain.apply()
    assert chain.end(120)["type"] == "Complete"
    assert chain.jobs() == ONCE
    assert cluster.job("adainf")["status"]["failed"] == len(TASKS)  # type: ignore[index]


@pytest.mark.slow
def test_killed_after_each_call(tmp_path: Path) -> None:
    """The n-th call of the first orchestrator, for each n: the same end."""
    n, calls = 0, 1
    while n < calls:
        folder = tmp_path / str(n)
        folder.mkdir()
        with Cluster(folder, speed=1000) as cluster:
            chain = Chain(cluster, folder)
            seen: list[Call] = []

            def after(
                call: Call, seen: list[Call] = seen, cluster: Cluster = cluster, chain: Chain = chain, n: int = n
            ) -> None:
                seen.append(call)
                if len(seen) == n + 1:
                    cluster.kubelet.runs[chain.orchestrator()["metadata"]["uid"]].kill()

            cluster.faults.after = after
            chain.apply()
            assert chain.end()["type"] == "Complete", n
            assert chain.jobs() == ONCE, n
            calls = max(calls, len(seen) // 2)
        n += 1
