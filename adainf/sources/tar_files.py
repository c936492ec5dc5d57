"""The tars at a URI: a folder or ``s3://bucket/prefix``, one tar, or a pattern (``train-{000000..000009}.tar``, ``*.tar``)."""

from __future__ import annotations

import os
import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from adainf.sources.base import BadData
from adainf.storage import ObjectInfo, Store, open_store

_PACKED = (".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tar.lz4")
_EXPORT = "write its images to files, or to tars with webdataset, and use those"
_FOREIGN = {
    ".parquet": ("Parquet", _EXPORT),
    ".arrow": ("Arrow", _EXPORT),
    ".tfrecord": ("TFRecord", _EXPORT),
    ".beton": ("FFCV's format", _EXPORT),
    ".mds": ("mosaicml-streaming's format", _EXPORT),
    ".h5": ("HDF5", _EXPORT),
    ".hdf5": ("HDF5", _EXPORT),
    ".lmdb": ("LMDB", _EXPORT),
    ".zip": ("zip", "unpack it, and use the folder"),
    ".npy": (".npy", "save it as .npz with the array image (numpy.savez), and import that"),
}
"""Suffix → kind of data, and the way out."""
SPLITS = ("train", "validation", "test")
_SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_BRACES = re.compile(r"\{([^{}]*)\}")
_WILD = re.compile(r"[*?\[{]")
_MAX_EXPANDED = 1_000_000


class TarSet(NamedTuple):
    """Some tars of a store, in the order of their names."""

    store: Store
    tars: list[ObjectInfo]
    is_folder: bool
    """Whether these are all tars below the store's URI."""


def is_tar_uri(uri: str) -> bool:
    """Whether the URI names one tar or is a pattern of tars, not a folder."""
    if not uri.startswith("s3://") and Path(uri).expanduser().is_dir():
        return False
    return uri.endswith(".tar") or bool(_WILD.search(uri))


def find_tars(uri: str, fix: str) -> TarSet:
    """The tars at `uri`; hidden ones are ignored. Raises `BadData`, with `fix` as the last part of its message."""
    check_uri(uri, fix)
    local = None if uri.startswith("s3://") else Path(uri).expanduser()
    if is_tar_uri(uri) or (local is not None and local.is_file()):
        literal = local is not None and local.exists()
        root, pattern = _split(uri, literal)
        patterns = [pattern] if literal else _expanded(uri, pattern)
        names = {each for each in patterns if literal or not _WILD.search(each)}
        return _match(uri, root, names, [each for each in patterns if each not in names], fix)
    if local is not None and not local.is_dir():
        raise BadData(f"{uri}: no such folder; {fix}")
    store = open_store(uri)
    found = [info for info in store.list() if not is_hidden(info.key)]
    for info in found:
        _check_packed(info.key, locate(store, info.key))
    tars = sorted((info for info in found if info.key.endswith(".tar")), key=lambda info: info.key)
    if not tars:
        for info in found:
            _check_foreign(info.key, locate(store, info.key))
        raise BadData(f"{uri}: contains no .tar files; {fix}")
    return TarSet(store, tars, is_folder=True)


def check_uri(uri: str, fix: str) -> None:
    """Raise `BadData` for an address or a kind of file that no command reads."""
    if not uri.strip():
        raise BadData(f"the path is empty; {fix}")
    if uri.startswith("pipe:") or ("://" in uri and not uri.startswith("s3://")):
        raise BadData(f"{uri}: only local paths and s3:// are read; download the files, or give one of these")
    if uri.startswith("s3://") and not uri.removeprefix("s3://").strip("/"):
        raise BadData(f"{uri}: names no bucket; give s3://bucket/prefix")
    _check_foreign(uri, uri)
    _check_packed(uri, uri)


def _check_foreign(name: str, where: str) -> None:
    for suffix, (kind, way_out) in _FOREIGN.items():
        if name.lower().endswith(suffix):
            raise BadData(f"{where}: {kind} is not read; {way_out}")


def locate(store: Store, key: str) -> str:
    """The URI of an object."""
    return f"{store.uri.rstrip('/')}/{key}"


def _split(uri: str, literal: bool) -> tuple[str, str]:
    """The folder in front of the first part with a pattern, and the rest."""
    parts = uri.split("/")
    first = next((number for number, part in enumerate(parts) if _WILD.search(part) and not literal), len(parts) - 1)
    if uri.startswith("s3://") and first < 3:
        raise BadData(f"{uri}: the name of the bucket cannot be a pattern; give s3://bucket/… with one bucket")
    root = "/".join(parts[:first])
    return root or ("/" if uri.startswith("/") else "."), "/".join(parts[first:])


