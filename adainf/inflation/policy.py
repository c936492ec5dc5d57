"""The inflation plan: from sizes and quality to the weight of a real image and the strength of augmentation.

Two measured facts of the paper (Wang, Zhang and Wang, ICLR 2024) carry the rule: one real image is worth about ten
generated ones of a very good generator (figure 2), and the best min crop scale grows with the size of the data: 0.02,
0.08, 0.20 and 0.30 at 25k, 50k, 150k and 1.05M images (figure 3a). Everything between and beyond those points is
ours, and the plan says which is which.

Several sources of generated images are weighed by that one rule: if a real image is worth 10 / q images of quality q, one of
those is worth q / best q images of the best source.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from adainf.augment.profiles import Profile, Views
from adainf.inflation.quality_score import Worth
from adainf.inflation.record import (
    EFFECTIVE,
    GENERATED_SHARE,
    JITTER,
    MIN_SCALE,
    PAPER_REFERENCE_IMAGES,
    PRIOR,
    QUALITY,
    REAL_WEIGHT,
    SHARE,
    WEIGHT,
    Basis,
    Choice,
    InflationPlan,
    Inputs,
    Weighed,
    of_source,
)
from adainf.recipe import Plan

PAPER_SIZES = (25_000, 50_000, 150_000, 1_050_000)
PAPER_MIN_SCALES = (0.02, 0.08, 0.20, 0.30)
PAPER_WEIGHT = 10.0
"""Weight of a real image against one of the paper's best generator (STF, FID 1.94)."""
PAPER_WEIGHT_AT = (50_000, 1_000_000)
"""Real and generated images of the paper's only sweep over the weight."""
MAX_WEIGHT = 100.0
RECIPE_MIN_SCALE = 0.20
"""Weakest crop together with weaker jitter: both spend the same budget, the paper ships 0.20 with half the jitter."""


def make_plan(inputs: Inputs, rule: Plan, default: Views) -> InflationPlan:
    """The plan for these sizes and qualities; the order of the sources is of no consequence.

    Of source s let M'_s be the generated images that are no copies and q_s their quality. Effective size
    n = N + sum of q_s M'_s; weight of a real image w = 10 / q against one of the best source, whose q that is, and of an image
    of source s q_s / q; w at least so much that a batch holds `max_generated_share` generated images at most; min crop scale
    s(n) through the paper's points. A source that is refused (`worth.refusal`) has weight 0, and where none is left the plan
    is that of the real images alone.
    """
    worths = {name: Worth.of(source.measured) for name, source in sorted(inputs.sources.items())}
    used = {name: worth for name, worth in worths.items() if worth.refused is None}
    best = max((worth.quality for worth in used.values()), default=1.0)
    weights = {name: _weight(worth, best) if name in used else 0.0 for name, worth in worths.items()}
    masses = {name: weights[name] * inputs.sources[name].images for name in worths}
    mass = sum(masses.values())
    weight, basis = _real_weight(inputs, list(used.values()), mass, rule) if used else (1.0, PRIOR)
    drawn = weight * inputs.real_images + mass
    generated_share = round(mass / drawn, 6)
    sources = {
        name: Weighed(
            quality=round(worth.quality, 4),
            is_measured=worth.is_measured,
            weight=weights[name],
            share=round(masses[name] / drawn, 6),
            refused=worth.refused,
        )
        for name, worth in worths.items()
    }
    effective = inputs.real_images + sum(used[name].effective(inputs.sources[name].images) for name in used)
    augmentation = _augmentation(effective, rule, default[0].min_scale) if used else _unchanged(default)
    choices = [
        *_of_sources(sources, worths),
        *_of_all(sources, weight, generated_share, basis, effective),
        *augmentation,
    ]
    return InflationPlan(
        inputs=inputs,
        real_weight=weight,
        sources=sources,
        generated_share=generated_share,
        views=_weakened(default, augmentation),
        choices=choices,
        warnings=_warnings(inputs, sources),
    )


def _replication(quality: float) -> float:
    """How many images of that quality a real one is worth."""
    return min(max(PAPER_WEIGHT / quality, 1.0), MAX_WEIGHT)


def _weight(worth: Worth, best_quality: float) -> float:
    """Of one image, where one of the best source that is no copy has 1; in three digits, as the shares must be exact."""
    return _three_digits(_replication(best_quality) / _replication(worth.quality) * worth.original_share)


def _real_weight(inputs: Inputs, used: Sequence[Worth], mass: float, rule: Plan) -> tuple[float, Basis]:
    """`mass`: the generated images, each by its weight."""
    best, worst = max(worth.quality for worth in used), min(worth.quality for worth in used)
    least = mass / inputs.real_images * (1 - rule.max_generated_share) / rule.max_generated_share
    weight = _three_digits(max(_replication(best), least))
    # The paper swept the weight once, with a generator of the best quality: that must be known, not assumed.
    known = all(worth.by_fid for worth in used)
    at_the_point = known and (inputs.real_images, mass, worst) == (*PAPER_WEIGHT_AT, 1.0)
    return weight, "paper's point" if at_the_point and weight == PAPER_WEIGHT else PRIOR


def _weakened(default: Views, augmentation: tuple[Choice, Choice]) -> tuple[Profile, Profile]:
    scale, jitter = (choice.value for choice in augmentation)
    first, second = (view.weakened(scale, jitter, is_symmetric(default)) for view in default)
    return first, second


