"""generate: images of the fitted generator as tar shards, or the import of images that exist already."""

from __future__ import annotations

from pydantic import JsonValue

from adainf.artifacts import Manifest, Run
from adainf.chain import request, require_inputs
from adainf.checkpoint import decode
from adainf.compute import default_device, prepare
from adainf.generators import KINDS
from adainf.generators.external import ExternalGenerator, GeneratorManifest, check_checkpoint
from adainf.generators.kind import DrawBatch, Fitted
from adainf.generators.sample import sample_images
from adainf.progress import Reporter
from adainf.recipe import Diffusion, External, Gan, ImportedImages, Recipe
from adainf.shards.manifest import ShardSet
from adainf.shards.tar import Sample
from adainf.shards.writer import write_split
from adainf.stages.adopt import check_foreign
from adainf.stages.imports import import_generated

NAME = "generated"


def generate(recipe: Recipe, run: Run, reporter: Reporter, allow_foreign: bool = False) -> Manifest:
    """Write ``generated/``. A shard that is there already is not made again."""
    config = recipe.generator
    if isinstance(config, ImportedImages):
        return import_generated(recipe, run, reporter)
    inputs = require_inputs(recipe, run, NAME)
    wanted = request(recipe, NAME, inputs)
    finished = run.find(NAME)
    if finished:
        run.check_request(NAME, finished.request, wanted)
        reporter.say("generate: done already (same recipe and inputs); skipped")
        return finished
    prepare(recipe.cpu_threads)
    seed, count = recipe.generate.seed, recipe.generate.images
    assert count is not None  # the recipe's own check: only an import may leave it out
    size = inputs["real"].content_as(ShardSet).image_size
    draw: DrawBatch
    if isinstance(config, External):
        draw = _open_external(config, inputs, seed, allow_foreign)
    else:
        draw = _open_fitted(config, run, inputs["generator"], size[0], seed)
    run.claim(NAME, wanted)  # only now: what a generator is refused for can still be mended

    def samples(indices: range) -> list[Sample]:
        return [Sample(image, None) for image in sample_images(draw, config.sampler.batch, indices, track.advance)]

    with reporter.track("generate", count) as track:
        split = write_split(run, NAME, "train", count, recipe.generate.shard_images, samples)
    shards = ShardSet(height_px=size[0], width_px=size[1], splits={"train": split}, origin=_origin(config, inputs))
    manifest = Manifest(request=wanted, content=shards.model_dump(mode="json"))
    run.commit(NAME, manifest)
    reporter.say(f"generate: done, {count:,} images")
    return manifest


def _open_fitted(config: Diffusion | Gan, run: Run, generator: Manifest, size_px: int, seed: int) -> DrawBatch:
    model = generator.output("model.safetensors")
    fitted = Fitted(*decode(run.read(model), run.locate(model.key)))
    return KINDS[config.kind].open(config, fitted, size_px, seed, default_device())


def _open_external(config: External, inputs: dict[str, Manifest], seed: int, allow_foreign: bool) -> DrawBatch:
    """The external generator, after its first batch was looked at."""
    described = inputs["generator"].content_as(GeneratorManifest)
    check_foreign(described, inputs["real"], allow_foreign)
    check_checkpoint(config)  # it may be another machine than the one that `fit` ran on
    draw = ExternalGenerator(config, described, inputs["real"].content_as(ShardSet), seed)
    draw(range(config.sampler.batch))
    return draw


def _origin(config: Diffusion | Gan | External, inputs: dict[str, Manifest]) -> dict[str, JsonValue]:
    origin: dict[str, JsonValue] = {"kind": config.kind, "generator": inputs["generator"].digest}
    if isinstance(config, External):
        described = inputs["generator"].content_as(GeneratorManifest)
        foreign: list[JsonValue] = [*described.foreign(inputs["real"].digest)]
        said = described.model_dump(mode="json", include={"name", "trained_on", "used_labels"})
        return {**origin, **said, "foreign": foreign}
    return {**origin, "trained_on": inputs["real"].digest}
