"""Informer: a list+watch cache of the objects of one kind.

It lists, then watches, and lists again every minute. Watches of this client can stall without an error, so the cache does not
rely on any of them.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from adainf.kubernetes.controller.api import Api, ApiStatusError, Unavailable
from adainf.kubernetes.controller.templates import Object

RELIST_S = 60
_PAUSE_S = 0.5
"""After a failed watch."""


class Informer:
    """Caches the objects that match a label selector. `wake` is called after each change from a watch."""

    def __init__(self, api: Api, group: str, kind: str, selector: str, wake: Callable[[], None]) -> None:
        self._api, self._group, self._kind, self._selector, self._wake = api, group, kind, selector, wake
        self._objects: dict[str, Object] = {}
        self._version = ""
        self._listed_at = float("-inf")
        self._lock = threading.Lock()
        self._watcher: threading.Thread | None = None
        self._generation = 0
        """Number of lists. Events of a watch of an older generation are ignored."""

    def objects(self) -> list[Object]:
        """The cached objects. Lists them first if that is due, and then raises as `Api.list`."""
        if time.monotonic() >= self._listed_at + RELIST_S:
            self._list()
            self._watcher = None
        if self._watcher is None or not self._watcher.is_alive():
            self._watcher = threading.Thread(
                target=self._watch, args=(self._generation,), name=f"watch of {self._kind}", daemon=True
            )
            self._watcher.start()
        with self._lock:
            return list(self._objects.values())

    def put(self, thing: Object) -> None:
        """Cache an object that this process wrote, unless the cache has a newer version."""
        with self._lock:
            cached = self._objects.setdefault(thing["metadata"]["name"], thing)
            if _version(cached) < _version(thing):
                self._objects[thing["metadata"]["name"]] = thing

    def _list(self) -> None:
        listed = self._api.list(self._group, self._kind, labelSelector=self._selector)
        with self._lock:
            self._generation += 1
            self._objects = {thing["metadata"]["name"]: thing for thing in listed["items"]}
            self._version = listed["metadata"]["resourceVersion"]
            self._listed_at = time.monotonic()

    def _watch(self, generation: int) -> None:
        """Watch until the watch ends or fails, or a newer list exists. `objects` starts the next watch."""
        try:
            for event in self._api.watch(self._group, self._kind, self._version, labelSelector=self._selector):
                if not self._apply(generation, event["type"], event["object"]):
                    return
        except ApiStatusError:  # 410: the version is too old
            self._listed_at = float("-inf")
            time.sleep(_PAUSE_S)
        except Unavailable:
            time.sleep(random.uniform(1, 3) * _PAUSE_S)
        self._wake()

    def _apply(self, generation: int, kind: str, thing: Object) -> bool:
        """Apply an event to the cache. Returns False if the watch is outdated."""
        with self._lock:
            if generation != self._generation:
                return False
            self._version = thing["metadata"]["resourceVersion"]
            if kind == "BOOKMARK":
                return True
            name = thing["metadata"]["name"]
            if kind == "DELETED":
                self._objects.pop(name, None)
            else:
                self._objects[name] = thing
        self._wake()
        return True


def _version(thing: Object) -> int:
    """Resource versions of one kind are comparable numbers: in every API server, and by specification since 1.35."""
    return int(thing["metadata"]["resourceVersion"])
