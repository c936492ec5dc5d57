"""``python -m benchmarks.browse [--quick] [--json FILE]``: a million samples in a thousand shards on S3, viewed by page.

The images are stored PNGs of 32 x 32 px without labels, as a generator writes them. Two further sets are photographs: a page of
512 px JPEGs, and one of 2048 px PNGs. The server is `adainf shards serve` in its own process, and reads S3 through a proxy that
counts bytes; viewers are plain HTTP clients that send the requests of the page.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import os
import random
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

from adainf.pipeline.records import Manifest, Output, Request, canonical_json, sha256
from adainf.shards.format.manifest import Shard, ShardIndex, ShardSet, Split, index_key
from adainf.shards.format.samples import samples
from adainf.shards.format.tar import Sample, encode_shard
from benchmarks.common import Side, header, installed, table
from benchmarks.server import Server, serve

SIZE_PX, SHARD_IMAGES, PAGE = 32, 1000, 120
UPLOADS_AT_ONCE = 4
PAGES, VIEWERS, PAGES_EACH = 100, 20, 10


def put_set(server: Server, shards: int) -> str:
    """The set on S3; its URI. All shards are of the same pixels under keys of their own, so that making them takes seconds."""
    pixels = np.random.default_rng(0).integers(0, 256, (SHARD_IMAGES, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    data = encode_shard(0, [Sample(image, None) for image in pixels])
    images = [sample.image for sample in samples(data)]
    offsets, sizes = [image.offset for image in images], [image.size for image in images]
    crc32s = [zlib.crc32(data[image.offset : image.offset + image.size]) for image in images]
    digest, client = sha256(data), server.client()

    def put(number: int) -> Shard:
        tar = Output(key=f"train-{number:06d}.tar", size_bytes=len(data), sha256=digest)
        index = ShardIndex(
            tar=tar,
            keys=[f"{number * SHARD_IMAGES + place:06d}" for place in range(SHARD_IMAGES)],
            image_offsets=offsets,
            image_sizes_bytes=sizes,
            image_crc32s=crc32s,
            labels=[-1] * SHARD_IMAGES,
        ).to_json()
        client.put_object(Bucket=server.bucket, Key=f"set/{tar.key}", Body=data)
        client.put_object(Bucket=server.bucket, Key=f"set/{index_key(tar.key)}", Body=index)
        return Shard(SHARD_IMAGES, tar, Output(key=index_key(tar.key), size_bytes=len(index), sha256=sha256(index)))

    with ThreadPoolExecutor(UPLOADS_AT_ONCE) as pool:
        split = Split.of(list(pool.map(put, range(shards))), labelled=False)
    content = ShardSet(height_px=SIZE_PX, width_px=SIZE_PX, splits={"train": split}).model_dump(mode="json")
    manifest = Manifest(request=Request(stage="benchmark", settings={}), content=content)
    client.put_object(Bucket=server.bucket, Key="set/manifest.json", Body=canonical_json(manifest.model_dump(mode="json")))
    return server.uri("set")


def photographs(count: int, size_px: int, kind: str) -> list[bytes]:
    """Encoded crops of scikit-learn's two photographs, with the noise of a camera; large ones repeat after four."""
    from sklearn.datasets import load_sample_images

    photos, draw = load_sample_images().images, np.random.default_rng(0)
    encoded: list[bytes] = []
    for number in range(count if size_px <= 512 else 4):
        photo = photos[number % 2]
        side = int(draw.integers(200, 420))
        top, left = (int(draw.integers(0, photo.shape[axis] - side)) for axis in (0, 1))
        crop = Image.fromarray(photo[top : top + side, left : left + side])
        pixels = np.asarray(crop.resize((size_px, size_px), Image.Resampling.BICUBIC), np.int16)
        noisy = np.clip(pixels + draw.integers(-2, 3, pixels.shape, dtype=np.int16), 0, 255).astype(np.uint8)
        written = io.BytesIO()
        Image.fromarray(noisy).save(written, kind, **({"quality": 90} if kind == "JPEG" else {"compress_level": 1}))
        encoded.append(written.getvalue())
    return [encoded[number % len(encoded)] for number in range(count)]


