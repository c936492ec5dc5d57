"""Augmentation that weakens while an encoder trains, by the distinct images that it has seen (`plan.schedule: seen`).

The plan's curve says how strong views may be for so many images. Before training has seen them all there are fewer, and the
same curve says: stronger.
"""

from __future__ import annotations

from collections.abc import Sequence

from adainf.augment.profiles import Views
from adainf.inflation.policy import views_for
from adainf.inflation.record import InflationPlan
from adainf.inflation.worth import Worth
from adainf.recipe import Plan


def views_when_seen(plan: InflationPlan, rule: Plan, default: Views, seen: Sequence[int]) -> Views:
    """The views where so many distinct images of each source have been seen: the real ones first, then those of the plan's
    `weights`.

    They are those of n(t) = N(t) + sum of q_s M'_s M_s(t) / M_s effective images, but of no fewer than the reference size,
    where the curve has the default's crop: so they are never stronger than the default's (or than the plan's, where n is less
    than the reference), never strengthen again, and are the plan's once every image was seen.
    """
    sources = [plan.inputs.sources[name] for name in plan.weights]

    def effective(real: int, *generated: int) -> float:
        counted = zip(sources, generated, strict=True)
        return real + sum(Worth.of(of.measured).effective(of.images) * (count / of.images) for of, count in counted)

    most = effective(plan.inputs.real_images, *(source.images for source in sources))
    return views_for(max(effective(*seen), min(plan.inputs.reference_images, most)), rule, default)


def draws_until_all_seen(plan: InflationPlan) -> float:
    """After how many draws the views are the plan's: each image has come once, those of least weight last."""
    drawn = sum(weight * plan.inputs.sources[name].images for name, weight in plan.weights.items())
    return (plan.real_weight * plan.inputs.real_images + drawn) / min(plan.real_weight, *plan.weights.values())
