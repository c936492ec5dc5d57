"""Statistics of the cells' scores (means, intervals, paired differences, tests), and the tables and figures of the results."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from scipy import stats

from adainf.evaluation.intervals import half_width, student_interval

Scores = Mapping[str, Mapping[int, Mapping[str, float]]]
"""Arm, seed, measure (linear, knn) → accuracy, 0..1."""
MEASURES = ("linear", "knn")

PAPER = {
    "main": "Table 3a, CIFAR-10, 100,000 steps: none 91.33, vanilla 91.35, reweighted 91.87, weak 93.21, adainf 93.57.",
    "crop": "Figure 3a: the best min scale is 0.02 at 25k images, 0.08 at 50k, 0.20 at 150k and 0.30 at 1.05M, jitter alike.",
    "mixing": "Figure 2b: best where a real image weighs 10 (a real share of 1/3), with weak augmentation.",
    "quality": "Figure 2a: none 91.33; vanilla with DDPM images (FID 3.04) 90.27, with STF images (FID 1.94) 91.35.",
}
"""The paper's results, by block."""
TITLES = {
    "gate": "Gate: do more real images help?",
    "pilot": "Pilot",
    "main": "Main block: ablation",
    "weight": "Each half of the plan",
    "crop": "Crop and jitter",
    "longer": "A better generator",
    "mixing": "Mixing ratio",
    "quality": "Quality of the generated images",
    "schedule": "Annealing of the augmentation with the images seen",
    "verify": "Longer probes",
    "ceiling": "Headroom by regime",
    "recovery": "What a generator recovers of the headroom",
}
"""By block. `schedule` has recorded results only: its setting, `plan.schedule`, was removed in 0.2.0."""


def arm_table(scores: Scores) -> dict[str, dict[str, Any]]:
    """Mean and 95 % interval over seeds (Student's t) of each measure; no interval for one seed."""
    table: dict[str, dict[str, Any]] = {}
    for arm, by_seed in scores.items():
        row: dict[str, Any] = {"seeds": len(by_seed)}
        for measure in MEASURES:
            values = [by_seed[seed][measure] for seed in sorted(by_seed)]
            row[f"{measure}_mean"] = round(statistics.fmean(values), 6)
            row[f"{measure}_ci95"] = [round(end, 6) for end in student_interval(values)] if len(values) > 1 else None
        table[arm] = row
    return table


def paired(scores: Scores, arm: str, other: str) -> dict[str, Any] | None:
    """Mean difference, `arm` minus `other`, over their common seeds, and its 95 % interval; None for fewer than two seeds."""
    by_seed = gain(scores, arm, other)
    if len(by_seed) < 2:
        return None
    row: dict[str, Any] = {"seeds": len(by_seed)}
    for measure in MEASURES:
        values = [of[measure] for of in by_seed.values()]
        mean, half = statistics.fmean(values), half_width(values)
        row |= {f"{measure}_mean": round(mean, 6), f"{measure}_ci95": [round(mean - half, 6), round(mean + half, 6)]}
    return row


def differences(scores: Scores) -> dict[str, dict[str, Any]]:
    """Paired differences of every arm from `none` with the same augmentation, from `vanilla` and `weak` on the same images,
    from `none-weak` if it has the plan's augmentation, and from the same arm without a label."""
    labelled = {arm: f"none-{arm.split('-')[-1]}" for arm in scores}
    pairs = [(arm, own if own in scores else "none") for arm, own in labelled.items() if not arm.startswith("none")]
    pairs += [(arm, twin) for arm in scores if (twin := "vanilla" + arm[len(arm.split("-")[0]) :]) in scores and twin != arm]
    pairs += [(arm, twin) for arm in scores if arm.startswith("adainf") and (twin := f"weak{arm[6:]}") in scores]
    pairs += [(arm, "none-weak") for arm in scores if arm.startswith(("weak", "adainf")) and "none-weak" in scores]
    pairs += [(arm, own) for arm in scores if (own := "-".join(arm.split("-")[:2])) in scores and own != arm]
    found = {f"{arm} - {less}": paired(scores, arm, less) for arm, less in pairs if less in scores}
    return {name: row for name, row in found.items() if row is not None}


def gain(scores: Scores, arm: str, other: str) -> dict[int, dict[str, float]]:
    """`arm` minus `other` for each common seed; the input of a difference of differences."""
    both = scores.get(arm, {}).keys() & scores.get(other, {}).keys()
    return {seed: {of: scores[arm][seed][of] - scores[other][seed][of] for of in MEASURES} for seed in sorted(both)}


