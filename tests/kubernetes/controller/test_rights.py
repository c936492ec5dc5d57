"""The Role of the controller is exactly what it needs on a day on which everything happens."""

from __future__ import annotations

from pathlib import Path

import yaml

from tests.cluster import Cluster
from tests.cluster.access import Call
from tests.cluster.statuses import Refusal
from tests.kubernetes.controller.chain import RECIPE, ROOT, Chain


def granted() -> set[tuple[str, str, str, str]]:
    """(group, resource, name or nothing, verb) of the Role of jobs/adainf.yaml."""
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
    """A quota keeps the first pod back until its attempt is given up; and an answer is lost, so that a Job is there already."""
    with Cluster(tmp_path, speed=1000) as cluster:
        lost: list[str] = []

        def lose(call: Call) -> None:
            names = [job["metadata"]["name"] for job in cluster.store.list("jobs") if job["metadata"]["name"] != "adainf"]
            if (call.verb, call.resource) == ("create", "jobs") and names and not lost:
                lost.extend(names)
                raise Refusal(500, "the Job is made, and its maker is not told")

        cluster.faults.after = lose
        cluster.request("POST", "resourcequotas", {"metadata": {"name": "small"}, "spec": {"hard": {"pods": "1"}}})
        chain = Chain(cluster, tmp_path)
        chain.recipe = tmp_path / "verified.yaml"  # so that it has every stage
        chain.recipe.write_text(
            "arms: [none, vanilla, adainf, verified]\n" + RECIPE.read_text().replace("plan:", "plan:\n  verify: {}")
        )
        chain.start_timeout_s = 3
        chain.apply()
        cluster.until(lambda: "ingest-2" in chain.jobs(), 60)
        cluster.request("DELETE", "resourcequotas/small")
        assert chain.end()["type"] == "Complete"
        assert lost
        assert "is there already and taken over" in chain.log()
        assert "exceeded quota: small" in str(cluster.events("adainf"))
        calls = cluster.calls_of("adainf-controller")
    used = {(call.group, call.resource, call.name if call.resource == "cronjobs" else "", call.verb) for call in calls}
    assert used == granted()
