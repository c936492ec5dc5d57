"""Nodes: scheduling, and the pods of nodes that die, are cordoned or are removed."""

from __future__ import annotations

from functools import partial

from tests.cluster.clock import Clock, timestamp
from tests.cluster.kinds import kind_of
from tests.cluster.quantities import amount, requested
from tests.cluster.store import Object, Store

_UNREACHABLE = "node.kubernetes.io/unreachable"
_TERMINAL = ("Succeeded", "Failed")


def set_condition(pod: Object, kind: str, status: str, reason: str = "", message: str = "") -> None:
    """Set a condition. `lastTransitionTime` changes only with the condition's status."""
    conditions = pod.setdefault("status", {}).setdefault("conditions", [])
    old = next((each for each in conditions if each["type"] == kind), None)
    since = old["lastTransitionTime"] if old and old["status"] == status else timestamp()
    new = {"type": kind, "status": status, "lastTransitionTime": since}
    new |= {name: value for name, value in (("reason", reason), ("message", message)) if value}
    pod["status"]["conditions"] = [*(each for each in conditions if each["type"] != kind), new]


def disrupt(store: Store, pod: Object, reason: str, message: str) -> None:
    """Disrupt a pod, as evictions, preemptions and taints do: DisruptionTarget, then a graceful deletion."""
    store.edit("pods", pod, lambda new: set_condition(new, "DisruptionTarget", "True", reason, message), status=True)
    store.delete("pods", pod)


class Node:
    """A node, for tests to manipulate."""

    def __init__(self, store: Store, name: str) -> None:
        self._store, self.name = store, name

    def cordon(self) -> None:
        """Make the node unschedulable."""
        self._store.edit("nodes", self._object(), lambda node: node["spec"].update(unschedulable=True))

    def uncordon(self) -> None:
        self._store.edit("nodes", self._object(), lambda node: node["spec"].pop("unschedulable", None))

    def kill(self) -> None:
        """Cut the power. The node is NotReady at once (on a real cluster after about 45 s). Its pods are deleted after their
        toleration and are stuck in Terminating, as no kubelet responds."""
        self._store.edit(
            "nodes", self._object(), lambda node: set_condition(node, "Ready", "Unknown", "NodeStatusUnknown"), status=True
        )

    def remove(self) -> None:
        """Delete the Node object. The pod garbage collector then fails its pods."""
        self._store.delete("nodes", self._object())

    def _object(self) -> Object:
        node = self._store.get("nodes", "", self.name)
        assert node, self.name
        return node


class Nodes:
    """The scheduler, the taint manager and the pod garbage collector."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock

    def add(self, name: str, capacity: dict[str, str]) -> None:
        kind = kind_of("", "nodes")
        assert kind
        node: Object = {"metadata": {"name": name}, "spec": {}, "status": {"capacity": capacity, "allocatable": capacity}}
        set_condition(node, "Ready", "True", "KubeletReady")
        self._store.create(kind, "", node)

    def sync(self) -> None:
        nodes = {node["metadata"]["name"]: node for node in self._store.list("nodes")}
        for pod in self._store.list("pods"):
            name = pod["spec"].get("nodeName")
            if pod["status"]["phase"] in _TERMINAL and name in nodes:
                continue
            if name is None:
                if "deletionTimestamp" not in pod["metadata"]:
                    self._schedule(pod, list(nodes.values()))
            elif name not in nodes:
                self._orphaned(pod)
            elif not alive(nodes[name]):
                # Like the node controller. ContainersReady, which the kubelet reports, stays.
                if holds(pod, "Ready"):
                    self._store.edit("pods", pod, lambda new: set_condition(new, "Ready", "False"), status=True)
                if "deletionTimestamp" not in pod["metadata"]:
                    self._unreachable(pod)

    def _schedule(self, pod: Object, nodes: list[Object]) -> None:
        reasons: dict[str, int] = {}
        for node in nodes:
            lacking = self._lacking(pod, node)
            if not lacking:
                where = {"nodeName": node["metadata"]["name"]}
                self._store.edit("pods", pod, partial(_specify, where))
                self._store.edit("pods", pod, lambda new: set_condition(new, "PodScheduled", "True"), status=True)
                return
            for reason in lacking:
                reasons[reason] = reasons.get(reason, 0) + 1
        counts = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        message = f"0/{len(nodes)} nodes are available: {counts}."
        self._store.edit(
            "pods", pod, lambda new: set_condition(new, "PodScheduled", "False", "Unschedulable", message), status=True
        )

    def _lacking(self, pod: Object, node: Object) -> list[str]:
        if not alive(node):
            return ["node(s) had untolerated taint {node.kubernetes.io/unreachable: }"]
        if node["spec"].get("unschedulable"):
            return ["node(s) were unschedulable"]
        free = {name: amount(value) for name, value in node["status"]["allocatable"].items()}
        for other in self._store.list("pods"):
            if other["spec"].get("nodeName") == node["metadata"]["name"] and other["status"]["phase"] not in _TERMINAL:
                for name, value in requested(other).items():
                    free[name] = free.get(name, 0) - value
        return [f"Insufficient {name}" for name, value in requested(pod).items() if value > free.get(name, 0)]

    def _unreachable(self, pod: Object) -> None:
        tolerations = [each for each in pod["spec"].get("tolerations", []) if each.get("key") in (_UNREACHABLE, None)]
        for_s = min((each.get("tolerationSeconds", float("inf")) for each in tolerations), default=0)
        if self._clock.due((pod["metadata"]["uid"], "unreachable"), for_s):
            disrupt(self._store, pod, "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")

    def _orphaned(self, pod: Object) -> None:
        def fail(new: Object) -> None:
            set_condition(new, "DisruptionTarget", "True", "DeletionByPodGC", "PodGC: node no longer exists")
            new["status"]["phase"] = "Failed"

        self._store.edit("pods", pod, fail, status=True)
        self._store.delete("pods", pod, grace_s=0)


def _specify(fields: Object, new: Object) -> None:
    new["spec"].update(fields)


def holds(thing: Object, kind: str) -> bool:
    """Whether a condition of a node or a pod is True."""
    return any(each["type"] == kind and each["status"] == "True" for each in thing["status"].get("conditions", []))


def alive(node: Object) -> bool:
    return holds(node, "Ready")
