"""generate: by any workers, at once or in two goes, the set is the same bytes, and never a mix of two."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adainf import cli
from adainf.cli.arguments import build_parser
from adainf.errors import BAD_INPUT, OK, BadInput, StageFailed
from adainf.pipeline.artifacts import Run
from adainf.pipeline.graph import require
from adainf.pipeline.load_recipe import load_recipe
from adainf.pipeline.progress import Reporter
from adainf.pipeline.records import Manifest
from adainf.recipe import Recipe
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.manifest import ShardSet
from adainf.shards.format.tar import Sample
from adainf.shards.format.writer import SplitWriter
from adainf.shards.loader.read_all import read_split
from adainf.stages.fit import fit
from adainf.stages.generate import generate
from adainf.stages.ingest import ingest
from adainf.stages.plan import plan
from adainf.stages.regenerate import regenerate
from tests.tiny import RECIPE, artifact_hashes, write_recipe

SHARDS = 4


def recipe_text(images: int = 64, **settings: Any) -> str:
    generate = ", ".join(f"{name}: {value}" for name, value in {"images": images, "shard_images": 16, **settings}.items())
    text = RECIPE.replace("generate: {images: 120, shard_images: 16}", f"generate: {{{generate}}}")
    return f"{text}quality: null\n"  # a plan from sizes alone


def recipe(tmp_path: Path, images: int = 64, **settings: Any) -> Recipe:
    return load_recipe(write_recipe(tmp_path, recipe_text(images, **settings)))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose generator is fitted. Tests must not change it."""
    folder = tmp_path_factory.mktemp("fitted")
    wanted, run = recipe(folder), Run(str(folder / "run"))
    ingest(wanted, run, Reporter())
    fit(wanted, run, Reporter())
    return folder / "run"


