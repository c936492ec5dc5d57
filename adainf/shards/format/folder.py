"""A set of shards in a store. Each object is checked against the manifest when it is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adainf.errors import BadInput
from adainf.pipeline.artifacts import Run
from adainf.pipeline.records import Manifest, Output, sha256
from adainf.shards.format.manifest import Shard, ShardIndex, ShardSet, Split
from adainf.storage import NotFound
from adainf.storage.base import is_key


def is_set(uri: str) -> bool:
    """Whether there is a manifest."""
    try:
        Run(uri).store.get("manifest.json")
    except NotFound:
        return False
    return True


@dataclass(frozen=True)
class ShardFolder:
    """The set in the folder `name` of `run` (the run itself where `name` is empty)."""

    run: Run
    name: str
    shards: ShardSet
    digest: str
    """SHA-256 of its manifest; part of a stream's fingerprint."""

    @classmethod
    def of(cls, run: Run, name: str, manifest: Manifest) -> ShardFolder:
        """The set that a stage of the run committed."""
        return cls(run, name, manifest.content_as(ShardSet), manifest.digest)

    @classmethod
    def open(cls, uri: str) -> ShardFolder:
        """The set in a folder or at ``s3://bucket/prefix``. Raises `BadInput` where there is none."""
        if not uri.startswith("s3://") and Path(uri).is_file():
            raise BadInput(f"{uri} is a file; give the folder of a set of shards (for example RUN/real)")
        run = Run(uri)
        try:
            data = run.store.get("manifest.json")
        except NotFound:
            raise BadInput(
                f"{run.locate('manifest.json')} does not exist; give the folder of a set of shards (for example RUN/real), "
                f"or create one from a folder of tars with `adainf shards index {uri}`"
            ) from None
        manifest = run.parse(Manifest, "manifest.json", data)
        return cls(run, "", manifest.content_as(ShardSet), sha256(data))

    @property
    def uri(self) -> str:
        return self.run.locate(self.name) if self.name else self.run.uri.rstrip("/")

    def split(self, name: str) -> Split:
        """The split of that name. Raises `BadInput` where the set has none, or no image in it."""
        found = self.shards.splits.get(name)
        if found is None or not found.images:
            available = ", ".join(key for key, split in self.shards.splits.items() if split.images)
            raise BadInput(f"{self.uri} has no images in split {name!r}; choose a split with images: {available or 'none'}")
        return found

    def key(self, key: str) -> str:
        """The key in the run's store of a key of the set. Raises `BadInput` for one outside the set's folder."""
        if not is_key(key):
            raise BadInput(
                f"{self.uri}/manifest.json is corrupt: it names {key!r}, which is not a valid key; restore it or recreate "
                "the set"
            )
        return f"{self.name}/{key}" if self.name else key

    def locate(self, key: str) -> str:
        """The address of a key of the set, for messages."""
        return self.run.locate(self.key(key))

    def read(self, output: Output) -> bytes:
        """The object's bytes. Raises `BadInput` where they do not match the manifest."""
        return self.run.read(output.model_copy(update={"key": self.key(output.key)}))

    def index(self, shard: Shard) -> ShardIndex:
        """The shard's index. Raises `BadInput` as `read` does."""
        return self.run.parse(ShardIndex, self.key(shard.index.key), self.read(shard.index))
