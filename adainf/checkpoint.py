"""Tensors and a little JSON as one safetensors object: no pickles, and the same bytes for the same values."""

from __future__ import annotations

import json
from typing import Any

from safetensors.torch import load, save
from torch import Tensor
from torch.optim import Optimizer

from adainf.artifacts import Run, canonical_json
from adainf.exitcodes import BadInput
from adainf.storage import NotFound

_JSON_KEY = "adainf"  # one key only: safetensors does not keep the order of several


def encode(tensors: dict[str, Tensor], extra: Any) -> bytes:
    """One safetensors file with `extra`, any JSON value, in its header."""
    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save(held, {_JSON_KEY: canonical_json(extra).decode()})


def decode(data: bytes, where: str) -> tuple[dict[str, Tensor], Any]:
    """What `encode` was given. Raises `BadInput` for a damaged file; `where` names it in the message."""
    try:
        tensors = load(data)
        size = int.from_bytes(data[:8], "little")
        extra = json.loads(json.loads(data[8 : 8 + size])["__metadata__"][_JSON_KEY])
    except Exception as error:  # safetensors, json and KeyError alike: whatever it is, the file is damaged
        raise BadInput(f"{where} is damaged ({error}); delete it and run its stage again") from None
    return tensors, extra


class Checkpoint:
    """The state of an unfinished stage, in one object that each save replaces as a whole."""

    def __init__(self, run: Run, folder: str) -> None:
        self._run, self._key = run, f"{folder}/checkpoint.safetensors"

    def save(self, tensors: dict[str, Tensor], extra: Any) -> None:
        self._run.store.put(self._key, encode(tensors, extra))

    def load(self) -> tuple[dict[str, Tensor], Any] | None:
        """The last save, or None where there is none."""
        try:
            data = self._run.store.get(self._key)
        except NotFound:
            return None
        return decode(data, self._run.locate(self._key))

    def delete(self) -> None:
        """The stage is finished: its artifact holds what counts."""
        self._run.store.delete(self._key)


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
