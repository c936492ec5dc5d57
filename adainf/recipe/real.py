"""Where the real images come from."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from adainf.recipe.sections import Fraction, PositiveInt, Section, Seed


class _Real(Section):
    image_size_px: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Resize (bilinear, after a centre crop to a square) to this height and width; null keeps the images' own size."""
    validation_fraction: Fraction = 0.1
    """Share of the training images held out for decisions; the test split is read by `evaluate` alone."""
    split_seed: Seed = 0
    """Seed of the permutation that carves the held-out splits."""
    train_limit_images: PositiveInt | None = None
    """Keep only so many training images (chosen by `split_seed`); null keeps all. The paper's half CIFAR-10 is 25000."""
    shard_images: PositiveInt = 10_000
    """Images per tar shard."""


class _RealWithPath(_Real):
    path: str
    """Folder or file with the data. Not part of the run's identity: the same images elsewhere are the same experiment."""


class _OwnTest(Section):
    test_fraction: Fraction = 0.2
    """Share of all images set apart as the test split, as the source has none of its own."""


class Digits(_Real, _OwnTest):
    """The 1,797 handwritten digits, 8x8 grey, that scikit-learn carries."""

    kind: Literal["digits"]


class FashionMnist(_Real):
    """Fashion-MNIST: 60,000 + 10,000 images, 28x28 grey, as the four IDX .gz files."""

    kind: Literal["fashion-mnist"]
    path: str = "/usr/share/datasets/fashion-mnist"
    """Folder with the four files (Debian's package dataset-fashion-mnist puts them there), or torchvision's root."""


class Cifar(_RealWithPath):
    """CIFAR-10 or CIFAR-100 through torchvision: 50,000 + 10,000 images, 32x32 RGB."""

    kind: Literal["cifar10", "cifar100"]
    download: bool = False
    """Let torchvision download the archive when it is not under `path`."""


class ImageFolder(_RealWithPath, _OwnTest):
    """A folder of images; sub-folders are classes. With `train/` and `test/` (or `val/`) inside, those are the splits."""

    kind: Literal["folder"]


class Npz(_RealWithPath, _OwnTest):
    """A .npz with `image` (uint8, N x H x W x 3, RGB) and, if there are labels, `label` (integers; -1 is none)."""

    kind: Literal["npz"]


class Shards(_RealWithPath, _OwnTest):
    """Existing WebDataset tar shards: a folder of .tar files whose samples hold an image and, if labelled, a .cls."""

    kind: Literal["shards"]


Real = Annotated[Digits | FashionMnist | Cifar | ImageFolder | Npz | Shards, Field(discriminator="kind")]
