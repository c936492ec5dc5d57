"""The report as one self-contained HTML page: the same artifacts give the same bytes, and it loads nothing from elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from pydantic import JsonValue

from adainf import __version__
from adainf.augment.profiles import Profile
from adainf.evaluation.accuracy import NOT_AVAILABLE, amount, digits_for, weight_text
from adainf.inflation.record import QUALITY, InflationPlan, choice_name
from adainf.pipeline.artifacts import Run
from adainf.pipeline.graph import POSITIVES, POSITIVES_QUALITY, generated, measured
from adainf.recipe import External, ImportedImages, Recipe
from adainf.report import figures
from adainf.report.grids import candidates_png, first_images, grid_png
from adainf.report.measures import compare_with_published, measure_rows
from adainf.report.overfitting import overfitting
from adainf.report.quality import by_space, extremes, of_pixels, positives_text, shards_text
from adainf.report.summary import SourceSummary, Summary, Trained
from adainf.report.table import COLUMNS, cells
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.manifest import Split

PATH = "PATH"
"""Replaces the paths of a user's machine, which are no part of an experiment."""

_KINDS = {"diffusion": "diffusion model", "gan": "generative adversarial network"}

_PATHS = ("path", "checkpoint")

_MAX_CLASSES = 30

_BADGES = {"paper's point": "paper", "interpolation": "between", "our prior": "prior"}


@dataclass(frozen=True)
class Grid:
    """Sample images of one source as the page shows them."""

    title: str
    images: int
    data_uri: str
    alt: str


