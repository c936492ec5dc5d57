"""All metrics of generated images, in one feature space or in pixels, each with its null: the same metric for real images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from adainf.evaluation.intervals import wilson_interval
from adainf.quality.classifier import balanced_accuracy, total_variation
from adainf.quality.copies import (
    PixelHashes,
    authenticity,
    copy_rate,
    duplicate_rate,
    exact_copy_rate,
    held_out_copied,
    pixel_hashes,
)
from adainf.quality.embedding import EmbeddingMap
from adainf.quality.kernel import kernel_distance
from adainf.quality.manifold import Manifold, overlap
from adainf.quality.pairwise import Features, nearest
from adainf.quality.record import Estimate, Score, score_name
from adainf.quality.spaces import Space
from adainf.quality.statistics import Moments, frechet_distance, principal_axes
from adainf.shards.format.png import Pixels

MIN_RELATIVE_COVERAGE = 0.1
"""As a share of the null's coverage; below it there is a warning."""
LEAST_NULL_COVERAGE = 0.5
"""Coverage of as many real images; it is above 0.9 in any feature space that distinguishes images."""
_STANDARD_ERRORS = 3.0


def evenly_spaced(available: int, count: int) -> NDArray[np.int64]:
    """`count` indices evenly spaced over `available`, so that every shard and class is represented."""
    return np.arange(count, dtype=np.int64) * available // count


class RealImages(NamedTuple):
    training: Pixels
    """All training images; copies are searched among them."""
    training_rows: NDArray[np.int64]
    """n of them, for the null."""
    validation: Pixels
    """n held-out images, which nothing was trained on."""
    held_out_hashes: PixelHashes
    """Of all validation and test images, in which copies are searched. Nothing else reads the test images here."""

    @classmethod
    def of(cls, training: Pixels, validation: Pixels, count: int, test: Pixels | None = None) -> RealImages:
        """With n = `count`."""
        hashes = np.concatenate([pixel_hashes(images) for images in (validation, test) if images is not None])
        return cls(training, evenly_spaced(len(training), count), validation[evenly_spaced(len(validation), count)], hashes)


