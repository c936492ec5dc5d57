"""Which of several starts of a stage goes on: the last one. Those before it find out, change nothing more and stop.

A machine that was given up for lost may come back while its successor is at work, and a command may be typed twice.
"""

from __future__ import annotations

import json
import secrets
from contextlib import suppress
from typing import Any

from adainf.errors import Superseded
from adainf.pipeline.artifacts import Run, canonical_json
from adainf.storage import NotFound, PreconditionFailed


class Attempt:
    """One start of a stage, fenced by the object `key`: it holds the number and the token of the last start that began.

    Where a store ignores conditions two starts may take the same number in the same moment; their tokens differ, and one
    of them finds the other's.
    """

    def __init__(self, run: Run, key: str) -> None:
        self._run, self._key = run, key
        self._own: bytes | None = None

    @property
    def begun(self) -> bool:
        """Whether `begin` was called: only one process of a launch does."""
        return self._own is not None

    def begin(self) -> None:
        """Take over from the start before, dead or alive."""
        store = self._run.store
        while not self.begun:
            with suppress(NotFound, PreconditionFailed):  # another began or ended in this very moment: look again
                found = store.head(self._key)
                if found is None:
                    own = _named(1)
                    store.put_if_absent(self._key, own)
                else:
                    own = _named(_number(store.get(self._key, etag=found.etag)) + 1)
                    store.put_if_match(self._key, own, found.etag)
                self._own = own

    def check(self) -> None:
        """Raise `Superseded` where another start has begun since, or has ended the stage."""
        assert self.begun, "only an attempt that began can be superseded"
        if self._stored() != self._own:
            raise Superseded(f"another start of this stage has taken over ({self._run.locate(self._key)}); this one stops")

    def ended(self) -> bool:
        """Whether some start has ended the stage and swept up."""
        return self._stored() is None

    def _stored(self) -> bytes | None:
        try:
            return self._run.store.get(self._key)
        except NotFound:
            return None


def _named(number: int) -> bytes:
    return canonical_json({"attempt": number, "token": secrets.token_hex(16)})


def _number(data: bytes) -> int:
    try:
        held: Any = json.loads(data)
        return int(held["attempt"])
    except (ValueError, LookupError, TypeError):
        return 0  # the number is for people, the token decides
