"""What the machine itself can do, so that each figure can be seen beside its limit."""

from __future__ import annotations

import hashlib
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.child import Values
from benchmarks.common import Bench, Job, short, table
from benchmarks.data import BATCH, images, pixels, png

WHAT = {
    "memcpy": "copy of 3,072 bytes of an array, in order",
    "gather": f"numpy.take of {BATCH} random rows of 300 MB",
    "file_read": "3,172 bytes of a file in the page cache, 1 MiB a read",
    "inflate": "zlib.decompress of 3,104 bytes that compress like a PNG of PIL",
    "png_decode": "PIL's decoding of one PNG",
    "sha256": "SHA-256 of 3,172 bytes, in objects of 32 MB",
}


def measure(bench: Bench) -> None:
    """Table and figures ``limit_*_us_per_image``."""
    outcome = bench.interleave({"limits": Job(bench.ours.python, __name__, "limits", {}, {})}, 1).get("limits")
    if outcome:
        values = outcome[0]
        bench.figures |= {f"limit_{name}_us_per_image": value for name, value in values.items()}
        rows = [(WHAT[name], short(value)) for name, value in values.items()]
        table("Limits of this machine, one core, 32 x 32 px", ("what", "us/image"), rows)


def limits() -> Values:
    """A child's task: wall µs per image, the best of five."""
    rows = np.tile(images(10_000, 0), (10, 1, 1, 1)).reshape(100_000, -1)
    steps = range(0, 40 * BATCH, BATCH)
    order = np.random.default_rng(0).integers(0, len(rows), (40, BATCH))
    batch = np.empty((BATCH, rows.shape[1]), np.uint8)
    encoded = [png(image) for image in rows[:500].reshape(-1, 32, 32, 3)]
    deflated = [zlib.compress(image.tobytes(), 6) for image in rows[:500]]
    block = rows[:10_000].tobytes()
    with tempfile.NamedTemporaryFile() as file:
        file.write(block * 4)
        file.flush()
        return {
            "memcpy": _best(lambda: [rows[at : at + BATCH].copy() for at in steps], 40 * BATCH),
            "gather": _best(lambda: [np.take(rows, some, 0, batch) for some in order], order.size),
            "file_read": _best(lambda: _read(Path(file.name)), 4 * len(block) / 3172),
            "inflate": _best(lambda: [zlib.decompress(data) for data in deflated], len(deflated)),
            "png_decode": _best(lambda: [pixels(data) for data in encoded], len(encoded)),
            "sha256": _best(lambda: hashlib.sha256(block).digest(), len(block) / 3172),
        }


def _read(path: Path) -> None:
    buffer = bytearray(1 << 20)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def _best(work: Callable[[], object], count: float) -> float:
    seconds = []
    for _ in range(5):
        began_s = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began_s)
    return 1e6 * min(seconds) / count
