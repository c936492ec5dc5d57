"""All processes of a node fetch each shard once, and the remaining ones take over from killed ones."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset

from adainf.errors import BadInput
from adainf.runtime import distributed
from adainf.shards import open_stream
from adainf.shards.format import wds
from adainf.shards.format.scan import BLOCK
from adainf.shards.loader.in_memory import InMemorySplit
from tests.conftest import S3Server
from tests.processes import run_on_ranks
from tests.shards.rank import digest
from tests.shards.sets import Mixture, make_mixture, make_set, take
from tests.storage.faulty_proxy import Fault, FaultyProxy, nth

STEPS = 25


def start(folder: str, rank: int, world: int, window: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.shards.rank", folder, *map(str, (rank, world, STEPS, window))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> list[str]:
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output.splitlines()


def expected(mixture: Mixture, rank: int, world: int, window: int = 0) -> list[str]:
    batches = take(mixture.open(rank=rank, world=world, window_shards=window or None), STEPS)
    assert all(mixture.holds(batch) for batch in batches)
    return [f"{batch.step} {digest(batch)}" for batch in batches]


def tars_fetched(proxy: FaultyProxy) -> Counter[str]:
    """GETs of complete tars; single images are fetched by range reads."""
    requests = [request for request, _ in proxy.requests if request.method == "GET" and ".tar" in request.path]
    return Counter(request.path.split("?")[0] for request in requests if "range" not in request.headers)


def test_all_processes_of_a_node_fetch_each_shard_once_and_none_after_a_restart(
    s3_server: S3Server, s3_env: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mixture = make_mixture(s3_env)
    want = [expected(mixture, rank, 4) for rank in range(4)]
    monkeypatch.setenv("ADAINF_CACHE", str(tmp_path / "node"))
    with FaultyProxy(s3_server.port, lambda request: None) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
        processes = [start(s3_env, rank, 4) for rank in range(4)]
        assert [finish(process) for process in processes] == want
        fetched = tars_fetched(proxy)
        assert len(fetched) == 4 + 40
        assert set(fetched.values()) == {1}
        processes = [start(s3_env, rank, 4) for rank in range(4)]
        assert [finish(process) for process in processes] == want
        assert tars_fetched(proxy) == fetched


@pytest.mark.parametrize("window", [0, 4])
def test_after_kills_at_random_points_the_batches_are_the_same(
    s3_env: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, window: int
) -> None:
    """SIGKILL during a prefetch, of one rank or of all: the cache is kept, and the batches are those of an undisturbed node."""
    mixture = make_mixture(s3_env, shard_images=10)
    want = [expected(mixture, rank, 2, window) for rank in range(2)]
    monkeypatch.setenv("ADAINF_CACHE", str(tmp_path / "undisturbed"))
    began = time.monotonic()
    finish(start(s3_env, 0, 2, window))
    seconds = time.monotonic() - began
    chance = random.Random(1)
    killed = 0
    for attempt in range(3):
        monkeypatch.setenv("ADAINF_CACHE", str(tmp_path / f"node-{attempt}"))
        for _ in range(3):
            victims = [start(s3_env, rank, 2, window) for rank in range(2)]
            time.sleep(chance.uniform(0.4, 0.95) * seconds)  # before that it is still starting
            for victim in victims if chance.random() < 0.5 else victims[:1]:
                killed += victim.poll() is None
                victim.send_signal(signal.SIGKILL)
            for victim in victims:
                victim.communicate(timeout=120)
        assert [finish(process) for process in [start(s3_env, rank, 2, window) for rank in range(2)]] == want
    assert killed >= 3, "too few processes were killed in time for the test to be meaningful"


def test_the_first_batch_of_a_large_set_uses_range_reads(
    s3_server: S3Server, s3_env: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is shuffled over all shards, and would otherwise wait for all of them."""
    made = make_set(f"{s3_env}/set", 2000, 100)
    with FaultyProxy(s3_server.port, lambda request: None) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
        allowed = threading.Event()
        prefetch = InMemorySplit.prefetch
        monkeypatch.setattr(InMemorySplit, "prefetch", lambda split, number: allowed.wait(60) and prefetch(split, number))
        with open_stream({"set": made.uri}, 8, 0, prefetch_batches=0) as stream:
            batches = [next(stream)]
            assert not tars_fetched(proxy)
            allowed.set()
            batches += [next(stream) for _ in range(249)]
    assert sorted(np.concatenate([batch.indices for batch in batches])) == list(range(2000))
    for batch in batches:
        assert (np.asarray(batch.images) == made.images[batch.indices]).all()
        assert (batch.labels == made.labels[batch.indices]).all()
    assert set(tars_fetched(proxy).values()) == {1}


