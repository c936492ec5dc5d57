"""The training loop of a generator on the real images, on any number of processes; resumes bit for bit."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from adainf.errors import Interrupted, StageFailed
from adainf.generators.batches import Batches
from adainf.generators.kind import GeneratorTrainer
from adainf.pipeline.checkpoints import Checkpoints
from adainf.pipeline.progress import Reporter
from adainf.recipe import FittedGenerator
from adainf.runtime import distributed
from adainf.runtime.determinism import memory_gib
from adainf.runtime.signals import Request, deferred
from adainf.shards.format.png import Pixels

CURVE_POINTS = 200
Curve = list[tuple[int, float]]
"""(step, loss of its batch)"""


def fit(
    config: FittedGenerator,
    trainer: GeneratorTrainer,
    images: Pixels,
    device: torch.device,
    checkpoints: Checkpoints,
    reporter: Reporter,
    on_log: Callable[[Curve], None] = lambda curve: None,
    label: str = "fit",
) -> Curve:
    """Fit `trainer` on `images` (N x H x W x 3 uint8), from the newest checkpoint if there is one; returns the loss curve.

    Every process of a launch calls this; rank 0 saves, and calls `on_log` with the curve so far. `label` starts every message
    and log line. Saves when asked to. Raises `Interrupted` after saving when asked to stop, `StageFailed` when the loss is not
    finite.
    """
    main = distributed.rank() == 0
    start, curve = _restore(trainer, checkpoints, main, device)

    def save(step: int) -> None:
        if main:
            checkpoints.save(step, trainer.state(), {"curve": curve})

    batches, agreement = Batches(config, images, device), distributed.Agreement(device)
    every = max(config.steps // CURVE_POINTS, 1)
    began_s = time.monotonic()
    with reporter.track(label, config.steps, start) as track, deferred() as requests:
        for step in range(start, config.steps):
            loss = trainer.step(step, *batches.at(step))
            done = step + 1
            if done % every == 0 or done == config.steps:
                value = distributed.mean_over_ranks(loss)
                if not np.isfinite(value):
                    raise StageFailed(f"{label}: the loss is {value} at step {done}; lower the generator's learning_rate")
                curve.append((done, round(value, 6)))
                elapsed_s, began_s = time.monotonic() - began_s, time.monotonic()
                images_per_s = (done - track.done) * config.batch / elapsed_s
                track.advance(done - track.done, loss=value, images_per_s=images_per_s, memory_gib=memory_gib(device))
                if main:
                    on_log(curve)
            request = agreement.highest(requests.take())  # all must save and stop at the same step
            if request == Request.STOP:
                save(done)
                checkpoints.wait()
                distributed.barrier()
                raise Interrupted(f"{label}: saved at step {done} of {config.steps}; run the same command again to resume")
            if (request == Request.SAVE or done % config.checkpoint_every_steps == 0) and done < config.steps:
                save(done)
                if request == Request.SAVE:
                    reporter.info(f"{label}: a signal requested the checkpoint of step {done}; the fit continues")
    return curve


def _restore(trainer: GeneratorTrainer, checkpoints: Checkpoints, main: bool, device: torch.device) -> tuple[int, Curve]:
    """Load the newest checkpoint; returns the next step and the curve so far."""
    found = 0  # nothing is saved at step 0
    if main:
        checkpoints.begin()
        found = checkpoints.newest() or 0
    saved = distributed.gather_uint64(found, device)[0]  # all load the checkpoint that rank 0 found intact
    if not saved:
        return 0, []
    tensors, extra = checkpoints.load(saved)
    trainer.load(tensors)
    return saved, [(int(step), float(loss)) for step, loss in extra["curve"]]
