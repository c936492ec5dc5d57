"""AdaInf's trainer on its stream of shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.child import Values, cpu_s
from benchmarks.trainers.task import MEAN, STD, WORKERS, Task

PACKAGE = "adainf"


def train(**task: Any) -> Values:
    from adainf import recipe
    from adainf.augment.profiles import default_views
    from adainf.models.encoder import Normalisation
    from adainf.pretraining.loop import make_accelerator
    from adainf.pretraining.trainer import Experiment, Trainer
    from adainf.runtime.determinism import prepare
    from adainf.shards import Source, open_stream
    from adainf.shards.format.folder import ShardFolder

    asked = Task(**task)
    prepare(WORKERS)
    config = recipe.Pretrain.model_validate(
        {
            "method": {"kind": asked.method},
            "backbone": asked.backbone,
            "precision": asked.precision,
            "global_batch": asked.batch,
            "steps": asked.warm_steps + asked.steps,
        }
    )
    folder = ShardFolder.open(str(Path(asked.folder) / "set"))
    with open_stream({"real": Source(folder)}, asked.batch, 0) as stream:
        views = default_views(config.augmentation)
        trainer = Trainer(Experiment(config, 0, stream, views, Normalisation(MEAN, STD)), make_accelerator(config))
        for step in range(asked.warm_steps):
            trainer.step(step)
        trainer.watch.read()
        used_s = cpu_s()
        for step in range(asked.warm_steps, config.steps):
            float(trainer.step(step).loss)
        seconds = trainer.watch.read()
    return {
        "steps_per_s": asked.steps / seconds["all"],
        "cpu_s_per_step": (cpu_s() - used_s) / asked.steps,
        "data_wait_share": seconds["data"] / seconds["all"],
        "augment_share": seconds["augment"] / seconds["all"],
        "non_model_share": 1 - seconds["model"] / seconds["all"],
    }
