"""The data summary: what a command that reads users' data understood, and what it left out.

`ingest`, imports and `adainf shards import | index` print it at their end (`DataSummary.lines`) and store it in the manifest
(`ShardSet.summary`). A source fills in what it alone knows, `Findings`; the splits are counted by `DataSummary.of`::

    summary = DataSummary.of(Findings(layout="TAR/SAMPLE"), {"train": SplitSummary(images=9, labelled=9)}, classes)
    for line in summary.lines("index"):
        reporter.info(line)

It contains nothing that differs between two runs: counts and names, no times and no absolute paths.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Self

from pydantic import Field

from adainf.pipeline.records import Record

_SHOWN = 5
"""Classes, sizes, modes, reasons and fields that are named; the others are counted."""


class SplitSummary(Record):
    """One split, in numbers of images."""

    images: int
    labelled: int
    captioned: int = 0


class Skipped(Record):
    """Files (or samples of a tar) that were left out for one reason."""

    files: int
    example: str
    """The name of one of them, relative to the source."""


class Findings(Record):
    """What a source knows about itself. All fields have defaults, so a source gives what it has."""

    layout: str = ""
    """The layout that was understood, for example ``train/CLASS, val/CLASS``."""
    skipped: dict[str, Skipped] = Field(default={})
    """By reason: "suffix .heic", "hidden", "unreadable", "outside the splits"; see `skip`."""
    unused: list[str] = Field(default=[])
    """Fields that exist and are not read: columns of a table, components of a sample, arrays of a .npz."""
    notes: list[str] = Field(default=[])
    """Sentences about anything else, each printed on its own line."""


class DataSummary(Findings):
    """What a command that reads users' data understood and what it left out."""

    splits: dict[str, SplitSummary] = Field(default={})
    classes: list[str] = Field(default=[])
    """The first five."""
    class_count: int = 0
    sizes: dict[str, int] = Field(default={})
    """"HEIGHT x WIDTH" in px → images, before resizing; the five most frequent. Empty where it was not examined."""
    size_count: int = 0
    """Number of different sizes."""
    modes: dict[str, int] = Field(default={})
    """Mode of Pillow (RGB, L, CMYK, …) → images, before the conversion to RGB. Empty where it was not examined."""

    @classmethod
    def of(
        cls,
        findings: Findings,
        splits: Mapping[str, SplitSummary],
        classes: list[str],
        sizes: Mapping[tuple[int, int], int] | None = None,
        modes: Mapping[str, int] | None = None,
    ) -> Self:
        """The summary of a source. `classes`: all names; `sizes`: (height, width) → images; `modes`: mode → images."""
        common = sorted((sizes or {}).items(), key=lambda item: (-item[1], item[0]))
        return cls(
            **dict(findings),
            splits=dict(splits),
            classes=classes[:_SHOWN],
            class_count=len(classes),
            sizes={f"{height} x {width}": images for (height, width), images in common[:_SHOWN]},
            size_count=len(common),
            modes=dict(modes or {}),
        )

    def lines(self, command: str) -> list[str]:
        """The summary as text, each line after the name of the command: one line, a second one if anything was left out."""
        understood = "; ".join(filter(None, (self._splits(), self._classes(), self._images())))
        lines = [f"understood {self.layout}: {understood}" if self.layout else understood]
        reasons = [f"{_reason(name, one.files)} ({one.example})" for name, one in sorted(self.skipped.items())]
        left_out = [f"left out {_few(reasons)}"] if reasons else []
        if self.unused:
            left_out.append(f"unused fields: {_few(self.unused)}")
        lines += ["; ".join(left_out)] if left_out else []
        return [f"{command}: {line}" for line in (*lines, *self.notes)]

    def _splits(self) -> str:
        shown = []
        for name, split in sorted(self.splits.items(), key=lambda item: _ORDER.get(item[0], len(_ORDER))):
            labelled = "labelled" if split.labelled == split.images else f"{split.labelled:,} labelled"
            captioned = f", {split.captioned:,} with captions" if split.captioned else ""
            shown.append(f"{name} {_count(split.images, 'image')} ({labelled if split.labelled else 'no labels'}{captioned})")
        return ", ".join(shown)

    def _classes(self) -> str:
        more = ", …" if self.class_count > len(self.classes) else ""
        return f"{_count(self.class_count, 'class', 'classes')} ({', '.join(self.classes)}{more})" if self.class_count else ""

    def _images(self) -> str:
        sizes = sorted(self.sizes.items(), key=lambda item: -item[1])
        shown = [size if self.size_count == 1 else f"{size} ({count:,})" for size, count in sizes]
        more = f" and {self.size_count - len(sizes):,} other sizes" if self.size_count > len(sizes) else ""
        modes = [
            mode if len(self.modes) == 1 else f"{mode} ({count:,})"
            for mode, count in sorted(self.modes.items(), key=lambda item: (-item[1], item[0]))
        ]
        return "; ".join(filter(None, (f"{', '.join(shown)} px{more}" if shown else "", ", ".join(modes))))


_ORDER = {"train": 0, "validation": 1, "test": 2}


def skip(skipped: dict[str, Skipped], reason: str, example: str, files: int = 1) -> None:
    """Count `files` more files that are left out for `reason`; the first example in the order of the calls is kept."""
    known = skipped.get(reason)
    skipped[reason] = Skipped(
        files=files + (known.files if known else 0), example=known.example if known else _printable(example)
    )


def split_summary(labels: Iterable[int | None], captioned: int = 0) -> SplitSummary:
    """Of a split with these labels; None or -1 is none."""
    known = [label is not None and label >= 0 for label in labels]
    return SplitSummary(images=len(known), labelled=sum(known), captioned=captioned)


def _few(texts: list[str]) -> str:
    more = f" and {len(texts) - _SHOWN:,} more" if len(texts) > _SHOWN else ""
    return ", ".join(texts[:_SHOWN]) + more


def _reason(name: str, files: int) -> str:
    if name.startswith("suffix "):
        return _count(files, f"{name.removeprefix('suffix ')} file")
    if name.startswith(("with ", "without ")):
        return f"{_count(files, 'sample')} {name}"
    return f"{_count(files, 'file')} {name}" if " " in name else _count(files, f"{name} file")


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _printable(name: str) -> str:
    """The name without control characters, which a terminal would execute."""
    return "".join(c if c.isprintable() else "�" for c in name)
