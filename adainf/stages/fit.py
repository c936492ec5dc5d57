"""fit: fit the generator on the real training images, without their labels."""

from __future__ import annotations

import time

import torch
from pydantic import JsonValue

from adainf.errors import BadInput, StageFailed
from adainf.generators import generator_kind
from adainf.generators.batches import Batches
from adainf.generators.fit import fit as fit_generator
from adainf.generators.kind import check_count
from adainf.pipeline.artifacts import Run
from adainf.pipeline.checkpoints import Checkpoints
from adainf.pipeline.graph import fitted, require_inputs
from adainf.pipeline.lifecycle import artifact
from adainf.pipeline.progress import Reporter
from adainf.pipeline.records import Manifest
from adainf.pipeline.serialization import encode
from adainf.recipe import External, FittedGenerator, FittedKind, GeneratedSource, ImportedImages, Recipe
from adainf.report.preview import Preview
from adainf.runtime import distributed
from adainf.runtime.determinism import prepare
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.manifest import ShardSet
from adainf.shards.format.png import Pixels
from adainf.shards.loader.read_all import read_split
from adainf.stages.adopt import adopt

_TIMED_STEPS, _TIMED_S = 10, 3.0
"""A fit is timed by at most so many steps after the first one, within about this time."""


def fit(recipe: Recipe, run: Run, reporter: Reporter, allow_foreign: bool = False) -> list[Manifest]:
    """Write ``generator/``, or ``generator/NAME/`` for each of several sources; imported sources need no fit.

    Every process of a launch calls this with the same arguments.
    """
    for source in recipe.sources.values():  # before any fit: fixing the recipe may change all of them
        if isinstance(source.generator, FittedGenerator):
            real = require_inputs(recipe, run, fitted(source.name))["real"]
            check_fit(source, source.generator, real.content_as(ShardSet))
    made = (_fit_source(recipe, run, reporter, source, allow_foreign) for source in recipe.sources.values())
    return [manifest for manifest in made if manifest is not None]


def _fit_source(recipe: Recipe, run: Run, reporter: Reporter, source: GeneratedSource, allow_foreign: bool) -> Manifest | None:
    """None where images are imported."""
    config, name, label = source.generator, fitted(source.name), source.label("fit")
    if isinstance(config, External):
        return adopt(recipe, source, config, run, reporter, allow_foreign)
    if isinstance(config, ImportedImages):
        reporter.info(f"{label}: not needed, the recipe imports its generated images")
        return None
    launched = distributed.init_for_batch(f"{source.where('generator')}.batch", config.batch)
    device, checkpoints = launched.device, Checkpoints(run, name, log=reporter.info)
    with artifact(
        recipe,
        run,
        name,
        reporter,
        label,
        unfinished=checkpoints,
        is_main_process=launched.is_main_process,
        discard_on=(StageFailed,),
    ) as job:
        if job.finished:
            return job.finished
        prepare(recipe.cpu_threads)
        job.claim()
        real = job.inputs["real"]
        images = read_split(ShardFolder.of(run, "real", real), "train").images
        kind = generator_kind(config)
        with checkpoints:
            trainer = kind.begin(config, images, device)
            preview = Preview(
                run.store, lambda: kind.open(config, trainer.fitted(), images.shape[1], config.seed, device), source.name
            )
            curve = fit_generator(config, trainer, images, device, checkpoints, reporter, preview, label)
        distributed.barrier()  # the others may still be reading the checkpoint that the commit deletes
        weights, described = trainer.fitted()
        content: dict[str, JsonValue] = {
            "kind": config.kind,
            "trained_on": real.digest,
            "used_labels": False,
            **described,
            "steps": config.steps,
            "images_seen": config.steps * config.batch,
            "curve": [list(point) for point in curve],
        }
        job.write("model.safetensors", encode(weights, described))
        manifest = job.commit(content)
        distributed.barrier()
    processes = f" on {launched.num_processes} processes" if launched.num_processes > 1 else ""
    reporter.info(f"{label}: done, {config.steps:,} steps on {len(images):,} images{processes}")
    return manifest


def check_fit(source: GeneratedSource, config: FittedKind, shards: ShardSet) -> None:
    """Raise `BadInput` where generator and real images do not match, or the network's library is missing."""
    images, section = shards.splits["train"].images, source.where("generator")
    check_count(f"{section}.batch", config.batch, images)
    generator_kind(config).check(config, section, images, *shards.image_size)


def estimated_seconds(
    recipe: Recipe, run: Run, shards: ShardSet, images: Pixels, device: torch.device, reporter: Reporter
) -> float | None:
    """The time of the recipe's fits that are not done, from a few of their steps on this machine; None where there are none, or
    they cannot run here. `images` are the real training images of `shards`."""
    total = 0.0
    for source in recipe.sources.values():
        config = source.generator
        if not isinstance(config, FittedGenerator) or run.find(fitted(source.name)) is not None:
            continue
        try:
            check_fit(source, config, shards)
        except BadInput as error:  # such as a library that only the image of fit has
            reporter.info(f"{source.label('fit')}: its time is not known: {error}")
            return None
        trainer, batches = generator_kind(config).begin(config, images, device), Batches(config, images, device)
        step, started = 0, 0.0
        while step <= _TIMED_STEPS and (step < 2 or time.monotonic() - started < _TIMED_S):
            float(trainer.step(step, *batches.at(step)))  # waits for the device
            started = started or time.monotonic()  # after the first step, which is slower
            step += 1
        total += config.steps * (time.monotonic() - started) / (step - 1)
    return round(total, 1) if total else None