def _match(uri: str, root: str, names: set[str], globs: list[str], fix: str) -> TarSet:
    if not root.startswith("s3://") and not Path(root).expanduser().is_dir():
        raise BadData(f"{root}: no such folder; {fix}")
    store = open_store(root)
    literal = [*names, *(_WILD.split(pattern, maxsplit=1)[0] for pattern in globs)]
    prefix = os.path.commonprefix(literal)  # noqa: RUF071 - a prefix of keys, not of folders
    found = {info.key: info for info in store.list(prefix) if not is_hidden(info.key)}
    keys = sorted(key for key in found if key in names or any(_fits(key, pattern) for pattern in globs))
    for key in keys:
        _check_packed(key, locate(store, key))
    missing = sorted(names.difference(keys))
    if missing:
        raise BadData(f"{locate(store, missing[0])}: no such file; {fix}")
    tars = [key for key in keys if key.endswith(".tar")]
    if not tars:
        raise BadData(f"{locate(store, keys[0])}: is a file; {fix}" if keys else f"{uri}: matches no .tar file; {fix}")
    return TarSet(store, [found[key] for key in tars], is_folder=False)


def _fits(key: str, pattern: str) -> bool:
    """Whether a key matches a pattern; ``*`` does not match a slash."""
    parts, patterns = key.split("/"), pattern.split("/")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def _expanded(uri: str, pattern: str) -> list[str]:
    """The patterns that braces stand for: ``{000000..000009}`` and ``{a,b}``, as in a shell."""
    done, pending = [], [pattern]
    while pending:
        each = pending.pop()
        match = _BRACES.search(each)
        if match is None:
            done.append(each)
            continue
        pending += [each[: match.start()] + value + each[match.end() :] for value in _values(uri, match[1])]
        if len(done) + len(pending) > _MAX_EXPANDED:
            raise BadData(f"{uri}: stands for more than {_MAX_EXPANDED:,} files; give fewer")
    return done


def _values(uri: str, inner: str) -> list[str]:
    span = re.fullmatch(r"(\d{1,18})\.\.(\d{1,18})", inner, re.ASCII)
    if span is None:
        if "," not in inner:
            raise BadData(f"{uri}: {{{inner}}} is not a range or a list; write {{000000..000009}} or {{a,b}}")
        return inner.split(",")
    first, last = int(span[1]), int(span[2])
    if abs(last - first) >= _MAX_EXPANDED:
        raise BadData(f"{uri}: stands for more than {_MAX_EXPANDED:,} files; give fewer")
    padded = any(text.startswith("0") and len(text) > 1 for text in span.groups())
    width = max(map(len, span.groups())) if padded else 0
    step = 1 if first <= last else -1
    return [f"{number:0{width}d}" for number in range(first, last + step, step)]


def is_hidden(key: str) -> bool:
    """Whether a part of the key starts with a dot."""
    return any(part.startswith(".") for part in key.split("/"))


def _check_packed(name: str, where: str) -> None:
    if name.lower().endswith(_PACKED):
        raise BadData(f"{where}: is compressed; unpack it to an uncompressed .tar")


def splits_of(uri: str, keys: list[str]) -> dict[str, list[int]]:
    """The numbers of the tars of each split: train, validation, test, as the words in their names say.

    Where these name fewer than two splits, all tars are train. Raises `BadData` where some names state no split, or none
    states train.
    """
    found = [_split_of(key) for key in keys]
    named = {split for split in found if split is not None}
    if len(named) < 2:
        return {"train": list(range(len(keys)))}
    layout = ", ".join(f"{split} ({keys[found.index(split)]}, …)" for split in sorted(named))
    if None in found or "train" not in named:
        problem = f"the split of {keys[found.index(None)]} is unclear" if None in found else "no tar is of train"
        raise BadData(f"{uri}: its tars are named {layout}, but {problem}; rename them, or give a pattern (train-*.tar)")
    return {split: [number for number, own in enumerate(found) if own == split] for split in SPLITS if split in named}


def _split_of(key: str) -> str | None:
    """The split that the name of a tar states, or else a folder above it."""
    for part in reversed(key.lower().removesuffix(".tar").split("/")):
        stated = {_SPLIT_WORDS[word] for word in re.split(r"[^a-z]+", part) if word in _SPLIT_WORDS}
        if len(stated) == 1:
            return stated.pop()
    return None
