"""The report page and the report stage, on small synthetic runs."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Callable
from html import unescape
from importlib.resources import files
from pathlib import Path
from statistics import fmean
from typing import get_args

import pytest
from PIL import Image
from rich.console import Console
from scipy.stats import binomtest

from adainf.browse.overview import Overview
from adainf.errors import BadInput
from adainf.evaluation.accuracy import amount, digits_for, percent
from adainf.pipeline.artifacts import Run
from adainf.pipeline.graph import UNTRAINED
from adainf.pipeline.progress import Reporter
from adainf.recipe import Arm, Published, Recipe
from adainf.report.figures import ARM_COLOURS
from adainf.report.measures import measure_rows
from adainf.report.summary import collect
from adainf.report.table import cells, results_table, signed
from adainf.stages.report import PAGE, report
from tests.report.synthetic_run import BY_SPACE, IMPORT, PIXELS, Made

Build = Callable[..., tuple[Recipe, Run]]
SCRIPT = "<script>alert(1)</script>"


def page_of(recipe: Recipe, run: Run) -> str:
    report(recipe, run, Reporter(None))
    return run.store.get(PAGE).decode()


def table_text(recipe: Recipe, run: Run) -> str:
    written = io.StringIO()
    Console(file=written, width=80).print(results_table(collect(recipe, run)))
    return written.getvalue()


def corrupt_page(run: Run, corrupt: bytes | None) -> None:
    """Delete the page, or overwrite it."""
    if corrupt is None:
        run.store.delete(PAGE)
    else:
        run.store.put(PAGE, corrupt)


def seeds(*, win: bool = True) -> Made:
    adainf = [0.95, 0.96, 0.97] if win else [0.80, 0.81, 0.82]
    return Made(linear={"none": [0.90, 0.91, 0.92], "vanilla": [0.88, 0.89, 0.90], "adainf": adainf, "untrained": [0.5] * 3})


@pytest.mark.heavy
def test_same_artifacts_same_bytes_wherever_the_run_lies(build: Build, tmp_path: Path) -> None:
    recipe, run = build(seeds())
    shutil.copytree(tmp_path / "run", tmp_path / "elsewhere" / "copy")
    again = Run(str(tmp_path / "elsewhere" / "copy"))
    assert page_of(recipe, run) == page_of(recipe, again)
    assert run.find("report") == again.find("report")
    assert str(tmp_path) not in page_of(recipe, run)
    assert "/data/of/this/machine.npz" not in page_of(recipe, run)


def test_finished_report_is_skipped_and_still_shown(build: Build, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, run = build()
    first = report(recipe, run, Reporter(None))
    capsys.readouterr()
    assert report(recipe, run, Reporter(None)) == first
    printed = capsys.readouterr().out
    assert "report: done already (same recipe and inputs); skipped" in printed
    assert "vanilla" in printed
    assert "adainf significantly outperforms every control" in printed
    assert printed.endswith(f"report: {run.locate('report/index.html')}\n")


@pytest.mark.heavy
@pytest.mark.parametrize("corrupt", [None, b"<p>edited</p>"], ids=["deleted", "overwritten"])
def test_lost_page_of_a_finished_report_is_made_again(
    build: Build, capsys: pytest.CaptureFixture[str], corrupt: bytes | None
) -> None:
    recipe, run = build()
    first = report(recipe, run, Reporter(None))
    page = run.store.get(PAGE)
    corrupt_page(run, corrupt)
    assert report(recipe, run, Reporter(None)) == first
    assert run.store.get(PAGE) == page
    assert "its page was missing or corrupt; recreated" in capsys.readouterr().out


@pytest.mark.heavy
@pytest.mark.parametrize("corrupt", [None, b"<p>edited</p>"], ids=["deleted", "overwritten"])
def test_lost_page_that_would_be_recreated_differently_is_refused(
    build: Build, monkeypatch: pytest.MonkeyPatch, corrupt: bytes | None
) -> None:
    recipe, run = build()
    report(recipe, run, Reporter(None))
    corrupt_page(run, corrupt)
    monkeypatch.setattr("adainf.report.html.__version__", "another")
    with pytest.raises(
        BadInput, match=r"a new page differs from the one in its manifest .*; delete .*/report/ and run `adainf report`"
    ):
        report(recipe, run, Reporter(None))
    assert (run.store.get(PAGE) if run.store.head(PAGE) else None) == corrupt, "nothing is put that the manifest does not name"


def test_another_recipe_is_refused(build: Build) -> None:
    recipe, run = build()
    report(recipe, run, Reporter(None))
    other = recipe.model_copy(update={"cpu_threads": 1})
    with pytest.raises(BadInput, match=r"settings\.recipe\.cpu_threads"):
        report(other, run, Reporter(None))


@pytest.mark.heavy
def test_a_report_is_replaced_by_one_of_more_arms_and_not_back(build: Build) -> None:
    """Would catch a report that rejects an added arm, and a recipe of fewer arms that replaces the report."""
    fewer = {arm: of for arm, of in seeds().linear.items() if arm != "adainf"}
    recipe, run = build(Made(linear=fewer))
    before = page_of(recipe, run)
    more, _ = build(seeds())
    run.store.put(PAGE, b"of an attempt that was killed before its commit")
    assert page_of(recipe, run) == before
    page = page_of(more, run)
    assert "adainf significantly outperforms every control" in page
    with pytest.raises(BadInput, match=r"report/ was written by another recipe"):
        report(recipe, run, Reporter(None))
    assert page_of(more, run) == page


def test_settings_that_change_no_artifact_do_not_change_the_report(build: Build) -> None:
    recipe, run = build()
    first = report(recipe, run, Reporter(None))
    pretrain = recipe.pretrain.model_copy(update={"checkpoint_every_steps": 7})
    real = recipe.real.model_copy(update={"path": "/now/here.npz"})
    assert report(recipe.model_copy(update={"pretrain": pretrain, "real": real}), run, Reporter(None)) == first


def test_manifest_holds_the_rows(build: Build) -> None:
    recipe, run = build(seeds())
    content = report(recipe, run, Reporter(None)).content
    rows = {row["name"]: row for row in json.loads(json.dumps(content))["rows"]}
    assert list(rows) == ["none", "vanilla", "adainf", "untrained", "chance"]
    half = 4.303 * 0.01 / 3**0.5  # Student's t for two degrees of freedom
    assert rows["adainf"]["linear"].pop("interval") == [round(0.96 - half, 6), round(0.96 + half, 6)]
    assert rows["adainf"]["linear"] == {"mean": 0.96, "deviation": 0.01}
    assert rows["adainf"]["difference_to_none"] == 0.05
    low, high = binomtest(40, 400).proportion_ci(method="wilson")
    assert rows["chance"]["linear"].pop("interval") == [round(low, 6), round(high, 6)]
    assert rows["chance"]["linear"] == {"mean": 0.1, "deviation": None}
    assert content["outcome"] == "win"


@pytest.mark.heavy
def test_the_page_has_every_measure_with_its_interval(build: Build) -> None:
    """Sorted by measure, with the values of each arm, and the interval that applies to the number of seeds."""
    _, page = page_of(*build(seeds())).split("<summary>All measures")
    lines = re.findall(r'<span class="dot (\w+)">\1</span></th><td>([^<]*)</td><td>([\d.]+)</td><td>([^<]*)</td>', page)
    assert [line[:2] for line in lines[:5]] == [
        *((arm, "linear probe, lbfgs") for arm in ("none", "vanilla", "adainf", "untrained")),
        ("none", "kNN, k = 20"),
    ]
    assert lines[2][2:] == ("96.0", "93.5 to 98.5")
    assert "Student" in page
    assert "Wilson" in page_of(*build(folder="one"))


def test_overfitting_is_shown_beside_the_untrained_encoder(build: Build) -> None:
    """Would catch swapped sides, and an interval that more seeds narrow although they share the images."""
    recipe, run = build(seeds())
    rows = {row["name"]: row["infonce"] for row in report(recipe, run, Reporter(None)).content["rows"]}
    assert rows["adainf"] == {"images": 64, "train": 3.0, "held_out": 3.46, "gap": 0.46, "interval": [0.41, 0.51]}
    assert rows["untrained"]["gap"] == 0
    assert rows["chance"] is None
    _, section = page_of(recipe, run).split("<h3>Overfitting")
    lines = re.findall(r'<span class="dot (\w+)">\1</span></th><td>(.*?)</td></tr>', section)[:4]
    assert [arm for arm, _ in lines] == ["none", "vanilla", "adainf", "untrained"]
    assert lines[2][1].split("</td><td>") == ["3.000", "3.460", "+0.460", "+0.410 to +0.510"]
    assert lines[3][1].endswith("<td>−0.050 to +0.050")


def test_seeds_that_differ_more_than_images_widen_the_interval(build: Build) -> None:
    apart = Made(linear={arm: [0.8, 0.9] for arm in ("none", "vanilla", "adainf", "untrained")})
    row = report(*build(apart), Reporter(None)).content["rows"][0]["infonce"]
    half = 12.706 * 0.05  # Student's t for one degree of freedom, times the standard error of two seeds
    assert row["interval"] == pytest.approx([0.35 - half, 0.35 + half], abs=1e-6)


def test_page_loads_nothing_from_other_hosts_and_runs_no_script(build: Build) -> None:
    page = page_of(*build(seeds()))
    assert "<script" not in page
    assert "@import" not in page
    assert '<link rel="icon" href="data:,">' in page
    loads = re.findall(r"(?:src|href|xlink:href)\s*=\s*\"([^\"]*)\"", page) + re.findall(r"url\(([^)]*)\)", page)
    assert loads
    assert all(load.startswith(("data:", "#")) for load in loads)
    assert "http" not in page


@pytest.mark.heavy
def test_ids_are_unique_and_every_reference_has_one(build: Build) -> None:
    page = page_of(*build(seeds()))
    ids = re.findall(r"\bid=\"([^\"]+)\"", page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"(?:url\(|href=\")#([\w-]+)", page)) <= set(ids)


def test_hostile_names_are_escaped(build: Build) -> None:
    provenance = {**IMPORT["provenance"], "generator": SCRIPT, "source": f'"><img src=x onerror=1>{SCRIPT}'}
    page = page_of(*build(Made(generator={**IMPORT, "provenance": provenance}, classes=[SCRIPT, "</style>"])))
    assert "<script" not in page
    assert "<img src=x" not in page
    assert page.count("</style>") == 1
    assert "&lt;script&gt;" in page


@pytest.mark.heavy
def test_labels_behind_the_generated_images_give_a_warning(build: Build) -> None:
    used = {**IMPORT, "provenance": {**IMPORT["provenance"], "used_labels": True}}
    assert "Labels were used for the generated images." in page_of(*build(Made(generator=used), "used"))
    imported = page_of(*build(Made(generator=IMPORT), "not-used"))
    assert "Labels were used" not in imported
    assert "Fit of the generator." not in imported
    assert "CIFAR-10 train" in imported


def test_conclusion_of_a_run_without_a_win(build: Build) -> None:
    page = page_of(*build(seeds(win=False)))
    assert (
        "adainf does not significantly outperform every control: 81.0 % linear-probe accuracy, 10.0 points below none" in page
    )
    assert 'class="conclusion no-win"' in page
    assert "4.30 standard errors (Student&#39;s t) of the difference paired by seed over 3 seeds" in page
    assert "paired by image over 400 test images, which all seeds share, and" in page


def test_quality_is_shown_beside_that_of_real_images(build: Build) -> None:
    page = page_of(*build())
    section = page[page.index("<h2>Quality of the generated images</h2>") : page.index("<h2>Inflation plan</h2>")]
    assert "64 generated images compared with as many images of the validation split" in section
    assert "<strong>Warning.</strong> Generated images are made up." in section
    found = re.findall(r'<tr><th scope="row">(\w+)</th>(.*?)<td class="text">', section)
    pair, as_real = "<td>0.25</td><td>0.75</td>", "<td>0.75</td><td>0.75</td>"
    kernel = "<td>−0.5<br><small>−0.6 to 0.1</small></td><td>0.75</td>"
    assert dict(found) == {
        **{metric: 2 * (kernel if metric == "kd" else pair) for metric in BY_SPACE},
        "coverage": pair + as_real,
        **dict.fromkeys(PIXELS, pair),
        "held_out_copied": "<td>0</td><td>0</td>",
        "authenticity_pixels": as_real,
    }
    assert (
        "(rand), which is more sensitive to noise and texture than to content, 128 dimensions, and of this run's"
        in unescape(section)
    )
    assert "(ssl), 512 dimensions." in section
    assert "By shard (2 shards), coverage_ssl is 0.5 to 1.5 and fd_ssl 0.5 to 1.5." in section
    sheets = [Image.open(io.BytesIO(base64.b64decode(png))) for png in re.findall(r"data:image/png;base64,([^\"]+)", section)]
    assert [sheet.size for sheet in sheets] == [(8 * 48 + 7 * 4, 2 * 48 + 4)] * 2, "8 pairs, one above the other"


def test_quality_that_was_not_measured_is_not_shown(build: Build) -> None:
    recipe, run = build(Made(quality=None))
    assert "assumed, not measured" in page_of(recipe, run)
    assert "Quality of the generated images" not in page_of(recipe, run)


def test_paths_of_weights_are_not_shown(build: Build) -> None:
    page = page_of(*build(Made(quality={"inception": {"weights": "/data/of/this/machine.pth", "sha256": "ab" * 32}})))
    assert "/data/of/this/machine.pth" not in page
    assert "weights: PATH" in page


def test_a_lost_sheet_of_images_is_named(build: Build) -> None:
    recipe, run = build()
    run.store.delete("quality/worst.png")
    with pytest.raises(BadInput, match=r"quality/worst\.png is listed in its manifest but missing"):
        report(recipe, run, Reporter(None))


def test_many_classes_are_truncated(build: Build) -> None:
    page = page_of(*build(Made(classes=[f"class {number}" for number in range(200)])))
    assert "class 29 and 170 more" in page
    assert "class 30" not in page


def test_plan_is_explained(build: Build) -> None:
    recipe, run = build()
    page = page_of(recipe, run)
    summary = collect(recipe, run)
    assert summary.plan is not None
    for choice in summary.plan.choices:
        assert choice.name in page
    assert '<span class="badge prior">our prior</span>' in page
    assert "paper&#39;s point</span>" not in page, "a plan for 80 real images rests on none"
    assert "assumed, not measured" not in page, "quality was measured"
    assert "every number is a prior." in page
    assert summary.manifests["plan"].digest in page


@pytest.mark.heavy
def test_views_that_differ_have_a_row_each(build: Build) -> None:
    assert "both views" in page_of(*build(Made(), "symmetric"))
    page = page_of(*build(Made(augmentation={"family": "asymmetric"}), "asymmetric"))
    assert "both views" not in page
    assert "view 2" in page


def test_only_real_images(build: Build) -> None:
    page = page_of(*build(Made(linear={"none": [0.9], "untrained": [0.5]})))
    assert "Only none was trained: 90.0 % linear-probe accuracy" in page
    assert page.count("<img") == 1
    assert "Inflation plan" not in page


def test_without_labels(build: Build) -> None:
    recipe, run = build(Made(labelled=False))
    page = page_of(recipe, run)
    assert "The data have no labels, so no probe was trained" in page
    assert "Dot plot" not in page
    text = table_text(recipe, run)
    assert "no labels, so no probe" in text
    assert "chance" not in text


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (Made(test_images=0), "no labelled test images"),
        (Made(one_class=True), "fewer than two labelled classes to train on"),
    ],
)
def test_labels_that_allow_no_probe_are_not_called_missing(build: Build, made: Made, reason: str) -> None:
    recipe, run = build(made)
    page = page_of(recipe, run)
    assert f"<strong>The data have {reason}, so no probe was trained: this run does not rank the arms.</strong>" in page
    assert f'<p class="lead">The data have {reason}, so no probe was trained: the encoders exist' in page
    assert "have no labels" not in page
    assert "Dot plot" not in page
    text = table_text(recipe, run)
    assert f"toy: {reason}, so no probe" in text
    assert "chance" not in text


def test_table_on_a_terminal_of_80_columns(build: Build) -> None:
    text = table_text(*build(seeds()))
    assert "…" not in text
    assert re.search(r"adainf +96\.0 ± 1\.0 +93\.0 ± 1\.0 +\+5\.0 +10 +9 % +41\.6", text)
    assert re.search(r"vanilla +89\.0 ± 1\.0 +86\.0 ± 1\.0 +−2\.0 +1 +50 % +22\.9", text)
    assert re.search(r"none +91\.0 ± 1\.0 +88\.0 ± 1\.0 +– +– +0 % +45\.7", text)
    assert re.search(r"chance +10\.0 +10\.0", text)
    one_seed = table_text(*build(Made(), "one"))
    assert "±" not in one_seed
    assert "one seed" in one_seed


def test_numbers_of_the_table() -> None:
    assert (amount(0.5234), amount(39.64), amount(1024.2)) == ("0.523", "39.6", "1,024")
    assert (signed(-0.021, 1), signed(0.0, 1), signed(-0.0001, 1)) == ("−2.1", "0.0", "0.0")


@pytest.mark.parametrize(
    ("missing", "command"),
    [
        ("real/manifest.json", "ingest RECIPE"),
        ("generator/manifest.json", "fit RECIPE"),
        ("generated/manifest.json", "generate RECIPE"),
        ("quality/manifest.json", "measure RECIPE"),
        ("plan.json", "plan RECIPE"),
        ("pretrain/vanilla/seed-0/manifest.json", "pretrain RECIPE --arm vanilla"),
        ("evaluate/adainf.json", "evaluate RECIPE --arm adainf"),
        ("evaluate/untrained.json", "evaluate RECIPE --arm untrained"),
    ],
)
def test_missing_artifact_names_the_command(build: Build, missing: str, command: str) -> None:
    recipe, run = build()
    run.store.delete(missing)
    with pytest.raises(BadInput, match=f"{missing} is missing: run `adainf {command}`"):
        report(recipe, run, Reporter(None))
    assert run.store.head("report/request.json") is None


def test_corrupt_shard_is_refused_and_nothing_is_committed(build: Build) -> None:
    recipe, run = build()
    run.store.put("generated/train-000000.tar", b"not what it was")
    with pytest.raises(BadInput, match=r"generated/train-000000\.tar does not match its manifest"):
        report(recipe, run, Reporter(None))
    assert run.find("report") is None


def test_a_generator_that_used_labels_gives_a_warning(build: Build) -> None:
    assert "Labels were used for the generated images." in page_of(*build(Made(fitted_with_labels=True)))


def test_published_accuracies_are_shown_and_missing_arms_are_empty(build: Build) -> None:
    """Would catch values of another arm, or fractions where the others are in percent."""
    recipe, run = build(seeds())
    published = Published(source="some <table>", linear_pct={"adainf": 93.42, "weak": 90.5})
    page = page_of(recipe.model_copy(update={"published": published}), run)
    section = page.partition("Comparison with published accuracies</h3>")[2].partition("</table>")[0]
    assert "Source: some &lt;table&gt;." in section
    cells = [re.sub(r"<[^>]*>", "|", row).strip("|\n ") for row in section.partition("<tbody>")[2].split("</tr>")[:2]]
    assert [re.split(r"\|+", row) for row in cells] == [["adainf", "96.0 ± 1.0", "93.42"], ["weak", "–", "90.5"]]


def test_page_terminal_and_browser_have_the_same_numbers(build: Build) -> None:
    """Cell by cell: kNN of 20 and of 200 neighbours, say, are two measures in all of them."""
    made = seeds()
    recipe, run = build(made)
    summary = collect(recipe, run)
    digits = digits_for(made.test_images)
    rows = measure_rows(summary.scores, digits)
    arms = {arm: shown for arm, shown in Overview(run).read()["arms"].items() if arm in recipe.arms}
    of_report = {(row.arm, row.title): row.accuracy for row in rows if row.arm in recipe.arms}
    of_browser = {
        (arm, title): percent(fmean(values), digits)
        for arm, shown in arms.items()
        for title, values in shown["accuracy"].items()
    }
    assert of_browser == of_report
    assert len(of_report) == 4 * len(recipe.arms)
    of_text = {(arm, title): text.split(" ± ")[0] for arm, shown in arms.items() for title, text in shown["text"].items()}
    assert of_text == of_report

    # The columns that all three have: linear probe, kNN, real weight, generated share, passes per real image.
    browser = {
        arm: [shown["text"]["linear probe, lbfgs"], shown["text"]["kNN, k = 20"], *shown["seeds"][0]["text"]]
        for arm, shown in arms.items()
    }
    written = io.StringIO()
    Console(width=200, file=written).print(results_table(summary))
    terminal = written.getvalue().splitlines()
    page = page_of(recipe, run).partition('scope="col">arm')[2].partition("<tbody>")[2].partition("</table>")[0]
    for row in summary.rows:
        expected = list(cells(row, digits))
        (line,) = (line for line in terminal if line.split()[:1] == [row.name])
        assert line.split() == " ".join(expected).split(), "terminal"
        (in_page,) = (part for part in page.split("<tr") if f"{row.name}<" in part)
        assert re.sub(r"(<[^>]*>|\s)+", " ", f"<{in_page}").split() == " ".join(expected).split(), "page"
        if row.name in browser:
            assert browser[row.name] == [*expected[1:3], *expected[4:]], "browser"


def test_report_and_browser_have_the_same_colours() -> None:
    """In both themes, and for every arm."""
    style = files("adainf.browse").joinpath("static/style.css").read_text(encoding="utf-8")
    report = files("adainf.report").joinpath("report.html").read_text(encoding="utf-8")
    found = re.findall(r"(--arm-[\w-]+): (#\w+)", report)
    assert re.findall(r"(--arm-[\w-]+): (#\w+)", style) == found
    assert dict(found[: len(ARM_COLOURS)]) == {f"--arm-{arm}": colour for arm, colour in ARM_COLOURS.items()}
    assert {*get_args(Arm), UNTRAINED} == set(ARM_COLOURS)
    script = files("adainf.browse").joinpath("static/charts.js").read_text(encoding="utf-8")
    for arm in ARM_COLOURS:
        assert f'"{arm}"' in script
        assert f".arm-{arm} {{ stroke: var(--arm-{arm});" in style
