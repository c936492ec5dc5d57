"""The memory that images take, and what thumbnails keep of them."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adainf.browse.budget import Budget
from adainf.browse.catalog import Catalog, page
from adainf.browse.images import EXACT_PX, THUMBNAIL_PX, full_size, read_header, thumbnail
from adainf.browse.lru import LruCache
from adainf.browse.reader import Reader, Unreadable
from adainf.browse.thumbnails import Thumbnails
from adainf.shards.format.png import decode_image, encode_stored_png
from tests.browse.hostile import tar
from tests.shards.sets import make_set


def _encoded(image: np.ndarray, kind: str, **options: object) -> bytes:
    written = io.BytesIO()
    Image.fromarray(image).save(written, kind, **options)
    return written.getvalue()


def test_bytes_in_flight_are_bounded(tmp_path: Path) -> None:
    """Sixty images of half a limit each: read in turn, each released before the next."""
    image = bytes(1_000_000)
    (tmp_path / "a.tar").write_bytes(tar({f"{n:02d}.png": image + bytes([n]) for n in range(60)}))
    source = Catalog(str(tmp_path)).source(None)
    reader = Reader(max_bytes_in_flight=4_100_000)
    held, most, lock = 0, 0, threading.Lock()

    def use(data: bytes) -> int:
        nonlocal held, most
        with lock:
            held += len(data)
            most = max(most, held)
        with lock:
            held -= len(data)
        return data[-1]

    assert reader.each(source, page(source, 0, 60).samples, use) == list(range(60))
    assert most <= 4_100_000
    assert 0 < reader.budget.peak_bytes <= 4_100_000
    assert reader.budget.used_bytes == 0


def test_a_budget_admits_in_order_and_what_exceeds_it_alone() -> None:
    budget, entered = Budget(10), []

    def take(size: int) -> None:
        with budget.take(size):
            entered.append(size)

    with budget.take(6):
        threads = [threading.Thread(target=take, args=(size,)) for size in (99, 1)]
        for thread in threads:
            thread.start()
            while not budget._turn.locked():  # the first one waits in front
                pass
        assert entered == []
    for thread in threads:
        thread.join()
    assert entered == [99, 1]
    with pytest.raises(RuntimeError), budget.take(5):
        raise RuntimeError
    assert budget.used_bytes == 0


@pytest.mark.parametrize("size_px", [8, 16, 32, EXACT_PX])
@pytest.mark.parametrize("kind", ["stored", "PNG", "PPM", "BMP", "TIFF"])
def test_pixel_art_is_shown_exactly(size_px: int, kind: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (size_px, size_px, 3), dtype=np.uint8)
    data = encode_stored_png(image) if kind == "stored" else _encoded(image, kind)
    for show in (thumbnail, full_size):
        assert np.array_equal(decode_image(show(data).data), image)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "RGBA", "P"])
@pytest.mark.parametrize("size", [(512, 512), (3000, 100), (400, 4000), (161, 170)])
def test_thumbnails_look_like_their_images(kind: str, mode: str, size: tuple[int, int]) -> None:
    if mode in {"JPEG": ("RGBA", "P"), "PNG": ("CMYK",), "WEBP": ("CMYK", "L", "P")}[kind]:
        return
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    noise = np.random.default_rng(0).integers(0, 24, (size[1], size[0], 3))
    image = Image.fromarray(np.clip(np.stack([x, y, 255 - x], 2) + noise - 12, 0, 255).astype(np.uint8)).convert(mode)
    written = io.BytesIO()
    image.save(written, kind)
    shown = thumbnail(written.getvalue())
    header = read_header(shown.data)
    if shown.data != written.getvalue():
        assert (header.kind, max(header[1:])) == ("JPEG", THUMBNAIL_PX)
        assert len(shown.data) < 16_384
    expected = image.convert("RGB").resize(header[1:], Image.Resampling.BOX)
    difference = np.abs(np.asarray(expected, float) - decode_image(shown.data))
    assert difference.mean() < 8


def test_thumbnails_are_made_once_and_the_cache_is_bounded(tmp_path: Path) -> None:
    source = Catalog(make_set(f"{tmp_path}/set", 12, 4).uri).source(None)
    reader = Reader()
    thumbnails = Thumbnails(reader, 1_000_000)
    samples = page(source, 0, 12).samples
    first = thumbnails.of(source, samples)
    for path in tmp_path.rglob("*.tar"):
        path.unlink()
    assert thumbnails.of(source, samples) == first
    small = Thumbnails(reader, 10)
    assert all(isinstance(one, Unreadable) for one in small.of(source, samples))
    assert isinstance(thumbnails._cache, LruCache)
    assert thumbnails._cache.size_bytes <= 1_000_000
