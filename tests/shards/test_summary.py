"""The data summary: what it prints, and that sets with and without it are the same set."""

from __future__ import annotations

from adainf.shards.format.manifest import ShardSet
from adainf.shards.format.summary import DataSummary, Findings, Skipped, SplitSummary, skip


def summary() -> DataSummary:
    skipped: dict[str, Skipped] = {}
    for name in ("a/1.heic", "a/2.heic"):
        skip(skipped, "suffix .heic", name)
    skip(skipped, "hidden", ".\x1b[2J")
    findings = Findings(layout="train/CLASS, val/CLASS", skipped=skipped, unused=["width"], notes=["Look here."])
    splits = {"test": SplitSummary(images=1, labelled=0), "train": SplitSummary(images=1200, labelled=1199, captioned=3)}
    return DataSummary.of(findings, splits, list("abcdefg"), {(4, 6): 1200, (5, 5): 1}, {"L": 1, "RGB": 1200})


def test_two_lines_state_what_was_understood_and_what_was_left_out() -> None:
    assert summary().lines("ingest") == [
        "ingest: understood train/CLASS, val/CLASS: train 1,200 images (1,199 labelled, 3 with captions), test 1 image (no "
        "labels); 7 classes (a, b, c, d, e, …); 4 x 6 (1,200), 5 x 5 (1) px; RGB (1,200), L (1)",
        "ingest: left out 1 hidden file (.�[2J), 2 .heic files (a/1.heic); unused fields: width",
        "ingest: Look here.",
    ]


def test_one_line_where_nothing_was_left_out() -> None:
    made = DataSummary.of(Findings(), {"train": SplitSummary(images=2, labelled=2)}, ["cat"], {(4, 4): 2}, {"RGB": 2})
    assert made.lines("index") == ["index: train 2 images (labelled); 1 class (cat); 4 x 4 px; RGB"]


def test_a_set_of_an_older_version_has_no_summary_and_is_the_same_set() -> None:
    old = ShardSet(height_px=4, width_px=4, splits={})
    new = old.model_copy(update={"summary": summary()})
    assert "summary" not in old.model_dump(mode="json")
    assert b"summary" not in old.to_json()
    assert ShardSet.model_validate(old.model_dump(mode="json")) == old
    assert ShardSet.model_validate(new.model_dump(mode="json")) == new
    assert old.has_same_images(new)
    assert not old.has_same_images(new.model_copy(update={"height_px": 5}))