def render(summary: Summary, run: Run) -> bytes:
    """The page of a run. Reads the first shards for the sample grids. Raises `BadInput` if one is corrupt."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["amount"] = amount
    environment.globals["weight_text"] = weight_text
    template = environment.from_string(files("adainf.report").joinpath("report.html").read_text(encoding="utf-8"))
    return (template.render(**_context(summary, run)).strip() + "\n").encode()


def shown_recipe(recipe: Recipe) -> dict[str, JsonValue]:
    """The recipe as the report prints it: without settings that change no artifact, and with `PATH` for paths."""
    excluded = {"checkpoint_every_steps", "time_limit_s"}
    shown: dict[str, Any] = recipe.model_dump(
        mode="json",
        exclude={
            "real": {"download"},
            "generator": excluded,
            "generators": {"__all__": {"generator": excluded}},
            "pretrain": {"checkpoint_every_steps": True, "stream": {"prefetch_batches", "check_every_steps", "on_device"}},
            "evaluate": {"batch"},
            "quality": {"batch"},
        },
    )
    del shown["generator" if recipe.generator is None else "generators"]
    for section in (shown, *shown.get("generators", {}).values()):
        for name in ("real", "generator"):
            if name in section:
                section[name] = _without_paths(section[name])
    if recipe.quality is not None and recipe.quality.inception is not None:
        shown["quality"]["inception"]["weights"] = PATH
    return shown


def _without_paths(section: dict[str, Any]) -> dict[str, Any]:
    """The section with its kind first and its paths replaced."""
    return {"kind": section["kind"], **section} | {field: PATH for field in _PATHS if field in section}


class _Dumper(yaml.SafeDumper):
    """Writes lists on one line: those of a recipe are short."""


def _on_one_line(dumper: _Dumper, data: list[Any]) -> yaml.SequenceNode:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)


_Dumper.add_representer(list, _on_one_line)


def _as_yaml(shown: dict[str, JsonValue]) -> str:
    return yaml.dump(shown, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def _context(summary: Summary, run: Run) -> dict[str, Any]:
    recipe = summary.recipe
    digits = digits_for(summary.test_images)
    recipe_yaml = _as_yaml(shown_recipe(recipe))
    first = {arm: seeds[0] for arm, seeds in summary.trained.items()}
    return {
        "summary": summary,
        "version": __version__,
        "overview": _overview(summary),
        "columns": COLUMNS,
        "table": [(row, cells(row, digits)) for row in summary.rows],
        "measures": measure_rows(summary.scores, digits),
        "published": compare_with_published(recipe.published, summary.rows, digits),
        "overfitting": overfitting(summary.scores),
        "grids": _grids(summary, run),
        "qualities": [found for one in summary.sources if (found := _quality(summary, one, run))],
        "accuracy_svg": _markup(figures.accuracy(summary.rows, summary.test_images)),
        "loss_svg": _markup(figures.loss_curves({arm: [one.curve for one in all_] for arm, all_ in summary.trained.items()})),
        "generator_svgs": {
            one.source.name: svg
            for one in summary.sources
            if one.fitted and (svg := _markup(figures.generator_curve(one.fitted.curve)))
        },
        "policy_svg": _markup(figures.crop_policy(summary.plan, recipe) if summary.plan else None),
        "plan_inputs": _plan_inputs(summary.plan) if summary.plan else [],
        "badges": _BADGES,
        "arms": first,
        "shares": _shares(first),
        "views": [view for arm in first.values() for view in _views(arm)],
        "real_origin": _real_origin(summary),
        "generated_origins": {one.source.name: _generated_origin(summary, one) for one in summary.sources},
        "labels_declared": _labels_declared(summary),
        "recipe_yaml": recipe_yaml,
        "has_paths": f": {PATH}\n" in recipe_yaml,
        "digests": {name: manifest.digest for name, manifest in summary.manifests.items()},
        "makers": sorted({manifest.made_by for manifest in summary.manifests.values()}),
        "not_available": NOT_AVAILABLE,
    }


def _markup(svg: str | None) -> Markup | None:
    # Safe to inline: matplotlib escapes its texts, and none of them comes from data.
    return None if svg is None else Markup(svg)


def _overview(summary: Summary) -> list[str]:
    """The size of the experiment in short phrases."""
    seeds = f"{summary.seeds} seeds" if summary.seeds > 1 else "one seed"
    phrases = [f"{summary.real.splits['train'].images:,} real training images"]
    if summary.sources:
        of = f" of {len(summary.sources)} sources" if len(summary.sources) > 1 else ""
        phrases.append(f"{sum(one.images.splits['train'].images for one in summary.sources):,} generated{of}")
    pretrain = summary.recipe.pretrain
    return [
        *phrases,
        f"{summary.real.width_px} × {summary.real.height_px} px",
        f"{pretrain.backbone.name}, {pretrain.method.kind}",
        f"{pretrain.steps:,} steps of {pretrain.global_batch} for every arm",
        seeds,
    ]


def _grids(summary: Summary, run: Run) -> list[Grid]:
    grids = []
    sets = {"real": "Real"} | {generated(one.source.name): one.source.label("Generated") for one in summary.sources}
    for name, title in sets.items():
        images = first_images(ShardFolder.of(run, name, summary.manifests[name]))
        if png := grid_png(images):
            alt = f"The first {len(images)} {title[0].lower()}{title[1:]} training images, in a grid"
            grids.append(Grid(title, len(images), _data_uri(png), alt))
    if POSITIVES in summary.manifests:
        real, drawn = (ShardFolder.of(run, name, summary.manifests[name]) for name in ("real", POSITIVES))
        png, rows, columns = candidates_png(real, drawn)
        alt = f"The first {rows} real training images, each followed by {columns} of its candidates, in rows"
        title = f"Real images (left) and their candidates{positives_text(summary.manifests.get(POSITIVES_QUALITY))}"
        grids.append(Grid(title, rows, _data_uri(png), alt))
    return grids


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _quality(summary: Summary, one: SourceSummary, run: Run) -> dict[str, Any] | None:
    """The content of a source's quality section; None if its quality was not measured."""
    quality = one.quality
    if quality is None:
        return None
    manifest = summary.manifests[measured(one.source.name)]
    sheets = {name: extremes(run, manifest, name, summary.real.image_size) for name in ("best", "worst")}
    return {
        "of": one.source.name,
        "measured": quality,
        "by_space": by_space(quality),
        "of_pixels": of_pixels(quality),
        "shards": shards_text(quality),
        "sheets": {name: _data_uri(png) for name, png in sheets.items() if png},
    }


