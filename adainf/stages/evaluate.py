"""evaluate: linear probe and nearest neighbours on frozen encoders; the only stage that reads the test split."""

from __future__ import annotations

import numpy as np

from adainf.artifacts import Manifest, Run
from adainf.chain import UNTRAINED, begin, evaluated, pretrained
from adainf.compute import default_device, prepare
from adainf.evaluation.features import extract
from adainf.evaluation.probes import Labelled, knn_accuracy, linear_probe
from adainf.evaluation.scores import ArmScores, SeedScores
from adainf.exitcodes import BadInput
from adainf.models.encoder import Encoder, Normalisation
from adainf.pretraining.loop import build_encoder
from adainf.progress import Reporter
from adainf.recipe import Recipe
from adainf.shards import reader
from adainf.shards.folder import ShardFolder

SPLITS = ("train", "validation", "test")


def evaluate(recipe: Recipe, run: Run, reporter: Reporter, arm: str | None = None) -> list[Manifest]:
    """Judge all arms of the recipe and the untrained encoder, or only `arm` (which may be ``untrained``)."""
    judged = [known for known in (*recipe.arms, UNTRAINED) if arm in (None, known)]
    if not judged:
        raise BadInput(f"--arm {arm} is not one of the recipe's arms ({', '.join(recipe.arms)}) nor {UNTRAINED}")
    return [_evaluate_one(recipe, run, reporter, arm) for arm in judged]


def _evaluate_one(recipe: Recipe, run: Run, reporter: Reporter, arm: str) -> Manifest:
    """Write ``evaluate/ARM.json``; `untrained` is the same encoders before any training."""
    name = evaluated(arm)
    inputs, wanted, finished = begin(recipe, run, name)
    if finished:
        reporter.say(f"evaluate {arm}: done already (same recipe and inputs); skipped")
        return finished
    prepare(recipe.cpu_threads)
    folder = ShardFolder.of(run, "real", inputs["real"])
    normalisation = Normalisation.of(folder.shards.splits["train"])
    splits = {name: reader.read_split(folder, name) for name in SPLITS}
    seeds: dict[str, SeedScores] = {}
    with reporter.track(f"evaluate {arm}", len(recipe.pretrain.seeds)) as track:
        for seed in recipe.pretrain.seeds:
            if _has_labels(splits):
                encoder = _encoder(recipe, run, inputs.get(pretrained(arm, seed)), seed, normalisation)
                seeds[str(seed)] = _scores(recipe, encoder, splits)
            track.advance()
    train, test = (splits[name].labels[splits[name].labels >= 0] for name in ("train", "test"))
    scores = ArmScores(
        arm=arm,
        test_images=len(test),
        chance=float(np.mean(test == np.bincount(train).argmax())) if len(train) and len(test) else 0.0,
        seeds=seeds,
    )
    manifest = run.commit(name, Manifest(request=wanted, content=scores.model_dump(mode="json")))
    reporter.say(f"evaluate {arm}: done, {scores.test_images:,} test images")
    return manifest


def _has_labels(splits: dict[str, reader.Labelled]) -> bool:
    """Whether a probe can be fitted and judged: labels in train (of two classes at least) and in test."""
    return len(np.unique(splits["train"].labels[splits["train"].labels >= 0])) > 1 and bool((splits["test"].labels >= 0).any())


def _encoder(recipe: Recipe, run: Run, trained: Manifest | None, seed: int, normalisation: Normalisation) -> Encoder:
    if trained is None:
        return Encoder(recipe.pretrain.backbone, build_encoder(recipe.pretrain, seed), normalisation)
    output = trained.output("encoder.safetensors")
    return Encoder.from_bytes(run.read(output), run.locate(output.key), recipe.pretrain.backbone)


def _scores(recipe: Recipe, encoder: Encoder, splits: dict[str, reader.Labelled]) -> SeedScores:
    config, device = recipe.evaluate, default_device()

    def labelled(name: str) -> Labelled:
        known = splits[name].labels >= 0
        images = splits[name].images if known.all() else splits[name].images[known]  # a map that need not be in memory whole
        features = extract(encoder, images, config.batch, device)
        return Labelled(features, splits[name].labels[known])

    train, validation, test = (labelled(name) for name in SPLITS)
    linear = linear_probe(train, validation, test, config.l2_grid)
    return SeedScores(
        linear_accuracy=linear.accuracy,
        knn_accuracy=knn_accuracy(train, test, config.knn_neighbours),
        l2=linear.l2,
    )
