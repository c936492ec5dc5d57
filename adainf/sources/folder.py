"""A folder of images: sub-folders are classes, folders named train, val and test are splits (`adainf.sources.layout`).

Captions are ``.txt`` files beside the images or the column ``text`` of ``metadata.csv``, whose column ``label`` replaces class
folders. Tiny ImageNet works as unpacked: ``train/<class>/images/*.JPEG`` and ``val/images/*.JPEG`` with
``val/val_annotations.txt``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adainf.pipeline.records import canonical_json, sha256
from adainf.recipe import ImageFolder
from adainf.shards.format.formats import AS_STORED, Reading, header_of
from adainf.shards.format.png import SixteenBitImage
from adainf.shards.format.summary import Findings, skip
from adainf.shards.format.tar import Sample
from adainf.sources.base import BadData, CorruptImage, Described, ImageSource, decoded_sample, reading_of
from adainf.sources.files import Files, list_files, sizes
from adainf.sources.layout import Layout, SplitFiles, class_of, find_layout, role_of
from adainf.sources.tables import Table, number_classes, read_tables

_ANNOTATIONS = "val_annotations.txt"
_NUMBERS = re.compile(r"[\d\s.,;eE+-]*")
"""Text beside an image that is no caption, such as bounding boxes."""


@dataclass(frozen=True)
class FolderImages:
    """Image files, each decoded on access."""

    root: Path
    names: list[str]
    """Relative to `root`."""
    labels: Sequence[int | None]
    texts: dict[str, str]
    """Captions by name."""
    captions: dict[str, str]
    """Names of caption files by name."""
    reading: Reading = AS_STORED

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        """Raises `CorruptImage`, with the file, where it cannot be decoded."""
        file = self.root / self.names[index]
        try:
            return decoded_sample(file.read_bytes(), self.labels[index], self._text(index), self.reading)
        except OSError as error:
            reason = error.strerror or str(error)
        except SixteenBitImage as error:
            reason = f"{error}, which a recipe scales with real.sixteen_bit: scale"
        except ValueError as error:
            reason = str(error)
        raise CorruptImage(str(file), reason)

    def locate(self, index: int) -> str:
        return str(self.root / self.names[index])

    def describe(self, index: int) -> Described:
        header = header_of(self.root / self.names[index])
        if header is not None and not self.reading.exif_transpose:
            header = header._replace(orientation=1)
        return Described(self.labels[index], self._text(index) is not None, header)

    def _text(self, index: int) -> str | None:
        name = self.names[index]
        if name in self.texts or name not in self.captions:
            return self.texts.get(name)
        file = self.root / self.captions[name]
        try:
            return file.read_text(encoding="utf-8-sig").strip() or None
        except (OSError, UnicodeDecodeError) as error:
            raise BadData(f"{file}: cannot be read as a caption ({error}); write it as UTF-8, or remove it") from None


def open_folder(settings: ImageFolder) -> ImageSource:
    """The images below `settings.path`, in the order of their names; files of other kinds are counted in the findings.

    Raises `BadData` where there is no image, or where the layout is ambiguous.
    """
    files = list_files(_existing(settings.path, "real.path"))
    _require_images(files, "real.path")
    table = read_tables(files.root, files.tables, files.images)
    annotated = {name.removesuffix(_ANNOTATIONS) for name in files.texts.values() if name.endswith(f"/{_ANNOTATIONS}")}
    layout = find_layout(files.root, files.images, annotated, table.labels, settings.splits)
    captions, boxes = _captions(files)
    by_table = bool(table.labels)
    train = layout.splits["train"]
    classes = number_classes(table.labels, train.names) if by_table else sorted(train.classes)
    number = {name: label for label, name in enumerate(classes)}

    def labels_of(split: SplitFiles) -> list[int | None]:
        if not by_table and split.folder in annotated:
            return _annotated(files.root / split.folder, split, number)
        labels: list[int | None] = []
        for name in split.names:
            label = table.labels.get(name, "") if by_table else class_of(split, name)
            if label and label not in number:
                raise BadData(f"{files.root / name}: {label} is not a class of train/; use only classes of the training images")
            labels.append(number[label] if label else None)
        return labels

    reading = reading_of(settings)
    images = {
        split: FolderImages(files.root, found.names, labels_of(found), table.texts, captions, reading)
        for split, found in layout.splits.items()
    }
    for name in layout.unused:
        skip(files.skipped, "outside the splits", name)
    for name in files.tables:
        if name not in table.read:
            skip(files.skipped, f"suffix .{name.rpartition('.')[2].lower()}", name)
    used = {*captions.values(), *(f"{folder}{_ANNOTATIONS}" for folder in annotated)}
    for name in files.texts.values():
        if name not in used:
            skip(files.skipped, "suffix .txt", name)
    unused = [*table.unused, *([".txt beside images (numbers, such as boxes)"] if boxes else [])]
    findings = Findings(layout=_describe(layout, table), skipped=files.skipped, unused=unused)
    fingerprint = _fingerprint(files, layout, table, captions)
    return ImageSource(images["train"], images.get("test"), classes, fingerprint, findings, images.get("validation"))


def open_flat_folder(path: str, field: str) -> ImageSource:
    """All images below `path` without labels, regardless of sub-folders."""
    files = list_files(_existing(path, field))
    _require_images(files, field)
    images = FolderImages(files.root, files.images, [None] * len(files.images), {}, {})
    for name in (*files.tables, *files.texts.values()):
        skip(files.skipped, f"suffix .{name.rpartition('.')[2].lower()}", name)
    fingerprint = sha256(canonical_json(sizes(files.root, files.images)))
    return ImageSource(images, None, [], fingerprint, Findings(layout="FILE", skipped=files.skipped))


def _existing(path: str, field: str) -> Path:
    if not path:  # pathlib would resolve it to the working directory
        raise BadData(f"{field} is empty; set it to the folder of images")
    root = Path(path)
    if not root.is_dir():
        raise BadData(f"{root}: {'is a file' if root.exists() else 'no such folder'}; set {field} to the folder of images")
    return root


def _require_images(files: Files, field: str) -> None:
    if files.images:
        return
    found = "; ".join(f"{one.files:,} {reason} ({one.example})" for reason, one in files.skipped.items())
    raise BadData(
        f"{files.root}: contains no images that the installed Pillow reads{f' (found: {found})' if found else ''}; set {field} "
        "to the folder of images"
    )


def _captions(files: Files) -> tuple[dict[str, str], bool]:
    """Caption files by image, and whether they are no captions but numbers."""
    found = {name: files.texts[stem] for name in files.images if (stem := name.rpartition(".")[0]) in files.texts}
    for name in list(found.values())[:20]:
        try:
            if not _NUMBERS.fullmatch((files.root / name).read_text(encoding="utf-8-sig")):
                return found, False
        except (OSError, UnicodeDecodeError):  # reported at the image
            return found, False
    return {}, bool(found)


def _annotated(folder: Path, split: SplitFiles, number: dict[str, int]) -> list[int | None]:
    """Tiny ImageNet's validation images: every image has a line, every line has an image."""
    table = folder / _ANNOTATIONS
    try:
        lines = table.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"{table} cannot be read ({error}); unpack the archive again") from None
    class_of_file = {}
    for line_number, line in enumerate(lines, 1):
        fields = line.split("\t")
        if len(fields) < 2 or fields[1] not in number:
            raise BadData(
                f"{table} line {line_number}: {line[:60]!r} does not name a class of train/; unpack the archive again"
            )
        class_of_file[fields[0]] = fields[1]
    files = [name.rpartition("/")[2] for name in split.names]
    odd = sorted(set(files) ^ class_of_file.keys())
    if odd or not files:
        raise BadData(f"{table}: {odd[0] if odd else 'no image'} is not in both the table and the folder; unpack again")
    return [number[class_of_file[file]] for file in files]


