"""Existing WebDataset shards, in a local folder or on S3: all samples of all .tar files, in the order of their names."""

from __future__ import annotations

import bisect
import io
import zlib
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from adainf.pipeline.records import canonical_json, sha256
from adainf.recipe import ImportedImages, Shards
from adainf.shards.format.fields import MAX_CLASSES
from adainf.shards.format.formats import AS_STORED, Header, Reading, header_of
from adainf.shards.format.png import SixteenBitImage
from adainf.shards.format.samples import Fields, SampleScan
from adainf.shards.format.scan import Forward
from adainf.shards.format.summary import Findings
from adainf.shards.format.tar import Sample
from adainf.sources.base import BadData, Described, ImageSource, decoded_sample, numbered_classes, reading_of
from adainf.sources.tar_files import find_tars, locate, splits_of
from adainf.sources.tar_rules import NONE, Rules, Tally, of_import, of_recipe
from adainf.storage import NotFound, ObjectInfo, PreconditionFailed, Store

_READ_AHEAD_BYTES = 8 << 20
_DEFAULT = Rules()


@contextmanager
def opened(store: Store, tar: ObjectInfo, rules: Rules = _DEFAULT) -> Iterator[IO[bytes]]:
    """A tar as a file that is read once. Raises `BadData` as `opening` does."""
    with opening(store, tar, rules), store.open(tar.key, tar.etag) as file:
        yield file


@contextmanager
def opening(store: Store, tar: ObjectInfo, rules: Rules = _DEFAULT) -> Iterator[None]:
    """Raises `BadData`, with the tar's URI and a fix, for whatever is wrong with it in this block."""
    where = locate(store, tar.key)
    try:
        yield
    except NotFound:
        raise BadData(f"{where} was deleted while it was read; restore it") from None
    except PreconditionFailed:
        raise BadData(f"{where} changed while it was read; run again when no process writes to it") from None
    except ValueError as error:
        raise BadData(f"{where}: {error}; {rules.fix(error)}") from None


class _Tar:
    """One tar: where its samples are, as columns."""

    def __init__(self, store: Store, info: ObjectInfo, rules: Rules) -> None:
        """Reads the tar once. Raises `BadData` for a corrupt one."""
        self._store, self._info = store, info
        self.tally = Tally(rules)
        self.keys: list[str] = []
        self.texts: list[str | None] = []
        self.labels: list[int | str | None] = []
        """Class numbers or the names of classes."""
        self._headers: list[Header | None] = []
        self._offsets, self._sizes, self._crc32s = array("q"), array("q"), array("L")
        """Of the encoded images."""
        self._window, self._start, self._ahead = b"", 0, 0
        known: dict[Header | None, Header | None] = {}
        names: dict[int | str | None, int | str | None] = {}  # one object for each
        with opened(store, info, rules) as file:
            tar = Forward(file, info.size_bytes)
            scan = SampleScan(tar, rules.fields, read_images=True)
            for found in scan:
                sample, data = self.tally.take(found, info.key), found.data
                if sample is None:
                    continue
                self.keys.append(sample.key)
                self.texts.append(sample.text)
                self.labels.append(names.setdefault(sample.label, sample.label))
                header = header_of(io.BytesIO(data))
                self._headers.append(known.setdefault(header, header))
                self._offsets.append(sample.image.offset)
                self._sizes.append(sample.image.size)
                self._crc32s.append(zlib.crc32(data))
            self.tally.finish(scan)
            self.sha256 = tar.finish()

    def header(self, number: int) -> Header | None:
        return self._headers[number]

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

    def __init__(self, uri: str, store: Store, tars: list[ObjectInfo], rules: Rules, reading: Reading = AS_STORED) -> None:
        """Reads every tar once, to find its samples. Raises `BadData` for a corrupt one."""
        self._tars = [_Tar(store, info, rules) for info in tars]
        self._ends = list(accumulate(len(tar.keys) for tar in self._tars))
        self._current = 0
        self._reading = reading
        self.labels, self.classes = number_labels(uri, [label for tar in self._tars for label in tar.labels], rules)
        """-1 is none."""
        self.tally = Tally(rules)
        for tar in self._tars:
            self.tally.add(tar.tally)
        contents: list[Any] = [[info.key, tar.sha256] for info, tar in zip(tars, self._tars, strict=True)]
        self.fingerprint = sha256(canonical_json([*contents, *self.tally.digest_of]))

    def part(self, tars: list[int]) -> Part:
        """The samples of some tars."""
        starts = [0, *self._ends]
        return Part(self, np.concatenate([np.arange(starts[number], starts[number + 1]) for number in tars]))

    def findings(self, uri: str) -> Findings:
        """For the data summary. Raises as `Tally.findings` does."""
        captioned = sum(text is not None for tar in self._tars for text in tar.texts)
        return self.tally.findings(uri, sum(label >= 0 for label in self.labels), captioned)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        """Raises `BadData`, with tar and sample, where the image cannot be decoded."""
        tar, number = self._find(index)
        label = self.labels[index]
        try:
            return decoded_sample(tar.encoded(number), None if label < 0 else label, tar.texts[number], self._reading)
        except SixteenBitImage as error:
            raise BadData(f"{self.locate(index)}: {error}; a recipe scales it with real.sixteen_bit: scale") from None
        except ValueError as error:
            raise BadData(f"{self.locate(index)}: {error}; recreate the shard") from None

    def describe(self, index: int) -> Described:
        """As `SourceImages.describe`."""
        tar, number = self._find(index)
        label, header = self.labels[index], tar.header(number)
        if header is not None and not self._reading.exif_transpose:
            header = header._replace(orientation=1)
        return Described(None if label < 0 else label, tar.texts[number] is not None, header)

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


