"""A step of pretraining gives its device work without blocking; checked on fake tensors, so on any machine.

Whoever waits has the device stand still until its next call: views of an H100 took 45 % of a step so.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from adainf import recipe
from adainf.augment import colour
from adainf.augment.profiles import default_views
from adainf.augment.views import augment
from adainf.methods import build_method
from adainf.models.backbones import build_backbone
from adainf.pretraining.optim import build_optimizer, clip_gradients
from adainf.runtime.determinism import constant
from tests.pretraining.test_trainer import METHODS, config

ATEN = torch.ops.aten
READS = (ATEN._local_scalar_dense, ATEN.nonzero, ATEN.masked_select)
"""Their result, or its shape, is known to the program only once the device has come so far."""
CUDA = torch.device("cuda", 0)
BATCH = 16


class Waits(TorchDispatchMode):
    """Collects the calls that wait: reads, and copies from or to the device that are to be complete on return."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if operator.overloadpacket is ATEN._pin_memory:  # needs a driver
            return args[0]
        devices = {leaf.device.type for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        devices |= {kwargs["device"].type} if isinstance(kwargs.get("device"), torch.device) else set()
        packet = operator.overloadpacket
        index_by_mask = packet is ATEN.index and any(each is not None and each.dtype == torch.bool for each in args[1])
        between = len(devices) > 1 and packet in (ATEN._to_copy, ATEN.copy_, ATEN.index_put_, ATEN.masked_scatter)
        non_blocking = kwargs.get("non_blocking") or (packet is ATEN.copy_ and len(args) > 2 and args[2])
        if ("cuda" in devices and (packet in READS or index_by_mask)) or (between and not non_blocking):
            frames = [frame for frame in inspect.stack() if "/adainf/" in frame.filename]
            self.found.append(f"{operator} at {frames[0].filename}:{frames[0].lineno}" if frames else str(operator))
            if packet is ATEN._local_scalar_dense:
                return 1.0
        return operator(*args, **kwargs)


@pytest.fixture(autouse=True)
def _own_constants() -> Iterator[None]:
    """Fake ones end with the test."""
    for cache in (constant, colour._luma_chroma_rotated):
        cache.cache_clear()
    yield
    for cache in (constant, colour._luma_chroma_rotated):
        cache.cache_clear()


def to_fake_device(module: nn.Module) -> None:
    for part in module.modules():
        tables: list[dict[str, Any]] = [part._parameters, part._buffers]
        for kept in tables:
            for name, tensor in kept.items():
                if tensor is not None:
                    fake = torch.empty(tensor.shape, dtype=tensor.dtype, device=CUDA)
                    kept[name] = nn.Parameter(fake, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else fake


def waits(settings: recipe.Pretrain) -> list[str]:
    """Of the second step; the first one copies what is constant."""
    method = build_method(settings.method, build_backbone(settings.backbone))
    with FakeTensorMode(), Waits() as watch:
        to_fake_device(method)
        optimizer = build_optimizer(method.parameters(), settings.optimizer)
        images = torch.empty(BATCH, 16, 16, 3, dtype=torch.uint8, device=CUDA)
        identities, tokens = torch.arange(BATCH, device=CUDA), torch.zeros(BATCH, 8, dtype=torch.uint8, device=CUDA)
        for step in range(2):
            watch.found.clear()
            method.before_step(step, settings.steps)
            views = augment(
                images, identities, 7, step, method.views(default_views(settings.augmentation)), (0.5,) * 3, (0.2,) * 3
            )
            embedded = method([*views, *[tokens] * method.reads_text])
            method.loss(embedded.rows, identities)
            for parameter in method.parameters():  # a backward pass wants a real device
                parameter.grad = torch.empty_like(parameter)
            method.before_update()
            clip_gradients(method.parameters(), 1.0)
            optimizer.step()
            method.after_update([row.detach() for row in embedded.rows], identities)
    return watch.found


@pytest.mark.parametrize("name", METHODS)
def test_a_step_does_not_wait_for_the_device(name: str) -> None:
    assert waits(config(name, 6, optimizer={"kind": "lars", "learning_rate": 0.05})) == []


@pytest.mark.parametrize("hue", ["exact", "yiq"])
def test_views_of_any_profile_do_not(hue: Any) -> None:
    augmentation = {"hue": hue, "family": "asymmetric", "min_scale": 1.0}
    assert waits(config("simclr", 6, augmentation=augmentation)) == []


def test_what_waits_is_found() -> None:
    """Else the tests above could pass for nothing."""
    with FakeTensorMode(), Waits() as watch:
        x = torch.zeros(4, device=CUDA)
        x[0] = 1.0
        x[torch.arange(2, device=CUDA)] = 0.0
        torch.tensor(np.ones(3)).to(CUDA)
        assert len(watch.found) == 3
        x.sum().item()
        assert len(watch.found) == 4
