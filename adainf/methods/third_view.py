"""A third view under an alignment term, around a method: the positives of CLSP (Zeng et al. 2024, arXiv 2408.16965).

The third view is of a candidate of the image, or of the image itself (the control). Its projection is compared with those of
the same row only, so it is a negative of no image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from adainf.augment.profiles import Views
from adainf.methods.method import Embedded, Method, full_precision
from adainf.models.backbones import Backbone
from adainf.recipe import Add


def alignment(zs_bD: Sequence[Tensor], third_bD: Tensor, has_b: Tensor) -> Tensor:
    """has · (2 - 2 cos(z, z3)), the squared distance of normalised vectors, as a mean over the b local rows and over `zs_bD`.

    CLSP compares z1 (one entry of `zs_bD`). `has_b`: 1 where the row has a third view that counts, 0 elsewhere. No gradient is
    stopped. float32 scalar (float64 for float64). Exact for any world size: rows are independent.
    """
    with torch.autocast(third_bD.device.type, enabled=False):
        third = full_precision(third_bD)
        terms = [2 - 2 * F.cosine_similarity(full_precision(z), third, dim=1) for z in zs_bD]
        return (torch.stack(terms).mean(0) * has_b.to(third.dtype)).mean()


class ThirdView(Method):
    """`method` with a third view in a forward pass of its own; the last two of its `views` are that view and `has_b`."""

    def __init__(self, method: Method, config: Add) -> None:
        super().__init__()
        self.method, self.config = method, config
        self.independent_rows, self.collapses_by = method.independent_rows, method.collapses_by

    @property
    def backbone(self) -> Backbone:  # type: ignore[override]
        """That of the method."""
        return self.method.backbone

    def views(self, views: Views) -> Views:
        """The profiles of the method's views, then that of the third: the first one again."""
        return (*self.method.views(views), views[0])

    def before_step(self, step: int, steps: int) -> None:
        self.method.before_step(step, steps)

    def forward(self, views: Sequence[Tensor]) -> Embedded:
        *own, third, has_b = views
        embedded = self.method(own)
        return Embedded((*embedded.rows, self.method.projection(third), has_b), embedded.features_bD)

    def loss(self, rows: Sequence[Tensor], identities_b: Tensor) -> Tensor:
        *own, third, has_b = rows
        compared = own[:2] if self.config.align == "both" else own[:1]
        return self.method.loss(own, identities_b) + self.config.weight * alignment(compared, third, has_b)

    def before_update(self) -> None:
        self.method.before_update()

    def after_update(self, rows: Sequence[Tensor], identities_b: Tensor) -> None:
        self.method.after_update(rows[:-2], identities_b)
