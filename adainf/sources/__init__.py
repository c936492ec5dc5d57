"""Read user data: one module per kind of source, each of which provides images by index."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pkgutil import resolve_name

from adainf.recipe import ImageFolder, ImportedImages, Npz, Real, Shards
from adainf.sources.base import BadData, ImageSource, SourceImages
from adainf.sources.folder import open_flat_folder
from adainf.sources.npz import open_npz
from adainf.sources.tar_files import is_tar_uri
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
        source: ImageSource = resolve_name(real.implementation)(real)
    return source


def kind_of(uri: str) -> Real:
    """The kind of source at `uri`: .npz and .tar (or a pattern of those) by its name, tars if there are any, else a folder."""
    if uri.endswith(".npz"):
        return Npz(kind="npz", path=uri)
    if is_tar_uri(uri) or any(info.key.endswith(".tar") for info in open_store(uri).list()):
        return Shards(kind="shards", path=uri)
    return ImageFolder(kind="folder", path=uri)


def open_import(generator: ImportedImages) -> tuple[SourceImages, str]:
    """The images to import as generated ones, with channels in the file's order, and their fingerprint.

    Their labels must not be used. Raises `BadInput` as `open_source` does.
    """
    field = "generator.path"
    with _readable(generator.path):
        if generator.format == "folder":
            return open_flat_folder(generator.path, field)
        source = open_npz(generator, field) if generator.format == "npz" else open_tars(generator, field)
    return source.train, source.fingerprint
