"""Existing WebDataset shards, in a local folder or on S3: all samples of all .tar files, in the order of their names."""

from __future__ import annotations

import bisect
from pathlib import Path

from adainf.pipeline.records import canonical_json, sha256
from adainf.recipe import ImportedImages, Shards
from adainf.shards.format.png import decode_image
from adainf.shards.format.scan import TarSample, samples
from adainf.shards.format.tar import Sample
from adainf.sources.base import BadData, ImageSource, numbered_classes
from adainf.storage import NotFound, Store, open_store

_PACKED = (".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")


class TarImages:
    """Samples of many tars, one of which is in memory at a time: access in ascending order reads each tar only once more."""

    def __init__(self, store: Store, keys: list[str]) -> None:
        """Reads every tar once, to count its samples. Raises `BadData` for a corrupt one."""
        self._store, self._keys = store, keys
        self._digests: list[str] = []
        self._ends: list[int] = []
        self.labels: list[int] = []
        self._loaded = -1
        self._data = b""
        self._samples: list[TarSample] = []
        for number in range(len(keys)):
            self._load(number)
            self.labels += [-1 if sample.label is None else sample.label for sample in self._samples]
            self._ends.append(len(self.labels))

    @property
    def fingerprint(self) -> str:
        return sha256(canonical_json([[key, digest] for key, digest in zip(self._keys, self._digests, strict=True)]))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        """Raises `BadData`, with tar and sample, where the image cannot be decoded."""
        sample = self._sample(index)
        try:
            image = decode_image(self._data[sample.image.offset : sample.image.offset + sample.image.size])
        except ValueError as error:
            raise BadData(f"{self.locate(index)}: {error}; recreate the shard") from None
        label = self.labels[index]
        return Sample(image, None if label < 0 else label, sample.text)

    def locate(self, index: int) -> str:
        sample = self._sample(index)
        return f"{self._uri(self._loaded)}: sample {sample.key}"

    def _sample(self, index: int) -> TarSample:
        number = bisect.bisect_right(self._ends, index)
        self._load(number)
        return self._samples[index - (self._ends[number - 1] if number else 0)]

    def _load(self, number: int) -> None:
        if number == self._loaded:
            return
        self._loaded, self._data, self._samples = -1, b"", []  # free the last tar before the next one is read
        try:
            data = self._store.get(self._keys[number])
        except NotFound:
            raise BadData(f"{self._uri(number)} was deleted while it was read; restore it") from None
        digest = sha256(data)
        if number == len(self._digests):
            self._digests.append(digest)
        elif digest != self._digests[number]:
            raise BadData(f"{self._uri(number)} changed while it was read; run again when no process writes to it")
        try:
            self._samples = samples(data)
        except ValueError as error:
            raise BadData(f"{self._uri(number)}: {error}; download or recreate the shard") from None
        self._loaded, self._data = number, data

    def _uri(self, number: int) -> str:
        return f"{self._store.uri.rstrip('/')}/{self._keys[number]}"


def find_tars(path: str, fix: str) -> tuple[Store, list[str]]:
    """The store at `path` (a folder or ``s3://bucket/prefix``) and the keys of all .tar files in it; hidden ones are ignored.

    Raises `BadData`, with `fix` as the last part of its message, where there is none.
    """
    if not path.startswith("s3://") and not Path(path).is_dir():
        raise BadData(f"{path}: {'is a file' if Path(path).exists() else 'no such folder'}; {fix}")
    store = open_store(path)
    found = [info.key for info in store.list() if not any(part.startswith(".") for part in info.key.split("/"))]
    packed = next((key for key in found if key.endswith(_PACKED)), None)
    if packed is not None:
        raise BadData(f"{path.rstrip('/')}/{packed}: is compressed; unpack it to an uncompressed .tar")
    keys = sorted(key for key in found if key.endswith(".tar"))
    if not keys:
        raise BadData(f"{path}: contains no .tar files; {fix}")
    return store, keys


def open_tars(settings: Shards | ImportedImages, field: str = "real.path") -> ImageSource:
    """All .tar files below `settings.path` as one set without a test split.

    Raises `BadData`, naming `field` as the setting to fix, where there is no tar or no sample in them.
    """
    fix = f"set {field} to the folder of .tar files"
    path = settings.path
    store, keys = find_tars(path, fix)
    images = TarImages(store, keys)
    if not len(images):
        raise BadData(f"{path}: its {len(keys)} .tar files contain no images; {fix}")
    return ImageSource(images, None, numbered_classes(images.labels, path), images.fingerprint)
