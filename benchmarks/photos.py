"""JPEG photos at real sizes, beside the loaders that people use: decoding, two random crops, a pass over tars, start.

    python -m benchmarks.photos [--photos FOLDER] [--json FILE] [--only decode,shrink,views,epoch,start] [--repeats 3]
                                [--python dali=/venv/bin/python]

FOLDER holds JPEG photos, for example of Debian's mate-backgrounds or gnome-backgrounds (`apt-get download mate-backgrounds;
dpkg-deb -x …`); without it, those of scikit-learn are used. Images are crops of them. CPU µs per image (user and system), on
one thread, the sides in turn, each in fresh processes. A peer that is not installed is left out.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import child
from benchmarks.child import Values
from benchmarks.common import Job, commit, installed, machine, median, run, spread, table
from benchmarks.peers import photos as peers

TASKS = {
    "decode": ("decode a 224 px JPEG", "DECODE", (224, 224)),
    "shrink": ("2,048 x 1,536 to 224 px", "SHRINK", (1536, 2048)),
    "views": ("500 x 375, two random crops of 224 px", "VIEWS", (375, 500)),
    "epoch": ("one pass over tars of 224 px", "EPOCH", (224, 224)),
}
RATIOS = {
    "decode": ("decode224_ratio_best", ""),
    "shrink": ("decode_2048_to_224_ratio_draft", "pillow draft"),
    "views": ("crop224_from_500x375_ratio_best", ""),
    "epoch": ("windowed224_ratio_dali", "dali"),
}
CPU = "cpu_us_per_image"
MODULE = "benchmarks.photos"
SHARD_IMAGES, SHARDS, START_IMAGES = 500, 8, 50_000


def encoded(folder: str, height: int, width: int, count: int) -> list[bytes]:
    """Crops of the photos, at quality 90, with the default subsampling."""
    from PIL import Image

    files = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg")) if folder else []
    if files:
        photos = [Image.open(path).convert("RGB") for path in files]
        photos = [photo for photo in photos if photo.width <= 3000]  # the others are the same again
    else:
        from sklearn.datasets import load_sample_images

        photos = [Image.fromarray(image) for image in load_sample_images().images]
    chance, found = np.random.default_rng(0), []
    for number in range(count):
        photo = photos[number % len(photos)]
        share = chance.uniform(0.5, 1)
        h = int(min(photo.height, photo.width * height / width) * share)
        w = h * width // height
        top, left = int(chance.integers(photo.height - h + 1)), int(chance.integers(photo.width - w + 1))
        buffer = io.BytesIO()
        part = photo.resize((width, height), Image.Resampling.LANCZOS, (left, top, left + w, top + h))
        part.save(buffer, "JPEG", quality=90)
        found.append(buffer.getvalue())
    return found


def measure(task: str, side: str, data: str, least_s: float) -> Values:
    """A child's task."""
    work: Any = getattr(peers, TASKS[task][1])[side]
    if task == "epoch":
        return child.drain(work(Path(data)))
    files = [path.read_bytes() for path in sorted(Path(data).iterdir())]
    warm = 2 if side == "dali" else len(files)
    return child.drain(work(files), least_s, warm_batches=warm)


def write_tars(folder: Path, images: list[bytes]) -> None:
    """Tars of the images, indexed in place."""
    from adainf.pipeline.progress import Reporter
    from adainf.sources.indexing import index_tars
    from benchmarks.data import write_tar

    folder.mkdir()
    for shard in range(SHARDS):
        some = list(itertools.islice(itertools.cycle(images), shard * SHARD_IMAGES, (shard + 1) * SHARD_IMAGES))
        with (folder / f"{shard:03d}.tar").open("wb") as file:
            write_tar(file, shard * SHARD_IMAGES, some, "jpg")
    index_tars(str(folder), Reporter())


