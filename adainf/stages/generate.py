"""generate: images of the run's generator as tar shards, or the import of images that exist already.

Several processes may share the work, each with ``--worker K/N`` of its own: a shard is the same bytes whoever makes it, and
whoever finds all of them there commits the set.
"""

from __future__ import annotations

from collections.abc import Callable

from pydantic import JsonValue

from adainf import __version__
from adainf.artifacts import Manifest, Request, Run, canonical_json, sha256
from adainf.chain import extends, request, require_inputs
from adainf.checkpoint import decode
from adainf.compute import default_device, prepare
from adainf.exitcodes import BadInput
from adainf.generators import KINDS
from adainf.generators.external import ExternalGenerator, GeneratorManifest, check_checkpoint
from adainf.generators.kind import Fitted
from adainf.generators.sample import sample_images
from adainf.progress import Reporter
from adainf.recipe import Diffusion, External, Gan, Generate, ImportedImages, Recipe
from adainf.shards.manifest import ShardSet
from adainf.shards.png import Pixels
from adainf.shards.tar import Sample
from adainf.shards.writer import SplitWriter
from adainf.stages.adopt import check_foreign
from adainf.stages.imports import import_generated

NAME = "generated"

Draw = Callable[[range], Pixels]
"""The images of a range of indices, N x H x W x 3 uint8; each a function of its index alone."""


def generate(
    recipe: Recipe, run: Run, reporter: Reporter, *, worker: tuple[int, int] = (0, 1), allow_foreign: bool = False
) -> Manifest | None:
    """Write ``generated/``, or with `worker` (K, N) its shards K, K + N, …; None while others still have shards to write.

    A shard that is there already is not made again. A set that `generate.images` was smaller for is extended: its shards
    are kept, and its manifest stays until the new one replaces it.
    """
    config = recipe.generator
    if isinstance(config, ImportedImages):
        if worker != (0, 1):
            raise BadInput("generator.kind is import, which one process does alone; leave out --worker")
        return import_generated(recipe, run, reporter)
    inputs = require_inputs(recipe, run, NAME)
    wanted = request(recipe, NAME, inputs)
    finished = run.find(NAME)
    if finished and not _extends(run, finished, wanted):
        run.check_request(NAME, finished.request, wanted)
        reporter.say("generate: done already (same recipe and inputs); skipped")
        return finished
    prepare(recipe.cpu_threads)
    count = recipe.generate.images
    assert count is not None  # the recipe's own check: only an import may leave it out
    size = inputs["real"].content_as(ShardSet).image_size
    if isinstance(config, External):
        draw = _open_external(config, inputs, recipe.generate.seed, allow_foreign)
    else:
        draw = open_fitted(run, config, inputs["generator"], recipe.generate.seed, size)
    run.claim(NAME, wanted, extends)  # only now: what a generator is refused for can still be mended
    prefix = _digest(config, inputs["generator"], recipe.generate)[:12]
    writer = SplitWriter(run, NAME, f"{prefix}/train", count, recipe.generate.shard_images, recipe.generate.compression)
    first, step = worker
    own = range(first, len(writer), step)
    with reporter.track("generate", sum(len(writer.indices(number)) for number in own)) as track:
        writer.write(own, lambda indices: [Sample(image, None) for image in draw(indices)], track.advance)
    missing = len(writer.missing())
    if missing:
        reporter.say(f"generate: this worker is through; {missing} of {len(writer)} shards are still to be written by others")
        return None
    shards = ShardSet(height_px=size[0], width_px=size[1], splits={"train": writer.split()}, origin=_origin(config, inputs))
    manifest = Manifest(request=wanted, content=shards.model_dump(mode="json"))
    run.commit(NAME, manifest, extends)
    reporter.say(f"generate: done, {count:,} images")
    return manifest


def open_fitted(run: Run, config: Diffusion | Gan, generator: Manifest, seed: int, size_px: tuple[int, int]) -> Draw:
    """The generator that was fitted in this run, ready to draw."""
    model = generator.output("model.safetensors")
    fitted = Fitted(*decode(run.read(model), run.locate(model.key)))
    draw = KINDS[config.kind].open(config, fitted, size_px[0], seed, default_device())
    return lambda indices: sample_images(draw, config.sampler.batch, indices)


def _open_external(config: External, inputs: dict[str, Manifest], seed: int, allow_foreign: bool) -> Draw:
    """The external generator, after its first batch was looked at."""
    described = inputs["generator"].content_as(GeneratorManifest)
    check_foreign(described, inputs["real"], allow_foreign)
    check_checkpoint(config)  # it may be another machine than the one that `fit` ran on
    draw = ExternalGenerator(config, described, inputs["real"].content_as(ShardSet), seed)
    draw(range(config.sampler.batch))
    return lambda indices: sample_images(draw, config.sampler.batch, indices)


def _origin(config: Diffusion | Gan | External, inputs: dict[str, Manifest]) -> dict[str, JsonValue]:
    origin: dict[str, JsonValue] = {"kind": config.kind, "generator": inputs["generator"].digest}
    if isinstance(config, External):
        described = inputs["generator"].content_as(GeneratorManifest)
        foreign: list[JsonValue] = [*described.foreign(inputs["real"].digest)]
        said = described.model_dump(mode="json", include={"name", "trained_on", "used_labels"})
        return {**origin, **said, "foreign": foreign}
    return {**origin, "trained_on": inputs["real"].digest}


def _digest(config: Diffusion | Gan | External, generator: Manifest, generate: Generate) -> str:
    """SHA-256 of all that decides the shards' bytes but their number: a longer set begins with the shards of a shorter one."""
    decided_by = {
        "generator": generator.digest,
        "sampler": config.sampler.model_dump(mode="json"),
        "generate": generate.model_dump(mode="json", exclude={"images"}),
        "version": __version__,
    }
    return sha256(canonical_json(decided_by))


def _extends(run: Run, smaller: Manifest, wanted: Request) -> bool:
    """Whether `wanted` is to extend a finished set. Raises `BadInput` where it cannot, or where another version of this
    package has made the set, perhaps otherwise."""
    if not extends(smaller.request, wanted):
        return False
    if smaller.made_by != f"adainf {__version__}":
        raise BadInput(
            f"{run.locate(NAME)} was made by {smaller.made_by} and this is adainf {__version__}, whose images may be others: "
            "extend it by that version, or choose another --run"
        )
    return True
