"""A folder of images: sub-folders are classes; ``train/`` and ``test/`` or ``val/`` are the splits.

Tiny ImageNet works as unpacked: ``train/<class>/images/*.JPEG`` and ``val/images/*.JPEG`` with
``val/val_annotations.txt``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from adainf.pipeline.records import canonical_json, sha256
from adainf.recipe import ImageFolder
from adainf.shards.format.formats import header_of
from adainf.shards.format.png import decode_image
from adainf.shards.format.scan import IMAGE_SUFFIXES
from adainf.shards.format.tar import Sample
from adainf.sources.base import BadData, CorruptImage, Described, ImageSource

_ANNOTATIONS = "val_annotations.txt"


@dataclass(frozen=True)
class FolderImages:
    """Image files, each decoded on access."""

    files: list[Path]
    labels: list[int | None]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        """Raises `CorruptImage`, with the file, where it cannot be decoded."""
        try:
            return Sample(decode_image(self.files[index].read_bytes()), self.labels[index])
        except OSError as error:
            reason = error.strerror or str(error)
        except ValueError as error:
            reason = str(error)
        raise CorruptImage(str(self.files[index]), reason)

    def locate(self, index: int) -> str:
        return str(self.files[index])

    def describe(self, index: int) -> Described:
        return Described(self.labels[index], False, header_of(self.files[index]))


def open_folder(settings: ImageFolder) -> ImageSource:
    """The images below `settings.path`, in the order of their names; hidden files and files of other kinds are ignored.

    With ``train/`` and ``test/`` (else ``val/``), these are the splits and the rest is ignored. Images outside a class
    folder have no label. Raises `BadData` where there is no image.
    """
    field = "real.path"
    root = _existing(settings.path, field)
    test_root = _test_folder(root)
    if test_root is None:
        found = _scan(root)
        classes = _classes(found)
        return ImageSource(_images(root, found, classes, field), None, classes, _fingerprint(root, found))
    train_found, test_found = _scan(root / "train"), _scan(test_root)
    classes = _classes(train_found)
    train = _images(root / "train", train_found, classes, field)
    if (test_root / _ANNOTATIONS).is_file():
        test = _annotated(test_root, test_found, classes)
    else:
        test = _images(test_root, test_found, classes, field)
    return ImageSource(train, test, classes, _fingerprint(root, train_found + test_found))


def open_flat_folder(path: str, field: str) -> tuple[FolderImages, str]:
    """All images below `path` without labels, regardless of sub-folders, and their fingerprint."""
    root = _existing(path, field)
    found = _scan(root)
    return _images(root, found, None, field), _fingerprint(root, found)


def _existing(path: str, field: str) -> Path:
    if not path:  # pathlib would resolve it to the working directory
        raise BadData(f"{field} is empty; set it to the folder of images")
    root = Path(path)
    if not root.is_dir():
        raise BadData(f"{root}: {'is a file' if root.exists() else 'no such folder'}; set {field} to the folder of images")
    return root


def _test_folder(root: Path) -> Path | None:
    if not (root / "train").is_dir():
        return None
    # Tiny ImageNet's own test/ has no labels; val/ is the usual test split.
    names = ("val",) if (root / "val" / _ANNOTATIONS).is_file() else ("test", "val")
    return next((root / name for name in names if (root / name).is_dir()), None)


_Found = list[tuple[Path, str]]
"""Image files, each with its class: the outermost folder, "" for none."""


def _scan(root: Path) -> _Found:
    found = []
    for file in _walk(root, (os.path.realpath(root),)):
        inner = file.relative_to(root).parts
        found.append((file, inner[0] if len(inner) > 1 else ""))
    return found


def _walk(folder: Path, parents: tuple[str, ...]) -> Iterator[Path]:
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - names only: a second faster for a large folder
    except OSError as error:
        raise BadData(f"{folder}: {error.strerror}; make the folder readable") from None
    for name in names:
        if name.startswith("."):
            continue
        if not _is_text(name):
            raise BadData(f"{folder}: the name {name!a} is not UTF-8; rename it")
        entry = folder / name
        if entry.is_dir():
            real = os.path.realpath(entry)
            if real in parents:
                raise BadData(f"{entry}: is a link to a folder that contains it; remove the link")
            yield from _walk(entry, (*parents, real))
        elif entry.suffix.lower() in IMAGE_SUFFIXES:
            yield entry


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # bytes that are not UTF-8 become lone surrogates, which a manifest cannot hold
        return False
    return True


def _classes(found: _Found) -> list[str]:
    return sorted({name for _, name in found if name})


def _images(root: Path, found: _Found, classes: list[str] | None, field: str) -> FolderImages:
    """Labels by `classes`; None for no labels."""
    if not found:
        kinds = ", ".join(IMAGE_SUFFIXES)
        raise BadData(f"{root}: contains no images ({kinds}); set {field} to the folder of images")
    if classes is None:
        return FolderImages([file for file, _ in found], [None] * len(found))
    number: dict[str, int | None] = {name: label for label, name in enumerate(classes)}
    number[""] = None
    for file, name in found:
        if name not in number:
            raise BadData(f"{file}: {name} is not a class of train/; use only classes of the training images")
    return FolderImages([file for file, _ in found], [number[name] for _, name in found])


def _annotated(root: Path, found: _Found, classes: list[str]) -> FolderImages:
    """Tiny ImageNet's validation images: every image has a line, every line has an image."""
    table = root / _ANNOTATIONS
    try:
        lines = table.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"{table} cannot be read ({error}); unpack the archive again") from None
    class_of = {}
    for number, line in enumerate(lines, 1):
        fields = line.split("\t")
        if len(fields) < 2 or fields[1] not in classes:
            raise BadData(f"{table} line {number}: {line[:60]!r} does not name a class of train/; unpack the archive again")
        class_of[fields[0]] = fields[1]
    files = [file for file, _ in found]
    odd = sorted({file.name for file in files} ^ class_of.keys())
    if odd or not files:
        raise BadData(f"{table}: {odd[0] if odd else 'no image'} is not in both the table and the folder; unpack again")
    return FolderImages(files, [classes.index(class_of[file.name]) for file in files])


def _fingerprint(root: Path, found: _Found) -> str:
    """A digest of names and sizes: hashing the contents would read every file twice and double the time of an ingest.

    Raises `BadData` for anything but a regular file: opening a pipe would block forever.
    """
    sizes = []
    for file, _ in found:
        try:
            status = file.stat()
        except OSError as error:
            raise BadData(f"{file}: {error.strerror}; replace or remove this file") from None
        if not stat.S_ISREG(status.st_mode):
            raise BadData(f"{file}: is a pipe or a device, not a file; replace or remove it")
        sizes.append([file.relative_to(root).as_posix(), status.st_size])
    return sha256(canonical_json(sizes))
