"""fit: the generator, from the real training images only and without their labels."""

from __future__ import annotations

from pydantic import JsonValue

from adainf import dist
from adainf.artifacts import Manifest, Run
from adainf.chain import begin, require_inputs
from adainf.checkpoint import encode
from adainf.checkpoints import Checkpoints
from adainf.compute import prepare
from adainf.exitcodes import BadInput, StageFailed
from adainf.generators import KINDS
from adainf.generators.fit import fit as fit_generator
from adainf.models import gan, unet
from adainf.models.diffusers_unet import unet2d_model
from adainf.progress import Reporter
from adainf.recipe import Diffusion, External, Gan, ImportedImages, Recipe
from adainf.report.preview import Preview
from adainf.shards.folder import ShardFolder
from adainf.shards.manifest import ShardSet
from adainf.shards.reader import read_split
from adainf.stages.adopt import adopt

NAME = "generator"


def fit(recipe: Recipe, run: Run, reporter: Reporter, allow_foreign: bool = False) -> Manifest | None:
    """Write ``generator/``; None where the recipe imports its generated images and there is nothing to fit.

    Every process of a launch calls this with the same arguments.
    """
    config = recipe.generator
    if isinstance(config, External):
        return adopt(recipe, config, run, reporter, allow_foreign)
    if isinstance(config, ImportedImages):
        reporter.say("fit: not needed, the recipe imports its generated images")
        return None
    real = require_inputs(recipe, run, NAME)["real"]
    folder = ShardFolder.of(run, "real", real)
    _check_fit(config, folder.shards)  # before the claim, so that a recipe can still be mended
    launched = dist.join("generator.batch", config.batch)
    main, device = launched.is_main_process, launched.device
    _, wanted, finished = begin(recipe, run, NAME)
    checkpoints = Checkpoints(run, NAME, say=reporter.say)
    if finished:
        checkpoints.delete()
        reporter.say("fit: done already (same recipe and inputs); skipped")
        return finished
    prepare(recipe.cpu_threads)
    images = read_split(folder, "train").images
    kind = KINDS[config.kind]
    try:
        with checkpoints:
            trainee = kind.begin(config, images, device)
            look = Preview(run.store, lambda: kind.open(config, trainee.fitted(), images.shape[1], config.seed, device))
            curve = fit_generator(config, trainee, images, device, checkpoints, reporter, look)
    except StageFailed:
        if main:
            checkpoints.delete()
            run.discard(NAME)
        raise
    dist.wait_for_all()  # the others may still be reading the checkpoint that is deleted below
    weights, described = trainee.fitted()
    content: dict[str, JsonValue] = {
        "kind": config.kind,
        "trained_on": real.digest,
        "used_labels": False,
        **described,
        "steps": config.steps,
        "images_seen": config.steps * config.batch,
        "curve": [list(point) for point in curve],
    }
    manifest = Manifest(request=wanted, content=content)
    if main:
        checkpoints.check()
        output = run.write(f"{NAME}/model.safetensors", encode(weights, described))
        manifest = run.commit(NAME, manifest.model_copy(update={"outputs": [output]}))
        checkpoints.delete()
    dist.wait_for_all()
    processes = f" on {launched.num_processes} processes" if launched.num_processes > 1 else ""
    reporter.say(f"fit: done, {config.steps:,} steps on {len(images):,} images{processes}")
    return manifest


def _check_fit(config: Diffusion | Gan, shards: ShardSet) -> None:
    """Raise `BadInput` where generator and real images do not fit each other, or the network's library is missing."""
    count = shards.splits["train"].images
    references = (config.reference_images or 0) if isinstance(config, Diffusion) else 0
    for name, wanted in (("batch", config.batch), ("objective.reference_images", references)):
        if wanted > count:
            raise BadInput(f"generator.{name} is {wanted}, more than the {count} real training images; choose at most that")
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
    if isinstance(config, Diffusion) and config.unet.kind == "diffusers":
        unet2d_model()
