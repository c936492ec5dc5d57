"""``adainf shards import SOURCE URI``: images as they lie become a set of shards, for use without a run.

Started again after a kill, it goes on behind the last whole shard.
"""

from __future__ import annotations

import numpy as np
from pydantic import JsonValue

from adainf.errors import BadInput
from adainf.pipeline.artifacts import Request, Run
from adainf.pipeline.lifecycle import ArtifactJob
from adainf.pipeline.progress import Reporter
from adainf.shards.format.manifest import ShardSet
from adainf.shards.format.writer import write_split
from adainf.sources import BadData, SourceImages, kind_of, open_source
from adainf.sources.atomic import naming_all_damaged
from adainf.sources.resize import Chosen
from adainf.storage.base import is_key


def import_images(reporter: Reporter, source: str, uri: str, image_size_px: int | None, shard_images: int) -> ShardSet:
    """Write the images of an image folder, a .npz or others' tars as the set at `uri`, with their labels and captions.

    Splits are the source's own: train, and test where it has one. `image_size_px` brings every image to that square. Raises
    `BadInput` where `uri` holds something else; data that cannot be read leave nothing behind.
    """
    parent, _, name = uri.rstrip("/").rpartition("/")
    if not is_key(name) or parent == "s3:/":
        raise BadInput(f"{uri} names no folder for the set; give FOLDER/NAME or s3://bucket/NAME")
    run = Run(parent or ("/" if uri.startswith("/") else "."))
    opened = open_source(kind_of(source))
    height_px, width_px, _ = opened.train[0].image.shape
    if image_size_px is not None:
        height_px = width_px = image_size_px

    def whole(images: SourceImages) -> Chosen:
        resizing = "bring them to one with --image-size"
        return Chosen(images, np.arange(len(images)), height_px, width_px, image_size_px, resizing=resizing)

    chosen = {"train": whole(opened.train)} | ({} if opened.test is None else {"test": whole(opened.test)})
    settings: dict[str, JsonValue] = {"image_size_px": image_size_px, "shard_images": shard_images}
    request = Request(stage="shards import", settings=settings, inputs={"data": opened.fingerprint})
    with ArtifactJob(run, name, request, {}, discard_on=(BadData,)) as job:
        if job.finished is not None:
            reporter.info("import: done already (same images and settings); skipped")
            return job.finished.content_as(ShardSet)
        job.claim()
        images_of_all = list(chosen.values())
        with (
            naming_all_damaged(images_of_all, reporter),
            reporter.track("import", total=sum(map(len, images_of_all))) as track,
        ):
            splits = {
                split: write_split(run, name, split, len(images), shard_images, images.take, track.advance)
                for split, images in chosen.items()
            }
        shards = ShardSet(
            height_px=height_px, width_px=width_px, classes=opened.classes, splits=splits, origin={"kind": "import"}
        )
        job.commit(shards)
    reporter.info("import: done, " + ", ".join(f"{len(images):,} {split}" for split, images in chosen.items()) + " images")
    return shards
