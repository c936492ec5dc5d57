"""generate: images of the fitted generator as tar shards, or the import of images that exist already."""

from __future__ import annotations

from pydantic import JsonValue

from adainf.artifacts import Manifest, Run
from adainf.chain import begin
from adainf.checkpoint import decode
from adainf.compute import default_device, prepare
from adainf.generators import KINDS
from adainf.generators.kind import Fitted
from adainf.generators.sample import sample_images
from adainf.progress import Reporter
from adainf.recipe import Diffusion, Recipe
from adainf.shards.manifest import ShardSet
from adainf.shards.tar import Sample
from adainf.shards.writer import write_split
from adainf.stages.imports import import_generated

NAME = "generated"


def generate(recipe: Recipe, run: Run, reporter: Reporter) -> Manifest:
    """Write ``generated/``. A shard that is there already is not made again."""
    config = recipe.generator
    if not isinstance(config, Diffusion):
        return import_generated(recipe, run, reporter)
    inputs, wanted, finished = begin(recipe, run, NAME)
    if finished:
        reporter.say("generate: done already (same recipe and inputs); skipped")
        return finished
    prepare(recipe.cpu_threads)
    real = inputs["real"].content_as(ShardSet)
    size, count = real.image_size, recipe.generate.images
    assert count is not None  # the recipe's own check: only an import may leave it out
    model = inputs["generator"].output("model.safetensors")
    fitted = Fitted(*decode(run.read(model), run.locate(model.key)))
    draw = KINDS[config.kind].open(config, fitted, size[0], recipe.generate.seed, default_device())

    def samples(indices: range) -> list[Sample]:
        return [Sample(image, None) for image in sample_images(draw, config.sampler.batch, indices, track.advance)]

    with reporter.track("generate", count) as track:
        split = write_split(run, NAME, "train", count, recipe.generate.shard_images, samples)
    origin: dict[str, JsonValue] = {
        "kind": config.kind,
        "generator": inputs["generator"].digest,
        "trained_on": inputs["real"].digest,
    }
    shards = ShardSet(height_px=size[0], width_px=size[1], splits={"train": split}, origin=origin)
    manifest = Manifest(request=wanted, content=shards.model_dump(mode="json"))
    run.commit(NAME, manifest)
    reporter.say(f"generate: done, {count:,} images")
    return manifest
