"""ceiling: what inflation can gain at most, measured with real images before a generator is fitted.

Some of the real training images stand for those of a run, the others for the images of a perfect generator. Every seed draws
them again. An arm of one seed is an artifact, ``ceiling/DIGEST/seed-S/ARM``: the digest is that of the settings, so other
options do not collide, and more seeds reuse what is finished. An interrupted training resumes from its checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from pydantic import Field, JsonValue

from adainf.augment.profiles import default_views
from adainf.errors import BadInput, StageFailed
from adainf.evaluation.accuracy import Accuracy
from adainf.evaluation.features import Features, extract_local
from adainf.evaluation.infonce import LEAST_IMAGES, MOST_IMAGES, infonce
from adainf.evaluation.intervals import half_width
from adainf.evaluation.linear import lbfgs_probe
from adainf.evaluation.neighbours import majority_vote, nearest
from adainf.evaluation.scores import Measure
from adainf.inflation.ceiling import (
    HELD_OUT,
    INFLATED,
    SAME_CLASS,
    SAME_CLASS_PROBABILITY,
    Ceiling,
    Gain,
    lines,
    settings,
    verdict,
)
from adainf.inflation.search import NONE, NONE_WEAK, Setting
from adainf.models.encoder import Encoder, Normalisation
from adainf.pipeline.artifacts import Run
from adainf.pipeline.checkpoints import Checkpoints
from adainf.pipeline.lifecycle import ArtifactJob
from adainf.pipeline.progress import Reporter
from adainf.pipeline.records import Record
from adainf.pretraining.loop import make_accelerator, pretrain_arm
from adainf.pretraining.recalibrate import finished_encoder
from adainf.pretraining.trainer import Experiment
from adainf.recipe import Recipe, Replace
from adainf.report.comparison import compare
from adainf.runtime.determinism import prepare
from adainf.shards import Companions
from adainf.shards.format.folder import ShardFolder
from adainf.shards.loader.read_all import Labelled, read_split
from adainf.stages.ceiling_parts import CANDIDATES, NAME, Experiments, has_labels
from adainf.stages.fit import estimated_seconds
from adainf.stages.ingest import ingest
from adainf.stages.mixture import Mixture, check_batch

DEFAULT_SEEDS = 3


class Scores(Record):
    """The content of the artifact of one arm and seed."""

    measures: list[Measure] = Field(default=[])
    """Linear probe and nearest neighbours on the validation split; empty without labels."""
    infonce: float | None = None
    """Of held-out images, in nats; without labels."""


def ceiling(
    recipe: Recipe,
    run: Run,
    reporter: Reporter,
    real: int | None = None,
    seeds: int = DEFAULT_SEEDS,
    steps: int | None = None,
    as_json: bool = False,
) -> Ceiling:
    """Print what `real` of the real training images (default: half) gain from the others, over `none-weak` and `none`.

    Ingests the real images where that is not done. Raises `BadInput` for too few images or seeds.
    """
    log = Reporter(quiet=True) if as_json else reporter
    if seeds < 2:
        raise BadInput(f"--seeds is {seeds}: an interval needs at least 2")
    if steps is not None:
        changed = recipe.pretrain.model_copy(update={"steps": steps})
        recipe = recipe.model_copy(update={"pretrain": changed})
    accelerator = make_accelerator(recipe.pretrain)
    if accelerator.num_processes > 1:
        raise BadInput(f"adainf ceiling runs in one process, not in {accelerator.num_processes}; run it without a launcher")
    folder = ShardFolder.of(run, "real", ingest(recipe, run, log))
    prepare(recipe.cpu_threads)
    train, validation = (read_split(folder, name) for name in ("train", "validation"))
    if not len(validation.labels):
        raise BadInput("the ceiling is judged on the validation split, which has no images; raise real.validation_fraction")
    images = real if real is not None else len(train.labels) // 2
    if not 0 < images < len(train.labels):
        raise BadInput(
            f"--real is {images}, and there are {len(train.labels)} real training images; give a smaller number, so that "
            "others are left to inflate them"
        )
    default = default_views(recipe.pretrain.augmentation)
    others, method = len(train.labels) - images, recipe.pretrain.method.kind
    arms = settings(images, others, recipe.plan, default, method, has_labels(train, validation))
    _check_batches(recipe, arms, images, others)
    shared = Experiments(recipe, run, folder, train, validation, arms, images, accelerator, log)
    _check_labels(shared, seeds)
    fit_seconds = estimated_seconds(recipe, run, folder.shards, train.images, accelerator.device, log)
    by_seed = {seed: {arm.name: _scores(shared, arm, seed) for arm in arms} for seed in range(seeds)}
    found = _conclude(shared, by_seed, fit_seconds)
    if as_json:
        print(found.to_json().decode(), end="")
    for line in lines(found):
        log.result(line)
    return found


def _check_batches(recipe: Recipe, arms: list[Setting], images: int, others: int) -> None:
    for arm in arms:
        weights = [arm.real_weight, *arm.weights.values()]
        try:
            check_batch(recipe, NAME, [images, others][: len(weights)], weights)
        except BadInput as error:
            raise BadInput(f"of {images} images that stand for the real ones: {error}; or raise --real") from None


def _check_labels(shared: Experiments, seeds: int) -> None:
    """Raise `BadInput` where an encoder could not be judged after its training."""
    images = len(shared.validation.labels)
    if not shared.has_labels and images < LEAST_IMAGES:
        raise BadInput(
            f"without labels the ceiling is judged on {LEAST_IMAGES} validation images or more, and there are {images}; raise "
            "real.validation_fraction"
        )
    for seed in range(seeds if shared.has_labels else 0):
        labels = shared.train.labels[shared.rows(seed)["real"]]
        if len(np.unique(labels[labels >= 0])) < 2:
            raise BadInput(
                f"the {len(labels)} images that stand for the real ones have labels of fewer than two classes, so no probe can "
                "be fitted; raise --real"
            )


def _scores(shared: Experiments, arm: Setting, seed: int) -> Scores:
    """Train and judge one arm of one seed, where that is not done."""
    recipe, run, base = shared.recipe, shared.run, shared.folder(seed)
    parts = shared.parts(seed)
    name, label = f"{base}/{arm.name}", f"ceiling {arm.name} (seed {seed})"
    checkpoints = Checkpoints(run, name, log=shared.reporter.info)
    request = shared.request(seed, arm=arm.model_dump(mode="json"))
    with ArtifactJob(run, name, request, {}, unfinished=checkpoints, discard_on=(StageFailed,)) as job:
        if job.finished:
            return job.finished.content_as(Scores)
        job.claim()
        mixture = Mixture.of(parts["real"], {HELD_OUT: parts[HELD_OUT]}, arm.real_weight, arm.weights, arm.views)
        replaced = None
        if arm.name == SAME_CLASS:
            replaced = Replace(kind="replace", probability=SAME_CLASS_PROBABILITY)
            mixture = replace(mixture, companions=Companions(parts[CANDIDATES], "real", SAME_CLASS_PROBABILITY))
        normalisation = Normalisation.of(mixture.real.split("train"))
        tokens = mixture.captions(recipe.pretrain)
        with checkpoints, mixture.open(recipe.pretrain, seed, shared.accelerator) as stream:
            experiment = Experiment(recipe.pretrain, seed, stream, mixture.views, normalisation, tokens, replaced)
            trained = pretrain_arm(experiment, shared.accelerator, checkpoints, shared.reporter, label)
        images, device = shared.train.images[shared.rows(seed)["real"]], shared.accelerator.device
        encoder = finished_encoder(recipe.pretrain, trained.backbone, normalisation, lambda: images, device)
        found = _judged(shared, encoder, seed)
        job.commit(found)
    return found


def _judged(shared: Experiments, encoder: Encoder, seed: int) -> Scores:
    """On the validation split. Every arm's probe is fitted on the labels of the images that stand for the real ones."""
    device, judged = shared.accelerator.device, shared.recipe.evaluate
    if not shared.has_labels:
        hue = shared.recipe.pretrain.augmentation.hue
        return Scores(infonce=round(infonce(encoder, shared.validation.images, shared.judging_views, hue, device).loss, 6))
    rows = shared.rows(seed)["real"]
    splits = Labelled(shared.train.images[rows], shared.train.labels[rows]), shared.validation
    train, validation = (
        Features(extract_local(encoder, images[labels >= 0], judged.batch, device), labels[labels >= 0])
        for images, labels in splits
    )
    # The validation split gives the score, so it must not choose the penalty as well.
    nothing = Features(validation.values[:0], validation.labels[:0])
    probe = lbfgs_probe(train, nothing, validation, judged.l2_grid)
    voted = majority_vote(nearest(train, validation, judged.knn_neighbours), judged.knn_neighbours)
    solver: dict[str, JsonValue] = {"solver": "lbfgs"}
    return Scores(
        measures=[
            Measure.of("linear", probe.hits, seed, solver, {"l2": probe.chosen}, split="validation"),
            Measure.of("knn", voted == validation.labels, seed, {"neighbours": judged.knn_neighbours}, split="validation"),
        ]
    )


