"""What has been measured of a generated shard, as one object of ``quality/``, so that nothing need read the shard again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray

from adainf.pipeline.artifacts import Manifest, Run
from adainf.pipeline.serialization import decode, encode, parse, with_prefix, without_prefix
from adainf.quality.copies import Words, pixel_words
from adainf.quality.measure import Reference
from adainf.quality.statistics import Moments, frechet_distance
from adainf.shards.format.png import Pixels

REFERENCE = "reference.safetensors"
"""The moments of the reference, by space."""


def sidecar_name(tar_key: str) -> str:
    """The file name of the sidecar of a generated shard."""
    return f"{PurePosixPath(tar_key).stem}.safetensors"


@dataclass(frozen=True)
class Sidecar:
    """One shard; the keys of dictionaries are spaces."""

    moments: dict[str, Moments]
    """Of all its images."""
    sample: dict[str, NDArray[np.float32]]
    """Features of those of its images that are in the comparison of the whole set."""
    sample_images: Pixels
    words: Words
    """Of all its images, as `copies.pixel_words`."""
    fd: dict[str, float]
    coverage: dict[str, float]
    halves: dict[str, tuple[float, float]]
    """`ShardScores.coverage_halves`."""

    @classmethod
    def of(cls, images: Pixels, chosen: NDArray[np.int64], references: Iterable[Reference]) -> Sidecar:
        """Measure a shard, of whose images `chosen` are in the sample. Raises `BadInput` as `Space.features` does."""
        moments, sample, fd, coverage, halves = {}, {}, {}, {}, {}
        for reference in references:
            space, features_ND = reference.space.name, reference.space.features(images, "generated")
            moments[space], sample[space] = Moments.of(features_ND), features_ND[chosen]
            fd[space] = frechet_distance(moments[space], reference.moments)
            compared_nD = features_ND[: len(reference.validation_nD)]
            even, odd = (reference.manifold.covered(compared_nD[first::2]) for first in (0, 1))
            coverage[space], halves[space] = float(np.mean(even | odd)), (float(np.mean(even)), float(np.mean(odd)))
        return cls(moments, sample, images[chosen], pixel_words(images), fd, coverage, halves)

    def to_bytes(self) -> bytes:
        tensors = moments_as_tensors(self.moments)
        tensors |= with_prefix("sample", {space: torch.from_numpy(values) for space, values in self.sample.items()})
        tensors |= {"images": torch.from_numpy(self.sample_images), "words": torch.from_numpy(self.words)}
        return encode(tensors, {"count": len(self.words), "fd": self.fd, "coverage": self.coverage, "halves": self.halves})

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
    """What `moments_as_tensors` was given, of `count` images."""
    outers = without_prefix("outer", tensors)
    return {space: Moments(count, s.numpy(), outers[space].numpy()) for space, s in without_prefix("sum", tensors).items()}


def shards_distance(run: Run, quality: Manifest, space: str, tar_keys: Iterable[str]) -> float:
    """Fréchet distance of the images of some generated shards together to the reference, by their sidecars alone.

    Raises `BadInput` for a shard that was not measured, and for a sidecar that is not what the manifest says.
    """

    def moments(file_name: str) -> Moments:
        output = quality.output(file_name)
        tensors, extra = decode(run.read(output), run.locate(output.key))
        return moments_of_tensors(tensors, extra["count"])[space]

    first, *others = (moments(f"{PurePosixPath(key).stem}.safetensors") for key in tar_keys)
    return frechet_distance(sum(others, start=first), moments(REFERENCE))
