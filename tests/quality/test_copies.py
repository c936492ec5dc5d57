"""Near-duplicate and copy rates against loops from the definitions, on sets with known copies."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adainf.quality.copies import authenticity, copy_rate, duplicate_rate, exact_copy_rate, pixel_hashes
from adainf.quality.pairwise import nearest

CPU = torch.device("cpu")


def test_authenticity_is_the_naive_loops() -> None:
    draw = np.random.default_rng(0)
    training, images = draw.normal(size=(90, 6)), np.concatenate([draw.normal(size=(30, 6)), draw.normal(size=(20, 6)) * 0.2])
    authentic = 0
    for image in images:
        apart = np.linalg.norm(training - image, axis=1)
        closest = training[np.argmin(apart)]
        own = np.sort(np.linalg.norm(training - closest, axis=1))[1]
        authentic += bool(apart.min() > own)
    assert 0 < authentic < 50
    assert authenticity(nearest(images, training, 1, CPU), training, CPU) == authentic / 50


def test_slightly_changed_training_images_are_copies_and_others_are_not() -> None:
    draw = np.random.default_rng(0)
    training = draw.integers(0, 256, (50, 48), dtype=np.uint8)
    changed = np.clip(training[:10].astype(int) + draw.integers(-3, 4, (10, 48)), 0, 255).astype(np.uint8)
    others = draw.integers(0, 256, (30, 48), dtype=np.uint8)
    assert copy_rate(nearest(np.concatenate([changed, others]), training, 2, CPU)) == 10 / 40


def test_a_training_image_that_is_there_twice_can_be_copied() -> None:
    """0 / 0 is a copy."""
    training = np.repeat(np.eye(4, 8), 2, axis=0)
    assert copy_rate(nearest(training[:1], training, 2, CPU)) == 1


def test_equal_pixels_are_counted_once() -> None:
    images = np.random.default_rng(0).integers(0, 256, (10, 4, 4, 3), dtype=np.uint8)
    words = pixel_hashes(np.concatenate([images, images[:3], images[:1]]))
    assert duplicate_rate(words) == pytest.approx(4 / 14)
    one_bit = images.copy()
    one_bit[:, 0, 0, 0] ^= 1
    assert exact_copy_rate(pixel_hashes(np.concatenate([images[:2], one_bit])), pixel_hashes(images)) == pytest.approx(2 / 12)