def _conclude(shared: Experiments, by_seed: Mapping[int, Mapping[str, Scores]], fit_seconds: float | None) -> Ceiling:
    labelled, arms = shared.has_labels, [arm.name for arm in shared.settings]

    def values(place: int) -> dict[str, dict[str, float]]:
        """Accuracies by arm and seed of the measure at that place."""
        return {arm: {str(seed): of[arm].measures[place].accuracy for seed, of in by_seed.items()} for arm in arms}

    def paired(place: int, one: str = INFLATED, others: Sequence[str] = (NONE_WEAK, NONE)) -> list[Gain]:
        accuracies = {arm: Accuracy.of([of[arm].measures[place] for of in by_seed.values()]) for arm in arms}
        images = next(iter(by_seed.values()))[NONE].measures[place].images
        against = (compare(accuracies, one, other, images) for other in others)
        return [Gain(over=each.other, difference=round(each.difference, 6), margin=round(each.margin, 6)) for each in against]

    if labelled:
        scores, gains, knn_scores, knn_gains = values(0), paired(0), values(1), paired(1)
    else:
        losses = {arm: {str(seed): -(of[arm].infonce or 0.0) for seed, of in by_seed.items()} for arm in arms}
        scores, knn_scores, knn_gains = losses, {}, []
        gains = [_gain(losses[INFLATED], losses[other], other) for other in (NONE_WEAK, NONE)]
    known = int((shared.validation.labels >= 0).sum())
    return Ceiling(
        real_images=shared.real_images,
        held_out_images=len(shared.train.labels) - shared.real_images,
        steps=shared.recipe.pretrain.steps,
        seeds=list(by_seed),
        judged_by="linear" if labelled else "infonce",
        validation_images=known if labelled else min(len(shared.validation.labels), MOST_IMAGES),
        scores=scores,
        knn_scores=knn_scores,
        gains=gains,
        positives=paired(0, SAME_CLASS, (NONE_WEAK,))[0] if labelled else None,
        knn_gains=knn_gains,
        verdict=verdict(gains[0], labelled),
        fit_seconds=fit_seconds,
    )


def _gain(inflated: Mapping[str, float], other: Mapping[str, float], over: str) -> Gain:
    differences = [inflated[seed] - other[seed] for seed in inflated]
    mean = math.fsum(differences) / len(differences)
    return Gain(over=over, difference=round(mean, 6), margin=round(half_width(differences), 6))
