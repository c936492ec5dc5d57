"""The plan as text for a terminal, and as one JSON value for programs."""

from __future__ import annotations

import statistics
from typing import Any

from adainf.augment.profiles import Profile
from adainf.evaluation.intervals import half_width
from adainf.inflation.record import GENERATED_SHARE, JITTER, MIN_SCALE, REAL_WEIGHT, Basis, InflationPlan, SourceStats
from adainf.inflation.search import VerifyResult

_SHORT: dict[Basis, str] = {"paper's point": "paper", "interpolation": "interpolation", "our prior": "prior"}


def passes(plan: InflationPlan, draws: int) -> dict[str, float]:
    """Mean number of draws per image of each source, for `draws` draws in total."""
    inputs, weights = plan.inputs, {"real": plan.real_weight} | {name: one.weight for name, one in plan.sources.items()}
    counts = {"real": inputs.real_images} | {name: source.images for name, source in inputs.sources.items()}
    total = sum(weight * counts[name] for name, weight in weights.items())
    return {name: round(draws * weight / total, 2) for name, weight in weights.items()}


def as_json(plan: InflationPlan, family: str, draws: int, verified: VerifyResult | None = None) -> dict[str, Any]:
    """`sources`, `real_share`, `augmentation`, `basis` of each number (paper, interpolation or prior), `warnings`, `verify`."""
    basis = {choice.name: _SHORT[choice.basis] for choice in plan.choices}
    drawn = passes(plan, draws)
    generated = {
        name: {
            "images": plan.inputs.sources[name].images,
            "quality": one.quality,
            "weight": one.weight,
            "replication_of_real": round(plan.real_weight / one.weight, 2) if one.weight else None,
            "share": one.share,
            "passes": drawn[name],
            "refused": one.refused,
        }
        for name, one in plan.sources.items()
    }
    return {
        "sources": {
            "real": {"images": plan.inputs.real_images, "weight": plan.real_weight, "passes": drawn["real"]},
            **generated,
        },
        "real_share": round(1 - plan.generated_share, 6),
        "augmentation": _augmentation(plan.views[0], family),
        "basis": {
            **{f"sources.{name}.replication_of_real": basis[REAL_WEIGHT] for name in plan.sources},
            "real_share": basis[GENERATED_SHARE],
            "augmentation.crop_min_scale": basis[MIN_SCALE],
            "augmentation.jitter_strength": basis[JITTER],
            "augmentation.jitter_probability": basis[JITTER],
        },
        "refused": plan.refused,
        "warnings": plan.warnings,
        "verify": verified and _verified(verified, family),
    }


def _augmentation(view: Profile, family: str) -> dict[str, Any]:
    return {
        "profile": family,
        "crop_min_scale": view.min_scale,
        "jitter_strength": view.brightness,
        "jitter_probability": view.jitter_probability,
    }


def _verified(verified: VerifyResult, family: str) -> dict[str, Any]:
    """The setting that the probes chose, and the scores that decided."""
    chosen, decision = verified.chosen, verified.decision
    return {
        "chosen": chosen.name,
        "real_weight": chosen.real_weight,
        "weights": chosen.weights,
        "augmentation": _augmentation(chosen.views[0], family),
        "decision": decision and decision.model_dump(mode="json", exclude={"chosen"}),
        "scores": {name: _score(values) for name, values in verified.deciding_scores.items()},
        "judged_by": verified.judged_by,
        "validation_images": verified.validation_images,
        "probe_steps": verified.probe_steps,
        "why": [line.strip() for line in verified.why],
    }


def _score(values: list[float]) -> dict[str, Any]:
    mean, half = statistics.fmean(values), half_width(values)
    return {"mean": round(mean, 6), "interval": [round(mean - half, 6), round(mean + half, 6)], "seeds": len(values)}


def lines(plan: InflationPlan, draws: int, default_min_scale: float) -> list[str]:
    """Inputs, chosen values, formulas, and the basis of each value."""
    inputs = plan.inputs
    several = len(inputs.sources) > 1
    of = f" of {len(inputs.sources)} sources" if several else ""
    stronger = ", with augmentation stronger than the recipe's" if plan.views[0].min_scale < default_min_scale else ""
    output = [f"for {inputs.real_images:,} real and {inputs.generated_images:,} generated images{of}{stronger}"]
    for name, source in inputs.sources.items():
        counted = f"{name}: {source.images:,} images" if several else ""
        output += [f"  {', '.join(filter(None, (counted, _measured(source))))}"] if several or source.measured else []
    output += [f"  {choice.name} {choice.value:g}  = {choice.formula}  ({choice.basis})" for choice in plan.choices]
    real, *generated = passes(plan, draws).items()
    over = ", ".join(f"image of {name} {value:g}" if several else f"generated image {value:g}" for name, value in generated)
    output.append(f"  passes over each real image {real[1]:g}, over each {over}")
    return output + [f"  warning: {warning}" for warning in plan.warnings]


def _measured(source: SourceStats) -> str:
    """The measured values of its images; empty without any."""
    if source.measured is None:
        return ""
    measured = source.measured
    known = {
        "coverage": measured.relative_coverage,
        "total variation": measured.total_variation,
        "FID": measured.fid,
        "copy rate": measured.copy_rate,
        "duplicate rate": measured.duplicate_rate,
        "AuthPct": measured.authenticity_pct,
    }
    of = f" (features: {measured.space})" if measured.space else ""
    return f"measured: {', '.join(f'{name} {value:.4g}' for name, value in known.items() if value is not None)}{of}"
