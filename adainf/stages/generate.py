"""generate: write images of the run's generators as tar shards, or import existing images.

Several workers share the shards (``--worker K/N``). A shard has the same bytes from any worker. The worker that finds all
of them commits the set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydantic import JsonValue

from adainf import __version__
from adainf.errors import BadInput
from adainf.generators import generator_kind
from adainf.generators.external import ExternalGenerator, GeneratorManifest, check_checkpoint
from adainf.generators.kind import Fitted
from adainf.generators.sample import sample_images
from adainf.pipeline.artifacts import Run
from adainf.pipeline.graph import extends, fitted, generated
from adainf.pipeline.lifecycle import ArtifactJob, artifact
from adainf.pipeline.progress import Reporter
from adainf.pipeline.records import Manifest, canonical_json, sha256
from adainf.pipeline.serialization import decode
from adainf.recipe import External, FittedKind, Generate, GeneratedSource, ImportedImages, Recipe
from adainf.runtime.determinism import default_device, prepare
from adainf.shards.format.manifest import ShardSet
from adainf.shards.format.png import Pixels
from adainf.shards.format.tar import Sample
from adainf.shards.format.writer import SplitWriter
from adainf.stages.adopt import check_foreign
from adainf.stages.imports import import_generated

Draw = Callable[[range], Pixels]
"""The images of a range of indices, N x H x W x 3 uint8; each a function of its index alone."""


def generate(
    recipe: Recipe, run: Run, reporter: Reporter, *, worker: tuple[int, int] = (0, 1), allow_foreign: bool = False
) -> list[Manifest]:
    """Write ``generated/``, or ``generated/NAME/`` for each of several sources; with `worker` (K, N) every N-th shard from K.

    Returns the manifests of the complete sets. Existing shards are kept. A larger `generate.images` extends a set; its old
    manifest stays until the new one replaces it.
    """
    (number, workers), shards, complete = worker, 0, []
    for source in recipe.sources.values():
        share = (number - shards) % workers, workers  # numbered across sources, so that sources of one shard are shared, too
        if isinstance(source.generator, ImportedImages):
            manifest, shards = _import(recipe, run, reporter, source, share[0] == 0), shards + 1
        else:
            manifest = _draw_source(recipe, run, reporter, source, source.generator, share, allow_foreign)
            shards += -(-(source.generate.images or 0) // source.generate.shard_images)
        complete += [manifest] if manifest else []
    return complete


def _import(recipe: Recipe, run: Run, reporter: Reporter, source: GeneratedSource, is_mine: bool) -> Manifest | None:
    """Exactly one worker imports a source; None for the others."""
    if is_mine:
        return import_generated(recipe, run, reporter, source)
    reporter.info(f"{source.label('generate')}: another worker imports it")
    return None


def _draw_source(
    recipe: Recipe,
    run: Run,
    reporter: Reporter,
    source: GeneratedSource,
    config: FittedKind | External,
    worker: tuple[int, int],
    allow_foreign: bool,
) -> Manifest | None:
    """Write this worker's shards of a source; None while other workers still have shards to write."""
    name, label, settings = generated(source.name), source.label("generate"), source.generate
    with artifact(recipe, run, name, reporter, label, extends=extends) as job:
        if job.finished:
            return job.finished
        check_version(job)
        prepare(recipe.cpu_threads)
        count, generator, real = settings.images, job.inputs[fitted(source.name)], job.inputs["real"]
        assert count is not None  # the recipe requires it unless images are imported
        size = real.content_as(ShardSet).image_size
        if isinstance(config, External):
            draw = _open_external(config, generator, real, settings.seed, allow_foreign)
        else:
            draw = open_fitted(run, config, generator, settings.seed, size)
        job.claim()  # only now: a refused generator can still be replaced
        prefix = _digest(config, generator, settings)[:12]
        writer = SplitWriter(run, name, f"{prefix}/train", count, settings.shard_images, settings.compression)
        first, step = worker
        own = range(first, len(writer), step)
        with reporter.track(label, sum(len(writer.indices(number)) for number in own)) as track:
            writer.write(own, lambda indices: [Sample(image, None) for image in draw(indices)], track.advance)
        if not all_written([writer], label, reporter):
            return None
        origin = _origin(config, generator, real)
        manifest = job.commit(ShardSet(height_px=size[0], width_px=size[1], splits={"train": writer.split()}, origin=origin))
    reporter.info(f"{label}: done, {count:,} images")
    return manifest


def all_written(writers: Sequence[SplitWriter], label: str, reporter: Reporter) -> bool:
    """Whether the workers together have written all shards; reports how many are missing."""
    missing, shards = sum(len(writer.missing()) for writer in writers), sum(map(len, writers))
    if missing:
        reporter.info(f"{label}: this worker is done; {missing} of {shards} shards are still to be written by others")
    return not missing


def read_fitted(run: Run, generator: Manifest) -> Fitted:
    """The weights of a generator fitted in this run."""
    model = generator.output("model.safetensors")
    return Fitted(*decode(run.read(model), run.locate(model.key)))


def open_fitted(run: Run, config: FittedKind, generator: Manifest, seed: int, size_px: tuple[int, int]) -> Draw:
    """The generator fitted in this run, ready to draw."""
    draw = generator_kind(config).open(config, read_fitted(run, generator), size_px[0], seed, default_device())
    return lambda indices: sample_images(draw, config.sampler.batch, indices)


def _open_external(config: External, generator: Manifest, real: Manifest, seed: int, allow_foreign: bool) -> Draw:
    """The external generator, after a check of its first batch."""
    described = generator.content_as(GeneratorManifest)
    check_foreign(described, real, allow_foreign)
    check_checkpoint(config)  # `fit` may have run on another machine
    draw = ExternalGenerator(config, described, real.content_as(ShardSet), seed)
    draw(range(config.sampler.batch))
    return lambda indices: sample_images(draw, config.sampler.batch, indices)


def _origin(config: FittedKind | External, generator: Manifest, real: Manifest) -> dict[str, JsonValue]:
    origin: dict[str, JsonValue] = {"kind": config.kind, "generator": generator.digest}
    if isinstance(config, External):
        described = generator.content_as(GeneratorManifest)
        foreign: list[JsonValue] = [*described.foreign(real.digest)]
        said = described.model_dump(mode="json", include={"name", "trained_on", "used_labels"})
        return {**origin, **said, "foreign": foreign}
    return {**origin, "trained_on": real.digest}


def _digest(config: FittedKind | External, generator: Manifest, generate: Generate) -> str:
    """SHA-256 of all that decides the shards' bytes except their number: a larger set starts with a smaller one's shards."""
    decided_by = {
        "generator": generator.digest,
        "sampler": config.sampler.model_dump(mode="json"),
        "generate": generate.model_dump(mode="json", exclude={"images"}),
        "version": __version__,
    }
    return sha256(canonical_json(decided_by))


def check_version(job: ArtifactJob) -> None:
    """Refuse to extend a set that another version of this package has made, whose images may differ."""
    smaller = job.run.find(job.name)
    if smaller is not None and smaller.made_by != f"adainf {__version__}":
        raise BadInput(
            f"{job.run.locate(job.name)} was made by {smaller.made_by} and this is adainf {__version__}, whose images may "
            "differ: extend it with that version, or choose another --run"
        )
