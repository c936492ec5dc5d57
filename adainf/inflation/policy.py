"""The inflation plan: from sizes and quality to the weight of a real image and the strength of augmentation.

The rule rests on two results of the paper (Wang, Zhang and Wang, ICLR 2024). One real image is worth about ten generated ones
of a very good generator (figure 2). The best min crop scale grows with the size of the data: 0.02, 0.08, 0.20 and 0.30 at 25k,
50k, 150k and 1.05M images (figure 3a). Values between these points are interpolations, all others are priors of ours; the plan
marks the basis of every value.

The same rule weighs several sources of generated images: a real image is worth 10 / q images of quality score q, so an image of
that source is worth q / best q images of the best source.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from adainf.augment.profiles import Profile, Views
from adainf.inflation.quality_score import QualityScore
from adainf.inflation.record import (
    EFFECTIVE,
    GENERATED_SHARE,
    JITTER,
    MIN_SCALE,
    PAPER_METHOD,
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
    SourceWeight,
    choice_name,
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
"""Upper limit of the min crop scale when jitter is weakened too: the paper's recipe has 0.20 with half the jitter."""


def make_plan(inputs: Inputs, rule: Plan, default: Views) -> InflationPlan:
    """The plan for these sizes and quality scores; it does not depend on the order of the sources.

    N: real images. M'_s: distinct generated images of source s that are not near-duplicates of training images. q_s: its
    quality score; q: the best of all sources.

    * Weight of an image of source s: q_s / q, times M'_s / M_s.
    * Weight of a real image: w = 10 / q, raised until a batch holds at most `max_generated_share` generated images.
    * Effective size: n = N + sum of q_s M'_s. Min crop scale: s(n / reference), through the paper's points.

    A refused source (`quality_score.refusal_reason`) has weight 0. If all are refused, the plan is that of real images only.
    """
    scores = {name: QualityScore.of(source.measured) for name, source in sorted(inputs.sources.items())}
    used = {name: score for name, score in scores.items() if score.refused is None}
    best = max((score.quality for score in used.values()), default=1.0)
    weights = {name: _weight(score, best) if name in used else 0.0 for name, score in scores.items()}
    masses = {name: weights[name] * inputs.sources[name].images for name in scores}
    mass = sum(masses.values())
    weight, basis = _real_weight(inputs, list(used.values()), mass, rule) if used else (1.0, PRIOR)
    drawn = weight * inputs.real_images + mass
    generated_share = round(mass / drawn, 6)
    sources = {
        name: SourceWeight(
            quality=round(score.quality, 4),
            is_measured=score.is_measured,
            weight=weights[name],
            share=round(masses[name] / drawn, 6),
            refused=score.refused,
        )
        for name, score in scores.items()
    }
    effective = inputs.real_images + sum(used[name].effective(inputs.sources[name].images) for name in used)
    augmentation = _augmentation(effective, inputs, rule, default[0].min_scale) if used else _unchanged(default)
    views = _planned_views(default, augmentation)
    choices = [
        *_source_choices(sources, scores),
        *_total_choices(sources, weight, generated_share, basis, effective),
        *augmentation,
    ]
    return InflationPlan(
        inputs=inputs,
        real_weight=weight,
        sources=sources,
        generated_share=generated_share,
        views=views,
        choices=choices,
        warnings=[*_stronger(inputs, views, default), *_warnings(inputs, sources)],
    )


def _replication(quality: float) -> float:
    """Number of images of that quality score that one real image is worth."""
    return min(max(PAPER_WEIGHT / quality, 1.0), MAX_WEIGHT)


def _weight(score: QualityScore, best_quality: float) -> float:
    """Weight per image, relative to a novel image of the best source. Three digits, so that the stream's shares are exact."""
    return _three_digits(_replication(best_quality) / _replication(score.quality) * score.novel_share)


def _real_weight(inputs: Inputs, used: Sequence[QualityScore], mass: float, rule: Plan) -> tuple[float, Basis]:
    """Weight of a real image. `mass`: the sum of the generated images' weights."""
    best, worst = max(score.quality for score in used), min(score.quality for score in used)
    least = mass / inputs.real_images * (1 - rule.max_generated_share) / rule.max_generated_share
    weight = _three_digits(max(_replication(best), least))
    # The paper swept the weight once, with a generator of the best quality: the quality must be measured, not assumed.
    known = all(score.has_fid for score in used) and inputs.method == PAPER_METHOD
    at_the_point = known and (inputs.real_images, mass, worst) == (*PAPER_WEIGHT_AT, 1.0)
    return weight, "paper's point" if at_the_point and weight == PAPER_WEIGHT else PRIOR


def _planned_views(default: Views, augmentation: tuple[Choice, Choice]) -> tuple[Profile, Profile]:
    scale, jitter = (choice.value for choice in augmentation)
    first, second = (view.with_crop_and_jitter(scale, jitter, is_symmetric(default)) for view in default)
    return first, second


