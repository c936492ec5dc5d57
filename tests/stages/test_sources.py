"""Several sources in one run: a tiny diffusion model, good images, images whose later shards are noise, and noise alone.

The tests compare features only where the inputs differ by far: real digits, and uniform noise or images of an untrained model.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from sklearn.datasets import load_digits

from adainf.browse.catalog import Catalog
from adainf.browse.overview import Overview
from adainf.browse.quality import quality_of
from adainf.browse.statistics import quality_score, read_plan, source_weight
from adainf.errors import BadInput
from adainf.inflation.record import InflationPlan
from adainf.inflation.search import VerifyResult, settings_around
from adainf.kubernetes.controller.run_state import RunState
from adainf.pipeline.artifacts import Run
from adainf.pipeline.graph import build_graph, pretrained, tasks
from adainf.pipeline.lifecycle import artifact
from adainf.pipeline.load_recipe import load_recipe
from adainf.pipeline.progress import Reporter
from adainf.pretraining.loop import make_accelerator
from adainf.quality.record import Quality
from adainf.recipe import Recipe, Verify
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.manifest import ShardSet
from adainf.shards.loader.read_all import read_split
from adainf.stages.fit import fit
from adainf.stages.generate import generate
from adainf.stages.ingest import ingest
from adainf.stages.mixture import Mixture, planned_sources
from adainf.stages.plan import plan
from adainf.stages.pretrain import pretrain
from adainf.stages.regenerate import regenerate
from adainf.stages.run import run as run_chain
from adainf.stages.verify import probe_of
from tests.tiny import RECIPE, artifact_hashes, forge, write_recipe

QUIET = Reporter(quiet=True)
SHARD = 30
SHARED = {"generate": {"images": None, "shard_images": SHARD}}


def imported(path: Path) -> dict[str, Any]:
    provenance = {"generator": path.stem, "trained_on": "digits", "used_labels": path.stem == "good"}
    return {"generator": {"kind": "import", "format": "npz", "path": str(path), "provenance": provenance}}


def written(folder: Path) -> Recipe:
    """The tiny recipe with four sources, whose images are not there yet."""
    recipe = yaml.safe_load(RECIPE)
    drawn = {"generator": recipe.pop("generator"), "generate": {"images": 120, "shard_images": SHARD}}
    recipe |= SHARED | {"plan": {"reference_images": 256}, "arms": ["none", "vanilla", "weak", "adainf"]}
    sources = {name: imported(folder / f"{name}.npz") for name in ("noise", "mixed", "good")}
    return load_recipe(write_recipe(folder, yaml.safe_dump(recipe | {"generators": sources | {"drawn": drawn}})))


def save_images(folder: Path, real: ShardFolder) -> None:
    """240 digits that are not real images of the run; 240 others, the later half of them noise; 120 of noise."""
    digits = np.repeat(np.rint(load_digits().images * 15.9375).astype(np.uint8)[..., None], 3, axis=3)
    seen = {image.tobytes() for split in real.shards.splits for image in read_split(real, split).images}
    fresh = np.stack([image for image in digits if image.tobytes() not in seen])
    noise = np.random.default_rng(0).integers(0, 256, (240, 8, 8, 3), np.uint8)
    np.savez(folder / "good.npz", image=fresh[:240])
    np.savez(folder / "mixed.npz", image=np.concatenate([fresh[240:360], noise[:120]]))
    np.savez(folder / "noise.npz", image=noise[120:])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Run]:
    folder = tmp_path_factory.mktemp("sources")
    recipe, run = written(folder), Run(str(folder / "run"))
    save_images(folder, ShardFolder.of(run, "real", ingest(recipe, run, QUIET)))
    run_chain(recipe, run, QUIET)
    return recipe, run


def _content(run: Run, name: str) -> dict[str, Any]:
    manifest = run.find(name)
    assert manifest is not None, name
    return manifest.content


def _plan(run: Run) -> InflationPlan:
    return InflationPlan.model_validate(_content(run, "plan"))


def test_every_source_has_artifacts_of_its_own(finished: tuple[Recipe, Run]) -> None:
    recipe, run = finished
    names = set(build_graph(recipe))
    assert {"generator/drawn", "generated/drawn", "generated/good", "quality/good", "quality/noise"} < names
    assert "generator/good" not in names, "nothing is fitted for an import"
    assert not names & {"generator", "generated", "quality"}
    assert all(run.find(name) for name in names)
    assert tasks(recipe)["generate"] == tuple(f"generated/{name}" for name in ("drawn", "good", "mixed", "noise"))
    done, wrong = RunState(run, recipe).finished()
    assert (done, wrong) == (frozenset(names | {"report"}), {})


def test_noise_is_refused_and_the_others_weigh_as_they_cover(finished: tuple[Recipe, Run]) -> None:
    """By q = min(C / (0.9 C0), (1 - TV) / (1 - TV0), 1) of each source's own measurement, and the weights q / best q."""
    _, run = finished
    plan, scores = _plan(run), Quality.model_validate(_content(run, "quality/good")).scores
    covered, apart = scores["coverage_ssl"], scores["total_variation_ssl"]
    assert plan.sources["generated/noise"].refused
    assert plan.sources["generated/drawn"].refused, "30 steps make no digits"
    assert plan.weights.keys() == {"generated/good", "generated/mixed"}
    good = min(covered.value / (0.9 * covered.null), (1 - apart.value) / (1 - apart.null), 1.0)
    assert plan.sources["generated/good"].quality == pytest.approx(good, abs=1e-4)
    qualities = {name: plan.sources[name].quality for name in plan.weights}
    best = max(qualities.values())
    assert plan.weights == {
        name: pytest.approx(
            (quality / best)
            * (1 - (plan.inputs.sources[name].measured.copy_rate if plan.inputs.sources[name].measured else 0)),
            rel=0.01,
        )
        for name, quality in qualities.items()
    }


