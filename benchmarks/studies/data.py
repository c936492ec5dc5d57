"""The studies' data: Fashion-MNIST at 16 x 16, plain and hard, and CIFAR-10 at 32 x 32 and 16 x 16, split into parts with the
same bytes on every machine."""

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
"""Debian's package dataset-fashion-mnist, and the output of `benchmarks.studies.cifar`."""
SOURCES = {"plain": "Fashion-MNIST", "hard": "Fashion-MNIST", "cifar": "CIFAR-10", "cifar16": "CIFAR-10 at 16 x 16"}
"""By variant."""
DIGESTS = {
    "plain": "58840d81077e711d79eb9e40955c912597d8207e359b30aefebc151c21fd2c49",
    "hard": "078fcd92e187795dbcb48cc34879847f49fbe516547d5c4921a8063340d0859b",
    "cifar": "0ac3ab5c78edb36ac68f69e287fd8f957b2d4f820b80e5fa9bd05c810fc0d95d",
    "cifar16": "753f533f4318eb7121c4f2ee617cb11fbeabb8c8f1a0d92e46215b203f1536da",
}
"""SHA-256 of all stored images, train before test."""
PX = 16
POOL, PROBE, TEST = 7_000, 10_000, 10_000
"""Numbers of real images for the experiment (its training and validation splits) and for the probe, and of test images. The
other training images are the perfect generator's."""
_LEAST_AREA, _JITTER = 0.25, 0.7


class Parts(NamedTuple):
    """One variant's images in disjoint parts."""

    pool: Labelled
    probe: Labelled
    perfect: Labelled
    test: Labelled
    """The data set's own, read only after gate and pilot."""


def parts(variant: str) -> Parts:
    """Raises `ValueError` if the images' SHA-256 is not the pinned one."""
    images, labels = _stored(variant)
    found = hashlib.sha256(images.tobytes()).hexdigest()
    if found != DIGESTS[variant]:
        raise ValueError(
            f"{variant} has SHA-256 {found}, expected {DIGESTS[variant]}; restore the data set or the code that derives it"
        )
    colour = images if images.ndim == 4 else np.broadcast_to(images[..., None], (*images.shape, 3))
    training = len(images) - TEST
    order = np.argsort(np.random.Philox(1).random_raw(training), kind="stable")
    cuts = (*np.split(order, [POOL, POOL + PROBE]), np.arange(training, len(images)))
    return Parts(*(Labelled(colour[rows], labels[rows]) for rows in cuts))


def write(variant: str, folder: Path) -> None:
    """Write the inputs of runs: ``VARIANT-real.npz``, ``-perfect.npz``, and two simulated bad generators: ``-ghost.npz``, means
    of two perfect images, and ``-noise.npz``."""
    if (folder / f"{variant}-noise.npz").exists():  # written last
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
    """Write a .npz atomically."""
    unfinished = file.with_suffix(".part.npz")
    np.savez(unfinished, **arrays)  # type: ignore[arg-type] # numpy's stub takes the names for its own options
    unfinished.rename(file)


def _stored(variant: str) -> tuple[Pixels, NDArray[np.int64]]:
    """N x 16 x 16 grey, or N x 32 x 32 x 3 or N x 16 x 16 x 3 RGB, and labels; test images come last."""
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
    small = shrunk(np.pad(images, ((0, 0), (2, 2), (2, 2))))  # 28 x 28, padded with two black pixels on each side
    return small if variant == "plain" else hardened(small), labels


def shrunk(images: Pixels) -> Pixels:
    """N x 32 x 32, grey or RGB, to N x 16 x 16: 2 x 2 average pooling, halves rounded up."""
    blocks = images.reshape(len(images), PX, 2, PX, 2, *images.shape[3:]).sum(axis=(2, 4), dtype=np.uint16)
    return ((blocks + 2) // 4).astype(np.uint8)


def hardened(images_NHW: Pixels) -> Pixels:
    """Every image with one fixed random crop, contrast and brightness, so that position and brightness are nuisances. Image i
    is a function of its pixels and i.

    A crop of 25 % to 100 % of the area with an aspect ratio of 3/4 to 4/3, resized to 16 x 16 by bilinear interpolation; then
    contrast about the mean and brightness, each times 0.3 to 1.7. All operations are correctly rounded by IEEE 754.
    """
    count = len(images_NHW)
    u = (np.random.Philox(0).random_raw(6 * count) >> np.uint64(11)).astype(np.float64).reshape(count, 6) / 2**53
    area, ratio = _LEAST_AREA + (1 - _LEAST_AREA) * u[:, 0], 0.75 + (4 / 3 - 0.75) * u[:, 1]
    height, width = (np.minimum(np.sqrt(side), 1.0) * PX for side in (area / ratio, area * ratio))
    x = _lines(images_NHW.astype(np.float64), (PX - height) * u[:, 2], height)
    x = _lines(x.transpose(0, 2, 1), (PX - width) * u[:, 3], width).transpose(0, 2, 1)
    contrast, brightness = (1 + _JITTER * (2 * u[:, at, None, None] - 1) for at in (4, 5))
    mean = np.round(x.sum(axis=(1, 2), keepdims=True) / PX**2)  # a sum of integers is exact in any order
    x = np.clip(mean + contrast * (x - mean), 0, 255) * brightness
    return np.floor(np.clip(x, 0, 255) + 0.5).astype(np.uint8)


def _lines(x_NHW: NDArray[np.float64], start_N: NDArray[np.float64], length_N: NDArray[np.float64]) -> NDArray[np.float64]:
    """16 evenly spaced rows within start .. start + length by linear interpolation; rounded to integers."""
    at = np.clip(start_N[:, None] + (np.arange(PX) + 0.5) * length_N[:, None] / PX - 0.5, 0, PX - 1)
    low = np.floor(at).astype(np.int64)
    share = (at - low)[..., None]
    rows = np.arange(len(x_NHW))[:, None]
    between = x_NHW[rows, low] * (1 - share) + x_NHW[rows, np.minimum(low + 1, PX - 1)] * share
    return np.floor(between + 0.5)
