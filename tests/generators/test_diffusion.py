"""Images of a fitted diffusion model by index, and the parts of its fit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from adainf.errors import BadInput, StageFailed
from adainf.generators.batches import Batches
from adainf.generators.diffusion import DiffusionTrainer, build_denoiser, open_diffusion
from adainf.generators.ema import update_ema
from adainf.generators.kind import Fitted
from adainf.generators.pixels import deviation, to_pixels, to_unit
from adainf.generators.sample import sample_images
from adainf.pipeline.load_recipe import load_recipe
from adainf.recipe import Diffusion
from adainf.shards.format.png import Pixels
from tests.generators.exact import STD
from tests.generators.tiny import diffusion, noise_images, shake
from tests.tiny import RECIPE, write_recipe

CPU = torch.device("cpu")


def shaken(config: Diffusion) -> Fitted:
    denoiser = build_denoiser(config, 8, STD)
    shake(denoiser)
    return Fitted(dict(denoiser.network.state_dict()), {"sigma_data": STD})


@pytest.mark.parametrize("objective", ["edm", "ddpm"])
@pytest.mark.parametrize("kind", ["heun", "dpmpp2m", "ddim", "ancestral"])
def test_images_of_a_shard_do_not_depend_on_the_other_shards(kind: str, objective: str) -> None:
    """With the stochastic sampler too: its fresh noise is by index as well."""
    config = diffusion(objective={"kind": objective}, sampler={"kind": kind, "steps": 5, "batch": 8})
    draw = open_diffusion(config, shaken(config), 8, 0, CPU)
    expected = sample_images(draw, 8, range(20))
    assert expected.shape == (20, 8, 8, 3)
    assert len(np.unique(expected, axis=0)) == 20
    np.testing.assert_array_equal(sample_images(draw, 8, range(8, 16)), expected[8:16])
    np.testing.assert_array_equal(draw(range(3, 11)), expected[3:11])


def test_bf16_sampling_is_near_that_of_float32() -> None:
    images = []
    for precision in ("no", "bf16"):
        config = diffusion(sampler={"steps": 4, "precision": precision})
        images.append(open_diffusion(config, shaken(config), 8, 0, CPU)(range(16)).astype(float))
    difference = np.abs(images[0] - images[1])
    assert 0 < difference.mean() < 3


def test_nan_values_fail_with_the_fix() -> None:
    config = diffusion(sampler={"steps": 2})
    fitted = shaken(config)
    fitted.weights["last.bias"][0] = float("nan")
    with pytest.raises(StageFailed, match=r"no part of this shard was written; .* lower generator.learning_rate"):
        open_diffusion(config, fitted, 8, 0, CPU)(range(4))


def test_pixels_survive_the_way_there_and_back() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 16, 48, 1).expand(-1, -1, -1, 3).contiguous()
    assert torch.equal(to_pixels(to_unit(pixels)), pixels)


def test_measured_deviation_is_numpys() -> None:
    images = noise_images(50)
    assert deviation(images) == pytest.approx((images / 127.5 - 1).std(), rel=1e-9)


def test_the_average_is_exponential_by_images_seen() -> None:
    """Against its closed form: half-life h images, at most 5 % of those seen, so one step keeps 0.5 ** (batch / h)."""
    config = diffusion(batch=100, ema_half_life_images=300)
    model, average = nn.Linear(1, 1), nn.Linear(1, 1)
    for module, value in ((model, 1.0), (average, 0.0)):
        for parameter in module.parameters():
            nn.init.constant_(parameter, value)
    update_ema(average, model, config, step=999)  # 100,000 images seen: 5 % is more than the half-life
    assert average.bias.item() == pytest.approx(1 - 0.5 ** (1 / 3))
    update_ema(average, model, config, step=9)  # 1,000 seen: half-life 50
    assert average.bias.item() == pytest.approx(1 - 0.5 ** (1 / 3) * 0.5**2)


def test_the_reference_batch_begins_with_the_mini_batch_and_goes_on_with_others() -> None:
    batches = Batches(diffusion(batch=8), noise_images(100), CPU)
    clean, _ = batches.at(3)
    reference = batches.reference(3, 40)
    torch.testing.assert_close(reference[:8], clean, rtol=0, atol=0)
    assert len(reference.flatten(1).unique(dim=0)) > 35
    assert not torch.equal(batches.reference(4, 40)[8:], reference[8:])
    torch.testing.assert_close(batches.reference(3, 8), clean, rtol=0, atol=0)


def lit_from_the_left(count: int) -> Pixels:
    images = np.random.default_rng(0).integers(0, 60, (count, 8, 8, 3))
    images[:, :, :4] += 180
    return images.astype(np.uint8)


@pytest.mark.heavy
@pytest.mark.parametrize("objective", [{"kind": "edm"}, {"kind": "stf", "reference_images": 64}])
def test_fitted_on_mirrored_images_too_it_samples_none(objective: dict[str, Any]) -> None:
    """Without the condition, half of the samples would be lit from the right."""
    config = diffusion(
        objective=objective,
        unet={"channels": 8, "multipliers": [1], "attention_below_px": 0},
        horizontal_flip=True,
        batch=32,
        learning_rate=0.01,
        warmup_steps=10,
        ema_half_life_images=500,
        sampler={"steps": 8, "batch": 32},
    )
    images = lit_from_the_left(200)
    trainer, batches = DiffusionTrainer(config, images, CPU), Batches(config, images, CPU)
    for step in range(150):
        trainer.step(step, *batches.at(step))
    drawn = open_diffusion(config, trainer.fitted(), 8, 0, CPU)(range(32)).astype(float)
    assert (drawn[:, :, :4].mean((1, 2, 3)) > drawn[:, :, 4:].mean((1, 2, 3)) + 60).all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("objective: {kind: stf, reference_images: 20}", "generator has objective.reference_images 20, below batch 32"),
        ("objective: {kind: vp}", "generator.objective.kind must be one of 'edm', 'stf', 'ddpm'"),
        ("objective: {kind: edm, reference_images: 64}", "generator.objective.reference_images is not a setting"),
        (
            "objective: {kind: ddpm, timesteps: 2}\n  sampler: {kind: ddim, steps: 3}",
            "generator has sampler.steps 3, above objective.timesteps 2; lower sampler.steps",
        ),
        ("sampler: {sigma_min: 90}", "generator.sampler needs sigma_min below sigma_max, not 90 and 80"),
        ("unet: {channels: 8, blocks: 2}", "generator.unet of kind small has one block per resolution, not 2"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(tmp_path: Path, settings: str, words: str) -> None:
    text = RECIPE.replace("  sampler: {steps: 3, batch: 16}\n", "").replace(
        "  unet: {channels: 8, multipliers: [1, 2], attention_below_px: 4}\n", ""
    )
    recipe = write_recipe(tmp_path, text.replace("  batch: 32\n", f"  batch: 32\n  {settings}\n", 1))
    with pytest.raises(BadInput) as error:
        load_recipe(recipe)
    assert words in str(error.value)
