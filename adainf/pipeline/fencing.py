"""Fencing token: only the newest attempt of a stage may write; a stale attempt is fenced off and stops.

A node that was considered lost may reappear while its replacement runs, or a user may start a command twice.
"""

from __future__ import annotations

import json
import secrets
from contextlib import suppress
from typing import Any

from adainf.errors import Superseded
from adainf.pipeline.artifacts import Run
from adainf.pipeline.records import canonical_json
from adainf.storage import NotFound, PreconditionFailed


class Attempt:
    """One attempt of a stage. The object `key` holds the number and the fencing token of the newest attempt.

    In a store without conditional writes two concurrent attempts may take the same number. Their tokens differ, so one of them
    is fenced off.
    """

    def __init__(self, run: Run, key: str) -> None:
        self._run, self._key = run, key
        self._own: bytes | None = None

    @property
    def begun(self) -> bool:
        """Whether `begin` was called; only one process of a launch calls it."""
        return self._own is not None

    def begin(self) -> None:
        """Take over from the previous attempt, dead or alive."""
        store = self._run.store
        while not self.begun:
            with suppress(NotFound, PreconditionFailed):  # lost a race against another attempt: read again
                found = store.head(self._key)
                if found is None:
                    own = _encode(1)
                    store.put_if_absent(self._key, own)
                else:
                    own = _encode(_number(store.get(self._key, etag=found.etag)) + 1)
                    store.put_if_match(self._key, own, found.etag)
                self._own = own

    def check(self) -> None:
        """Raise `Superseded` if a newer attempt has begun, or has finished the stage."""
        assert self.begun, "call begin first"
        if self._stored() != self._own:
            raise Superseded(f"a newer attempt of this stage has taken over ({self._run.locate(self._key)}); wait for that one")

    def ended(self) -> bool:
        """Whether an attempt has finished the stage and deleted its state."""
        return self._stored() is None

    def _stored(self) -> bytes | None:
        try:
            return self._run.store.get(self._key)
        except NotFound:
            return None


def _encode(number: int) -> bytes:
    return canonical_json({"attempt": number, "token": secrets.token_hex(16)})


def _number(data: bytes) -> int:
    try:
        held: Any = json.loads(data)
        return int(held["attempt"])
    except (ValueError, LookupError, TypeError):
        return 0  # the number is informative; only the token is compared
