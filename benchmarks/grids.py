"""How the noise levels of few-step sampling change the images of a fitted diffusion model.

    python -m benchmarks.grids RECIPE RUN [--images N] [--json FILE]

Some minutes of one core. The deterministic samplers solve one differential equation, so all have the same exact result for the
same noise. For each setting the table has the root mean square distance of pixels (in -1..1) from that result; the variance and
the total variation of the images, as ratios to those of the exact result; and the largest relative error of a variance for
normal images with their exact denoiser. Those have variances of 1e-4 to 60, as the covariance of CIFAR-10 at 16 x 16 px.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from torch import Tensor

from adainf.generators.diffusion import build_denoiser, clip_pixels
from adainf.generators.noise import initial_noise
from adainf.generators.samplers import SAMPLERS, identity, sample
from adainf.generators.schedules import sampling_sigmas
from adainf.recipe import Diffusion, Sampler
from benchmarks.common import header, short, table
from benchmarks.sample import fitted_generator

EXACT = Sampler(kind="heun", steps=60)
SETTINGS = (
    Sampler(kind="heun", steps=18),
    *(
        Sampler(kind="dpmpp2m", steps=steps, rho=rho, sigma_min=sigma_min)
        for steps in (8, 10, 12, 16)
        for rho, sigma_min in ((7, 0.002), (14, 0.01), (30, 0.01), (100, 0.01), (100, 0.001))
    ),
)
BATCH = 128
VARIANCES = torch.logspace(-4, 1.78, 60, dtype=torch.float64)


def main() -> int:
    arguments = _arguments()
    header([], [], quick=True)
    config, fitted, size_px = fitted_generator("heun", 18, fitted=[arguments.recipe, arguments.run])
    denoiser = build_denoiser(config, size_px, fitted.described["sigma_data"])
    denoiser.network.load_state_dict(fitted.weights)
    denoiser.eval()

    def images(sampler: Sampler) -> Tensor:
        """N x 3 x H x W."""
        parts = [range(first, first + BATCH) for first in range(0, arguments.images, BATCH)]
        noises = [initial_noise(0, part, (3, size_px, size_px), 0) for part in parts]
        walk, levels = SAMPLERS[sampler.kind], sampling_sigmas(config.model_copy(update={"sampler": sampler}))
        return torch.cat([sample(walk, denoiser, noise, levels, torch.zeros, clip_pixels) for noise in noises])

    exact = images(EXACT)
    figures: dict[str, float] = {}
    rows: list[list[str]] = []
    for sampler in SETTINGS:
        found = images(sampler)
        values = {
            "rms": float((found - exact).square().mean().sqrt()),
            "variance_ratio": float(variance(found) / variance(exact)),
            "variation_ratio": float(variation(found) / variation(exact)),
            "gaussian_error": gaussian_error(config, sampler),
        }
        name = f"{sampler.kind}_{sampler.steps}_rho{sampler.rho:g}_min{sampler.sigma_min:g}"
        figures |= {f"{name}_{key}": value for key, value in values.items()}
        evaluations = 2 * sampler.steps - 1 if sampler.kind == "heun" else sampler.steps
        rows.append([name, str(evaluations), *map(short, values.values())])
    ten = [value for key, value in figures.items() if key.startswith("dpmpp2m_10") and key.endswith("gaussian_error")]
    figures["gaussian_covariance_error_10"] = min(ten)
    table(
        f"{arguments.images} images of {arguments.run}",
        ["setting", "evaluations", "rms distance", "variance / exact", "variation / exact", "Gaussian error"],
        rows,
    )
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")
    return 0


def gaussian_error(config: Diffusion, sampler: Sampler) -> float:
    """The largest relative error of `VARIANCES`, each as a pixel of one image: the samplers are linear in it."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return VARIANCES / (VARIANCES + sigma**2) * x

    levels = sampling_sigmas(config.model_copy(update={"sampler": sampler}))
    end = SAMPLERS[sampler.kind](denoise, levels[0].expand(len(VARIANCES)), levels, torch.zeros, identity)
    return float((end.square() / VARIANCES - 1).abs().max())


def variance(images: Tensor) -> Tensor:
    return images.var(dim=0).sum()


def variation(images: Tensor) -> Tensor:
    return images.diff(dim=2).abs().mean() + images.diff(dim=3).abs().mean()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", metavar="RECIPE")
    parser.add_argument("run", metavar="RUN", help="folder of a run whose generator is fitted")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--json", metavar="FILE", help="write {name: value}")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
