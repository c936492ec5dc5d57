"""Augmentation that weakens while an encoder trains, by the distinct images that it has seen (`plan.schedule: seen`).

The plan's curve says how strong views may be for so many images. Before training has seen them all there are fewer, and the
same curve says: stronger.
"""

from __future__ import annotations

from collections.abc import Sequence

from adainf.augment.profiles import Views
from adainf.inflation.policy import EFFECTIVE, InflationPlan, views_for
from adainf.recipe import Plan


def views_when_seen(plan: InflationPlan, rule: Plan, default: Views, seen: Sequence[int]) -> Views:
    """The views where so many distinct images of each source have been seen, the real ones first.

    They are those of n(t) = N(t) + (n - N) M(t) / M effective images, with n those of the plan, but of no fewer than the
    reference size, where the curve has the default's crop: so they are never stronger than the default's (or than the plan's,
    where n is less than the reference), never strengthen again, and are the plan's once every image was seen.
    """
    inputs, most = plan.inputs, plan.choice(EFFECTIVE).value
    unseen_real, unseen_share = inputs.real_images - seen[0], 1 - sum(seen[1:]) / inputs.generated_images
    effective = most - unseen_real - (most - inputs.real_images) * unseen_share
    return views_for(max(effective, min(inputs.reference_images, most)), rule, default)


def draws_until_all_seen(plan: InflationPlan) -> float:
    """After how many draws the views are the plan's: then a generated image has come once, and a real one no less often."""
    return plan.real_weight * plan.inputs.real_images + plan.inputs.generated_images
