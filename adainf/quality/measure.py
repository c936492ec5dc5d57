"""Every number about a set of generated images, in one space or in pixels, beside the same number for real ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from adainf.quality.classifier import balanced_accuracy, total_variation
from adainf.quality.copies import Words, authenticity, copy_rate, duplicate_rate, exact_copy_rate, pixel_words
from adainf.quality.embedding import EmbeddingMap
from adainf.quality.kernel import kernel_distance
from adainf.quality.manifold import Manifold, overlap
from adainf.quality.pairs import Features, nearest
from adainf.quality.record import Estimate, Score, score_name
from adainf.quality.spaces import Space
from adainf.quality.statistics import Moments, frechet_distance, principal_axes
from adainf.shards.format.png import Pixels

NEARLY_NOTHING = 0.1
"""Of the null's coverage."""
_STANDARD_ERRORS = 3.0


def spread(available: int, count: int) -> NDArray[np.int64]:
    """`count` indices evenly over all that are available, so that every shard and class has its share."""
    return np.arange(count, dtype=np.int64) * available // count


class RealImages(NamedTuple):
    training: Pixels
    """All of them: what copies are looked for in."""
    training_rows: NDArray[np.int64]
    """n of them, for the null."""
    validation: Pixels
    """n, which nothing was trained on."""

    @classmethod
    def of(cls, training: Pixels, validation: Pixels, count: int) -> RealImages:
        """With n = `count`."""
        return cls(training, spread(len(training), count), validation[spread(len(validation), count)])


class Reference:
    """The real images in one space: what generated ones are compared with. Raises `BadInput` as `Space.features` does."""

    def __init__(self, space: Space, real: RealImages, neighbours: int, device: torch.device) -> None:
        self.space, self._device = space, device
        self.training_ND = space.features(real.training, "training")
        self.validation_nD = space.features(real.validation, "validation")
        self.null_rows = real.training_rows
        self.null_nD = self.training_ND[self.null_rows]
        self.moments = Moments.of(self.validation_nD)
        self.manifold = Manifold(self.validation_nD, neighbours, device)

    def scores(self, generated_nD: Features) -> dict[str, Score]:
        """By METRIC_SPACE, of n generated images. The null is that of n training images against the validation images; for
        authenticity, which is against all training images, that of the validation images."""
        values, nulls = (self._against_validation(others_nD) for others_nD in (generated_nD, self.null_nD))
        values["authenticity"], nulls["authenticity"] = (
            Estimate(authenticity(nearest(images_nD, self.training_ND, 1, self._device), self.training_ND, self._device))
            for images_nD in (generated_nD, self.validation_nD)
        )
        return {score_name(name, self.space.name): Score.of(values[name], nulls[name].value) for name in values}

    def embed(self, generated_nD: Features, generated_rows: NDArray[np.int64]) -> EmbeddingMap:
        """The map of n generated images, the `generated_rows` of their split, and of the training images of the null: the first
        two principal components of both together."""
        moments = Moments.of(generated_nD) + Moments.of(self.null_nD)
        axes_D2 = principal_axes(moments, 2)
        generated_n2, real_n2 = (
            ((features_nD - moments.mean_D) @ axes_D2).astype(np.float32) for features_nD in (generated_nD, self.null_nD)
        )
        near = nearest(generated_nD, self.training_ND, 1, self._device)
        realism = np.minimum(self.manifold.realism(generated_nD), np.finfo(np.float32).max)  # without end at a real image
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
        lies = overlap(self.manifold, Manifold(others_nD, self.manifold.neighbours, self._device))
        told = balanced_accuracy(self.validation_nD, others_nD)
        return {
            "fd": Estimate(frechet_distance(Moments.of(others_nD), self.moments)),
            "kd": kernel_distance(self.validation_nD, others_nD, self._device),
            **{name: Estimate(value) for name, value in lies._asdict().items()},
            "classifier": told,
            "total_variation": Estimate(total_variation(told)),
        }


def pixel_scores(generated: Pixels, words: Words, real: RealImages, device: torch.device) -> dict[str, Score]:
    """Whether images are copies: `generated` are n of them, `words` those of all. The null is that of the validation images
    against the training images, and for duplicates that of the training images."""
    training_ND = _flat(real.training)
    generated_near, validation_near = (
        nearest(_flat(images), training_ND, 2, device) for images in (generated, real.validation)
    )
    authentic, null = (authenticity(found, training_ND, device) for found in (generated_near, validation_near))
    training_words, validation_words = pixel_words(real.training), pixel_words(real.validation)
    exact, exact_null = (exact_copy_rate(those, training_words) for those in (words, validation_words))
    return {
        "copy_rate": Score.of(Estimate(copy_rate(generated_near)), copy_rate(validation_near)),
        "authenticity_pixels": Score.of(Estimate(authentic), null),
        "exact_copy_rate": Score.of(Estimate(exact), exact_null),
        "duplicate_rate": Score.of(Estimate(duplicate_rate(words)), duplicate_rate(training_words)),
    }


def _flat(images: Pixels) -> Features:
    return images.reshape(len(images), -1)


def warnings(scores: Mapping[str, Score], images: int) -> list[str]:
    """What the scores of so many images warn of; a difference counts above three standard errors."""
    found = []
    copied = [
        name
        for name, score in scores.items()
        if (name.startswith("authenticity") and _exceeds(score.null, score.value, images))
        or (name in ("copy_rate", "exact_copy_rate") and _exceeds(score.value, score.null, images))
    ]
    if copied:
        told = ", ".join(f"{name} {scores[name].value:.3g} and not {scores[name].null:.3g}" for name in copied)
        found.append(f"generated images copy training images more than held-out real ones resemble them ({told})")
    duplicates = scores["duplicate_rate"]
    if _exceeds(duplicates.value, duplicates.null, images):
        told = f"{100 * duplicates.value:.3g} % of the generated images, {100 * duplicates.null:.3g} % of the training images"
        found.append(f"generated images repeat each other pixel by pixel ({told})")
    for name, score in scores.items():
        if name.startswith("coverage") and score.value < NEARLY_NOTHING * score.null:
            found.append(f"generated images cover almost nothing of the real ones ({name} {score.value:.3g})")
    return found


def _exceeds(rate: float, other: float, images: int) -> bool:
    """Whether one rate is larger than another, both of so many images."""
    pooled = (rate + other) / 2
    return rate - other > _STANDARD_ERRORS * math.sqrt(2 * pooled * (1 - pooled) / images)
