"""The plan in words for a terminal, and as one flat JSON value for other programs."""

from __future__ import annotations

from typing import Any

from adainf.inflation.policy import GENERATED_SHARE, JITTER, MIN_SCALE, REAL_WEIGHT, Basis, InflationPlan

_SHORT: dict[Basis, str] = {"paper's point": "paper", "interpolation": "interpolation", "our prior": "prior"}


def passes(plan: InflationPlan, draws: int) -> dict[str, float]:
    """How often each image of a source is drawn, on average, when `draws` images are drawn in all."""
    inputs, share = plan.inputs, plan.generated_share
    real, generated = draws * (1 - share) / inputs.real_images, draws * share / inputs.generated_images
    return {"real": round(real, 2), "generated": round(generated, 2)}


def as_json(plan: InflationPlan, family: str, draws: int) -> dict[str, Any]:
    """`sources`, `real_share`, `augmentation`, `basis` of each number (paper, interpolation or prior) and `warnings`."""
    view, basis = plan.views[0], {choice.name: _SHORT[choice.basis] for choice in plan.choices}
    drawn = passes(plan, draws)
    used = plan.generated_weight > 0
    return {
        "sources": {
            "real": {"images": plan.inputs.real_images, "weight": plan.real_weight, "passes": drawn["real"]},
            "generated": {
                "images": plan.inputs.generated_images,
                "weight": plan.generated_weight,
                "replication_of_real": plan.real_weight if used else None,
                "passes": drawn["generated"],
            },
        },
        "real_share": round(1 - plan.generated_share, 6),
        "augmentation": {
            "profile": family,
            "crop_min_scale": view.min_scale,
            "jitter_strength": view.brightness,
            "jitter_probability": view.jitter_probability,
        },
        "basis": {
            "sources.generated.replication_of_real": basis[REAL_WEIGHT],
            "real_share": basis[GENERATED_SHARE],
            "augmentation.crop_min_scale": basis[MIN_SCALE],
            "augmentation.jitter_strength": basis[JITTER],
            "augmentation.jitter_probability": basis[JITTER],
        },
        "refused": plan.refused,
        "warnings": plan.warnings,
    }


def lines(plan: InflationPlan, draws: int) -> list[str]:
    """What was chosen, from what, by which formula, and what each number rests on."""
    inputs, measured = plan.inputs, plan.inputs.measured
    said = [f"for {inputs.real_images:,} real and {inputs.generated_images:,} generated images"]
    if measured is not None:
        known = {
            "coverage": measured.relative_coverage,
            "FID": measured.fid,
            "copy rate": measured.copy_rate,
            "AuthPct": measured.authenticity_pct,
        }
        of = f" (features: {measured.space})" if measured.space else ""
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in known.items() if value is not None)
        said.append(f"  measured: {numbers}{of}")
    said += [f"  {choice.name} {choice.value:g}  = {choice.formula}  ({choice.basis})" for choice in plan.choices]
    drawn = passes(plan, draws)
    said.append(f"  passes over each real image {drawn['real']:g}, over each generated image {drawn['generated']:g}")
    return said + [f"  warning: {warning}" for warning in plan.warnings]
