"""What every method makes of an encoder in a few minutes of two cores: nearest neighbours against the untrained encoder.

    python -m benchmarks.methods [--json FILE] [--only simclr,byol] [--cpu-s 180] [--fashion-mnist FOLDER]

Fashion-MNIST (Debian's package dataset-fashion-mnist), or the digits where it is absent; `resnet-small` in bf16, one seed,
the settings below. Each method takes as many steps as its first ones say that the CPU seconds allow. Accuracy is of 20
neighbours among 10,000 training images, on the validation split.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.child import Values, cpu_s
from benchmarks.common import Job, header, run, table

HEADS: dict[str, dict[str, Any]] = {
    "simclr": {"projector_hidden": 256, "projector_out": 64},
    "moco": {"projector_hidden": 256, "projector_out": 64, "queue": 4096},
    "byol": {"projector_hidden": 512, "projector_out": 128, "predictor_hidden": 512, "momentum": 0.97},
    "simsiam": {"projector_hidden": 512, "projector_out": 512, "predictor_hidden": 128},
    "barlow": {"projector_hidden": 512, "projector_out": 512},
    "vicreg": {"projector_hidden": 512, "projector_out": 512},
    "spectral": {"projector_hidden": 512, "projector_out": 256},
    "dino": {
        "projector_hidden": 256,
        "bottleneck": 64,
        "prototypes": 4096,
        "local_crops": 0,
        "momentum": 0.99,
        "freeze_prototypes_fraction": 0.02,
    },
    "clip": {"projector_out": 64},
}
BATCHES = {"dino": 32}
"""Of 64 for the others; the learning rate with it. More and smaller steps are what its teacher needs."""
OPTIMIZER = {"kind": "adamw", "weight_decay": 0.01}
LEARNING_RATE, BATCH = 0.002, 64
TRAIN_IMAGES, JUDGED_IMAGES, NEIGHBOURS = 10_000, 5_000, 20
MIN_SCALE = 0.2
"""Of the crops: 28 pixels of a garment bear no 0.08."""
TIMED_STEPS, MARGIN = 40, 0.93
NAMES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


def main() -> int:
    """The exit code: 1 where a method failed."""
    arguments = _arguments()
    header([], [], quick=True)
    fashion = Path(arguments.fashion_mnist)
    kind = f"fashion-mnist, path: {fashion}" if fashion.is_dir() else "digits"
    figures: dict[str, float] = {}
    failures, rows = [], []
    with tempfile.TemporaryDirectory(prefix="adainf-bench") as scratch:
        _ingest(Path(scratch), kind)
        for name in arguments.only:
            outcome = run(
                Job(
                    sys.executable,
                    "benchmarks.methods",
                    "train",
                    {"folder": scratch, "name": name, "budget_cpu_s": arguments.cpu_s},
                    {},
                )
            )
            if isinstance(outcome, str):
                failures.append(f"{name}: {outcome}")
                continue
            figures |= {f"{name}_{key}": value for key, value in outcome.items()}
            gain = outcome["knn_pct"] - outcome["untrained_knn_pct"]
            rows.append(
                [
                    name,
                    *[f"{value:.1f}" for value in (outcome["untrained_knn_pct"], outcome["knn_pct"], gain)],
                    f"{outcome['steps']:.0f}",
                    f"{outcome['cpu_s']:.0f}",
                ]
            )
            if arguments.json:
                Path(arguments.json).write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")
    title = f"{kind.partition(',')[0]}: kNN %, {arguments.cpu_s:g} CPU s for each method"
    table(title, ["method", "untrained", "trained", "gain", "steps", "CPU s"], rows)
    if failures:
        print("\nfailed:\n" + "\n".join(f"  {failure}" for failure in failures))
    return int(bool(failures))


def train(folder: str, name: str, budget_cpu_s: float) -> Values:
    import numpy as np
    import torch

    from adainf import recipe
    from adainf.augment.profiles import default_views
    from adainf.methods.clip import tokens_of
    from adainf.models.encoder import Encoder, Normalisation
    from adainf.pretraining.loop import build_encoder, make_accelerator
    from adainf.pretraining.trainer import Experiment, Trainer
    from adainf.shards import Source, open_stream
    from adainf.shards.format.folder import ShardFolder
    from adainf.shards.loader import read_all

    torch.set_num_threads(1)  # CPU seconds are what is asked for
    batch = BATCHES.get(name, BATCH)
    family = "asymmetric" if name == "barlow" else "symmetric"
    config = recipe.Pretrain.model_validate(
        {
            "method": {"kind": name, **HEADS[name]},
            "backbone": {"name": "resnet-small"},
            "augmentation": {"family": family, "blur_probability": 0, "min_scale": MIN_SCALE},
            "optimizer": {**OPTIMIZER, "learning_rate": LEARNING_RATE * batch / BATCH},
            "steps": 100_000,
            "global_batch": batch,
            "warmup_fraction": 0.1,
            "precision": "bf16",
        }
    )
    shards = ShardFolder.open(f"{folder}/real")
    normalisation = Normalisation.of(shards.split("train"))
    splits = {split: read_all.read_split(shards, split) for split in ("train", "validation")}

    def accuracy(backbone: Any) -> float:
        encoder = Encoder(config.backbone, backbone, normalisation).eval()
        found = []
        with torch.inference_mode():
            for split, most in (("train", TRAIN_IMAGES), ("validation", JUDGED_IMAGES)):
                images = torch.from_numpy(np.array(splits[split].images[:most]))
                found.append(torch.nn.functional.normalize(torch.cat([encoder(part) for part in images.split(500)]), dim=1))
        labels = torch.from_numpy(np.array(splits["train"].labels[:TRAIN_IMAGES]))
        votes = torch.nn.functional.one_hot(labels[(found[1] @ found[0].T).topk(NEIGHBOURS, 1).indices]).sum(1)
        right = votes.argmax(1) == torch.from_numpy(np.array(splits["validation"].labels[:JUDGED_IMAGES]))
        return 100 * float(right.float().mean())

    untrained = accuracy(build_encoder(config, 0))
    captions = [tokens_of([f"a {NAMES[label]}" for label in splits["train"].labels], 77)] if name == "clip" else []

    def trained(config: recipe.Pretrain, steps: int, after: int = 0) -> tuple[Trainer, float, Values]:
        """The trainer after so many steps, its last loss, and what the steps from the `after`th on took."""
        with open_stream({"real": Source(shards)}, config.global_batch, 0) as stream:
            experiment = Experiment(config, 0, stream, default_views(config.augmentation), normalisation, captions)
            trainer = Trainer(experiment, make_accelerator(config))
            for step in range(steps):
                if step == after:
                    began_s, used_s = time.perf_counter(), cpu_s()
                loss = trainer.step(step).loss
        return trainer, float(loss), {"cpu_s": cpu_s() - used_s, "wall_s": time.perf_counter() - began_s}

    _, _, spent = trained(config, 2 * TIMED_STEPS, after=TIMED_STEPS)
    steps = int(MARGIN * budget_cpu_s / (spent["cpu_s"] / TIMED_STEPS))
    trainer, loss, spent = trained(config.model_copy(update={"steps": steps}), steps)
    knn_pct = accuracy(trainer.method.backbone)
    return {"untrained_knn_pct": untrained, "knn_pct": knn_pct, "loss": loss, "steps": float(steps), **spent}


def _ingest(folder: Path, kind: str) -> None:
    from adainf.pipeline.artifacts import Run
    from adainf.pipeline.load_recipe import load_recipe
    from adainf.pipeline.progress import Reporter
    from adainf.stages.ingest import ingest

    path = folder / "recipe.yaml"
    path.write_text(
        f"name: methods\nreal: {{kind: {kind}}}\ngenerator: {{kind: diffusion, steps: 1}}\ngenerate: {{images: 1}}\n"
    )
    ingest(load_recipe(path), Run(str(folder)), Reporter(quiet=True))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", metavar="FILE", help="write {name: value}, units in names")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(HEADS), help=", ".join(HEADS))
    parser.add_argument("--cpu-s", type=float, default=180, help="what a method may take (default: %(default)g)")
    parser.add_argument("--fashion-mnist", metavar="FOLDER", default="/usr/share/datasets/fashion-mnist")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
