"""The default views."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from adainf.recipe.sections import Probability, Section


class Augmentation(Section):
    """The default profile, used as it stands by `none` and `vanilla` and weakened by the plan for `adainf`."""

    family: Literal["symmetric", "asymmetric"] = "symmetric"
    """`symmetric`: SimCLR, MoCo v2. `asymmetric`: BYOL, Barlow Twins (no blur, second view solarised)."""
    min_scale: Annotated[float, Field(gt=0, le=1)] = 0.08
    """Least area of a random resized crop, as a share of the image."""
    jitter_probability: Probability = 0.8
    """Of colour jitter (brightness, contrast, saturation, hue)."""
    grayscale_probability: Probability = 0.2
    """Of dropping the colour."""
    blur_probability: Probability = 0.5
    """Of Gaussian blur, sigma 0.1 to 2 px; symmetric family only."""
    flip_probability: Probability = 0.5
    """Of a horizontal flip; set 0 where mirroring changes what an image is, as for digits."""
