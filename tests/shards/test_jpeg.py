"""JPEG is decoded to Pillow's pixels, or to Pillow's error, whatever the file is."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from adainf.recipe import ImageFolder
from adainf.shards.format import jpeg
from adainf.shards.format.decode import resized
from adainf.shards.format.formats import Reading, upright
from adainf.shards.format.png import Pixels, decode_image, decode_problem

PHOTO: Pixels = load_sample_images().images[0]


def encoded(pixels: Pixels, mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[274] = orientation
    return found


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
SMALL = PHOTO[100:183, 200:317]
FILES = {
    **{f"subsampling {name}": encoded(SMALL, subsampling=name) for name in ("4:4:4", "4:2:2", "4:2:0")},
    "grey": encoded(SMALL, "L"),
    "cmyk": encoded(SMALL, "CMYK"),
    "rgb": encoded(SMALL, keep_rgb=True),
    "progressive": encoded(SMALL, progressive=True),
    "optimized": encoded(SMALL, optimize=True, quality=99),
    "coarse": encoded(SMALL, quality=3),
    "restart": encoded(SMALL, restart_marker_blocks=2),
    "row": encoded(SMALL[:1]),
    "column": encoded(SMALL[:, :1]),
    "pixel": encoded(SMALL[:1, :1]),
    **{f"orientation {number}": encoded(SMALL, exif=exif(number)) for number in (1, 3, 6, 8, 9)},
    "xmp": encoded(SMALL, xmp=XMP),
    "corrupt exif": encoded(SMALL, exif=b"Exif\0\0MM\0*\0\0"),
    "comment": encoded(SMALL, comment=b"\xff\xd9" * 40),
    "trailing": encoded(SMALL) + b"\xff\xd8more",
    "leading fill": encoded(SMALL).replace(b"\xff\xdb", b"\xff\xff\xdb", 1),
    "no end": encoded(SMALL)[:-2],
    "half": encoded(SMALL)[:1500],
    "header": encoded(SMALL)[:300],
    "arithmetic": encoded(SMALL).replace(b"\xff\xc0", b"\xff\xc9", 1),
    "twelve bits": encoded(SMALL).replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c", 1),
    "no height": encoded(SMALL).replace(b"\x08\x00\x53\x00\x75", b"\x08\x00\x00\x00\x75", 1),
}


def by_pillow(data: bytes, turn: bool = False) -> Pixels | str:
    """What Pillow makes of a file: pixels or the reason."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.array((upright(image) if turn else image).convert("RGB"))
    except Exception as error:
        return f"cannot decode the image ({decode_problem(error)})"


def by_us(data: bytes, turn: bool = False, least_px: int | None = None) -> Pixels | str:
    try:
        return decode_image(data, reading=Reading(exif_transpose=turn, least_px=least_px))
    except ValueError as error:
        return str(error)


def same(ours: Pixels | str, reference: Pixels | str) -> bool:
    if isinstance(ours, str) or isinstance(reference, str):
        return isinstance(ours, str) and ours == reference
    return np.array_equal(ours, reference)


@pytest.mark.parametrize("turn", [False, True])
@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_gives_pillows_pixels_or_its_error(name: str, turn: bool) -> None:
    assert same(by_us(FILES[name], turn), by_pillow(FILES[name], turn))


def test_simplejpeg_decodes_what_is_regular() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert jpeg._decoder() is not None
    left = {
        name for name, data in FILES.items() if (frame := jpeg.frame_of(data)) is None or jpeg.decode_jpeg(data, frame) is None
    }
    assert left == {"cmyk", "leading fill", "no end", "half", "header", "arithmetic", "twelve bits", "no height"}


def test_fuzzed_files_give_pillows_pixels_or_its_error() -> None:
    rng, sources = np.random.default_rng(0), [FILES["grey"], FILES["progressive"], FILES["restart"], FILES["orientation 6"]]
    for number in range(400):
        data = bytearray(sources[number % len(sources)])
        if number % 3:
            head = len(data) if number % 2 else 700  # half of them in the header
            for at in rng.integers(2, head, rng.integers(1, 4)):
                data[at] ^= 1 << int(rng.integers(8))
        else:
            del data[int(rng.integers(2, len(data))) :]
        assert same(by_us(bytes(data), turn=True), by_pillow(bytes(data), turn=True)), number


def drafted(data: bytes, scale: int) -> Pixels:
    with Image.open(io.BytesIO(data)) as image:
        if scale > 1:
            image.draft("RGB", (image.width // scale, image.height // scale))
        return np.array(image.convert("RGB"))


def scaled_cases() -> Iterator[tuple[Pixels, int, int]]:
    """Pixels, the least side, and the scale that follows from both."""
    yield PHOTO, 42, 8
    yield PHOTO, 43, 4
    yield PHOTO, 170, 2
    yield PHOTO, 171, 1
    yield PHOTO.transpose(1, 0, 2), 85, 4
    yield PHOTO[:7, :7], 1, 1
    yield PHOTO[:1, :400], 1, 1
    yield PHOTO[:10, :300], 1, 8


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_scaled_decoding_is_pillows_draft(mode: str) -> None:
    for pixels, least, scale in scaled_cases():
        data = encoded(np.ascontiguousarray(pixels), mode, quality=90)
        found = by_us(data, least_px=least)
        assert same(found, drafted(data, scale))
        assert isinstance(found, np.ndarray)
        assert min(found.shape[:2]) >= min(least, *pixels.shape[:2])


@pytest.mark.parametrize("size", [32, 64, 96, 160])
def test_a_scaled_image_is_nearly_the_exact_one(size: int) -> None:
    differences = []
    for data in (encoded(pixels, quality=90) for pixels in load_sample_images().images):
        exact, scaled = (resized(decode_image(data, reading=Reading(square_px=square)), size) for square in (None, size))
        differences.append(np.abs(exact.astype(int) - scaled).mean())
        assert scaled.shape == exact.shape == (size, size, 3)
    assert max(differences) <= 2


def test_turned_photos_are_scaled_before_they_are_turned() -> None:
    data = encoded(PHOTO, exif=exif(6), quality=90)
    found = by_us(data, turn=True, least_px=80)
    assert same(found, np.rot90(drafted(data, 4), -1))


def test_other_formats_are_not_scaled() -> None:
    for kind in ("PNG", "WEBP", "BMP", "TIFF"):
        buffer = io.BytesIO()
        Image.fromarray(PHOTO).save(buffer, kind)
        assert same(by_us(buffer.getvalue(), least_px=16), by_us(buffer.getvalue()))


def test_scaled_needs_a_size() -> None:
    with pytest.raises(ValueError, match="decode: scaled without image_size_px; set image_size_px"):
        ImageFolder(kind="folder", path="x", decode="scaled")
    exact = ImageFolder(kind="folder", path="x", image_size_px=32)
    assert "decode" not in exact.model_dump()  # so the requests of finished runs stay
    assert exact.model_copy(update={"decode": "scaled"}).model_dump()["decode"] == "scaled"
