"""pretrain: one encoder per arm and seed; the only stage that runs on several processes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray
from pydantic import JsonValue

from adainf.augment.profiles import Views, default_views
from adainf.errors import BadInput, StageFailed
from adainf.evaluation.features import Features, extract_alone
from adainf.evaluation.neighbours import nearest, plain_vote
from adainf.inflation.record import InflationPlan
from adainf.inflation.search import Verified
from adainf.methods.clip import tokens_of
from adainf.models.backbones import Backbone
from adainf.models.card import Card
from adainf.models.encoder import Encoder, Normalisation
from adainf.pipeline.artifacts import Manifest, Run
from adainf.pipeline.checkpoints import Checkpoints
from adainf.pipeline.graph import generated_sets, pretrained
from adainf.pipeline.lifecycle import artifact
from adainf.pipeline.progress import Reporter
from adainf.pretraining.compiler import require_compiler
from adainf.pretraining.loop import Judges, make_accelerator, pretrain_arm
from adainf.pretraining.trainer import Experiment
from adainf.recipe import REAL_ALONE, Arm, Clip, Pretrain, Recipe
from adainf.runtime import distributed
from adainf.runtime.determinism import prepare
from adainf.shards import Source, Stream, open_stream
from adainf.shards.format.folder import ShardFolder
from adainf.shards.loader import read_all
from adainf.shards.loader.mixture import MixtureSchedule


@dataclass(frozen=True)
class Mixture:
    """What an arm trains on, before any image is read."""

    folders: dict[str, ShardFolder]
    """`real`, then the sources of generated images that the arm draws from, in the order of their names."""
    weights: dict[str, float]
    """Of one image of each."""
    views: Views

    @classmethod
    def of(
        cls,
        real: ShardFolder,
        sources: Mapping[str, ShardFolder],
        real_weight: float,
        weights: Mapping[str, float],
        views: Views,
    ) -> Mixture:
        """Of the real images and the `sources` that `weights` has; real images have weight 1 where it has none."""
        used = {name: folder for name, folder in sorted(sources.items()) if name in weights}
        drawn = {"real": real_weight if used else 1.0, **{name: weights[name] for name in used}}
        return cls({"real": real, **used}, drawn, views)

    @property
    def real(self) -> ShardFolder:
        return self.folders["real"]

    @property
    def counts(self) -> list[int]:
        return [folder.shards.splits["train"].images for folder in self.folders.values()]


def pretrain(recipe: Recipe, run: Run, reporter: Reporter, arm: str | None = None, seed: int | None = None) -> list[Manifest]:
    """Pretrain all arms and seeds of the recipe, or only those of `arm` and `seed`.

    Every process of a launch calls this with the same arguments.
    """
    arms = [known for known in recipe.arms if arm in (None, known)]
    seeds = [known for known in recipe.pretrain.seeds if seed in (None, known)]
    if not arms:
        raise BadInput(f"--arm {arm} is not one of the recipe's arms ({', '.join(recipe.arms)}); add it there")
    if not seeds:
        raise BadInput(f"--seed {seed} is not one of pretrain.seeds ({', '.join(map(str, recipe.pretrain.seeds))})")
    return [_pretrain_one(recipe, run, reporter, arm, seed) for arm in arms for seed in seeds]


def _pretrain_one(recipe: Recipe, run: Run, reporter: Reporter, arm: Arm, seed: int) -> Manifest:
    """Write ``pretrain/ARM/seed-SEED/`` with the encoder and its card."""
    name, label = pretrained(arm, seed), f"pretrain {arm} (seed {seed})"
    accelerator, checkpoints = make_accelerator(recipe.pretrain), Checkpoints(run, name, log=reporter.info)
    with artifact(
        recipe,
        run,
        name,
        reporter,
        label,
        unfinished=checkpoints,
        is_main_process=accelerator.is_main_process,
        discard_on=(StageFailed,),
    ) as job:
        if job.finished:
            return job.finished
        mixture = _mixture(recipe, run, arm, job.inputs)
        check_batch(recipe, arm, mixture.counts, list(mixture.weights.values()))
        tokens = captions(recipe.pretrain, mixture)
        if recipe.pretrain.compile:
            require_compiler(accelerator.device)
        job.claim()
        prepare(recipe.cpu_threads)
        normalisation = Normalisation.of(mixture.real.split("train"))
        with checkpoints, open_mixture(recipe.pretrain, mixture, seed, accelerator) as stream:
            experiment = Experiment(recipe.pretrain, seed, stream, mixture.views, normalisation, tokens)
            judges = _judges(recipe, mixture.real, normalisation, accelerator)
            trained = pretrain_arm(experiment, accelerator, checkpoints, reporter, label, judges)
            _report_data(stream, reporter, label)
        distributed.barrier()  # the others may still be reading the checkpoint that the commit deletes
        encoder = Encoder(recipe.pretrain.backbone, trained.backbone, normalisation)
        weights = job.write("encoder.safetensors", encoder.to_bytes())
        card = Card.of(encoder, weights.sha256, job.request, recipe.pretrain, mixture.real.shards.image_size)
        job.write("encoder.json", card.to_json())
        curve: list[JsonValue] = [list(point) for point in trained.curve]
        manifest = job.commit({**_content(recipe.pretrain, arm, seed, mixture), "curve": curve})
        distributed.barrier()
    budget = f"{recipe.pretrain.steps:,} steps of {recipe.pretrain.global_batch} images"
    reporter.info(f"{label}: done, {budget} on {accelerator.num_processes} process{'es' * (accelerator.num_processes > 1)}")
    return manifest


def _mixture(recipe: Recipe, run: Run, arm: Arm, inputs: dict[str, Manifest]) -> Mixture:
    real, default = ShardFolder.of(run, "real", inputs["real"]), default_views(recipe.pretrain.augmentation)
    if "plan" not in inputs:
        whole = {name: ShardFolder.of(run, name, inputs[name]) for name in generated_sets(recipe) if name in inputs}
        return Mixture.of(real, whole, 1.0, dict.fromkeys(whole, 1.0), default)
    plan = inputs["plan"].content_as(InflationPlan)
    if arm in REAL_ALONE:
        return Mixture.of(real, {}, 1.0, {}, plan.views)
    sources = planned_sources(run, plan, inputs)
    if "verify" in inputs:
        chosen = inputs["verify"].content_as(Verified).chosen
        return Mixture.of(real, sources, chosen.real_weight, chosen.weights, chosen.views)
    if arm == "weak":
        return Mixture.of(real, sources, 1.0, dict.fromkeys(plan.weights, 1.0), plan.views)
    return Mixture.of(real, sources, plan.real_weight, plan.weights, default if arm == "reweighted" else plan.views)


def planned_sources(run: Run, plan: InflationPlan, manifests: Mapping[str, Manifest]) -> dict[str, ShardFolder]:
    """The shards of each source of the plan; `manifests` are those of their artifacts."""
    return {name: ShardFolder.of(run, name, manifests[name]) for name in plan.inputs.sources}


def captions(config: Pretrain, mixture: Mixture) -> list[NDArray[np.uint8]]:
    """The captions of each source, for the method that reads them. Raises `BadInput` where an image has none."""
    if not isinstance(config.method, Clip):
        return []
    return [tokens_of(read_all.read_texts(folder, "train"), config.method.text_bytes) for folder in mixture.folders.values()]


def _judges(recipe: Recipe, real: ShardFolder, normalisation: Normalisation, accelerator: Accelerator) -> Judges:
    """Who looks on by labels, as far as the recipe asks for it: at train and validation, never at test."""
    config = recipe.pretrain.monitor
    classes = len(real.shards.classes) if config.online_probe else 0
    if config.knn_every_steps is None or not real.shards.splits["validation"].images:
        return Judges(classes)
    train, validation = (read_all.read_split(real, name) for name in ("train", "validation"))
    known = np.flatnonzero(train.labels >= 0)[: config.knn_images]
    among, judged = np.flatnonzero(validation.labels >= 0), recipe.evaluate

    def knn(backbone: Backbone) -> float:
        encoder = Encoder(recipe.pretrain.backbone, backbone, normalisation)
        mine, theirs = (
            Features(extract_alone(encoder, split.images[rows], judged.batch, accelerator.device), split.labels[rows])
            for split, rows in ((train, known), (validation, among))
        )
        voted = plain_vote(nearest(mine, theirs, judged.knn_neighbours), judged.knn_neighbours)
        return float(np.mean(voted == theirs.labels))

    return Judges(classes, knn if len(known) and len(among) else None)


def check_batch(recipe: Recipe, arm: str, counts: Sequence[int], weights: Sequence[float]) -> None:
    """Raise `BadInput` where a batch takes more images of a source than there are: copies would be their own negatives.

    (Where a pass over a source ends within a batch a few images can still come twice.)
    """
    batch = recipe.pretrain.global_batch
    try:
        shares = MixtureSchedule(counts, weights, 0).shares
    except ValueError as error:
        raise BadInput(f"arm {arm!r}: {error}") from None
    for count, share in zip(counts, shares, strict=True):
        if batch * share > count:
            raise BadInput(
                f"pretrain.global_batch is {batch}, of which arm {arm!r} would take {math.ceil(batch * share)}, more than the "
                f"{count} training images that there are; choose at most {math.floor(count / share)}, or give more images"
            )


def open_mixture(config: Pretrain, mixture: Mixture, seed: int, accelerator: Accelerator) -> Stream:
    sources = {name: Source(folder, mixture.weights[name]) for name, folder in mixture.folders.items()}
    return open_stream(
        sources,
        config.global_batch,
        seed,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        window_shards=config.stream.window_shards,
        damage=config.stream.damage,
        prefetch_batches=config.stream.prefetch_batches,
    )


def _report_data(stream: Stream, reporter: Reporter, label: str) -> None:
    """How long the loop waited for data, and what was damaged."""
    reporter.log("data", label=label, wait_seconds=round(stream.data_wait_seconds, 3))
    for damage in stream.damage:
        reporter.info(f"{label}: {damage.shard}: sample {damage.key} is damaged ({damage.reason}); another is in its place")


def _content(config: Pretrain, arm: Arm, seed: int, mixture: Mixture) -> dict[str, JsonValue]:
    """What the report says about the arm; the paper's fair-compute rule shows in equal steps and unequal passes."""
    drawn, counts = config.steps * config.global_batch, mixture.counts
    shares = [float(share) for share in MixtureSchedule(counts, list(mixture.weights.values()), seed).shares]
    generated_share = sum(shares[1:])
    return {
        "arm": arm,
        "seed": seed,
        "steps": config.steps,
        "global_batch": config.global_batch,
        "real_weight": mixture.weights["real"],
        "generated_share": round(generated_share, 6),
        "shares": {name: round(share, 6) for name, share in zip(mixture.folders, shares, strict=True)},
        "passes_per_real_image": round(drawn * shares[0] / counts[0], 4),
        "passes_per_generated_image": round(drawn * generated_share / max(sum(counts[1:]), 1), 4),
        "views": [view.model_dump(mode="json") for view in mixture.views],
    }
