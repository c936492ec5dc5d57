"""LARS against a loop of its paper, and the learning rate in closed form."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from adainf import recipe
from adainf.pretraining.optim import Lars, learning_rate_at


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
