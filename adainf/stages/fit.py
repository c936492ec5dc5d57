"""fit: the generator, from the real training images only and without their labels."""

from __future__ import annotations

from adainf.artifacts import Manifest, Run
from adainf.chain import begin, require_inputs
from adainf.checkpoint import encode
from adainf.checkpoints import Checkpoints
from adainf.compute import default_device, prepare
from adainf.exitcodes import BadInput, StageFailed
from adainf.generators import KINDS
from adainf.generators.fit import fit as fit_generator
from adainf.models import gan, unet
from adainf.progress import Reporter
from adainf.recipe import Diffusion, External, Gan, ImportedImages, Recipe
from adainf.shards.folder import ShardFolder
from adainf.shards.manifest import ShardSet
from adainf.shards.reader import read_split
from adainf.stages.adopt import adopt

NAME = "generator"


def fit(recipe: Recipe, run: Run, reporter: Reporter, allow_foreign: bool = False) -> Manifest | None:
    """Write ``generator/``; None where the recipe imports its generated images and there is nothing to fit."""
    config = recipe.generator
    if isinstance(config, External):
        return adopt(recipe, config, run, reporter, allow_foreign)
    if isinstance(config, ImportedImages):
        reporter.say("fit: not needed, the recipe imports its generated images")
        return None
    real = require_inputs(recipe, run, NAME)["real"]
    folder = ShardFolder.of(run, "real", real)
    _check_fit(config, folder.shards)  # before the claim, so that a recipe can still be mended
    _, wanted, finished = begin(recipe, run, NAME)
    checkpoints = Checkpoints(run, NAME, say=reporter.say)
    if finished:
        checkpoints.delete()
        reporter.say("fit: done already (same recipe and inputs); skipped")
        return finished
    prepare(recipe.cpu_threads)
    images = read_split(folder, "train").images
    try:
        with checkpoints:
            device = default_device()
            trainee = KINDS[config.kind].begin(config, images, device)
            curve = fit_generator(config, trainee, images, device, checkpoints, reporter)
    except StageFailed:
        checkpoints.delete()
        run.discard(NAME)
        raise
    checkpoints.check()
    weights, described = trainee.fitted()
    output = run.write(f"{NAME}/model.safetensors", encode(weights, described))
    manifest = run.commit(
        NAME,
        Manifest(
            request=wanted,
            outputs=[output],
            content={
                "kind": config.kind,
                "trained_on": real.digest,
                "used_labels": False,
                **described,
                "steps": config.steps,
                "images_seen": config.steps * config.batch,
                "curve": [list(point) for point in curve],
            },
        ),
    )
    checkpoints.delete()
    reporter.say(f"fit: done, {config.steps:,} steps on {len(images):,} images")
    return manifest


def _check_fit(config: Diffusion | Gan, shards: ShardSet) -> None:
    """Raise `BadInput` where generator and real images do not fit each other."""
    count = shards.splits["train"].images
    if config.batch > count:
        raise BadInput(f"generator.batch is {config.batch}, more than the {count} real training images; choose at most that")
    height_px, width_px = shards.image_size
    if isinstance(config, Gan):
        fits, field, levels = gan.fits(config, height_px, width_px), "generator.channels", len(config.channels)
    else:
        fits, field, levels = unet.fits(config.unet, height_px, width_px), "generator.unet", len(config.unet.multipliers)
    if not fits:
        raise BadInput(
            f"{field} with {levels} resolutions needs square images of a multiple of {2 ** (levels - 1)} px, and channels in "
            f"multiples of 8; the real images are {height_px} x {width_px}: set real.image_size_px, or change {field}"
        )
