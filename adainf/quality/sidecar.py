"""Per-shard statistics as one object of ``quality/`` each, so that no shard is read twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray

from adainf.pipeline.artifacts import Run
from adainf.pipeline.records import Manifest
from adainf.pipeline.serialization import decode, encode, parse, with_prefix, without_prefix
from adainf.quality.copies import PixelHashes, pixel_hashes
from adainf.quality.measure import Reference
from adainf.quality.statistics import Moments, frechet_distance
from adainf.shards.format.png import Pixels

REFERENCE = "reference.safetensors"
"""The moments of the reference, by space."""


def sidecar_name(tar_key: str) -> str:
    """File name of a generated shard's sidecar."""
    return f"{PurePosixPath(tar_key).stem}.safetensors"


@dataclass(frozen=True)
class Sidecar:
    """Statistics of one shard; the keys of dictionaries are feature spaces."""

    moments: dict[str, Moments]
    """Of all its images."""
    sample: dict[str, NDArray[np.float32]]
    """Features of its images that are in the sample of the complete set."""
    sample_images: Pixels
    pixel_hashes: PixelHashes
    """Of all its images."""
    fd: dict[str, float]
    coverage: dict[str, float]
    halves: dict[str, tuple[float, float]]
    """`ShardScores.coverage_halves`."""

    @classmethod
    def of(cls, images: Pixels, chosen: NDArray[np.int64], references: Iterable[Reference]) -> Sidecar:
        """Measure a shard; its images `chosen` are in the sample. Raises `BadInput` as `Space.features` does."""
        moments, sample, fd, coverage, halves = {}, {}, {}, {}, {}
        for reference in references:
            space, features_ND = reference.space.name, reference.space.features(images, "generated")
            moments[space], sample[space] = Moments.of(features_ND), features_ND[chosen]
            fd[space] = frechet_distance(moments[space], reference.moments)
            compared_nD = features_ND[: len(reference.validation_nD)]
            even, odd = (reference.manifold.is_covered(compared_nD[first::2]) for first in (0, 1))
            coverage[space], halves[space] = float(np.mean(even | odd)), (float(np.mean(even)), float(np.mean(odd)))
        return cls(moments, sample, images[chosen], pixel_hashes(images), fd, coverage, halves)

    def to_bytes(self) -> bytes:
        tensors = moments_as_tensors(self.moments)
        tensors |= with_prefix("sample", {space: torch.from_numpy(values) for space, values in self.sample.items()})
        tensors |= {"images": torch.from_numpy(self.sample_images), "words": torch.from_numpy(self.pixel_hashes)}
        return encode(
            tensors, {"count": len(self.pixel_hashes), "fd": self.fd, "coverage": self.coverage, "halves": self.halves}
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Sidecar:
        """Raises `checkpoint.Corrupt`."""
        tensors, extra = parse(data)
        return cls(
            moments_of_tensors(tensors, extra["count"]),
            {space: values.numpy() for space, values in without_prefix("sample", tensors).items()},
            tensors["images"].numpy(),
            tensors["words"].numpy(),
            extra["fd"],
            extra["coverage"],
            {space: (even, odd) for space, (even, odd) in extra["halves"].items()},
        )


def moments_as_tensors(moments: Mapping[str, Moments]) -> dict[str, torch.Tensor]:
    """``sum.SPACE`` (D) and ``outer.SPACE`` (D x D), float64."""
    sums = {space: torch.from_numpy(found.sum_D) for space, found in moments.items()}
    outers = {space: torch.from_numpy(found.outer_DD) for space, found in moments.items()}
    return with_prefix("sum", sums) | with_prefix("outer", outers)


def moments_of_tensors(tensors: dict[str, torch.Tensor], count: int) -> dict[str, Moments]:
    """Inverse of `moments_as_tensors`, of `count` images."""
    outers = without_prefix("outer", tensors)
    return {space: Moments(count, s.numpy(), outers[space].numpy()) for space, s in without_prefix("sum", tensors).items()}


def shards_distance(run: Run, quality: Manifest, space: str, tar_keys: Iterable[str]) -> float:
    """Fréchet distance of the union of some generated shards to the reference, from their sidecars only.

    Raises `BadInput` for a shard that was not measured, and for a sidecar that does not match the manifest.
    """

    def moments(file_name: str) -> Moments:
        output = quality.output(file_name)
        tensors, extra = decode(run.read(output), run.locate(output.key))
        return moments_of_tensors(tensors, extra["count"])[space]

    first, *others = (moments(f"{PurePosixPath(key).stem}.safetensors") for key in tar_keys)
    return frechet_distance(sum(others, start=first), moments(REFERENCE))
