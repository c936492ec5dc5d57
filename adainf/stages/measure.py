"""measure: quality of the generated images; each score next to that of held-out real images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from adainf.errors import BadInput
from adainf.models.encoder import Encoder, Normalisation
from adainf.pipeline.artifacts import Run
from adainf.pipeline.graph import generated, judging_encoder, measured
from adainf.pipeline.lifecycle import ArtifactJob, artifact
from adainf.pipeline.progress import Reporter
from adainf.pipeline.records import Manifest, Output
from adainf.pipeline.serialization import Corrupt, encode
from adainf.quality.embedding import MAP
from adainf.quality.gallery import gallery
from adainf.quality.inception import inception
from adainf.quality.measure import RealImages, Reference, evenly_spaced, pixel_scores, warnings, weak_encoder
from adainf.quality.record import Network, Quality, ShardScores, score_name
from adainf.quality.sidecar import REFERENCE, Sidecar, moments_as_tensors, sidecar_name
from adainf.quality.spaces import Space, of_encoder, random_encoder
from adainf.recipe import GeneratedSource, Recipe
from adainf.runtime.determinism import default_device, prepare
from adainf.shards.format.decode import decode_shard
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.manifest import ShardSet
from adainf.shards.format.png import encode_stored_png
from adainf.shards.loader import read_all
from adainf.stages.positives_quality import measure_positives
from adainf.storage import NotFound


def measure(recipe: Recipe, run: Run, reporter: Reporter) -> list[Manifest]:
    """Write ``quality/``, or ``quality/NAME/`` for each of several sources: a sidecar per generated shard, then map,
    gallery and scores. With generated positives, write ``quality/positives/``, too.

    A shard that has its sidecar is not read again.
    """
    if not recipe.measures_quality:
        raise BadInput(
            "nothing to measure: the recipe has no arm with generated images, or quality: null; change it, or skip this stage"
        )
    measured_sources = [_measure_source(recipe, run, reporter, source) for source in recipe.sources.values()]
    return [*measured_sources, *([measure_positives(recipe, run, reporter)] if recipe.uses_candidates else [])]


def _measure_source(recipe: Recipe, run: Run, reporter: Reporter, source: GeneratedSource) -> Manifest:
    config, quality_name, label = recipe.quality, measured(source.name), source.label("measure")
    assert config is not None
    with artifact(recipe, run, quality_name, reporter, label) as job:
        if job.finished:
            return job.finished
        real_folder, folder = (ShardFolder.of(run, name, job.inputs[name]) for name in ("real", generated(source.name)))
        count = compared_images(recipe, real_folder.shards, folder.shards)
        device = default_device()
        by_papers = [] if config.inception is None else [inception(config.inception, config.batch, device)]
        job.claim()
        prepare(recipe.cpu_threads)
        training, validation, test = (read_all.read_split(real_folder, name).images for name in ("train", "validation", "test"))
        real = RealImages.of(training, validation, count, test)
        normalisation = Normalisation.of(real_folder.split("train"))
        spaces = [*_own_spaces(recipe, run, job.inputs, real, normalisation, device), *by_papers]
        references = {space.name: Reference(space, real, config.neighbours, device) for space in spaces}
        sidecars = _sidecars(job, folder, count, list(references.values()), reporter)

        images = np.concatenate([sidecar.sample_images for sidecar in sidecars])
        samples = {name: np.concatenate([sidecar.sample[name] for sidecar in sidecars]) for name in references}
        scores = pixel_scores(images, np.concatenate([sidecar.pixel_hashes for sidecar in sidecars]), real, device)
        for name, reference in references.items():
            scores |= reference.scores(samples[name])
        weak = weak_encoder(references)
        quality = Quality(
            images=count,
            neighbours=config.neighbours,
            training_images=len(training),
            generated_images=sum(len(sidecar.pixel_hashes) for sidecar in sidecars),
            spaces={space.name: Network(sha256=space.sha256, features=samples[space.name].shape[1]) for space in spaces},
            scores=scores,
            shards=ShardScores(
                images=[len(sidecar.pixel_hashes) for sidecar in sidecars],
                fd={name: [sidecar.fd[name] for sidecar in sidecars] for name in references},
                coverage={name: [sidecar.coverage[name] for sidecar in sidecars] for name in references},
                coverage_halves={name: [sidecar.halves[name] for sidecar in sidecars] for name in references},
            ),
            warnings=[*([weak] if weak else []), *warnings(scores, count)],
            weak_encoder=weak is not None,
        )
        moments = moments_as_tensors({name: reference.moments for name, reference in references.items()})
        job.write(REFERENCE, encode(moments, {"count": count}))
        embedding = references[quality.primary_space].embed(
            samples[quality.primary_space], evenly_spaced(quality.generated_images, count)
        )
        job.write(MAP, embedding.to_bytes())
        for name, sheet in gallery(embedding, images, training).items():
            job.write(f"{name}.png", encode_stored_png(sheet))
        manifest = job.commit(quality)
    _explain(quality, label, reporter)
    return manifest


def compared_images(recipe: Recipe, real: ShardSet, generated: ShardSet | None = None) -> int:
    """n, how many images of each side are compared. Raises `BadInput` where that is too few, and where sizes differ.

    `generated` is None before there are any.
    """
    assert recipe.quality is not None
    available = {f"the {name} split": real.splits[name].images for name in ("train", "validation")}
    if generated is not None:
        if generated.image_size != real.image_size:
            (height, width), (real_height, real_width) = generated.image_size, real.image_size
            raise BadInput(
                f"generated images are {height} x {width} px, real ones {real_height} x {real_width} px; generate or import "
                "them at the size of the real images"
            )
        available["the generated set"] = generated.splits["train"].images
    fewest = min(available, key=lambda name: available[name])
    least = max(recipe.quality.neighbours, 2) + 1
    if available[fewest] < least:
        raise BadInput(
            f"quality.neighbours {recipe.quality.neighbours} needs {least} images of each kind, and {fewest} has "
            f"{available[fewest]}; make it larger (real.validation_fraction, generate.images), or set quality: null to go "
            "without measuring"
        )
    return min(recipe.quality.images, available[fewest])


def _own_spaces(
    recipe: Recipe,
    run: Run,
    inputs: dict[str, Manifest],
    real: RealImages,
    normalisation: Normalisation,
    device: torch.device,
) -> list[Space]:
    """The random network and, where the recipe has arm `none`, its encoder."""
    assert recipe.quality is not None
    encoders = {"rand": random_encoder(real.training[real.training_rows], normalisation)}
    judge = judging_encoder(recipe)
    if judge is not None:
        weights = inputs[judge].output("encoder.safetensors")
        encoders["ssl"] = Encoder.from_bytes(run.read(weights), run.locate(weights.key), recipe.pretrain.backbone)
    return [of_encoder(name, encoder, recipe.quality.batch, device) for name, encoder in encoders.items()]


def _sidecars(
    job: ArtifactJob, generated: ShardFolder, count: int, references: list[Reference], reporter: Reporter
) -> list[Sidecar]:
    """The sidecars of all shards, written where they are missing; `count` images of all shards are in their samples."""
    split = generated.split("train")
    chosen = evenly_spaced(split.images, count)
    sidecars, first = [], 0
    with reporter.track("measure", split.images) as track:
        for shard in split.shards:
            here = chosen[(chosen >= first) & (chosen < first + shard.images)] - first
            file_name = sidecar_name(shard.tar.key)
            try:
                key = f"{job.name}/{file_name}"
                data = job.run.store.get(key)
                sidecar = Sidecar.from_bytes(data)
                job.outputs.append(Output.of(key, data))
            except (NotFound, Corrupt):
                pixels = decode_shard(generated, shard, "fail", generated.shards.image_size).images
                sidecar = Sidecar.of(np.asarray(pixels), here, references)
                job.write(file_name, sidecar.to_bytes())
            sidecars.append(replace(sidecar, moments={}))  # the moments of a thousand shards would fill the memory
            first += shard.images
            track.advance(shard.images)
    return sidecars


def _explain(quality: Quality, label: str, reporter: Reporter) -> None:
    reporter.info(f"{label}: done, {quality.images:,} generated against as many held-out real images")
    for name in ("copy_rate", *(score_name(metric, space) for space in quality.spaces for metric in ("coverage", "fd"))):
        score = quality.scores[name]
        reporter.info(f"  {name} {score.value:.4g}  (real images: {score.null:.4g})")
    for warning in quality.warnings:
        reporter.info(f"  warning: {warning}")
