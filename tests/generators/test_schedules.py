"""Noise levels against their definitions, and against diffusers' schedulers."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from diffusers import DDPMScheduler, EDMEulerScheduler

from adainf.generators.schedules import alpha_bars, ddpm_sigmas, karras_sigmas, sampling_sigmas
from adainf.recipe import Ddpm
from tests.generators.tiny import diffusion


@pytest.mark.parametrize(("ours", "theirs"), [("linear", "linear"), ("cosine", "squaredcos_cap_v2")])
def test_schedules_are_diffusers(ours: Literal["linear", "cosine"], theirs: str) -> None:
    found = alpha_bars(Ddpm(kind="ddpm", schedule=ours))
    torch.testing.assert_close(found.float(), DDPMScheduler(1000, beta_schedule=theirs).alphas_cumprod, rtol=1e-4, atol=1e-9)


def test_linear_is_the_papers_loop_and_keeps_its_end_for_other_lengths() -> None:
    kept = 1.0
    for step in range(1000):
        kept *= 1 - (1e-4 + (0.02 - 1e-4) * step / 999)
    assert alpha_bars(Ddpm(kind="ddpm"))[-1].item() == pytest.approx(kept, rel=1e-9)
    shorter = alpha_bars(Ddpm(kind="ddpm", timesteps=500))[-1].item()
    assert math.log(shorter) == pytest.approx(math.log(kept), rel=0.02)


def test_cosine_is_its_definition_but_for_the_capped_end() -> None:
    found = alpha_bars(Ddpm(kind="ddpm", schedule="cosine", timesteps=200))
    power = [math.cos((t / 200 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(201)]
    for t in (1, 17, 100, 199):
        assert found[t - 1].item() == pytest.approx(power[t] / power[0], rel=1e-9)
    assert found[-1] > 0
    assert ddpm_sigmas(Ddpm(kind="ddpm", schedule="cosine")).isfinite().all()


def test_karras_levels_are_the_papers_and_diffusers() -> None:
    levels = sampling_sigmas(diffusion())
    assert levels[9].item() == pytest.approx((80 ** (1 / 7) + 9 / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7)
    scheduler = EDMEulerScheduler()
    scheduler.set_timesteps(18)
    torch.testing.assert_close(levels.float(), scheduler.sigmas)
    torch.testing.assert_close(karras_sigmas(1, 0.002, 80, 7), torch.tensor([80.0], dtype=torch.float64))


@pytest.mark.parametrize("kind", ["ddim", "ancestral"])
def test_a_schedules_own_timesteps_are_evenly_spaced_from_the_last(kind: str) -> None:
    known = ddpm_sigmas(Ddpm(kind="ddpm"))
    levels = sampling_sigmas(diffusion(objective={"kind": "ddpm"}, sampler={"kind": kind, "steps": 50}))
    torch.testing.assert_close(levels[:-1], known.flip(0)[::20], rtol=0, atol=0)
    assert levels[-1] == 0
    every = sampling_sigmas(diffusion(objective={"kind": "ddpm"}, sampler={"kind": kind, "steps": 1000}))
    torch.testing.assert_close(every[:-1], known.flip(0), rtol=0, atol=0)


def test_karras_levels_stay_within_what_a_ddpm_has_seen() -> None:
    known = ddpm_sigmas(Ddpm(kind="ddpm"))
    levels = sampling_sigmas(diffusion(objective={"kind": "ddpm"}, sampler={"sigma_max": 1000.0}))
    assert levels[0].item() == pytest.approx(known[-1].item())
    assert levels[-2].item() == pytest.approx(known[0].item())
