"""Several sources of generated images are weighed by the rule for one."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adainf.augment.profiles import default_views
from adainf.inflation import explain
from adainf.inflation.policy import make_plan
from adainf.inflation.quality_score import Measured
from adainf.inflation.record import EFFECTIVE, InflationPlan, Inputs, SourceStats
from adainf.inflation.search import settings_around
from adainf.inflation.what_if import parse_what_if
from adainf.recipe import Augmentation, Plan
from adainf.shards.loader.mixture import MixtureSchedule

DEFAULT = default_views(Augmentation())
COUNTS = st.integers(1, 10_000_000)
QUALITY = st.floats(0.02, 1)
NOISE = SourceStats(images=70_000, measured=Measured(coverage=0.01, coverage_null=0.9))


def source(images: int, quality: float, copies: float = 0.0) -> SourceStats:
    return SourceStats(images=images, measured=Measured(fid=1.94 / quality**2, copy_rate=copies))


SOURCES = st.dictionaries(
    st.sampled_from("abcde"), st.builds(source, COUNTS, QUALITY, st.floats(0, 0.5)), min_size=1, max_size=4
)


def planned(real: int, sources: dict[str, SourceStats], **rule: object) -> InflationPlan:
    return make_plan(Inputs(real_images=real, sources=sources, reference_images=50_000), Plan.model_validate(rule), DEFAULT)


@given(real=COUNTS, images=COUNTS, quality=QUALITY, most=st.floats(0.05, 0.95))
def test_one_source_is_weighed_as_docs_policy_says(real: int, images: int, quality: float, most: float) -> None:
    """Weight 10 / q in three digits, M / (w N + M), N + q M: to the digit, by arithmetic of its own."""
    plan = planned(real, {"a": source(images, quality)}, max_generated_share=most)
    q = min(1.94 / (1.94 / quality), 1.0)
    weight = float(f"{max(min(10 / q, 100.0), images / real * (1 - most) / most):.3g}")
    assert plan.real_weight == weight
    assert plan.sources["a"].weight == 1
    assert plan.generated_share == plan.sources["a"].share == round(images / (weight * real + images), 6)
    assert plan.choice(EFFECTIVE).value == round(real + q * images, 1)


@given(real=COUNTS, first=COUNTS, second=COUNTS, quality=QUALITY)
def test_a_source_in_two_parts_of_one_quality_is_that_source(real: int, first: int, second: int, quality: float) -> None:
    whole = planned(real, {"a": source(first + second, quality)})
    parts = planned(real, {"a": source(first, quality), "b": source(second, quality)})
    assert (parts.real_weight, parts.generated_share) == (whole.real_weight, whole.generated_share)
    assert parts.views[0].min_scale == pytest.approx(whole.views[0].min_scale, abs=1e-4)


@given(real=COUNTS, sources=SOURCES)
def test_the_order_of_sources_is_of_no_consequence(real: int, sources: dict[str, SourceStats]) -> None:
    assert planned(real, sources).to_json() == planned(real, dict(reversed(sources.items()))).to_json()


@given(real=COUNTS, sources=SOURCES, images=COUNTS, better=QUALITY, worse=QUALITY)
def test_worse_quality_of_a_source_never_gives_it_more_weight(
    real: int, sources: dict[str, SourceStats], images: int, better: float, worse: float
) -> None:
    better, worse = max(better, worse), min(better, worse)
    good, bad = (planned(real, sources | {"x": source(images, quality)}) for quality in (better, worse))
    # Where the least real share decides the weight of a real image it is rounded to three digits, and so by 1 % at most.
    assert bad.sources["x"].share <= good.sources["x"].share * 1.011 + 2e-6
    assert bad.views[0].min_scale <= good.views[0].min_scale


@given(real=COUNTS, sources=SOURCES, more=COUNTS)
def test_more_images_of_any_source_never_strengthen_augmentation(real: int, sources: dict[str, SourceStats], more: int) -> None:
    name, grown = next(iter(sources.items()))
    larger = planned(real, sources | {name: grown.model_copy(update={"images": grown.images + more})})
    smaller = planned(real, sources)
    assert larger.views[0].min_scale >= smaller.views[0].min_scale
    assert larger.views[0].jitter_probability <= smaller.views[0].jitter_probability


@given(real=COUNTS, sources=SOURCES, most=st.floats(0.05, 0.95))
def test_all_sources_together_keep_to_the_most_that_may_be_generated(
    real: int, sources: dict[str, SourceStats], most: float
) -> None:
    plan = planned(real, sources, max_generated_share=most)
    assert plan.generated_share <= most * 1.005
    assert math.isclose(plan.generated_share, sum(one.share for one in plan.sources.values()), abs_tol=1e-5)


@given(real=st.integers(1, 1_000_000), sources=SOURCES)
def test_the_stream_draws_what_the_plan_says_copies_included(real: int, sources: dict[str, SourceStats]) -> None:
    """Would catch a share that is of the images without copies, while the stream draws from all of them."""
    plan = planned(real, sources)
    counts = [real, *(sources[name].images for name in plan.sources)]
    shares = MixtureSchedule(counts, [plan.real_weight, *plan.weights.values()], 0).shares
    assert [float(share) for share in shares[1:]] == pytest.approx([one.share for one in plan.sources.values()], abs=1e-6)


def test_a_real_image_is_worth_as_many_of_each_source_as_if_it_were_alone() -> None:
    plan = planned(50_000, {"a": source(100_000, 1.0), "b": source(100_000, 0.5), "c": source(100_000, 0.25)})
    output = explain.as_json(plan, "symmetric", 1000)["sources"]
    assert [output[name]["replication_of_real"] for name in "abc"] == [10, 20, 40]
    assert plan.choice(EFFECTIVE).value == 50_000 + 100_000 + 50_000 + 25_000


def test_a_refused_source_adds_only_a_warning() -> None:
    good = {"a": source(100_000, 0.8)}
    alone, beside = planned(50_000, good), planned(50_000, good | {"noise": NOISE})
    assert beside.sources["noise"].weight == beside.sources["noise"].share == 0
    assert beside.refused is None
    assert (beside.real_weight, beside.generated_share, beside.views) == (alone.real_weight, alone.generated_share, alone.views)
    assert [warning for warning in beside.warnings if warning.startswith("noise is left out: they cover 1.1 %")]
    assert "noise 0 " not in " ".join(explain.lines(beside, 1000, 0.08)).replace("image of noise 0", "")


def test_where_all_are_refused_the_plan_is_that_of_the_real_images() -> None:
    plan = planned(50_000, {"noise": NOISE, "other": NOISE})
    assert (plan.real_weight, plan.weights, plan.generated_share, plan.views) == (1, {}, 0, DEFAULT)
    assert plan.refused is not None
    assert plan.refused.count("they cover 1.1 %") == 2


def test_settings_around_a_plan_scale_all_sources_together() -> None:
    """And vanilla's has every image at weight 1, those of a refused source too, as that arm does."""
    plan = planned(50_000, {"a": source(100_000, 1.0), "b": source(100_000, 0.5), "noise": NOISE})
    found = {one.name: one for one in settings_around(plan, DEFAULT)}
    assert found["double-weight"].weights == found["prior"].weights == {"a": 1, "b": 0.5}
    assert found["double-weight"].real_weight == 2 * found["prior"].real_weight
    assert found["none"].weights == {}
    assert found["vanilla"].weights == {"a": 1, "b": 1, "noise": 1}


def test_what_if_values_can_name_their_source() -> None:
    inputs = parse_what_if("real=9,generated/a=5,fid/a=3,generated/b=7", None)
    assert inputs.sources == {
        "generated/a": SourceStats(images=5, measured=Measured(fid=3)),
        "generated/b": SourceStats(images=7),
    }
    assert parse_what_if("fid/b=4", inputs).sources["generated/b"] == SourceStats(images=7, measured=Measured(fid=4))
