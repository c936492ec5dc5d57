"""Augmentation profiles: one profile describes the distribution of one random view."""

from __future__ import annotations

from pkgutil import resolve_name

from adainf.pipeline.records import Record
from adainf.recipe.augmentation import FAMILIES, Augmentation

MAX_HUE = 0.5
"""Half a turn, the largest rotation of hue."""
MIN_SCALE_LIMIT = 0.01


class Profile(Record):
    """The operations of one view, in the order in which they are applied (paper's code, `pretrain_dataloader.py`)."""

    min_scale: float
    """Random resized crop: area in [min_scale, max_scale] of the image, aspect ratio in [3/4, 4/3]; 1: no crop."""
    max_scale: float = 1.0
    size_px: int | None = None
    """Side length of the view; None: height and width of the image."""
    jitter_probability: float
    brightness: float
    """Factor in [1 - b, 1 + b], at least 0; contrast and saturation alike."""
    contrast: float
    saturation: float
    hue: float
    """Rotation in [-h, h] of a turn, h at most a half."""
    grayscale_probability: float
    blur_probability: float
    """Gaussian blur with sigma in [0.1, 2] pixels."""
    solarize_probability: float
    """Inversion of all values of at least half the range."""
    flip_probability: float

    def scaled(self, strength: float) -> Profile:
        """This profile at another strength: the identity at 0, itself at 1, above 1 stronger within the legal ranges.

        All probabilities, factors and the cropped-away area grow in proportion. The flip probability does not grow above
        strength 1: flipping more than half of the images would only swap the roles.
        """
        grown = {
            "min_scale": max(1 - (1 - self.min_scale) * strength, min(self.min_scale, MIN_SCALE_LIMIT)),
            "max_scale": max(1 - (1 - self.max_scale) * strength, min(self.max_scale, MIN_SCALE_LIMIT)),
            "hue": min(self.hue * strength, MAX_HUE),
            "flip_probability": self.flip_probability * min(strength, 1.0),
        }
        for name in ("jitter_probability", "grayscale_probability", "blur_probability", "solarize_probability"):
            grown[name] = min(getattr(self, name) * strength, 1.0)
        for name in ("brightness", "contrast", "saturation"):
            grown[name] = getattr(self, name) * strength
        return self.model_copy(update={name: round(value, 6) for name, value in grown.items()})

    def with_crop_and_jitter(self, min_scale: float, jitter_multiplier: float, with_strength: bool = True) -> Profile:
        """This profile with min scale `min_scale`, and the jitter's probability (`with_strength`: and strengths) multiplied."""
        names = ("brightness", "contrast", "saturation", "hue") if with_strength else ()
        weaker = {name: round(getattr(self, name) * jitter_multiplier, 6) for name in ("jitter_probability", *names)}
        return self.model_copy(update={"min_scale": min_scale, **weaker})


Views = tuple[Profile, ...]
"""Two global views first; a multi-crop method adds smaller local ones."""


def default_views(augmentation: Augmentation) -> Views:
    """The two views of the default profile: those of the recipe's family, scaled to its strength."""
    views: Views = resolve_name(FAMILIES[augmentation.family])(augmentation)
    return tuple(view.scaled(augmentation.strength) for view in views)


def symmetric(augmentation: Augmentation) -> Views:
    """The views of SimCLR and MoCo v2 (reference implementation, `symmetric.yaml`)."""
    view = _profile(augmentation, (0.8, 0.8, 0.8, 0.2), augmentation.blur_probability)
    return view, view


def asymmetric(augmentation: Augmentation) -> Views:
    """The views of BYOL and Barlow Twins (reference implementation, `asymmetric.yaml`)."""
    first = _profile(augmentation, (0.4, 0.4, 0.2, 0.1), blur_probability=0.0)
    return first, first.model_copy(update={"solarize_probability": 0.2})


def _profile(augmentation: Augmentation, jitter: tuple[float, float, float, float], blur_probability: float) -> Profile:
    brightness, contrast, saturation, hue = (round(each * augmentation.jitter_strength, 6) for each in jitter)
    return Profile(
        min_scale=augmentation.min_scale,
        jitter_probability=augmentation.jitter_probability,
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
        hue=min(hue, MAX_HUE),
        grayscale_probability=augmentation.grayscale_probability,
        blur_probability=blur_probability,
        solarize_probability=0.0,
        flip_probability=augmentation.flip_probability,
    )