@dataclass(frozen=True)
class Part:
    """Some of the samples."""

    images: TarImages
    indices: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.images[int(self.indices[index])]

    def describe(self, index: int) -> Described:
        """As `SourceImages.describe`."""
        return self.images.describe(int(self.indices[index]))

    def locate(self, index: int) -> str:
        return self.images.locate(int(self.indices[index]))


def open_tars(settings: Shards | ImportedImages, field: str = "real.path") -> ImageSource:
    """All .tar files at `settings.path`; for real images with the splits that their names state (`splits_of`).

    Raises `BadData`, naming `field` as the setting to fix, where there is no tar or no sample in them.
    """
    fix = f"set {field} to the folder of .tar files"
    path = settings.path
    if isinstance(settings, Shards):
        fields = Fields(settings.image_field, settings.label_field, settings.text_field)
        rules = Rules(fields, settings.skip, of_recipe)
        reading = reading_of(settings)
    else:  # labels of generated images are not used
        rules, reading = Rules(Fields(label=NONE), option=of_import), AS_STORED
    store, tars, _ = find_tars(path, fix)
    images = TarImages(path, store, tars, rules, reading)
    if not len(images):
        raise BadData(f"{path}: its {len(tars)} .tar files contain no images; {fix}")
    findings = images.findings(path)
    splits = splits_of(path, [tar.key for tar in tars]) if isinstance(settings, Shards) else {}
    if len(splits) < 2:
        return ImageSource(images, None, images.classes, images.fingerprint, findings)
    parts = {split: images.part(numbers) for split, numbers in splits.items()}
    empty = next((split for split, part in parts.items() if not len(part)), None)
    if empty is not None:
        raise BadData(f"{path}: its tars named {empty} contain no images; remove them, or give a pattern of the others")
    return ImageSource(
        train=parts["train"],
        test=parts.get("test"),
        classes=images.classes,
        fingerprint=sha256(canonical_json([images.fingerprint, *splits])),
        findings=findings.model_copy(update={"layout": f"tars named {', '.join(splits)}"}),
        validation=parts.get("validation"),
    )


def number_labels(uri: str, labels: list[int | str | None], rules: Rules) -> tuple[list[int], list[str]]:
    """The labels as numbers, -1 for none, and the names of the classes. Raises `BadData` where some are numbers, some names."""
    names = sorted({label for label in labels if isinstance(label, str)})
    numbers = [label for label in labels if isinstance(label, int)]
    if names and numbers:
        raise BadData(
            f"{uri}: some labels are numbers ({numbers[0]}) and some are names ({names[0]}); use one kind, or read no labels "
            f"with {rules.option('label_field', NONE)}"
        )
    if len(names) > MAX_CLASSES:
        raise BadData(
            f"{uri}: {len(names):,} different labels ({names[0]}, …) are not classes; read no labels with "
            f"{rules.option('label_field', NONE)}"
        )
    number_of: dict[int | str | None, int] = {name: number for number, name in enumerate(names)}
    numbered = [label if isinstance(label, int) else number_of.get(label, -1) for label in labels]
    return numbered, names or numbered_classes(numbered, uri)
