"""Generator kind `diffusion`: the fit, and sampling by index."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from adainf.generators.batches import Batches
from adainf.generators.denoiser import DdpmDenoiser, DenoiserFn, EdmDenoiser
from adainf.generators.ema import update_ema
from adainf.generators.kind import DrawBatch, Fitted, GeneratorKind, check_count, check_size
from adainf.generators.noise import RowRandom, initial_noise
from adainf.generators.objectives import denoising_loss, loss_weight, stable_target, training_sigmas
from adainf.generators.pixels import deviation, to_pixels, to_unit
from adainf.generators.samplers import SAMPLERS, sample
from adainf.generators.schedules import sampling_sigmas
from adainf.models.diffusers_unet import DiffusersUNet, unet2d_model
from adainf.models.unet import UNet, fits
from adainf.pipeline.serialization import flatten_optimizer, restore_optimizer, with_prefix, without_prefix
from adainf.recipe import Ddpm, Diffusion
from adainf.runtime import distributed
from adainf.runtime.determinism import seeded_init
from adainf.shards.format.png import Pixels


def build_denoiser(config: Diffusion, size_px: int, sigma_data: float) -> EdmDenoiser | DdpmDenoiser:
    """The denoiser with initial weights from the recipe's seed."""
    unet = DiffusersUNet if config.unet.kind == "diffusers" else UNet
    with seeded_init(config.seed):
        network = unet(config.unet, size_px, config.horizontal_flip)
    return DdpmDenoiser(network) if isinstance(config.objective, Ddpm) else EdmDenoiser(network, sigma_data)


