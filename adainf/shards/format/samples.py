"""The samples of a WebDataset tar: which of its files are images, labels and captions.

As in webdataset, consecutive files whose names differ only after the first dot form one sample, and what follows that dot is
the field of a file. Hidden files, files without a suffix and ``__meta__`` entries are ignored.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

from adainf.shards.format.fields import is_utf8, json_keys_of, parse_label, parse_text, printable
from adainf.shards.format.formats import COMMON_SUFFIXES, image_suffixes
from adainf.shards.format.scan import Buffer, InMemory, Member, TarBytes, walk

_META = re.compile(r"__[^/]*__($|/)")
_MAX_TEXT_BYTES = 1 << 20
_KEY_SEPARATOR = ":"


class Fields(NamedTuple):
    """Which files of a sample are its image, label and caption, where the default rules do not find them.

    A field is what follows the first dot of a name (``jpg``, ``image.png``), or ``json:KEY`` for a label or a caption in a
    .json. ``none`` reads no labels or captions. By default the image is the only one; label and caption are ``cls`` and ``txt``
    (``text``), else the only field that ends so (``label.cls``).
    """

    image: str | None = None
    label: str | None = None
    text: str | None = None


DEFAULT_FIELDS = Fields()


class TarSample(NamedTuple):
    """One sample of a tar: the location of its encoded image, and its label and caption or None."""

    key: str
    image: Member
    label: int | str | None
    """A class number, or the name of a class."""
    text: str | None
    """Stripped of white space; None where nothing remains."""


class Problem(ValueError):
    """A sample that cannot be used as it is. The tar is intact."""

    def __init__(self, key: str, kind: str, reason: str, choices: list[str] | None = None) -> None:
        self.key, self.kind = key, kind
        """`kind`: what follows "samples"."""
        self.choices = choices or []
        """The fields of its images, where there are several."""
        super().__init__(f"sample {key}{reason}")


class Unsorted(ValueError):
    """The files of a sample are not consecutive."""


class Found(NamedTuple):
    """One sample, and what is wrong with it."""

    sample: TarSample | None
    """Without what has a problem; None without an image."""
    data: bytes
    """The encoded image; empty where images are not read."""
    problem: Problem | None


def samples(data: Buffer, fields: Fields = DEFAULT_FIELDS) -> list[TarSample]:
    """The samples of a tar, in order. Raises `ValueError` where it is corrupt or truncated, and for a sample with a problem."""
    found = list(SampleScan(InMemory(data), fields))  # all of it first: a corrupt header is the cause of what follows
    return [sample_of(each) for each in found]


def sample_of(found: Found, class_names: bool = False) -> TarSample:
    """The sample. Raises `Problem` where it has one, or the name of a class as its label unless `class_names`."""
    sample = found.sample
    if sample is None or found.problem is not None:
        raise found.problem or AssertionError("a sample without an image has a problem")
    if isinstance(sample.label, str) and not class_names:
        raise Problem(sample.key, "with an invalid label", f": its label is {sample.label[:40]!r}, expected a class number")
    return sample


def number_of(sample: TarSample) -> int:
    """The class number of a sample that `sample_of` returned; -1 for none."""
    return sample.label if isinstance(sample.label, int) else -1


class _Plan(NamedTuple):
    """Which fields of a sample are used; they depend on its list of fields only."""

    images: list[str]
    label: str | None
    text: str | None
    json: str | None
    unused: list[str]


class SampleScan:
    """Iterates over the samples of a tar, once and in order, while the tar is read.

    Unlike webdataset, raises `Unsorted` for a key that appears again later: files of one sample that are not consecutive would
    form two incomplete samples. Raises `ValueError` as `walk` does.
    """

    def __init__(
        self,
        tar: TarBytes,
        fields: Fields = DEFAULT_FIELDS,
        read_images: bool = False,
        max_image_bytes: int | None = None,
    ) -> None:
        """`max_image_bytes`: do not read larger images."""
        self._tar, self._read_images, self._max_image_bytes = tar, read_images, max_image_bytes
        self._image = None if fields.image is None else _plain(fields.image)
        self._label, _, self._label_key = (fields.label or "").partition(_KEY_SEPARATOR)
        self._text, _, self._text_key = (fields.text or "").partition(_KEY_SEPARATOR)
        self._label, self._text = _plain(self._label), _plain(self._text)
        self._roles: dict[str, str] = {}
        self._plans: dict[tuple[str, ...], _Plan] = {}
        self._seen: dict[str, tuple[str, ...]] = {}
        self.unused: Counter[str] = Counter()
        """Fields that are not read → files."""
        self.json_keys: list[str] = []
        """The keys of the first .json object."""

    @property
    def fields(self) -> set[str]:
        """The fields of the samples so far."""
        return {printable(name) for names in self._plans for name in names}

    def __iter__(self) -> Iterator[Found]:
        for key, group, contents in self._groups():
            names = tuple(group)
            if key in self._seen:
                raise Unsorted(self._apart(key, names))
            plan = self._plans.get(names)
            if plan is None:
                plan = self._plans[names] = self._plan(names)
            self._seen[key] = names
            if plan.unused:
                self.unused.update(plan.unused)
            yield self._sample(key, group, contents, plan)

    def _groups(self) -> Iterator[tuple[str, dict[str, Member], dict[str, bytes]]]:
        group: dict[str, Member] = {}
        contents: dict[str, bytes] = {}
        current = ""
        for member in walk(self._tar):
            folder, slash, file_name = member.name.rpartition("/")
            stem, _, field = file_name.partition(".")
            if not stem or not field or (member.name.startswith("__") and _META.match(member.name)):
                continue
            key = str(PurePosixPath(folder, stem)) if slash else stem
            if key != current and group:
                yield current, group, contents
                group, contents = {}, {}
            current, field = key, field.lower()
            if field in group:
                raise ValueError(f"sample {printable(key)} has .{printable(field)} twice")
            group[field] = member
            if self._is_read(field, member.size, group):
                contents[field] = self._tar.read(member.offset, member.size)
        if group:
            yield current, group, contents

    def _is_read(self, field: str, size: int, group: dict[str, Member]) -> bool:
        """Whether to read the content now; a tar that is read once cannot go back."""
        role = self._roles.get(field)
        if role is None:
            role = self._roles[field] = self._role(field)
        if role == "image":
            is_small = self._max_image_bytes is None or size <= self._max_image_bytes
            return self._read_images and is_small and next(n for n in group if self._roles[n] == "image") == field
        return role == "text" and size <= _MAX_TEXT_BYTES

    def _role(self, field: str) -> str:
        if self._image == field:
            return "image"
        if field.endswith(("cls", "txt", "text", "json")) or field in (self._label, self._text):
            return "text"
        # The common suffixes first: Pillow imports all of its plugins to list the others.
        is_image = self._image is None and (
            f".{field}".endswith((*COMMON_SUFFIXES, ".npy")) or f".{field}".endswith(image_suffixes())
        )
        return "image" if is_image else "unused"

    def _plan(self, names: tuple[str, ...]) -> _Plan:
        images = [name for name in names if self._roles[name] == "image"]
        label = _choose(names, self._label, ("cls",))
        text = _choose(names, self._text, ("txt", "text"))
        json_field = next((name for name in names if name.endswith("json")), None)
        used = {*images, label, text}
        return _Plan(images, label, text, json_field, [printable(name) for name in names if name not in used])

    def _sample(self, key: str, group: dict[str, Member], contents: dict[str, bytes], plan: _Plan) -> Found:
        problem: Problem | None = None
        label: int | str | None = None
        text: str | None = None
        if plan.text is not None:
            try:
                text = parse_text(_content(contents, plan.text), self._text_key)
            except ValueError as error:
                problem = Problem(key, "with an invalid caption", f": its .{plan.text} {error}")
        if plan.label is not None:
            try:
                label = parse_label(_content(contents, plan.label), self._label_key)
            except ValueError as error:
                problem = Problem(key, "with an invalid label", f": its .{plan.label} {error}")
        if plan.json is not None and not self.json_keys:
            self.json_keys = json_keys_of(contents.get(plan.json, b""))
        if not (key.isascii() or is_utf8(key)):
            key = printable(key)
            problem = Problem(key, "with an invalid name", ": its name is not UTF-8")
        if len(plan.images) == 1:
            image = plan.images[0]
            return Found(TarSample(key, group[image], label, text), contents.get(image, b""), problem)
        held = ", ".join(f".{printable(name)}" for name in sorted(group))
        reason = f" has {len(plan.images)} images ({held}), expected one"
        if not plan.images:
            if self._image is not None:
                reason = f" has no .{self._image} ({held})"
            return Found(None, b"", Problem(key, "without an image", reason))
        problem = Problem(key, "with several images", reason, [printable(name) for name in plan.images])
        return Found(TarSample(key, group[plan.images[0]], label, text), contents.get(plan.images[0], b""), problem)

    def _apart(self, key: str, names: tuple[str, ...]) -> str:
        if set(names) & set(self._seen[key]):
            return f"sample {printable(key)} appears twice, with other samples in between"
        first, second = (", ".join(f".{printable(name)}" for name in part) for part in (self._seen[key], names))
        return (
            f"the files of sample {printable(key)} are apart ({first}, and after other samples {second}): the tar is not "
            "sorted by name"
        )


def _plain(field: str) -> str:
    """The field as `SampleScan` compares it: ".JPG" is "jpg"."""
    return field.removeprefix(".").lower()


def _choose(names: tuple[str, ...], named: str, suffixes: tuple[str, ...]) -> str | None:
    """The field `named`; by default a suffix, else the only field that ends with one."""
    if named:
        return named if named in names else None
    for suffix in suffixes:
        if suffix in names:
            return suffix
    ending = [name for name in names if name.endswith(tuple(f".{suffix}" for suffix in suffixes))]
    return ending[0] if len(ending) == 1 else None


def _content(contents: dict[str, bytes], name: str) -> bytes:
    if name not in contents:
        raise ValueError(f"is larger than {_MAX_TEXT_BYTES:,} bytes")
    return contents[name]
