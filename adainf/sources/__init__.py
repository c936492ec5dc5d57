"""Read user data: one module per kind of source, each of which provides images by index."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name

from adainf.recipe import ImageFolder, ImportedImages, Npz, Real, Shards
from adainf.shards.format.formats import image_suffixes
from adainf.sources.base import BadData, ImageSource, SourceImages
from adainf.sources.folder import open_flat_folder, open_folder
from adainf.sources.npz import open_npz
from adainf.sources.staging import Staged, StagedImages
from adainf.sources.tar_files import check_uri, is_tar_uri
from adainf.sources.tars import open_tars
from adainf.storage import open_store

__all__ = ["BadData", "ImageSource", "SourceImages", "kind_of", "open_import", "open_source"]


@contextmanager
def _readable(path: str) -> Iterator[None]:
    """Turn an `OSError`, such as a missing permission, into `BadData`."""
    try:
        yield
    except OSError as error:
        where = error.filename or path
        raise BadData(f"{where}: {error.strerror or error}; make it and the folders above it readable") from None


def open_source(real: Real) -> ImageSource:
    """The real images that a recipe names. Raises `BadInput`: what is wrong, in which file, and how to fix it."""
    with _readable(getattr(real, "path", real.kind)):
        if isinstance(real, ImageFolder) and real.path.startswith("s3://"):
            return _open_staged(real)
        source: ImageSource = resolve_name(real.implementation)(real)
    return source


def _open_staged(real: ImageFolder) -> ImageSource:
    """A folder of images on S3, read through a local copy."""
    copy = Staged(real.path, "real.path")
    with copy.own_names():
        source = open_folder(real.model_copy(update={"path": copy.path}))
    validation, test = (None if images is None else StagedImages(images, copy) for images in (source.validation, source.test))
    return replace(source, train=StagedImages(source.train, copy), validation=validation, test=test)


def kind_of(uri: str) -> Real:
    """The kind of source at `uri`: .npz and .tar (or a pattern of those) by its name, tars if there are any, else a folder."""
    check_uri(uri, "give a folder, a .npz, or tars")
    if uri.endswith(".npz"):
        return Npz(kind="npz", path=uri)
    is_folder = uri.startswith("s3://") or Path(uri).expanduser().is_dir()
    if is_tar_uri(uri) or (is_folder and _holds_tars(uri)):
        return Shards(kind="shards", path=uri)
    return ImageFolder(kind="folder", path=uri)


def _holds_tars(uri: str) -> bool:
    """Whether a folder is one of tars. Raises `BadData` where it holds tars and images, unless one of them is a stray file."""
    names = [info.key for info in open_store(uri).list()]
    visible = [name for name in names if not any(part.startswith((".", "__MACOSX")) for part in name.split("/"))]
    tars = [name for name in visible if name.endswith(".tar")]
    images = [name for name in visible if name.lower().endswith(image_suffixes())] if tars else []
    if not (tars and images):
        return bool(tars)
    few, many = sorted((len(tars), len(images)))
    if few > 1 or many < 10:
        raise BadData(
            f"{uri}: contains {len(tars):,} .tar files ({tars[0]}) and {len(images):,} images ({images[0]}); move those that "
            "do not belong to the set elsewhere"
        )
    return len(tars) > len(images)


def open_import(generator: ImportedImages) -> ImageSource:
    """The images to import as generated ones, as the split `train`, with channels in the file's order.

    Their labels must not be used. Raises `BadInput` as `open_source` does.
    """
    field = "generator.path"
    with _readable(generator.path):
        if generator.format == "folder":
            if not generator.path.startswith("s3://"):
                return open_flat_folder(generator.path, field)
            copy = Staged(generator.path, field)
            with copy.own_names():
                source = open_flat_folder(copy.path, field)
            return replace(source, train=StagedImages(source.train, copy))
        return open_npz(generator, field) if generator.format == "npz" else open_tars(generator, field)
