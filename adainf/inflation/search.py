"""Trying out the plan: settings around it, how they are thinned out, and what it takes to replace it.

The plan's own setting is the *prior*. Around it lie half and twice the weight, and crop and jitter a notch weaker or
stronger, each alone, as they need not go together: on data whose brightness means nothing, jitter may be right at full
strength where the crop is not. Settings of the controls stand beside it, so that what is chosen is not worse than they are,
and the plan's views with real images alone, as weaker augmentation may gain without any generated image.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Literal

from adainf.augment.profiles import LEAST_SCALE, MAX_HUE, Profile, Views
from adainf.evaluation.intervals import margin, t_quantile
from adainf.inflation.policy import is_symmetric
from adainf.inflation.record import InflationPlan
from adainf.pipeline.artifacts import Record

PRIOR, NONE, NONE_WEAK, VANILLA = "prior", "none", "none-weak", "vanilla"
FINALISTS = (PRIOR, NONE, NONE_WEAK, VANILLA)
"""What is always among those that are decided about."""

_WEIGHTS = {"half-weight": 0.5, "": 1.0, "double-weight": 2.0}
_NOTCHES = {
    "": (1.0, 1.0),
    "weaker-crop": (2.0, 1.0),
    "stronger-crop": (0.5, 1.0),
    "weaker-jitter": (1.0, 0.5),
    "stronger-jitter": (1.0, 2.0),
}
"""Multipliers of min crop scale and of jitter. A factor of two is about what the paper moves them by between its arms."""


class Setting(Record):
    """All that an arm may differ in."""

    name: str
    real_weight: float
    weights: dict[str, float]
    """Of one image of each source of generated images that is drawn from; none: real images alone."""
    views: tuple[Profile, Profile]


class Decision(Record):
    """The setting that was chosen, and the comparison that it rests on."""

    chosen: str
    rival: str
    """What it has replaced; where the prior stands, the best of the others."""
    difference: float
    """Mean score of `chosen` less that of `rival`, paired by seed."""
    noise: float
    """What a difference must exceed; see `noise`."""


class Verified(Record):
    """All probes and what they chose."""

    judged_by: Literal["linear", "knn", "infonce"]
    validation_images: int
    probe_steps: int
    settings: list[Setting]
    scores: dict[str, dict[str, float | None]]
    """By setting and seed, more is better: an accuracy, or an InfoNCE with its sign turned. None: training failed."""
    decision: Decision | None
    """None where the plan refuses the generated images: then it stands untried."""
    why: list[str]
    """What was chosen and what for, in two lines."""

    @property
    def chosen(self) -> Setting:
        name = self.decision.chosen if self.decision else PRIOR
        return next(setting for setting in self.settings if setting.name == name)

    @property
    def deciding(self) -> dict[str, list[float]]:
        """The scores that decided, of the finalists whose training never failed: by the prior's seeds, as it has no others."""
        seeds = self.scores.get(PRIOR, {})
        found = {name: [of.get(seed) for seed in seeds] for name, of in self.scores.items()}
        return {name: [v for v in values if v is not None] for name, values in found.items() if None not in values}


def settings_around(plan: InflationPlan, default: Views) -> list[Setting]:
    """The prior, the controls, then the settings around the prior; none that is the same as one before it."""
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
            for by_views, (crop, jitter) in _NOTCHES.items():
                views = tuple(_notched(view, crop, jitter, is_symmetric(default)) for view in plan.views)
                add("-".join(filter(None, (by_weight, by_views))), factor * plan.real_weight, plan.weights, views)
    return found


def _notched(view: Profile, crop: float, jitter: float, with_strength: bool) -> Profile:
    scale = min(max(round(view.min_scale * crop, 6), LEAST_SCALE), view.max_scale)
    moved = view.weakened(scale, jitter, with_strength)
    legal = {"jitter_probability": min(moved.jitter_probability, 1.0), "hue": min(moved.hue, MAX_HUE)}
    return moved.model_copy(update=legal)


def better_half(scores: Mapping[str, Sequence[float]]) -> list[str]:
    """Successive halving (Jamieson and Talwalkar 2016): the half with the better means, one at least; of equals the first."""
    ranked = sorted(scores, key=lambda name: -statistics.fmean(scores[name]))
    return ranked[: max(len(ranked) // 2, 1)]


def noise(one: Sequence[float], other: Sequence[float]) -> float:
    """What the difference of two means, paired by seed, must exceed: its standard error times the 97.5 % point of Student's t.

    That is more than two standard errors, and as many more as so few seeds tell little of them: where nothing differs, one
    comparison in forty exceeds it upward.
    """
    return margin([a - b for a, b in zip(one, other, strict=True)])


def decide(scores: Mapping[str, Sequence[float]]) -> Decision:
    """The prior, unless another wins beyond noise; of those that do the best, and so on until nothing beats what was chosen.

    `scores`: of each finalist, the prior among them, one for each seed and in the same order of seeds. As the mean rises with
    every step there is an end, and then none of the finalists is better beyond noise: not the prior, nor a control.
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


def explained(decision: Decision, setting: Setting, judge: str, seeds: int) -> list[str]:
    """What was chosen and what for, in two lines. `judge`: the score and what it is of, in words."""
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
