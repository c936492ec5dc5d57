"""Fashion-MNIST at 16 x 16, plain and hard, and CIFAR-10 at 32 x 32 and 16 x 16, cut into the parts of the studies. The same
bytes everywhere."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adainf.recipe import Cifar, FashionMnist
from adainf.shards.format.png import Pixels
from adainf.shards.loader.read_all import Labelled
from adainf.sources import open_source
from adainf.sources.base import ArrayImages
from benchmarks.common import ROOT

FASHION_MNIST, CIFAR10 = Path("/usr/share/datasets/fashion-mnist"), ROOT / "datasets/cifar10"
"""Debian's package dataset-fashion-mnist, and what `benchmarks.studies.cifar` writes."""
SOURCES = {"plain": "Fashion-MNIST", "hard": "Fashion-MNIST", "cifar": "CIFAR-10", "cifar16": "CIFAR-10 at 16 x 16"}
"""Of each variant."""
DIGESTS = {
    "plain": "58840d81077e711d79eb9e40955c912597d8207e359b30aefebc151c21fd2c49",
    "hard": "078fcd92e187795dbcb48cc34879847f49fbe516547d5c4921a8063340d0859b",
    "cifar": "0ac3ab5c78edb36ac68f69e287fd8f957b2d4f820b80e5fa9bd05c810fc0d95d",
    "cifar16": "753f533f4318eb7121c4f2ee617cb11fbeabb8c8f1a0d92e46215b203f1536da",
}
"""SHA-256 of all stored images, train before test."""
PX = 16
POOL, PROBE, TEST = 7_000, 10_000, 10_000
"""Real images of the experiment (its training and validation splits), and those whose labels a probe is fitted on. The rest of
the training images is the perfect generator."""
_LEAST_AREA, _JITTER = 0.25, 0.7


class Parts(NamedTuple):
    """One variant's images; no image is in two parts."""

    pool: Labelled
    probe: Labelled
    perfect: Labelled
    test: Labelled
    """The data set's own, read by the main blocks alone."""


def parts(variant: str) -> Parts:
    """Raises `ValueError` where the images are not those that the study is pinned to."""
    images, labels = _stored(variant)
    found = hashlib.sha256(images.tobytes()).hexdigest()
    if found != DIGESTS[variant]:
        raise ValueError(
            f"{variant} has SHA-256 {found}, the study is pinned to {DIGESTS[variant]}: other data or another maker"
        )
    colour = images if images.ndim == 4 else np.broadcast_to(images[..., None], (*images.shape, 3))
    training = len(images) - TEST
    order = np.argsort(np.random.Philox(1).random_raw(training), kind="stable")
    cuts = (*np.split(order, [POOL, POOL + PROBE]), np.arange(training, len(images)))
    return Parts(*(Labelled(colour[rows], labels[rows]) for rows in cuts))


