"""Crops of photos at their own size: drawn as for images of one size, cut as by a full decode."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from adainf.augment.draws import draw, draw_boxes
from adainf.augment.originals import OriginalCrops
from adainf.augment.profiles import default_views
from adainf.augment.views import augment, augment_crops
from adainf.recipe import Augmentation
from adainf.shards.format.crops import cut, shape_of
from adainf.shards.format.formats import Reading, upright

VIEWS = default_views(Augmentation())
PHOTOS: list[np.ndarray] = load_sample_images().images


def encoded(pixels: np.ndarray, mode: str = "RGB", orientation: int = 1, **options: object) -> bytes:
    buffer, exif = io.BytesIO(), Image.Exif()
    exif[274] = orientation
    Image.fromarray(pixels).convert(mode).save(buffer, "JPEG", quality=92, exif=exif, **options)
    return buffer.getvalue()


def test_boxes_are_those_of_images_of_one_size() -> None:
    identities = torch.arange(500) * 7919
    for height, width in ((375, 500), (500, 100), (1, 9), (64, 64)):
        sizes = (torch.full((500,), height), torch.full((500,), width))
        expected = draw(identities, 3, 5, 1, VIEWS[0], height, width).boxes_B4
        assert torch.equal(draw_boxes(identities, 3, 5, 1, VIEWS[0], *sizes), expected)


def test_a_box_depends_on_its_image_only() -> None:
    chance = np.random.default_rng(0)
    indices, heights, widths = (chance.integers(1, 4000, 64) for _ in range(3))
    crops = OriginalCrops(0, VIEWS, 96)
    together = crops.drawing(7, 1)(indices, heights, widths)
    alone = [crops.drawing(7, 1)(indices[row : row + 1], heights[row : row + 1], widths[row : row + 1]) for row in range(64)]
    np.testing.assert_array_equal(together, np.concatenate(alone, axis=1))
    assert (together[:, :, :2] >= 0).all()
    assert (together[:, :, 0] + together[:, :, 2] <= heights).all()
    assert (together[:, :, 1] + together[:, :, 3] <= widths).all()
    assert not np.array_equal(together, crops.drawing(8, 1)(indices, heights, widths))
    assert not np.array_equal(together, crops.drawing(7, 0)(indices, heights, widths))


def test_without_a_random_crop_the_view_is_the_central_square() -> None:
    identity = [view.scaled(0) for view in VIEWS]
    boxes = OriginalCrops(0, identity, 32).drawing(0, 0)(np.array([0, 1]), np.array([40, 90]), np.array([100, 30]))
    assert boxes.tolist() == [[[0, 30, 40, 40], [30, 0, 30, 30]]] * 2


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("mode", "options"), [("RGB", {}), ("CMYK", {})])
def test_cuts_are_those_of_a_full_decode(mode: str, options: dict[str, object], orientation: int, scaled: bool) -> None:
    reading = Reading(exif_transpose=True)
    differences = []
    for number, pixels in enumerate(PHOTOS):
        data = encoded(pixels, mode, orientation, **options)
        full = upright(Image.open(io.BytesIO(data))).convert("RGB")
        shape = shape_of(data, reading)
        assert (shape.width_px, shape.height_px) == full.size
        sizes = np.full(6, shape.height_px), np.full(6, shape.width_px)
        boxes = OriginalCrops(number, VIEWS, 48).drawing(number, 0)(np.arange(6), *sizes)
        for image in range(6):
            outs = np.empty((2, 48, 48, 3), np.uint8)
            cut(data, shape, boxes[:, image].tolist(), list(outs), reading, scaled)
            for (top, left, height, width), out in zip(boxes[:, image].tolist(), outs, strict=True):
                part = full.crop((left, top, left + width, top + height)).resize((48, 48), Image.Resampling.BICUBIC)
                differences.append(np.abs(np.asarray(part).astype(int) - out).mean())
    if scaled:
        assert np.mean(differences) <= 2
        assert max(differences) > 0  # some are scaled
    else:  # Pillow resizes rows first, and rounds in between
        assert max(differences) <= (0 if orientation == 1 else 0.5)


def test_cropped_views_are_augmented_like_others() -> None:
    """The same operations with the same parameters, on crops that were rounded to integers."""
    images = torch.from_numpy(np.stack([PHOTOS[n % 2][n * 9 :, n * 20 :][:64, :64] for n in range(12)]).copy())
    identities, mean, std = torch.arange(12) * 31, (0.5, 0.4, 0.3), (0.2, 0.3, 0.2)
    crops = OriginalCrops(5, VIEWS, 64)
    boxes = crops.drawing(2, 0)(identities.numpy(), np.full(12, 64), np.full(12, 64))
    views = []
    for view in range(2):
        cropped = []
        for image, (top, left, height, width) in zip(images.numpy(), boxes[view].tolist(), strict=True):
            part = Image.fromarray(image[top : top + height, left : left + width])
            cropped.append(np.asarray(part.resize((64, 64), Image.Resampling.BICUBIC)))
        views.append(torch.from_numpy(np.stack(cropped)))
    expected = augment(images, identities, 5, 2, VIEWS, mean, std)
    found = augment_crops(views, identities, 5, 2, VIEWS, mean, std)
    for ours, reference in zip(found, expected, strict=True):
        assert ours.shape == reference.shape
        assert float((ours - reference).abs().median()) < 0.02
        assert float((ours - reference).abs().mean()) < 0.05
