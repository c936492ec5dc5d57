"""Settings of the real images: one class per kind of data source, and their union, which is the registry of sources.

docs/extending.md adds a source.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from adainf.recipe.sections import Fraction, PositiveInt, Section, Seed


class RealImages(Section):
    """Settings of every data source."""

    implementation: ClassVar[str]
    """Function of the settings that returns an `adainf.sources.ImageSource`, "module:function"."""
    image_size_px: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Resize (bilinear, after a centre crop to a square) to this height and width; null keeps the size of the images."""
    validation_fraction: Fraction = 0.1
    """Fraction of the training images held out for decisions; only `evaluate` scores on the test split."""
    split_seed: Seed = 0
    """Seed of the permutation that selects the held-out splits."""
    train_limit_images: PositiveInt | None = None
    """Keep only this many training images (chosen by `split_seed`); null keeps all. The paper's half of CIFAR-10 is 25000."""
    shard_images: PositiveInt = 10_000
    """Images per tar shard."""


class ReadsFiles(RealImages):
    """Settings of a source that decodes image files."""

    exif_transpose: bool = True
    """Turn and mirror images as their EXIF orientation says."""
    sixteen_bit: Literal["scale", "refuse"] = "refuse"
    """Greyscale of 16 bits: scale 0..65535 to 0..255, or refuse it."""
    decode: Literal["exact", "scaled"] = "exact"
    """`exact`: decode every pixel, then resize. `scaled`: decode a JPEG at a half, a quarter or an eighth of its size
    where that is at least 1.25 x `image_size_px`: several times faster for large photos, with slightly other pixels."""

    keep: Literal["resized", "original"] = "resized"
    """`resized`: store images at `image_size_px`. `original`: store the files as they are; views are random crops of the photo,
    and whatever needs images of one size crops and resizes them to `image_size_px` when it reads them."""

    @model_validator(mode="after")
    def _scales_to_a_size(self) -> ReadsFiles:
        if self.keep == "original" and self.image_size_px is None:
            raise ValueError("has keep: original without image_size_px, the size of the views; set image_size_px")
        if self.decode == "scaled" and self.image_size_px is None:
            raise ValueError("has decode: scaled without image_size_px; set image_size_px, or remove decode")
        return self

    @property
    def least_px(self) -> int | None:
        """The shortest side that an image may be decoded to; None for its own."""
        return self.image_size_px if self.decode == "scaled" else None


class FindsCopies(Section):
    """Settings of a source of users' images, which may contain an image several times."""

    duplicates: Literal["keep_together", "allow"] = "keep_together"
    """Images with equal pixels (after resizing) in several splits: keep them in the held-out one, or in all."""


class WithPath(RealImages):
    """Settings of a source that reads a path."""

    path: str
    """Folder or file with the data. Not part of the request: the same images elsewhere are the same experiment."""


class WithoutTestSplit(Section):
    """Settings of a source that may lack a test split."""

    test_fraction: Fraction = 0.2
    """Fraction of all images held out as the test split, where the source has none."""


class Digits(RealImages, WithoutTestSplit):
    """The 1,797 handwritten digits of scikit-learn, 8x8 grey."""

    implementation = "adainf.sources.digits:open_digits"
    kind: Literal["digits"]


class FashionMnist(RealImages):
    """Fashion-MNIST: 60,000 + 10,000 images, 28x28 grey, as the four IDX .gz files."""

    implementation = "adainf.sources.idx:open_fashion_mnist"
    kind: Literal["fashion-mnist"]
    path: str = "/usr/share/datasets/fashion-mnist"
    """Folder with the four files (the default is that of Debian's package dataset-fashion-mnist), or torchvision's root."""


class Cifar(WithPath):
    """CIFAR-10 or CIFAR-100: 50,000 + 10,000 images, 32x32 RGB."""

    implementation = "adainf.sources.cifar:open_cifar"
    kind: Literal["cifar10", "cifar100"]
    download: bool = False
    """Let torchvision download the archive where `path` lacks it."""


class FolderSplits(Section):
    """Folders of the splits, relative to `real.path`; sub-folders of each are classes."""

    train: str
    """"." is `real.path` itself, without the folders of the other splits."""
    validation: str | None = None
    """null: taken from train, see `validation_fraction`."""
    test: str | None = None
    """null: taken from train, see `test_fraction`."""


class ImageFolder(WithPath, WithoutTestSplit, ReadsFiles, FindsCopies):
    """A folder of images; sub-folders are classes. Folders named train, val and test are splits."""

    implementation = "adainf.sources.folder:open_folder"
    added_later = frozenset({"splits", "exif_transpose", "sixteen_bit", "duplicates", "decode", "keep"})
    kind: Literal["folder"]
    splits: FolderSplits | None = None
    """State which folders are the splits; null finds them by their names, and refuses an ambiguous layout."""


class Npz(WithPath, WithoutTestSplit, FindsCopies):
    """A .npz with `image` (uint8, N x H x W x 3, RGB) and, if there are labels, `label` (integers; -1 is none); or `images` and
    `labels`, `x` and `y`, `arr_0` and `arr_1`."""

    implementation = "adainf.sources.npz:open_npz"
    added_later = frozenset({"duplicates"})
    kind: Literal["npz"]


FieldName = Annotated[str, Field(min_length=1, max_length=200)]


class Shards(WithPath, WithoutTestSplit, ReadsFiles, FindsCopies):
    """Existing WebDataset tars: a folder, one .tar, or a pattern (`train-{000000..000009}.tar`). A sample contains an image
    and, if labelled, a .cls."""

    implementation = "adainf.sources.tars:open_tars"
    added_later = frozenset(
        {"image_field", "label_field", "text_field", "skip", "exif_transpose", "sixteen_bit", "duplicates", "decode", "keep"}
    )
    kind: Literal["shards"]
    image_field: FieldName | None = None
    """Field of the image, what follows the first dot of its name (`jpg`, `image.png`); null takes the only image."""
    label_field: FieldName | None = None
    """Field of the label, a class number or name: `cls`, `label.cls`, `json:KEY`; `none` reads none. Null takes `cls`, else the
    only field that ends so."""
    text_field: FieldName | None = None
    """Field of the caption: `txt`, `caption.txt`, `json:KEY`; `none` reads none. Null takes `txt`, else the only field that
    ends so."""
    skip: bool = False
    """Leave out samples that cannot be used (no image, several, an invalid label or caption), and report their number."""


Real = Annotated[Digits | FashionMnist | Cifar | ImageFolder | Npz | Shards, Field(discriminator="kind")]
