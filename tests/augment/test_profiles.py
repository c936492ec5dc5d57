"""One scalar of strength, and the recipe's views."""

from __future__ import annotations

import pytest

from adainf.augment.profiles import Profile, default_views
from adainf.recipe import Augmentation
from tests.augment.images import FULL, NOTHING


def test_strength_one_is_the_profile_and_nothing_the_identity() -> None:
    assert FULL.scaled(1.0) == FULL
    assert FULL.scaled(0.0) == NOTHING


@pytest.mark.parametrize("name", sorted(set(Profile.model_fields) - {"size_px"}))
def test_every_field_grows_with_strength_and_stays_legal(name: str) -> None:
    strengths = (0.0, 0.25, 0.5, 1.0, 1.5, 4.0, 100.0)
    local = FULL.model_copy(update={"max_scale": 0.4, "min_scale": 0.05, "size_px": 8})
    values = [getattr(local.scaled(each), name) for each in strengths]
    assert values == sorted(values, reverse=name in ("min_scale", "max_scale"))
    assert len(set(values)) >= 4
    assert all(0 < each.min_scale <= each.max_scale <= 1 for each in map(local.scaled, strengths))
    strongest = local.scaled(100.0)
    assert strongest.size_px == 8
    if "probability" in name:
        assert getattr(strongest, name) <= (0.5 if name.startswith("flip") else 1.0)
    assert strongest.hue == 0.5


def test_the_recipe_scales_jitter_and_the_whole() -> None:
    first, second = default_views(Augmentation(jitter_strength=0.5))
    assert first == second
    assert (first.brightness, first.contrast, first.saturation, first.hue) == (0.4, 0.4, 0.4, 0.1)
    assert (first.min_scale, first.jitter_probability) == (0.08, 0.8)
    assert default_views(Augmentation(jitter_strength=10))[0].hue == 0.5
    first, second = default_views(Augmentation(family="asymmetric", jitter_strength=2))
    assert (first.brightness, first.contrast, first.saturation, first.hue) == (0.8, 0.8, 0.4, 0.2)
    assert (first.blur_probability, first.solarize_probability, second.solarize_probability) == (0, 0, 0.2)
    half = default_views(Augmentation(strength=0.5))[0]
    assert half == default_views(Augmentation())[0].scaled(0.5)
    assert default_views(Augmentation(strength=0))[1] == NOTHING


def test_weakening_multiplies_jitter_and_sets_the_crop() -> None:
    weaker = FULL.with_crop_and_jitter(0.2, 0.5)
    changed = {"min_scale": 0.2, "jitter_probability": 0.4, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
    assert weaker == FULL.model_copy(update=changed)
    assert FULL.with_crop_and_jitter(0.2, 0.5, with_strength=False) == FULL.model_copy(
        update={"min_scale": 0.2, "jitter_probability": 0.4}
    )
