"""Batches as torch tensors on a device; no other module of this package imports torch.

On CUDA, images are gathered into pinned memory and copied while the previous step still computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Self

import numpy as np
import torch
from pydantic import JsonValue
from torch import Tensor

from adainf.errors import BadInput
from adainf.runtime.determinism import to_device
from adainf.shards.format.png import Pixels
from adainf.shards.loader.permutation import Integers
from adainf.shards.loader.source import Sources
from adainf.shards.loader.stream import Stream
from adainf.shards.loader.weights import Weight


class DeviceCandidates(NamedTuple):
    """See `Candidates`; both are on the device."""

    rows: Tensor
    """int64"""
    images_BHWC: Tensor
    """uint8"""


class DeviceBatch(NamedTuple):
    """See `Batch`; images and labels are on the device."""

    step: int
    images_BHWC: Tensor
    """uint8"""
    sources: Integers
    indices: Integers
    labels: Tensor
    """int64; on the device"""
    views_VBHWC: tuple[Tensor, ...] = ()
    """Random crops of `Stream.crop`, one tensor per view; `images_BHWC` is the first."""
    companions: DeviceCandidates | None = None


class _Resident(NamedTuple):
    """All images and labels of one source, on the device."""

    images: Tensor
    labels: Tensor


class DeviceStream:
    """The batches of a stream whose images have one size.

    `resident`: hold all images on the device (uint8, so 3.2 GB for a million of 32 x 32) and gather there. The constructor
    waits until every shard is ready; then the CPU only computes the plan. (`indices` are then those of the plan, also where a
    corrupt image is replaced by another.)
    """

    def __init__(self, stream: Stream, device: torch.device, resident: bool = False) -> None:
        self._stream, self._device, self._step = stream, device, 0
        self._resident: list[_Resident] = []
        self._candidates: Tensor | None = None
        if resident:
            self._hold_all()
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        if self._copies is not None:
            stream.allocate = _pinned

    def load_state_dict(self, state: dict[str, JsonValue]) -> int:
        """Resume from that state; the step of the next batch. Raises `BadInput` as `Stream.load_state_dict` does."""
        self._step = self._stream.load_state_dict(state)
        if self._resident:
            self._hold_all()
        return self._step

    def continue_with(
        self,
        *,
        weights: Mapping[str, Weight] | None = None,
        shares: Mapping[str, Weight] | None = None,
        sources: Sources | None = None,
    ) -> None:
        """Change the mixture from the next batch on, as `Stream.continue_with` does."""
        if self._resident:  # the stream itself has not advanced
            self._stream.seek(self._step)
        self._stream.continue_with(weights=weights, shares=shares, sources=sources)
        if self._resident:
            self._hold_all()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> DeviceBatch:
        """The next batch. Raises `BadInput` as the stream does. An interrupted copy neither skips nor repeats a batch."""
        if self._resident:
            return self._gathered(self._resident)
        batch = next(self._stream)
        try:
            assert not isinstance(batch.images, list)
            labels = to_device(torch.from_numpy(batch.labels), self._device)
            views = tuple(self._copied(torch.from_numpy(view)) for view in batch.views)
            images = views[0] if views else self._copied(torch.from_numpy(batch.images))
            companions = None
            if batch.companions is not None:
                rows = to_device(torch.from_numpy(batch.companions.rows), self._device)
                companions = DeviceCandidates(rows, self._copied(torch.from_numpy(batch.companions.images)))
            return DeviceBatch(batch.step, images, batch.sources, batch.indices, labels, views, companions)
        except BaseException:
            self._stream.seek(batch.step)
            raise

    def _hold_all(self) -> None:
        """Copy the images and labels of sources that are not on the device yet."""
        held = list(zip(self._stream.all_images(), self._stream.all_labels(), strict=True))
        for arrays in held[len(self._resident) :]:
            self._resident.append(_Resident(*(torch.from_numpy(array).to(self._device) for array in arrays)))
        if self._stream.companions and self._candidates is None:
            if self._stream.damage:  # the plan names the image, not its replacement, whose candidates differ
                raise BadInput("images or candidates are corrupt; restore them, or set stream.on_device to false")
            self._candidates = torch.from_numpy(self._stream.companions.all_images()).to(self._device)

    def _copied(self, images: Tensor) -> Tensor:
        if self._copies is None:
            return images.to(self._device)
        with torch.cuda.stream(self._copies):
            copy = images.to(self._device, non_blocking=True)
        using = torch.cuda.current_stream(self._device)
        using.wait_stream(self._copies)
        copy.record_stream(using)  # else the allocator could reuse its memory too early
        return copy

    def _gathered(self, resident: list[_Resident]) -> DeviceBatch:
        step = self._step
        sources, indices = self._stream.plan(step)
        images = torch.empty((len(sources), *resident[0].images.shape[1:]), dtype=torch.uint8, device=self._device)
        labels = torch.empty(len(sources), dtype=torch.int64, device=self._device)
        for number, source in enumerate(resident):
            rows = to_device(torch.from_numpy(np.flatnonzero(sources == number)), self._device)
            selected = to_device(torch.from_numpy(indices[sources == number]), self._device)
            images[rows], labels[rows] = source.images[selected], source.labels[selected]
        companions = None
        if self._candidates is not None:
            assert self._stream.companions is not None
            chosen = self._stream.companions.schedule.choose(self._stream.planned(step), indices)
            numbers = [to_device(torch.from_numpy(each), self._device) for each in chosen]
            companions = DeviceCandidates(numbers[0], self._candidates[numbers[1]])
        self._step = step + 1
        return DeviceBatch(step, images, sources, indices, labels, companions=companions)


def _pinned(shape: tuple[int, ...]) -> Pixels:
    # Torch reuses the memory only after the copies that read it.
    return torch.empty(shape, dtype=torch.uint8, pin_memory=True).numpy()