def interaction(scores: Scores, strong: float, weak: float) -> str:
    """The interaction of min scale and inflation: the gain of `weak` over `strong`, with minus without inflation. Empty while
    cells are missing."""
    arms = ("vanilla-perfect", "none")
    gains = {arm: gain(scores, f"{arm}-crop{100 * weak:g}", f"{arm}-crop{100 * strong:g}") for arm in arms}
    found = paired(gains, "vanilla-perfect", "none")
    if found is None:
        return ""
    low, high = found["linear_ci95"]
    return (
        f"Gain of min scale {weak} over {strong}, with minus without inflation: {100 * found['linear_mean']:+.2f} points of "
        f"the linear probe (95 %: {100 * low:+.2f} to {100 * high:+.2f})."
    )


def better(scores: Scores, *arms: str) -> str:
    """The arm with the highest mean of the linear probe."""
    return max(arms, key=lambda arm: statistics.fmean([of["linear"] for of in scores.get(arm, {}).values()] or [0.0]))


def tested(scores: Scores, comparisons: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Primary comparisons: the paired difference of the linear probe, p of Student's paired t-test (two-sided), and p adjusted
    by Holm (1979) over all of them. Empty while an arm has fewer than two seeds."""
    rows: list[dict[str, Any]] = []
    for arm, other in comparisons:
        by_seed = gain(scores, arm, other)
        if len(by_seed) < 2:
            return []
        p = float(stats.ttest_1samp([of["linear"] for of in by_seed.values()], 0).pvalue)
        rows.append(
            {"comparison": f"{arm} - {other}", **(paired(scores, arm, other) or {}), "p": p if math.isfinite(p) else 1.0}
        )
    for row, adjusted in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = adjusted
    return rows


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm-adjusted p-values, in input order: the k-th smallest of m times m - k + 1, non-decreasing in k, at most 1."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, so_far = [0.0] * len(p_values), 0.0
    for rank, at in enumerate(order):
        so_far = max(so_far, min(p_values[at] * (len(p_values) - rank), 1.0))
        adjusted[at] = so_far
    return adjusted


def markdown(found: Mapping[str, Any], study: str, title: str) -> str:
    """The results page of a study."""
    lines = [
        f"# Study: {title}",
        "",
        "Question, arms and analysis: [study.md](../study.md).",
        "",
    ]
    for name, block in found["blocks"].items():
        lines += [
            f"## {TITLES[name]}",
            "",
            f"`{block['command']}` at {block['commit']}, {block['date']}, {block['machine']}.",
            "",
        ]
        if block["missing"]:
            lines += [f"**{block['missing']} of {block['cells']} cells have not been run.**", ""]
        lines += [*block.get("notes", []), ""] if block.get("notes") else []
        lines += _rows("arm", block["arms"], signed=False)
        lines += _rows("difference", block["differences"], signed=True)
        if block.get("primary"):
            lines += ["| primary comparison, linear probe | p | p by Holm |", "| --- | --- | --- |"]
            lines += [f"| {row['comparison']} | {row['p']:.3g} | {row['p_holm']:.3g} |" for row in block["primary"]] + [""]
        if name in PAPER:
            lines += [f"![{TITLES[name]}]({study}-{name}.png)", "", f"The paper: {PAPER[name]}", ""]
    return "\n".join(lines)


def _rows(first: str, table: Mapping[str, Mapping[str, Any]], signed: bool) -> list[str]:
    if not table:
        return []
    form = "{:+.2f}" if signed else "{:.2f}"

    def cell(row: Mapping[str, Any], measure: str) -> str:
        mean, interval = row[f"{measure}_mean"], row[f"{measure}_ci95"]
        spread = "" if interval is None else f" ± {50 * (interval[1] - interval[0]):.2f}"
        return form.format(100 * mean) + spread

    head = [f"| {first} | linear, % | kNN, % | seeds |", "| --- | --- | --- | --- |"]
    return [
        *head,
        *(f"| {name} | {cell(row, 'linear')} | {cell(row, 'knn')} | {row['seeds']} |" for name, row in table.items()),
        "",
    ]


def draw(arms: Mapping[str, Mapping[str, Any]], title: str, file: Path) -> None:
    """Linear probe accuracy of every arm with its 95 % interval, as PNG."""
    figure = Figure(figsize=(7, 1.4 + 0.32 * len(arms)), layout="constrained")
    axes = figure.add_subplot()
    for place, row in enumerate(arms.values()):
        mean, interval = row["linear_mean"], row["linear_ci95"] or [row["linear_mean"]] * 2
        axes.errorbar(
            100 * mean, place, xerr=[[100 * (mean - interval[0])], [100 * (interval[1] - mean)]], fmt="o", color="#1f6feb"
        )
    axes.set_yticks(range(len(arms)), list(arms))
    axes.invert_yaxis()
    axes.set(title=title, xlabel="linear probe, %, with its 95 % interval")
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(file, dpi=100, metadata={"Software": None})


def best(names: Sequence[str], found: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The largest of the differences whose 95 % interval is entirely above zero; None if there is none."""
    clear = [name for name in names if name in found and found[name]["linear_ci95"][0] > 0]
    return max(clear, key=lambda name: found[name]["linear_mean"], default=None)
