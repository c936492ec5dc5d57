"""The plan passes through the paper's points, is monotone, and states the basis of each value."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from adainf.augment.profiles import default_views
from adainf.inflation.explain import lines
from adainf.inflation.policy import make_plan, min_scale
from adainf.inflation.quality_score import Measured, quality_score
from adainf.inflation.record import REAL_WEIGHT, InflationPlan, Inputs, SourceStats
from adainf.inflation.what_if import parse_what_if
from adainf.recipe import Augmentation, Plan

DEFAULT = default_views(Augmentation())
COUNTS = st.integers(1, 10_000_000)
QUALITY = st.floats(0.02, 1)


def of_one(real: int, generated: int, measured: Measured | None = None) -> Inputs:
    sources = {"generated": SourceStats(images=generated, measured=measured)}
    return Inputs(real_images=real, sources=sources, reference_images=50_000)


def planned(real: int, generated: int, quality: float = 1.0, copies: float = 0.0, **rule: object) -> InflationPlan:
    measured = Measured(fid=1.94 / quality**2, copy_rate=copies)
    return make_plan(of_one(real, generated, measured), Plan.model_validate(rule), DEFAULT)


@pytest.mark.parametrize(("images", "scale"), [(25_000, 0.02), (50_000, 0.08), (150_000, 0.20), (1_050_000, 0.30)])
def test_crop_scale_is_exactly_the_papers_at_the_papers_sizes(images: int, scale: float) -> None:
    assert min_scale(images, 50_000) == (scale, "paper's point")


def test_crop_scale_between_the_points_is_marked_as_interpolated() -> None:
    scale, basis = min_scale(300_000, 50_000)
    assert 0.20 < scale < 0.30
    assert basis == "interpolation"


@pytest.mark.parametrize(("images", "reference"), [(10_000, 50_000), (2_000_000, 50_000), (1_000, 500)])
def test_crop_scale_beyond_the_points_or_at_another_reference_is_our_prior(images: int, reference: int) -> None:
    assert min_scale(images, reference)[1] == "our prior"


@pytest.mark.parametrize(
    ("real", "generated", "measured", "basis"),
    [
        (50_000, 1_000_000, True, "paper's point"),
        (50_000, 1_000_000, False, "our prior"),
        (1_294, 5_000, True, "our prior"),
    ],
)
def test_the_weight_is_the_papers_only_where_the_paper_measured_it(
    real: int, generated: int, measured: bool, basis: str
) -> None:
    inputs = of_one(real, generated, Measured(fid=1.94) if measured else None)
    assert make_plan(inputs, Plan(), DEFAULT).choice(REAL_WEIGHT).basis == basis


@given(real=COUNTS, generated=COUNTS, quality=QUALITY)
def test_without_a_reference_no_number_of_real_images_strengthens_augmentation(
    real: int, generated: int, quality: float
) -> None:
    """The recipe's augmentation is right for the images that the recipe names."""
    inputs = parse_what_if(f"real={real},generated={generated},fid={1.94 / quality**2}", None, Plan().reference_images)
    plan = make_plan(inputs, Plan(), DEFAULT)
    assert plan.inputs.reference_images == real
    assert plan.views[0].min_scale >= DEFAULT[0].min_scale
    assert not any("stronger" in warning for warning in plan.warnings)


def test_a_plan_that_strengthens_augmentation_says_so_in_its_first_line() -> None:
    plan = planned(432, 5_000)
    assert plan.views[0].min_scale == 0.02
    assert "stronger than the recipe's (min crop scale 0.02, not 0.08)" in plan.warnings[0]
    assert lines(plan, 1000, DEFAULT[0].min_scale)[0].endswith("with augmentation stronger than the recipe's")
    assert "stronger" not in lines(planned(50_000, 5_000), 1000, DEFAULT[0].min_scale)[0]


@pytest.mark.parametrize("method", ["byol", "moco"])
def test_only_simclr_has_the_papers_points(method: str) -> None:
    """The paper swept weight and crop with SimCLR; with BYOL its plan gains nothing over vanilla."""
    measured = of_one(50_000, 1_000_000, Measured(fid=1.94))
    plan = make_plan(measured.model_copy(update={"method": method}), Plan(), DEFAULT)
    simclr = make_plan(measured, Plan(), DEFAULT)
    assert (plan.real_weight, plan.views) == (simclr.real_weight, simclr.views)
    assert {choice.basis for choice in plan.choices} == {"our prior"}
    assert any("BYOL" in warning for warning in plan.warnings) == (method == "byol")


@given(repeats=st.integers(1, 50), distinct=st.integers(1000, 100_000))
def test_repeated_images_count_once(repeats: int, distinct: int) -> None:
    repeated = of_one(50_000, repeats * distinct, Measured(fid=1.94, duplicate_rate=1 - 1 / repeats))
    plan = make_plan(repeated, Plan(max_generated_share=0.99), DEFAULT)
    if repeats > 2:
        assert plan.refused is not None
        assert "repeat another one pixel by pixel" in plan.refused
    else:
        once = make_plan(of_one(50_000, distinct, Measured(fid=1.94)), Plan(max_generated_share=0.99), DEFAULT)
        assert plan.generated_share == pytest.approx(once.generated_share, rel=1e-2)
        assert plan.views == once.views


