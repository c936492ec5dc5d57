"""A batch in chunks equals the complete batch: gradients of GradCache; settings for which it would not are refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from adainf import recipe
from adainf.errors import BadInput
from adainf.methods import build_method
from adainf.models.backbones import build_backbone
from adainf.pretraining.trainer import _accumulate, _check_chunks, _gradcache
from adainf.runtime.distributed import average_gradients, local_rows, mean_over_ranks
from tests.methods.tiny import assert_close, global_views, tiny_method
from tests.processes import run_on_ranks

NAMES = ["simclr", "moco", "dino", "clip"]
"""Those without batch normalisation in their heads."""


def gradients(name: str, chunk: int | None, accumulate: bool = False) -> dict[str, Any]:
    method = tiny_method(name, norm=False)
    method.before_step(0, 10)
    views, identities = global_views(name, 0)
    views, identities = [local_rows(view) for view in views], local_rows(identities)
    if chunk is None:
        embedded = method(views)
        loss = method.loss(embedded.rows, identities)
        loss.backward()
    else:
        chunks = [slice(at, at + chunk) for at in range(0, len(identities), chunk)]
        backward = _accumulate if accumulate else _gradcache
        loss, embedded = backward(method, method, views, identities, chunks, torch.Tensor.backward)
    average_gradients(method.parameters())
    rows = {f"row {number}": row.detach() for number, row in enumerate(embedded.rows)}
    grads = {key: p.grad for key, p in method.named_parameters() if p.grad is not None}
    return {"loss": mean_over_ranks(loss), "rows": rows, "gradients": grads}


@pytest.mark.parametrize("chunk", [1, 3, 8])
@pytest.mark.parametrize("name", NAMES)
def test_gradcache_is_the_full_batch(name: str, chunk: int) -> None:
    expected, found = gradients(name, None), gradients(name, chunk)
    assert found["loss"] == pytest.approx(expected["loss"], abs=1e-12)
    assert_close(found["rows"], expected["rows"], 1e-12)
    assert_close(found["gradients"], expected["gradients"], 1e-12)


@pytest.mark.parametrize("name", ["moco", "dino"])
def test_accumulation_is_the_full_batch_where_rows_do_not_meet(name: str) -> None:
    expected, found = gradients(name, None), gradients(name, 3, accumulate=True)
    assert found["loss"] == pytest.approx(expected["loss"], abs=1e-12)
    assert_close(found["gradients"], expected["gradients"], 1e-12)


def test_accumulation_is_another_loss_where_they_do() -> None:
    """So the refusal below is not for nothing."""
    expected, found = gradients("simclr", None), gradients("simclr", 8, accumulate=True)
    assert abs(found["loss"] - expected["loss"]) > 0.1


def chunked_on_ranks() -> dict[str, Any]:
    return {name: gradients(name, 3) for name in NAMES}


def test_gradcache_on_two_processes_is_the_full_batch_on_one() -> None:
    for found in run_on_ranks(2, chunked_on_ranks):
        for name in NAMES:
            expected = gradients(name, None)
            assert found[name]["loss"] == pytest.approx(expected["loss"], abs=1e-12)
            assert_close(found[name]["gradients"], expected["gradients"], 1e-12)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"backbone": {"norm": "batch"}}, "set pretrain.backbone.norm to group"),
        ({"method": {"kind": "byol"}}, "with a method whose heads have no batch normalisation"),
        ({"chunking": "accumulate"}, "the loss of simclr compares each row with the complete batch"),
    ],
)
def test_what_would_train_another_network_is_refused(settings: dict[str, Any], sentence: str) -> None:
    given = {"backbone": {"name": "resnet-small", "norm": "group"}, "chunk_images": 4, **settings}
    if "backbone" in settings:
        given["backbone"] = {"name": "resnet-small", **settings["backbone"]}
    config = recipe.Pretrain.model_validate(given)
    with pytest.raises(BadInput, match=r"pretrain\.chunk") as error:
        _check_chunks(config, build_method(config.method, build_backbone(config.backbone)))
    assert sentence in str(error.value)
