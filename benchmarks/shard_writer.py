"""Writing generated images into shards on one core, beside webdataset's writer with Pillow, at 32 x 32 pixels.

    python -m benchmarks.shard_writer [--quick] [--json FILE]

Half a minute. A figure is images for each second of CPU time (user and system), of all that a shard costs but the drawing:
PNG, tar, checksums, index with the statistics of its pixels, and the put into a local folder. The peer writes the tar alone.
The images are smooth with some noise, so that they compress about as photographs do.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adainf.shards.format.tar import Compression
from benchmarks.child import Values, cpu_s
from benchmarks.common import Job, Side, header, installed, median, run, spread, table
from benchmarks.peers import webdataset

IMAGES, SIZE_PX = 20_000, 32
SHARD_IMAGES = 10_000
VARIANTS = {
    "shard_writer_stored_images_per_s": "ours, generate.compression: stored",
    "shard_writer_png_images_per_s": "ours, generate.compression: deflate",
    "webdataset_shard_writer_png_images_per_s": "webdataset.TarWriter, Pillow's default PNG",
}


def main() -> int:
    """The exit code: 1 where a measurement failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one repeat: does it run, and about how fast")
    parser.add_argument("--json", metavar="FILE", help="write {name: value}, units in names")
    arguments = parser.parse_args()
    version = installed(sys.executable, webdataset.PACKAGE)
    if version is None:
        print("webdataset, the peer, is not installed: pip install -e '.[bench]'")
        return 1
    header([Side("webdataset", webdataset, sys.executable, version)], [], arguments.quick)
    taken: list[Values] = []
    for _ in range(1 if arguments.quick else 3):
        outcome = run(Job(sys.executable, "benchmarks.shard_writer", "measure_writer", {}, {}))
        if isinstance(outcome, str):
            print(f"failed: {outcome}")
            return 1
        taken.append(outcome)
    rows = [[what, spread(taken, name)] for name, what in VARIANTS.items()]
    table(f"Images/s of one core ({IMAGES:,} images)", ["side", "images/s"], rows)
    if arguments.json:
        figures = {name: median(taken, name) for name in VARIANTS}
        Path(arguments.json).write_text(json.dumps(figures, indent=2, sort_keys=True) + "\n")
    return 0


def measure_writer() -> dict[str, float]:
    """Images/s of one core of each variant, by its name in `VARIANTS`; some ten seconds."""
    writers = (lambda *given: _ours("stored", *given), lambda *given: _ours("deflate", *given), _webdataset)
    images = _images()
    return {name: _images_per_s(write, images) for name, write in zip(VARIANTS, writers, strict=True)}


def _images_per_s(write: Callable[[Any, Path], None], images: Any) -> float:
    with tempfile.TemporaryDirectory(prefix="adainf-bench") as scratch:
        write(images[:100], Path(scratch, "warm"))
        used_s = cpu_s()
        write(images, Path(scratch, "set"))
        return len(images) / (cpu_s() - used_s)


def _ours(compression: Compression, images: Any, folder: Path) -> None:
    from adainf.pipeline.artifacts import Run
    from adainf.shards.format.tar import Sample
    from adainf.shards.format.writer import write_split

    def samples(indices: range) -> list[Sample]:
        return [Sample(image, None) for image in images[indices.start : indices.stop]]

    run_ = Run(str(folder))
    write_split(run_, "generated", "train", len(images), SHARD_IMAGES, samples, compression=compression)


def _webdataset(images: Any, folder: Path) -> None:
    import webdataset
    from PIL import Image

    folder.mkdir()
    for first in range(0, len(images), SHARD_IMAGES):
        with webdataset.TarWriter(str(folder / f"{first}.tar"), mtime=0) as writer:
            for number, image in enumerate(images[first : first + SHARD_IMAGES], first):
                writer.write({"__key__": f"{number:06d}", "png": Image.fromarray(image)})


def _images() -> Any:
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    small = random.integers(0, 256, (IMAGES, 6, 6, 3), dtype=np.uint8)
    smooth = [np.asarray(Image.fromarray(each).resize((SIZE_PX, SIZE_PX), Image.Resampling.BICUBIC)) for each in small]
    noise = random.integers(-4, 5, (IMAGES, SIZE_PX, SIZE_PX, 3))
    return (np.stack(smooth) + noise).clip(0, 255).astype(np.uint8)


if __name__ == "__main__":
    sys.exit(main())
