"""generate: images of the fitted generator as tar shards, or the import of images that exist already.

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
from adainf.generators.kind import Fitted
from adainf.generators.sample import sample_images
from adainf.progress import Reporter
from adainf.recipe import Diffusion, Generate, Recipe
from adainf.shards.manifest import ShardSet
from adainf.shards.png import Pixels
from adainf.shards.tar import Sample
from adainf.shards.writer import SplitWriter
from adainf.stages.imports import import_generated

NAME = "generated"

Draw = Callable[[range], Pixels]
"""The images of a range of indices, N x H x W x 3 uint8; each a function of its index alone."""


def generate(recipe: Recipe, run: Run, reporter: Reporter, worker: tuple[int, int] = (0, 1)) -> Manifest | None:
    """Write ``generated/``, or with `worker` (K, N) its shards K, K + N, …; None while others still have shards to write.

    A shard that is there already is not made again. A set that `generate.images` was smaller for is extended: its shards
    are kept, and its manifest stays until the new one replaces it.
    """
    config = recipe.generator
    if not isinstance(config, Diffusion):
        if worker != (0, 1):
            raise BadInput("generator.kind is import, which one process does alone; leave out --worker")
        return import_generated(recipe, run, reporter)
    inputs = require_inputs(recipe, run, NAME)
    wanted = request(recipe, NAME, inputs)
    _check_version(run, wanted)
    finished = run.claim(NAME, wanted, extends)
    if finished:
        reporter.say("generate: done already (same recipe and inputs); skipped")
        return finished
    prepare(recipe.cpu_threads)
    size, count = inputs["real"].content_as(ShardSet).image_size, recipe.generate.images
    assert count is not None  # the recipe's own check: only an import may leave it out
    draw = open_generator(run, config, inputs["generator"], recipe.generate.seed, size)
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
    origin: dict[str, JsonValue] = {
        "kind": config.kind,
        "generator": inputs["generator"].digest,
        "trained_on": inputs["real"].digest,
    }
    shards = ShardSet(height_px=size[0], width_px=size[1], splits={"train": writer.split()}, origin=origin)
    manifest = Manifest(request=wanted, content=shards.model_dump(mode="json"))
    run.commit(NAME, manifest, extends)
    reporter.say(f"generate: done, {count:,} images")
    return manifest


def open_generator(run: Run, config: Diffusion, generator: Manifest, seed: int, size_px: tuple[int, int]) -> Draw:
    """The run's fitted generator, ready to draw."""
    model = generator.output("model.safetensors")
    fitted = Fitted(*decode(run.read(model), run.locate(model.key)))
    draw = KINDS[config.kind].open(config, fitted, size_px[0], seed, default_device())
    return lambda indices: sample_images(draw, config.sampler.batch, indices)


def _digest(config: Diffusion, generator: Manifest, generate: Generate) -> str:
    """SHA-256 of all that decides the shards' bytes but their number: a longer set begins with the shards of a shorter one."""
    decided_by = {
        "generator": generator.digest,
        "sampler": config.sampler.model_dump(mode="json"),
        "generate": generate.model_dump(mode="json", exclude={"images"}),
        "version": __version__,
    }
    return sha256(canonical_json(decided_by))


def _check_version(run: Run, wanted: Request) -> None:
    """Raise `BadInput` where `wanted` extends a set that another version of this package has made, perhaps otherwise."""
    smaller = run.find(NAME)
    if smaller and smaller.made_by != f"adainf {__version__}" and extends(smaller.request, wanted):
        raise BadInput(
            f"{run.locate(NAME)} was made by {smaller.made_by} and this is adainf {__version__}, whose images may be others: "
            "extend it by that version, or choose another --run"
        )