@pytest.mark.parametrize("base", [0.02, 0.08, 0.2, 0.3])
@pytest.mark.parametrize("family", ["symmetric", "asymmetric"])
def test_where_hardly_anything_is_inflated_nothing_is_weakened(base: float, family: str) -> None:
    default = default_views(Augmentation.model_validate({"min_scale": base, "family": family}))
    plan = make_plan(of_one(50_000, 1), Plan(), default)
    assert plan.views == default


def test_the_asymmetric_profile_at_one_million_images() -> None:
    """Reference implementation, asymmetric_adainf.yaml: crop 0.20, jitter probability halved, its strengths unchanged."""
    inputs = of_one(50_000, 1_000_000)
    views = make_plan(inputs, Plan(), default_views(Augmentation(family="asymmetric"))).views
    for view, solarize in zip(views, (0.0, 0.2), strict=True):
        assert (view.min_scale, view.jitter_probability) == (0.20, 0.4)
        assert (view.brightness, view.contrast, view.saturation, view.hue) == (0.4, 0.4, 0.2, 0.1)
        assert (view.blur_probability, view.solarize_probability, view.grayscale_probability) == (0.0, solarize, 0.2)


def test_a_cap_is_named_where_it_binds() -> None:
    scale, jitter = planned(50_000, 250_000).choices[-2:]
    assert (scale.value, jitter.value) == (0.2, 0.5)
    assert "at most 0.2" in scale.formula
    assert scale.basis == "our prior"
    assert [choice.basis for choice in planned(50_000, 1_000_000).choices[-2:]] == ["paper's point"] * 2  # as it was shipped


def test_the_shipped_recipe_at_one_million_images() -> None:
    """Reference implementation, dup=10 and symmetric_adainf.yaml: share 2/3, crop 0.20, jitter .4/.4/.4/.1 at p .4."""
    plan = planned(50_000, 1_000_000)
    assert plan.real_weight == 10
    assert plan.generated_share == pytest.approx(2 / 3, abs=1e-6)
    view = plan.views[0]
    assert (view.min_scale, view.jitter_probability) == (0.20, 0.4)
    assert (view.brightness, view.contrast, view.saturation, view.hue) == (0.4, 0.4, 0.4, 0.1)
    assert (view.grayscale_probability, view.blur_probability, view.flip_probability) == (0.2, 0.5, 0.5)


def test_crop_only_weakens_only_the_crop() -> None:
    view = planned(50_000, 1_000_000, augmentation_rule="crop_only").views[0]
    assert (view.min_scale, view.jitter_probability, view.brightness) == (0.30, 0.8, 0.8)


@pytest.mark.parametrize(
    ("real", "generated", "quality", "weight", "share", "scale"),
    [
        (50_000, 100_000, 1.0, 10, 0.167, 0.200),
        (50_000, 1_000_000, (1.94 / 2.92) ** 0.5, 12.3, 0.619, 0.290),  # StyleGAN2-ADA's FID against the paper's STF
        (50_000, 1_000_000, (1.94 / 3.04) ** 0.5, 12.5, 0.615, 0.289),  # DDPM
        (5_000, 500_000, (1.94 / 18.27) ** 0.5, 30.7, 0.765, 0.206),
        (100_000, 1_000_000, (1.94 / 18.61) ** 0.5, 31.0, 0.244, 0.253),  # Tiny ImageNet's; the paper used 10
        (50_000, 1_000_000, (1.94 / 60) ** 0.5, 55.6, 0.265, 0.222),
    ],
)
def test_worked_examples(real: int, generated: int, quality: float, weight: float, share: float, scale: float) -> None:
    plan = planned(real, generated, quality, augmentation_rule="crop_only")
    assert plan.real_weight == pytest.approx(weight, rel=0.01)
    assert plan.generated_share == pytest.approx(share, abs=0.002)
    assert plan.views[0].min_scale == pytest.approx(scale, abs=0.002)


@given(real=COUNTS, generated=COUNTS, better=QUALITY, worse=QUALITY)
def test_worse_quality_never_weighs_generated_images_more(real: int, generated: int, better: float, worse: float) -> None:
    better, worse = max(better, worse), min(better, worse)
    good, bad = planned(real, generated, better), planned(real, generated, worse)
    assert bad.real_weight >= good.real_weight
    assert bad.generated_share <= good.generated_share
    assert bad.views[0].min_scale <= good.views[0].min_scale


