"""Search around the plan: candidate settings, successive halving of short probes, and the decision rule.

The plan's own setting is the *prior*. Candidates have half, the same or twice its weight, and crop or jitter weaker or stronger
by a factor of two. Crop and jitter vary independently: where brightness is a nuisance, full jitter may be right with a weaker
crop. The controls are always finalists, so that the choice is not worse than they are; so is the plan's augmentation with real
images only (`none-weak`), as weaker augmentation may gain without generated images.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Literal

from adainf.augment.profiles import MAX_HUE, MIN_SCALE_LIMIT, Profile, Views
from adainf.evaluation.intervals import half_width, t_quantile
from adainf.inflation.policy import is_symmetric
from adainf.inflation.record import InflationPlan
from adainf.pipeline.records import Record

PRIOR, NONE, NONE_WEAK, VANILLA = "prior", "none", "none-weak", "vanilla"
FINALISTS = (PRIOR, NONE, NONE_WEAK, VANILLA)
"""Settings that are always finalists."""

_WEIGHTS = {"half-weight": 0.5, "": 1.0, "double-weight": 2.0}
_VIEW_FACTORS = {
    "": (1.0, 1.0),
    "weaker-crop": (2.0, 1.0),
    "stronger-crop": (0.5, 1.0),
    "weaker-jitter": (1.0, 0.5),
    "stronger-jitter": (1.0, 2.0),
}
"""Multipliers of min crop scale and of jitter. The paper's arms differ by about a factor of two."""


class Setting(Record):
    """Everything in which arms may differ."""

    name: str
    real_weight: float
    weights: dict[str, float]
    """Weight per image of each source in use; empty: real images only."""
    views: tuple[Profile, Profile]


class Decision(Record):
    """The chosen setting and the comparison that decided."""

    chosen: str
    rival: str
    """The setting it replaced; if the prior was kept, the best of the others."""
    difference: float
    """Mean score of `chosen` minus that of `rival`, paired by seed."""
    noise: float
    """Threshold that a difference must exceed; see `noise`."""


class VerifyResult(Record):
    """All probes and the decision: the content of ``verify/manifest.json``."""

    judged_by: Literal["linear", "knn", "infonce"]
    validation_images: int
    probe_steps: int
    settings: list[Setting]
    scores: dict[str, dict[str, float | None]]
    """By setting and seed, higher is better: accuracy, or negative InfoNCE. None: training failed."""
    decision: Decision | None
    """None if the plan refuses the generated images: then nothing is probed."""
    why: list[str]
    """The decision and its reason, in two lines."""

    @property
    def chosen(self) -> Setting:
        name = self.decision.chosen if self.decision else PRIOR
        return next(setting for setting in self.settings if setting.name == name)

    @property
    def deciding_scores(self) -> dict[str, list[float]]:
        """Scores of the finalists on the deciding seeds (all seeds of the prior), without settings that failed to train."""
        seeds = self.scores.get(PRIOR, {})
        found = {name: [of.get(seed) for seed in seeds] for name, of in self.scores.items()}
        return {name: [v for v in values if v is not None] for name, values in found.items() if None not in values}


def settings_around(plan: InflationPlan, default: Views) -> list[Setting]:
    """The prior, the controls, then the settings around the prior, without duplicates."""
    found: list[Setting] = []

    def add(name: str, real_weight: float, weights: dict[str, float], views: Views) -> None:
        one = Setting(name=name, real_weight=real_weight, weights=weights, views=(views[0], views[1]))
        if all(one != other.model_copy(update={"name": name}) for other in found):
            found.append(one)

    add(PRIOR, plan.real_weight, plan.weights, plan.views)
    add(NONE, 1.0, {}, default)
    add(NONE_WEAK, 1.0, {}, plan.views)
    add(VANILLA, 1.0, dict.fromkeys(plan.sources, 1.0), default)
    if not plan.refused:
        for by_weight, factor in _WEIGHTS.items():
            for by_views, (crop, jitter) in _VIEW_FACTORS.items():
                views = tuple(_scaled(view, crop, jitter, is_symmetric(default)) for view in plan.views)
                add("-".join(filter(None, (by_weight, by_views))), factor * plan.real_weight, plan.weights, views)
    return found


def _scaled(view: Profile, crop: float, jitter: float, with_strength: bool) -> Profile:
    scale = min(max(round(view.min_scale * crop, 6), MIN_SCALE_LIMIT), view.max_scale)
    moved = view.with_crop_and_jitter(scale, jitter, with_strength)
    legal = {"jitter_probability": min(moved.jitter_probability, 1.0), "hue": min(moved.hue, MAX_HUE)}
    return moved.model_copy(update=legal)


def better_half(scores: Mapping[str, Sequence[float]]) -> list[str]:
    """Successive halving (Jamieson and Talwalkar 2016): the half with the better means, at least one; ties keep their order."""
    ranked = sorted(scores, key=lambda name: -statistics.fmean(scores[name]))
    return ranked[: max(len(ranked) // 2, 1)]


def noise(one: Sequence[float], other: Sequence[float]) -> float:
    """Significance threshold of a mean difference paired by seed: its standard error times the 97.5 % quantile of Student's t.

    Without a true difference, one comparison in forty exceeds it upward.
    """
    return half_width([a - b for a, b in zip(one, other, strict=True)])


def decide(scores: Mapping[str, Sequence[float]]) -> Decision:
    """The prior, unless another setting beats it by more than `noise`. The best such setting replaces it, and the rule repeats
    until no finalist beats the choice.

    `scores`: one score per seed of each finalist, including the prior, in the same order of seeds. The mean rises with every
    replacement, so this terminates; then no finalist, neither the prior nor a control, is significantly better.
    """
    means = {name: statistics.fmean(values) for name, values in scores.items()}

    def compared(one: str, other: str) -> Decision:
        found = noise(scores[one], scores[other])
        return Decision(chosen=one, rival=other, difference=means[one] - means[other], noise=found)

    best_other = max((name for name in scores if name != PRIOR), key=means.__getitem__, default=PRIOR)
    chosen = compared(PRIOR, best_other)
    while True:
        against = [compared(name, chosen.chosen) for name in scores if name != chosen.chosen]
        beating = [one for one in against if one.difference > one.noise]
        if not beating:
            return chosen
        chosen = max(beating, key=lambda one: means[one.chosen])


def decision_lines(decision: Decision, setting: Setting, judge: str, seeds: int) -> list[str]:
    """The decision and its reason, in two lines that are stored in the manifest. `judge`: a description of the score."""
    view = setting.views[0]
    errors = f"{t_quantile(seeds - 1):.2f} standard errors, paired over {seeds} seeds"
    size = f"{abs(decision.difference):.4f} against {decision.noise:.4f}, {errors}"
    if decision.chosen != PRIOR:
        first = f"verify: chose {decision.chosen}, which beats {decision.rival} beyond noise ({size})"
    elif decision.difference < 0:
        first = f"verify: the plan stands: the best other setting ({decision.rival}) is above it, not beyond noise ({size})"
    else:
        first = f"verify: the plan stands: no finalist is above it, the best other is {decision.rival} ({size})"
    data = f"weight {setting.real_weight:g}" if setting.weights else "real images alone"
    strength = f"jitter {view.brightness:g} with probability {view.jitter_probability:g}"
    return [first, f"  that is {data}, min crop scale {view.min_scale:g}, {strength}; judged by {judge}"]
