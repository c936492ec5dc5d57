"""kornia: a batch at a time on tensors, each image its own draw but for the order of the jitter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

PACKAGE = "kornia"
VARIANTS = {"batched": "a batch at a time; one order of the jitter for all, crop without antialiasing"}


def augmenter(variant: str, profile: dict[str, Any], size_px: int) -> Callable[[np.ndarray, int], Any]:
    import torch
    from kornia import augmentation as k

    from benchmarks.augmenters import BLUR_TAPS_PX, MEAN, STD

    p, blur = profile, (BLUR_TAPS_PX, BLUR_TAPS_PX)
    jitter = (p["brightness"], p["contrast"], p["saturation"], p["hue"])
    # Of its two ways to crop the faster one (40 µs a view against 42).
    crop = {"scale": (p["min_scale"], 1.0), "resample": "BICUBIC", "cropping_mode": "resample"}
    steps = [
        k.RandomResizedCrop((size_px, size_px), **crop),
        k.ColorJitter(*jitter, p=p["jitter_probability"]),
        k.RandomGrayscale(p=p["grayscale_probability"]),
    ]
    if p["blur_probability"]:
        steps.append(k.RandomGaussianBlur(blur, (0.1, 2.0), p=p["blur_probability"]))
    if p["solarize_probability"]:
        steps.append(k.RandomSolarize(thresholds=(0.5, 0.5), additions=(0.0, 0.0), p=p["solarize_probability"]))
    steps += [k.RandomHorizontalFlip(p=p["flip_probability"]), k.Normalize(torch.tensor(MEAN), torch.tensor(STD))]
    transform = torch.nn.Sequential(*steps)
    return lambda images, step: [transform(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)]
