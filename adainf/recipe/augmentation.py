"""The default views."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from adainf.recipe.sections import NotNegative, Probability, Section


class Augmentation(Section):
    """The default profile, as it stands for `none`, `vanilla` and `reweighted`; the plan weakens it for the others."""

    family: Literal["symmetric", "asymmetric"] = "symmetric"
    """`symmetric`: SimCLR, MoCo v2. `asymmetric`: BYOL, Barlow Twins (no blur, second view solarised)."""
    strength: NotNegative = 1.0
    """Of the profile as one: 0 leaves images as they are, 1 is the profile below, more is stronger as far as is legal."""
    min_scale: Annotated[float, Field(gt=0, le=1)] = 0.08
    """Least area of a random resized crop, as a share of the image."""
    jitter_probability: Probability = 0.8
    """Of colour jitter (brightness, contrast, saturation, hue)."""
    jitter_strength: NotNegative = 1.0
    """Multiplies jitter's 0.8, 0.8, 0.8, 0.2 (asymmetric: 0.4, 0.4, 0.2, 0.1)."""
    hue: Literal["exact", "yiq"] = "exact"
    """`exact`: jitter as torchvision has it. `yiq`: in two thirds of the time, hue turned in YIQ and values clamped once."""
    grayscale_probability: Probability = 0.2
    """Of dropping the colour."""
    blur_probability: Probability = 0.5
    """Of Gaussian blur, sigma 0.1 to 2 px; symmetric family only."""
    flip_probability: Probability = 0.5
    """Of a horizontal flip; set 0 where mirroring changes what an image is, as for digits."""