def _of_sources(sources: Mapping[str, Weighed], worths: Mapping[str, Worth]) -> list[Choice]:
    """What was chosen for each; the weight and the share of a single one are those of the whole plan."""
    choices = []
    for name, one in sources.items():
        numbers = {QUALITY: (one.quality, worths[name].formula)}
        if len(sources) > 1 and not one.refused:
            numbers |= {WEIGHT: (one.weight, "q / best q, less copies"), SHARE: (one.share, "weight M / (w N + G)")}
        choices += [
            Choice(name=of_source(what, name, len(sources)), value=value, formula=formula, basis=PRIOR)
            for what, (value, formula) in numbers.items()
        ]
    return choices


def _of_all(sources: Mapping[str, Weighed], weight: float, share: float, basis: Basis, effective: float) -> list[Choice]:
    several = len(sources) > 1
    mixed = "G / (w N + G), G = sum of weight M" if several else "M' / (w N + M')"
    worth = f"10 / {'best ' * several}q, real share at least 1 - max"
    return [
        Choice(name=REAL_WEIGHT, value=weight, formula=worth, basis=basis),
        Choice(name=GENERATED_SHARE, value=share, formula=mixed, basis=basis),
        Choice(name=EFFECTIVE, value=round(effective, 1), formula=f"N + {'sum of ' * several}q M'", basis=PRIOR),
    ]


def _unchanged(default: Views) -> tuple[Choice, Choice]:
    """The default augmentation: without generated images there is nothing to adapt it to."""
    formula = "the default's: nothing is inflated"
    scale = Choice(name=MIN_SCALE, value=default[0].min_scale, formula=formula, basis=PRIOR)
    return scale, Choice(name=JITTER, value=1.0, formula=formula, basis=PRIOR)


def _augmentation(effective: float, rule: Plan, base: float) -> tuple[Choice, Choice]:
    """Min crop scale and jitter multiplier; `base` is the default's min scale, right at the reference size."""
    scale, basis = min_scale(effective, rule.reference_images, base)
    curve = "s(n / reference), piecewise linear in log2"
    crop_alone = Choice(name=MIN_SCALE, value=scale, formula=curve, basis=basis)
    if rule.augmentation_rule == "crop_only":
        return crop_alone, Choice(name=JITTER, value=1.0, formula="1: the crop alone is weakened", basis=basis)
    # From the default's crop on: where nothing is inflated, nothing is weakened.
    jitter = round(1.0 - 0.5 * min(max((scale - base) / 0.12, 0.0), 1.0), 4)
    shipped: Basis = "paper's point" if basis == "paper's point" and effective == PAPER_SIZES[-1] else PRIOR
    weaker = Choice(name=JITTER, value=jitter, formula="1 - (s - s(1)) / 0.24, at least 1/2", basis=shipped)
    if jitter == 1.0:
        return crop_alone, weaker
    cap = max(RECIPE_MIN_SCALE, base)
    capped = f"{curve}, at most {cap:g} as jitter is weakened too"
    return Choice(name=MIN_SCALE, value=min(scale, cap), formula=capped, basis=shipped), weaker


def min_scale(effective_images: float, reference_images: int, default: float = 0.08) -> tuple[float, Basis]:
    """Best min crop scale for so many effective images, and what the number rests on.

    Piecewise linear in log2(effective / reference) through the paper's points, constant outside them. `default` is
    what is right at the reference size; the paper's 0.08 unless the recipe says otherwise, and then the curve is
    shifted by the difference. Non-decreasing in `effective_images`.
    """
    ratio = effective_images / reference_images
    at = [math.log2(size / PAPER_REFERENCE_IMAGES) for size in PAPER_SIZES]
    scale = float(np.interp(math.log2(ratio), at, PAPER_MIN_SCALES)) + (default - 0.08)
    scale = min(max(round(scale, 4), 0.01), 1.0)
    if reference_images != PAPER_REFERENCE_IMAGES or default != 0.08 or not at[0] <= math.log2(ratio) <= at[-1]:
        return scale, PRIOR
    on_point = any(math.isclose(effective_images, size, rel_tol=1e-6) for size in PAPER_SIZES)
    return scale, "paper's point" if on_point else "interpolation"


def is_symmetric(default: Views) -> bool:
    """The paper's code halves probability and strengths of the symmetric profile, of the asymmetric the probability alone."""
    return default[0] == default[1]


def _three_digits(value: float) -> float:
    return float(f"{value:.3g}")


def _warnings(inputs: Inputs, sources: Mapping[str, Weighed]) -> list[str]:
    warnings: list[str] = []
    several = len(sources) > 1
    for name, one in sources.items():
        if one.refused:
            left_out = f"{name} is" if several else "the generated images are"
            warnings.append(f"{left_out} left out: {one.refused}; fit the generator longer, or on more images")
        elif not one.is_measured:
            warnings.append(
                f"the quality of {name if several else 'the generated images'} was not measured: the weight assumes a "
                "generator as good as the paper's best (q = 1), and a worse one deserves less weight"
            )
    if inputs.real_images < 10_000:
        warnings.append(
            f"with {inputs.real_images:,} real images this is far below the paper's smallest set: every number is a prior"
        )
    return warnings