@given(real=COUNTS, generated=COUNTS, more=st.integers(0, 10_000_000), quality=QUALITY)
def test_more_data_never_strengthens_augmentation(real: int, generated: int, more: int, quality: float) -> None:
    small, large = planned(real, generated, quality), planned(real, generated + more, quality)
    assert large.views[0].min_scale >= small.views[0].min_scale
    assert large.views[0].jitter_probability <= small.views[0].jitter_probability


@given(real=COUNTS, generated=COUNTS, quality=QUALITY, copies=st.floats(0, 0.5), most=st.floats(0.05, 0.95))
def test_real_images_keep_their_least_share(real: int, generated: int, quality: float, copies: float, most: float) -> None:
    plan = planned(real, generated, quality, copies, max_generated_share=most)
    assert plan.generated_share <= most * 1.005  # the weight is rounded to three digits, so that the plan can be read


def test_a_weight_raised_by_the_share_is_not_called_the_papers() -> None:
    plan = planned(1_000, 1_000_000)
    assert plan.real_weight == 250
    assert plan.choice(REAL_WEIGHT).basis == "our prior"


def test_unmeasured_quality_and_tiny_data_give_warnings() -> None:
    inputs = of_one(1_294, 5_000)
    warnings = " ".join(make_plan(inputs, Plan(), DEFAULT).warnings)
    assert "not measured" in warnings
    assert "below the paper's smallest set" in warnings


@pytest.mark.parametrize(
    "wrong",
    [
        {"real_images": 0},
        {"images": 0},
        {"sources": {}},
        {"measured": {"fid": 0}},
        {"measured": {"fid": float("nan")}},
        {"measured": {"coverage": -0.1, "coverage_null": 0.9}},
        {"measured": {"coverage": 0.5, "coverage_null": 0.0}},
        {"measured": {"total_variation": 0.5, "total_variation_null": 1.0}},
        {"measured": {"copy_rate": 1.1}},
    ],
)
def test_impossible_inputs_are_refused(wrong: dict[str, object]) -> None:
    source = {"images": 10} | {key: value for key, value in wrong.items() if key in ("images", "measured")}
    rest = {key: value for key, value in wrong.items() if key not in source}
    with pytest.raises(ValidationError):
        Inputs.model_validate({"real_images": 10, "sources": {"generated": source}, **rest})


@pytest.mark.parametrize(
    ("measured", "why"),
    [
        ({"coverage": 0.05, "coverage_null": 0.9}, "cover 5.6 %"),
        ({"fid": 5000}, "quality q is 0.0197"),
        ({"duplicate_rate": 0.98}, "98 % of them repeat another one"),
        ({"contamination": 0.25}, "exact copies of 25 % of the validation and test images"),
        ({"copy_rate": 0.6}, "60 % of them copy"),
        ({"authenticity_pct": 14.2, "authenticity_pct_null": 52.7}, "38 points below its null"),
    ],
)
def test_refused_images_leave_the_plan_of_real_images_only(measured: dict[str, float], why: str) -> None:
    inputs = of_one(25_000, 1_000_000, Measured.model_validate(measured))
    plan = make_plan(inputs, Plan(), DEFAULT)
    assert plan.refused is not None
    assert why in plan.refused
    assert (plan.real_weight, plan.weights, plan.generated_share) == (1, {}, 0)
    assert plan.views == DEFAULT
    assert any(why in warning for warning in plan.warnings)


@given(
    coverage=st.floats(0.1, 1),
    null=st.floats(0.1, 1),
    apart=st.floats(0, 1),
    apart_null=st.floats(0, 0.9),
    fid=st.floats(0.1, 90),
)
def test_the_worst_of_the_measurements_decides(
    coverage: float, null: float, apart: float, apart_null: float, fid: float
) -> None:
    measured = Measured(coverage=coverage, coverage_null=null, total_variation=apart, total_variation_null=apart_null, fid=fid)
    found = quality_score(measured)
    assert found is not None
    assert found[0] == pytest.approx(min(coverage / (0.9 * null), (1 - apart) / (1 - apart_null), 1.0))


def test_an_fid_decides_only_where_nothing_else_is_known() -> None:
    """An FID depends on the data set and on the number of images: that of a Tiny ImageNet run is not one of CIFAR-10."""
    found = quality_score(Measured(fid=18.61))
    assert found is not None
    assert found[0] == pytest.approx((1.94 / 18.61) ** 0.5)


def test_blends_that_cover_the_real_images_get_less_weight() -> None:
    """As measured in the study of docs/study.md: coverage rates means of two images as nearly perfect."""
    ghosts = Measured(coverage=0.87, coverage_null=0.98, total_variation=0.457, total_variation_null=0)
    fitted = Measured(coverage=0.86, coverage_null=0.98, total_variation=0.031, total_variation_null=0)
    plans = [make_plan(of_one(500, 10_000, measured), Plan(), DEFAULT) for measured in (ghosts, fitted)]
    assert plans[0].real_weight == pytest.approx(10 / 0.543, rel=1e-2)
    assert plans[0].real_weight > 1.7 * plans[1].real_weight
