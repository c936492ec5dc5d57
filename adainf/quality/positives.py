"""Candidates of real images against their parents: retrieval, distance, diversity and copies, each with its null."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from adainf.augment.profiles import Views
from adainf.augment.views import Hue, augment
from adainf.evaluation.intervals import NORMAL_QUANTILE, wilson_interval
from adainf.quality.copies import copy_rate
from adainf.quality.pairwise import Features, nearest
from adainf.quality.record import Estimate, Score
from adainf.quality.spaces import Space
from adainf.shards.format.png import Pixels

_BATCH = 256


def candidate_scores(
    space: Space,
    training: Pixels,
    rows: NDArray[np.int64],
    candidates: Sequence[Pixels],
    views: Views,
    hue: Hue,
    device: torch.device,
) -> dict[str, Score]:
    """Scores of K candidates of each of n parents (`rows` of the N `training` images); see docs/positives.md.

    `candidates`: K arrays, n x H x W x 3 uint8. Distances are cosine distances, as a fraction of the mean distance between two
    random parents. `views`: the nulls of all but retrieval are augmented views in place of candidates.
    """
    training_ND = space.features(training, "training")
    parents_nD = training_ND[rows]
    drawn = [space.features(images, "candidate") for images in candidates]
    augmented = [_augmented(training[rows], rows, view, views, hue, device) for view in range(2)]
    seen = [space.features(images, "augmented") for images in augmented]
    apart = _cosine_distances(parents_nD, np.roll(parents_nD, 1, axis=0)).mean() or 1.0

    def relative(distances: Sequence[NDArray[np.float64]]) -> Estimate:
        """The mean over pairs, then over parents."""
        by_parent = np.mean(distances, axis=0) / apart
        error = NORMAL_QUANTILE * by_parent.std(ddof=1) / np.sqrt(len(by_parent))
        return Estimate(by_parent.mean(), by_parent.mean() - error, by_parent.mean() + error)

    def diversity(of: Sequence[Features]) -> Estimate:
        return relative([_cosine_distances(one, other) for one, other in itertools.pairwise(of)])

    def distance(of: Sequence[Features]) -> Estimate:
        return relative([_cosine_distances(one, parents_nD) for one in of])

    def copies(images: Pixels) -> Estimate:
        near = nearest(images.reshape(len(images), -1), training.reshape(len(training), -1), 2, device)
        return Estimate(copy_rate(near))

    scores = {
        "retrieval": retrieval(drawn, training_ND, rows, device),
        "distance": Score.of(distance(drawn), distance(seen).value),
        "copy_rate": Score.of(copies(candidates[0]), copies(augmented[0]).value),
    }
    if len(candidates) > 1:
        scores["diversity"] = Score.of(diversity(drawn), diversity(seen).value)
    return scores


def retrieval(drawn: Sequence[Features], training_ND: Features, rows: NDArray[np.int64], device: torch.device) -> Score:
    """The share of candidates whose nearest training image is their parent, with the 95 % interval for n independent parents.

    Copies of the parent count as the parent. The null is the expected share for
    a random one of the n parents.
    """
    _, groups = np.unique(training_ND, axis=0, return_inverse=True)
    found = [groups.ravel()[nearest(one, training_ND, 1, device).indices[:, 0]] for one in drawn]
    parents = groups.ravel()[rows]
    value = float(np.mean([one == parents for one in found]))
    counts = np.bincount(parents, minlength=groups.max() + 1)
    chance = float(np.mean([counts[one] for one in found])) / len(rows)
    return Score.of(Estimate(value, *wilson_interval(value, len(rows))), chance)


def _augmented(images: Pixels, rows: NDArray[np.int64], step: int, views: Views, hue: Hue, device: torch.device) -> Pixels:
    """One augmented view of each image, uint8."""
    parts = []
    for first in range(0, len(images), _BATCH):
        some, identities = images[first : first + _BATCH], torch.from_numpy(rows[first : first + _BATCH])
        (view,) = augment(torch.from_numpy(some).to(device), identities, 0, step, views[:1], (0.0,) * 3, (1.0,) * 3, hue)
        parts.append((view * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(parts)


def _cosine_distances(a_nD: Features, b_nD: Features) -> NDArray[np.float64]:
    a, b = a_nD.astype(np.float64), b_nD.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray(1 - (a * b).sum(1) / np.maximum(norms, np.finfo(np.float64).tiny))