def put_photographs(server: Server, name: str, images: list[bytes], size_px: int, suffix: str) -> str:
    """A set of one shard on S3; its URI."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number, image in enumerate(images):
            info = tarfile.TarInfo(f"{number:06d}.{suffix}")
            info.size = len(image)
            archive.addfile(info, io.BytesIO(image))
    data = buffer.getvalue()
    members = [sample.image for sample in samples(data)]
    tar = Output(key="train-000000.tar", size_bytes=len(data), sha256=sha256(data))
    index = ShardIndex(
        tar=tar,
        keys=[f"{number:06d}" for number in range(len(images))],
        image_offsets=[member.offset for member in members],
        image_sizes_bytes=[member.size for member in members],
        image_crc32s=[zlib.crc32(image) for image in images],
        labels=[-1] * len(images),
    ).to_json()
    shard = Shard(len(images), tar, Output(key=index_key(tar.key), size_bytes=len(index), sha256=sha256(index)))
    content = ShardSet(height_px=size_px, width_px=size_px, splits={"train": Split.of([shard], labelled=False)})
    manifest = Manifest(request=Request(stage="benchmark", settings={}), content=content.model_dump(mode="json"))
    client = server.client()
    for key, body in (
        (tar.key, data),
        (index_key(tar.key), index),
        ("manifest.json", canonical_json(manifest.model_dump(mode="json"))),
    ):
        client.put_object(Bucket=server.bucket, Key=f"{name}/{key}", Body=body)
    return server.uri(name)


def cpu_ms(pid: int) -> float:
    """CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return 1000 * (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def measure_photographs(server: Server) -> dict[str, float]:
    """One page of photographs of each size, from servers that have shown nothing before."""
    figures: dict[str, float] = {}
    uri = put_photographs(server, "photos512", photographs(PAGE, 512, "JPEG"), 512, "jpg")
    with browsing(uri, server, server.port) as (port, pid):
        viewer = Viewer(port)
        viewer.get("/api/catalog")
        for name in ("first", "repeated"):
            viewer.images_bytes, before = 0, cpu_ms(pid)
            viewer.page(0)
            figures[f"page120_512px_cpu_ms_{name}"] = cpu_ms(pid) - before
        figures["page120_512px_viewer_kb"] = viewer.images_bytes / 1000
    uri = put_photographs(server, "photos2048", photographs(PAGE, 2048, "PNG"), 2048, "png")
    with browsing(uri, server, server.port) as (port, pid):
        viewer = Viewer(port)
        viewer.get("/api/catalog")
        viewer.page(0)
        figures["page120_2048px_rss_mib"] = peak_mib(pid)
    return figures


class CountingProxy:
    """Between the page's server and S3: how many bytes S3 has sent."""

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listening.getsockname()[1]
        self.received_bytes = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _ = self._listening.accept()
            server = socket.create_connection(("127.0.0.1", self._upstream))
            threading.Thread(target=self._pump, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, True), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        try:
            while data := source.recv(1 << 18):
                if counted:
                    self.received_bytes += len(data)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:  # one side has gone
            sink.close()


@contextmanager
def browsing(uri: str, server: Server, port: int) -> Iterator[tuple[int, int]]:
    """``adainf shards serve``; its port and process id."""
    command = [sys.executable, "-m", "adainf", "shards", "serve", uri, "--no-token", "--port", "0"]
    environment = {**os.environ, **server.env(port), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        line = process.stdout.readline()
        try:
            yield int(line.split("127.0.0.1:")[1].split("/")[0]), process.pid
        finally:
            process.terminate()


class Viewer:
    """One browser's connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        self.images_bytes = 0

    def get(self, path: str) -> bytes:
        self._connection.request("GET", path)
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {body[:200]!r}")
        return body

    def page(self, first: int) -> float:
        """Ask for a page; how long it took, in seconds. Raises `RuntimeError` where an image is missing."""
        began_s = time.perf_counter()
        body = self.get(f"/api/page?first={first}&count={PAGE}")
        took_s = time.perf_counter() - began_s
        told = json.loads(body[4 : 4 + struct.unpack_from("<I", body)[0]])
        if any("error" in sample for sample in told["samples"]):
            raise RuntimeError(f"a sample from {first} on cannot be read")
        self.images_bytes += sum(sample["bytes"] for sample in told["samples"])
        return took_s


def p95(seconds: list[float]) -> float:
    return 1000 * statistics.quantiles(seconds, n=20)[-1]


def measure(server: Server, uri: str, samples: int) -> dict[str, float]:
    """All figures, from one server: what comes later finds it as the earlier left it, as viewers do."""
    proxy = CountingProxy(server.port)
    draw = random.Random(0)
    with browsing(uri, server, proxy.port) as (port, pid):
        viewer = Viewer(port)
        began_s = time.perf_counter()
        for path in ("/", "/app.js", "/style.css", "/api/catalog"):
            viewer.get(path)
        viewer.page(0)
        first_grid_s = time.perf_counter() - began_s
        # A viewer who scrolls on from four places.
        starts = (PAGE, samples // 3, samples // 2, samples - PAGES // 4 * PAGE)
        places = [start // PAGE * PAGE + PAGE * number for start in starts for number in range(PAGES // 4)]
        before = proxy.received_bytes
        viewer.images_bytes = 0
        pages = [viewer.page(first) for first in places]
        ratio = (proxy.received_bytes - before) / viewer.images_bytes
        # Viewers who jump anywhere: no page is in the cache.
        wanted = [[draw.randrange(samples - PAGE) // PAGE * PAGE for _ in range(PAGES_EACH)] for _ in range(VIEWERS)]
        with ThreadPoolExecutor(VIEWERS) as pool:
            crowd = [took for one in pool.map(lambda firsts: [*map(Viewer(port).page, firsts)], wanted) for took in one]
        for first in range(0, samples, max(PAGE, samples // 400 // PAGE * PAGE)):  # to the end, for its memory
            viewer.page(first)
        peak = peak_mib(pid)
    return {
        "first_grid_s": first_grid_s,
        "next_page_p95_ms": p95(pages),
        "bytes_ratio": ratio,
        "server_rss_mib": peak,
        "viewers20_p95_ms": p95(crowd),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the shards")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    shards = 100 if options.quick else 1000
    server_package = ModuleType("starlette")
    server_package.PACKAGE = "starlette"  # type: ignore[attr-defined]
    header([Side("ours", server_package, sys.executable, installed(sys.executable, "starlette") or "not installed")], [], True)
    folder = Path(tempfile.mkdtemp(prefix="browse"))
    try:
        with serve(folder / "s3") as server:
            figures = measure(server, put_set(server, shards), shards * SHARD_IMAGES)
            figures |= measure_photographs(server)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    limits = {
        "first_grid_s": 1,
        "next_page_p95_ms": 150,
        "bytes_ratio": 1.3,
        "server_rss_mib": 300,
        "viewers20_p95_ms": 500,
        "page120_512px_cpu_ms_first": 600,
        "page120_512px_cpu_ms_repeated": 20,
        "page120_512px_viewer_kb": 900,
        "page120_2048px_rss_mib": 300,
    }
    rows = [(name, f"{value:.4g}", f"at most {limits[name]}") for name, value in figures.items()]
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    table(f"{shards * SHARD_IMAGES:,} samples in {shards:,} shards, pages of {PAGE}", ("figure", "measured", "wanted"), rows)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
