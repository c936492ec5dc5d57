"""Every method on 1, 2 and 4 processes with different data each: the same loss, gradients and state as on one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.methods.tiny import SETTINGS, assert_close, train
from tests.processes import run_on_ranks

STEPS = 5


def train_all() -> dict[str, Any]:
    return {name: train(name, STEPS) for name in SETTINGS}


@pytest.fixture(scope="module")
def single() -> dict[str, Any]:
    return train_all()


@pytest.fixture(scope="module", params=[2, 4])
def together(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return run_on_ranks(request.param, train_all)


@pytest.mark.parametrize("name", SETTINGS)
def test_loss_gradients_and_state_are_those_of_one_process(
    name: str, single: dict[str, Any], together: list[dict[str, Any]]
) -> None:
    expected = single[name]
    assert expected["gradients"]
    for found in (rank[name] for rank in together):
        assert found["loss"] == pytest.approx(expected["loss"], abs=1e-12)
        assert_close(found["gradients"], expected["gradients"], 1e-9)
        assert_close(found["state"], expected["state"], 1e-9)


@pytest.mark.parametrize("name", SETTINGS)
def test_what_every_process_holds_is_bit_for_bit_the_same(name: str, together: list[dict[str, Any]]) -> None:
    """Weights, teacher and its batch statistics, queue and its end, centre: what rank 0 saves is what all have."""
    first = together[0][name]["state"]
    for rank in together[1:]:
        for key, value in rank[name]["state"].items():
            assert torch.equal(value, first[key]), key


@pytest.mark.parametrize("name", SETTINGS)
def test_training_moves_all_that_it_should(name: str, single: dict[str, Any]) -> None:
    """Else the comparisons above could be of things that stand still."""
    start = train(name, 0)["state"]
    still = [key for key, value in single[name]["state"].items() if torch.equal(value, start[key])]
    assert [key for key in still if not key.endswith("3.bias")] == []  # those before a batch normalisation have no gradient
