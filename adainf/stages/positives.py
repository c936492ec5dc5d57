"""positives: candidates for each real training image, as tar shards aligned with the real ones (docs/positives.md).

Workers share the shards of all candidate numbers (``--worker K/N``), as those of `generate` do.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from pydantic import JsonValue

from adainf import __version__
from adainf.errors import BadInput
from adainf.generators.diffusion import open_renoise
from adainf.generators.sample import sample_images
from adainf.models.encoder import Encoder
from adainf.pipeline.artifacts import Run
from adainf.pipeline.graph import POSITIVES, extends, fitted, generated, judging_encoder
from adainf.pipeline.lifecycle import ArtifactJob, artifact
from adainf.pipeline.progress import Reporter
from adainf.pipeline.records import Manifest, canonical_json, sha256
from adainf.quality.pairwise import nearest
from adainf.quality.spaces import of_encoder
from adainf.recipe import Diffusion, Quality, Recipe, Renoise
from adainf.runtime.determinism import default_device, prepare
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.manifest import ShardSet
from adainf.shards.format.png import Pixels
from adainf.shards.format.tar import Sample
from adainf.shards.format.writer import SplitWriter, joined_split
from adainf.shards.loader.read_all import read_split
from adainf.stages.generate import all_written, check_version, read_fitted

DrawCandidates = Callable[[int, range], Pixels]
"""(candidate number, indices of real training images) → their candidates, N x H x W x 3 uint8."""


def positives(recipe: Recipe, run: Run, reporter: Reporter, *, worker: tuple[int, int] = (0, 1)) -> Manifest | None:
    """Write ``positives/``; with `worker` (K, N) every N-th shard from K. None while other workers still have shards to write.

    Existing shards are kept. A larger `positives.candidates` extends the set.
    """
    if not recipe.uses_candidates:
        raise BadInput(
            "no candidates to draw: arms has neither positives nor adainf-positives nor random-positives; add one with the "
            "section positives, or skip this stage"
        )
    config, label = recipe.positives, "positives"
    assert config is not None
    with artifact(recipe, run, POSITIVES, reporter, label, extends=extends) as job:
        if job.finished:
            return job.finished
        check_version(job)
        prepare(recipe.cpu_threads)
        real = ShardFolder.of(run, "real", job.inputs["real"])
        draw = _open(recipe, run, job.inputs, real)
        job.claim()
        parents, prefix = real.split("train"), _digest(job)[:12]
        writers = [
            SplitWriter(
                run, POSITIVES, f"{prefix}/{candidate:03d}", parents.images, parents.shard_images[0], config.compression
            )
            for candidate in range(config.candidates)
        ]
        number, workers = worker
        owns = [range((number - at * len(writer)) % workers, len(writer), workers) for at, writer in enumerate(writers)]
        images = sum(len(writer.indices(shard)) for writer, own in zip(writers, owns, strict=True) for shard in own)
        with reporter.track(label, images) as track:
            for candidate, (writer, own) in enumerate(zip(writers, owns, strict=True)):
                writer.write(own, partial(_samples, draw, candidate), track.advance)
        if not all_written(writers, label, reporter):
            return None
        height_px, width_px = real.shards.image_size
        content = ShardSet(height_px=height_px, width_px=width_px, splits={"train": joined_split(writers)}, origin=_origin(job))
        manifest = job.commit(content)
    reporter.info(f"{label}: done, {config.candidates} candidates of {parents.images:,} images")
    return manifest


def _samples(draw: DrawCandidates, candidate: int, indices: range) -> list[Sample]:
    return [Sample(image, None) for image in draw(candidate, indices)]


def _open(recipe: Recipe, run: Run, inputs: dict[str, Manifest], real: ShardFolder) -> DrawCandidates:
    config, source = recipe.positives, recipe.candidate_source
    assert config is not None
    parents = read_split(real, "train").images
    if isinstance(config.draw, Renoise):
        generator, fit = source.generator, read_fitted(run, inputs[fitted(source.name)])
        assert isinstance(generator, Diffusion)
        draw = open_renoise(generator, fit, parents, config.draw.sigma, config.seed, default_device())
        return lambda candidate, indices: sample_images(lambda some: draw(candidate, some), generator.sampler.batch, indices)
    images = read_split(ShardFolder.of(run, generated(source.name), inputs[generated(source.name)]), "train").images
    if len(images) < config.candidates:
        raise BadInput(
            f"positives.candidates is {config.candidates}, more than the {len(images)} generated images to choose from; lower "
            "it, or raise generate.images"
        )
    judge = judging_encoder(recipe)
    assert judge is not None
    weights = inputs[judge].output("encoder.safetensors")
    try:
        encoder = Encoder.from_bytes(run.read(weights), run.locate(weights.key), recipe.pretrain.backbone)
    except ModuleNotFoundError as error:  # timm is in the images that pretrain, not in those that only generate
        raise BadInput(
            f"positives.draw.kind neighbour needs a {recipe.pretrain.backbone.name}, whose library {error.name} is not "
            "installed here; run `adainf positives` where `adainf pretrain` runs"
        ) from None
    space = of_encoder("ssl", encoder, (recipe.quality or Quality()).batch, default_device())
    features = space.features(parents, "training"), space.features(images, "generated")
    rows = nearest(*features, config.candidates, default_device()).indices
    return lambda candidate, indices: np.asarray(images[rows[indices.start : indices.stop, candidate]])


def _digest(job: ArtifactJob) -> str:
    """SHA-256 of all that decides the shards' bytes except the number of candidates: a larger set starts with a smaller one."""
    settings = {name: value for name, value in job.request.settings.items() if name != "candidates"}
    return sha256(canonical_json({"settings": settings, "inputs": job.request.inputs, "version": __version__}))


def _origin(job: ArtifactJob) -> dict[str, JsonValue]:
    """The provenance: the digest of the parents' set, whose samples have the candidates' keys, and how they were drawn."""
    inputs: dict[str, JsonValue] = {name: digest for name, digest in job.request.inputs.items() if name != "real"}
    settings = job.request.settings
    return {
        "kind": "positives",
        "parents": job.request.inputs["real"],
        "candidates": settings["candidates"],
        "draw": settings["draw"],
        "seed": settings["seed"],
        "drawn_from": inputs,
    }
