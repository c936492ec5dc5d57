"""Tensors and a little JSON as one safetensors object: no pickles, and the same bytes for the same values."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor
from torch.optim import Optimizer

from adainf.errors import BadInput
from adainf.pipeline.artifacts import canonical_json

_JSON_KEY = "adainf"  # one key only: safetensors does not keep the order of several


def encode(tensors: dict[str, Tensor], extra: Any) -> bytes:
    """One safetensors file with `extra`, any JSON value, and a SHA-256 of all of it in its header."""
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save(held, {_JSON_KEY: canonical_json({"extra": extra, "sha256": _digest(held, extra)}).decode()})


def _digest(tensors: dict[str, Tensor], extra: Any) -> str:
    """Safetensors has no checksum: a flipped bit would train on without a sound."""
    digest = hashlib.sha256(canonical_json(extra))
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class Corrupt(ValueError):
    """These are not the bytes that `encode` gave; the message is the reason."""


def parse(data: bytes) -> tuple[dict[str, Tensor], Any]:
    """What `encode` was given. Raises `Corrupt`."""
    try:
        tensors = load(data)
        size = int.from_bytes(data[:8], "little")
        held = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][_JSON_KEY])
        if held["sha256"] != _digest(tensors, held["extra"]):
            raise ValueError("its SHA-256 is another")
    except Exception as error:  # safetensors, json and KeyError alike: whatever it is, the file is damaged
        raise Corrupt(str(error)) from None
    return tensors, held["extra"]


def decode(data: bytes, where: str) -> tuple[dict[str, Tensor], Any]:
    """What `encode` was given. Raises `BadInput` for a damaged file; `where` names it in the message."""
    try:
        return parse(data)
    except Corrupt as error:
        raise BadInput(f"{where} is damaged ({error}); delete it and run its stage again") from None


def flatten_optimizer(optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimiser's tensors by name; learning rates and the like are the schedule's, not the state's."""
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer.{index}.{name}": value
        for index, values in state.items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `flatten_optimizer` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def with_prefix(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in state.items()}


def without_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}
