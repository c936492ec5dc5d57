"""The Role grants exactly the rights that the controller uses in a run with every kind of trouble."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.cluster import Cluster
from tests.cluster.access import Call
from tests.cluster.statuses import Refusal
from tests.kubernetes.controller.pipeline import RECIPE, ROOT, Pipeline


def granted() -> set[tuple[str, str, str, str]]:
    """(group, resource, name or empty, verb) of each right of the Role in jobs/adainf.yaml."""
    role = next(each for each in yaml.safe_load_all((ROOT / "jobs" / "adainf.yaml").read_text()) if each["kind"] == "Role")
    return {
        (group, resource, name, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", [""])
        for verb in rule["verbs"]
    }


def test_each_right_is_used_and_no_other(tmp_path: Path) -> None:
    """A quota blocks the first pod until its attempt times out, and a response is lost, so that a Job already exists."""
    with Cluster(tmp_path, speed=1000) as cluster:
        lost: list[str] = []

        def lose(call: Call) -> None:
            names = [job["metadata"]["name"] for job in cluster.store.list("jobs") if job["metadata"]["name"] != "adainf"]
            if (call.verb, call.resource) == ("create", "jobs") and names and not lost:
                lost.extend(names)
                raise Refusal(500, "the Job is created, but the response is lost")

        cluster.faults.after = lose
        cluster.request("POST", "resourcequotas", {"metadata": {"name": "small"}, "spec": {"hard": {"pods": "1"}}})
        pipeline = Pipeline(cluster, tmp_path)
        pipeline.recipe = tmp_path / "verified.yaml"  # so that it has every stage
        every = "arms: [none, vanilla, adainf, verified, positives]\nplan: {verify: {}}\n"
        every += "positives: {draw: {kind: renoise, sigma: 0.5}}\n"
        pipeline.recipe.write_text(every + RECIPE.read_text())
        pipeline.start_timeout_s = 3
        pipeline.apply()
        cluster.until(lambda: "ingest-2" in pipeline.jobs(), 60)
        cluster.request("DELETE", "resourcequotas/small")
        assert pipeline.end()["type"] == "Complete"
        assert lost
        assert "already exists; adopted" in pipeline.log()
        assert "exceeded quota: small" in str(cluster.events("adainf"))
        calls = cluster.calls_of("adainf-controller")
    used = {(call.group, call.resource, call.name if call.resource == "cronjobs" else "", call.verb) for call in calls}
    assert used == granted()
