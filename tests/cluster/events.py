"""Events: stored once, served as v1 and as events.k8s.io/v1."""

from __future__ import annotations

from tests.cluster.clock import timestamp
from tests.cluster.kinds import kind_of
from tests.cluster.store import Object, Store

_NAMES = {
    "involvedObject": "regarding",
    "message": "note",
    "reportingComponent": "reportingController",
    "source": "deprecatedSource",
    "count": "deprecatedCount",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
}


_SIMILAR = 10
"""Events about one object with one reason, after which the recorder of client-go counts instead of storing another one."""


def record(store: Store, about: Object, warning: bool, reason: str, message: str, component: str) -> None:
    """Store an Event of one of the cluster's controllers."""
    metadata = about["metadata"]
    similar = [
        event
        for event in store.list("events", metadata["namespace"])
        if (event["involvedObject"].get("uid"), event.get("reason")) == (metadata["uid"], reason)
    ]
    if len(similar) >= _SIMILAR:
        last = max(similar, key=lambda event: int(event["metadata"]["resourceVersion"]))
        combined = {"message": f"(combined from similar events): {message}", "count": last["count"] + 1}
        store.edit("events", last, lambda new: new.update(combined, lastTimestamp=timestamp()))
        return
    regarding = {"kind": about["kind"], "apiVersion": about["apiVersion"]}
    regarding |= {name: metadata[name] for name in ("namespace", "name", "uid")}
    event = {
        "metadata": {"generateName": f"{metadata['name']}."}, "involvedObject": regarding, "reason": reason, "message": message,
        "type": "Warning" if warning else "Normal", "source": {"component": component}, "reportingComponent": component,
        "count": 1, "firstTimestamp": timestamp(), "lastTimestamp": timestamp(),
    }  # fmt: skip
    kind = kind_of("", "events")
    assert kind
    store.create(kind, metadata["namespace"], event)


def stored(event: Object) -> Object:
    """Convert from events.k8s.io/v1 to the stored v1."""
    return {old: event[new] for old, new in _NAMES.items() if new in event} | {
        name: value for name, value in event.items() if name not in _NAMES.values()
    }


def shown(event: Object, group: str) -> Object:
    """Convert a stored Event to the API group of a request. Other objects are unchanged."""
    if group != "events.k8s.io":
        return event
    renamed = {_NAMES.get(name, name): value for name, value in event.items()}
    return {**renamed, "apiVersion": "events.k8s.io/v1"}