@pytest.fixture(scope="module")
def whole(fitted: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The hashes of a run whose images one process has drawn in one go."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(fitted, folder / "run")
    assert generate(recipe(folder), Run(str(folder / "run")), Reporter())
    return artifact_hashes(folder / "run")


@pytest.fixture
def run(fitted: Path, tmp_path: Path) -> Run:
    shutil.copytree(fitted, tmp_path / "run")
    return Run(str(tmp_path / "run"))


def tars(run: Run) -> list[str]:
    return [info.key for info in run.store.list("generated/") if info.key.endswith(".tar")]


# ---------------------------------------------------------------------------------------------------------- many workers


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_that_are_processes_on_s3_write_what_one_does(
    workers: int, fitted: Path, whole: dict[str, str], tmp_path: Path, s3_env: str
) -> None:
    """All at once, each with threads of its own; whoever ends last commits."""
    there, store = Run(str(fitted)).store, Run(s3_env).store
    for info in there.list():
        store.put(info.key, there.get(info.key))
    processes = []
    for worker in reversed(range(workers)):
        (tmp_path / str(worker)).mkdir()
        text = recipe_text().replace("cpu_threads: 1", f"cpu_threads: {1 + worker}")
        command = [sys.executable, "-m", "adainf", "generate", str(write_recipe(tmp_path / str(worker), text))]
        environment = os.environ | {"JOB_COMPLETION_INDEX": str(worker)}
        pipe = subprocess.PIPE
        processes.append(
            subprocess.Popen(
                [*command, "--run", s3_env, "--worker", str(workers)], env=environment, stdout=pipe, stderr=pipe, text=True
            )
        )
    ended = [(*process.communicate(timeout=300), process.returncode) for process in processes]
    assert [code for _, _, code in ended] == [OK] * workers, ended
    assert any("generate: done, 64 images" in output for output, _, _ in ended)
    assert artifact_hashes(s3_env) == whole


def test_a_worker_alone_writes_its_share_and_says_what_is_left(
    run: Run, whole: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not generate(recipe(tmp_path), run, Reporter(), worker=(1, 3))
    assert "3 of 4 shards are still to be written by others" in capsys.readouterr().out
    assert [key[-10:] for key in tars(run)] == ["000001.tar"]
    assert run.find("generated") is None
    assert not generate(recipe(tmp_path), run, Reporter(), worker=(5, 6)), "more workers than shards"
    assert generate(recipe(tmp_path), run, Reporter())
    assert artifact_hashes(run.uri) == whole


def test_workers_that_finish_in_the_same_moment_commit_the_same_manifest(
    run: Run, whole: dict[str, str], tmp_path: Path
) -> None:
    wanted = recipe(tmp_path)
    generate(wanted, run, Reporter())
    run.store.delete("generated/manifest.json")
    together = threading.Barrier(4)
    committed: list[Manifest] = []

    def finish(worker: int) -> None:
        together.wait()
        committed.extend(generate(wanted, Run(run.uri), Reporter(), worker=(worker, 4)))

    threads = [threading.Thread(target=finish, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert committed == [run.find("generated")] * 4
    assert artifact_hashes(run.uri) == whole


@pytest.mark.parametrize(
    ("text", "index", "expected"),
    [("0/1", None, (0, 1)), ("6/7", "3", (6, 7)), ("7", "3", (3, 7)), ("3", "3", None), ("3", None, None)]
    + [(wrong, "1", None) for wrong in ("3/3", "-1/3", "/3", "1/", "a/b", "", "1/2/3", "0")],
)
def test_which_worker(text: str, index: str | None, expected: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOB_COMPLETION_INDEX", raising=False)
    if index is not None:
        monkeypatch.setenv("JOB_COMPLETION_INDEX", index)
    command = ["generate", "x.yaml", f"--worker={text}"]
    if expected:
        assert build_parser().parse_args(command).worker == expected
    else:
        with pytest.raises(BadInput, match=r"invalid --worker .*: expected K/N with 0 <= K < N"):
            build_parser().parse_args(command)


def test_an_import_is_done_by_the_first_worker_alone(run: Run, tmp_path: Path) -> None:
    """Would catch workers that all import, or a worker beside it that fails and with it its Job."""
    np.savez(tmp_path / "x.npz", image=np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8))
    imported = {"kind": "import", "format": "npz", "path": str(tmp_path / "x.npz")}
    provenance = {"generator": "x", "trained_on": "y", "used_labels": False}
    text = recipe(tmp_path).model_dump(mode="json") | {"generator": {**imported, "provenance": provenance}}
    wanted = Recipe.model_validate(text | {"generate": {"images": 20}})
    assert not generate(wanted, run, Reporter(), worker=(1, 2))
    assert run.find("generated") is None
    assert generate(wanted, run, Reporter(), worker=(0, 2))


# ----------------------------------------------------------------------------------------------------------- more of them


def test_a_set_that_is_extended_keeps_its_shards_and_is_that_of_one_go(run: Run, whole: dict[str, str], tmp_path: Path) -> None:
    """And whoever reads meanwhile sees the smaller set, whole."""
    (small,) = generate(recipe(tmp_path, images=32), run, Reporter())
    kept = [(info.key, info.etag) for info in run.store.list("generated/") if info.key.endswith(".tar")]
    assert len(kept) == 2
    assert not generate(recipe(tmp_path, images=64), run, Reporter(), worker=(2, 4))
    assert run.find("generated") == small
    assert len(read_split(ShardFolder.of(run, "generated", small), "train").images) == 32
    with pytest.raises(BadInput, match=r"holds fewer images than generate\.images .* run `adainf generate RECIPE`"):
        require(recipe(tmp_path, images=64), run, ["generated"])
    with pytest.raises(BadInput, match="a set can grow but not shrink"):  # than what is being extended to
        generate(recipe(tmp_path, images=48), run, Reporter())
    assert generate(recipe(tmp_path, images=64), run, Reporter())
    assert artifact_hashes(run.uri) == whole
    assert [(info.key, info.etag) for info in run.store.list("generated/") if info.key.endswith(".tar")][:2] == kept


def test_a_set_of_another_version_is_not_extended(run: Run, tmp_path: Path) -> None:
    (small,) = generate(recipe(tmp_path, images=32), run, Reporter())
    older = small.model_copy(update={"made_by": "adainf 0.0.9"})
    run.store.put("generated/manifest.json", older.to_json())
    before = artifact_hashes(run.uri)
    with pytest.raises(BadInput, match=r"was made by adainf 0\.0\.9 .* extend it with that version"):
        generate(recipe(tmp_path, images=64), run, Reporter())
    assert artifact_hashes(run.uri) == before
    assert generate(recipe(tmp_path, images=32), run, Reporter()) == [older], "what is finished needs no other version"


def test_what_was_made_from_the_smaller_set_is_refused_with_the_fix(run: Run, tmp_path: Path) -> None:
    generate(recipe(tmp_path, images=32), run, Reporter())
    plan(recipe(tmp_path, images=32), run, Reporter())
    generate(recipe(tmp_path, images=64), run, Reporter())
    with pytest.raises(BadInput, match=r"plan\.json was .*inputs\.generated: .* or delete it to compute it again"):
        plan(recipe(tmp_path, images=64), run, Reporter())
    run.store.delete("plan.json")
    assert plan(recipe(tmp_path, images=64), run, Reporter())


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (64, 32, "a set can grow but not shrink; set generate.images to 64 or more"),
        (40, 64, "do not fill a shard of 16, .* set generate.images to 40"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_a_set_that_cannot_be_extended_is_left_alone(
    before: int, after: int, said: str, finished: bool, run: Run, tmp_path: Path
) -> None:
    generate(recipe(tmp_path, images=before), run, Reporter(), worker=(0, 1 if finished else 2))
    there = artifact_hashes(run.uri)
    with pytest.raises(BadInput, match=said):
        generate(recipe(tmp_path, images=after), run, Reporter())
    assert artifact_hashes(run.uri) == there


@pytest.mark.parametrize("settings", [{"seed": 1}, {"compression": "deflate"}, {"shard_images": 32}])
def test_two_settings_never_share_a_prefix(settings: dict[str, Any], run: Run, fitted: Path, tmp_path: Path) -> None:
    generate(recipe(tmp_path), run, Reporter())
    before = artifact_hashes(run.uri)
    with pytest.raises(BadInput, match="was written by another recipe"):
        generate(recipe(tmp_path, **settings), run, Reporter())
    assert artifact_hashes(run.uri) == before
    shutil.copytree(fitted, tmp_path / "other")
    generate(recipe(tmp_path, **settings), Run(str(tmp_path / "other")), Reporter())
    assert not set(tars(run)) & set(tars(Run(str(tmp_path / "other"))))


def test_deflated_images_are_those_of_a_stored_set(run: Run, fitted: Path, tmp_path: Path) -> None:
    shutil.copytree(fitted, tmp_path / "other")
    other = Run(str(tmp_path / "other"))
    sets = [*generate(recipe(tmp_path), run, Reporter()), *generate(recipe(tmp_path, compression="deflate"), other, Reporter())]
    images = [
        read_split(ShardFolder.of(where, "generated", made), "train").images
        for where, made in zip((run, other), sets, strict=True)
    ]
    assert (images[0] == images[1]).all()
    assert images[0].std() > 1


# ---------------------------------------------------------------------------------------------------------------- a full disk


def test_a_disk_that_fills_up_within_a_shard_loses_nothing_that_is_written(
    run: Run, whole: dict[str, str], tmp_path: Path
) -> None:
    """By a limit on the size of files, which the kernel enforces as a full disk."""
    generate(recipe(tmp_path), run, Reporter(), worker=(0, 2))
    before = artifact_hashes(run.uri)
    script = (  # the limit ends with the command: coverage writes its own file after it
        "import resource, sys; from adainf.cli import main; import adainf.stages.generate;"
        "limit = lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY));"
        "limit(6000); code = main(sys.argv[1:]); limit(resource.RLIM_INFINITY); sys.exit(code)"
    )
    command = [sys.executable, "-c", script, "generate", str(tmp_path / "tiny.yaml"), "--run", run.uri]
    full = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert full.returncode == BAD_INPUT, full.stderr
    assert full.stderr.count("\n") == 1
    assert "no space left for" in full.stderr
    assert "train-000001.tar" in full.stderr
    assert artifact_hashes(run.uri) == before
    generate(recipe(tmp_path), run, Reporter())
    assert artifact_hashes(run.uri) == whole


# ------------------------------------------------------------------------------------------------------------- drawn again


def test_shards_drawn_again_are_the_same(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate(recipe(tmp_path, images=60), run, Reporter())
    assert cli.main(["shards", "verify", f"{run.uri}/generated", "--regenerate", "9", "--seed", "5"]) == OK
    said = capsys.readouterr().out
    assert "drawing 4 of 4 shards again (--seed 5)" in said
    assert "4 shards drawn again are the same, pixel by pixel" in said


def test_a_shard_that_was_not_drawn_by_the_generator_is_found(run: Run, tmp_path: Path) -> None:
    """Whole by every sum, but one pixel is another: only drawing it again can tell."""
    (manifest,) = generate(recipe(tmp_path), run, Reporter())
    folder = ShardFolder.of(run, "generated", manifest)
    images = read_split(folder, "train").images.copy()
    images[20, 3, 3] ^= 1
    prefix = folder.split("train").tar_keys[0].split("/")[0]
    for info in list(run.store.list(f"generated/{prefix}/train-000001")):
        run.store.delete(info.key)
    writer = SplitWriter(run, "generated", f"{prefix}/train", 64, 16)
    writer.write(range(SHARDS), lambda indices: [Sample(images[index], None) for index in indices], lambda images: None)
    assert writer.missing() == []
    content = folder.shards.model_copy(update={"splits": {"train": writer.split()}})
    run.store.put("generated/manifest.json", manifest.model_copy(update={"content": content.model_dump(mode="json")}).to_json())

    with pytest.raises(StageFailed, match=rf"1 of 4 shards have other pixels: {run.uri}/generated/{prefix}/train-000001\.tar;"):
        regenerate(f"{run.uri}/generated/", 4, None, Reporter())
    seed = next(seed for seed in range(99) if 1 not in random.Random(seed).sample(range(SHARDS), 2))
    regenerate(f"{run.uri}/generated", 2, seed, Reporter())


def test_what_no_generator_of_the_run_has_drawn_cannot_be_drawn_again(run: Run, tmp_path: Path) -> None:
    for uri in (f"{run.uri}/real", f"{run.uri}/generated", run.uri, str(tmp_path)):
        with pytest.raises(BadInput, match="was not drawn by a generator of its run"):
            regenerate(uri, 1, None, Reporter())


def test_the_merged_statistics_are_those_of_all_pixels(run: Run, tmp_path: Path) -> None:
    (manifest,) = generate(recipe(tmp_path, images=60), run, Reporter())
    split = manifest.content_as(ShardSet).splits["train"]
    images = read_split(ShardFolder.of(run, "generated", manifest), "train").images
    assert split.channel_means is not None
    assert split.channel_stds is not None
    np.testing.assert_allclose(split.channel_means, images.mean((0, 1, 2)), atol=1e-4)
    np.testing.assert_allclose(split.channel_stds, images.std((0, 1, 2)), atol=1e-4)