class Reference:
    """The real images in one feature space, to compare generated ones with. Raises `BadInput` as `Space.features` does."""

    def __init__(self, space: Space, real: RealImages, neighbours: int, device: torch.device) -> None:
        self.space, self._device = space, device
        self.validation_shape = real.validation.shape
        self.training_ND = space.features(real.training, "training")
        self.validation_nD = space.features(real.validation, "validation")
        self.null_rows = real.training_rows
        self.null_nD = self.training_ND[self.null_rows]
        self.moments = Moments.of(self.validation_nD)
        self.manifold = Manifold(self.validation_nD, neighbours, device)

    def scores(self, generated_nD: Features) -> dict[str, Score]:
        """Scores of n generated images, by METRIC_SPACE. The null is n training images against the validation images. For
        authenticity, which compares with all training images, the null is the validation images."""
        values, nulls = (self._against_validation(others_nD) for others_nD in (generated_nD, self.null_nD))
        values["authenticity"], nulls["authenticity"] = (
            Estimate(authenticity(nearest(images_nD, self.training_ND, 1, self._device), self.training_ND, self._device))
            for images_nD in (generated_nD, self.validation_nD)
        )
        return {score_name(name, self.space.name): Score.of(values[name], nulls[name].value) for name in values}

    def noise_coverage(self) -> Estimate:
        """Coverage of n images of uniform noise, with its 95 % interval; near 0 in a space that is fit to judge images."""
        shape = self.validation_shape
        words = np.random.Philox(0).random_raw(-(-math.prod(shape) // 8))
        noise = words.view(np.uint8)[: math.prod(shape)].reshape(shape)
        coverage = self.manifold.coverage(self.space.features(noise, "noise"))
        return Estimate(coverage, *wilson_interval(coverage, shape[0]))

    def embed(self, generated_nD: Features, generated_rows: NDArray[np.int64]) -> EmbeddingMap:
        """The map of n generated images (rows `generated_rows` of their split) and the training images of the null: the first
        two principal components of both sets together."""
        moments = Moments.of(generated_nD) + Moments.of(self.null_nD)
        axes_D2 = principal_axes(moments, 2)
        generated_n2, real_n2 = (
            ((features_nD - moments.mean_D) @ axes_D2).astype(np.float32) for features_nD in (generated_nD, self.null_nD)
        )
        near = nearest(generated_nD, self.training_ND, 1, self._device)
        realism = np.minimum(self.manifold.realism(generated_nD), np.finfo(np.float32).max)  # infinite at a real image
        return EmbeddingMap(
            generated_rows=generated_rows.astype(np.int32),
            generated_xy=generated_n2,
            realism=realism.astype(np.float32),
            nearest_rows=near.indices[:, 0].astype(np.int32),
            nearest_distances=near.distances[:, 0].astype(np.float32),
            real_rows=self.null_rows.astype(np.int32),
            real_xy=real_n2,
        )

    def _against_validation(self, others_nD: Features) -> dict[str, Estimate]:
        shared = overlap(self.manifold, Manifold(others_nD, self.manifold.neighbours, self._device))
        accuracy = balanced_accuracy(self.validation_nD, others_nD)
        return {
            "fd": Estimate(frechet_distance(Moments.of(others_nD), self.moments)),
            "kd": kernel_distance(self.validation_nD, others_nD, self._device),
            **{name: Estimate(value) for name, value in shared._asdict().items()},
            "classifier": accuracy,
            "total_variation": Estimate(total_variation(accuracy)),
        }


def pixel_scores(generated: Pixels, hashes: PixelHashes, real: RealImages, device: torch.device) -> dict[str, Score]:
    """Copy and duplicate rates. `generated`: n images; `hashes`: those of all generated images. The null is the
    validation images against the training images; for duplicates it is the training images."""
    training_ND = _flat(real.training)
    generated_near, validation_near = (
        nearest(_flat(images), training_ND, 2, device) for images in (generated, real.validation)
    )
    authentic, null = (authenticity(found, training_ND, device) for found in (generated_near, validation_near))
    training_hashes, validation_hashes = pixel_hashes(real.training), pixel_hashes(real.validation)
    exact, exact_null = (exact_copy_rate(those, training_hashes) for those in (hashes, validation_hashes))
    return {
        "copy_rate": Score.of(Estimate(copy_rate(generated_near)), copy_rate(validation_near)),
        "authenticity_pixels": Score.of(Estimate(authentic), null),
        "exact_copy_rate": Score.of(Estimate(exact), exact_null),
        "duplicate_rate": Score.of(Estimate(duplicate_rate(hashes)), duplicate_rate(training_hashes)),
        "held_out_copied": Score.of(Estimate(held_out_copied(hashes, training_hashes, real.held_out_hashes)), 0.0),
    }


def weak_encoder(references: Mapping[str, Reference]) -> str | None:
    """Why the run's own encoder must not judge images; None if it may.

    An encoder that is hardly trained maps noise close to real images: it is weak if noise covers significantly more real images
    than in the random network's features. One that has collapsed maps all images to one point, and nothing covers anything.
    """
    if "ssl" not in references:
        return None
    own, random = (references[name].noise_coverage() for name in ("ssl", "rand"))
    assert own.low is not None
    assert random.high is not None
    if references["ssl"].manifold.coverage(references["ssl"].null_nD) < LEAST_NULL_COVERAGE:
        return "the encoder of arm none has collapsed: a random network judges the images instead; lower the learning rate"
    if own.low <= random.high:
        return None
    return (
        f"the encoder of arm none is too weak to judge images: noise covers {100 * own.value:.0f} % of the real images in its "
        f"features and {100 * random.value:.0f} % in those of a random network, which is used instead; train it longer"
    )


def _flat(images: Pixels) -> Features:
    return images.reshape(len(images), -1)


def warnings(scores: Mapping[str, Score], images: int) -> list[str]:
    """Warnings for scores of `images` images. A difference counts above three standard errors. The texts are stored in the
    artifact: a change of wording changes its bytes."""
    found = []
    copied = [
        name
        for name, score in scores.items()
        if (name.startswith("authenticity") and _exceeds(score.null, score.value, images))
        or (name in ("copy_rate", "exact_copy_rate") and _exceeds(score.value, score.null, images))
    ]
    if copied:
        detail = ", ".join(f"{name} {scores[name].value:.3g} and not {scores[name].null:.3g}" for name in copied)
        found.append(f"generated images copy training images more than held-out real ones resemble them ({detail})")
    duplicates = scores["duplicate_rate"]
    if _exceeds(duplicates.value, duplicates.null, images):
        detail = f"{100 * duplicates.value:.3g} % of the generated images, {100 * duplicates.null:.3g} % of the training images"
        found.append(f"generated images repeat each other pixel by pixel ({detail})")
    copied_held_out = scores["held_out_copied"].value
    if copied_held_out:
        found.append(f"generated images are exact copies of {100 * copied_held_out:.3g} % of the validation and test images")
    for name, score in scores.items():
        if name.startswith("coverage") and score.value < MIN_RELATIVE_COVERAGE * score.null:
            found.append(f"generated images cover almost nothing of the real ones ({name} {score.value:.3g})")
    return found


def _exceeds(rate: float, other: float, images: int) -> bool:
    """Whether `rate` is significantly larger than `other`, both over `images` images (pooled two-proportion test)."""
    pooled = (rate + other) / 2
    return rate - other > _STANDARD_ERRORS * math.sqrt(2 * pooled * (1 - pooled) / images)
