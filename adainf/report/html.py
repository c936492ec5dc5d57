"""The report as one self-contained HTML page: same artifacts, same bytes; it asks no other host for anything."""

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
from adainf.inflation.record import QUALITY, InflationPlan, choice_name
from adainf.pipeline.artifacts import Run
from adainf.pipeline.graph import generated, measured
from adainf.recipe import External, ImportedImages, Recipe
from adainf.report import figures
from adainf.report.grids import first_images, grid_png
from adainf.report.measures import beside_published
from adainf.report.measures import measured as measures
from adainf.report.overfitting import overfitting
from adainf.report.quality import by_space, extremes, of_pixels, shards_text
from adainf.report.summary import Inflation, Summary, Trained
from adainf.report.table import COLUMNS, NOTHING, amount, cells
from adainf.report.verdict import digits_for
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.manifest import Split

PATH = "PATH"
"""Stands for where data lie on a user's machine: that is no part of an experiment."""

_KINDS = {"diffusion": "diffusion model", "gan": "generative adversarial network"}

_PATHS = ("path", "checkpoint")

_SHOWN_CLASSES = 30

_BADGES = {"paper's point": "paper", "interpolation": "between", "our prior": "prior"}


@dataclass(frozen=True)
class Grid:
    """Sample images of one source as the page shows them."""

    title: str
    images: int
    data_uri: str
    alt: str


