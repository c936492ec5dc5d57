"""The garbage collector: objects without owners, and the three propagation policies."""

from __future__ import annotations

from functools import partial

from tests.cluster.store import Object, Store

FINALIZERS = {"Foreground": "foregroundDeletion", "Orphan": "orphan", "Background": None}


def collect(store: Store, plurals: list[str]) -> None:
    """One pass."""
    with store.lock:
        everything = [(plural, each) for plural in plurals for each in store.list(plural)]
        living = {each["metadata"]["uid"] for _, each in everything}
        for plural, each in everything:
            finalizers = each["metadata"].get("finalizers", [])
            owned = [(of, child) for of, child in everything if _owner(child, each["metadata"]["uid"])]
            if "orphan" in finalizers:
                for of, child in owned:
                    store.edit(of, child, partial(_disown, each["metadata"]["uid"]))
                store.edit(plural, each, lambda new: new["metadata"]["finalizers"].remove("orphan"))
            elif "foregroundDeletion" in finalizers:
                for of, child in owned:
                    if "deletionTimestamp" not in child["metadata"]:
                        store.delete(of, child, finalizer="foregroundDeletion" if of == "jobs" else None)
                blocking = [child for _, child in owned if _owner(child, each["metadata"]["uid"]).get("blockOwnerDeletion")]
                if not blocking:
                    store.edit(plural, each, lambda new: new["metadata"]["finalizers"].remove("foregroundDeletion"))
            owners = each["metadata"].get("ownerReferences", [])
            if owners and not {owner["uid"] for owner in owners} & living and "deletionTimestamp" not in each["metadata"]:
                store.delete(plural, each)


def _owner(each: Object, uid: str) -> Object:
    return next((owner for owner in each["metadata"].get("ownerReferences", []) if owner["uid"] == uid), {})


def _disown(uid: str, each: Object) -> None:
    each["metadata"]["ownerReferences"] = [owner for owner in each["metadata"]["ownerReferences"] if owner["uid"] != uid]
