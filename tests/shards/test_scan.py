"""The scanner agrees with Python's tarfile on intact archives, and raises `ValueError` for others."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adainf.browse.catalog import Catalog, SampleRef
from adainf.browse.reader import Reader, Unreadable
from adainf.pipeline.progress import Reporter
from adainf.shards.format import scan
from adainf.shards.format.samples import SampleScan, samples
from adainf.shards.format.scan import BLOCK, Forward, Member, members
from adainf.sources.indexing import index_tars
from tests.browse.hostile import png
from tests.shards.tars import read_tar

NAMES = st.text("abc/.é_0", min_size=1, max_size=150).filter(
    lambda name: name.strip("/") and ".." not in name and "//" not in name
)
FILES = st.lists(st.tuples(NAMES, st.binary(max_size=1200)), max_size=6)
FORMATS = st.sampled_from([tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])

many = settings(max_examples=300, deadline=None, database=None, derandomize=True)


def tar_of(files: list[tuple[str, bytes]], form: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1.5 if form == tarfile.PAX_FORMAT else 1
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


@given(FILES, FORMATS)
@many
def test_it_finds_what_tarfile_finds(files: list[tuple[str, bytes]], form: int) -> None:
    try:
        data = tar_of(files, form)
    except ValueError:  # USTAR cannot hold every name
        return
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        expected = [Member(info.name, info.offset_data, info.size) for info in archive if info.isfile()]
    # tarfile drops slashes at the end of some names.
    assert [(found.name.rstrip("/"), *found[1:]) for found in members(data)] == [(f.name.rstrip("/"), *f[1:]) for f in expected]


@given(FILES, FORMATS, st.integers(0, 2**31), st.integers(0, 255), st.sampled_from([700, 1 << 18]))
@many
def test_a_tar_that_is_read_once_is_that_in_memory(
    files: list[tuple[str, bytes]], form: int, position: int, value: int, window: int
) -> None:
    """Intact or not: the same members with the same content, or the same error; and the SHA-256 of all bytes."""
    try:
        data = bytearray(tar_of(files, form))
    except ValueError:
        return
    if value:
        data[position % len(data)] ^= value
    forward = Forward(io.BytesIO(data), len(data))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan, "_WINDOW", window)
        try:
            found = members(bytes(data))
        except ValueError as error:
            with pytest.raises(ValueError, match="^" + re.escape(str(error)) + "$"):
                list(scan.walk(forward))
            return
        read = [(member, forward.read(member.offset, member.size)) for member in scan.walk(forward)]
        assert forward.finish() == hashlib.sha256(data).hexdigest()
    assert read == [(member, bytes(data[member.offset : member.offset + member.size])) for member in found]


def test_a_tar_that_becomes_shorter_is_an_error() -> None:
    data = tar_of([("1.png", b"x" * 5000)], tarfile.USTAR_FORMAT)
    with pytest.raises(ValueError, match=f"it ends after 1024 bytes, expected {len(data)}"):
        list(SampleScan(Forward(io.BytesIO(data[:1024]), len(data)), read_images=True))


def test_memory_does_not_depend_on_the_size_of_tars(tmp_path: Path) -> None:
    """Eight tars with a member of 32 MiB beside the image (sparse files), and their image."""
    info = tarfile.TarInfo("0.mp4")
    info.size = 32 << 20
    for number in range(8):
        with (tmp_path / f"{number}.tar").open("wb") as file:
            file.write(tar_of([("0.png", png(number))], tarfile.USTAR_FORMAT)[: 2 * BLOCK] + info.tobuf())
            file.truncate(3 * BLOCK + info.size + 2 * BLOCK)
    tracemalloc.start()
    index_tars(str(tmp_path), Reporter())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 24 << 20


def test_an_image_too_large_to_show_is_not_held(tmp_path: Path) -> None:
    info = tarfile.TarInfo("1.png")
    info.size = 100 << 20
    with (tmp_path / "0.tar").open("wb") as file:  # sparse
        file.write(tar_of([("0.png", png(7))], tarfile.USTAR_FORMAT)[: 2 * BLOCK] + info.tobuf())
        file.truncate(3 * BLOCK + info.size + 2 * BLOCK)
    source = Catalog(str(tmp_path)).source(None)
    tracemalloc.start()
    columns = source.columns(0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 24 << 20
    assert columns.keys == ["0", "1"]
    shown = Reader().read(source, [SampleRef(0, 0), SampleRef(0, 1)])
    assert shown == [png(7), Unreadable("the image is too large to show (104,857,600 bytes)")]


@pytest.mark.parametrize("magic", [b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"PK\x03\x04"])
def test_a_compressed_file_is_named_as_such(magic: bytes) -> None:
    for data in (magic + bytes(200), magic + b"x" * 5000):
        with pytest.raises(ValueError, match=r"it is compressed \(\w+\), not a plain tar"):
            members(data)
    assert members(tar_of([("BZh9.png", b"x")], tarfile.USTAR_FORMAT))  # a name that looks like one


def test_a_long_archive_has_all_its_headers_checked() -> None:
    """Checksums are verified in blocks of a thousand: the last header of a later block is verified, too."""
    data = bytearray(tar_of([(f"{number}.png", b"x") for number in range(2500)], tarfile.USTAR_FORMAT))
    assert len(members(bytes(data))) == 2500
    for header in (0, 1023, 1024, 2499):
        corrupt = bytearray(data)
        corrupt[2 * BLOCK * header + 5] ^= 1
        with pytest.raises(ValueError, match=f"the header at byte {2 * BLOCK * header} is corrupt"):
            members(bytes(corrupt))


def test_a_corrupt_size_is_reported_at_its_own_header() -> None:
    data = bytearray(tar_of([("1.png", b"x" * 600), ("2.png", b"y" * 600)], tarfile.USTAR_FORMAT))
    data[124 + 8] ^= 1  # 1130 octal becomes 1030, and content is read as a header
    with pytest.raises(ValueError, match="the header at byte 0 is corrupt"):
        members(bytes(data))


def test_checksums_of_signed_bytes_are_accepted() -> None:
    """As old writers compute them: they differ where a name is not ASCII."""
    data = bytearray(tar_of([("é.png", b"x")], tarfile.GNU_FORMAT))
    header = data[:BLOCK]
    header[148:156] = b" " * 8
    signed = sum(byte - 256 if byte > 127 else byte for byte in header)
    data[148:156] = b"%06o\0 " % signed
    assert members(bytes(data))[0].name == "é.png"


@given(st.binary(max_size=3000))
@many
def test_any_bytes_are_an_archive_or_an_error(data: bytes) -> None:
    padded = data + bytes(-len(data) % BLOCK)
    for attempt in (data, padded, padded + bytes(1024)):
        with suppress(ValueError):
            read_tar(attempt)


@given(FILES, FORMATS, st.integers(0, 2**31), st.integers(0, 255))
@many
def test_a_changed_byte_of_a_header_never_loses_a_file(
    files: list[tuple[str, bytes]], form: int, position: int, value: int
) -> None:
    try:
        data = tar_of(files, form)
    except ValueError:
        return
    intact = members(data)
    changed = bytearray(data)
    changed[position % len(data)] = value
    try:
        found = members(bytes(changed))
    except ValueError:
        return
    assert [member[1:] for member in found] == [member[1:] for member in intact]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ["1.png", "2.png", "1.cls"],
            r"sample 1 are apart \(.png, and after other samples .cls\): the tar is not sorted",
        ),
        (["1.png", "2.png", "1.png"], "sample 1 appears twice, with other samples in between"),
        (["a/1.png", "b/1.png", "a/1.png"], "sample a/1 appears twice"),
    ],
)
def test_files_of_one_sample_must_be_consecutive(names: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        samples(tar_of([(name, b"7") for name in names], tarfile.USTAR_FORMAT))
