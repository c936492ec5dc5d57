"""The files of an image folder: images, captions and tables, in the order of their names; the others are counted."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from adainf.shards.format.fields import is_utf8
from adainf.shards.format.formats import image_suffixes
from adainf.shards.format.summary import Skipped, skip
from adainf.sources.base import BadData

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl")
_JUNK = {"thumbs.db", "desktop.ini", "__macosx", "@eadir"}
"""Files and folders of operating systems."""


@dataclass
class Files:
    """Names relative to `root`, with "/" between folders."""

    root: Path
    images: list[str] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    """Name without suffix → name, of each .txt file."""
    tables: list[str] = field(default_factory=list)
    skipped: dict[str, Skipped] = field(default_factory=dict)


def list_files(root: Path) -> Files:
    """All files below `root`. Raises `BadData` for what cannot be read or named."""
    files = Files(root)
    suffixes = frozenset(image_suffixes())
    for name in _walk(root, "", (os.path.realpath(root),), files.skipped):
        stem, dot, suffix = name.rpartition(".")
        suffix = f".{suffix.lower()}" if dot and "/" not in suffix else ""
        if suffix in suffixes:
            files.images.append(name)
        elif suffix == ".txt":
            files.texts[stem] = name
        elif suffix in TABLE_SUFFIXES:
            files.tables.append(name)
        else:
            skip(files.skipped, f"suffix {suffix or '(none)'}", name)
    return files


def _walk(folder: Path, inner: str, parents: tuple[str, ...], skipped: dict[str, Skipped]) -> Iterator[str]:
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - names only: a second faster for a large folder
    except OSError as error:
        raise BadData(f"{folder}: {error.strerror}; make the folder readable") from None
    for name in names:
        if not is_utf8(name):
            raise BadData(f"{folder}: the name {name!a} is not UTF-8; rename it")
        if name.startswith(".") or name.lower() in _JUNK:
            skip(skipped, "hidden", inner + name)
            continue
        entry = folder / name
        if entry.is_dir():
            real = os.path.realpath(entry)
            if real in parents:
                raise BadData(f"{entry}: is a link to a folder that contains it; remove the link")
            yield from _walk(entry, f"{inner}{name}/", (*parents, real), skipped)
        else:
            yield inner + name


def sizes(root: Path, names: list[str]) -> list[list[str | int]]:
    """Name and size of each file: hashing the contents would read every file twice and double the time of an ingest.

    Raises `BadData` for anything but a regular file: opening a pipe would block forever.
    """
    found: list[list[str | int]] = []
    for name in names:
        file = root / name
        try:
            status = file.stat()
        except OSError as error:
            raise BadData(f"{file}: {error.strerror}; replace or remove this file") from None
        if not stat.S_ISREG(status.st_mode):
            raise BadData(f"{file}: is a pipe or a device, not a file; replace or remove it")
        found.append([name, status.st_size])
    return found
