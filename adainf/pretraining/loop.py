"""The pretraining loop of one arm and seed: the same steps, batch and learning rate for all data.

All randomness is addressed by (seed, step, image), so the result does not depend on the number of processes, and to resume is
to load a checkpoint and continue. `trainer` is one step, `monitor` its metrics.
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
from adainf.pretraining.online import KnnAccuracy, OnlineProbe, accuracy_in_eval_mode
from adainf.pretraining.recalibrate import check_recalibration
from adainf.pretraining.trainer import Experiment, Trainer
from adainf.recipe import Pretrain
from adainf.runtime import distributed
from adainf.runtime.determinism import seeded_init
from adainf.runtime.environment import check_accelerate
from adainf.runtime.signals import Request, deferred

_SHOWN = ("loss", "images_per_s", "data_wait_pct", "augment_pct", "rank_me")


@dataclass(frozen=True)
class Trained:
    """Result of the loop."""

    backbone: Backbone
    curve: list[tuple[int, float]]
    """(step, loss averaged over the processes) every `log_every_steps`."""


@dataclass(frozen=True)
class OnlineValidation:
    """Metrics with labels during pretraining; no gradient of them reaches the encoder."""

    classes: int = 0
    """Number of classes of the online probe; 0 for none."""
    knn: KnnAccuracy | None = None


def build_encoder(config: Pretrain, seed: int) -> Backbone:
    """The initial backbone, from which every arm of this seed starts."""
    with seeded_init(seed):
        return build_backbone(config.backbone)


def make_accelerator(config: Pretrain) -> Accelerator:
    """Devices, processes and precision as `accelerate launch` set them up; without it, one process on one device.

    Raises `BadInput` where the processes do not divide the global batch, accelerate's settings differ from the recipe, or there
    are no statistics to recalibrate.
    """
    check_accelerate(config.precision)
    check_recalibration(config)
    distributed.init_for_batch("pretrain.global_batch", config.global_batch)
    # Layers synchronise batch statistics; a broadcast would overwrite some.
    handlers = [DistributedDataParallelKwargs(broadcast_buffers=False)]
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)  # Accelerate has no newer name
    return Accelerator(mixed_precision=config.precision, kwargs_handlers=handlers)


def pretrain_arm(
    experiment: Experiment,
    accelerator: Accelerator,
    checkpoints: Checkpoints | None,
    reporter: Reporter,
    label: str,
    validation: OnlineValidation | None = None,
) -> Trained:
    """Train one encoder, from the newest checkpoint if there is one. Without `checkpoints` nothing is saved.

    Saves when asked to. Raises `Interrupted` after saving when asked to stop, and `StageFailed` when the loss is not finite or
    the encoder has collapsed.
    """
    config, main, validation = experiment.config, accelerator.is_main_process, validation or OnlineValidation()
    trainer = Trainer(experiment, accelerator)
    start, curve = _restore(trainer, checkpoints, main) if checkpoints else (0, [])
    features, classes = trainer.method.backbone.num_features, validation.classes
    probe = OnlineProbe(features, classes, trainer.device) if classes else None
    monitor = Monitor(trainer, label, probe, main)

    def save(done: int) -> None:
        if not (main and checkpoints):
            return
        tensors, scaler = trainer.state()
        checkpoints.save(done, tensors, {"stream": experiment.stream.state_at(done), "curve": curve, "scaler": scaler})

    agreement = distributed.Agreement(accelerator.device)
    with reporter.track(label, config.steps, start) as track, deferred(saves=checkpoints is not None) as requests:
        for step in range(start, config.steps):
            current = trainer.step(step)
            monitor.observe(current)
            done = step + 1
            if done % config.log_every_steps == 0 or done == config.steps:
                measured = monitor.measure(done, current)
                curve.append((done, measured["loss"]))
                if validation.knn and main and _is_due(done, config):
                    measured["knn_accuracy"] = accuracy_in_eval_mode(trainer.method.backbone, validation.knn)
                monitor.write(done, measured)
                reporter.log("step", label=label, step=done, **measured)
                track.advance(done - track.done, **{name: measured[name] for name in _SHOWN})
            request = agreement.highest(requests.take())  # all must save and stop at the same step
            if request == Request.STOP:
                save(done)
                if checkpoints:
                    checkpoints.wait()
                distributed.barrier()
                raise Interrupted(f"{label}: saved at step {done} of {config.steps}; run the same command again to resume")
            if (request == Request.SAVE or done % config.checkpoint_every_steps == 0) and done < config.steps:
                checked_loss(done, current, trainer, label)  # never checkpoint a state whose loss is not finite
                save(done)
                if request == Request.SAVE:
                    reporter.info(f"{label}: a signal requested the checkpoint of step {done}; training continues")
    monitor.close()
    return Trained(trainer.method.backbone, curve)


def _is_due(done: int, config: Pretrain) -> bool:
    """Whether kNN accuracy is due: at the first logged step after each multiple of its interval, and at the end."""
    every = config.monitor.knn_every_steps
    return every is not None and (done % every < config.log_every_steps or done == config.steps)


def _restore(trainer: Trainer, checkpoints: Checkpoints, main: bool) -> tuple[int, list[tuple[int, float]]]:
    """Load the newest checkpoint; returns the next step and the curve so far."""
    found = 0  # nothing is saved at step 0
    if main:
        checkpoints.begin()
        found = checkpoints.newest() or 0
    saved = distributed.gather_uint64(found, trainer.device)[0]  # all load the checkpoint that rank 0 found intact
    if not saved:
        return 0, []
    tensors, extra = checkpoints.load(saved)
    trainer.restore(tensors, extra["scaler"])
    step = trainer.batches.load_state_dict(extra["stream"])
    return step, [(int(at), float(loss)) for at, loss in extra["curve"]]
