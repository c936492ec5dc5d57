"""Metrics of sets of known quality: held-out real images, copies, noise, repeated images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from adainf.quality.copies import pixel_hashes
from adainf.quality.gallery import gallery
from adainf.quality.measure import RealImages, Reference, evenly_spaced, pixel_scores, warnings, weak_encoder
from adainf.quality.record import Score
from adainf.quality.spaces import Space
from adainf.shards.format.png import Pixels

CPU = torch.device("cpu")
COUNT = 250
PIXELS = Space("raw", "", lambda images: images[..., 0].reshape(len(images), -1).astype(np.float32) / np.float32(16))


@pytest.fixture(scope="module")
def digits() -> Pixels:
    """1,797 handwritten digits, 8 x 8, in an order of their own."""
    images = np.random.default_rng(0).permutation(load_digits().images.astype(np.uint8))
    return np.repeat(images[..., None] * 15, 3, axis=3)


@pytest.fixture(scope="module")
def real(digits: Pixels) -> RealImages:
    return RealImages.of(digits[:1000], digits[1000:1300], COUNT)


@pytest.fixture(scope="module")
def reference(real: RealImages) -> Reference:
    return Reference(PIXELS, real, 5, CPU)


def measured(generated: Pixels, real: RealImages, reference: Reference) -> tuple[dict[str, Score], list[str]]:
    sample = generated[evenly_spaced(len(generated), COUNT)]
    scores = pixel_scores(sample, pixel_hashes(generated), real, CPU) | reference.scores(PIXELS.compute(sample))
    return scores, warnings(scores, COUNT)


def test_real_images_score_their_null(digits: Pixels, real: RealImages, reference: Reference) -> None:
    scores, warned = measured(digits[1300:1650], real, reference)
    assert warned == []
    for name in ("precision_raw", "recall_raw", "coverage_raw", "classifier_raw", "authenticity_raw", "authenticity_pixels"):
        assert scores[name].value == pytest.approx(scores[name].null, abs=0.1), name
    assert scores["fd_raw"].value == pytest.approx(scores["fd_raw"].null, rel=0.3)
    assert scores["total_variation_raw"].value < 0.1
    assert scores["coverage_raw"].value > 0.85


def test_the_training_set_as_generated_images_gives_a_warning(real: RealImages, reference: Reference) -> None:
    """Fréchet distance and coverage do not detect it."""
    scores, warned = measured(real.training, real, reference)
    assert scores["fd_raw"].value == scores["fd_raw"].null
    assert scores["coverage_raw"].value == scores["coverage_raw"].null
    assert scores["exact_copy_rate"].value == scores["copy_rate"].value == 1
    assert scores["authenticity_raw"].value < 0.02
    assert len(warned) == 1
    assert "copy training images" in warned[0]
    for name in ("authenticity_raw 0", "authenticity_pixels 0", "copy_rate 1", "exact_copy_rate 1"):
        assert name in warned[0]


def test_copies_with_a_little_noise_give_it_too(real: RealImages, reference: Reference) -> None:
    noise = np.random.default_rng(1).integers(0, 4, real.training.shape, dtype=np.uint8)
    scores, warned = measured(np.minimum(real.training, 251) + noise, real, reference)
    assert scores["exact_copy_rate"].value < 0.01
    assert scores["copy_rate"].value > 0.9
    assert ["copy training images" in warning for warning in warned] == [True]


def test_noise_covers_nothing_and_copies_nothing(real: RealImages, reference: Reference) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (COUNT, 8, 8, 3), dtype=np.uint8)
    scores, warned = measured(noise, real, reference)
    assert scores["coverage_raw"].value < 0.02
    assert scores["classifier_raw"].value > 0.95
    assert scores["total_variation_raw"].value > 0.9
    assert scores["fd_raw"].value > 10 * scores["fd_raw"].null
    assert scores["authenticity_raw"].value > 0.9
    assert scores["copy_rate"].value == 0
    assert len(warned) == 1
    assert warned[0].startswith("generated images cover almost nothing")


def test_a_few_good_images_repeated_are_detected(digits: Pixels, real: RealImages, reference: Reference) -> None:
    repeated = np.tile(digits[1300:1310], (30, 1, 1, 1))
    scores, warned = measured(repeated, real, reference)
    assert scores["duplicate_rate"].value == pytest.approx(290 / 300)
    assert scores["precision_raw"].value > 0.8
    assert scores["coverage_raw"].value < 0.3
    assert any("repeat each other pixel by pixel" in warning for warning in warned)


def test_the_gallery_has_digits_at_one_end_and_noise_at_the_other(
    digits: Pixels, real: RealImages, reference: Reference
) -> None:
    """And below each image the training image that is nearest to it."""
    good, noise = digits[1300:1400], np.random.default_rng(1).integers(0, 256, (100, 8, 8, 1), dtype=np.uint8)
    mixed = np.concatenate([noise.repeat(3, axis=3), good])
    sheets = gallery(reference.embed(PIXELS.compute(mixed), np.arange(200)), mixed, real.training)
    for name, among in (("best", good), ("worst", noise)):
        above, below = sheets[name][:8], sheets[name][8:]
        assert sheets[name].shape == (16, 64, 3)
        for left in range(0, 64, 8):
            image = above[:, left : left + 8]
            assert (among == image).all((1, 2, 3)).any()
            apart = np.square(real.training.astype(int) - image).sum((1, 2, 3))
            assert (real.training[np.argmin(apart)] == below[:, left : left + 8]).all()


def test_exact_copies_of_held_out_images_are_counted(digits: Pixels, reference: Reference) -> None:
    """Only those that are no training images: a generator may repeat what it was fitted on."""
    training, validation, test = digits[:1000], digits[1000:1300], digits[1300:1500]
    real = RealImages.of(training, validation, COUNT, test)
    leaked = np.concatenate([digits[1500:1700], validation[:3], test[:2], training[:50]])
    scores, warned = measured(leaked, real, reference)
    assert scores["held_out_copied"].value == pytest.approx(5 / 500)
    assert any("exact copies of 1 % of the validation and test images" in warning for warning in warned)
    both = RealImages.of(np.concatenate([training, test[:2]]), validation, COUNT, test)
    assert measured(leaked, both, reference)[0]["held_out_copied"].value == pytest.approx(3 / 500)
    assert measured(digits[1500:1700], real, reference)[0]["held_out_copied"].value == 0


def _scrambled(images: Pixels) -> np.ndarray:
    """Features that have nothing to do with the content, as those of an encoder that is hardly trained."""
    return np.stack([np.random.default_rng(image.ravel()).random(2, dtype=np.float32) for image in images])


@pytest.mark.parametrize(
    ("compute", "why"),
    [
        (PIXELS.compute, None),
        (_scrambled, "too weak to judge images: noise covers"),
        (lambda images: np.ones((len(images), 4), np.float32), "has collapsed"),
    ],
)
def test_an_encoder_that_does_not_detect_noise_does_not_judge(
    real: RealImages, compute: Callable[[Pixels], np.ndarray], why: str | None
) -> None:
    spaces = {"ssl": Space("ssl", "", compute), "rand": Space("rand", "", PIXELS.compute)}
    found = weak_encoder({name: Reference(space, real, 5, CPU) for name, space in spaces.items()})
    assert found is None if why is None else found is not None and why in found
