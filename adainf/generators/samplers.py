"""Samplers: from standard normal noise to images, along descending noise levels (units as in `denoiser`)."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from adainf.generators.denoiser import DenoiserFn

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(x_BCHW, one sigma) → the expected clean images, float64."""
FreshNoise = Callable[[int], Tensor]
"""Step number, from 1 → fresh standard normal noise, B x 3 x H x W."""
Project = Callable[[Tensor], Tensor]
"""Clean images → the nearest valid images."""
SamplerFn = Callable[[Denoise, Tensor, Tensor, FreshNoise, Project], Tensor]
"""(denoise, initial x, levels, fresh noise, projection) → images."""


def identity(clean: Tensor) -> Tensor:
    """No projection."""
    return clean


@torch.no_grad()
def sample(
    sampler: SamplerFn,
    denoiser: DenoiserFn,
    noise_BCHW: Tensor,
    levels: Tensor,
    fresh_noise: FreshNoise,
    project: Project = identity,
    clean_BCHW: Tensor | None = None,
) -> Tensor:
    """Images from standard normal noise, added to `clean_BCHW` where that is given. The state is float64, since small steps are
    summed; the network gets float32.

    `levels` descend to 0. Only stochastic samplers call `fresh_noise`. `project` corrects errors of the network: the expected
    clean image is a mean of images and lies in their range, the prediction may not. Deterministic samplers keep the predicted
    noise, as diffusers' DDIM does by default; noise recomputed from the projected image would leave the trajectory.
    """

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return denoiser(x.float(), torch.full((len(x),), float(sigma), device=x.device)).double()

    x = noise_BCHW.double() * float(levels[0])
    return sampler(denoise, x if clean_BCHW is None else x + clean_BCHW.double(), levels, fresh_noise, project)


def heun(denoise: Denoise, x: Tensor, levels: Tensor, fresh_noise: FreshNoise, project: Project) -> Tensor:
    """EDM's deterministic sampler (Karras et al. 2022, algorithm 1), second order: 2 N - 1 evaluations for N levels above 0."""
    for now, after in itertools.pairwise(levels):
        slope = (x - denoise(x, now)) / now
        predicted = project(x - now * slope) + after * slope
        if after > 0:
            slope = (slope + (predicted - denoise(predicted, after)) / after) / 2
            predicted = project(x - now * slope) + after * slope
        x = predicted
    return x


def dpmpp2m(denoise: Denoise, x: Tensor, levels: Tensor, fresh_noise: FreshNoise, project: Project) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, arXiv 2211.01095, algorithm 2), second order: N evaluations.

    Linear multistep in ln(sigma). First order in the first step and in the last one, whose length in ln(sigma) is infinite.
    """
    before, step_before = None, 0.0
    for now, after in itertools.pairwise(levels):
        clean = denoise(x, now)
        step = float((now / after).log())
        ahead = clean
        if before is not None and after > 0:
            ahead = clean + (clean - before) * (step / (2 * step_before))
        x = project(ahead) + after / now * (x - ahead)
        before, step_before = clean, step
    return x


def ddim(denoise: Denoise, x: Tensor, levels: Tensor, fresh_noise: FreshNoise, project: Project) -> Tensor:
    """DDIM with eta 0 (Song et al. 2021, arXiv 2010.02502, equation 13), which is Euler's method in sigma: N evaluations."""
    for now, after in itertools.pairwise(levels):
        clean = denoise(x, now)
        x = project(clean) + after / now * (x - clean)
    return x


def ancestral(denoise: Denoise, x: Tensor, levels: Tensor, fresh_noise: FreshNoise, project: Project) -> Tensor:
    """DDPM's sampler: a draw from the posterior q(x_after | x_now, clean), its variance the smaller of the paper's two (Ho et
    al. 2020, equations 6 and 7, section 3.2), here in terms of sigma: N evaluations."""
    for number, (now, after) in enumerate(itertools.pairwise(levels), start=1):
        clean = project(denoise(x, now))
        ratio = (after / now) ** 2
        x = clean + ratio * (x - clean)
        if after > 0:
            x = x + after * (1 - ratio).sqrt() * fresh_noise(number)
    return x


SAMPLERS: dict[str, SamplerFn] = {"heun": heun, "dpmpp2m": dpmpp2m, "ddim": ddim, "ancestral": ancestral}
"""By `sampler.kind` of the recipe."""
