"""NT-Xent against the paper's own loop, against hand constants, and by parameter gradients on several processes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from adainf.dist import rank, world_size
from adainf.methods.simclr import nt_xent
from tests.processes import run_on_ranks

BATCH, INPUTS, OUTPUTS, TEMPERATURE = 8, 6, 5, 0.2


def loop_of_the_paper(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    """Algorithm 1 of Chen et al. 2020, pair by pair: z of 2k-1 and 2k are the two views of image k."""
    z = [view[k] / view[k].norm() for k in range(len(z1)) for view in (z1, z2)]
    losses = []
    for i in range(len(z)):
        j = i + 1 if i % 2 == 0 else i - 1
        others = sum(torch.exp(z[i] @ z[k] / temperature) for k in range(len(z)) if k != i)
        losses.append(-torch.log(torch.exp(z[i] @ z[j] / temperature) / others))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("temperature", [0.1, 0.2, 1.0])
def test_value_and_gradient_are_those_of_the_papers_loop(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    z1 = torch.randn(6, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    z2 = torch.randn(6, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    ours = torch.autograd.grad(loss := nt_xent(z1, z2, temperature), [z1, z2])
    theirs = torch.autograd.grad(reference := loop_of_the_paper(z1, z2, temperature), [z1, z2])
    assert loss.item() == pytest.approx(reference.item(), abs=1e-12)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-12, rtol=0)


@pytest.mark.parametrize("batch", [2, 7, 64])
def test_uniform_similarities_give_the_log_of_the_candidates(batch: int) -> None:
    same = torch.ones(batch, 3)
    assert nt_xent(same, same, 0.2).item() == pytest.approx(math.log(2 * batch - 1), abs=1e-5)


def test_neither_scale_nor_rotation_nor_order_nor_the_views_names_matter() -> None:
    generator = torch.Generator().manual_seed(1)
    z1, z2 = (torch.randn(9, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    expected = nt_xent(z1, z2, 0.5)
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=generator, dtype=torch.float64)).Q
    order = torch.randperm(9, generator=generator)
    for other in (
        nt_xent(3 * z1, 0.1 * z2, 0.5),
        nt_xent(z1 @ rotation, z2 @ rotation, 0.5),
        nt_xent(z1[order], z2[order], 0.5),
        nt_xent(z2, z1, 0.5),
    ):
        torch.testing.assert_close(other, expected, atol=1e-12, rtol=0)


def test_half_precision_projections_give_a_finite_float32_loss() -> None:
    z = torch.randn(16, 8, generator=torch.Generator().manual_seed(2))
    with torch.autocast("cpu", torch.bfloat16):
        loss = nt_xent(z.bfloat16() * 1e4, z.bfloat16() * 1e4, 0.05)
    assert loss.dtype is torch.float32
    assert torch.isfinite(loss)


def gradients() -> tuple[float, list[Tensor]]:
    """Mean loss over the ranks and the parameter gradients, of a network that sees another slice of the batch on each."""
    torch.manual_seed(0)
    network: nn.Module = nn.Sequential(nn.Linear(INPUTS, 7), nn.Tanh(), nn.Linear(7, OUTPUTS)).double()
    generator = torch.Generator().manual_seed(1)
    view1 = torch.randn(BATCH, INPUTS, generator=generator, dtype=torch.float64)
    view2 = view1 + 0.3 * torch.randn(BATCH, INPUTS, generator=generator, dtype=torch.float64)
    local = BATCH // world_size()
    mine = slice(rank() * local, (rank() + 1) * local)
    model = DistributedDataParallel(network) if world_size() > 1 else network
    z1, z2 = model(torch.cat([view1[mine], view2[mine]])).chunk(2)
    loss = nt_xent(z1, z2, TEMPERATURE)
    loss.backward()
    return loss.item(), [parameter.grad for parameter in network.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("world", [2, 4])
def test_many_processes_have_the_gradient_of_one(world: int) -> None:
    expected_loss, expected = gradients()
    results = run_on_ranks(world, gradients)
    assert sum(loss for loss, _ in results) / world == pytest.approx(expected_loss, abs=1e-12)
    for _, found in results:
        for mine, other in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, other, atol=1e-9, rtol=0)
