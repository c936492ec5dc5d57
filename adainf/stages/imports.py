"""generate, for `kind: import`: write existing images to ``generated/``, with the provenance that the recipe declares."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from adainf.pipeline.artifacts import Run
from adainf.pipeline.graph import generated
from adainf.pipeline.lifecycle import artifact
from adainf.pipeline.progress import Reporter
from adainf.pipeline.records import Manifest
from adainf.recipe import Generate, GeneratedSource, ImportedImages, Recipe
from adainf.shards.format.manifest import ShardSet, Split
from adainf.shards.format.summary import Findings
from adainf.shards.format.writer import write_split
from adainf.sources import BadData, SourceImages, open_import
from adainf.sources.channels import CHECKED_IMAGES, order_contradiction
from adainf.sources.corrupt import report_all_corrupt
from adainf.sources.examine import summarize
from adainf.sources.resize import Selection


def import_generated(recipe: Recipe, run: Run, reporter: Reporter, source: GeneratedSource) -> Manifest:
    """Write the imported images as the generated images of a source, without labels.

    They must have the size of the run's real images (after `real.image_size_px`). Raises `BadInput`; unreadable data leave
    nothing behind.
    """
    generator, name, label = source.generator, generated(source.name), source.label("generate")
    if not isinstance(generator, ImportedImages):
        raise TypeError(f"{source.where('generator')}.kind is {generator.kind}, not import")
    images: SourceImages | None = None

    def data_sha256(finished: Manifest | None) -> str | None:
        nonlocal images
        if finished is not None:  # the run no longer needs the files
            return finished.request.inputs.get("data")
        images, fingerprint = open_import(generator)
        return fingerprint

    with artifact(recipe, run, name, reporter, label, data_sha256=data_sha256, discard_on=(BadData,)) as job:
        if job.finished:
            return job.finished
        assert images is not None
        chosen = _choose(recipe, source, generator, images, job.inputs["real"].content_as(ShardSet))
        summary = summarize(Findings(), {"train": chosen}, [], reporter)
        job.claim()
        with report_all_corrupt([chosen], reporter):
            split = _write(run, name, chosen, source.generate, reporter)
        origin: dict[str, JsonValue] = {
            **generator.provenance.model_dump(mode="json"),
            "kind": "import",
            "channel_order_in_file": generator.channel_order,
        }
        manifest = job.commit(
            ShardSet(
                height_px=chosen.height_px,
                width_px=chosen.width_px,
                splits={"train": split},
                origin=origin,
                summary=summary,
            )
        )
    reporter.info(f"{label}: done, {len(chosen):,} images imported")
    for line in summary.lines(label):
        reporter.info(line)
    return manifest


def _write(run: Run, name: str, chosen: Selection, generate: Generate, reporter: Reporter) -> Split:
    with reporter.track("import", total=len(chosen)) as track:
        return write_split(
            run, name, "train", len(chosen), generate.shard_images, chosen.take, track.advance, generate.compression
        )


def _choose(
    recipe: Recipe, source: GeneratedSource, generator: ImportedImages, images: SourceImages, real: ShardSet
) -> Selection:
    """The images to take, checked as far as that costs little: their number, the first sizes, the channel order."""
    count, setting = source.generate.images or len(images), f"{source.where('generate')}.images"
    if count > len(images):
        raise BadData(
            f"{generator.path} holds {len(images)} images, fewer than {setting} {count}; set {setting} to at most "
            f"{len(images)}, or null for all"
        )
    chosen = Selection(
        images,
        _spread(len(images), count),
        *real.image_size,
        recipe.real.image_size_px,
        bgr=generator.channel_order == "BGR",
        labelled=False,
    )
    _check_channel_order(source, generator, chosen, real.splits["train"])
    return chosen


def _spread(available: int, count: int) -> NDArray[np.int64]:
    """`count` indices evenly over all: the first ones would be of few classes where a file is sorted by class."""
    return np.arange(count, dtype=np.int64) * available // count


def _check_channel_order(source: GeneratedSource, generator: ImportedImages, chosen: Selection, real: Split) -> None:
    """Refuse an order that the real images contradict."""
    checked = _spread(len(chosen), min(len(chosen), CHECKED_IMAGES))
    contradiction = order_contradiction((chosen[int(position)].image for position in checked), real)
    if contradiction:
        other = "BGR" if generator.channel_order == "RGB" else "RGB"
        raise BadData(
            f"{generator.path}: read as {generator.channel_order}, {contradiction}; set "
            f"{source.where('generator')}.channel_order: {other}"
        )
