"""Tables beside images: ``metadata.csv`` and ``metadata.jsonl`` as in Hugging Face's imagefolder, and ``labels.csv``."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from adainf.shards.format.fields import MAX_CLASSES
from adainf.sources.base import BadData
from adainf.sources.layout import is_class_folder

_FILE = (
    "file_name",
    "filename",
    "file",
    "image",
    "image_name",
    "image_path",
    "image_id",
    "path",
    "filepath",
    "img",
    "id",
    "name",
)
_LABEL = ("label", "labels", "class", "class_name", "classname", "class_id", "category", "target")
_TEXT = ("text", "caption", "description", "prompt")
_SPLIT = ("split", "subset", "partition", "data_set")
_NAMED_LABELS = re.compile(r"(metadata|labels?|train_?labels?|annotations?|classes|targets?|train)\.(csv|tsv|jsonl)")


@dataclass
class Table:
    """Labels and captions by image name."""

    labels: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    read: list[str] = field(default_factory=list)
    """Names of the tables that were read."""


def read_tables(root: Path, names: list[str], images: list[str]) -> Table:
    """The tables among `names`, for the images below `root`.

    A table named metadata is always read; others (labels.csv, annotations.csv, …) where the images near it are not in class
    folders. Raises `BadData` for a table that cannot be understood, or names an image that does not exist.
    """
    table = Table()
    for name in names:
        prefix, _, file = name.rpartition("/")
        prefix = f"{prefix}/" if prefix else ""
        if not _NAMED_LABELS.fullmatch(file.lower()):
            continue
        is_metadata = file.lower().startswith("metadata.")
        near = [image for image in images if image.startswith(prefix)]
        if not near:
            continue
        folders = {image[len(prefix) :].partition("/")[0] for image in near if "/" in image[len(prefix) :]}
        if not is_metadata and len([folder for folder in folders if is_class_folder(folder)]) > 1:
            continue
        _read(root / name, prefix, near, table)
        table.read.append(name)
    return table


def _read(file: Path, prefix: str, near: list[str], table: Table) -> None:
    rows = _rows(file)
    columns = {re.sub(r"[\s-]+", "_", key.strip().lower()): key for row in rows for key in row}
    name_column = next((columns[one] for one in _FILE if one in columns), None)
    label_column = next((columns[one] for one in _LABEL if one in columns), None)
    text_column = next((columns[one] for one in _TEXT if one in columns), None)
    if name_column is not None and label_column is None and text_column is None and len(columns) == 2:
        label_column = next(key for key in columns.values() if key != name_column)
    split_column = next((columns[one] for one in _SPLIT if one in columns), None)
    if name_column is None or split_column is not None or (label_column is None and text_column is None):
        why = f"its column {split_column} states splits" if split_column else "no columns file_name and label (or text)"
        raise BadData(
            f"{file}: {why} (found: {', '.join(columns.values()) or 'nothing'}); sort the images into folders train/CLASS and "
            "test/CLASS, or write the columns file_name and label"
        )
    exact = set(near)
    by_file: dict[str, list[str]] = {}
    for image in near:
        for key in (image.rpartition("/")[2], PurePosixPath(image).stem):
            by_file.setdefault(key, []).append(image)
    for number, row in enumerate(rows, 1):
        given = str(row.get(name_column) or "").strip().replace("\\", "/").removeprefix("./")
        found = [prefix + given] if prefix + given in exact else by_file.get(given.rpartition("/")[2], [])
        if len(found) != 1:
            problem = "is the name of several images" if found else "is not among the images"
            raise BadData(f"{file}: {given!r} (row {number}) {problem}; fix its {name_column}, or remove the row")
        for column, values in ((label_column, table.labels), (text_column, table.texts)):
            value = row.get(column) if column else None
            if isinstance(value, list | dict):
                raise BadData(f"{file}: {column} of row {number} is not one value; write a single label or text per image")
            text = "" if value is None else str(value).strip()
            if text:
                values[found[0]] = text
    used = {name_column, label_column, text_column}
    table.unused += [f"{file.name}: {key}" for key in columns.values() if key not in used]


def _rows(file: Path) -> list[dict[str, Any]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
        if file.suffix.lower() == ".jsonl":
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
            if not all(isinstance(row, dict) for row in rows):
                raise ValueError("a line is not an object")
            return rows
        first = text.partition("\n")[0]
        delimiter = max(",;\t", key=first.count)
        rows = list(csv.DictReader(io.StringIO(text), delimiter=delimiter, strict=True))
        if any(None in row for row in rows):
            raise ValueError("a row has more values than there are columns")
        return rows
    except (OSError, ValueError, csv.Error) as error:
        raise BadData(f"{file} cannot be read as a table ({error}); write it as UTF-8 .csv or .jsonl") from None


def number_classes(labels: dict[str, str], train: list[str]) -> list[str]:
    """The classes of labels in a table: "0", "1", … where all are class numbers, else the names in train, sorted."""
    values = set(labels.values())
    if all(re.fullmatch(r"0|[1-9]\d*", value) and int(value) < MAX_CLASSES for value in values):
        return [str(number) for number in range(1 + max((int(labels[name]) for name in train if name in labels), default=-1))]
    return sorted({labels[name] for name in train if name in labels})
