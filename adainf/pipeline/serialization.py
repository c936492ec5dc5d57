"""Serialization of tensors and JSON as one safetensors file: no pickles, and the same bytes for the same values."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor
from torch.optim import Optimizer

from adainf.errors import BadInput
from adainf.pipeline.records import canonical_json

_JSON_KEY = "adainf"  # a single key: safetensors does not preserve the order of several


def encode(tensors: dict[str, Tensor], extra: Any) -> bytes:
    """One safetensors file; its header contains `extra`, any JSON value, and a SHA-256 of everything."""
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save(held, {_JSON_KEY: canonical_json({"extra": extra, "sha256": _digest(held, extra)}).decode()})


def _digest(tensors: dict[str, Tensor], extra: Any) -> str:
    """Safetensors has no checksum: training would resume silently from a bit flip."""
    digest = hashlib.sha256(canonical_json(extra))
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class Corrupt(ValueError):
    """The bytes are not an output of `encode`; the message is the reason."""


def parse(data: bytes) -> tuple[dict[str, Tensor], Any]:
    """Inverse of `encode`. Raises `Corrupt`."""
    try:
        tensors = load(data)
        size = int.from_bytes(data[:8], "little")
        held = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][_JSON_KEY])
        if held["sha256"] != _digest(tensors, held["extra"]):
            raise ValueError("SHA-256 mismatch")
    except Exception as error:  # of safetensors, json or a lookup: in each case the file is corrupt
        raise Corrupt(str(error)) from None
    return tensors, held["extra"]


def decode(data: bytes, where: str) -> tuple[dict[str, Tensor], Any]:
    """Inverse of `encode`. Raises `BadInput` for a corrupt file; `where` names it in the message."""
    try:
        return parse(data)
    except Corrupt as error:
        raise BadInput(f"{where} is corrupt ({error}); delete it and run its stage again") from None


def flatten_optimizer(optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimizer's tensors by name, without its hyperparameters: the schedules set those."""
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer.{index}.{name}": value
        for index, values in state.items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    """Inverse of `flatten_optimizer`."""
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
