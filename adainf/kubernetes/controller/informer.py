"""Objects of one kind as the API server has them: listed, then watched, and listed anew every minute.

Watches of this client have been seen to fall silent without an error, so none is relied upon.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from adainf.kubernetes.controller.api import Api, Refused, Unavailable
from adainf.kubernetes.controller.templates import Object

RELIST_S = 60
_PAUSE_S = 0.5
"""After a watch that failed."""


class Mirror:
    """The objects that a label selector selects. `wake` is called after each change that a watch brings."""

    def __init__(self, api: Api, group: str, kind: str, selector: str, wake: Callable[[], None]) -> None:
        self._api, self._group, self._kind, self._selector, self._wake = api, group, kind, selector, wake
        self._objects: dict[str, Object] = {}
        self._version = ""
        self._listed_at = float("-inf")
        self._lock = threading.Lock()
        self._watcher: threading.Thread | None = None
        self._age = 0
        """How many lists there were: a watch from before the newest one has nothing more to say."""

    def objects(self) -> list[Object]:
        """What is there. Lists first where that is due, and then raises as `Api.list`."""
        if time.monotonic() >= self._listed_at + RELIST_S:
            self._list()
            self._watcher = None
        if self._watcher is None or not self._watcher.is_alive():
            self._watcher = threading.Thread(target=self._follow, args=(self._age,), name=f"watch of {self._kind}", daemon=True)
            self._watcher.start()
        with self._lock:
            return list(self._objects.values())

    def put(self, thing: Object) -> None:
        """Take an object that was just written, unless a watch has brought a later version of it already."""
        with self._lock:
            there = self._objects.setdefault(thing["metadata"]["name"], thing)
            if _version(there) < _version(thing):
                self._objects[thing["metadata"]["name"]] = thing

    def _list(self) -> None:
        listed = self._api.list(self._group, self._kind, labelSelector=self._selector)
        with self._lock:
            self._age += 1
            self._objects = {thing["metadata"]["name"]: thing for thing in listed["items"]}
            self._version = listed["metadata"]["resourceVersion"]
            self._listed_at = time.monotonic()

    def _follow(self, age: int) -> None:
        """Watch until it ends or breaks, or there is a newer list; the next look starts another one."""
        try:
            for event in self._api.watch(self._group, self._kind, self._version, labelSelector=self._selector):
                if not self._take(age, event["type"], event["object"]):
                    return
        except Refused:  # 410: the version is too old
            self._listed_at = float("-inf")
            time.sleep(_PAUSE_S)
        except Unavailable:
            time.sleep(random.uniform(1, 3) * _PAUSE_S)
        self._wake()

    def _take(self, age: int, kind: str, thing: Object) -> bool:
        """Whether it was news."""
        with self._lock:
            if age != self._age:
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
    """Numbers of one sequence within a kind: so in every server, and promised since 1.35."""
    return int(thing["metadata"]["resourceVersion"])
