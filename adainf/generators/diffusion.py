"""Diffusion models as a kind of generator: their fit, and images by index."""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor, nn

from adainf.checkpoint import flatten_optimizer, restore_optimizer, with_prefix, without_prefix
from adainf.compute import fresh_weights
from adainf.generators.average import update_average
from adainf.generators.denoiser import EdmDenoiser
from adainf.generators.kind import DrawBatch, Fitted
from adainf.generators.noise import initial_noise
from adainf.generators.objectives import denoising_loss
from adainf.generators.pixels import deviation, to_pixels
from adainf.generators.samplers import sample_heun
from adainf.models.unet import UNet
from adainf.recipe import Diffusion
from adainf.shards.png import Pixels


def build_denoiser(config: Diffusion, size_px: int, sigma_data: float) -> EdmDenoiser:
    """The denoiser with fresh weights of the recipe's seed."""
    with fresh_weights(config.seed):
        return EdmDenoiser(UNet(config.unet, size_px), sigma_data)


class DiffusionFit:
    """A `Trainee`: the denoiser and its moving average."""

    def __init__(self, config: Diffusion, images: Pixels, device: torch.device) -> None:
        self._config = config
        self.denoiser = build_denoiser(config, images.shape[1], deviation(images)).to(device)
        self.average = copy.deepcopy(self.denoiser).requires_grad_(False)
        self._optimizer = torch.optim.Adam(self.denoiser.parameters(), config.learning_rate)

    def step(self, step: int, clean_BCHW: Tensor, random: np.random.Generator) -> Tensor:
        config, device = self._config, clean_BCHW.device
        normal_B = torch.from_numpy(random.standard_normal(len(clean_BCHW), np.float32)).to(device)
        noise_BCHW = torch.from_numpy(random.standard_normal(tuple(clean_BCHW.shape), np.float32)).to(device)
        objective, data = config.objective, self.denoiser.sigma_data
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            loss = denoising_loss(
                self.denoiser, clean_BCHW, normal_B, noise_BCHW, data, objective.noise_log_mean, objective.noise_log_std
            )
        self._optimizer.param_groups[0]["lr"] = config.learning_rate * min((step + 1) / max(config.warmup_steps, 1), 1.0)
        self._optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.denoiser.parameters(), 1.0)
        self._optimizer.step()
        update_average(self.average, self.denoiser, config, step)
        return loss.detach()

    def state(self) -> dict[str, Tensor]:
        networks = with_prefix("model", self.denoiser.state_dict()) | with_prefix("average", self.average.state_dict())
        return networks | flatten_optimizer(self._optimizer)

    def load(self, tensors: dict[str, Tensor]) -> None:
        self.denoiser.load_state_dict(without_prefix("model", tensors))
        self.average.load_state_dict(without_prefix("average", tensors))
        restore_optimizer(self._optimizer, tensors)

    def fitted(self) -> Fitted:
        return Fitted(dict(self.average.network.state_dict()), {"sigma_data": self.denoiser.sigma_data})


def open_diffusion(config: Diffusion, fitted: Fitted, size_px: int, seed: int, device: torch.device) -> DrawBatch:
    """How the images of a fitted diffusion model are drawn."""
    denoiser = build_denoiser(config, size_px, float(fitted.described["sigma_data"]))  # type: ignore[arg-type]
    denoiser.network.load_state_dict(fitted.weights)
    denoiser = denoiser.eval().to(device)

    def draw(indices: range) -> Pixels:
        noise = initial_noise(seed, indices, (3, size_px, size_px)).to(device)
        return to_pixels(sample_heun(denoiser, noise, config.sampler)).cpu().numpy()

    return draw