def _source_choices(sources: Mapping[str, SourceWeight], scores: Mapping[str, QualityScore]) -> list[Choice]:
    """The choices per source; with a single source, weight and share are those of the plan."""
    choices = []
    for name, one in sources.items():
        numbers = {QUALITY: (one.quality, scores[name].formula)}
        if len(sources) > 1 and not one.refused:
            numbers |= {WEIGHT: (one.weight, "q / best q, less copies"), SHARE: (one.share, "weight M / (w N + G)")}
        choices += [
            Choice(name=choice_name(what, name, len(sources)), value=value, formula=formula, basis=PRIOR)
            for what, (value, formula) in numbers.items()
        ]
    return choices


def _total_choices(
    sources: Mapping[str, SourceWeight], weight: float, share: float, basis: Basis, effective: float
) -> list[Choice]:
    several = len(sources) > 1
    mixed = "G / (w N + G), G = sum of weight M" if several else "M' / (w N + M')"
    replication = f"10 / {'best ' * several}q, real share at least 1 - max"
    return [
        Choice(name=REAL_WEIGHT, value=weight, formula=replication, basis=basis),
        Choice(name=GENERATED_SHARE, value=share, formula=mixed, basis=basis),
        Choice(name=EFFECTIVE, value=round(effective, 1), formula=f"N + {'sum of ' * several}q M'", basis=PRIOR),
    ]


def _unchanged(default: Views) -> tuple[Choice, Choice]:
    """The default augmentation, for a plan without generated images."""
    formula = "the default's: nothing is inflated"
    scale = Choice(name=MIN_SCALE, value=default[0].min_scale, formula=formula, basis=PRIOR)
    return scale, Choice(name=JITTER, value=1.0, formula=formula, basis=PRIOR)


def _augmentation(effective: float, inputs: Inputs, rule: Plan, base: float) -> tuple[Choice, Choice]:
    """Min crop scale and jitter multiplier; `base` is the default's min scale, which suits the reference size."""
    scale, basis = min_scale(effective, inputs.reference_images, base)
    basis = basis if inputs.method == PAPER_METHOD else PRIOR
    curve = "s(n / reference), piecewise linear in log2"
    crop_only = Choice(name=MIN_SCALE, value=scale, formula=curve, basis=basis)
    if rule.augmentation_rule == "crop_only":
        return crop_only, Choice(name=JITTER, value=1.0, formula="1: the crop alone is weakened", basis=basis)
    # Relative to the default's crop, so that augmentation is unchanged where the data are not inflated.
    jitter = round(1.0 - 0.5 * min(max((scale - base) / 0.12, 0.0), 1.0), 4)
    shipped: Basis = "paper's point" if basis == "paper's point" and effective == PAPER_SIZES[-1] else PRIOR
    weaker = Choice(name=JITTER, value=jitter, formula="1 - (s - s(1)) / 0.24, at least 1/2", basis=shipped)
    if jitter == 1.0:
        return crop_only, weaker
    cap = max(RECIPE_MIN_SCALE, base)
    capped = f"{curve}, at most {cap:g} as jitter is weakened too"
    return Choice(name=MIN_SCALE, value=min(scale, cap), formula=capped, basis=shipped), weaker


def min_scale(effective_images: float, reference_images: int, default: float = 0.08) -> tuple[float, Basis]:
    """Best min crop scale for `effective_images`, and its basis.

    Piecewise linear in log2(effective / reference) through the paper's points, constant outside them. `default` is the scale at
    the reference size; if it is not the paper's 0.08, the curve is shifted by the difference. Non-decreasing in
    `effective_images`.
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
    """The paper's code halves probability and strengths of the symmetric profile, but only the asymmetric one's probability."""
    return default[0] == default[1]


def _three_digits(value: float) -> float:
    return float(f"{value:.3g}")


def _stronger(inputs: Inputs, views: Views, default: Views) -> list[str]:
    """A warning where the plan strengthens augmentation, which more data never call for."""
    if views[0].min_scale >= default[0].min_scale:
        return []
    return [
        f"augmentation is stronger than the recipe's (min crop scale {views[0].min_scale:g}, not {default[0].min_scale:g}), as "
        f"plan.reference_images is {inputs.reference_images:,}: leave it out if the recipe's suits the real images of this run"
    ]


def _warnings(inputs: Inputs, sources: Mapping[str, SourceWeight]) -> list[str]:
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
    if inputs.method == "byol":
        warnings.append(
            "with BYOL the paper's plan gains nothing over vanilla (92.87 and 92.90 on CIFAR-10): compare both arms"
        )
    if inputs.real_images < 10_000:
        warnings.append(
            f"with {inputs.real_images:,} real images this is far below the paper's smallest set: every number is a prior"
        )
    return warnings