def write(variant: str, folder: Path) -> None:
    """The parts that runs read, as ``VARIANT-real.npz``, ``-perfect.npz``, and what stands for bad generators: ``-ghost.npz``,
    blends of two perfect images each, and ``-noise.npz``."""
    if (folder / f"{variant}-noise.npz").exists():  # the last one
        return
    folder.mkdir(parents=True, exist_ok=True)
    cut = parts(variant)
    save(folder / f"{variant}-real.npz", image=cut.pool.images, label=cut.pool.labels)
    perfect = cut.perfect.images
    save(folder / f"{variant}-perfect.npz", image=perfect)
    half = perfect.astype(np.uint16)
    save(folder / f"{variant}-ghost.npz", image=((half + half[::-1]) // 2).astype(np.uint8))
    noise = np.random.Philox(2).random_raw(perfect[..., 0].size // 8).view(np.uint8).reshape(perfect.shape[:3])
    save(folder / f"{variant}-noise.npz", image=np.repeat(noise[..., None], 3, axis=3))


def save(file: Path, **arrays: NDArray[np.generic]) -> None:
    """As .npz, whole or not at all."""
    unfinished = file.with_suffix(".part.npz")
    np.savez(unfinished, **arrays)  # type: ignore[arg-type] # numpy's stub takes the names for its own options
    unfinished.rename(file)


def _stored(variant: str) -> tuple[Pixels, NDArray[np.int64]]:
    """N x 16 x 16 grey, or N x 32 x 32 x 3 or N x 16 x 16 x 3 RGB, and labels; the test images are the last."""
    in_colour = SOURCES[variant].startswith("CIFAR")
    cifar, garments = Cifar(kind="cifar10", path=str(CIFAR10)), FashionMnist(kind="fashion-mnist", path=str(FASHION_MNIST))
    source = open_source(cifar if in_colour else garments)
    arrays = [part for part in (source.train, source.test) if isinstance(part, ArrayImages)]
    images = np.concatenate([part.images for part in arrays])
    labels = np.concatenate([part.labels for part in arrays if part.labels is not None])
    if variant == "cifar":
        return images, labels
    if in_colour:
        return shrunk(images), labels
    small = shrunk(np.pad(images, ((0, 0), (2, 2), (2, 2))))  # 28 x 28, and a frame of two black pixels around it
    return small if variant == "plain" else hardened(small), labels


def shrunk(images: Pixels) -> Pixels:
    """N x 32 x 32, grey or RGB, to N x 16 x 16: the mean of every 2 x 2, a half rounded up."""
    blocks = images.reshape(len(images), PX, 2, PX, 2, *images.shape[3:]).sum(axis=(2, 4), dtype=np.uint16)
    return ((blocks + 2) // 4).astype(np.uint8)


def hardened(images_NHW: Pixels) -> Pixels:
    """Every image once cropped at random and changed in contrast and brightness, and so stored: position and brightness mean
    nothing any more. Image i is a function of its pixels and i.

    A crop of 25 % to 100 % of the area and an aspect ratio of 3/4 to 4/3, back to 16 x 16 by bilinear interpolation; then
    contrast about the mean and brightness, each times 0.3 to 1.7. All by operations that IEEE 754 rounds exactly.
    """
    count = len(images_NHW)
    u = (np.random.Philox(0).random_raw(6 * count) >> np.uint64(11)).astype(np.float64).reshape(count, 6) / 2**53
    area, ratio = _LEAST_AREA + (1 - _LEAST_AREA) * u[:, 0], 0.75 + (4 / 3 - 0.75) * u[:, 1]
    height, width = (np.minimum(np.sqrt(side), 1.0) * PX for side in (area / ratio, area * ratio))
    x = _lines(images_NHW.astype(np.float64), (PX - height) * u[:, 2], height)
    x = _lines(x.transpose(0, 2, 1), (PX - width) * u[:, 3], width).transpose(0, 2, 1)
    contrast, brightness = (1 + _JITTER * (2 * u[:, at, None, None] - 1) for at in (4, 5))
    mean = np.round(x.sum(axis=(1, 2), keepdims=True) / PX**2)  # of whole numbers, that no order of summing tells
    x = np.clip(mean + contrast * (x - mean), 0, 255) * brightness
    return np.floor(np.clip(x, 0, 255) + 0.5).astype(np.uint8)


def _lines(x_NHW: NDArray[np.float64], start_N: NDArray[np.float64], length_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """16 rows at even distances within start .. start + length, each between its two neighbours; rounded to whole numbers."""
    at = np.clip(start_N[:, None] + (np.arange(PX) + 0.5) * length_N[:, None] / PX - 0.5, 0, PX - 1)
    low = np.floor(at).astype(np.int64)
    share = (at - low)[..., None]
    rows = np.arange(len(x_NHW))[:, None]
    between = x_NHW[rows, low] * (1 - share) + x_NHW[rows, np.minimum(low + 1, PX - 1)] * share
    return np.floor(between + 0.5)
