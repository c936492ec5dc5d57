"""The inflation plan: from sizes and quality to the weight of a real image and the strength of augmentation.

Two measured facts of the paper (Wang, Zhang and Wang, ICLR 2024) carry the rule: one real image is worth about ten
generated ones of a very good generator (figure 2), and the best min crop scale grows with the size of the data: 0.02,
0.08, 0.20 and 0.30 at 25k, 50k, 150k and 1.05M images (figure 3a). Everything between and beyond those points is
ours, and the plan says which is which.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from adainf.artifacts import Record
from adainf.augment.profiles import Profile, Views
from adainf.recipe import Plan

Basis = Literal["paper's point", "interpolation", "our prior"]

PAPER_REFERENCE_IMAGES = 50_000
PAPER_SIZES = (25_000, 50_000, 150_000, 1_050_000)
PAPER_MIN_SCALES = (0.02, 0.08, 0.20, 0.30)
PAPER_WEIGHT = 10.0
"""Weight of a real image against one of the paper's best generator (STF, FID 1.94)."""
PAPER_WEIGHT_AT = (50_000, 1_000_000)
"""Real and generated images of the paper's only sweep over the weight."""
MAX_WEIGHT = 100.0
RECIPE_MIN_SCALE = 0.20
"""Weakest crop together with weaker jitter: both spend the same budget, the paper ships 0.20 with half the jitter."""


class Inputs(Record):
    """What the plan is made from."""

    real_images: int
    """Real training images."""
    generated_images: int
    quality: float = 1.0
    """0..1; 1 is as good as the paper's best generator."""
    quality_is_measured: bool = False
    copy_rate: float = 0.0
    """Share of the generated images that copy a real one."""
    reference_images: int = PAPER_REFERENCE_IMAGES


class Choice(Record):
    """One number of the plan, how it came about and how far it can be trusted."""

    name: str
    value: float
    formula: str
    basis: Basis


class InflationPlan(Record):
    """The plan of the `adainf` arm: what a person reads, and what `pretrain` obeys."""

    inputs: Inputs
    real_weight: float
    """Weight of one real image against one generated image."""
    generated_share: float
    """Probability that an item of a batch is generated."""
    views: tuple[Profile, Profile]
    """The augmentation of the two views."""
    choices: list[Choice]
    warnings: list[str]


def make_plan(inputs: Inputs, rule: Plan, default: Views) -> InflationPlan:
    """The plan for these sizes and this quality. Raises `ValueError` for counts below one or shares outside 0..1.

    Effective size n = N + q M', with M' the generated images that are no copies; weight w = 10 / q, at least so much
    that a batch holds `max_generated_share` generated images at most; min crop scale s(n) through the paper's points.
    """
    real, quality, copies = inputs.real_images, inputs.quality, inputs.copy_rate
    if real < 1 or inputs.generated_images < 1 or not 0 < quality <= 1 or not 0 <= copies < 1:
        raise ValueError(f"a plan needs images of both kinds, 0 < quality <= 1 and 0 <= copy rate < 1: {inputs}")
    generated = inputs.generated_images * (1 - copies)
    weight, weight_basis = _real_weight(inputs, generated, rule)
    share = generated / (weight * real + generated)
    effective = real + quality * generated
    augmentation = _augmentation(effective, rule, default[0].min_scale)
    choices = [
        Choice(name="real weight", value=weight, formula="10 / q, real share at least 1 - max", basis=weight_basis),
        Choice(name="generated share", value=round(share, 6), formula="M' / (w N + M')", basis=weight_basis),
        Choice(name="effective images", value=round(effective, 1), formula="N + q M'", basis="our prior"),
        *augmentation,
    ]
    scale, jitter = (choice.value for choice in augmentation)
    first, second = (view.weakened(scale, jitter, _is_symmetric(default)) for view in default)
    return InflationPlan(
        inputs=inputs,
        real_weight=weight,
        generated_share=round(share, 6),
        views=(first, second),
        choices=choices,
        warnings=_warnings(inputs),
    )


def _real_weight(inputs: Inputs, generated: float, rule: Plan) -> tuple[float, Basis]:
    wanted = min(max(PAPER_WEIGHT / inputs.quality, 1.0), MAX_WEIGHT)
    least = generated / inputs.real_images * (1 - rule.max_generated_share) / rule.max_generated_share
    weight = _three_digits(max(wanted, least))
    # The paper swept the weight once, with a generator of the best quality: that must be known, not assumed.
    at_the_point = (inputs.real_images, generated, inputs.quality) == (*PAPER_WEIGHT_AT, 1.0) and inputs.quality_is_measured
    return weight, "paper's point" if at_the_point and weight == PAPER_WEIGHT else "our prior"


def _augmentation(effective: float, rule: Plan, base: float) -> tuple[Choice, Choice]:
    """Min crop scale and jitter multiplier; `base` is the default's min scale, right at the reference size."""
    scale, basis = min_scale(effective, rule.reference_images, base)
    name, curve = "min crop scale", "s(n / reference), piecewise linear in log2"
    crop_alone = Choice(name=name, value=scale, formula=curve, basis=basis)
    if rule.augmentation_rule == "crop_only":
        return crop_alone, Choice(name="jitter multiplier", value=1.0, formula="1: the crop alone is weakened", basis=basis)
    # From the default's crop on: where nothing is inflated, nothing is weakened.
    jitter = round(1.0 - 0.5 * min(max((scale - base) / 0.12, 0.0), 1.0), 4)
    shipped: Basis = "paper's point" if basis == "paper's point" and effective == PAPER_SIZES[-1] else "our prior"
    weaker = Choice(name="jitter multiplier", value=jitter, formula="1 - (s - s(1)) / 0.24, at least 1/2", basis=shipped)
    if jitter == 1.0:
        return crop_alone, weaker
    cap = max(RECIPE_MIN_SCALE, base)
    capped = f"{curve}, at most {cap:g} as jitter is weakened too"
    return Choice(name=name, value=min(scale, cap), formula=capped, basis=shipped), weaker


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
        return scale, "our prior"
    on_point = any(math.isclose(effective_images, size, rel_tol=1e-6) for size in PAPER_SIZES)
    return scale, "paper's point" if on_point else "interpolation"


def _is_symmetric(default: Views) -> bool:
    """The paper's code halves probability and strengths of the symmetric profile, of the asymmetric the probability alone."""
    return default[0] == default[1]


def _three_digits(value: float) -> float:
    return float(f"{value:.3g}")


def _warnings(inputs: Inputs) -> list[str]:
    warnings = []
    if not inputs.quality_is_measured:
        warnings.append(
            "the generated images' quality was not measured: the weight assumes a generator as good as the paper's best "
            "(q = 1), and a worse one deserves less weight"
        )
    if inputs.real_images < 10_000:
        warnings.append(
            f"with {inputs.real_images:,} real images this is far below the paper's smallest set: every number is a prior"
        )
    return warnings
