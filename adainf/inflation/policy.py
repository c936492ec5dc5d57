"""The inflation plan: from sizes and quality to the weight of a real image and the strength of augmentation.

Two measured facts of the paper (Wang, Zhang and Wang, ICLR 2024) carry the rule: one real image is worth about ten
generated ones of a very good generator (figure 2), and the best min crop scale grows with the size of the data: 0.02,
0.08, 0.20 and 0.30 at 25k, 50k, 150k and 1.05M images (figure 3a). Everything between and beyond those points is
ours, and the plan says which is which.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from adainf.artifacts import Record
from adainf.augment.profiles import Profile, Views
from adainf.inflation.worth import Measured, quality, refusal
from adainf.recipe import Plan, Schedule

Basis = Literal["paper's point", "interpolation", "our prior"]
PRIOR: Basis = "our prior"
QUALITY, REAL_WEIGHT, GENERATED_SHARE = "quality", "real weight", "generated share"
ASSUMED = "assumed, not measured"
EFFECTIVE, MIN_SCALE, JITTER = "effective images", "min crop scale", "jitter multiplier"

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

    real_images: Annotated[int, Field(ge=1)]
    """Real training images."""
    generated_images: Annotated[int, Field(ge=1)]
    measured: Measured | None = None
    """None: the images' quality is unknown, and taken for the paper's best."""
    reference_images: Annotated[int, Field(ge=1)] = PAPER_REFERENCE_IMAGES


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
    """Weight of one real image."""
    generated_weight: float
    """Weight of one generated image: 1, or 0 where they are refused."""
    generated_share: float
    """Probability that an item of a batch is generated."""
    views: tuple[Profile, Profile]
    """The augmentation of the two views."""
    schedule: Schedule
    """Whether training has these views from the first step on; see `weakening`."""
    choices: list[Choice]
    refused: str | None = None
    """Why the generated images are left out."""
    warnings: list[str]

    def choice(self, name: str) -> Choice:
        """The choice of that name: `QUALITY`, `REAL_WEIGHT`, …"""
        return next(choice for choice in self.choices if choice.name == name)


def make_plan(inputs: Inputs, rule: Plan, default: Views) -> InflationPlan:
    """The plan for these sizes and this quality.

    Effective size n = N + q M', with M' the generated images that are no copies; weight w = 10 / q, at least so much
    that a batch holds `max_generated_share` generated images at most; min crop scale s(n) through the paper's points.
    Images that `worth.refusal` refuses have weight 0, and the plan is that of the real images alone.
    """
    measured = inputs.measured or Measured()
    refused = refusal(measured)
    found = quality(measured)
    q, formula = found or (1.0, ASSUMED)
    copies = 1.0 if refused else measured.copy_rate
    generated = inputs.generated_images * (1 - copies)
    weight, weight_basis = _real_weight(inputs, q, generated, rule) if generated else (1.0, PRIOR)
    share = round(generated / (weight * inputs.real_images + generated), 6)
    effective = round(inputs.real_images + q * generated, 1)
    augmentation = _augmentation(effective, rule, default[0].min_scale) if generated else _unchanged(default)
    choices = [
        Choice(name=QUALITY, value=round(q, 4), formula=formula, basis=PRIOR),
        Choice(name=REAL_WEIGHT, value=weight, formula="10 / q, real share at least 1 - max", basis=weight_basis),
        Choice(name=GENERATED_SHARE, value=share, formula="M' / (w N + M')", basis=weight_basis),
        Choice(name=EFFECTIVE, value=effective, formula="N + q M'", basis=PRIOR),
        *augmentation,
    ]
    return InflationPlan(
        inputs=inputs,
        real_weight=weight,
        generated_weight=float(generated > 0),
        generated_share=share,
        views=_weakened(default, augmentation),
        schedule=rule.schedule if generated else "constant",
        choices=choices,
        refused=refused,
        warnings=_warnings(inputs, refused),
    )


def _real_weight(inputs: Inputs, quality: float, generated: float, rule: Plan) -> tuple[float, Basis]:
    wanted = min(max(PAPER_WEIGHT / quality, 1.0), MAX_WEIGHT)
    least = generated / inputs.real_images * (1 - rule.max_generated_share) / rule.max_generated_share
    weight = _three_digits(max(wanted, least))
    # The paper swept the weight once, with a generator of the best quality: that must be known, not assumed.
    known = inputs.measured is not None and inputs.measured.fid is not None
    at_the_point = known and (inputs.real_images, generated, quality) == (*PAPER_WEIGHT_AT, 1.0)
    return weight, "paper's point" if at_the_point and weight == PAPER_WEIGHT else PRIOR


def views_for(effective: float, rule: Plan, default: Views) -> tuple[Profile, Profile]:
    """The views that so many effective images deserve."""
    return _weakened(default, _augmentation(effective, rule, default[0].min_scale))


def _weakened(default: Views, augmentation: tuple[Choice, Choice]) -> tuple[Profile, Profile]:
    scale, jitter = (choice.value for choice in augmentation)
    first, second = (view.weakened(scale, jitter, is_symmetric(default)) for view in default)
    return first, second


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


def _warnings(inputs: Inputs, refused: str | None) -> list[str]:
    warnings = []
    if refused:
        warnings.append(f"the generated images are left out: {refused}; fit the generator longer, or on more images")
    elif inputs.measured is None or quality(inputs.measured) is None:
        warnings.append(
            "the generated images' quality was not measured: the weight assumes a generator as good as the paper's best "
            "(q = 1), and a worse one deserves less weight"
        )
    if inputs.real_images < 10_000:
        warnings.append(
            f"with {inputs.real_images:,} real images this is far below the paper's smallest set: every number is a prior"
        )
    return warnings
