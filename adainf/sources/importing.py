"""``adainf shards import SOURCE URI``: convert images to a set of shards, for use without a run.

Started again after a kill, it resumes after the last complete shard.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from pydantic import JsonValue

from adainf.errors import BadInput
from adainf.pipeline.artifacts import Run
from adainf.pipeline.lifecycle import ArtifactJob
from adainf.pipeline.progress import Reporter
from adainf.pipeline.records import Request
from adainf.recipe import Real, Shards
from adainf.shards.format.manifest import ShardSet
from adainf.shards.format.samples import DEFAULT_FIELDS, Fields
from adainf.shards.format.summary import Findings
from adainf.shards.format.writer import write_split
from adainf.sources import BadData, SourceImages, kind_of, open_source
from adainf.sources.corrupt import report_all_corrupt
from adainf.sources.examine import examine
from adainf.sources.resize import Selection
from adainf.storage.base import is_key

_OPTIONS = {"image_size_px": "--image-size"}
"""Options with another name than their setting."""
_AS_OPTION = "image_size_px|image_field|label_field|text_field|skip"
"""Settings that are options of the commands; the others exist in a recipe only."""


def import_images(
    reporter: Reporter,
    source: str,
    uri: str,
    image_size_px: int | None,
    shard_images: int,
    fields: Fields = DEFAULT_FIELDS,
    skip: bool = False,
) -> ShardSet:
    """Write the images of an image folder, a .npz or existing tars as the set at `uri`, with their labels and captions.

    Splits are those of the source: train, and test if it has one. `image_size_px` resizes every image to that square; `fields`
    and `skip` apply to tars (`adainf.recipe.Shards`). Raises `BadInput` where `uri` holds something else; where data cannot be
    read, nothing is left at `uri`.
    """
    parent, _, name = uri.rstrip("/").rpartition("/")
    if not is_key(name) or parent == "s3:/":
        raise BadInput(f"{uri} does not name a folder for the set; give FOLDER/NAME or s3://bucket/NAME")
    run = Run(parent or ("/" if uri.startswith("/") else "."))
    with in_words_of_the_command():
        opened = open_source(_settings(source, fields, skip))
        opened = replace(opened, findings=in_options(opened.findings))
    height_px, width_px, _ = opened.train[0].image.shape
    if image_size_px is not None:
        height_px = width_px = image_size_px

    def select_all(images: SourceImages) -> Selection:
        resizing = "resize them with --image-size"
        return Selection(images, np.arange(len(images)), height_px, width_px, image_size_px, resizing=resizing)

    found = {"train": opened.train, "validation": opened.validation, "test": opened.test}
    selections = {split: select_all(images) for split, images in found.items() if images is not None}
    _, summary, fingerprint = examine(opened.fingerprint, opened.findings, selections, opened.classes, reporter)
    settings: dict[str, JsonValue] = {"image_size_px": image_size_px, "shard_images": shard_images}
    request = Request(stage="shards import", settings=settings, inputs={"data": fingerprint})
    with ArtifactJob(run, name, request, {}, discard_on=(BadData,)) as job:
        if job.finished is not None:
            reporter.info("import: done already (same images and settings); skipped")
            return job.finished.content_as(ShardSet)
        job.claim()
        all_images = list(selections.values())
        with (
            report_all_corrupt(all_images, reporter),
            reporter.track("import", total=sum(map(len, all_images))) as track,
        ):
            splits = {
                split: write_split(run, name, split, len(images), shard_images, images.take, track.advance)
                for split, images in selections.items()
            }
        shards = ShardSet(
            height_px=height_px,
            width_px=width_px,
            classes=opened.classes,
            splits=splits,
            origin={"kind": "import"},
            summary=summary,
        )
        job.commit(shards)
    reporter.info("import: done, " + ", ".join(f"{len(images):,} {split}" for split, images in selections.items()) + " images")
    for line in summary.lines("import"):
        reporter.info(line)
    return shards


def _settings(source: str, fields: Fields, skip: bool) -> Real:
    found = kind_of(source)
    if isinstance(found, Shards):
        image, label, text = fields
        return Shards.model_validate(
            {**dict(found), "image_field": image, "label_field": label, "text_field": text, "skip": skip}
        )
    if fields != DEFAULT_FIELDS or skip:
        raise BadInput(f"{source} holds no tars; leave out --image-field, --label-field, --text-field and --skip")
    return found


@contextmanager
def in_words_of_the_command(path: str = "SOURCE") -> Iterator[None]:
    """Sources name settings of a recipe in their messages; here these are options, and real.path is the argument `path`."""
    try:
        yield
    except BadData as error:
        raise BadData(_as_options(str(error), path)) from None


def in_options(findings: Findings) -> Findings:
    """With the command's options in place of a recipe's settings."""
    return findings.model_copy(update={"notes": [_as_options(note) for note in findings.notes]})


def _as_options(text: str, path: str = "SOURCE") -> str:
    text = re.sub(rf"\breal\.({_AS_OPTION}): true\b", r"real.\1", text)
    text = re.sub(rf"\breal\.({_AS_OPTION}): (?=\S)", r"real.\1 ", text)
    text = re.sub(r"\breal\.path\b", path, text)
    return re.sub(rf"\breal\.({_AS_OPTION})\b", lambda match: _OPTIONS.get(match[1], f"--{match[1].replace('_', '-')}"), text)
