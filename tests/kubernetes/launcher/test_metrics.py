"""/metrics is valid Prometheus text and follows its naming rules."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from adainf.kubernetes.launcher.watch import Progress

LABEL = 'pretrain "none" \\ é\n(seed 0)'
VALUES = {"loss": 5.25, "images_per_s": 1040.0, "data_wait_pct": 3.0, "memory_gib": 1.5, "rank_me": 44.5}


def families(folder: Path, **changes: object) -> dict[str, Metric]:
    written = {"stage": "pretrain", "label": LABEL, "done": 30, "total": 150, "rate": 2.5, "values": VALUES, "updated": 1.7e9}
    (folder / "progress.json").write_text(json.dumps({**written, **changes}))
    text = Progress("pretrain", folder / "progress.json").metrics()
    found = list(text_string_to_metric_families(text))
    assert len({family.name for family in found}) == len(found)
    return {family.name: family for family in found}


def test_values_are_in_base_units(tmp_path: Path) -> None:
    found = families(tmp_path)
    values = {name: family.samples[0].value for name, family in found.items()}
    assert values == {
        "adainf_stage_items_done": 30,
        "adainf_stage_items": 150,
        "adainf_stage_items_per_second": 2.5,
        "adainf_stage_remaining_seconds": 48,
        "adainf_stage_last_update_timestamp_seconds": 1.7e9,
        "adainf_stage_loss": 5.25,
        "adainf_stage_images_per_second": 1040,
        "adainf_stage_data_wait_ratio": pytest.approx(0.03),
        "adainf_stage_memory_bytes": 1.5 * 2**30,
        "adainf_stage_rank_me": 44.5,
    }


def test_each_metric_is_one_gauge_with_help_and_type(tmp_path: Path) -> None:
    """https://prometheus.io/docs/practices/naming"""
    for name, family in families(tmp_path).items():
        assert family.type == "gauge"
        assert family.documentation.endswith(".")
        (sample,) = family.samples
        assert sample.name == name
        assert re.fullmatch("[a-z][a-z0-9_]*", name)
        assert not re.search("_(total|count|sum|bucket|s|ms|pct|percent|[kmg]i?b)$", name)
        assert sample.labels == {"stage": "pretrain", "loop": LABEL}, "labels are escaped"


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    found = families(tmp_path, rate=0.0, values={"loss": float("nan"), "norm": float("inf")})
    assert math.isnan(found["adainf_stage_loss"].samples[0].value)
    assert found["adainf_stage_norm"].samples[0].value == math.inf
    assert "adainf_stage_remaining_seconds" not in found, "the estimate needs a rate"


def test_without_progress_there_are_no_metrics(tmp_path: Path) -> None:
    """As on all nodes of a gang but the first."""
    progress = Progress("fit", tmp_path / "progress.json")
    assert progress.metrics() == ""
    assert progress.now()["done"] is None
