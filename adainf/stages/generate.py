"""generate: images of the fitted generator as tar shards, or the import of images that exist already."""

from __future__ import annotations

from pydantic import JsonValue

from adainf.artifacts import Manifest, Run
from adainf.chain import begin
from adainf.checkpoint import decode
from adainf.compute import default_device, prepare
from adainf.generators.edm import Denoiser
from adainf.generators.fit import build_denoiser
from adainf.generators.sample import sample_images
from adainf.progress import Reporter
from adainf.recipe import EdmGenerator, Recipe
from adainf.shards.manifest import ShardSet
from adainf.shards.tar import Sample
from adainf.shards.writer import write_split
from adainf.stages.imports import import_generated

NAME = "generated"


def generate(recipe: Recipe, run: Run, reporter: Reporter) -> Manifest:
    """Write ``generated/``. A shard that is there already is not made again."""
    config = recipe.generator
    if not isinstance(config, EdmGenerator):
        return import_generated(recipe, run, reporter)
    inputs, wanted, finished = begin(recipe, run, NAME)
    if finished:
        reporter.say("generate: done already (same recipe and inputs); skipped")
        return finished
    prepare(recipe.cpu_threads)
    real = inputs["real"].content_as(ShardSet)
    size, count = real.image_size, recipe.generate.images
    assert count is not None  # the recipe's own check: only an import may leave it out
    device = default_device()
    denoiser = _denoiser(run, config, inputs["generator"], size[0]).to(device)

    def samples(indices: range) -> list[Sample]:
        seed = recipe.generate.seed
        images = sample_images(denoiser, config.sampler, seed, indices, size, device, track.advance)
        return [Sample(image, None) for image in images]

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


def _denoiser(run: Run, config: EdmGenerator, generator: Manifest, size_px: int) -> Denoiser:
    model = generator.output("model.safetensors")
    weights, described = decode(run.read(model), run.locate(model.key))
    denoiser = build_denoiser(config, size_px, described["sigma_data"]).eval()
    denoiser.network.load_state_dict(weights)
    return denoiser