def test_a_source_that_is_half_noise_weighs_less(finished: tuple[Recipe, Run]) -> None:
    _, run = finished
    sources = _plan(run).sources
    assert sources["generated/mixed"].quality < sources["generated/good"].quality
    assert sources["generated/mixed"].weight < sources["generated/good"].weight == 1


def test_the_stream_draws_each_source_in_the_plans_share(finished: tuple[Recipe, Run]) -> None:
    """Counts the images that arrive and compares them with the plan and with the encoder's manifest."""
    recipe, run = finished
    plan, steps = _plan(run), 40
    manifests = {name: found for name in build_graph(recipe) if (found := run.find(name))}
    real, sources = ShardFolder.of(run, "real", manifests["real"]), planned_sources(run, plan, manifests)
    mixture = Mixture.of(real, sources, plan.real_weight, plan.weights, plan.views)
    names, images = (
        list(mixture.folders),
        {name: read_split(folder, "train").images for name, folder in mixture.folders.items()},
    )
    drawn = dict.fromkeys(names, 0)
    with mixture.open(recipe.pretrain, 0, make_accelerator(recipe.pretrain)) as stream:
        for _ in range(steps):
            batch = next(stream)
            for source, index, image in zip(batch.sources, batch.indices, batch.images, strict=True):
                drawn[names[source]] += 1
                assert np.array_equal(image, images[names[source]][index])
    total = steps * recipe.pretrain.global_batch
    shares = _content(run, pretrained("adainf", 0))["shares"]
    assert names == ["real", "generated/good", "generated/mixed"]
    assert shares.keys() == set(names)
    for name, count in drawn.items():
        assert abs(count - total * shares[name]) <= 2
    for name in plan.weights:
        assert shares[name] == pytest.approx(plan.sources[name].share, abs=1e-6)


def test_probes_and_arm_verified_mix_the_plans_sources(finished: tuple[Recipe, Run], tmp_path: Path) -> None:
    """Halving a real image's weight doubles the share of each source; vanilla's setting has every shard at weight 1."""
    whole, run = finished
    folder = tmp_path / "run"
    shutil.copytree(run.locate(""), folder)
    config = whole.plan.model_copy(update={"verify": Verify(budget=0.25, deciding_seeds=2)})
    recipe, copy = whole.model_copy(update={"plan": config, "arms": (*whole.arms, "verified")}), Run(str(folder))
    job, plan = artifact(recipe, copy, "verify", QUIET, "verify"), _plan(run)
    probe = probe_of(recipe, job, plan)
    settings = {one.name: one for one in settings_around(plan, plan.views)}
    mixed = {name: probe.mixture(settings[name]) for name in ("prior", "half-weight", "vanilla", "none")}
    assert mixed["prior"].weights == {"real": plan.real_weight, **plan.weights}
    assert mixed["half-weight"].weights == mixed["prior"].weights | {"real": plan.real_weight / 2}
    assert set(mixed["vanilla"].weights.values()) == {1}
    assert sum(mixed["vanilla"].counts) == 976
    assert mixed["none"].weights == {"real": 1}
    score = probe.score(settings["prior"], 0)
    assert score is not None
    verified = VerifyResult(
        judged_by="linear",
        validation_images=1,
        probe_steps=3,
        settings=list(settings.values()),
        scores={},
        decision=None,
        why=[],
    )
    job.commit(verified)
    (encoder,) = pretrain(recipe, copy, QUIET, "verified")
    assert encoder.content["shares"] == _content(run, pretrained("adainf", 0))["shares"]


