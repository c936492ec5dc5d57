"""embed: the features that a finished encoder gives to any images, as one .npz."""

from __future__ import annotations

import io

import numpy as np

from adainf.errors import BadInput
from adainf.evaluation.dataset import Dataset
from adainf.evaluation.features import extract
from adainf.evaluation.find_encoder import find_encoder
from adainf.pipeline.progress import Reporter
from adainf.recipe import Evaluate
from adainf.runtime.determinism import default_device, prepare
from adainf.storage import open_store
from adainf.storage.base import is_key


def embed(
    reporter: Reporter,
    data: str,
    output: str,
    run: str | None = None,
    arm: str | None = None,
    seed: int | None = None,
    encoder: str | None = None,
    split: str | None = None,
    image_size: int | None = None,
) -> None:
    """Write ``features`` (N x D float32), ``labels`` (N int64, -1 is none), ``splits`` and ``keys`` (N names each).

    The encoder is that of `run`, `arm` and `seed`, or the file `encoder`; `split` takes one of the splits at `data` alone.
    The same images and encoder give the same bytes. Raises `BadInput`.
    """
    folder, _, name = output.rpartition("/")
    if not is_key(name):
        raise BadInput(f"-o {output} names no file; give the .npz to write")
    store = open_store(folder or ("/" if output.startswith("/") else "."))
    found_encoder = find_encoder(run, arm, seed, encoder)
    dataset = Dataset(data, image_size)
    prepare(None)
    names = dataset.splits if split is None else [split]
    found = [(name, dataset.read(name)) for name in names]
    features = [extract(found_encoder.encoder, images, Evaluate().batch, default_device()) for _, (images, _, _) in found]
    written = io.BytesIO()
    np.savez(
        written,
        features=np.concatenate(features),
        labels=np.concatenate([labels for _, (_, labels, _) in found]),
        splits=np.array([name for name, (_, labels, _) in found for _ in labels]),
        keys=np.array([key for _, (_, _, keys) in found for key in keys]),
    )
    store.put(name, written.getvalue())
    count, width = sum(map(len, features)), features[0].shape[1]
    reporter.info(f"embed: {count:,} images, {width} features each, by {found_encoder.uri} in {output}")
