"""``adainf plan --what-if``: a plan for hypothetical inputs, as text and as JSON."""

from __future__ import annotations

import json

import pytest

from adainf.augment.profiles import default_views
from adainf.errors import BadInput
from adainf.inflation.policy import make_plan
from adainf.inflation.quality_score import Measured
from adainf.inflation.record import Inputs, SourceStats
from adainf.inflation.what_if import COUNTS, PER_SOURCE, parse_what_if
from adainf.recipe import Augmentation, Plan
from tests.tiny import adainf


def test_the_papers_numbers_give_the_papers_recipe() -> None:
    """Figure 2 and the reference implementation: N = 10, real share 1/3; 341 and 34 passes in 100,000 steps of 512."""
    answer = adainf("plan", "--what-if", "real=50000,generated=1000000,fid=1.94", "--json")
    assert answer.returncode == 0, answer.stderr
    plan = json.loads(answer.stdout)
    assert plan["sources"]["generated"]["replication_of_real"] == 10
    assert plan["real_share"] == pytest.approx(1 / 3, abs=1e-6)
    assert plan["augmentation"] == {
        "profile": "symmetric",
        "crop_min_scale": 0.2,
        "jitter_strength": 0.4,
        "jitter_probability": 0.4,
    }
    assert set(plan["basis"].values()) == {"paper"}
    assert plan["warnings"] == []
    assert plan["verify"] is None
    assert plan["sources"]["real"]["passes"] == pytest.approx(341.3, abs=0.1)
    assert plan["sources"]["generated"]["passes"] == pytest.approx(34.1, abs=0.1)


def test_values_of_a_run_are_kept_unless_replaced() -> None:
    source = SourceStats(images=9, measured=Measured(coverage=0.5, coverage_null=0.9))
    known = Inputs(real_images=7, sources={"generated": source}, reference_images=3)
    more = {"generated": source.model_copy(update={"images": 11})}
    assert parse_what_if("generated=11", known, 3) == known.model_copy(update={"sources": more})
    assert parse_what_if("real=1,generated=2", None, 3).reference_images == 3
    assert parse_what_if("real=1,generated=2,reference=4", None, 3).reference_images == 4, "an explicit value wins"
    better = parse_what_if("coverage=0.8,coverage_null=0.9", known).sources["generated"].measured
    assert better == Measured(coverage=0.8, coverage_null=0.9)


def test_without_a_reference_in_the_recipe_it_is_the_number_of_real_images() -> None:
    known = Inputs(real_images=7, sources={"generated": SourceStats(images=9)}, reference_images=7)
    assert parse_what_if("real=20", known).reference_images == 20
    assert parse_what_if("real=20,reference=5", known).reference_images == 5


CHANGES = {
    "real": "real=600",
    "reference": "reference=20000",
    "generated": "generated=4000",
    "coverage": "coverage=0.5",
    "coverage_null": "coverage_null=0.97",
    "tv": "tv=0.4",
    "tv_null": "tv_null=0.05",
    "copy_rate": "copy_rate=0.2",
    "duplicate_rate": "duplicate_rate=0.3",
    "contamination": "contamination=0.1",
    "authpct": "authpct=20",
    "authpct_null": "authpct_null=70",
    "fid": "fid=30",
}


@pytest.mark.parametrize("key", [*COUNTS, *PER_SOURCE])
def test_every_key_changes_the_plan(key: str) -> None:
    """An accepted value without effect misleads."""
    measured = Measured(
        coverage=0.8,
        coverage_null=0.95,
        total_variation=0.2 if key.startswith("tv") else 0.0,
        total_variation_null=0.0,
        authenticity_pct=50,
        authenticity_pct_null=52,
    )
    if key == "fid":
        measured = Measured(fid=5)
    known = Inputs(real_images=500, sources={"generated": SourceStats(images=9000, measured=measured)}, reference_images=500)
    default = default_views(Augmentation())
    before, after = (make_plan(inputs, Plan(), default) for inputs in (known, parse_what_if(CHANGES[key], known)))
    assert (before.real_weight, before.generated_share, before.views) != (
        after.real_weight,
        after.generated_share,
        after.views,
    )


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("real=5", "generated is missing"),
        ("", "invalid '': expected one of"),
        ("real=0,generated=1", "invalid real='0'"),
        ("real=1e3.5,generated=1", "invalid real='1e3.5'"),
        ("real=1,generated=1,fid=nan", "invalid fid='nan'"),
        ("real=1,generated=1,fid=-2", "invalid fid='-2'"),
        ("real=1,generated=1,coverage=0.5", "coverage needs coverage_null"),
        ("real=1,generated=1,tv_null=0.5", "tv needs tv_null"),
        ("real=1,generated=1,coverage=0.5,coverage_null=0.9,fid=3", "fid has no effect where coverage or tv is known"),
        ("real=1,generated=1,fd=2.1", "does not map to a quality score"),
        ("real=1,generated=1,quality", "invalid 'quality': expected one of"),
    ],
)
def test_invalid_input_is_reported(text: str, named: str) -> None:
    with pytest.raises(BadInput, match=named):
        parse_what_if(text, None)


def test_an_fid_is_refused_for_a_run_with_a_better_measurement() -> None:
    measured = Measured(total_variation=0.1, total_variation_null=0.0, fid=5)
    known = Inputs(real_images=500, sources={"generated": SourceStats(images=9000, measured=measured)}, reference_images=500)
    assert parse_what_if("generated=10", known).sources["generated"].measured == measured
    with pytest.raises(BadInput, match="fid has no effect"):
        parse_what_if("fid=30", known)
