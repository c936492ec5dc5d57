"""ingest: write the recipe's real images to ``real/``, as tar shards of the splits train, validation and test.

Every image is decoded twice: to compare it with those of other splits, and to write it. After a kill it resumes behind the last
complete shard.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adainf.pipeline.artifacts import Run
from adainf.pipeline.lifecycle import artifact
from adainf.pipeline.progress import Reporter
from adainf.pipeline.records import Manifest
from adainf.recipe import FindsCopies, ReadsFiles, Real, Recipe, WithoutTestSplit
from adainf.shards.format.manifest import Originals, ShardSet, Split
from adainf.shards.format.writer import write_split
from adainf.sources import BadData, ImageSource, SourceImages, open_source
from adainf.sources.corrupt import report_all_corrupt
from adainf.sources.examine import Examined, examine
from adainf.sources.resize import Selection

NAME = "real"


def ingest(recipe: Recipe, run: Run, reporter: Reporter) -> Manifest:
    """Write the real images. Raises `BadInput`; unreadable data leave nothing behind."""
    source: ImageSource | None = None
    examined: Examined | None = None

    def data_sha256(finished: Manifest | None) -> str | None:
        """The fingerprint of the data: an unfinished ingest keeps its shards, so the settings do not identify them."""
        nonlocal source, examined
        if finished is not None:  # the run no longer needs the data
            return finished.request.inputs.get("data")
        source = open_source(recipe.real)
        together = isinstance(recipe.real, FindsCopies) and recipe.real.duplicates == "keep_together"
        splits = _splits(recipe.real, source)
        examined = examine(source.fingerprint, source.findings, splits, source.classes, reporter, together)
        return examined.fingerprint

    with artifact(recipe, run, NAME, reporter, "ingest", data_sha256=data_sha256, discard_on=(BadData,)) as job:
        if job.finished:
            return job.finished
        assert source is not None
        assert examined is not None
        splits = examined.splits
        job.claim()
        with report_all_corrupt(list(splits.values()), reporter):
            written = _write(run, splits, recipe.real.shard_images, reporter)
        first = splits["train"]
        shards = ShardSet(
            height_px=first.height_px,
            width_px=first.width_px,
            classes=source.classes,
            splits=written,
            origin={"kind": recipe.real.kind},
            summary=examined.summary,
            originals=_originals(recipe.real),
        )
        manifest = job.commit(shards)
    reporter.info("ingest: done, " + ", ".join(f"{len(chosen):,} {name}" for name, chosen in splits.items()) + " images")
    for line in examined.summary.lines("ingest"):
        reporter.info(line)
    return manifest


def _write(run: Run, splits: dict[str, Selection], shard_images: int, reporter: Reporter) -> dict[str, Split]:
    with reporter.track("ingest", total=sum(map(len, splits.values()))) as track:
        return {
            name: write_split(run, NAME, name, len(chosen), shard_images, chosen.take, track.advance)
            for name, chosen in splits.items()
        }


def _splits(real: Real, source: ImageSource) -> dict[str, Selection]:
    """Train, validation and test, each in the order of the source."""
    height, width, _ = source.train[0].image.shape
    if real.image_size_px is not None:
        height = width = real.image_size_px

    def chosen(images: SourceImages, indices: NDArray[np.int64]) -> Selection:
        return Selection(images, indices, height, width, real.image_size_px)

    def entire(images: SourceImages) -> Selection:
        return chosen(images, np.arange(len(images)))

    train, validation, test = carve(
        len(source.train),
        test_fraction=_test_fraction(real) if source.test is None else 0.0,
        validation_fraction=real.validation_fraction if source.validation is None else 0.0,
        train_limit=real.train_limit_images,
        seed=real.split_seed,
    )
    return {
        "train": chosen(source.train, train),
        "validation": chosen(source.train, validation) if source.validation is None else entire(source.validation),
        "test": chosen(source.train, test) if source.test is None else entire(source.test),
    }


def _originals(real: Real) -> Originals | None:
    if not isinstance(real, ReadsFiles) or real.keep == "resized" or real.image_size_px is None:
        return None
    return Originals(
        size_px=real.image_size_px, exif_transpose=real.exif_transpose, sixteen_bit=real.sixteen_bit, decode=real.decode
    )


def _test_fraction(real: Real) -> float:
    return real.test_fraction if isinstance(real, WithoutTestSplit) else 0.0


def carve(
    count: int, test_fraction: float, validation_fraction: float, train_limit: int | None, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Ascending indices below `count` for train, validation and test, none in two of them.

    One permutation by `seed`; test is cut from its start, then validation as its share of the rest, then train as far as
    `train_limit` goes. Raises `BadData` where a split that is asked for would be empty.
    """
    # Philox's words are the same in every version of numpy; those of Generator.permutation need not be.
    order = np.argsort(np.random.Philox(seed).random_raw(count), kind="stable").astype(np.int64)
    in_test = round(count * test_fraction)
    in_validation = round((count - in_test) * validation_fraction)
    in_train = count - in_test - in_validation
    _require("test", test_fraction, in_test, count)
    _require("validation", validation_fraction, in_validation, count)
    if in_train < (train_limit or 1):
        raise BadData(
            f"real: {in_train} of {count} images are left for training after {in_test} for test and {in_validation} for "
            f"validation; bring more images, lower the fractions or set real.train_limit_images to at most {in_train}"
            if train_limit and in_train
            else f"real: none of {count} images is left for training after {in_test} for test and {in_validation} for "
            "validation; bring more images or lower real.test_fraction and real.validation_fraction"
        )
    validation_at, train_at = in_test, in_test + in_validation
    train = order[train_at : None if train_limit is None else train_at + train_limit]
    return np.sort(train), np.sort(order[validation_at:train_at]), np.sort(order[:validation_at])


def _require(split: str, fraction: float, images: int, count: int) -> None:
    if fraction and not images:
        raise BadData(
            f"real: {count} images are too few for a {split} split of {fraction:g}; bring more images, raise "
            f"real.{split}_fraction or set it to 0"
        )
