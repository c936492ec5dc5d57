"""The default augmentation, and the registry of augmentation families."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from adainf.recipe.sections import NotNegative, Probability, Section

FAMILIES = {
    "symmetric": "adainf.augment.profiles:symmetric",
    "asymmetric": "adainf.augment.profiles:asymmetric",
}
"""Family → function of `Augmentation` that returns the profiles of both views. docs/extending.md adds one."""

if TYPE_CHECKING:
    Family = str
else:
    Family = Literal[tuple(FAMILIES)]


class Augmentation(Section):
    """The default profile: that of arms `none`, `vanilla` and `reweighted`. The plan anneals it for the other arms."""

    family: Family = "symmetric"
    """`symmetric`: SimCLR, MoCo v2. `asymmetric`: BYOL, Barlow Twins (no blur, second view solarised). Not set, it follows the
    method (docs/methods.md)."""
    strength: NotNegative = 1.0
    """Scale of the complete profile: 0 is the identity, 1 the profile below, more is stronger, within legal ranges."""
    min_scale: Annotated[float, Field(gt=0, le=1)] = 0.08
    """Minimum area of a random resized crop, as a fraction of the image."""
    jitter_probability: Probability = 0.8
    """Of colour jitter (brightness, contrast, saturation, hue)."""
    jitter_strength: NotNegative = 1.0
    """Factor of jitter's 0.8, 0.8, 0.8, 0.2 (asymmetric: 0.4, 0.4, 0.2, 0.1)."""
    hue: Literal["exact", "yiq"] = "exact"
    """`exact`: jitter as in torchvision. `yiq`: rotates hue in YIQ and clamps once; takes two thirds of the time."""
    grayscale_probability: Probability = 0.2
    """Of greyscale conversion."""
    blur_probability: Probability = 0.5
    """Of Gaussian blur, sigma 0.1 to 2 px; symmetric family only."""
    flip_probability: Probability = 0.5
    """Of a horizontal flip; set 0 where mirroring changes the class, as for digits."""
