"""Corruption is never silent: parsers raise `BadInput` or `ValueError`, or return the same data as before.

They never raise another exception, and never drop a sample silently.
"""

from __future__ import annotations

import functools
import gzip
import io
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from adainf.recipe import Npz
from adainf.shards.format.tar import Sample, encode_shard
from adainf.sources import BadData
from adainf.sources.idx import _read, parse_idx
from adainf.sources.npz import open_npz
from tests.shards.tars import read_tar

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 3, 5, 3), dtype=np.uint8)
POSITION = st.integers(min_value=0, max_value=2**30)

many = settings(max_examples=300, deadline=None, database=None, derandomize=True)


def flipped(data: bytes, position: int) -> bytes:
    """`data` with the bit at `position` flipped."""
    changed = bytearray(data)
    at, bit = divmod(position % (8 * len(data)), 8)
    changed[at] ^= 1 << bit
    return bytes(changed)


# ---------------------------------------------------------------------------------------------------------------- tar


@functools.cache
def tar_of(kind: str) -> bytes:
    if kind == "ours":
        return encode_shard(0, [Sample(image, label, f"a naïve caption {label}") for label, image in enumerate(IMAGES)])
    buffer = io.BytesIO()
    if kind == "webdataset":  # writes extended headers, for its modification times
        with webdataset.TarWriter(buffer) as writer:
            for number, image in enumerate(IMAGES):
                writer.write({"__key__": f"{number}" * 120, "png": image, "cls": number})
        return buffer.getvalue()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for number, sample in enumerate(read_tar(tar_of("ours"))):
            member = tarfile.TarInfo("long/" * 40 + f"{number}.png")
            member.size = len(sample.image)
            tar.addfile(member, io.BytesIO(sample.image))
    return buffer.getvalue()


KINDS = st.sampled_from(["ours", "webdataset", "gnu"])


@given(KINDS, POSITION)
@many
def test_a_truncated_tar_is_an_error_or_lost_only_padding(kind: str, position: int) -> None:
    data = tar_of(kind)
    truncated = data[: position % len(data)]
    end_of_archive = len(data.rstrip(b"\0")) // 512 * 512 + 512 + 1024
    if len(truncated) >= end_of_archive:
        assert read_tar(truncated) == read_tar(data)
    else:
        with pytest.raises(ValueError):
            read_tar(truncated)


def test_every_truncation_at_a_block_is_an_error() -> None:
    data = tar_of("ours")
    content_end = len(data.rstrip(b"\0")) // 512 * 512 + 512
    for size in range(0, content_end + 1024, 512):
        with pytest.raises(ValueError):
            read_tar(data[:size])


@given(KINDS, st.lists(POSITION, min_size=1, max_size=3))
@many
def test_bit_flips_in_a_tar_lose_no_sample(kind: str, positions: list[int]) -> None:
    data = tar_of(kind)
    true = read_tar(data)
    changed = functools.reduce(flipped, positions, data)
    try:
        read = read_tar(changed)
    except ValueError:
        return
    # A tar has no checksum of its contents (a PNG has): an image or a label may differ, their number may not.
    assert len(read) == len(true)


@given(st.binary(max_size=2000))
@many
def test_any_bytes_as_a_tar(data: bytes) -> None:
    with pytest.raises(ValueError):
        read_tar(data)


# ---------------------------------------------------------------------------------------------------------------- npz


@functools.cache
def npz_of(compressed: bool, named: bool) -> bytes:
    buffer = io.BytesIO()
    save = np.savez_compressed if compressed else np.savez
    if named:
        save(buffer, image=IMAGES, label=np.arange(4))
    else:
        save(buffer, IMAGES, np.arange(4))
    return buffer.getvalue()


def read_npz(data: bytes) -> tuple[list[bytes], list[int | None]]:
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        Path(file.name).write_bytes(data)
        images = open_npz(Npz(kind="npz", path=file.name)).train
        samples = [images[index] for index in range(len(images))]
    return [sample.image.tobytes() for sample in samples], [sample.label for sample in samples]


@given(st.booleans(), st.booleans(), POSITION, st.booleans())
@many
def test_a_corrupt_npz_is_an_error_or_the_same(compressed: bool, named: bool, position: int, truncate: bool) -> None:
    data = npz_of(compressed, named)
    changed = data[: position % len(data)] if truncate else flipped(data, position)
    try:
        read = read_npz(changed)
    except BadData:
        return
    assert read == read_npz(data)


# ---------------------------------------------------------------------------------------------------------------- IDX


@given(POSITION, st.booleans())
@many
def test_a_corrupt_idx_is_an_error_or_the_same(position: int, truncate: bool) -> None:
    grey = IMAGES[:, :, :, 0]
    packed = gzip.compress(b"\0\0\x08\x03" + b"".join(size.to_bytes(4, "big") for size in grey.shape) + grey.tobytes())
    changed = packed[: position % len(packed)] if truncate else flipped(packed, position)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "images.gz"
        file.write_bytes(changed)
        try:
            read = _read(file, dimensions=3)
        except BadData:
            return
    assert (read == grey).all()


@given(st.binary(max_size=64), st.sampled_from([1, 3]))
@many
def test_any_bytes_as_idx(data: bytes, dimensions: int) -> None:
    try:
        array = parse_idx(data, dimensions)
    except ValueError:
        return
    assert array.size == len(data) - 4 - 4 * dimensions