def test_a_range_read_is_verified(tmp_path: Path) -> None:
    made = make_set(f"{tmp_path}/set", 2000, 100)
    for tar in made.path.glob("*.tar"):
        data = bytearray(tar.read_bytes())
        for offset in range(BLOCK + 60, len(data), 4 * BLOCK):  # header and image, header and label: 4 blocks a sample
            data[offset] ^= 1
        tar.write_bytes(data)
    with (
        open_stream({"set": made.uri}, 8, 0, prefetch_batches=0) as stream,
        pytest.raises(BadInput, match=r"train-0000\d\d\.tar"),
    ):
        next(stream)


def read_and_check(folder: str, world: int) -> list[torch.Tensor]:
    """In each process of a gloo group: the batches of this rank, checked across ranks."""
    given = []
    sources = {"real": f"{folder}/real", "generated": f"{folder}/generated"}
    with open_stream(sources, 47, 3, rank=distributed.rank(), world=world) as stream:
        for batch, step in zip(stream, range(5), strict=False):
            stream.check(step, batch.sources, batch.indices, lambda own: distributed.gather_uint64(own, torch.device("cpu")))
            given.append(torch.from_numpy(np.asarray(batch.images)))
    return given


@pytest.mark.parametrize("world", [2, 3, 4])
def test_ranks_of_a_gloo_group_agree_and_form_the_batch(tmp_path: Path, world: int) -> None:
    make_mixture(str(tmp_path))
    expected_batches = read_and_check(str(tmp_path), 1)
    parts = run_on_ranks(world, read_and_check, str(tmp_path), world)
    for step in range(5):
        assert torch.equal(torch.cat([part[step] for part in parts]), expected_batches[step])


@pytest.mark.parametrize("fault", ["503", "429", "cut", "stall", "trickle", "corrupt", "short", "etag"])
def test_a_quarter_of_all_requests_fails_and_every_image_appears_once(
    s3_server: S3Server, s3_env: str, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    made = make_set(f"{s3_env}/set", 1000, 100)
    plan = nth("GET", *range(4, 1000, 4), fault=fault)
    with FaultyProxy(s3_server.port, plan) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
        started = time.monotonic()
        batches = take(open_stream({"set": made.uri}, 100, 0), 10)
        assert time.monotonic() - started < 20
        assert proxy.faults()
    assert sorted(np.concatenate([batch.indices for batch in batches])) == list(range(1000))
    assert all((np.asarray(batch.images) == made.images[batch.indices]).all() for batch in batches)


def test_webdataset_reads_from_s3_once_registered(s3_server: S3Server, s3_env: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a connection is interrupted, which is an error for its own readers."""
    made = make_set(f"{s3_env}/set", 60, 30)
    monkeypatch.setattr(webdataset, "gopen_schemes", webdataset.gopen_schemes)
    wds.register()
    with FaultyProxy(s3_server.port, nth("GET", 2, fault="cut")) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
        urls = f"{made.uri}/train-{{000000..000001}}.tar"
        found = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False).decode("rgb8"))
        assert proxy.faults() == ["cut"]
    assert (np.stack([sample["png"] for sample in found]) == made.images).all()
    assert [sample["cls"] for sample in found] == made.labels.tolist()
