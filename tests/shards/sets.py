"""Small sets of shards with known pixels, in a folder or on S3."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adainf.pipeline.artifacts import Run
from adainf.pipeline.records import Manifest, Request
from adainf.shards import Batch, Source, Stream, open_stream
from adainf.shards.format.manifest import ShardSet
from adainf.shards.format.tar import Sample
from adainf.shards.format.writer import write_split


@dataclass(frozen=True)
class Made:
    """A set at `uri`, and its content."""

    uri: str
    images: np.ndarray
    labels: np.ndarray

    @property
    def path(self) -> Path:
        return Path(self.uri)


def make_set(uri: str, images: int, shard_images: int, seed: int = 0, size_px: int = 4) -> Made:
    """Random images with labels 0 … 9, in the split `train`."""
    pixels = np.random.default_rng(seed).integers(0, 256, (images, size_px, size_px, 3), dtype=np.uint8)
    labels = np.arange(images) * 7 % 10
    folder, _, name = uri.rpartition("/")
    run = Run(folder)

    def samples(indices: range) -> list[Sample]:
        return [Sample(pixels[index], int(labels[index])) for index in indices]

    split = write_split(run, name, "train", images, shard_images, samples)
    content = ShardSet(height_px=size_px, width_px=size_px, splits={"train": split}).model_dump(mode="json")
    run.commit(name, Manifest(request=Request(stage="test", settings={}), content=content))
    return Made(uri, pixels, labels)


@dataclass(frozen=True)
class Mixture:
    """Two sets in which a real image weighs ten generated ones: 40 x 10 against 800, a share of 1/3."""

    real: Made
    generated: Made

    @property
    def sources(self) -> dict[str, Source]:
        return {"real": Source(self.real.uri, weight=10), "generated": Source(self.generated.uri)}

    def open(self, global_batch: int = 48, seed: int = 0, **options: Any) -> Stream:
        return open_stream(self.sources, global_batch, seed, **options)

    def holds(self, batch: Batch) -> bool:
        """Whether every image and label of the batch matches its source and index."""
        sets = (self.real, self.generated)
        rows = list(zip(batch.sources.tolist(), batch.indices.tolist(), strict=True))
        images = np.stack([sets[source].images[index] for source, index in rows])
        labels = [sets[source].labels[index] for source, index in rows]
        return bool((np.stack(list(batch.images)) == images).all()) and batch.labels.tolist() == labels


def make_mixture(folder: str, shard_images: int = 20) -> Mixture:
    return Mixture(
        make_set(f"{folder}/real", 40, max(2, shard_images // 2), seed=1),
        make_set(f"{folder}/generated", 800, shard_images, seed=2),
    )


def take(stream: Stream, steps: int) -> list[Batch]:
    """The next batches; the stream is closed."""
    with stream:
        return [batch for batch, _ in zip(stream, range(steps), strict=False)]
