"""What each side does with JPEG photos. A side is a function of the task; what it cannot do it leaves out.

``DECODE[side]()``          → a function of the bytes of a JPEG that returns its pixels
``SHRINK[side]()``          → the same, cropped to a square and resized to 224 px
``VIEWS[side]()``           → the same, two random resized crops of 224 px
``EPOCH[side](folder)``     → the sizes of the batches of one pass over the tars of a folder
"""

from __future__ import annotations

import io
import math
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

SIZE_PX = 224
BATCH = 128
Work = Callable[[bytes], object]
_random = random.Random(0)


def box(height: int, width: int) -> tuple[int, int, int, int]:
    """A box of RandomResizedCrop: top, left, height, width."""
    for _ in range(10):
        area = height * width * _random.uniform(0.08, 1)
        ratio = math.exp(_random.uniform(math.log(3 / 4), math.log(4 / 3)))
        h, w = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < h <= height and 0 < w <= width:
            return _random.randint(0, height - h), _random.randint(0, width - w), h, w
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side, side


def _ours_decode() -> Work:
    from adainf.shards.format.png import decode_image

    return decode_image


def _ours_shrink() -> Work:
    from adainf.shards.format.decode import resized
    from adainf.shards.format.formats import Reading
    from adainf.shards.format.png import decode_image

    reading = Reading(square_px=SIZE_PX)
    return lambda data: resized(decode_image(data, reading=reading), SIZE_PX)


def _ours_views() -> Work:
    from adainf.shards.format.crops import cut, shape_of
    from adainf.shards.format.formats import Reading

    def views(data: bytes) -> object:
        shape, outs = shape_of(data), np.empty((2, SIZE_PX, SIZE_PX, 3), np.uint8)
        cut(data, shape, [box(*shape[:2]) for _ in outs], list(outs), Reading(), scaled=True)
        return outs

    return views


def _ours_epoch(folder: Path, **options: Any) -> Iterator[int]:
    import itertools

    from adainf.shards import open_stream

    with (
        tempfile.TemporaryDirectory() as cache,
        open_stream({"all": folder}, BATCH, 0, cache=cache, **options) as stream,
    ):
        for batch in itertools.islice(stream, stream.counts[0] // BATCH):
            yield len(batch.images)


def _simplejpeg_decode() -> Work:
    from simplejpeg import decode_jpeg

    return decode_jpeg


def _pillow_decode() -> Work:
    from PIL import Image

    return lambda data: np.array(Image.open(io.BytesIO(data)).convert("RGB"))


def _torchvision_decode() -> Work:
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    torch.set_num_threads(1)
    return lambda data: decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)


def _spdl_decode() -> Work:
    import spdl.io

    return lambda data: spdl.io.to_numpy(spdl.io.load_image(data))


def _square(pixels: Any) -> Any:
    """The central square, resized, by Pillow."""
    from PIL import Image

    image = Image.fromarray(pixels) if isinstance(pixels, np.ndarray) else pixels
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    part = (left, top, left + side, top + side)
    return np.asarray(image.crop(part).resize((SIZE_PX, SIZE_PX), Image.Resampling.BILINEAR))


def _pillow_draft() -> Work:
    from PIL import Image

    def shrink(data: bytes) -> object:
        image = Image.open(io.BytesIO(data))
        image.draft("RGB", (SIZE_PX, SIZE_PX))
        return _square(image)

    return shrink


def _simplejpeg_shrink() -> Work:
    from simplejpeg import decode_jpeg

    return lambda data: _square(decode_jpeg(data, min_height=SIZE_PX, min_width=SIZE_PX))


def _pillow_views() -> Work:
    from PIL import Image

    def views(data: bytes) -> object:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        return _crops(image)

    return views


def _simplejpeg_views() -> Work:
    from PIL import Image
    from simplejpeg import decode_jpeg

    return lambda data: _crops(Image.fromarray(decode_jpeg(data)))


