"""The plots and the sample grids."""

from __future__ import annotations

import io
from collections.abc import Callable
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from PIL import Image

from adainf.evaluation.accuracy import Accuracy
from adainf.pipeline.artifacts import Run
from adainf.recipe import Recipe
from adainf.report.figures import accuracy, crop_policy, generator_curve, loss_curves
from adainf.report.grids import first_images, grid_png
from adainf.report.summary import Row, collect
from adainf.shards.format.folder import ShardFolder
from tests.report.synthetic_run import Made

Build = Callable[..., tuple[Recipe, Run]]


def test_grids_read_only_the_shards_that_they_show(build: Build) -> None:
    recipe, run = build(Made(images=100, shard_images=40))
    run.store.delete("real/train-000002.tar")
    images = first_images(ShardFolder.of(run, "real", collect(recipe, run).manifests["real"]))
    assert len(images) == 64
    assert len(first_images(ShardFolder.of(run, "real", collect(recipe, run).manifests["real"]), count=41)) == 41


@pytest.mark.parametrize(("px", "tile"), [(8, 48), (28, 56), (32, 64), (64, 64), (400, 96)])
def test_grid_enlarges_by_integer_factors(px: int, tile: int) -> None:
    images = [np.full((px, px, 3), shade, np.uint8) for shade in range(10)]
    png = grid_png(images)
    assert png is not None
    sheet = np.asarray(Image.open(io.BytesIO(png)))
    assert sheet.shape == (2 * tile + 4, 8 * tile + 7 * 4, 4)
    assert sheet[0, tile + 4, 0] == 1
    assert sheet[tile + 4, 0, 0] == 8
    assert sheet[0, tile, 3] == 0  # gaps are transparent, for the dark page
    assert sheet[-1, -1, 3] == 0  # the rest of the last row is transparent, too
    assert grid_png(images) == png
    assert grid_png([]) is None


def test_figures_are_well_formed_and_themed(build: Build) -> None:
    recipe, run = build()
    summary = collect(recipe, run)
    assert summary.plan is not None
    (fitted,) = (one.fitted for one in summary.sources)
    assert fitted is not None
    plots = [
        accuracy(summary.rows, summary.test_images),
        loss_curves({arm: [one.curve for one in trained] for arm, trained in summary.trained.items()}),
        generator_curve(fitted.curve),
        crop_policy(summary.plan, recipe),
    ]
    for svg in plots:
        assert svg is not None
        ElementTree.fromstring(svg.replace("xlink:href", "href"))
        assert "var(--" in svg
        assert "DejaVu" not in svg
    assert "untrained 80.0" in (plots[0] or "")
    assert "chance 10.0" in (plots[0] or "")


def test_plots_ignore_the_users_matplotlib_settings() -> None:
    plain = generator_curve([(1, 0.5), (2, 0.4)])
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "xtick.direction": "in", "figure.dpi": 300}):
        assert generator_curve([(1, 0.5), (2, 0.4)]) == plain


def test_accuracy_plot_draws_chance_where_it_is_on_the_axis() -> None:
    def constant(value: float) -> Accuracy:
        return Accuracy((value,))

    rows = [Row("none", constant(0.52), None, None, None), Row("chance", constant(0.50), constant(0.50), None, None)]
    svg = accuracy(rows, 100) or ""
    assert "chance 50.0" in svg
    assert "←" not in svg


def test_figures_without_points_are_omitted() -> None:
    assert loss_curves({"none": [[]]}) is None
    assert generator_curve([]) is None
    assert accuracy([], 10) is None
    assert (generator_curve([(1, 0.5)]) or "").count("<use") > 0  # one point is drawn as a dot


@pytest.mark.parametrize("rule", ["recipe", "crop_only"])
def test_policy_plot_of_every_rule_and_size(build: Build, rule: str) -> None:
    recipe, run = build(Made(plan={"augmentation_rule": rule}))
    plan = collect(recipe, run).plan
    assert plan is not None
    assert ("crop only" in crop_policy(plan, recipe)) == (rule == "recipe")
