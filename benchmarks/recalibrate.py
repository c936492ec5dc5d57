"""What `pretrain.bn_recalibrate` changes: the encoders of a run, judged with their own and with recalibrated statistics.

    python -m benchmarks.recalibrate RECIPE RUN

Weights are the same, so nothing is trained. Linear probe and nearest neighbours are fitted on the training labels and scored on
the validation split. Prints the mean over seeds of each arm, and the paired difference with its 95 % interval (Student's t).
"""

from __future__ import annotations

import statistics
import sys

from adainf.evaluation.find_encoder import find_encoder
from adainf.evaluation.intervals import half_width
from adainf.evaluation.protocol import measure
from adainf.models.encoder import Encoder
from adainf.pipeline.artifacts import Run
from adainf.pipeline.graph import pretrained
from adainf.pipeline.load_recipe import load_recipe
from adainf.pretraining.recalibrate import finished_encoder
from adainf.runtime.determinism import default_device, prepare
from adainf.shards.format.folder import ShardFolder
from adainf.shards.loader.read_all import Labelled, read_split
from benchmarks.common import commit, machine

PROTOCOLS = ("linear", "knn")


def main() -> None:
    recipe, run = load_recipe(sys.argv[1]), Run(sys.argv[2])
    config = recipe.pretrain.model_copy(update={"bn_recalibrate": True})
    manifest = run.find("real")
    assert manifest is not None, f"{run.uri} has no real images"
    real = ShardFolder.of(run, "real", manifest)
    train, validation = (read_split(real, name) for name in ("train", "validation"))
    splits = {"train": train, "validation": Labelled(train.images[:0], train.labels[:0]), "test": validation}
    prepare(recipe.cpu_threads)
    device = default_device()

    def scores(encoder: Encoder, seed: int) -> list[float]:
        found = measure(encoder, splits, recipe.evaluate, seed, device)
        return [100 * found.first(name).accuracy for name in PROTOCOLS]  # type: ignore[arg-type] # both are protocols

    print(f"{run.uri}, {len(validation.labels):,} validation images, {commit()}, {machine()}")
    for arm in recipe.arms:
        seeds = [seed for seed in recipe.pretrain.seeds if run.find(pretrained(arm, seed))]
        before, after = [], []
        for seed in seeds:
            encoder = find_encoder(run.uri, arm, seed, None).encoder
            before.append(scores(encoder, seed))
            fresh = find_encoder(run.uri, arm, seed, None).encoder
            after.append(
                scores(finished_encoder(config, fresh.backbone, fresh.normalisation, lambda: train.images, device), seed)
            )
        for place, name in enumerate(PROTOCOLS if seeds else ()):
            old, new = ([values[place] for values in of] for of in (before, after))
            differences = [b - a for a, b in zip(old, new, strict=True)]
            margin = f" ± {half_width(differences):.2f}" if len(seeds) > 1 else ""
            means = f"{statistics.fmean(old):.2f} → {statistics.fmean(new):.2f}"
            print(f"{arm:12} {name:7} {means}, {statistics.fmean(differences):+.2f}{margin} ({len(seeds)} seeds)", flush=True)


if __name__ == "__main__":
    main()
