"""Copies of objects on S3 for sources that read local files: an image folder, a .npz.

They are temporary files in ``$TMPDIR``, deleted when the source is no longer used; a killed process leaves them there.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from adainf.pipeline.progress import Reporter
from adainf.shards.format.decode import MAX_CONCURRENT_FETCHES
from adainf.shards.format.formats import image_suffixes
from adainf.shards.format.tar import Sample
from adainf.sources.base import BadData, CorruptImage, Described, SourceImages
from adainf.sources.tar_files import is_hidden
from adainf.storage import ObjectInfo, Store, open_store

_TABLES = (".csv", ".tsv", ".json", ".jsonl", ".txt")
"""Labels and captions beside the images."""
_CHUNK = 1 << 20


def copy_object(store: Store, info: ObjectInfo, target: Path) -> None:
    """Copy one object to a local file."""
    with store.open(info.key, info.etag) as file, target.open("wb") as copy:
        shutil.copyfileobj(file, copy, _CHUNK)


def check_space(uri: str, needed_bytes: int) -> None:
    """Raise `BadData` where a copy does not fit on the disk."""
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if needed_bytes > free:
        raise BadData(f"{uri}: its copy needs {needed_bytes:,} bytes, and {folder} has {free:,}; set TMPDIR to a larger disk")


class Staged:
    """A local copy of a folder of images on S3. Other files are empty in it, except tables."""

    def __init__(self, uri: str, field: str) -> None:
        """Raises `BadData` where there is nothing to copy, or it does not fit on the disk."""
        self.uri = uri.rstrip("/")
        store = open_store(uri)
        found = list(store.list())
        wanted = [
            info for info in found if info.key.lower().endswith((*image_suffixes(), *_TABLES)) and not is_hidden(info.key)
        ]
        if not wanted:
            raise BadData(f"{uri}: contains no images; set {field} to the folder of images")
        check_space(uri, sum(info.size_bytes for info in wanted))
        self._folder = tempfile.TemporaryDirectory(prefix="adainf-")
        self.path = self._folder.name
        for info in found:
            target = Path(self.path, info.key)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
        reporter = Reporter()
        with reporter.track("download", total=len(wanted)) as track, ThreadPoolExecutor(MAX_CONCURRENT_FETCHES) as pool:
            for _ in pool.map(lambda info: copy_object(store, info, Path(self.path, info.key)), wanted):
                track.advance()

    @contextmanager
    def own_names(self) -> Iterator[None]:
        """Errors name the objects, not their copies."""
        try:
            yield
        except CorruptImage as error:
            raise CorruptImage(self.rename(error.where), error.reason) from None
        except BadData as error:
            raise BadData(self.rename(str(error))) from None

    def rename(self, text: str) -> str:
        """The text with the URI in place of the copy's path."""
        return text.replace(self.path, self.uri)


@dataclass(frozen=True)
class StagedImages:
    """The images of a copy."""

    images: SourceImages
    copy: Staged

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        with self.copy.own_names():
            return self.images[index]

    def describe(self, index: int) -> Described:
        """As `SourceImages.describe`."""
        return self.images.describe(index)

    def locate(self, index: int) -> str:
        return self.copy.rename(self.images.locate(index))
