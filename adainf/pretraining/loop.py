"""The pretraining loop of one arm and seed: the same steps, batch and learning rate whatever the data.

All randomness is addressed by (seed, step, image), so what is trained does not depend on the number of processes, and
resuming is loading a state and going on. One step is in `trainer`, what is said about it in `monitor`.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from adainf.errors import Interrupted
from adainf.models.backbones import Backbone, build_backbone
from adainf.pipeline.checkpoints import Checkpoints
from adainf.pipeline.progress import Reporter
from adainf.pretraining.monitor import Monitor, checked_loss
from adainf.pretraining.online import KnnJudge, OnlineProbe, judged
from adainf.pretraining.trainer import Experiment, Trainer
from adainf.recipe import Pretrain
from adainf.runtime import distributed
from adainf.runtime.determinism import seeded_init
from adainf.runtime.signals import deferred

_SHOWN = ("loss", "images_per_s", "data_wait_pct", "augment_pct", "rank_me")


@dataclass(frozen=True)
class Trained:
    """What a run of the loop leaves."""

    backbone: Backbone
    curve: list[tuple[int, float]]
    """(step, loss averaged over the processes) every `log_every_steps`."""


@dataclass(frozen=True)
class Judges:
    """Who looks at labels while an encoder trains; nothing of it reaches the encoder."""

    classes: int = 0
    """Of the online probe."""
    knn: KnnJudge | None = None


def build_encoder(config: Pretrain, seed: int) -> Backbone:
    """The backbone before any training, as every arm of this seed starts from it."""
    with seeded_init(seed):
        return build_backbone(config.backbone)


def make_accelerator(config: Pretrain) -> Accelerator:
    """Devices, processes and precision as `accelerate launch` set them up; alone it is one process on one device.

    Raises `BadInput` for a batch that the processes cannot share.
    """
    distributed.init_for_batch("pretrain.global_batch", config.global_batch)
    # Batch statistics are synchronised in the layers; broadcasting them again would overwrite some.
    handlers = [DistributedDataParallelKwargs(broadcast_buffers=False)]
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)  # Accelerate knows no newer name
    return Accelerator(mixed_precision=config.precision, kwargs_handlers=handlers)


def pretrain_arm(
    experiment: Experiment,
    accelerator: Accelerator,
    checkpoints: Checkpoints,
    reporter: Reporter,
    label: str,
    judges: Judges | None = None,
) -> Trained:
    """Train one encoder, from the newest checkpoint if there is one.

    Raises `Interrupted` after saving when asked to stop, and `StageFailed` when the loss is no longer finite or the encoder
    has collapsed.
    """
    config, main, judges = experiment.config, accelerator.is_main_process, judges or Judges()
    trainer = Trainer(experiment, accelerator)
    start, curve = _restore(trainer, checkpoints, main)
    probe = OnlineProbe(trainer.method.backbone.num_features, judges.classes, trainer.device) if judges.classes else None
    monitor = Monitor(trainer, label, probe, main)

    def save(done: int) -> None:
        tensors, scaler = trainer.state()
        checkpoints.save(done, tensors, {"stream": experiment.stream.state_at(done), "curve": curve, "scaler": scaler})

    agreement = distributed.Agreement(accelerator.device)
    with reporter.track(label, config.steps, start) as track, deferred() as stop:
        for step in range(start, config.steps):
            current = trainer.step(step)
            monitor.watch(current)
            done = step + 1
            if done % config.log_every_steps == 0 or done == config.steps:
                measured = monitor.measure(done, current)
                curve.append((done, measured["loss"]))
                if judges.knn and main and _is_due(done, config):
                    measured["knn_accuracy"] = judged(trainer.method.backbone, judges.knn)
                monitor.show(done, measured)
                reporter.log("step", label=label, step=done, **measured)
                track.advance(done - track.done, **{name: measured[name] for name in _SHOWN})
            if agreement.any_rank(stop.received):  # all must stop at the same step
                if main:
                    save(done)
                    checkpoints.wait()
                distributed.barrier()
                raise Interrupted(f"{label}: saved at step {done} of {config.steps}; run the same command again to resume")
            if done % config.checkpoint_every_steps == 0 and done < config.steps:
                checked_loss(done, current, trainer, label)  # what is no number is not worth going on from
                if main:
                    save(done)
    monitor.close()
    return Trained(trainer.method.backbone, curve)


def _is_due(done: int, config: Pretrain) -> bool:
    """Whether a judge is to look: at the first logged step since the last multiple of his interval."""
    every = config.monitor.knn_every_steps
    return every is not None and (done % every < config.log_every_steps or done == config.steps)


def _restore(trainer: Trainer, checkpoints: Checkpoints, main: bool) -> tuple[int, list[tuple[int, float]]]:
    """Load the newest state; returns the next step and the curve so far."""
    found = 0  # nothing is saved at step 0
    if main:
        checkpoints.begin()
        found = checkpoints.newest() or 0
    saved = distributed.gather_uint64(found, trainer.device)[0]  # all take what rank 0 has found whole
    if not saved:
        return 0, []
    tensors, extra = checkpoints.load(saved)
    trainer.restore(tensors, extra["scaler"])
    step = trainer.batches.load_state_dict(extra["stream"])
    return step, [(int(at), float(loss)) for at, loss in extra["curve"]]
