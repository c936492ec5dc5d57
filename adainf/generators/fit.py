"""The loop that fits a generator to the real training images; resumed exactly from its checkpoint."""

from __future__ import annotations

import numpy as np
import torch

from adainf.checkpoints import Checkpoints
from adainf.exitcodes import Interrupted, StageFailed
from adainf.generators.batches import Batches
from adainf.generators.kind import Trainee
from adainf.progress import Reporter
from adainf.recipe import FittedGenerator
from adainf.shards.png import Pixels
from adainf.stopping import deferred

CURVE_POINTS = 200


def fit(
    config: FittedGenerator,
    trainee: Trainee,
    images: Pixels,
    device: torch.device,
    checkpoints: Checkpoints,
    reporter: Reporter,
) -> list[tuple[int, float]]:
    """Fit `trainee` on `images` (N x H x W x 3 uint8), from the newest checkpoint if there is one; returns the loss curve.

    Raises `Interrupted` after saving when asked to stop, `StageFailed` when the loss is no longer finite.
    """
    start, curve = 0, []
    checkpoints.begin()
    saved = checkpoints.newest()
    if saved is not None:
        tensors, extra = checkpoints.load(saved)
        trainee.load(tensors)
        start, curve = saved, [(int(step), float(loss)) for step, loss in extra["curve"]]

    def save(step: int) -> None:
        checkpoints.save(step, trainee.state(), {"curve": curve})

    batches = Batches(config, images, device)
    every = max(config.steps // CURVE_POINTS, 1)
    with reporter.track("fit", config.steps, start) as track, deferred() as stop:
        for step in range(start, config.steps):
            loss = trainee.step(step, *batches.at(step))
            done = step + 1
            if done % every == 0 or done == config.steps:
                value = float(loss)
                if not np.isfinite(value):
                    raise StageFailed(f"fit: the loss is {value} at step {done}; lower generator.learning_rate")
                curve.append((done, round(value, 6)))
                track.advance(done - track.done, loss=value)
            if stop.received:
                save(done)
                checkpoints.wait()
                raise Interrupted(f"fit: saved at step {done} of {config.steps}; run the same command to go on")
            if done % config.checkpoint_every_steps == 0 and done < config.steps:
                save(done)
    return curve
