"""How the plan is tried out before it is believed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from adainf.recipe.sections import Section


class Verify(Section):
    """Short probes around the plan's setting, judged on the validation split; arm `verified` is what they choose."""

    budget: Annotated[float, Field(ge=0.001, le=1)] = 0.05
    """Steps of a probe, as a share of `pretrain.steps`; 0.05 to 0.1 is meant."""
    deciding_seeds: Annotated[int, Field(ge=2, le=100)] = 5
    """Probes by which each finalist is compared with the plan's setting; their seeds have chosen no finalist."""
    judged_by: Literal["auto", "linear", "knn", "infonce"] = "auto"
    """`linear`, `knn`: a probe on the training labels, judged on those of validation. `infonce`: InfoNCE of held-out images,
    without labels. `auto`: `linear` where there are labels, else `infonce`."""
