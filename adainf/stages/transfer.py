"""transfer: a finished encoder judged on another labelled data set than the one it was trained on."""

from __future__ import annotations

import json

import numpy as np
from rich import box
from rich.table import Table

from adainf.errors import BadInput
from adainf.evaluation.dataset import Dataset
from adainf.evaluation.find_encoder import find_encoder
from adainf.evaluation.protocol import SPLITS, can_evaluate, measure
from adainf.evaluation.scores import SeedScores
from adainf.pipeline.progress import Reporter
from adainf.recipe import Evaluate
from adainf.runtime.determinism import default_device, prepare
from adainf.shards.loader.read_all import Labelled
from adainf.stages.ingest import carve

_TEST_FRACTION, _VALIDATION_FRACTION = 0.2, 0.1
_FEWEST = 20
"""Labelled images that are enough to carve those from."""


def transfer(
    reporter: Reporter,
    data: str,
    run: str | None = None,
    arm: str | None = None,
    seed: int | None = None,
    encoder: str | None = None,
    image_size: int | None = None,
    as_json: bool = False,
) -> None:
    """Print every measure of the encoder on the data, by the default protocol of `evaluate`.

    Images are standardised as the encoder was trained, not by their own mean. A test or validation split that the data lack is
    carved from train, as `ingest` does it. Raises `BadInput`, also where the labels allow no probe.
    """
    found_encoder = find_encoder(run, arm, seed, encoder)
    dataset = Dataset(data, image_size)
    splits = _splits(dataset)
    if not can_evaluate(splits):
        raise BadInput(
            f"{data}: no probe without labels, of two classes at least in train and some in test; give labelled images"
        )
    prepare(None)
    scores = measure(found_encoder.encoder, splits, Evaluate(), found_encoder.seed, default_device())
    if as_json:
        named = {
            "encoder": found_encoder.uri,
            "encoder_sha256": found_encoder.sha256,
            "data": data,
            "data_sha256": dataset.sha256,
        }
        images = {name: len(split.labels) for name, split in splits.items()}
        print(json.dumps({**named, "images": images, **scores.model_dump(mode="json")}, indent=2))
    else:
        reporter.console.print(_table(f"{found_encoder.uri} on {data}", scores))


def _splits(dataset: Dataset) -> dict[str, Labelled]:
    """Train, validation and test with labels only, as the data have them or carved."""
    there = {name: _labelled(dataset, name) for name in SPLITS if name == "train" or name in dataset.splits}
    train = there["train"]
    if len(there) < len(SPLITS) and len(train.labels) < _FEWEST:
        raise BadInput(
            f"{dataset.uri}: {len(train.labels)} labelled training images are too few to carve a split from; give {_FEWEST}"
        )
    carved = carve(
        len(train.labels),
        test_fraction=0.0 if "test" in there else _TEST_FRACTION,
        validation_fraction=0.0 if "validation" in there else _VALIDATION_FRACTION,
        train_limit=None,
        seed=0,
    )
    parts = {name: Labelled(train.images[rows], train.labels[rows]) for name, rows in zip(SPLITS, carved, strict=True)}
    return parts | {name: split for name, split in there.items() if name != "train"}


def _labelled(dataset: Dataset, name: str) -> Labelled:
    images, labels, _ = dataset.read(name)
    known = np.flatnonzero(labels >= 0)
    return Labelled(images if len(known) == len(labels) else images[known], labels[known])


def _table(title: str, scores: SeedScores) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for number, name in enumerate(("measure", "test %", "95 % interval", "test images")):
        table.add_column(name, justify="right" if number else "left")
    for one in scores.measures:
        low, high = (f"{100 * end:.2f}" for end in one.interval)
        table.add_row(one.title, f"{100 * one.accuracy:.2f}", f"{low} to {high}", f"{one.images:,}")
    return table
