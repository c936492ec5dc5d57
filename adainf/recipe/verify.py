"""How the plan is verified by short training runs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from adainf.recipe.sections import Section


class Verify(Section):
    """Short probes around the plan's setting, scored on the validation split; arm `verified` trains with their choice."""

    budget: Annotated[float, Field(ge=0.001, le=1)] = 0.05
    """Steps of a probe, as a fraction of `pretrain.steps`; 0.05 to 0.1 is recommended."""
    deciding_seeds: Annotated[int, Field(ge=2, le=100)] = 5
    """Probes that compare each finalist with the plan's setting. Their seeds took no part in choosing the finalists."""
    judged_by: Literal["auto", "linear", "knn", "infonce"] = "auto"
    """`linear`, `knn`: a probe fitted on the training labels, scored on validation. `infonce`: InfoNCE of held-out images,
    without labels. `auto`: `linear` where there are labels, else `infonce`."""
