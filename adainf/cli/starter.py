"""``adainf init``, second half: what was found in the data → the settings of a first recipe, each with its reason.

Sizes are for a run of about an hour: two CPU cores, or one GPU. `adainf estimate` times them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from adainf.errors import BadInput

MIN_IMAGES = 20
"""Fewer images leave too few for the splits and for negatives."""
METHODS = ("simclr", "moco", "byol", "simsiam", "barlow", "vicreg", "spectral", "dino")
_SMALL_BATCH = 256
"""Below it AdamW, which needs no tuning; else the optimiser of the method (`adainf.recipe.methods.DEFAULTS`)."""
_WIDTHS: Mapping[str, Mapping[str, int]] = {
    "byol": {"projector_hidden": 512, "projector_out": 64, "predictor_hidden": 512},
    "simsiam": {"projector_hidden": 512, "projector_out": 512, "predictor_hidden": 128},
    "barlow": {"projector_hidden": 512, "projector_out": 512},
    "vicreg": {"projector_hidden": 512, "projector_out": 512},
    "spectral": {"projector_hidden": 512, "projector_out": 256},
    "dino": {"projector_hidden": 256, "bottleneck": 64, "prototypes": 256},
}
"""Heads for small backbones on CPUs; on GPUs the recipe's defaults hold, which are the papers'."""
_YAML_WORDS = ("yes", "no", "on", "off", "y", "n", "true", "false", "null")
_QUALITY_IMAGES = 6
"""The fewest validation images with which `measure` runs."""


class Found(NamedTuple):
    """What `adainf init` found in the data."""

    uri: str
    real: dict[str, Any]
    """Section `real` as far as the source decides it: kind, path."""
    images: int
    """Training images, before splits are taken from them."""
    validation: int
    """Images of its own validation split; 0 for none."""
    test: int
    """Images of its own test split; 0 for none."""
    may_carve_test: bool
    """Whether the source has the setting `test_fraction`."""
    classes: list[str]
    """Names of the classes; fewer than two cannot be probed."""
    labelled: bool
    sizes: list[tuple[int, int]]
    """(height, width) of the examined images."""
    modes: set[str]
    """Pillow's modes of the examined images."""


class Line(NamedTuple):
    """One line of the recipe, with the reason for its value as a comment."""

    indent: int
    key: str
    value: Any = ...
    """`...`: the head of a section."""
    reason: str = ""

    def as_yaml(self) -> str:
        """The line; strings are quoted as JSON where YAML needs it, which is valid YAML."""
        text = f"{'  ' * self.indent}{self.key}:" + ("" if self.value is ... else f" {_scalar(self.value)}")
        return text + (f" # {self.reason}" if self.reason else "")


