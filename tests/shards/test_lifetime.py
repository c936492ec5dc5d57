"""The life of a stream: interrupted, idle, closed twice, used by a fork."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

from adainf.errors import BadInput
from adainf.shards import Stream
from adainf.shards.loader.device import DeviceStream
from tests.shards.sets import Mixture, make_mixture

STEPS = 8


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Mixture:
    return make_mixture(str(tmp_path_factory.mktemp("sets")))


def interrupt_at(line: int) -> Callable[[FrameType, str, Any], Any]:
    """A trace function that raises KeyboardInterrupt before the n-th line that `Stream.__next__` executes, once."""
    left = line

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal left
        if frame.f_code is not Stream.__next__.__code__:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return trace

    return trace


def lines_of_a_call(stream: Stream) -> int:
    """How many lines one call of `next` executes."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        if frame.f_code is not Stream.__next__.__code__:
            return None
        count += event == "line"
        return trace

    sys.settrace(trace)
    try:
        next(stream)
    finally:
        sys.settrace(None)
    return count


@pytest.mark.parametrize("prefetch_batches", [0, 2])
def test_an_interrupt_neither_skips_nor_repeats_a_batch(mixture: Mixture, prefetch_batches: int) -> None:
    """At every line of `next` at which a signal can arrive; after the step is set, one only arrives after the return."""
    with mixture.open(prefetch_batches=prefetch_batches) as stream:
        next(stream)  # the first call prepares more batches
        lines = lines_of_a_call(stream)
    assert lines > 8
    for line in range(1, lines - 1):
        with mixture.open(prefetch_batches=prefetch_batches) as stream:
            seen = [next(stream).step]
            sys.settrace(interrupt_at(line))
            try:
                with pytest.raises(KeyboardInterrupt):
                    next(stream)
            finally:
                sys.settrace(None)
            assert stream.state_dict()["step"] == 1
            seen += [next(stream).step for _ in range(STEPS)]
            assert seen == list(range(STEPS + 1)), f"interrupted at line {line}"
            assert stream.state_dict()["step"] == STEPS + 1


@pytest.mark.parametrize("resident", [False, True])
def test_an_interrupted_copy_to_the_device_loses_no_batch(
    mixture: Mixture, resident: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mixture.open() as stream:
        batches = DeviceStream(stream, torch.device("cpu"), resident)
        seen = [next(batches).step]
        with monkeypatch.context() as patch:
            patch.setattr("adainf.shards.loader.device.to_device", lambda *_: signal.raise_signal(signal.SIGINT))
            with pytest.raises(KeyboardInterrupt):
                next(batches)
        assert seen + [next(batches).step for _ in range(STEPS)] == list(range(STEPS + 1))


def test_a_second_close_leaves_the_files_of_others_open(mixture: Mixture) -> None:
    with mixture.open() as stream:
        next(stream)
        stream.close()
        mine = [os.open(os.devnull, os.O_RDONLY) for _ in range(8)]  # they get the numbers of what was closed
    for descriptor in mine:
        os.fstat(descriptor)
        os.close(descriptor)
    with pytest.raises(BadInput, match="the stream is closed; open another one"):
        next(stream)
    with pytest.raises(BadInput, match="the stream is closed"):
        stream.seek(0)
    for call in (stream.wait_until_filled, stream.all_images, stream.all_labels):
        with pytest.raises(BadInput, match="the stream is closed"):
            call()


@pytest.mark.parametrize("window_shards", [None, 2])
def test_closing_releases_maps_and_threads_at_once(mixture: Mixture, window_shards: int | None, tmp_path: Path) -> None:
    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count(str(tmp_path))

    before = set(threading.enumerate())  # streams that other tests left open have threads, too
    gc.disable()
    try:
        stream = mixture.open(window_shards=window_shards, cache=tmp_path)
        next(stream)
        assert mapped() > 0
        stream.close()
        assert mapped() == 0
        assert set(threading.enumerate()) <= before
    finally:
        gc.enable()


@pytest.mark.parametrize("window_shards", [None, 2])
def test_an_idle_stream_does_not_wake_up(mixture: Mixture, window_shards: int | None) -> None:
    """Once what is scheduled is cached, its threads sleep: polling every 5 ms would be 200 context switches a second each."""
    before = set(threading.enumerate())
    with mixture.open(window_shards=window_shards) as stream:
        next(stream)
        if window_shards is None:
            stream.wait_until_filled()
        started = set(threading.enumerate()) - before
        threads = [thread.native_id for thread in started if thread.name.startswith("prefetch-")]
        assert threads
        deadline = time.monotonic() + 60
        while (switches := _switches_in(0.5, threads)) > 20 and time.monotonic() < deadline:
            pass  # still prefetching
        assert switches <= 20


def _switches_in(seconds: float, threads: list[int | None]) -> int:
    def count() -> int:
        lines = [Path(f"/proc/self/task/{thread}/status").read_text().splitlines() for thread in threads]
        return sum(int(line.split()[1]) for status in lines for line in status if line.startswith("voluntary"))

    before = count()
    time.sleep(seconds)
    return count() - before


@pytest.mark.parametrize("call", [next, Stream.wait_until_filled, Stream.all_images, Stream.all_labels])
def test_a_fork_of_the_process_is_refused(mixture: Mixture, call: Callable[[Stream], object]) -> None:
    """Threads do not survive a fork: without the check a forked DataLoader worker waits for ever."""
    with mixture.open() as stream:
        next(stream)
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            message = "no error"
            try:
                call(stream)
            except BadInput as error:
                message = str(error)
            finally:
                os.write(writing, message.encode())
                os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            said = pipe.read()
        os.waitpid(pid, 0)
        assert f"opened by process {os.getpid()} and is used by process {pid}, its fork" in said
        assert next(stream).step == 1
