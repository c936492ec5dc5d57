"""Existing WebDataset shards, in a local folder or on S3: all samples of all .tar files, in the order of their names."""

from __future__ import annotations

import bisect
from pathlib import Path

from adainf.pipeline.artifacts import canonical_json, sha256
from adainf.recipe import ImportedImages, Shards
from adainf.shards.format.png import decode_image
from adainf.shards.format.scan import TarSample, samples
from adainf.shards.format.tar import Sample
from adainf.sources.base import BadData, ImageSource, numbered_classes
from adainf.storage import NotFound, Store, open_store

_PACKED = (".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")


class TarImages:
    """Samples of many tars, of which one at a time is in memory: ask in ascending order, and each tar is read once more."""

    def __init__(self, store: Store, keys: list[str]) -> None:
        """Reads every tar once, to count its samples. Raises `BadData` for one that is damaged."""
        self._store, self._keys = store, keys
        self._digests: list[str] = []
        self._ends: list[int] = []
        self.labels: list[int] = []
        self._held = -1
        self._data = b""
        self._samples: list[TarSample] = []
        for number in range(len(keys)):
            self._hold(number)
            self.labels += [-1 if sample.label is None else sample.label for sample in self._samples]
            self._ends.append(len(self.labels))

    @property
    def fingerprint(self) -> str:
        return sha256(canonical_json([[key, digest] for key, digest in zip(self._keys, self._digests, strict=True)]))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        """Raises `BadData` naming tar and sample where the image cannot be decoded."""
        sample = self._sample(index)
        try:
            image = decode_image(self._data[sample.image.offset : sample.image.offset + sample.image.size])
        except ValueError as error:
            raise BadData(f"{self.locate(index)}: {error}; make the shard again") from None
        label = self.labels[index]
        return Sample(image, None if label < 0 else label, sample.text)

    def locate(self, index: int) -> str:
        sample = self._sample(index)
        return f"{self._place(self._held)}: sample {sample.key}"

    def _sample(self, index: int) -> TarSample:
        number = bisect.bisect_right(self._ends, index)
        self._hold(number)
        return self._samples[index - (self._ends[number - 1] if number else 0)]

    def _hold(self, number: int) -> None:
        if number == self._held:
            return
        self._held, self._data, self._samples = -1, b"", []  # let the last tar go before the next one comes
        try:
            data = self._store.get(self._keys[number])
        except NotFound:
            raise BadData(f"{self._place(number)} went away while it was read; put it back") from None
        digest = sha256(data)
        if number == len(self._digests):
            self._digests.append(digest)
        elif digest != self._digests[number]:
            raise BadData(f"{self._place(number)} changed while it was read; run again when nobody writes to it")
        try:
            self._samples = samples(data)
        except ValueError as error:
            raise BadData(f"{self._place(number)}: {error}; fetch or make the shard again") from None
        self._held, self._data = number, data

    def _place(self, number: int) -> str:
        return f"{self._store.uri.rstrip('/')}/{self._keys[number]}"


def find_tars(path: str, mend: str) -> tuple[Store, list[str]]:
    """The store at `path` (a folder or ``s3://bucket/prefix``) and the keys of all .tar files in it; hidden ones are ignored.

    Raises `BadData`, with `mend` at its end, where there is none.
    """
    if not path.startswith("s3://") and not Path(path).is_dir():
        raise BadData(f"{path}: {'is a file' if Path(path).exists() else 'no such folder'}; {mend}")
    store = open_store(path)
    found = [info.key for info in store.list() if not any(part.startswith(".") for part in info.key.split("/"))]
    packed = next((key for key in found if key.endswith(_PACKED)), None)
    if packed is not None:
        raise BadData(f"{path.rstrip('/')}/{packed}: is compressed; unpack it to a plain .tar")
    keys = sorted(key for key in found if key.endswith(".tar"))
    if not keys:
        raise BadData(f"{path}: holds no .tar file; {mend}")
    return store, keys


def open_tars(settings: Shards | ImportedImages, field: str = "real.path") -> ImageSource:
    """All .tar files below `settings.path` as one set without a test split.

    Raises `BadData`, naming `field` as what to mend, where there is no tar or no sample in them.
    """
    mend = f"set {field} to the folder of .tar files"
    path = settings.path
    store, keys = find_tars(path, mend)
    images = TarImages(store, keys)
    if not len(images):
        raise BadData(f"{path}: its {len(keys)} .tar files hold no image; {mend}")
    return ImageSource(images, None, numbered_classes(images.labels, path), images.fingerprint)
