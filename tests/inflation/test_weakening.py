"""Views that weaken with the images seen: the plan's curve, from the default's to the plan's and never back."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adainf.augment.profiles import Views, default_views
from adainf.inflation.explain import lines
from adainf.inflation.policy import make_plan
from adainf.inflation.record import InflationPlan, Inputs, Source
from adainf.inflation.weakening import draws_until_all_seen, views_when_seen
from adainf.inflation.worth import Measured
from adainf.recipe import Augmentation, Plan
from adainf.shards.schedule import MixtureSchedule

DEFAULT = default_views(Augmentation())
SEEN, CROP = Plan(schedule="seen"), Plan(schedule="seen", augmentation_rule="crop_only")
COUNTS = st.integers(1, 3_000_000)


def planned(real: int, generated: int, rule: Plan = SEEN, fid: float = 1.94) -> InflationPlan:
    sources = {"generated": Source(images=generated, measured=Measured(fid=fid))}
    return make_plan(Inputs(real_images=real, sources=sources), rule, DEFAULT)


def views(plan: InflationPlan, real: int, generated: int, rule: Plan = SEEN) -> Views:
    return views_when_seen(plan, rule, DEFAULT, (real, generated))


@pytest.mark.parametrize(("generated", "scale"), [(0, 0.08), (100_000, 0.20), (1_000_000, 0.30)])
def test_on_the_way_it_passes_the_papers_points(generated: int, scale: float) -> None:
    """50,000, 150,000 and 1,050,000 images seen of as many that are there."""
    assert views(planned(50_000, 1_000_000, CROP), 50_000, generated, CROP)[0].min_scale == scale


def test_a_generated_image_counts_by_its_quality() -> None:
    """Would catch images that count in full: of FID 3.88 two are worth one."""
    assert views(planned(50_000, 1_000_000, CROP, fid=3.88), 50_000, 200_000, CROP)[0].min_scale == 0.20


def test_jitter_weakens_with_the_crop() -> None:
    found = views(planned(50_000, 1_000_000), 50_000, 36_600)[0]
    assert found.min_scale == pytest.approx(0.14, abs=0.001)
    assert found.jitter_probability == pytest.approx(0.8 * 0.75, abs=0.005)
    assert found.brightness == pytest.approx(0.8 * 0.75, abs=0.005)


def test_of_several_sources_each_counts_by_its_own_quality() -> None:
    """Would catch counts of one source by another's worth: 100,000 of FID 1.94 weigh as 200,000 of FID 3.88."""
    sources = {
        f"generated/{name}": Source(images=500_000, measured=Measured(fid=fid)) for name, fid in [("b", 1.94), ("a", 3.88)]
    }
    plan = make_plan(Inputs(real_images=50_000, sources=sources), CROP, DEFAULT)
    scales = [views_when_seen(plan, CROP, DEFAULT, seen)[0].min_scale for seen in [(50_000, 200_000, 0), (50_000, 0, 100_000)]]
    assert scales == [0.20, 0.20]


@given(
    real=COUNTS,
    generated=COUNTS,
    parts=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=2),
    fid=st.floats(1, 90),
    rule=st.sampled_from([SEEN, CROP]),
)
def test_it_begins_at_the_default_never_strengthens_and_ends_at_the_plan(
    real: int, generated: int, parts: list[tuple[float, float]], fid: float, rule: Plan
) -> None:
    plan = planned(real, generated, rule, fid)
    few = [min(part[0] for part in parts), min(part[1] for part in parts)]
    more = [max(part[0] for part in parts), max(part[1] for part in parts)]
    seen = [(0, 0), *((int(one * real), int(other * generated)) for one, other in (few, more)), (real, generated)]
    found = [views(plan, *each, rule) for each in seen]
    strongest = DEFAULT if plan.views[0].min_scale >= DEFAULT[0].min_scale else plan.views
    assert found[0] == strongest
    assert found[-1] == plan.views
    for before, after in pairwise(found):
        assert before[0].min_scale <= after[0].min_scale
        assert before[0].jitter_probability >= after[0].jitter_probability
        assert before[1].hue >= after[1].hue


def test_it_ends_when_the_stream_has_brought_every_image() -> None:
    plan = planned(500, 3_000)
    stream = MixtureSchedule([500, 3_000], [plan.real_weight, 1.0], seed=0)
    until = draws_until_all_seen(plan)
    assert stream.seen(round(until * 1.001)) == [500, 3_000]
    assert stream.seen(round(until * 0.999)) != [500, 3_000]


def test_the_plan_says_after_how_many_draws() -> None:
    """Of the paper's 100,000 steps of 512 images."""
    assert any("all after 1,500,000 of 51,200,000 draws" in line for line in lines(planned(50_000, 1_000_000), 51_200_000))
    assert not any("weaken from" in line for line in lines(planned(50_000, 1_000_000, Plan()), 51_200_000))


def test_images_that_are_refused_weaken_nothing() -> None:
    refused = planned(50_000, 1_000_000, fid=200)
    assert (refused.schedule, refused.views) == ("constant", DEFAULT)
