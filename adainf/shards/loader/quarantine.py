"""What was found damaged in a split: one line of JSON for each sample, beside the cached images."""

from __future__ import annotations

import json
import os
from pathlib import Path

from adainf.errors import BadInput
from adainf.shards.format.decode import Damage, Policy, damage_error
from adainf.shards.format.folder import ShardFolder

LIMIT = 1000
"""One sample of so many may be damaged (at least one of any set): more is no accident of the disk."""


class Quarantine:
    """``quarantine.jsonl`` of one split in the cache."""

    def __init__(self, path: Path, folder: ShardFolder, images: int, policy: Policy) -> None:
        self._path, self._folder, self._images, self._policy = path, folder, images, policy

    def add(self, damaged: list[Damage]) -> None:
        """Write down what was found in one shard, before the shard counts as filled."""
        if damaged:
            lines = "".join(json.dumps(damage._asdict()) + "\n" for damage in damaged)
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, lines.encode())  # one write: processes of the node append at the same time
            finally:
                os.close(fd)

    def records(self) -> list[Damage]:
        """All that was found so far, each once: a filler that was killed after its note has left it twice."""
        if not self._path.exists():
            return []
        lines = self._path.read_text().splitlines()
        return list(dict.fromkeys(Damage(**json.loads(line)) for line in lines))

    def check(self) -> None:
        """Raise `BadInput` where the policy does not go on with what was found."""
        found = self.records()
        if found and self._policy == "fail":
            raise damage_error(self._folder, found[0])
        most = max(1, self._images // LIMIT)
        samples = sum(bool(damage.key) for damage in found)
        if samples > most:
            raise BadInput(
                f"{self._folder.uri}: {samples} damaged samples, more than the {most} of {self._images:,} that are put up with "
                f"(the last is {found[-1].key} in {found[-1].shard}); restore or make these shards again"
            )