def _describe(layout: Layout, table: Table) -> str:
    shown = []
    for split, found in layout.splits.items():
        inner = "CLASS/FILE" if found.classes and not table.labels else "FILE"
        folder = found.folder.rstrip("/").rpartition("/")[2]
        role = role_of(folder) or role_of(folder.replace("-", "_").rpartition("_")[2])
        shown.append(f"{found.folder}{inner}" + f" as {split}" * (split != "train" and role != split))
    return ", ".join(shown) + (f" with {', '.join(table.read)}" if table.read else "")


def _fingerprint(files: Files, layout: Layout, table: Table, captions: dict[str, str]) -> str:
    """A digest of names and sizes, and of the layout where older versions understood another one."""
    splits = layout.splits
    names = [name for split in ("train", "test", "validation") if split in splits for name in splits[split].names]
    content = sizes(files.root, names)
    folders = {split: found.folder.rstrip("/") for split, found in splits.items()}
    known = folders == {"train": ""} or (folders.keys() == {"train", "test"} and folders["train"] == "train")
    tables = [[name, sha256((files.root / name).read_bytes())] for name in table.read]
    used = sizes(files.root, [captions[name] for name in names if name in captions])
    if known and folders.get("test", "test") in ("test", "val") and not tables and not used:
        return sha256(canonical_json(content))
    return sha256(canonical_json({"splits": folders, "images": content, "tables": tables, "captions": used}))