class DiffusionTrainer:
    """A `GeneratorTrainer`: the denoiser and its moving average."""

    def __init__(self, config: Diffusion, images: Pixels, device: torch.device) -> None:
        self._config = config
        self._batches = Batches(config, images, device)
        self._sigma_data = deviation(images)
        self.denoiser = build_denoiser(config, images.shape[1], self._sigma_data).to(device)
        self.average = copy.deepcopy(self.denoiser).requires_grad_(False)
        self._optimizer = torch.optim.Adam(self.denoiser.parameters(), config.learning_rate)

    def step(self, step: int, clean_BCHW: Tensor, random: RowRandom) -> Tensor:
        config = self._config
        loss = self._loss(step, clean_BCHW, random)
        self._optimizer.param_groups[0]["lr"] = config.learning_rate * min((step + 1) / max(config.warmup_steps, 1), 1.0)
        self._optimizer.zero_grad()
        loss.backward()
        distributed.average_gradients(self.denoiser.parameters())
        nn.utils.clip_grad_norm_(self.denoiser.parameters(), 1.0)
        self._optimizer.step()
        update_ema(self.average, self.denoiser, config, step)
        return loss.detach()

    def _loss(self, step: int, clean_BCHW: Tensor, random: RowRandom) -> Tensor:
        config = self._config
        sigma_B = training_sigmas(config.objective, random)
        noisy = clean_BCHW + sigma_B[:, None, None, None] * random.normal(*clean_BCHW.shape[1:])
        target, mirrored_B = clean_BCHW, None
        if config.reference_images is not None:
            target = stable_target(noisy, sigma_B, self._batches.reference(step, config.reference_images))
        if config.horizontal_flip:
            # After the target: the target of a mirrored image is the mirrored target, so references need no mirroring.
            mirrored_B = random.uniform() < 0.5
            noisy, target = (torch.where(mirrored_B[:, None, None, None], x.flip(3), x) for x in (noisy, target))
        with torch.autocast(noisy.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            denoised = self.denoiser(noisy, sigma_B, mirrored_B)
        return denoising_loss(denoised, target, loss_weight(config.objective, sigma_B, self._sigma_data))

    def state(self) -> dict[str, Tensor]:
        networks = with_prefix("model", self.denoiser.state_dict()) | with_prefix("average", self.average.state_dict())
        return networks | flatten_optimizer(self._optimizer)

    def load(self, tensors: dict[str, Tensor]) -> None:
        self.denoiser.load_state_dict(without_prefix("model", tensors))
        self.average.load_state_dict(without_prefix("average", tensors))
        restore_optimizer(self._optimizer, tensors)

    def fitted(self) -> Fitted:
        return Fitted(dict(self.average.network.state_dict()), {"sigma_data": self._sigma_data})


def clip_pixels(clean: Tensor) -> Tensor:
    """The nearest image with pixels in -1..1."""
    return clean.clamp(-1, 1)


def _denoiser(config: Diffusion, fitted: Fitted, size_px: int, device: torch.device) -> DenoiserFn:
    """The denoiser of a fitted diffusion model, ready to sample."""
    denoiser = build_denoiser(config, size_px, float(fitted.described["sigma_data"]))  # type: ignore[arg-type]
    denoiser.network.load_state_dict(fitted.weights)
    # At least a tenth faster; channels-last convolutions keep the layout.
    denoiser = denoiser.eval().to(device).to(memory_format=torch.channels_last)

    def denoise(x_BCHW: Tensor, sigma_B: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=config.sampler.precision == "bf16"):
            denoised: Tensor = denoiser(x_BCHW, sigma_B)
        return denoised

    return denoise


def open_diffusion(config: Diffusion, fitted: Fitted, size_px: int, seed: int, device: torch.device) -> DrawBatch:
    """The sampler of a fitted diffusion model."""
    denoise, shape = _denoiser(config, fitted, size_px, device), (3, size_px, size_px)
    levels, sampler = sampling_sigmas(config), SAMPLERS[config.sampler.kind]

    def draw(indices: range) -> Pixels:
        def noise(step: int) -> Tensor:
            return initial_noise(seed, indices, shape, step).to(device)

        return to_pixels(sample(sampler, denoise, noise(0), levels, noise, clip_pixels)).cpu().numpy()

    return draw


def open_renoise(
    config: Diffusion, fitted: Fitted, parents: Pixels, sigma: float, seed: int, device: torch.device
) -> Callable[[int, range], Pixels]:
    """SDEdit (Meng et al. 2022, arXiv 2108.01073, algorithm 1): (candidate number, indices of `parents`) → their candidates.

    The parent plus noise of standard deviation `sigma`, then the sampler's levels below it. `parents`: N x H x W x 3 uint8. A
    candidate is a function of (seed, index, candidate number). Indices beyond the last parent, which pad a batch, wrap around.
    """
    size_px = parents.shape[1]
    denoise, shape, sampler = _denoiser(config, fitted, size_px, device), (3, size_px, size_px), SAMPLERS[config.sampler.kind]
    below = sampling_sigmas(config)
    levels = torch.cat([torch.tensor([sigma], dtype=below.dtype), below[below < sigma]])

    def draw(candidate: int, indices: range) -> Pixels:
        def noise(step: int) -> Tensor:
            return initial_noise(seed, indices, shape, step, candidate).to(device)

        clean = to_unit(torch.from_numpy(parents[np.arange(indices.start, indices.stop) % len(parents)])).to(device)
        return to_pixels(sample(sampler, denoise, noise(0), levels, noise, clip_pixels, clean)).cpu().numpy()

    return draw


def check_diffusion(config: Diffusion, section: str, images: int, height_px: int, width_px: int) -> None:
    """Raise `BadInput` where the settings at `section` do not fit the real images, or diffusers is missing."""
    check_count(f"{section}.objective.reference_images", config.reference_images or 0, images)
    resolutions = len(config.unet.multipliers)
    check_size(f"{section}.unet", fits(config.unet, height_px, width_px), resolutions, height_px, width_px)
    if config.unet.kind == "diffusers":
        unet2d_model()


KIND = GeneratorKind(DiffusionTrainer, open_diffusion, check_diffusion)