def start(scratch: Path, images: list[bytes], count: int) -> dict[str, float]:
    """The first batch of a set on S3 with an empty cache, and the bytes of the cache once it is filled."""
    from adainf.pipeline.progress import Reporter
    from adainf.sources.indexing import index_tars
    from benchmarks.data import write_tar
    from benchmarks.server import serve

    with serve(scratch / "server") as server:
        client = server.client()
        for shard in range(count // 1000):
            buffer = io.BytesIO()
            write_tar(buffer, shard * 1000, [images[(shard * 1000 + n) % len(images)] for n in range(1000)], "jpg")
            client.put_object(Bucket=server.bucket, Key=f"photos/{shard:03d}.tar", Body=buffer.getvalue())
        os.environ.update(server.env())
        index_tars(server.uri("photos"), Reporter())
        arguments = {"uri": server.uri("photos"), "cache": str(scratch / "cache")}
        found = run(Job(sys.executable, MODULE, "open_cold", arguments, server.env()))
    if isinstance(found, str):
        print(f"  start failed: {found}")
        return {}
    return dict(found)


def open_cold(uri: str, cache: str) -> Values:
    """A child's task."""
    from adainf.shards import open_stream
    from adainf.shards.format.folder import ShardFolder
    from adainf.shards.loader.source import encoded_bytes

    began_s = time.perf_counter()
    with open_stream({"all": uri}, 256, 0, cache=cache) as stream:
        next(stream)
        first_s = time.perf_counter() - began_s
        stream.wait_until_filled()
        filled_s = time.perf_counter() - began_s
        used = sum(path.stat().st_blocks * 512 for path in Path(cache).rglob("*"))
    ratio = used / encoded_bytes(ShardFolder.open(uri).split("train"))
    return {"first_batch_s": first_s, "filled_s": filled_s, "disk_ratio": ratio}


def main() -> int:
    """The exit code: 1 where a side that is installed failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", metavar="FOLDER", default="", help="JPEG photos, of which crops are taken")
    parser.add_argument("--json", metavar="FILE", help="write {name: value}, units in names")
    parser.add_argument("--only", type=lambda text: text.split(","), default=[*TASKS, "start"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2, help="per measurement")
    parser.add_argument("--images", type=int, default=START_IMAGES, help="of the set on S3")
    parser.add_argument("--python", metavar="PEER=EXE", action="append", default=[], help="a peer's own interpreter")
    arguments = parser.parse_args()
    pythons = dict(pair.split("=", 1) for pair in arguments.python)
    figures: dict[str, float] = {}
    print(f"machine   {machine()}, load {os.getloadavg()[0]:.1f}")
    names = ("numpy", "pillow", "simplejpeg", "torchvision", "webdataset", "nvidia-dali-cuda120", "spdl-io")
    print("versions  " + ", ".join(f"{name} {_version(name, pythons) or 'not installed'}" for name in names))
    print(f"date      {time.strftime('%Y-%m-%d %H:%M')}, commit {commit()}, repeats {arguments.repeats}")
    with tempfile.TemporaryDirectory(prefix="adainf-photos") as scratch:
        for task in arguments.only:
            if task == "start":
                figures |= start(Path(scratch), encoded(arguments.photos, 224, 224, 1000), arguments.images)
            else:
                figures |= _task(task, Path(scratch), arguments, pythons)
            if arguments.json:
                Path(arguments.json).write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")
    print()
    for name, value in sorted(figures.items()):
        print(f"  {name} {value:.3g}")
    return 0


def _version(package: str, pythons: dict[str, str]) -> str | None:
    side = next((name for name in pythons if name in package), None)
    return installed(pythons[side] if side else sys.executable, package)


def _task(task: str, scratch: Path, arguments: argparse.Namespace, pythons: dict[str, str]) -> dict[str, float]:
    title, name, (height, width) = TASKS[task]
    folder = scratch / task
    images = encoded(arguments.photos, height, width, 1000 if task == "epoch" else 64 if height < 1000 else 16)
    if task == "epoch":
        write_tars(folder, images)
    else:
        folder.mkdir()
        for number, data in enumerate(images):
            (folder / f"{number:04d}.jpg").write_bytes(data)
    found: dict[str, list[Values]] = {side: [] for side in getattr(peers, name)}
    for _ in range(arguments.repeats):
        for side in list(found):
            values = {"task": task, "side": side, "data": str(folder), "least_s": arguments.seconds}
            outcome = run(Job(pythons.get(side, sys.executable), MODULE, "measure", values, {}))
            if isinstance(outcome, str):
                print(f"  {task} of {side} left out: {outcome}")
                del found[side]
            else:
                found[side].append(outcome)
    rows = [(side, spread(values, CPU), spread(values, "wall_us_per_image")) for side, values in found.items()]
    kilobytes = sum(map(len, images)) / len(images) / 1000
    table(f"{title} ({kilobytes:.0f} kB)", ("side", "CPU us/image", "wall us/image"), rows)
    figures = {f"{side.replace(' + ', '_').replace(' ', '_')}_{task}_{CPU}": median(v, CPU) for side, v in found.items()}
    key, against = RATIOS[task]
    best = [median(v, CPU) for side, v in found.items() if not side.startswith("ours") and against in ("", side)]
    if "ours" in found and best:
        figures[key] = median(found["ours"], CPU) / min(best)
    return figures


if __name__ == "__main__":
    sys.exit(main())
