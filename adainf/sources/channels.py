"""Detect images whose channel order differs from the real images' (RGB against BGR)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from adainf.shards.format.manifest import Split
from adainf.shards.format.png import Pixels

CHECKED_IMAGES = 2048
"""Enough images for the check: the standard error of their means is a fraction of a grey level."""
_STANDARD_ERRORS = 5.0
"""Minimum distance of R - B from zero, in standard errors; at 5, one in some millions is a false positive."""
_LEAST_DIFFERENCE = 2.0
"""The same in grey levels of 255: a generator's colours may drift that far."""


class Contradiction(NamedTuple):
    """The mean difference of red and blue, in grey levels."""

    images: float
    real: float

    def __str__(self) -> str:
        return (
            f"red exceeds blue by {self.images:.1f} on average, but by {self.real:.1f} in the real images: the channel order "
            "is reversed"
        )


def order_contradiction(images: Iterable[Pixels], real: Split) -> Contradiction | None:
    """The contradiction between images (H x W x 3 uint8 each), read as R, G, B, and the real ones; None without one.

    With means m of the images and r of the real ones, m is nearer to r with R and B swapped exactly where m_R - m_B
    and r_R - r_B differ in sign: |m - r|^2 - |swap(m) - r|^2 = -2 (m_R - m_B) (r_R - r_B). Both differences must be
    significant; for grey images they are zero.
    """
    means_N3 = np.array([image.mean(axis=(0, 1)) for image in images])
    red_less_blue = means_N3[:, 0] - means_N3[:, 2]
    spread = red_less_blue.std(ddof=1) if len(red_less_blue) > 1 else np.inf
    assert real.channel_means is not None  # ingest decodes every image
    found = Contradiction(float(red_less_blue.mean()), real.channel_means[0] - real.channel_means[2])
    significant = all(
        abs(difference) > max(_LEAST_DIFFERENCE, _STANDARD_ERRORS * spread / np.sqrt(count))
        for difference, count in ((found.images, len(red_less_blue)), (found.real, real.images))
    )
    return found if significant and found.images * found.real < 0 else None
