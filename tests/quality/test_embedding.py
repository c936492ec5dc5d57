"""The map: against scikit-learn and a plain loop; and that nothing but a map is read as one."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from adainf.quality.embedding import EmbeddingMap
from adainf.quality.measure import RealImages, Reference
from adainf.quality.spaces import Space

IMAGES, TRAINING, GENERATED = 30, 70, 90
ROWS = np.arange(IMAGES) * 3
RAW = Space("raw", "", lambda images: images.reshape(len(images), -1).astype(np.float32))


@pytest.fixture(scope="module")
def pixels() -> tuple[np.ndarray, np.ndarray]:
    """Training and generated images that differ in location and spread."""
    draws = np.random.default_rng(0)
    spread = draws.uniform(5, 20, 12)
    real, generated = (draws.normal(mean, spread, (n, 12)) for mean, n in ((120, TRAINING), (140, IMAGES)))
    one, other = (values.astype(np.uint8).reshape(-1, 2, 2, 3) for values in (real, generated))
    return one, other


@pytest.fixture(scope="module")
def embedding(pixels: tuple[np.ndarray, np.ndarray]) -> EmbeddingMap:
    training, generated = pixels
    reference = Reference(RAW, RealImages.of(training, training[:IMAGES], IMAGES), 5, torch.device("cpu"))
    return reference.embed(RAW.compute(generated), ROWS)


def test_the_plane_is_that_of_scikit_learn(pixels: tuple[np.ndarray, np.ndarray], embedding: EmbeddingMap) -> None:
    features = [RAW.compute(images) for images in (pixels[1], pixels[0][embedding.real_rows])]
    wanted = PCA(2, svd_solver="full").fit_transform(np.concatenate(features).astype(np.float64))
    found = np.concatenate([embedding.generated_xy, embedding.real_xy])
    signs = np.sign((wanted * found).sum(0))
    np.testing.assert_allclose(found, wanted * signs, atol=1e-3)


def test_the_nearest_is_found_among_all_training_images(pixels: tuple[np.ndarray, np.ndarray], embedding: EmbeddingMap) -> None:
    training, generated = (images.reshape(len(images), -1).astype(float) for images in pixels)
    for at, image in enumerate(generated):
        apart = [np.linalg.norm(image - other) for other in training]
        assert embedding.nearest_rows[at] == np.argmin(apart)
        assert embedding.nearest_distances[at] == pytest.approx(min(apart), rel=1e-6)
    assert set(embedding.nearest_rows.tolist()) - set(embedding.real_rows.tolist()), "some are no points of the map"


def test_a_real_image_given_out_as_generated_has_a_finite_realism(pixels: tuple[np.ndarray, np.ndarray]) -> None:
    reference = Reference(RAW, RealImages.of(pixels[0], pixels[0][:IMAGES], IMAGES), 5, torch.device("cpu"))
    found = reference.embed(RAW.compute(pixels[0][:IMAGES]), ROWS)
    assert EmbeddingMap.from_bytes(found.to_bytes(), GENERATED, TRAINING).realism.max() > 1e30


def test_it_comes_back_as_it_was(embedding: EmbeddingMap) -> None:
    data = embedding.to_bytes()
    again = EmbeddingMap.from_bytes(data, GENERATED, TRAINING)
    assert all(np.array_equal(*pair) for pair in zip(again, embedding, strict=True))
    assert again.to_bytes() == data


def test_anything_else_is_refused(embedding: EmbeddingMap) -> None:
    def refused(data: bytes, match: str, images: int = GENERATED) -> None:
        with pytest.raises(ValueError, match=match):
            EmbeddingMap.from_bytes(data, images, TRAINING)

    data = embedding.to_bytes()
    for other in (b"", data[:-1], data[: len(data) // 2], b"no zip", data.replace(b"realism", b"nothing")):
        refused(other, "not a readable map of images")
    pickled, compressed, bare = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.savez(pickled, **(embedding._asdict() | {"realism": np.array([{}], object)}))
    np.savez_compressed(compressed, **(embedding._asdict() | {"realism": np.zeros(10**6)}))
    np.save(bare, embedding.realism)
    refused(pickled.getvalue(), "allow_pickle=False")
    refused(compressed.getvalue(), "compressed")
    refused(bare.getvalue(), "not a readable map")
    beyond = embedding.real_rows.copy()
    beyond[3] = TRAINING
    for changed, match in (
        ({"real_rows": beyond}, "real_rows has indices beyond the 70 images"),
        ({"nearest_rows": embedding.nearest_rows - TRAINING}, "nearest_rows has indices beyond"),
        ({"generated_xy": embedding.generated_xy * np.float32(np.nan)}, "generated_xy has values that are not finite"),
        ({"real_xy": embedding.real_xy[:-1]}, r"real_xy is float32 of shape \(29, 2\), expected float32 of \(30, 2\)"),
        ({"realism": embedding.realism.astype(np.float64)}, "realism is float64"),
    ):
        refused(embedding._replace(**changed).to_bytes(), match)
    refused(data, "generated_rows has indices beyond the 50 images", images=50)