def test_controls_draw_each_image_with_weight_1(finished: tuple[Recipe, Run]) -> None:
    _, run = finished
    of_arm = {arm: _content(run, pretrained(arm, 0)) for arm in ("none", "vanilla", "weak")}
    assert of_arm["none"]["shares"] == {"real": 1}
    every = {"real": 256, "generated/drawn": 120, "generated/good": 240, "generated/mixed": 240, "generated/noise": 120}
    assert of_arm["vanilla"]["shares"] == {name: pytest.approx(count / 976, abs=1e-6) for name, count in every.items()}
    used = {"real": 256, "generated/good": 240, "generated/mixed": 240}
    assert of_arm["weak"]["shares"] == {name: pytest.approx(count / 736, abs=1e-6) for name, count in used.items()}


def test_a_named_generator_is_what_it_is_alone(tmp_path: Path) -> None:
    """Would catch a second fit that begins where the first has left a generator of random numbers, or its checkpoints."""
    text = yaml.safe_load(RECIPE) | {"arms": ["vanilla"], "quality": None}
    alone = Recipe.model_validate(text | {"generate": {"images": 32, "shard_images": 16}})
    gan = {"kind": "gan", "steps": 3, "batch": 8, "channels": [8, 16], "latent": 4, "sampler": {"batch": 16}}
    named = {"a-gan": {"generator": gan}, "b": {"generator": text.pop("generator")}}
    beside = Recipe.model_validate(text | {"generators": named, "generate": {"images": 32, "shard_images": 16}})
    made = {}
    for name, recipe in (("alone", alone), ("beside", beside)):
        run = Run(str(tmp_path / name))
        for stage in (ingest, fit, generate):
            stage(recipe, run, QUIET)
        made[name] = run
    for first, second in (("generator", "generator/b"), ("generated", "generated/b")):
        one, other = (made[name].find(artifact) for name, artifact in (("alone", first), ("beside", second)))
        assert one is not None
        assert other is not None
        if first == "generator":
            assert one.output("model.safetensors").sha256 == other.output("model.safetensors").sha256
        else:
            shards = [manifest.content_as(ShardSet).splits["train"] for manifest in (one, other)]
            assert shards[0].tar_sha256s == shards[1].tar_sha256s


def test_workers_share_the_shards_of_all_sources(finished: tuple[Recipe, Run], tmp_path: Path) -> None:
    """Would catch sources that are shared one by one, and an import that two workers do; the end is the same bytes."""
    recipe, whole = finished
    run = Run(str(tmp_path / "run"))
    for stage in (ingest, fit):
        stage(recipe, run, QUIET)
    done = generate(recipe, run, QUIET, worker=(2, 3))  # of seven pieces two: of four drawn shards the third, of three imports
    assert done == [run.find("generated/mixed")]  # the second
    assert [info.key[-10:] for info in run.store.list("generated/drawn") if info.key.endswith(".tar")] == ["000002.tar"]
    assert run.find("generated/good") is None
    for worker in (0, 1):
        generate(recipe, run, QUIET, worker=(worker, 3))
    generated = {key: digest for key, digest in artifact_hashes(whole.uri).items() if key.startswith("generated/")}
    assert {key: digest for key, digest in artifact_hashes(run.uri).items() if key.startswith("generated/")} == generated


