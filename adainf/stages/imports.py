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
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.manifest import ShardSet, Split
from adainf.shards.format.tar import Sample
from adainf.shards.format.writer import write_split
from adainf.shards.loader.read_all import read_split
from adainf.sources import BadData, ImageSource, SourceImages, open_import
from adainf.sources.channels import CHECKED_IMAGES, order_contradiction
from adainf.sources.corrupt import report_all_corrupt
from adainf.sources.examine import examine, pixel_digest
from adainf.sources.resize import Selection


def import_generated(recipe: Recipe, run: Run, reporter: Reporter, source: GeneratedSource) -> Manifest:
    """Write the imported images as the generated images of a source, without labels.

    They must have the size of the run's real images (after `real.image_size_px`). Raises `BadInput`; unreadable data leave
    nothing behind.
    """
    generator, name, label = source.generator, generated(source.name), source.label("generate")
    if not isinstance(generator, ImportedImages):
        raise TypeError(f"{source.where('generator')}.kind is {generator.kind}, not import")
    opened: ImageSource | None = None

    def data_sha256(finished: Manifest | None) -> str | None:
        nonlocal opened
        if finished is not None:  # the run no longer needs the files
            return finished.request.inputs.get("data")
        opened = open_import(generator)
        return opened.fingerprint

    with artifact(recipe, run, name, reporter, label, data_sha256=data_sha256, discard_on=(BadData,)) as job:
        if job.finished:
            return job.finished
        assert opened is not None
        chosen = _choose(recipe, source, generator, opened.train, job.inputs["real"].content_as(ShardSet))
        _, summary, _ = examine(opened.fingerprint, opened.findings, {"train": chosen}, [], reporter)
        check = _ContaminationCheck(chosen, ShardFolder.of(run, "real", job.inputs["real"]))
        job.claim()
        with report_all_corrupt([chosen], reporter):
            split = _write(run, name, check, source.generate, reporter)
            check.finish(generator.path)
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


class _ContaminationCheck:
    """Finds images that are exact copies of validation or test images while they are written."""

    def __init__(self, chosen: Selection, real: ShardFolder) -> None:
        self._chosen, self._copies = chosen, dict[int, str]()
        self._checked = np.zeros(len(chosen), bool)
        self._held_out = {
            pixel_digest(image): split
            for split in ("validation", "test")
            if real.shards.splits[split].images
            for image in read_split(real, split).images
        }

    def __len__(self) -> int:
        return len(self._chosen)

    def take(self, positions: range) -> list[Sample]:
        """As `Selection.take`."""
        samples = self._chosen.take(positions)
        self._checked[positions.start : positions.stop] = True
        for position, sample in zip(positions, samples, strict=True):
            split = self._held_out.get(pixel_digest(sample.image))
            if split is not None:
                self._copies[position] = split
        return samples

    def finish(self, path: str) -> None:
        """Check the images that an interrupted import has written. Raises `BadData` if there are copies."""
        for position in np.flatnonzero(~self._checked).tolist():
            self.take(range(position, position + 1))
        if self._copies:
            first = min(self._copies)
            where = self._chosen.images.locate(int(self._chosen.indices[first]))
            raise BadData(
                f"{path}: {len(self._copies):,} of {len(self._chosen):,} images are exact copies of held-out real images, the "
                f"first is {where}, in the {self._copies[first]} split; remove them, as they would be trained on"
            )


def _write(run: Run, name: str, chosen: _ContaminationCheck, generate: Generate, reporter: Reporter) -> Split:
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
