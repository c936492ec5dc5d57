"""The quarantine: corrupt samples of a split, one line of JSON each, beside the cached images.

A corrupt shard is detected in `format/decode.py`; this module records its samples and enforces the policy.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from adainf.errors import BadInput
from adainf.shards.format.decode import Corruption, Policy, corruption_error
from adainf.shards.format.folder import ShardFolder

LIMIT = 1000
"""One sample of this many may be corrupt (at least one of any set): more is not an accidental disk error."""


class Quarantine:
    """``quarantine.jsonl`` of one split in the cache."""

    def __init__(self, path: Path, folder: ShardFolder, images: int, policy: Policy) -> None:
        self._path, self._folder, self._images, self._policy = path, folder, images, policy

    def add(self, corrupt: list[Corruption]) -> None:
        """Record the corrupt samples of one shard, before the shard is marked ready."""
        if corrupt:
            lines = "".join(json.dumps(each._asdict()) + "\n" for each in corrupt)
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, lines.encode())  # one write: processes of the node append concurrently
            finally:
                os.close(fd)

    def records(self) -> list[Corruption]:
        """All records, without duplicates: a process killed between record and mark leaves one twice."""
        if not self._path.exists():
            return []
        lines = self._path.read_text().splitlines()
        return list(dict.fromkeys(Corruption(**json.loads(line)) for line in lines))

    def check(self) -> None:
        """Raise `BadInput` where the policy does not allow the records."""
        found = self.records()
        if found and self._policy == "fail":
            raise corruption_error(self._folder, found[0])
        limit = max(1, self._images // LIMIT)
        samples = sum(bool(each.key) for each in found)
        if samples > limit:
            raise BadInput(
                f"{self._folder.uri}: {samples} corrupt samples exceed the limit of {limit} of {self._images:,} (the last is "
                f"{found[-1].key} in {found[-1].shard}); restore or recreate these shards"
            )