def _crops(image: Any) -> list[Any]:
    from PIL import Image

    found = []
    for top, left, h, w in (box(image.height, image.width) for _ in range(2)):
        part = image.resize((SIZE_PX, SIZE_PX), Image.Resampling.BICUBIC, (left, top, left + w, top + h))
        found.append(np.asarray(part))
    return found


def _torchvision_views() -> Work:
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms import v2

    torch.set_num_threads(1)
    crop = v2.RandomResizedCrop(SIZE_PX, interpolation=v2.InterpolationMode.BICUBIC, antialias=True)

    def views(data: bytes) -> object:
        image = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
        return crop(image), crop(image)

    return views


def _webdataset(folder: Path, decode: Work) -> Iterator[int]:
    import webdataset

    urls = sorted(map(str, folder.glob("*.tar")))
    some: list[Any] = []
    for sample in webdataset.WebDataset(urls, shardshuffle=False).shuffle(1000):
        some.append(decode(sample["jpg"]))
        if len(some) == BATCH:
            yield len(np.stack(some))
            some.clear()


def _dali(folder: Path | None, data: list[bytes], views: int, scaled: bool = False) -> Iterator[int]:
    """A pipeline of one thread on the CPU: of the tars of a folder, or of the same encoded images again and again."""
    from nvidia.dali import fn, pipeline_def, types

    @pipeline_def(  # type: ignore[untyped-decorator]
        batch_size=BATCH if folder else len(data), num_threads=1, device_id=None, prefetch_queue_depth=1
    )
    def pipeline() -> Any:
        if folder is None:
            encoded = fn.external_source(source=lambda: [np.frombuffer(each, np.uint8) for each in data], batch=True)
        else:
            tars = sorted(map(str, folder.glob("*.tar")))
            encoded = fn.readers.webdataset(paths=tars, ext=["jpg"], random_shuffle=True, initial_fill=1000, name="reader")
        if not views:
            return fn.decoders.image(encoded, output_type=types.RGB)
        parts = [fn.decoders.image_random_crop(encoded, output_type=types.RGB) for _ in range(views)]
        return tuple(fn.resize(part, size=[SIZE_PX, SIZE_PX], interp_type=types.INTERP_CUBIC, antialias=True) for part in parts)

    built = pipeline()
    built.build()
    batches = built.epoch_size("reader") // BATCH if folder else None
    while batches is None or batches > 0:
        built.run()
        yield BATCH if folder else len(data)
        batches = None if batches is None else batches - 1


def _each(work: Callable[[], Work]) -> Callable[[list[bytes]], Iterator[int]]:
    def endless(data: list[bytes]) -> Iterator[int]:
        do = work()
        while True:
            for each in data:
                do(each)
                yield 1

    return endless


DECODE = {
    "ours": _each(_ours_decode),
    "simplejpeg": _each(_simplejpeg_decode),
    "pillow": _each(_pillow_decode),
    "torchvision": _each(_torchvision_decode),
    "spdl": _each(_spdl_decode),
    "dali": lambda data: _dali(None, data, views=0),
}
SHRINK = {"ours": _each(_ours_shrink), "pillow draft": _each(_pillow_draft), "simplejpeg": _each(_simplejpeg_shrink)}
VIEWS = {
    "ours": _each(_ours_views),
    "pillow": _each(_pillow_views),
    "simplejpeg": _each(_simplejpeg_views),
    "torchvision": _each(_torchvision_views),
    "dali": lambda data: _dali(None, data, views=2),
}
EPOCH = {
    "ours": lambda folder: _ours_epoch(folder, window_shards=2),
    "ours encoded": lambda folder: _ours_epoch(folder, cached="encoded"),
    "webdataset + pillow": lambda folder: _webdataset(folder, _pillow_decode()),
    "webdataset + simplejpeg": lambda folder: _webdataset(folder, _simplejpeg_decode()),
    "dali": lambda folder: _dali(folder, [], views=0),
}
