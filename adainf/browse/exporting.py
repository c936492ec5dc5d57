"""Write a source as files: PNGs in class folders that `adainf shards import` reads as the same set, or one .npz."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from adainf.browse.catalog import SampleRef
from adainf.browse.images import decode
from adainf.browse.reader import MAX_RANGE_BYTES, Reader, Unreadable
from adainf.browse.sources import BrowseSource
from adainf.errors import StageFailed
from adainf.pipeline.progress import Reporter
from adainf.shards.format.png import encode_stored_png
from adainf.sources.layout import is_class_folder

_BATCH = 256
_SAFE = re.compile(r"[^\W\d][\w ,()&+-]{0,80}(?<! )")
"""Names of classes that every file system takes; numbers would be sorted as text."""


class _Exported(NamedTuple):
    key: str
    label: int
    text: str | None
    image: np.ndarray


def write_folder(source: BrowseSource, count: int, folder: Path, reporter: Reporter) -> None:
    """The first `count` images, named by number, in class folders, with captions as .txt files beside them.

    Where names of classes cannot be names of folders, folders are numbers and ``metadata.csv`` has the names. Raises
    `StageFailed`.
    """
    folder.mkdir(parents=True)
    classes = source.classes
    named = _can_be_folders(classes)
    rows: list[tuple[str, str]] = []
    # Images are named by number: keys may contain "../", or differ only in case, which some file systems ignore.
    for number, (_, label, text, image) in enumerate(_images(source, count, reporter)):
        name = f"{number:07d}.png"
        if label >= 0:
            name = f"{classes[label] if named and label < len(classes) else f'{label:03d}'}/{name}"
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(encode_stored_png(image))
        if text is not None:
            path.with_suffix(".txt").write_text(text, encoding="utf-8")
        rows.append((name, "" if label < 0 else classes[label] if label < len(classes) else str(label)))
    if not named and any(label for _, label in rows):
        with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("file_name", "label"), *rows])


def _can_be_folders(classes: Sequence[str]) -> bool:
    distinct = len({name.casefold() for name in classes}) == len(classes)
    return distinct and bool(classes) and all(_SAFE.fullmatch(name) and is_class_folder(name) for name in classes)


def _images(source: BrowseSource, count: int, reporter: Reporter) -> Iterator[_Exported]:
    """Key, label, caption and pixels of the first `count` samples. Raises `StageFailed`."""
    reader = Reader(cache_bytes=0)
    with reporter.track("export", total=count) as track:
        for shard, samples in enumerate(source.known):
            selected = min(samples, count)
            columns = source.columns(shard)
            batch = max(1, min(_BATCH, MAX_RANGE_BYTES // max(1, int(columns.sizes_bytes.max(initial=0)))))
            for first in range(0, selected, batch):
                refs = [SampleRef(shard, number) for number in range(first, min(first + batch, selected))]
                for ref, data in zip(refs, reader.read(source, refs), strict=True):
                    key, label = columns.keys[ref.number], int(columns.labels[ref.number])
                    where = f"{source.locate(shard)}: sample {key}"
                    if isinstance(data, Unreadable):
                        raise StageFailed(f"{where}: {data.reason}; nothing was exported, fix the sample or use --limit")
                    try:
                        yield _Exported(key, label, columns.texts[ref.number], decode(data))
                    except ValueError as error:
                        raise StageFailed(f"{where}: {error}; nothing was exported, fix the sample or use --limit") from None
                track.advance(len(refs))
            count -= selected


def write_npz(source: BrowseSource, count: int, path: Path, reporter: Reporter) -> None:
    """The first `count` images as ``image`` and ``label``. Raises `StageFailed`, also where images differ in size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    labels: list[int] = []
    shape: tuple[int, ...] = ()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("image.npy", "w", force_zip64=True) as file:  # image by image, because a set may exceed the memory
            for key, label, _, image in _images(source, count, reporter):
                if not shape:
                    shape = image.shape
                    header = {"descr": "|u1", "fortran_order": False, "shape": (count, *shape)}
                    np.lib.format.write_array_header_1_0(file, header)
                if image.shape != shape:
                    raise StageFailed(
                        f"sample {key} has shape {image.shape}, others have {shape}; export to a folder instead of a .npz"
                    )
                labels.append(label)
                file.write(np.ascontiguousarray(image).tobytes())
        with archive.open("label.npy", "w") as file:
            buffer = io.BytesIO()
            np.save(buffer, np.array(labels, np.int64))
            file.write(buffer.getvalue())
