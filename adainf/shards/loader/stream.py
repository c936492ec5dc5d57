"""The weighted stream: batches of several sets of shards, the same for any number of nodes, ranks and workers.

Position t of the endless sequence is a pure function of t (`schedule`); rank r of W takes a contiguous slice of each global
batch. So every rank holds each source in its share, to go on is to know one number, and no rank ever takes a step more.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, Self

import numpy as np
from pydantic import JsonValue

from adainf.errors import BadInput
from adainf.shards.format.decode import Damage
from adainf.shards.format.png import Pixels
from adainf.shards.loader.arrays import Integers
from adainf.shards.loader.fetcher import Supply
from adainf.shards.loader.fingerprint import Identity, check_same, slice_word, word_of
from adainf.shards.loader.mixture import MixtureSchedule

_PLANNED = 8192
"""Positions that are planned together: numpy's overhead is spread over them."""

_REMEMBERED = 64
"""Batches that `check` can be asked about after they were given out."""


class Batch(NamedTuple):
    """This rank's slice of one global batch."""

    step: int
    images: Pixels | list[Pixels]
    """b x H x W x 3 uint8 RGB; a list of H x W x 3 where images differ in size."""
    sources: Integers
    """b; which source each image is of, in the order in which they were given."""
    indices: Integers
    """b; its number in that source."""
    labels: Integers
    """b; -1 is none."""


class _Plan(NamedTuple):
    """The slices of some steps: row k is that of step `first` + k."""

    first: int
    sources: Integers
    indices: Integers


