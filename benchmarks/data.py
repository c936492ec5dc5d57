"""Seeded synthetic images, and the sets made of them that more than one side reads."""

from __future__ import annotations

import hashlib
import io
import itertools
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

Images = NDArray[np.uint8]
"""N x H x W x 3, RGB; one image without the N."""

SIZE_PX = 32
SHARD_IMAGES = 10_000
BATCH = 512
REAL_SHARE = 1 / 3
SOURCES = ("real", "generated")
POOL = 50_000
"""Images that are computed; more of them are these, rolled."""


def images(count: int, seed: int) -> Images:
    """`count` distinct images of 1/f^1.7 noise with correlated channels: as PNG about 2.4 kB each, like CIFAR-10's."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(SIZE_PX)[:, None], np.fft.rfftfreq(SIZE_PX)[None]) * SIZE_PX
    frequency[0, 0] = 1.35  # the mean varies less than the slowest wave
    amplitude = (frequency**-1.7).astype(np.float32)
    found = np.empty((count, SIZE_PX, SIZE_PX, 3), np.uint8)
    for first in range(0, min(count, POOL), 1000):
        some = min(count, POOL, first + 1000) - first
        white = rng.standard_normal((some, 4, SIZE_PX, SIZE_PX), np.float32)
        smooth = np.fft.irfft2(np.fft.rfft2(white) * amplitude, s=(SIZE_PX, SIZE_PX))
        smooth /= smooth.std((2, 3), keepdims=True)
        shared, own = smooth[:, :1], smooth[:, 1:]
        grain = rng.standard_normal((some, 3, SIZE_PX, SIZE_PX), np.float32)
        pixels_BCHW = 128 + 50 * (shared + 0.3 * own) + 2 * grain
        found[first : first + some] = pixels_BCHW.clip(0, 255).transpose(0, 2, 3, 1)
    for first in range(POOL, count, POOL):
        turns = first // POOL
        found[first : first + POOL] = np.roll(found[: min(POOL, count - first)], divmod(turns, SIZE_PX), (1, 2))
    return found


def png(image: Images) -> bytes:
    """As PIL writes it, which is what most sets hold."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def pixels(data: bytes) -> Images:
    """The image of a PNG, by PIL."""
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data)))


def decode(data: bytes, variant: str) -> Images:
    """The image of a sample, which is a PNG unless `variant` is "raw"."""
    return np.frombuffer(data, np.uint8).reshape(SIZE_PX, SIZE_PX, 3) if variant == "raw" else pixels(data)


def batch_sizes(images: Iterable[Images]) -> Iterator[int]:
    """Stack images to whole batches, as torch's collation does, and give the sizes of these."""
    images = iter(images)
    while len(some := list(itertools.islice(images, BATCH))) == BATCH:
        yield len(np.stack(some))


def encoded(folder: Path, source: str, variant: str) -> Iterator[bytes]:
    """The images of ``folder/SOURCE.npy`` in order as "png" (PIL's), "stored" (our PNG) or "raw" bytes."""
    for image in np.load(folder / f"{source}.npy", mmap_mode="r"):
        if variant == "stored":
            from adainf.shards.format.png import (
                encode_stored_png,  # not at the top: a peer's own environment may lack what we need
            )

            yield encode_stored_png(image)
        else:
            yield png(image) if variant == "png" else image.tobytes()


def once(folder: Path, write: Callable[[Path], object]) -> Path:
    """`folder`, made by `write` unless an earlier run has made it whole."""
    if not folder.exists():
        started = folder.with_name(f"{folder.name}.started")
        shutil.rmtree(started, ignore_errors=True)
        started.mkdir(parents=True)
        write(started)
        started.replace(folder)
    return folder


def arrays(folder: Path, real: int, generated: int) -> Path:
    """A folder with ``real.npy`` and ``generated.npy``."""

    def write(to: Path) -> None:
        for seed, (source, count) in enumerate(zip(SOURCES, (real, generated), strict=True)):
            np.save(to / f"{source}.npy", images(count, seed))

    return once(folder, write)


def tars(folder: Path) -> Path:
    """``folder/tars/SOURCE-VARIANT-000000.tar`` …: WebDataset shards of the arrays in three encodings."""

    def write(to: Path) -> None:
        for source in SOURCES:
            for variant, suffix in (("png", "png"), ("stored", "png"), ("raw", "bin")):
                samples = encoded(folder, source, variant)
                for shard in itertools.count():
                    some = list(itertools.islice(samples, SHARD_IMAGES))
                    if not some:
                        break
                    with (to / f"{source}-{variant}-{shard:06d}.tar").open("wb") as file:
                        write_tar(file, shard * SHARD_IMAGES, some, suffix)

    return once(folder / "tars", write)


def write_tar(file: BinaryIO, first: int, samples: list[bytes], suffix: str) -> None:
    """Samples `first` … as members ``0000123.SUFFIX`` of one tar."""
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number, data in enumerate(samples, first):
            member = tarfile.TarInfo(f"{number:07d}.{suffix}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def write_ours(folder_uri: str, images: Images, shard_images: int, encoding: Literal["stored", "pil"] = "stored") -> None:
    """One of our sets (``manifest.json`` and shards of `shard_images` images, without labels) in a folder or on S3.

    "stored": PNG as our writer makes it; "pil": tars with PNG as PIL writes it (`png`), indexed in place.
    """
    # Not at the top: peers in environments of their own read this file too.
    from adainf.pipeline.artifacts import Run
    from adainf.pipeline.progress import Reporter
    from adainf.pipeline.records import Manifest, Request
    from adainf.shards.format.manifest import ShardSet
    from adainf.shards.format.tar import Sample
    from adainf.shards.format.writer import write_split
    from adainf.sources.indexing import index_tars

    if encoding == "pil":
        run = Run(folder_uri)
        for first in range(0, len(images), shard_images):
            some = [png(image) for image in images[first : first + shard_images]]
            buffer = io.BytesIO()
            write_tar(buffer, first, some, "png")
            run.store.put(f"train-{first // shard_images:06d}.tar", buffer.getvalue())
        index_tars(folder_uri, Reporter())
        return
    run_uri, _, name = folder_uri.rpartition("/")
    run = Run(run_uri)

    def samples(indices: range) -> list[Sample]:
        return [Sample(images[index], None) for index in indices]

    split = write_split(run, name, "train", len(images), shard_images, samples)
    shards = ShardSet(height_px=SIZE_PX, width_px=SIZE_PX, splits={"train": split})
    run.commit(name, Manifest(request=Request(stage="benchmark", settings={}), content=shards.model_dump(mode="json")))


def write_ours_manifest(folder_uri: str, shards: int, shard_images: int) -> None:
    """The manifest alone of a set of `shards` shards that do not exist: to open it must not need them."""
    from adainf.pipeline.artifacts import Run
    from adainf.pipeline.records import Manifest, Request
    from adainf.shards.format.manifest import ShardSet, Split

    digests = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(shards)]
    split = Split(
        images=shards * shard_images,
        labelled=False,
        shard_images=[shard_images] * shards,
        tar_keys=[f"train-{number:06d}.tar" for number in range(shards)],
        tar_sizes_bytes=[41_000_000 + number for number in range(shards)],
        tar_sha256s=digests,
        index_sizes_bytes=[300_000 + number for number in range(shards)],
        index_sha256s=digests,
    )
    content = ShardSet(height_px=SIZE_PX, width_px=SIZE_PX, splits={"train": split}).model_dump(mode="json")
    manifest = Manifest(request=Request(stage="benchmark", settings={}), content=content)
    Run(folder_uri).store.put("manifest.json", manifest.to_json())
