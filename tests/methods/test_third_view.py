"""Generated positives in a method: `add` and `replace` on 1, 2 and 4 processes, with other rows on each, against independent
references; and a candidate is never a negative of its parent."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from adainf.methods.moco import MoCo
from adainf.methods.third_view import ThirdView, alignment
from adainf.models.norm import synchronise_batch_norm
from adainf.recipe import Add
from adainf.runtime.distributed import local_rows, mean_over_ranks, world_size
from tests.methods.test_losses import nt_xent_loop
from tests.methods.tiny import BATCH, SETTINGS, assert_close, global_views, tiny_method
from tests.processes import run_on_ranks

ALIGNING = [name for name, settings in SETTINGS.items() if settings.aligns_third_view]
STEPS = 3
USES = {"first": Add(kind="add", weight=0.7), "both": Add(kind="add", weight=1.3, align="both")}


def has_candidate(step: int) -> Tensor:
    """The ranks have different numbers of rows with a candidate."""
    return torch.tensor([1.0 if (row + step) % 5 and row > 2 else 0.0 for row in range(BATCH)], dtype=torch.float64)


def candidates(step: int) -> Tensor:
    generator = torch.Generator().manual_seed(1000 + step)
    return torch.randn(BATCH, 3, 8, 8, generator=generator, dtype=torch.float64)


def inputs(name: str, use: str, step: int) -> tuple[list[Tensor], Tensor]:
    views, identities = global_views(name, step)
    has = has_candidate(step)
    if use in USES:
        return [*views, candidates(step), has], identities
    replaced = torch.where(has[:, None, None, None] > 0, candidates(step), views[1 if name != "clip" else 0])
    views[1 if name != "clip" else 0] = replaced
    return views, identities


def train(name: str, use: str) -> dict[str, Any]:
    """The first step's loss and gradients, and the state at the end, on this rank's rows."""
    method = tiny_method(name)
    if use in USES:
        method = ThirdView(method, USES[use])
    method = synchronise_batch_norm(method, torch.device("cpu"))
    wrapped: nn.Module = DistributedDataParallel(method, broadcast_buffers=False) if world_size() > 1 else method
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.02, momentum=0.9)
    first: dict[str, Any] = {}
    for step in range(STEPS):
        views, identities = inputs(name, use, step)
        own = local_rows(identities)
        method.before_step(step, STEPS)
        embedded = wrapped([local_rows(view) for view in views])
        loss = method.loss(embedded.rows, own)
        optimizer.zero_grad()
        loss.backward()
        if not first:
            grads = {key: p.grad.clone() for key, p in method.named_parameters() if p.grad is not None}
            first = {"loss": mean_over_ranks(loss), "gradients": grads}
        method.before_update()
        optimizer.step()
        method.after_update([row.detach() for row in embedded.rows], own)
    return {**first, "state": {key: value.clone() for key, value in method.state_dict().items()}}


def cases() -> list[tuple[str, str]]:
    return [(name, use) for use in USES for name in ALIGNING] + [(name, "replace") for name in SETTINGS]


def train_all() -> dict[str, Any]:
    return {f"{name} {use}": train(name, use) for name, use in cases()}


@pytest.fixture(scope="module")
def single() -> dict[str, Any]:
    return train_all()


@pytest.fixture(scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)])
def together(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return run_on_ranks(request.param, train_all)


@pytest.mark.parametrize(("name", "use"), cases())
def test_any_number_of_processes_has_the_loss_gradients_and_state_of_one(
    name: str, use: str, single: dict[str, Any], together: list[dict[str, Any]]
) -> None:
    expected = single[f"{name} {use}"]
    for found in (rank[f"{name} {use}"] for rank in together):
        assert found["loss"] == pytest.approx(expected["loss"], abs=1e-12)
        assert_close(found["gradients"], expected["gradients"], 1e-9)
        assert_close(found["state"], expected["state"], 1e-9)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("name", ALIGNING)
def test_add_is_the_methods_own_loss_and_the_papers_term(name: str, use: str) -> None:
    """The term by a loop over images; the method's loss by the method without a third view."""
    ours, plain = ThirdView(tiny_method(name), USES[use]), tiny_method(name)
    views, identities = inputs(name, use, 0)
    for method in (ours, plain):
        method.before_step(0, STEPS)
    ours.loss(ours(views).rows, identities).backward()

    rows = plain(views[:-2]).rows
    third = plain.projector(plain.backbone(views[-2]))
    term = torch.zeros((), dtype=torch.float64)
    compared = rows[:2] if use == "both" else rows[:1]
    for row in range(BATCH):
        for z in compared:
            if views[-1][row]:
                cosine = z[row] @ third[row] / (z[row].norm() * third[row].norm())
                term = term + (2 - 2 * cosine) / (BATCH * len(compared))
    (plain.loss(rows, identities) + USES[use].weight * term).backward()
    found = {key.removeprefix("method."): p.grad for key, p in ours.named_parameters() if p.grad is not None}
    assert_close(found, {key: p.grad for key, p in plain.named_parameters() if p.grad is not None}, 1e-9)


def test_replace_is_the_papers_loss_of_the_candidates_rows() -> None:
    """SimCLR by a loop: a candidate's row is a positive of its parent's row and, as a copy's, never its negative."""
    views, identities = inputs("simclr", "replace", 0)
    ours, reference = tiny_method("simclr"), tiny_method("simclr")
    ours.loss(ours(views).rows, identities).backward()
    z1, z2 = reference(views).rows
    nt_xent_loop(z1, z2, identities, reference.temperature).backward()
    expected = {key: p.grad for key, p in reference.named_parameters() if p.grad is not None}
    assert_close({key: p.grad for key, p in ours.named_parameters() if p.grad is not None}, expected, 1e-9)


def test_a_queued_key_of_a_candidate_has_its_parents_identity_and_third_views_are_not_queued() -> None:
    for use in ("replace", "first"):
        inner = tiny_method("moco-sync")
        method = ThirdView(inner, USES[use]) if use in USES else inner
        views, identities = inputs("moco-sync", use, 0)
        method.before_step(0, STEPS)
        method.after_update([row.detach() for row in method(views).rows], identities)
        assert isinstance(inner, MoCo)
        assert inner.queued[: 2 * BATCH].tolist() == identities.tolist() * 2
        assert int(inner.filled_to) == 2 * BATCH


def test_images_without_a_candidate_count_zero() -> None:
    z, third = torch.randn(2, 8, 4, dtype=torch.float64)
    assert alignment([z], third, torch.zeros(8)) == 0
    assert float(alignment([z], 2 * z, torch.ones(8))) == pytest.approx(0, abs=1e-12)
    half = torch.tensor([1.0, 0.0] * 4)
    assert alignment([z], third, half) + alignment([z], third, 1 - half) == pytest.approx(alignment([z], third, torch.ones(8)))
