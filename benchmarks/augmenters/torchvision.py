"""torchvision, image by image: the first API on Pillow's images as solo-learn has it, and the second on tensors."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np

PACKAGE = "torchvision"
VARIANTS = {"pil": "v1 on Pillow's images, a sample at a time", "tensor": "v2 on tensors, a sample at a time"}


def augmenter(variant: str, profile: dict[str, Any], size_px: int) -> Callable[[np.ndarray, int], Any]:
    import torch
    from PIL import Image
    from torchvision import transforms as v1
    from torchvision.transforms import v2

    transform = (_pil if variant == "pil" else _tensor)(v1 if variant == "pil" else v2, profile, size_px)
    read = Image.fromarray if variant == "pil" else lambda image: torch.from_numpy(image).permute(2, 0, 1)
    return lambda images, step: [torch.stack([transform(read(image)) for image in images])]


def _common(api: Any, p: dict[str, Any], size_px: int) -> list[Any]:
    crop = {"scale": (p["min_scale"], 1.0), "interpolation": api.InterpolationMode.BICUBIC, "antialias": True}
    jitter = api.ColorJitter(p["brightness"], p["contrast"], p["saturation"], p["hue"])
    return [
        api.RandomResizedCrop(size_px, **crop),
        api.RandomApply([jitter], p=p["jitter_probability"]),
        api.RandomGrayscale(p["grayscale_probability"]),
    ]


def _pil(v1: Any, p: dict[str, Any], size_px: int) -> Any:
    from PIL import ImageFilter, ImageOps

    from benchmarks.augmenters import MEAN, STD

    def blur(image: Any) -> Any:
        return image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0)))

    steps = _common(v1, p, size_px)
    if p["blur_probability"]:
        steps.append(v1.RandomApply([blur], p=p["blur_probability"]))
    if p["solarize_probability"]:
        steps.append(v1.RandomApply([ImageOps.solarize], p=p["solarize_probability"]))
    return v1.Compose([*steps, v1.RandomHorizontalFlip(p["flip_probability"]), v1.ToTensor(), v1.Normalize(MEAN, STD)])


def _tensor(v2: Any, p: dict[str, Any], size_px: int) -> Any:
    import torch

    from benchmarks.augmenters import BLUR_TAPS_PX, MEAN, STD

    steps = _common(v2, p, size_px)
    if p["blur_probability"]:
        steps.append(v2.RandomApply([v2.GaussianBlur(BLUR_TAPS_PX, (0.1, 2.0))], p=p["blur_probability"]))
    if p["solarize_probability"]:
        steps.append(v2.RandomSolarize(128, p=p["solarize_probability"]))
    floats = v2.ToDtype(torch.float32, scale=True)
    return v2.Compose([*steps, v2.RandomHorizontalFlip(p["flip_probability"]), floats, v2.Normalize(MEAN, STD)])
