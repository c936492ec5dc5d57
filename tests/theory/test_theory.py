"""The augmentation graph against closed forms, dense solvers and plain loops; the toy against the paper's figure 5."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.sparse import block_diag, csr_matrix

from adainf.augment.profiles import default_views
from adainf.models.encoder import Normalisation
from adainf.recipe import Augmentation, Backbone
from adainf.shards.loader.read_all import Labelled
from adainf.theory import toy
from adainf.theory.arc import confusion_ratio, relative_confusion
from adainf.theory.bound import error_bound
from adainf.theory.evaluator import labelling_error, train_evaluator
from adainf.theory.graph import image_graph, laplacian_eigenvalues
from adainf.theory.kernel import kernel_views, nearest_distance

CPU = torch.device("cpu")
NODES = [7, 150]
"""Fewer and more than are left to LAPACK."""


def complete(nodes: int) -> NDArray[np.float64]:
    return np.ones((nodes, nodes)) - np.eye(nodes)


def path(nodes: int) -> NDArray[np.float64]:
    return np.eye(nodes, k=1) + np.eye(nodes, k=-1)


def cycle(nodes: int) -> NDArray[np.float64]:
    edges = path(nodes)
    edges[0, -1] = edges[-1, 0] = 1
    return edges


def by_eigh(adjacency: NDArray[np.float64]) -> NDArray[np.float64]:
    degrees = adjacency.sum(axis=0)
    values = np.linalg.eigvalsh(np.eye(len(adjacency)) - adjacency / np.sqrt(np.outer(degrees, degrees)))
    return np.asarray(values, np.float64)


@pytest.mark.parametrize("nodes", NODES)
def test_complete_graph(nodes: int) -> None:
    found = laplacian_eigenvalues(csr_matrix(complete(nodes)), 4)
    np.testing.assert_allclose(found, [0, *[nodes / (nodes - 1)] * 3], atol=1e-9)


@pytest.mark.parametrize("nodes", NODES)
def test_path_graph(nodes: int) -> None:
    """Chung, Spectral Graph Theory, example 1.4: 1 - cos(pi j / (n - 1))."""
    found = laplacian_eigenvalues(csr_matrix(path(nodes)), 5)
    np.testing.assert_allclose(found, 1 - np.cos(np.pi * np.arange(5) / (nodes - 1)), atol=1e-9)


@pytest.mark.parametrize("nodes", NODES)
def test_cycle_graph(nodes: int) -> None:
    """Chung, example 1.5: 1 - cos(2 pi j / n), each but the first twice: what a solver without restarts misses."""
    found = laplacian_eigenvalues(csr_matrix(cycle(nodes)), 5)
    np.testing.assert_allclose(found, 1 - np.cos(2 * np.pi * np.array([0, 1, 1, 2, 2]) / nodes), atol=1e-9)


def test_zero_comes_once_for_each_component() -> None:
    """A node without an edge is one of them."""
    graph = csr_matrix(block_diag([complete(100), path(90), cycle(5), np.zeros((1, 1))]))
    shuffled = np.random.default_rng(0).permutation(graph.shape[0])
    found = laplacian_eigenvalues(graph[shuffled][:, shuffled], 6)
    assert list(found[:4]) == [0, 0, 0, 0]
    np.testing.assert_allclose(found[4:], 1 - np.cos(np.pi * np.arange(1, 3) / 89), atol=1e-9)  # the path's


def test_sparse_spectrum_is_that_of_numpy() -> None:
    random = np.random.default_rng(1)
    weights = random.random((200, 200)) * (random.random((200, 200)) < 0.05)
    adjacency = weights + weights.T + path(200)
    np.testing.assert_allclose(laplacian_eigenvalues(csr_matrix(adjacency), 12), by_eigh(adjacency)[:12], atol=1e-8)
    with pytest.raises(ValueError, match="no 8 eigenvalues"):
        laplacian_eigenvalues(csr_matrix(path(7)), 8)


def test_graph_of_images_has_the_spectrum_of_that_of_views() -> None:
    """w_xx' = E_i[A(x|i) A(x'|i)] written out, on all views: the definition of HaoChen et al."""
    views_NM = np.random.default_rng(2).random((30, 80))
    views_NM /= views_NM.sum(axis=1, keepdims=True)
    of_views = np.zeros((80, 80))
    for image in views_NM:
        of_views += np.outer(image, image) / len(views_NM)
    graph = image_graph(csr_matrix(views_NM))
    np.testing.assert_allclose(graph.sum(axis=0), np.ones((1, 30)))
    np.testing.assert_allclose(laplacian_eigenvalues(graph, 30), by_eigh(of_views)[:30], atol=1e-9)


def test_bound() -> None:
    assert error_bound(0.1, 0.5) == pytest.approx(1.6)
    assert error_bound(0.1, 0.0) == math.inf
    assert error_bound(0.0, 0.0) == 0.0


@pytest.mark.parametrize("radius", [0.3, 1.5])
def test_toys_labelling_error_is_that_of_drawn_views(radius: float) -> None:
    random = np.random.default_rng(3)
    points = toy.sample_points(400_000, 5)
    angle, distance = random.random(len(points)) * 2 * np.pi, radius * np.sqrt(random.random(len(points)))
    swapped = np.mean(np.sign(points[:, 0]) != np.sign(points[:, 0] + distance * np.cos(angle)))
    assert toy.labelling_error(radius) == pytest.approx(swapped, abs=2e-3)


def test_two_points_share_the_lens_of_their_discs() -> None:
    """Where two discs overlap each view is half of each: lambda_2 is the lens as a share of a disc."""
    apart = 0.8
    lens = (2 * math.acos(apart / 2) - apart / 2 * math.sqrt(4 - apart**2)) / math.pi
    views = toy.disc_views(np.array([[0.013, 0.4], [0.013 + apart, 0.4]]), 1.0, cells_per_radius=100)
    np.testing.assert_allclose(laplacian_eigenvalues(image_graph(views), 2), [0, lens], atol=2e-3)


@pytest.mark.heavy
def test_toy_is_the_papers_figure() -> None:
    """alpha and lambda grow with the radius, lambda grows with the data, and the best radius does not grow with them."""
    found = toy.measure_toy(sizes=(25, 400), radii=(0.4, 0.8, 1.2, 1.6), features=(2,), seeds=tuple(range(10)))
    assert np.all(np.diff(found.labelling_error) > 0)
    few, many = found.curves
    for curve in (few, many):
        assert np.all(np.diff(curve.connectivity) > 0)
    assert np.all(np.array(many.connectivity) > few.connectivity)
    assert many.best_radius <= few.best_radius
    assert many.bound[1] == pytest.approx(4 * found.labelling_error[1] / many.connectivity[1] + 8 * found.labelling_error[1])


def test_points_of_a_small_sample_are_those_of_a_larger_one() -> None:
    np.testing.assert_array_equal(toy.sample_points(25, 7), toy.sample_points(100, 7)[:25])


def test_acr_is_that_of_a_plain_loop() -> None:
    features = np.random.default_rng(4).standard_normal((12, 3, 5)).astype(np.float32)
    features += 1.5 * features[:, :1]
    confused = 0
    for image in range(12):
        for view in range(3):
            best, nearest = -2.0, -1
            for other in range(12):
                for another in range(3):
                    one, two = features[image, view], features[other, another]
                    cosine = one @ two / np.linalg.norm(one) / np.linalg.norm(two)
                    if (other, another) != (image, view) and cosine > best:
                        best, nearest = cosine, other
            confused += nearest != image
    assert 0 < confused < 36
    assert confusion_ratio(features) == confused / 36
    assert relative_confusion(0.25, 0.5) == 1.5
    assert relative_confusion(0.25, 1.0) is None


def test_kernel_graph_falls_apart_where_features_do() -> None:
    """Two far groups of images are two components, whatever the number of views; in one group all hang together."""
    random = np.random.default_rng(5)
    centres = np.repeat(np.eye(6)[:2], 8, axis=0)
    features = (centres[:, None] + 0.05 * random.standard_normal((16, 4, 6))).astype(np.float32)
    bandwidth = nearest_distance(features[:, 0])
    views = kernel_views(features, bandwidth)
    np.testing.assert_allclose(views.sum(axis=1), np.ones((16, 1)))
    found = laplacian_eigenvalues(image_graph(views), 3)
    assert list(found[:2]) == [0, 0]
    assert found[2] > 0.01


def images(labels: NDArray[np.int64]) -> Labelled:
    """Red for class 0 and green for class 1, with some noise."""
    pixels = np.random.default_rng(6).integers(0, 60, (len(labels), 8, 8, 3), dtype=np.uint8)
    pixels[np.arange(len(labels)), :, :, labels] += 180
    return Labelled(pixels, labels)


def test_labelling_error_is_none_where_views_keep_the_class_and_half_where_they_lose_it() -> None:
    """The class is the colour: a crop keeps it, without colour a guess between two classes remains."""
    labels = np.arange(120, dtype=np.int64) % 2
    crop = default_views(Augmentation(jitter_probability=0, grayscale_probability=0))[0]
    # Grey of equal brightness: the luminance of red and green would still distinguish them.
    grey = crop.model_copy(update={"grayscale_probability": 1.0, "jitter_probability": 1.0, "brightness": 0.95, "hue": 0.5})
    normalisation = Normalisation((0.4,) * 3, (0.3,) * 3)
    evaluator = train_evaluator(images(labels), Backbone(name="resnet-small"), [crop, grey], 60, 32, normalisation, CPU)
    held_out = images(labels[:60])
    assert labelling_error(evaluator, held_out, crop, 4, normalisation, CPU) < 0.05
    assert 0.3 < labelling_error(evaluator, held_out, grey, 4, normalisation, CPU) < 0.65
