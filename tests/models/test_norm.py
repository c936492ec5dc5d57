"""Batch normalisation over several processes equals one process with the global batch, gradients included."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adainf.models.norm import synchronise_batch_norm
from adainf.runtime.distributed import all_reduce_sum, rank, world_size
from tests.processes import run_on_ranks


def through_batch_norm() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Output and input gradient of this rank's rows, summed weight gradient, running variance."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(8, 4, 3, 3, generator=generator) * 2 + 5
    target = torch.randn(8, 4, 3, 3, generator=generator)
    norm = nn.BatchNorm2d(4)
    nn.init.uniform_(norm.weight, generator=torch.Generator().manual_seed(4))
    network: Any = synchronise_batch_norm(nn.Sequential(norm), torch.device("cpu"))
    rows = slice(rank() * 8 // world_size(), (rank() + 1) * 8 // world_size())
    mine = x[rows].clone().requires_grad_()
    out = network(mine)
    (out * target[rows]).sum().backward()
    assert mine.grad is not None
    weight_gradient = all_reduce_sum(network[0].weight.grad)
    return out.detach(), mine.grad, weight_gradient, network[0].running_var


@pytest.mark.parametrize("world", [2, 4])
def test_statistics_and_gradients_are_those_of_the_global_batch(world: int) -> None:
    expected = through_batch_norm()  # one process: torch's own BatchNorm2d
    results = run_on_ranks(world, through_batch_norm)
    for index in (0, 1):
        torch.testing.assert_close(torch.cat([r[index] for r in results]), expected[index], atol=1e-5, rtol=1e-5)
    for result in results:
        torch.testing.assert_close(result[2], expected[2], atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(result[3], expected[3], atol=1e-5, rtol=1e-5)
        assert torch.equal(result[3], results[0][3])  # replicated state is the same bits on every rank


def test_evaluation_uses_the_running_statistics() -> None:
    network = synchronise_batch_norm(nn.Sequential(nn.BatchNorm2d(2)), torch.device("cpu")).eval()
    x = torch.randn(3, 2, 2, 2)
    torch.testing.assert_close(network(x), x / (1 + 1e-5) ** 0.5)