def render(summary: Summary, run: Run) -> bytes:
    """The page of a run. Reads the first shards for the sample grids; raises `BadInput` where one is damaged."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["amount"] = amount
    template = environment.from_string(files("adainf.report").joinpath("report.html").read_text(encoding="utf-8"))
    return (template.render(**_context(summary, run)).strip() + "\n").encode()


def shown_recipe(recipe: Recipe) -> dict[str, JsonValue]:
    """The recipe as the report prints it: without what changes no artifact, and with `PATH` for the paths."""
    unseen = {"checkpoint_every_steps", "time_limit_s"}
    shown: dict[str, Any] = recipe.model_dump(
        mode="json",
        exclude={
            "real": {"download"},
            "generator": unseen,
            "generators": {"__all__": {"generator": unseen}},
            "pretrain": {"checkpoint_every_steps": True, "stream": {"prefetch_batches", "check_every_steps", "on_device"}},
            "evaluate": {"batch"},
            "quality": {"batch"},
        },
    )
    del shown["generator" if recipe.generator is None else "generators"]
    for holder in (shown, *shown.get("generators", {}).values()):
        for name in ("real", "generator"):
            if name in holder:
                holder[name] = _without_paths(holder[name])
    if recipe.quality is not None and recipe.quality.inception is not None:
        shown["quality"]["inception"]["weights"] = PATH
    return shown


def _without_paths(section: dict[str, Any]) -> dict[str, Any]:
    """The section, its kind first, which says what its other settings mean."""
    return {"kind": section["kind"], **section} | {field: PATH for field in _PATHS if field in section}


class _Dumper(yaml.SafeDumper):
    """Lists on one line: those of a recipe hold a few numbers or names each."""


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
        "facts": _facts(summary),
        "columns": COLUMNS,
        "table": [(row, cells(row, digits)) for row in summary.rows],
        "measures": measures(summary.scores, digits),
        "published": beside_published(recipe.published, summary.rows, digits),
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
        "labels_declared": _declared(summary),
        "recipe_yaml": recipe_yaml,
        "has_paths": f": {PATH}\n" in recipe_yaml,
        "digests": {name: manifest.digest for name, manifest in summary.manifests.items()},
        "makers": sorted({manifest.made_by for manifest in summary.manifests.values()}),
        "nothing": NOTHING,
    }


def _markup(svg: str | None) -> Markup | None:
    # Safe to inline: matplotlib escapes its texts, and none of them comes from data.
    return None if svg is None else Markup(svg)


def _facts(summary: Summary) -> list[str]:
    """The experiment's size in a few words each."""
    seeds = f"{summary.seeds} seeds" if summary.seeds > 1 else "one seed"
    facts = [f"{summary.real.splits['train'].images:,} real training images"]
    if summary.sources:
        of = f" of {len(summary.sources)} sources" if len(summary.sources) > 1 else ""
        facts.append(f"{sum(one.images.splits['train'].images for one in summary.sources):,} generated{of}")
    pretrain = summary.recipe.pretrain
    return [
        *facts,
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
        png = grid_png(images)
        if png:
            alt = f"The first {len(images)} {title[0].lower()}{title[1:]} training images, in a grid"
            grids.append(Grid(title, len(images), _data_uri(png), alt))
    return grids


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _quality(summary: Summary, one: Inflation, run: Run) -> dict[str, Any] | None:
    """What the section about the quality of a source's images shows; None where it was not measured."""
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
    of_sources = []
    for name, source in inputs.sources.items():
        worth = plan.choice(choice_name(QUALITY, name, len(inputs.sources)))
        copies = "not measured" if source.measured is None else f"{100 * source.measured.copy_rate:g} %"
        images = "generated images" if len(inputs.sources) == 1 else f"images of {name}"
        of_sources += [
            (f"M, {images}", f"{source.images:,}"),
            (f"q, quality of the {images} (1 is the paper's best generator)", f"{worth.value:g} ({worth.formula})"),
            ("share of copies among them (M' = M less the copies)", copies),
        ]
    return [
        ("N, real training images", f"{inputs.real_images:,}"),
        *of_sources,
        ("reference images, at which the default crop is right", f"{inputs.reference_images:,}"),
    ]


def _shares(arms: Mapping[str, Trained]) -> dict[str, Any]:
    """How much of a batch each source has in each arm."""
    sources = ["real", *sorted({source for arm in arms.values() for source in arm.shares} - {"real"})]
    return {
        "sources": sources,
        "arms": {name: [arm.shares.get(source, 0.0) for source in sources] for name, arm in arms.items()},
    }


def _views(arm: Trained) -> list[tuple[str, str, Profile]]:
    """(arm, which views, profile): one line where both views are alike."""
    first, second = arm.views
    if first == second:
        return [(arm.arm, "both views", first)]
    return [(arm.arm, "view 1", first), (arm.arm, "view 2", second)]


def _real_origin(summary: Summary) -> list[tuple[str, str]]:
    real = summary.real
    origin = [("Source", str(real.origin.get("kind", summary.recipe.real.kind)))]
    origin += [(f"{name.capitalize()} split", f"{split.images:,} images") for name, split in _in_order(real.splits)]
    if real.classes:
        more = f" and {len(real.classes) - _SHOWN_CLASSES} more" if len(real.classes) > _SHOWN_CLASSES else ""
        origin.append((f"{len(real.classes)} classes", ", ".join(real.classes[:_SHOWN_CLASSES]) + more))
    return [*origin, ("SHA-256 of the manifest", summary.manifests["real"].digest)]


def _in_order(splits: dict[str, Split]) -> list[tuple[str, Split]]:
    order = ("train", "validation", "test")
    return sorted(splits.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order))


def _declared(summary: Summary) -> str:
    """Who says that labels were used, where somebody does."""
    generators = [one.source.generator for one in summary.sources if one.used_labels]
    if any(isinstance(generator, ImportedImages) for generator in generators):
        return "The recipe declares it."
    return "The generator's manifest declares it." if any(isinstance(generator, External) for generator in generators) else ""


def _generated_origin(summary: Summary, one: Inflation) -> list[tuple[str, str]]:
    """Where the images of a source came from: the run's own generator, or what the user declared."""
    images = ("Images", f"{one.images.splits['train'].images:,}")
    digest = ("SHA-256 of the manifest", summary.manifests[generated(one.source.name)].digest)
    labels = ("Labels used", "yes" if one.used_labels else "no")
    origin = {key: str(value) for key, value in one.images.origin.items()}
    own = origin.get("trained_on") == summary.manifests["real"].digest
    fitted_on = "the real training images above, and nothing else" if own else origin.get("trained_on", "unknown")
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