def _plan_inputs(plan: InflationPlan) -> list[tuple[str, str]]:
    inputs = plan.inputs
    by_source = []
    for name, source in inputs.sources.items():
        score = plan.choice(choice_name(QUALITY, name, len(inputs.sources)))
        copies = "not measured" if source.measured is None else f"{100 * source.measured.copy_rate:g} %"
        images = "generated images" if len(inputs.sources) == 1 else f"images of {name}"
        by_source += [
            (f"M, {images}", f"{source.images:,}"),
            (f"q, quality score of the {images} (1 is the paper's best generator)", f"{score.value:g} ({score.formula})"),
            ("share of near-duplicates among them (M' = M minus the near-duplicates)", copies),
        ]
    return [
        ("N, real training images", f"{inputs.real_images:,}"),
        *by_source,
        ("reference size, at which the default crop applies", f"{inputs.reference_images:,}"),
    ]


def _shares(arms: Mapping[str, Trained]) -> dict[str, Any]:
    """The share of each source in the batches of each arm."""
    sources = ["real", *sorted({source for arm in arms.values() for source in arm.shares} - {"real"})]
    return {
        "sources": sources,
        "arms": {name: [arm.shares.get(source, 0.0) for source in sources] for name, arm in arms.items()},
    }


def _views(arm: Trained) -> list[tuple[str, str, Profile]]:
    """(arm, which views, profile): one row if both views have the same profile."""
    first, second = arm.views
    if first == second:
        return [(arm.arm, "both views", first)]
    return [(arm.arm, "view 1", first), (arm.arm, "view 2", second)]


def _real_origin(summary: Summary) -> list[tuple[str, str]]:
    real = summary.real
    origin = [("Source", str(real.origin.get("kind", summary.recipe.real.kind)))]
    origin += [(f"{name.capitalize()} split", f"{split.images:,} images") for name, split in _in_order(real.splits)]
    if real.classes:
        more = f" and {len(real.classes) - _MAX_CLASSES} more" if len(real.classes) > _MAX_CLASSES else ""
        origin.append((f"{len(real.classes)} classes", ", ".join(real.classes[:_MAX_CLASSES]) + more))
    return [*origin, ("SHA-256 of the manifest", summary.manifests["real"].digest)]


def _in_order(splits: dict[str, Split]) -> list[tuple[str, Split]]:
    order = ("train", "validation", "test")
    return sorted(splits.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order))


def _labels_declared(summary: Summary) -> str:
    """Where the use of labels is declared; empty if nothing declares it."""
    generators = [one.source.generator for one in summary.sources if one.used_labels]
    if any(isinstance(generator, ImportedImages) for generator in generators):
        return "The recipe declares it."
    return "The generator's manifest declares it." if any(isinstance(generator, External) for generator in generators) else ""


def _generated_origin(summary: Summary, one: SourceSummary) -> list[tuple[str, str]]:
    """The provenance of a source's images: the generator of the run, or the declaration of the user."""
    images = ("Images", f"{one.images.splits['train'].images:,}")
    digest = ("SHA-256 of the manifest", summary.manifests[generated(one.source.name)].digest)
    labels = ("Labels used", "yes" if one.used_labels else "no")
    origin = {key: str(value) for key, value in one.images.origin.items()}
    fitted_on_run = origin.get("trained_on") == summary.manifests["real"].digest
    fitted_on = "only the real training images above" if fitted_on_run else origin.get("trained_on", "unknown")
    if isinstance(one.source.generator, External):
        return [
            ("Kind", "external generator, as its manifest declares"),
            ("Generator", origin["name"]),
            ("Fitted on", fitted_on),
            labels,
            images,
            digest,
        ]
    if one.fitted is None:
        declared = [
            ("Generator", origin.get("generator", "")),
            ("Fitted on", origin.get("trained_on", "")),
            ("Source", origin.get("source", "")),
            ("Channel order in the file", origin.get("channel_order_in_file", "")),
        ]
        return [("Kind", "imported, as declared in the recipe"), *((k, v) for k, v in declared if v), labels, images, digest]
    fitted = one.fitted
    return [
        ("Kind", f"{_KINDS.get(fitted.kind, fitted.kind)}, fitted in this run"),
        ("Fitted on", fitted_on),
        labels,
        ("Fit", f"{fitted.steps:,} steps, {fitted.images_seen:,} images seen"),
        images,
        digest,
    ]
