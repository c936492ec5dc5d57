"""What to take from the samples of tars, and what to report about the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from adainf.shards.format.samples import Fields, Found, Problem, SampleScan, TarSample, Unsorted, sample_of
from adainf.shards.format.scan import Compressed
from adainf.shards.format.summary import Findings, Skipped, skip
from adainf.sources.base import BadData

NONE = "none"
_OLD_FIELDS = {"cls", "txt"}
"""The fields of labels and captions that all versions read."""


def of_command(name: str, value: str = "") -> str:
    """An option as the command line writes it."""
    return f"--{name.replace('_', '-')} {value}".strip()


def of_recipe(name: str, value: str = "true") -> str:
    """An option as a recipe writes it."""
    return f"real.{name}: {value}"


def of_import(name: str, value: str = "") -> str:
    """An option that generated images lack: the tars are converted first."""
    return f"`adainf shards import SOURCE URI {of_command(name, value)}` and the path URI"


class Rules(NamedTuple):
    """Which samples are taken from tars."""

    fields: Fields = Fields()
    skip: bool = False
    """Leave out samples with a problem."""
    option: Callable[..., str] = of_command
    """How messages name an option."""
    class_names: bool = True
    """Whether a label may be the name of a class."""

    def fix(self, error: ValueError) -> str:
        """How to fix a corrupt tar or a sample with a problem."""
        if isinstance(error, Unsorted):
            return "pack its files again with `tar --sort=name`"
        if isinstance(error, Compressed):
            return "decompress it"
        if not isinstance(error, Problem):
            return "download or recreate the shard"
        leave_out = f"leave such samples out with {self.option('skip')}"
        match error.kind:
            case "with several images":
                return f"choose one with {self.option('image_field', error.choices[0])}, or {leave_out}"
            case "without an image" if self.fields.image is not None:
                return f"correct {self.option('image_field', 'FIELD')}, or {leave_out}"
            case "with an invalid label" if not self.class_names:
                return (
                    "to number class names, copy the tars with `adainf shards import`; to read no labels, use "
                    f"{self.option('label_field', NONE)}; or {leave_out}"
                )
            case "with an invalid label":
                return f"correct it, read no labels with {self.option('label_field', NONE)}, or {leave_out}"
            case "with an invalid caption":
                return f"correct it, read no captions with {self.option('text_field', NONE)}, or {leave_out}"
        return leave_out


@dataclass
class Tally:
    """What was taken from one tar or several, and what was left out."""

    rules: Rules
    skipped: dict[str, Skipped] = field(default_factory=dict)
    unused: Counter[str] = field(default_factory=Counter)
    """Fields that are not read → files."""
    fields: set[str] = field(default_factory=set)
    json_keys: list[str] = field(default_factory=list)
    problem: Problem | None = None

    def take(self, found: Found, tar_key: str) -> TarSample | None:
        """The sample, or None where it has a problem."""
        try:
            return sample_of(found, self.rules.class_names)
        except Problem as problem:
            self.problem = self.problem or problem
            skip(self.skipped, problem.kind, f"{tar_key}: sample {problem.key}")
            return None

    def finish(self, scan: SampleScan) -> None:
        """Add the fields of a tar that was read. Raises its first `Problem` unless the rules leave out such samples.

        Only at its end: in a tar that is not sorted, most samples look incomplete.
        """
        if self.problem is not None and not self.rules.skip:
            raise self.problem
        self.unused.update(scan.unused)
        self.fields |= scan.fields
        self.json_keys = self.json_keys or scan.json_keys

    def add(self, other: Tally) -> None:
        """Add the next tar or tars."""
        for reason, one in other.skipped.items():
            skip(self.skipped, reason, one.example, one.files)
        self.unused.update(other.unused)
        self.fields |= other.fields
        self.json_keys = self.json_keys or other.json_keys

    @property
    def digest_of(self) -> list[object]:
        """What decides the samples of the same tars; empty where all versions take the same."""
        used = sorted(self.fields - set(self.unused))
        texts = [name for name in used if name.endswith(("cls", "txt", "text", "json"))]
        is_new = self.rules.fields != Fields() or self.rules.skip or not _OLD_FIELDS.issuperset(texts)
        return [list(self.rules.fields), self.rules.skip, texts] if is_new else []

    def findings(self, uri: str, labelled: int, captioned: int) -> Findings:
        """For the data summary. Raises `BadData` where no sample has the field that the rules name."""
        option, (_, label, text) = self.rules.option, self.rules.fields
        held = ", ".join(f".{name}" for name in sorted(self.fields))
        keys = f"; keys of the first .json: {', '.join(self.json_keys)}" if self.json_keys else ""
        for name, named, count in (("label_field", label, labelled), ("text_field", text, captioned)):
            if named not in (None, NONE) and not count:
                raise BadData(
                    f"{uri}: no sample has a value in {named} (fields: {held}{keys}); correct {option(name, 'FIELD')}"
                )
        notes = []
        if not labelled and label is None:
            several = sorted(name for name in self.unused if name.endswith(".cls"))
            if several:
                choice = option("label_field", several[0])
                notes.append(
                    f"no labels are read, as {', '.join('.' + name for name in several)} may be one; choose it with {choice}"
                )
            elif self.json_keys:
                choice = option("label_field", "json:KEY")
                notes.append(f"no labels are read; the .json has {', '.join(self.json_keys[:20])}: choose a key with {choice}")
        unused = [f".{name}" for name, _ in sorted(self.unused.items())]
        return Findings(skipped=self.skipped, unused=unused, notes=notes)