def choose(found: Found, name: str, method: str, gpu: bool, threads: int) -> list[Line]:
    """The recipe, line by line. Raises `BadInput` where there are too few images."""
    if found.images < MIN_IMAGES:
        raise BadInput(
            f"{found.uri}: contains {found.images} training image{'s' * (found.images != 1)}, and contrastive learning "
            f"needs at least {MIN_IMAGES}; bring more images"
        )
    probed = found.labelled and len(found.classes) > 1
    test = 0.2 if probed and not found.test and found.may_carve_test else 0.0
    left = found.images - round(found.images * test)
    validation = 0.1 if left >= 1000 else max(0.2, round((_QUALITY_IMAGES + 0.5) / left, 2))
    held_out = found.validation or round(left * validation)
    train = left if found.validation else left - held_out
    size, why_size = _size(found.sizes, gpu)
    batch = 2 ** int(math.log2(min(512 if gpu else 128, train / 2)))
    fit_batch = 2 ** int(math.log2(min(256 if gpu else 128, train)))
    steps = _clamp(400 * train // batch if gpu else 200 * train // batch, 300, 50_000 if gpu else 1500)
    images = _clamp(10 * train, 1000, 500_000 if gpu else 5000)
    resolutions = next((n for n in (3, 2) if size % 2 ** (n - 1) == 0 and size // 2 ** (n - 1) >= 4), 1)
    flips = not (found.real["kind"] == "folder" and _are_characters(found.classes))
    grey = bool(found.modes) and found.modes <= {"L", "1", "LA", "I;16", "I", "F"}
    stem = "cifar" if size <= 64 else "imagenet"
    lines = [Line(0, "name", name, "the run is written to runs/NAME")]
    if not gpu:
        lines.append(Line(0, "cpu_threads", threads, "the cores of this machine; part of what makes results repeatable"))
    lines += [Line(0, "real"), *(Line(1, key, value) for key, value in found.real.items())]
    lines.append(Line(1, "image_size_px", size, why_size))
    if any("16" in mode for mode in found.modes):
        lines.append(Line(1, "sixteen_bit", "scale", "there are images of 16 bits"))
    if not found.validation:
        lines.append(Line(1, "validation_fraction", validation, f"{held_out:,} images, for decisions only"))
    if not found.test and found.may_carve_test:
        why_test = (
            f"{found.images - left:,} labelled images for the final scores"
            if probed
            else "without two labelled classes no probe can be scored, so no image is spent on a test split"
        )
        lines.append(Line(1, "test_fraction", test, why_test))
    lines += [
        Line(0, "generator"),
        Line(1, "kind", "diffusion", "fitted on the training images only; import replaces it by existing images"),
        Line(1, "steps", 20_000 if gpu else 1500),
        Line(1, "batch", fit_batch, "" if train >= (256 if gpu else 128) else f"at most the {train:,} training images"),
        Line(1, "learning_rate", 5e-4 if gpu else 2e-3),
        Line(1, "horizontal_flip", flips),
        Line(1, "ema_half_life_images", 100_000 if gpu else 20_000),
        Line(1, "unet", {"channels": 64 if gpu else 32, "multipliers": [1, 2, 2][:resolutions], "attention_below_px": 8}),
        Line(1, "sampler", {"kind": "dpmpp2m", "steps": 16 if gpu else 10, "rho": 14, "sigma_min": 0.01}),
    ]
    if gpu:
        lines.append(Line(1, "precision", "bf16"))
    lines += [
        Line(0, "generate"),
        Line(1, "images", images, f"{images / train:.3g} times the {train:,} training images"),
        Line(1, "shard_images", 10_000 if gpu else 1000),
    ]
    if held_out < _QUALITY_IMAGES:
        reason = f"{held_out} validation images are too few to measure the generated ones, so the plan assumes the best quality"
        lines.append(Line(0, "quality", None, reason))
    controls = "adainf against its controls: no inflation, weaker views only, plain inflation"
    lines += [
        Line(0, "arms", ["none", "none-weak", "vanilla", "adainf"], controls),
        Line(0, "pretrain"),
        Line(1, "method", _method(method, gpu)),
        Line(1, "backbone", {"name": "resnet18", "stem": stem} if gpu else {"name": "resnet-small"}, _why_backbone(gpu, size)),
        Line(1, "augmentation", _views(size, flips, grey), _why_views(flips, grey, size)),
        Line(1, "steps", steps, f"{steps * batch / train:,.0f} passes over the training images without inflation"),
        Line(1, "global_batch", batch),
        Line(1, "warmup_fraction", 0.05),
        Line(1, "seeds", [0, 1, 2] if gpu or size <= 16 else [0], "more seeds make the intervals of the report smaller"),
    ]
    if batch < _SMALL_BATCH:
        reason = f"for small batches; from {_SMALL_BATCH} on, {method}'s own is better: delete the line"
        lines.append(Line(1, "optimizer", {"kind": "adamw", "learning_rate": 2e-3, "weight_decay": 0.01}, reason))
    if gpu:
        lines.append(Line(1, "precision", "bf16"))
    return lines


def _size(sizes: list[tuple[int, int]], gpu: bool) -> tuple[int, str]:
    """Height and width of the recipe's images, with the reason."""
    shorter = sorted(min(size) for size in sizes)
    middle = shorter[len(shorter) // 2]
    limit = 64 if gpu else 32
    where = "a GPU" if gpu else "CPUs"
    if len(set(sizes)) == 1 and sizes[0] == (middle, middle) and middle <= limit:
        return middle, "the images' own size"
    size = next((px for px in (64, 48, 32, 24, 16, 8) if px <= min(middle, limit)), middle)
    shapes = f"{len(set(sizes)):,} sizes, the shorter side of half of them is" if len(set(sizes)) > 1 else "the shorter side is"
    return size, f"cropped to a square; {shapes} {middle:,} px, and {limit} px is what trains quickly on {where}"


def _method(method: str, gpu: bool) -> dict[str, Any]:
    small = {} if gpu else _WIDTHS.get(method, {"projector_hidden": 256, "projector_out": 64})
    return {"kind": method, **small, **({"queue": 4096} if method == "moco" and not gpu else {})}


def _views(size: int, flips: bool, grey: bool) -> dict[str, Any]:
    """What differs from the views of the method."""
    views: dict[str, Any] = {"flip_probability": 0.5 if flips else 0}
    if size <= 16:
        views["blur_probability"] = 0
    if grey:
        views["grayscale_probability"] = 0
    return views


def _why_views(flips: bool, grey: bool, size: int) -> str:
    reasons = ["set flip_probability: 0 if mirroring changes a class" if flips else "classes are characters: not mirrored"]
    if size <= 16:
        reasons.append("too small to blur")
    if grey:
        reasons.append("already grey")
    return "; ".join(reasons)


def _why_backbone(gpu: bool, size: int) -> str:
    return f"the stem for {'small' if size <= 64 else 'large'} images" if gpu else "small, for CPUs; resnet18 on a GPU"


def _are_characters(classes: list[str]) -> bool:
    """Whether all classes are single characters, which mirroring changes."""
    return len(classes) > 1 and all(len(name) == 1 and name.isalnum() for name in classes)


def _clamp(value: int, least: int, most: int) -> int:
    return max(least, min(value, most))


def _scalar(value: Any) -> str:
    """A value in YAML's flow style."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_scalar(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_scalar, value)) + "]"
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, str):
        plain = re.fullmatch(r"[A-Za-z][\w./-]*", value, re.ASCII) and value.lower() not in _YAML_WORDS
        return value if plain else json.dumps(value, ensure_ascii=False)
    return f"{value:g}" if isinstance(value, float) else str(value)
