"""The weighted stream: batches of several sets of shards, the same for any number of nodes, ranks and threads.

The image at position t of the infinite sequence is a pure function of t (`MixtureSchedule`). Rank r of W takes a contiguous
slice of each global batch. So every rank sees each source in its share, resuming needs one number, and all ranks take the
same steps.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from functools import partial
from typing import Self

import numpy as np
from pydantic import JsonValue

from adainf.errors import BadInput
from adainf.shards.format.decode import Corruption
from adainf.shards.format.png import Pixels
from adainf.shards.loader.batch import Batch, slice_of
from adainf.shards.loader.companions import CompanionFetcher
from adainf.shards.loader.complete import Crops
from adainf.shards.loader.curriculum import Curriculum
from adainf.shards.loader.fetcher import Fetcher, Split
from adainf.shards.loader.fingerprint import Fingerprint, check_ranks, check_same, hash_of, slice_hash
from adainf.shards.loader.mixture import Planned
from adainf.shards.loader.permutation import Integers
from adainf.shards.loader.planner import Planner
from adainf.shards.loader.source import Opener, Sources
from adainf.shards.loader.weights import Weight, is_whole

_CHECKABLE = 64
"""Most recent batches that `check` accepts."""


class Stream:
    """An infinite iterator of `Batch`, created by `open_stream`. Close it, or use it in a ``with`` statement."""

    def __init__(
        self,
        fetcher: Fetcher,
        curriculum: Curriculum,
        opener: Opener,
        fingerprint: Fingerprint,
        global_batch: int,
        rank: int,
        world: int,
        ahead: int,
    ) -> None:
        self._fetcher, self._fingerprint, self._opener = fetcher, fingerprint, opener
        self._first = self._curriculum = curriculum
        self.global_batch, self.rank, self.world = global_batch, rank, world
        self.slice = slice_of(global_batch, rank, world)
        self.originals = opener.originals
        """Whether a source keeps the files of its photos, of which views should be cropped (`crop`)."""
        self.loss_weight = (self.slice.stop - self.slice.start) * world / global_batch
        """Factor for the mean loss of this rank's slice, which makes the mean over ranks that of the global batch."""
        self.data_wait_seconds = 0.0
        """Total time that the consumer waited for batches, where data loading limits throughput."""
        self.allocate: Callable[[tuple[int, ...]], Pixels] = lambda shape: np.empty(shape, np.uint8)
        """Allocates the arrays for images, for example in pinned memory."""
        self._crops: Crops | None = None
        self._ahead = ahead
        self._step = 0
        self._planner = Planner(curriculum.schedule, global_batch, self.slice)
        self._yielded: deque[tuple[int, Integers]] = deque(maxlen=_CHECKABLE)
        self._batches: dict[int, Future[Batch]] = {}
        """By step: those prepared ahead."""
        self._producer = ThreadPoolExecutor(1, "batches")
        self._pid, self._closed = os.getpid(), False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        """The next batch. Raises `BadInput` for corruption, by the policy, and in a forked process.

        An exception from outside, such as a keyboard interrupt, neither skips nor repeats a batch.
        """
        self._check_usable()
        started, step = time.perf_counter(), self._step
        for ahead in range(step, step + self._ahead + 1):
            if ahead not in self._batches:
                self._batches[ahead] = self._producer.submit(self._make, ahead)
        try:
            batch = self._batches[step].result()
        except Exception:
            self._batches.clear()  # the next call tries again
            raise
        self._yielded.append((batch.step, batch.indices))
        self.data_wait_seconds += time.perf_counter() - started
        # CPython runs signal handlers at calls. There is none below, so an exception comes before the step or after the return.
        self._step = step + 1
        del self._batches[step]
        return batch

    def crop(self, crops: Crops) -> None:
        """From the next batch on, `Batch.views` are random crops of the images as they are stored, at their own size.

        Raises `BadInput` where a source is not cached encoded, and for a stream with companions.
        """
        self._check_usable()
        if not self._fetcher.crops:
            raise BadInput("crops are cut from encoded images; open the stream with cached='encoded' and without window_shards")
        if self.companions is not None:
            raise BadInput(
                "companions are images of one size, not crops; ingest with real.keep: resized, or leave out companions"
            )
        self._crops = crops
        self.seek(self._step)

    def seek(self, step: int) -> None:
        """Continue with the batch of that step. Raises `BadInput` for anything but a number of 0 or more."""
        self._check_usable()
        if not is_whole(step) or step < 0:
            raise BadInput(f"seek to step {step!r} is invalid; give a whole number of 0 or more")
        for batch in self._batches.values():
            batch.cancel()
        self._batches.clear()
        self._producer.submit(self._fetcher.reset)
        self._step = int(step)

    def _check_usable(self) -> None:
        if self._closed:
            raise BadInput("the stream is closed; open another one with open_stream")
        if os.getpid() != self._pid:  # its threads do not exist here, so it would wait for ever
            raise BadInput(
                f"the stream was opened by process {self._pid} and is used by process {os.getpid()}, its fork; open it in the "
                "process that uses it, for example with num_workers=0 in a DataLoader"
            )

    def continue_with(
        self,
        *,
        weights: Mapping[str, Weight] | None = None,
        shares: Mapping[str, Weight] | None = None,
        sources: Sources | None = None,
        step: int | None = None,
    ) -> None:
        """Change the mixture from the next batch on, or from a later `step`. Each source continues at its position.

        `weights`, `shares`: of sources by name, the others keep their weight; 0 leaves a source out. `sources`: further ones.
        Call it at the same step with the same arguments on every rank. The change is part of the state: a stream that loads the
        state continues with it. Raises `BadInput` for invalid arguments, and the stream stays as it is.
        """
        self._check_usable()
        step = self._step if step is None else step
        if not is_whole(step) or step < self._step:
            raise BadInput(f"a change at step {step!r} is invalid; give the next step, {self._step}, or a later one")
        self._adopt(self._curriculum.change(int(step), weights, shares, sources, self._opener))

    def _adopt(self, curriculum: Curriculum) -> None:
        opened = [split.identity for split in self._fetcher.splits[len(self._first.names) :]]
        wanted = [(added.folder.digest, added.split) for added in curriculum.added]
        if opened[: len(wanted)] != wanted[: len(opened)]:
            raise BadInput("this stream has other added sources than the state; open another stream with open_stream")
        for batch in self._batches.values():
            batch.cancel()
        self._batches.clear()
        self._producer.submit(self._change, curriculum, len(opened)).result()

    def _change(self, curriculum: Curriculum, opened: int) -> None:
        splits: list[Split] = []
        try:
            for added in curriculum.added[opened:]:
                splits.append(self._opener.open(added.folder, added.split))
                if self._fetcher.size not in (None, splits[-1].size):
                    raise BadInput(f"the images of source {added.name} have another size than those of the stream; set size_px")
        except BaseException:
            for split in splits:
                split.close()
            raise
        self._fetcher.change(curriculum.schedule, splits)
        self._planner = Planner(curriculum.schedule, self.global_batch, self.slice)
        self._curriculum = curriculum

    def state_dict(self) -> dict[str, JsonValue]:
        """The position of the stream, as JSON: the same on every rank, valid for any number of ranks."""
        return self.state_at(self._step)

    def state_at(self, step: int) -> dict[str, JsonValue]:
        """The state before the batch of that step."""
        return {**self._identity(), "step": step}

    def _identity(self) -> Fingerprint:
        changes = self._curriculum.changes
        return {**self._fingerprint, "changes": list(changes)} if changes else self._fingerprint

    def load_state_dict(self, state: dict[str, JsonValue]) -> int:
        """Resume from that state; the step of the next batch. Raises `BadInput`, with the differences, for the state of another
        stream."""
        check_same({key: value for key, value in state.items() if key not in ("step", "changes")}, self._fingerprint)
        step, changes = state.get("step"), state.get("changes", [])
        if not isinstance(step, int) or not is_whole(step) or step < 0:
            raise BadInput(f"the saved position has step {step!r}, not a step number; restore the file that it was loaded from")
        self._check_usable()
        if changes != list(self._curriculum.changes):
            self._adopt(self._first.replay(changes, self._opener))
        self.seek(step)
        return step

    def drawn(self, step: int) -> list[int]:
        """The number of images of each source in all global batches before that step."""
        return self._curriculum.schedule.drawn(step * self.global_batch)

    def plan(self, step: int, rank: int | None = None) -> tuple[Integers, Integers]:
        """(sources, indices) of the slice of a rank (None: this one) at a step; reads no data."""
        return self.planned(step, rank)[:2]

    def planned(self, step: int, rank: int | None = None) -> Planned:
        """`plan`, with the number of images drawn before each."""
        part = self.slice if rank is None else slice_of(self.global_batch, rank, self.world)
        first = step * self.global_batch
        return self._curriculum.schedule.planned(np.arange(first + part.start, first + part.stop))

    def check(self, step: int, sources: Integers, indices: Integers, gather: Callable[[int], list[int]]) -> None:
        """Compare the images received at `step` with the plan, on this rank and across ranks.

        `gather` returns the 64-bit hashes of all ranks, by rank. Raises `BadInput` where a wrapper splits the batches across
        processes once more, two processes have the same rank, or ranks read different sets.
        """
        planned = self.plan(step)
        yielded = next((numbers for at, numbers in self._yielded if at == step), planned[1])  # with replacements
        received = np.array_equal(sources, planned[0]) and np.array_equal(indices, yielded)
        hashes = gather(self._hash(step, self.rank) if received else 0)
        if not received:
            raise BadInput(
                f"step {step}, rank {self.rank}: the images received are not those of its slice; iterate over the stream "
                "directly, not through accelerator.prepare or a DataLoader, which split it across processes once more"
            )
        check_ranks(step, hashes, [self._hash(step, rank) for rank in range(self.world)])

    def _hash(self, step: int, rank: int) -> int:
        first = step * self.global_batch + slice_of(self.global_batch, rank, self.world).start
        return slice_hash(hash_of(self._identity()), first, *self.plan(step, rank))

    def all_images(self) -> list[Pixels]:
        """The images of each source, N x H x W x 3 uint8, once all shards are ready; corrupt images are replaced."""
        self.wait_until_filled()
        return [split.all_images() for split in self._fetcher.complete_splits()]

    def all_labels(self) -> list[Integers]:
        """The labels of those images."""
        self.wait_until_filled()
        return [split.all_labels() for split in self._fetcher.complete_splits()]

    @property
    def counts(self) -> list[int]:
        """The number of images of each source."""
        return list(self._curriculum.schedule.counts)

    @property
    def shares(self) -> dict[str, Fraction]:
        """The exact share of each source of the next batch, by name; they sum to 1."""
        mixture = self._curriculum.schedule.mixture_at(self._step * self.global_batch)
        return {name: share for name, share in zip(self._curriculum.names, mixture.shares, strict=False) if share}

    @property
    def share_error(self) -> float:
        """The largest difference of a share to the one asked for; 0 unless a float weight exceeds exact arithmetic."""
        return self._curriculum.schedule.mixture_at(self._step * self.global_batch).used.error

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) in px of every image. Raises `BadInput` where they differ."""
        if self._fetcher.size is None:
            raise BadInput("the images of this set differ in size; ingest them with real.image_size_px to give all one size")
        return self._fetcher.size

    def wait_until_filled(self) -> None:
        """Block until every shard is fetched and verified (at once for a windowed stream, which never holds all)."""
        self._check_usable()
        self._producer.submit(self._fetcher.wait_for_all, self._step * self.global_batch).result()

    @property
    def damage(self) -> list[Corruption]:
        """The corrupt samples found so far, which are replaced by others."""
        splits = [*self._fetcher.splits, *([self.companions.split] if self.companions else [])]
        return [record for split in splits for record in split.quarantine.records()]

    @property
    def companions(self) -> CompanionFetcher | None:
        """The fetcher of companions; None for a stream without."""
        return self._fetcher.companions

    def close(self) -> None:
        """Stop the threads and release maps and locks; the cache remains. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        for batch in self._batches.values():
            batch.cancel()
        self._fetcher.stop()
        self._producer.shutdown(wait=True)
        self._fetcher.close()

    def _make(self, step: int) -> Batch:
        size, crops, companions = self._fetcher.size, self._crops, None
        plan, position = self._planner.at(step), step * self.global_batch + self.slice.start
        sizes = crops.sizes if crops is not None else [size] if size else []
        outs = [self.allocate((len(plan.sources), *each, 3)) for each in sizes]
        draw_of = None if crops is None else partial(crops.drawing, step)
        fetched = self._fetcher.fetch(position, plan.sources, plan.images, outs, draw_of)
        if self.companions:
            schedule = self._curriculum.schedule
            companions = self.companions.fetch(schedule, position, plan, fetched.indices, self.allocate)
        images, views = fetched.images[0] if outs else fetched.images, tuple(outs) if crops is not None else ()
        return Batch(step, images, plan.sources, fetched.indices, fetched.labels, views, companions)
