"""Existing WebDataset shards, in a local folder or on S3: all samples of all .tar files, in the order of their names."""

from __future__ import annotations

import bisect
import io
import zlib
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import IO

from adainf.pipeline.records import canonical_json, sha256
from adainf.recipe import ImportedImages, Shards
from adainf.shards.format.formats import Header, header_of
from adainf.shards.format.png import decode_image
from adainf.shards.format.samples import Problem, SampleScan, Unsorted, number_of, sample_of
from adainf.shards.format.scan import Forward
from adainf.shards.format.tar import Sample
from adainf.sources.base import BadData, Described, ImageSource, numbered_classes
from adainf.sources.tar_files import find_tars, locate
from adainf.storage import NotFound, ObjectInfo, PreconditionFailed, Store

_READ_AHEAD_BYTES = 8 << 20
_FIXES = {Problem: "repair or remove this sample", Unsorted: "repack its files with `tar --sort=name`"}


@contextmanager
def opened(store: Store, tar: ObjectInfo) -> Iterator[IO[bytes]]:
    """A tar as a file that is read once. Raises `BadData` as `opening` does."""
    with opening(store, tar), store.open(tar.key, tar.etag) as file:
        yield file


@contextmanager
def opening(store: Store, tar: ObjectInfo) -> Iterator[None]:
    """Raises `BadData`, with the tar's URI and a fix, for whatever is wrong with it in this block."""
    where = locate(store, tar.key)
    try:
        yield
    except NotFound:
        raise BadData(f"{where} was deleted while it was read; restore it") from None
    except PreconditionFailed:
        raise BadData(f"{where} changed while it was read; run again when no process writes to it") from None
    except ValueError as error:
        raise BadData(f"{where}: {error}; {_FIXES.get(type(error), 'download or recreate the shard')}") from None


class _Tar:
    """One tar: where its samples are, as columns."""

    def __init__(self, store: Store, info: ObjectInfo) -> None:
        """Reads the tar once. Raises `BadData` for a corrupt one."""
        self._store, self._info = store, info
        self.keys: list[str] = []
        self.texts: list[str | None] = []
        self.labels: list[int] = []
        self._headers: list[Header | None] = []
        self._offsets, self._sizes, self._crc32s = array("q"), array("q"), array("L")
        """Of the encoded images."""
        self._window, self._start, self._ahead = b"", 0, 0
        known: dict[Header | None, Header | None] = {}
        with opened(store, info) as file:
            tar = Forward(file, info.size_bytes)
            for found in SampleScan(tar, read_images=True):
                sample, data = sample_of(found), found.data
                self.keys.append(sample.key)
                self.texts.append(sample.text)
                self.labels.append(number_of(sample))
                header = header_of(io.BytesIO(data))
                self._headers.append(known.setdefault(header, header))
                self._offsets.append(sample.image.offset)
                self._sizes.append(sample.image.size)
                self._crc32s.append(zlib.crc32(data))
            self.sha256 = tar.finish()

    def describe(self, number: int) -> Described:
        label = self.labels[number]
        return Described(None if label < 0 else label, self.texts[number] is not None, self._headers[number])

    def encoded(self, number: int) -> bytes:
        """The encoded image of a sample. Reads ahead where images are read in order. Raises `BadData` where the tar changed."""
        at, size = self._offsets[number], self._sizes[number]
        end = self._start + len(self._window)
        if not self._start <= at <= at + size <= end:
            in_order = 0 <= at - end <= max(self._ahead, size)
            self._ahead = min(2 * max(self._ahead, size), _READ_AHEAD_BYTES) if in_order else 0
            self._window, self._start = b"", at  # free the last window before the next one is read
            wanted = min(max(size, self._ahead), self._info.size_bytes - at)
            with opening(self._store, self._info):
                self._window = self._store.get_range(self._info.key, at, wanted, etag=self._info.etag)
        data = self._window[at - self._start : at - self._start + size]
        if zlib.crc32(data) != self._crc32s[number]:
            raise BadData(f"{self.uri} changed while it was read; run again when no process writes to it")
        return data

    def close(self) -> None:
        """Free the window."""
        self._window, self._start, self._ahead = b"", 0, 0

    @property
    def uri(self) -> str:
        return locate(self._store, self._info.key)


class TarImages:
    """Samples of many tars, of which a window is in memory: access in ascending order reads each tar only once more."""

    def __init__(self, store: Store, tars: list[ObjectInfo]) -> None:
        """Reads every tar once, to find its samples. Raises `BadData` for a corrupt one."""
        self._tars = [_Tar(store, info) for info in tars]
        self._ends = list(accumulate(len(tar.keys) for tar in self._tars))
        self.labels = [label for tar in self._tars for label in tar.labels]
        self.fingerprint = sha256(canonical_json([[info.key, tar.sha256] for info, tar in zip(tars, self._tars, strict=True)]))
        self._current = 0

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        """Raises `BadData`, with tar and sample, where the image cannot be decoded."""
        tar, number = self._find(index)
        try:
            image = decode_image(tar.encoded(number))
        except ValueError as error:
            raise BadData(f"{self.locate(index)}: {error}; recreate the shard") from None
        return Sample(image, tar.describe(number).label, tar.texts[number])

    def describe(self, index: int) -> Described:
        """As `SourceImages.describe`."""
        tar, number = self._find(index)
        return tar.describe(number)

    def locate(self, index: int) -> str:
        tar, number = self._find(index)
        return f"{tar.uri}: sample {tar.keys[number]}"

    def _find(self, index: int) -> tuple[_Tar, int]:
        """The tar of a sample, and its number in it."""
        found = bisect.bisect_right(self._ends, index)
        if found != self._current:
            self._tars[self._current].close()
            self._current = found
        return self._tars[found], index - (self._ends[found - 1] if found else 0)


def open_tars(settings: Shards | ImportedImages, field: str = "real.path") -> ImageSource:
    """All .tar files at `settings.path` as one set without a test split.

    Raises `BadData`, naming `field` as the setting to fix, where there is no tar or no sample in them.
    """
    fix = f"set {field} to the folder of .tar files"
    path = settings.path
    store, tars, _ = find_tars(path, fix)
    images = TarImages(store, tars)
    if not len(images):
        raise BadData(f"{path}: its {len(tars)} .tar files contain no images; {fix}")
    return ImageSource(images, None, numbered_classes(images.labels, path), images.fingerprint)
