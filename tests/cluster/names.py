"""DNS of the cluster: the names that headless Services publish, in a hosts file."""

from __future__ import annotations

from pathlib import Path

from tests.cluster.job_controller import condition
from tests.cluster.store import Store

DOMAIN = "cluster.local"


def publish(store: Store, hosts: Path) -> None:
    """The pods that a Service selects, terminating ones included with `publishNotReadyAddresses`."""
    lines = []
    for service in store.list("services"):
        name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
        selector = service["spec"].get("selector", {}).items()
        for pod in store.list("pods", namespace) if selector else []:
            status, labels = pod["status"], pod["metadata"].get("labels", {})
            ready = condition(pod, "Ready") or service["spec"].get("publishNotReadyAddresses")
            if (
                not selector <= labels.items()
                or not status.get("podIP")
                or status["phase"] not in ("Pending", "Running")
                or not ready
            ):
                continue
            lines.append(f"{status['podIP']} {name}.{namespace}.svc.{DOMAIN}")
            if pod["spec"].get("subdomain") == name and "hostname" in pod["spec"]:
                lines.append(f"{status['podIP']} {pod['spec']['hostname']}.{name}.{namespace}.svc.{DOMAIN}")
    text = "\n".join([*lines, ""])
    if not hosts.exists() or hosts.read_text() != text:
        draft = hosts.with_suffix(".draft")
        draft.write_text(text)
        draft.replace(hosts)  # atomic for readers
