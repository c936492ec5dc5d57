"""evaluate: every measure of every encoder; the only stage that scores on the test split, once per arm."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from adainf.augment.profiles import default_views
from adainf.errors import BadInput
from adainf.evaluation.infonce import infonce_gap
from adainf.evaluation.protocol import SPLITS, can_evaluate, measure
from adainf.evaluation.scores import ArmScores, InfoNceGap, SeedScores
from adainf.models.encoder import Encoder, Normalisation
from adainf.pipeline.artifacts import Run
from adainf.pipeline.graph import UNTRAINED, evaluated, pretrained
from adainf.pipeline.lifecycle import artifact
from adainf.pipeline.progress import Reporter
from adainf.pipeline.records import Manifest
from adainf.pretraining.loop import build_encoder
from adainf.recipe import Recipe
from adainf.runtime import distributed
from adainf.runtime.determinism import prepare
from adainf.shards.format.folder import ShardFolder
from adainf.shards.loader import read_all
from adainf.shards.loader.read_all import Labelled


def evaluate(
    recipe: Recipe, run: Run, reporter: Reporter, arm: str | None = None, worker: tuple[int, int] = (0, 1)
) -> list[Manifest]:
    """Evaluate all arms of the recipe and the untrained encoder, or only `arm` (which may be ``untrained``).

    With `worker` (K, N), numbers K, K + N, … of these. Every process of a launch calls this with the same arguments.
    """
    first, step = worker
    judged = [known for known in (*recipe.arms, UNTRAINED) if arm in (None, known)]
    if not judged:
        raise BadInput(f"--arm {arm} is not one of the recipe's arms ({', '.join(recipe.arms)}) nor {UNTRAINED}")
    return [_evaluate_one(recipe, run, reporter, arm) for arm in judged[first::step]]


def _evaluate_one(recipe: Recipe, run: Run, reporter: Reporter, arm: str) -> Manifest:
    """Write ``evaluate/ARM.json``; `untrained` is the same encoders before any training."""
    name = evaluated(arm)
    processes, label = distributed.init(), f"evaluate {arm}"
    with artifact(recipe, run, name, reporter, label, is_main_process=processes.is_main_process) as job:
        # No process commits before all have looked: one that saw it finished would not take part in the collectives.
        distributed.barrier()
        if job.finished:
            return job.finished
        scores = _scores(recipe, run, job.inputs, arm, processes.device, reporter)
        manifest = job.commit(scores)
    reporter.info(f"{label}: done, {scores.test_images:,} test images")
    return manifest


def _scores(
    recipe: Recipe, run: Run, inputs: Mapping[str, Manifest], arm: str, device: torch.device, reporter: Reporter
) -> ArmScores:
    """Every measure of every seed of the arm."""
    prepare(recipe.cpu_threads)
    folder = ShardFolder.of(run, "real", inputs["real"])
    normalisation = Normalisation.of(folder.shards.splits["train"])
    splits = {name: read_all.read_split(folder, name) for name in SPLITS}
    seeds: dict[str, SeedScores] = {}
    gaps: dict[str, InfoNceGap] = {}
    with reporter.track(f"evaluate {arm}", len(recipe.pretrain.seeds)) as track:
        for seed in recipe.pretrain.seeds:
            encoder = _encoder(recipe, run, inputs.get(pretrained(arm, seed)), seed, normalisation)
            if can_evaluate(splits):
                seeds[str(seed)] = measure(encoder, splits, recipe.evaluate, seed, device)
            if gap := _gap(recipe, encoder, splits, device):
                gaps[str(seed)] = gap
            track.advance()
    train, test = (splits[name].labels[splits[name].labels >= 0] for name in ("train", "test"))
    return ArmScores(
        arm=arm,
        test_images=len(test),
        chance=float(np.mean(test == np.bincount(train).argmax())) if len(train) and len(test) else 0.0,
        seeds=seeds,
        infonce=gaps,
    )


def _gap(recipe: Recipe, encoder: Encoder, splits: Mapping[str, Labelled], device: torch.device) -> InfoNceGap | None:
    """The InfoNCE gap under the recipe's default views for every arm: losses under different views do not compare."""
    augmentation = recipe.pretrain.augmentation
    train, held_out = (splits[name].images for name in ("train", "validation"))
    return infonce_gap(encoder, train, held_out, default_views(augmentation), augmentation.hue, device)


def _encoder(recipe: Recipe, run: Run, trained: Manifest | None, seed: int, normalisation: Normalisation) -> Encoder:
    if trained is None:
        return Encoder(recipe.pretrain.backbone, build_encoder(recipe.pretrain, seed), normalisation)
    output = trained.output("encoder.safetensors")
    return Encoder.from_bytes(run.read(output), run.locate(output.key), recipe.pretrain.backbone)
