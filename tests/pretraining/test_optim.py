"""LARS against a loop of its paper, and the learning rate in closed form."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import pytest
import torch

from adainf import recipe
from adainf.pretraining.optim import Lars, apply_schedules, build_optimizer, clip_gradients, learning_rate_at


def reference_step(
    weight: torch.Tensor, gradient: torch.Tensor, velocity: torch.Tensor, lr: float, c: recipe.Optimizer
) -> None:
    """Algorithm 1 of You et al. 2017 for one matrix, with the rate clipped; plain momentum SGD for one dimension."""
    if weight.ndim > 1:
        norm, slope = weight.square().sum().sqrt(), gradient.square().sum().sqrt()
        local = c.trust_coefficient * norm / (slope + c.weight_decay * norm)
        gradient = (gradient + c.weight_decay * weight) * (min(local / lr, 1.0) if c.clip else local)
    velocity.copy_(c.momentum * velocity + gradient)
    weight -= lr * velocity


@pytest.mark.parametrize("clip", [True, False])
def test_steps_are_those_of_the_paper(clip: bool) -> None:
    config = recipe.Optimizer(learning_rate=0.3, weight_decay=0.01, clip=clip)
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(4, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4, generator=generator, dtype=torch.float64, requires_grad=True)
    copies = [matrix.detach().clone(), bias.detach().clone()]
    velocities = [torch.zeros_like(copy) for copy in copies]
    optimizer = Lars([matrix, bias], config)
    for step in range(5):
        for number, parameter in enumerate((matrix, bias)):
            parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 10.0 ** (step - 2)
            reference_step(copies[number], parameter.grad, velocities[number], 0.3, config)
        optimizer.step()
    torch.testing.assert_close(matrix.detach(), copies[0], atol=1e-8, rtol=0)
    torch.testing.assert_close(bias.detach(), copies[1], atol=1e-12, rtol=0)


def test_a_weight_of_zeros_still_learns() -> None:
    weight = torch.zeros(2, 2, requires_grad=True)
    weight.grad = torch.ones(2, 2)
    Lars([weight], recipe.Optimizer(learning_rate=0.1)).step()
    assert (weight < 0).all()


def test_the_rate_warms_up_linearly_and_falls_as_a_cosine() -> None:
    rates = [learning_rate_at(step, 1000, 0.4, 0.01) for step in range(1000)]
    assert rates[0] == pytest.approx(0.04)
    assert rates[9] == rates[10] == pytest.approx(0.4)
    assert rates[10 + 495] == pytest.approx(0.2)
    assert 0 < rates[-1] < 1e-5
    assert all(a >= b for a, b in pairwise(rates[10:]))


def test_no_warm_up_and_a_single_step_are_allowed() -> None:
    assert learning_rate_at(0, 1, 0.4, 0.0) == pytest.approx(0.4)


@pytest.mark.parametrize("kind", ["lars", "sgd", "adamw"])
def test_only_matrices_are_decayed_and_only_what_learns_is_moved(kind: Any) -> None:
    matrix, bias = torch.ones(3, 3, requires_grad=True), torch.ones(3, requires_grad=True)
    teacher = torch.ones(3, 3)
    config = recipe.Optimizer(kind=kind, learning_rate=0.1, weight_decay=0.5)
    optimizer = build_optimizer([matrix, bias, teacher], config)
    matrix.grad, bias.grad = torch.zeros(3, 3), torch.zeros(3)
    optimizer.step()
    assert (matrix < 1).all()
    assert (bias == 1).all()
    assert (teacher == 1).all()


def test_sgd_and_adamw_are_torchs() -> None:
    peers: list[tuple[Literal["sgd", "adamw"], Any]] = [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)]
    for kind, theirs in peers:
        ours, other = torch.ones(2, 2, requires_grad=True), torch.ones(2, 2, requires_grad=True)
        config = recipe.Optimizer(kind=kind, learning_rate=0.1, momentum=0.8, weight_decay=0.01)
        mine = build_optimizer([ours], config)
        moments = {"momentum": 0.8} if kind == "sgd" else {"betas": (0.8, 0.999)}
        reference = theirs([other], lr=0.1, weight_decay=0.01, **moments)
        for step in range(3):
            ours.grad = other.grad = torch.full((2, 2), float(step - 1))
            mine.step()
            reference.step()
        assert torch.equal(ours, other)


def test_rates_are_functions_of_the_step() -> None:
    config = recipe.Pretrain(
        steps=101, warmup_fraction=0.0, optimizer=recipe.Optimizer(kind="adamw", weight_decay=0.04, weight_decay_end=0.4)
    )
    matrix, bias = torch.ones(2, 2, requires_grad=True), torch.ones(2, requires_grad=True)
    optimizer = build_optimizer([matrix, bias], config.optimizer)
    decays = []
    for step in range(101):
        assert apply_schedules(optimizer, config, step) == learning_rate_at(step, 101, 0.4, 0.0)
        decays.append(optimizer.param_groups[0]["weight_decay"])
        assert optimizer.param_groups[1]["weight_decay"] == 0
    assert decays[0] == pytest.approx(0.04)
    assert decays[50] == pytest.approx(0.22)
    assert decays[100] == pytest.approx(0.4)


def test_each_parameters_gradient_is_shortened_by_itself() -> None:
    long, short = torch.ones(4, requires_grad=True), torch.ones(4, requires_grad=True)
    long.grad, short.grad = torch.tensor([3.0, 4.0, 0, 0]), torch.tensor([0.3, 0, 0, 0])
    clip_gradients([long, short, torch.ones(2, requires_grad=True)], 1.0)
    torch.testing.assert_close(long.grad, torch.tensor([0.6, 0.8, 0, 0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(short.grad, torch.tensor([0.3, 0, 0, 0]))