def test_finished_stages_are_skipped(finished: tuple[Recipe, Run], capsys: pytest.CaptureFixture[str]) -> None:
    recipe, run = finished
    before = artifact_hashes(run.uri)
    run_chain(recipe, run, Reporter())
    assert artifact_hashes(run.uri) == before
    said = capsys.readouterr().out
    for line in (
        "fit drawn: done already",
        "fit good: not needed",
        "generate noise: done already",
        "measure mixed: done already",
    ):
        assert line in said


def test_the_plan_is_told_by_source(finished: tuple[Recipe, Run], capsys: pytest.CaptureFixture[str]) -> None:
    recipe, run = finished
    plan(recipe, run, QUIET, as_json=True)
    said = json.loads(capsys.readouterr().out)
    assert list(said["sources"]) == ["real", *_plan(run).sources]
    assert said["sources"]["generated/noise"] | {"refused": ""} == {
        "images": 120,
        "quality": pytest.approx(0, abs=0.1),
        "weight": 0,
        "replication_of_real": None,
        "share": 0,
        "passes": 0,
        "refused": "",
    }
    assert said["basis"]["sources.generated/good.replication_of_real"] == "prior"
    plan(recipe, run, Reporter())
    assert "of 4 sources" in capsys.readouterr().out


def test_the_report_has_each_source(finished: tuple[Recipe, Run]) -> None:
    _, run = finished
    page = Path(run.locate("report/index.html")).read_text()
    for text in (
        "Quality of the generated images, mixed",
        "<h3>Generated, noise</h3>",
        "720 generated of 4 sources",
        "The recipe declares it.",
        "weight of generated/good",
        '<th scope="col">generated/mixed</th>',
        "path: PATH",
    ):
        assert text in page
    assert run.locate("")[:-1].rpartition("/")[0] not in page, "where images lie on a machine is no part of an experiment"


def test_the_browser_shows_each_source(finished: tuple[Recipe, Run]) -> None:
    _, run = finished
    catalog, said = Catalog(run.uri), _plan(run)
    assert [name for name in catalog.sources if name.startswith("generated/")] == [
        f"generated/{name}/train" for name in ("drawn", "good", "mixed", "noise")
    ]
    assert read_plan(catalog) == said
    assert source_weight("generated/good/train", said) == f"{said.sources['generated/good'].weight:g}"
    assert source_weight("generated/mixed/train", said) == f"{said.sources['generated/mixed'].weight:g}"
    assert quality_score("generated/mixed/train", said) == f"{said.sources['generated/mixed'].quality:g}"
    assert source_weight("generated/noise/train", said) == "0"
    assert source_weight("real/train", said) == f"{said.real_weight:g}"
    assert quality_score("real/train", said) == ""
    of_shards = quality_of(run, catalog.source("generated/mixed/train"))
    assert of_shards is not None
    assert set(of_shards.shards("best")[:4]) == {0, 1, 2, 3}
    names = [one["name"] for one in Overview(run).read()["artifacts"]]
    assert names[:6] == ["real", "generator/drawn", "generated/drawn", "generated/good", "generated/mixed", "generated/noise"]


def test_the_browser_shows_a_run_whose_plan_has_another_format(finished: tuple[Recipe, Run], tmp_path: Path) -> None:
    """Plans of earlier versions have settings that are removed since."""
    _, run = finished
    folder = tmp_path / "run"
    shutil.copytree(run.locate(""), folder)
    forge(folder / "plan.json", lambda body: body["content"].update(removed=1))
    catalog = Catalog(str(folder))
    assert read_plan(catalog) is None
    assert "generated/good/train" in catalog.sources


def test_a_named_source_is_drawn_again_and_compared(finished: tuple[Recipe, Run]) -> None:
    _, run = finished
    regenerate(f"{run.uri}/generated/drawn", 2, 0, QUIET)
    for name in ("good", "none"):
        with pytest.raises(BadInput, match="was not drawn by a generator of its run"):
            regenerate(f"{run.uri}/generated/{name}", 1, None, QUIET)


def test_another_source_is_another_plan(finished: tuple[Recipe, Run]) -> None:
    """A run is never a mix: the plan of four sources is not that of three."""
    recipe, run = finished
    assert recipe.generators is not None
    fewer = recipe.model_copy(update={"generators": {name: one for name, one in recipe.generators.items() if name != "noise"}})
    with pytest.raises(BadInput, match=r"plan\.json was written by another recipe or from other inputs"):
        plan(fewer, run, QUIET)
