"""Augmentation strength as data: one profile describes one random view of an image."""

from __future__ import annotations

from adainf.artifacts import Record
from adainf.recipe import Augmentation


class Profile(Record):
    """The operations of one view, in the order in which they are applied (paper's code, `pretrain_dataloader.py`)."""

    min_scale: float
    """Random resized crop: area in [min_scale, 1] of the image, aspect ratio in [3/4, 4/3]."""
    jitter_probability: float
    brightness: float
    """Factor in [1 - b, 1 + b]; contrast and saturation alike."""
    contrast: float
    saturation: float
    hue: float
    """Rotation in [-h, h] of a turn."""
    grayscale_probability: float
    blur_probability: float
    """Gaussian blur with sigma in [0.1, 2] pixels."""
    solarize_probability: float
    """Inversion of all values of at least half of the range."""
    flip_probability: float

    def weakened(self, min_scale: float, jitter_multiplier: float, with_strength: bool = True) -> Profile:
        """This profile with another crop, and jitter's probability (and `with_strength` its four strengths) multiplied."""
        names = ("brightness", "contrast", "saturation", "hue") if with_strength else ()
        weaker = {name: round(getattr(self, name) * jitter_multiplier, 6) for name in ("jitter_probability", *names)}
        return self.model_copy(update={"min_scale": min_scale, **weaker})


Views = tuple[Profile, Profile]


def default_views(augmentation: Augmentation) -> Views:
    """The two views of the default profile (reference implementation, `symmetric.yaml` and `asymmetric.yaml`)."""
    common = {
        "min_scale": augmentation.min_scale,
        "jitter_probability": augmentation.jitter_probability,
        "grayscale_probability": augmentation.grayscale_probability,
        "flip_probability": augmentation.flip_probability,
    }
    if augmentation.family == "symmetric":
        view = Profile(
            **common,
            brightness=0.8,
            contrast=0.8,
            saturation=0.8,
            hue=0.2,
            blur_probability=augmentation.blur_probability,
            solarize_probability=0.0,
        )
        return view, view
    first = Profile(
        **common, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, blur_probability=0.0, solarize_probability=0.0
    )
    return first, first.model_copy(update={"solarize_probability": 0.2})
