"""Fitting the denoiser on the real training images; resumed exactly from its checkpoint."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from adainf.checkpoint import flatten_optimizer, restore_optimizer, with_prefix, without_prefix
from adainf.checkpoints import Checkpoints
from adainf.compute import fresh_weights
from adainf.exitcodes import Interrupted, StageFailed
from adainf.generators.edm import Denoiser, denoising_loss, to_unit
from adainf.models.unet import UNet
from adainf.progress import Reporter
from adainf.recipe import EdmGenerator
from adainf.shards.png import Pixels
from adainf.shards.schedule import MixtureSchedule
from adainf.stopping import deferred

CURVE_POINTS = 200


@dataclass
class Fitted:
    """A fitted generator: the averaged weights, the deviation of the data in -1..1, and the loss curve."""

    weights: dict[str, Tensor]
    sigma_data: float
    curve: list[tuple[int, float]]


def measured_sigma_data(images: Pixels) -> float:
    """Deviation of the images' values in -1..1, as EDM's preconditioning wants it. N x H x W x 3 uint8."""
    parts = (images[first : first + 1024] for first in range(0, len(images), 1024))  # numpy counts in 8 bytes a value
    # Exact, whatever the order of summation.
    counts = np.sum([np.bincount(part.reshape(-1), minlength=256) for part in parts], axis=0)
    values = np.arange(256) / 127.5 - 1
    mean = (counts * values).sum() / counts.sum()
    return float(max((counts * (values - mean) ** 2).sum() / counts.sum(), 1e-4) ** 0.5)


def build_denoiser(config: EdmGenerator, size_px: int, sigma_data: float) -> Denoiser:
    """The denoiser with fresh weights of the recipe's seed."""
    with fresh_weights(config.seed):
        return Denoiser(UNet(config.unet, size_px), sigma_data)


def fit(config: EdmGenerator, images: Pixels, device: torch.device, checkpoints: Checkpoints, reporter: Reporter) -> Fitted:
    """Fit on `images` (N x H x W x 3 uint8), from the newest checkpoint if there is one.

    Raises `Interrupted` after saving when asked to stop, `StageFailed` when the loss is no longer finite.
    """
    sigma_data = measured_sigma_data(images)
    denoiser = build_denoiser(config, images.shape[1], sigma_data).to(device)
    average = copy.deepcopy(denoiser).requires_grad_(False)
    optimizer = torch.optim.Adam(denoiser.parameters(), config.learning_rate)
    start, curve = 0, []
    checkpoints.begin()
    saved = checkpoints.newest()
    if saved is not None:
        tensors, extra = checkpoints.load(saved)
        denoiser.load_state_dict(without_prefix("model", tensors))
        average.load_state_dict(without_prefix("average", tensors))
        restore_optimizer(optimizer, tensors)
        start, curve = saved, [(int(step), float(loss)) for step, loss in extra["curve"]]

    def save(step: int) -> None:
        tensors = with_prefix("model", denoiser.state_dict()) | with_prefix("average", average.state_dict())
        checkpoints.save(step, tensors | flatten_optimizer(optimizer), {"curve": curve})

    batches = _Batches(config, images, device)
    every = max(config.steps // CURVE_POINTS, 1)
    with reporter.track("fit", config.steps, start) as track, deferred() as stop:
        for step in range(start, config.steps):
            loss = _step(config, denoiser, optimizer, batches, step, sigma_data)
            _update_average(average, denoiser, config, step)
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
    return Fitted(dict(average.network.state_dict()), sigma_data, curve)


class _Batches:
    """Images and noise of a step, a function of (seed, step)."""

    def __init__(self, config: EdmGenerator, images: Pixels, device: torch.device) -> None:
        self._config, self._device = config, device
        self._images = torch.from_numpy(images)
        self._schedule = MixtureSchedule([len(images)], [1.0], config.seed)

    def at(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Clean images B x 3 x H x W, one normal number an image, and normal noise like the images."""
        batch = self._config.batch
        _, indices = self._schedule.at(np.arange(step * batch, (step + 1) * batch))
        random = np.random.default_rng([self._config.seed, step])
        clean = to_unit(self._images[indices].to(self._device))
        if self._config.horizontal_flip:
            mirrored = torch.from_numpy(random.random(batch) < 0.5).to(self._device)
            clean = torch.where(mirrored[:, None, None, None], clean.flip(3), clean)
        normal = torch.from_numpy(random.standard_normal(batch, np.float32)).to(self._device)
        noise = torch.from_numpy(random.standard_normal(tuple(clean.shape), np.float32)).to(self._device)
        return clean, normal, noise


def _step(
    config: EdmGenerator,
    denoiser: Denoiser,
    optimizer: torch.optim.Adam,
    batches: _Batches,
    step: int,
    sigma_data: float,
) -> Tensor:
    clean, normal, noise = batches.at(step)
    with torch.autocast(clean.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        loss = denoising_loss(denoiser, clean, normal, noise, sigma_data, config.noise_log_mean, config.noise_log_std)
    optimizer.param_groups[0]["lr"] = config.learning_rate * min((step + 1) / max(config.warmup_steps, 1), 1.0)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
    optimizer.step()
    return loss.detach()


@torch.no_grad()
def _update_average(average: Denoiser, denoiser: Denoiser, config: EdmGenerator, step: int) -> None:
    """Exponential moving average by images seen, its half-life at most 5 % of them (EDM's ramp-up)."""
    seen = (step + 1) * config.batch
    half_life = min(config.ema_half_life_images, max(0.05 * seen, 1e-8))
    keep = 0.5 ** (config.batch / half_life)
    for mean, value in zip(average.parameters(), denoiser.parameters(), strict=True):
        mean.lerp_(value, 1 - keep)