def slice_of(global_batch: int, rank: int, world: int) -> slice:
    """The contiguous part of the global batch that a rank takes; those of two ranks differ by one image at most.

    A strided part (every W-th image) would not do: with a share of 1/3 and 3 ranks, one rank would get all real images.
    """
    return slice(global_batch * rank // world, global_batch * (rank + 1) // world)


class Stream:
    """An endless iterator of `Batch`, made by `open_stream`. Close it, or use it in a ``with`` statement."""

    def __init__(
        self,
        supply: Supply,
        schedule: MixtureSchedule,
        identity: Identity,
        global_batch: int,
        rank: int,
        world: int,
        ahead: int,
    ) -> None:
        self._supply, self._schedule, self._identity = supply, schedule, identity
        self.global_batch, self.rank, self.world = global_batch, rank, world
        self.slice = slice_of(global_batch, rank, world)
        self.loss_weight = (self.slice.stop - self.slice.start) * world / global_batch
        """What the mean loss of this rank's slice is multiplied with, so that its mean over the ranks is that of the batch."""
        self.data_wait_seconds = 0.0
        """How long the consumer has waited for batches in all."""
        self.allocate: Callable[[tuple[int, ...]], Pixels] = lambda shape: np.empty(shape, np.uint8)
        """Makes the arrays that images are put into; pinned memory, for example."""
        self._ahead = ahead
        self._step = 0
        self._plan: _Plan | None = None
        self._given: deque[tuple[int, Integers]] = deque(maxlen=_REMEMBERED)
        self._batches: deque[Future[Batch]] = deque()
        self._producer = ThreadPoolExecutor(1, "batches")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        """The next batch. Raises `BadInput` for damage, as the policy says."""
        started = time.perf_counter()
        while len(self._batches) <= self._ahead:
            self._batches.append(self._producer.submit(self._make, self._step + len(self._batches)))
        batch = self._batches.popleft().result()
        self._step += 1
        self._given.append((batch.step, batch.indices))
        self.data_wait_seconds += time.perf_counter() - started
        return batch

    def seek(self, step: int) -> None:
        """Go on with the batch of that step."""
        for batch in self._batches:
            batch.cancel()
        self._batches.clear()
        self._producer.submit(self._supply.restart)
        self._step = step

    def state_dict(self) -> dict[str, JsonValue]:
        """Where the stream is, as JSON: the same on every rank, good for any number of them."""
        return self.state_at(self._step)

    def state_at(self, step: int) -> dict[str, JsonValue]:
        """The state before the batch of that step."""
        return {**self._identity, "step": step}

    def load_state_dict(self, state: dict[str, JsonValue]) -> int:
        """Go on where that stream was; the step of the next batch. Raises `BadInput`, naming what differs, where it was
        another stream."""
        check_same({key: value for key, value in state.items() if key != "step"}, self._identity)
        step = state.get("step")
        if not isinstance(step, int) or step < 0:
            raise BadInput(f"the saved position has step {step!r}, no number of a step; restore the file that it came from")
        self.seek(step)
        return step

    def drawn(self, step: int) -> list[int]:
        """How many images of each source the global batches before that step hold."""
        return self._schedule.drawn(step * self.global_batch)

    def plan(self, step: int, rank: int | None = None) -> tuple[Integers, Integers]:
        """(sources, indices) of a rank's slice (this one's for None) of the batch of a step, before anything is read."""
        part = self.slice if rank is None else slice_of(self.global_batch, rank, self.world)
        first = step * self.global_batch
        return self._schedule.at(np.arange(first + part.start, first + part.stop))

    def check(self, step: int, sources: Integers, indices: Integers, gather: Callable[[int], list[int]]) -> None:
        """Compare the images that arrived at `step` with the plan, on this rank and among all.

        `gather` gives the 64-bit words of all ranks, in their order. Raises `BadInput` where a wrapper has dealt the
        batches out once more, two processes are the same rank, or ranks read different sets.
        """
        planned = self.plan(step)
        given = next((numbers for at, numbers in self._given if at == step), planned[1])  # with stand-ins for what is damaged
        arrived = np.array_equal(sources, planned[0]) and np.array_equal(indices, given)
        seed = word_of(self._identity)
        first = step * self.global_batch
        words = gather(slice_word(seed, first + self.slice.start, *planned) if arrived else 0)
        if not arrived:
            raise BadInput(
                f"step {step}, rank {self.rank}: the images that arrived are not those of its slice; give the stream to the "
                "loop itself, not to accelerator.prepare or a DataLoader, which deal it out once more"
            )
        expected = [
            slice_word(seed, first + slice_of(self.global_batch, rank, self.world).start, *self.plan(step, rank))
            for rank in range(self.world)
        ]
        if words != expected:
            wrong = [rank for rank, (word, right) in enumerate(zip(words, expected, strict=False)) if word != right]
            raise BadInput(
                f"step {step}: {len(words)} processes for a stream of {self.world} ranks, and ranks {wrong} have other images "
                "than planned; start every process with its own rank and the same sets, weights, batch and seed"
            )

    def all_images(self) -> list[Pixels]:
        """The images of each source, N x H x W x 3 uint8, once all are filled; those in the place of damaged ones included."""
        self.wait_until_filled()
        return [split.all_images() for split in self._supply.whole_splits()]

    def all_labels(self) -> list[Integers]:
        """The labels of those images."""
        return [split.all_labels() for split in self._supply.whole_splits()]

    @property
    def counts(self) -> list[int]:
        """How many images each source has."""
        return [len(split) for split in self._supply.splits]

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in px of every image. Raises `BadInput` where they differ."""
        if self._supply.size is None:
            raise BadInput("images of several sizes are no set for this; ingest them with real.image_size_px")
        return self._supply.size

    def wait_until_filled(self) -> None:
        """Return when every shard has been fetched and found whole (but for a windowed stream, which never is)."""
        self._producer.submit(self._supply.wait_for_all, self._step * self.global_batch).result()

    @property
    def damage(self) -> list[Damage]:
        """The samples that were found damaged and have others in their places."""
        return [damage for split in self._supply.splits for damage in split.quarantine.records()]

    def close(self) -> None:
        """Stop the threads; the cache stays."""
        for batch in self._batches:
            batch.cancel()
        self._supply.stop()
        self._producer.shutdown(wait=True)
        self._supply.close()

    def _make(self, step: int) -> Batch:
        sources, indices = self._planned(step)
        size = self._supply.size
        empty = self.allocate((len(sources), *size, 3)) if size else None
        taken = self._supply.take(step * self.global_batch + self.slice.start, sources, indices, empty)
        return Batch(step, taken.images, sources, taken.indices, taken.labels)

    def _planned(self, step: int) -> tuple[Integers, Integers]:
        plan = self._plan
        if plan is None or not 0 <= step - plan.first < len(plan.sources):
            local = self.slice.stop - self.slice.start
            steps = np.arange(step, step + max(1, _PLANNED // max(local, 1)))
            positions = steps[:, None] * self.global_batch + np.arange(self.slice.start, self.slice.stop)
            sources, indices = self._schedule.at(positions.ravel())
            self._plan = plan = _Plan(step, sources.reshape(len(steps), local), indices.reshape(len(steps), local))
        return plan.sources[step - plan.first], plan.indices[step - plan.first]
