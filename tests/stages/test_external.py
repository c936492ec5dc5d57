"""External generators as real processes: what they give is checked, what they owe is told, and nothing of them stays behind."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from adainf.errors import BAD_INPUT, INTERRUPTED, OK, STAGE_FAILED, AdaInfError
from adainf.pipeline.artifacts import Run
from adainf.pipeline.progress import Reporter
from adainf.pipeline.records import Manifest
from adainf.recipe import Recipe
from adainf.shards.format.folder import ShardFolder
from adainf.shards.loader.read_all import read_split
from adainf.stages.fit import fit
from adainf.stages.generate import generate
from adainf.stages.ingest import ingest
from tests.tiny import adainf

EXAMPLES = Path(__file__).parent.parent.parent / "docs" / "examples"
ARGUMENTS = ["{checkpoint}", "{first}", "{count}", "{seed}", "{output}"]
SIZE_PX, MEANS = 6, (140, 120, 100)

PROGRAM = """
import os, pathlib, subprocess, sys, time
import numpy as np
checkpoint, first, count, seed, output = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]
images = [np.random.default_rng([seed, i]).normal((140, 120, 100), 30, (6, 6, 3)) for i in range(first, first + count)]
images = np.clip(images, 0, 255).astype(np.uint8)
{change}
np.save(output, images, allow_pickle=True)
"""


class Workshop:
    """A run with ingested reddish 6 x 6 images, a checkpoint and a program."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        real = np.random.default_rng(0).normal(MEANS, 30, (60, SIZE_PX, SIZE_PX, 3))
        np.savez(folder / "real.npz", image=real.clip(0, 255).astype(np.uint8))
        self.checkpoint = folder / "network.bin"
        self.checkpoint.write_bytes(b"weights")
        self.run = Run(str(folder / "run"))
        self.real = ingest(self.recipe(["true", *ARGUMENTS]), self.run, Reporter())
        self.declare()

    def declare(self, **changes: object) -> None:
        said = {"name": "Tiny", "trained_on": self.real.digest, "used_labels": False, "image_size_px": SIZE_PX}
        Path(f"{self.checkpoint}.json").write_text(json.dumps(said | changes))

    def program(self, change: str = "") -> list[str]:
        path = self.folder / "program.py"
        path.write_text(PROGRAM.replace("{change}", change))
        return [sys.executable, str(path), *ARGUMENTS]

    def recipe(self, command: list[str] | None, /, **settings: object) -> Recipe:
        sha256 = hashlib.sha256(b"weights").hexdigest()
        generator = {"kind": "external", "checkpoint": str(self.checkpoint), "sha256": sha256, "sampler": {"batch": 40}}
        return Recipe.model_validate(
            {
                "name": "test",
                "real": {"kind": "npz", "path": str(self.folder / "real.npz")},
                "generator": {**generator, **({"command": command} if command else {}), **settings},
                "generate": {"images": 100, "shard_images": 50, "seed": 3},
            }
        )

    def make(self, recipe: Recipe, allow_foreign: bool = False) -> Manifest:
        fit(recipe, self.run, Reporter(), allow_foreign)
        return generate(recipe, self.run, Reporter(), allow_foreign=allow_foreign)[0]

    def refusal(self, recipe: Recipe) -> AdaInfError:
        with pytest.raises(AdaInfError) as caught:
            self.make(recipe)
        assert "\n" not in str(caught.value)
        return caught.value

    def images(self) -> np.ndarray:
        manifest = self.run.find("generated")
        assert manifest is not None
        return read_split(ShardFolder.of(self.run, "generated", manifest), "train").images

    def objects(self) -> set[str]:
        return {info.key for info in self.run.store.list()}


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


def expected(seed: int, indices: range) -> np.ndarray:
    images = [np.random.default_rng([seed, i]).normal(MEANS, 30, (SIZE_PX, SIZE_PX, 3)) for i in indices]
    return np.clip(images, 0, 255).astype(np.uint8)


def is_alive(pid: int) -> bool:
    """Whether a process of that id runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_every_index_gets_its_image_whatever_batch_and_shard(workshop: Workshop) -> None:
    manifest = workshop.make(workshop.recipe(workshop.program()))
    np.testing.assert_array_equal(workshop.images(), expected(3, range(100)))
    generator = workshop.run.find("generator")
    assert generator is not None
    assert (generator.content["trained_on"], generator.content["used_labels"]) == (workshop.real.digest, False)
    assert manifest.content["origin"] == {
        "kind": "external",
        "generator": generator.digest,
        "name": "Tiny",
        "trained_on": workshop.real.digest,
        "used_labels": False,
        "foreign": [],
    }
    assert str(workshop.folder / "network.bin") not in manifest.to_json().decode()


def test_run_again_it_is_whole_without_checkpoint_and_program(workshop: Workshop) -> None:
    recipe = workshop.recipe(workshop.program())
    first = workshop.make(recipe)
    for path in (workshop.checkpoint, Path(f"{workshop.checkpoint}.json"), workshop.folder / "program.py"):
        path.unlink()
    assert workshop.make(recipe) == first


def test_another_command_is_another_artifact(workshop: Workshop) -> None:
    workshop.make(workshop.recipe(workshop.program()))
    assert "settings.command" in str(workshop.refusal(workshop.recipe([*workshop.program(), "--truncation=0.7"])))


def test_a_bgr_program_that_says_so_is_turned_round(workshop: Workshop) -> None:
    workshop.declare(channel_order="BGR")
    workshop.make(workshop.recipe(workshop.program("images = images[..., ::-1]")))
    np.testing.assert_array_equal(workshop.images(), expected(3, range(100)))


@pytest.mark.parametrize(
    ("change", "code", "sentence"),
    [
        ("images = images[:, :4]", BAD_INPUT, r"returned uint8 of shape \(40, 4, 6, 3\) for images 0 to 39, expected uint8"),
        (
            "images = images[..., ::-1]",
            BAD_INPUT,
            r"read as RGB: red exceeds blue by -\d+\.\d on average, but by \d+\.\d in",
        ),
        ("images = images / 255", BAD_INPUT, r"returned float64 of shape \(40, 6, 6, 3\)"),
        ("images = images[:-1]", BAD_INPUT, r"returned uint8 of shape \(39, 6, 6, 3\)"),
        ("images = images[:0]", BAD_INPUT, r"returned uint8 of shape \(0, 6, 6, 3\)"),
        ("images[:] = images[0]", BAD_INPUT, "the same image for every index"),
        ("images = np.array([{}])", BAD_INPUT, r"wrote no numeric \.npy to"),
        ("np.savez(open(output, 'wb'), images); sys.exit()", BAD_INPUT, "returned NpzFile, expected a numpy array"),
        ("open(output, 'wb').write(b'no npy'); sys.exit()", BAD_INPUT, r"wrote no numeric \.npy to"),
        ("sys.exit()", BAD_INPUT, r"wrote no numeric \.npy to \{output\} \(.*No such file"),
        (
            "sys.exit('one\\ntwo\\nthe GPU is gone')",
            STAGE_FAILED,
            r"exited with code 1, output: one \| two \| the GPU is gone;",
        ),
        ("os.kill(os.getpid(), 9)", STAGE_FAILED, "was killed by SIGKILL, without output; run it by hand: .*python"),
    ],
)
def test_what_cannot_be_used_is_one_sentence_and_leaves_nothing(
    workshop: Workshop, change: str, code: int, sentence: str
) -> None:
    refusal = workshop.refusal(workshop.recipe(workshop.program(change)))
    assert refusal.exit_code == code
    assert re.search(sentence, str(refusal)), str(refusal)
    assert not any(key.startswith("generated") for key in workshop.objects())
    workshop.make(workshop.recipe(workshop.program()))  # mended, it goes on: no claim was left


def test_a_fault_in_a_later_batch_keeps_the_shards_before(workshop: Workshop) -> None:
    refusal = workshop.refusal(workshop.recipe(workshop.program("images = images if first < 50 else images[:3]")))
    assert refusal.exit_code == BAD_INPUT
    assert "for images 50 to 89" in str(refusal)
    assert {"train-000000.tar", "train-000000.index.json"} <= {PurePosixPath(key).name for key in workshop.objects()}
    workshop.make(workshop.recipe(workshop.program()))
    np.testing.assert_array_equal(workshop.images(), expected(3, range(100)))


def test_a_program_that_is_not_there(workshop: Workshop) -> None:
    refusal = workshop.refusal(workshop.recipe(["/no/such/program", *ARGUMENTS]))
    assert refusal.exit_code == BAD_INPUT
    assert "/no/such/program cannot be started (No such file or directory)" in str(refusal)


HANG = """
child = subprocess.Popen(['sleep', '600'])
pathlib.Path(checkpoint + '.pids').write_text(f'{os.getpid()} {child.pid}')
"""


def pids(workshop: Workshop) -> list[int]:
    path = Path(f"{workshop.checkpoint}.pids")
    while not path.exists() or not path.read_text():
        time.sleep(0.02)
    return [int(word) for word in path.read_text().split()]


def test_a_program_that_hangs_is_ended_with_all_that_it_started(workshop: Workshop) -> None:
    program = workshop.program(HANG + "print('loading', flush=True); time.sleep(600)")
    refusal = workshop.refusal(workshop.recipe(program, time_limit_s=2))
    assert refusal.exit_code == STAGE_FAILED
    assert "took more than 2 s, output: loading; raise generator.time_limit_s" in str(refusal)
    assert not any(is_alive(pid) for pid in pids(workshop))


@pytest.mark.parametrize("deaf", ["", "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)"])
def test_asked_to_stop_it_takes_the_program_with_it(workshop: Workshop, deaf: str) -> None:
    recipe = workshop.recipe(workshop.program(deaf + HANG + "time.sleep(600)"))
    path = workshop.folder / "recipe.yaml"
    path.write_text(recipe.model_dump_json())  # JSON is YAML
    fit(recipe, workshop.run, Reporter())
    command = [sys.executable, "-m", "adainf", "generate", str(path), "--run", workshop.run.uri]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    started = pids(workshop)
    process.send_signal(signal.SIGTERM)
    assert "stopped by SIGTERM" in process.communicate(timeout=60)[1]
    assert process.returncode == INTERRUPTED
    assert not any(is_alive(pid) for pid in started)


def test_a_function_takes_the_place_of_a_command(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    directions = np.random.default_rng(0).normal(0, 5, (4, SIZE_PX, SIZE_PX, 3))
    mean = np.full((SIZE_PX, SIZE_PX, 3), MEANS)
    np.savez(workshop.folder / "model.npz", mean=mean, directions=directions)
    weights = (workshop.folder / "model.npz").read_bytes()
    workshop.checkpoint = workshop.folder / "model.npz"
    workshop.declare()
    sha256 = hashlib.sha256(weights).hexdigest()
    workshop.make(workshop.recipe(None, callable="external_gaussian:generate", sha256=sha256))
    images = workshop.images().astype(float)
    np.testing.assert_allclose(images.mean(0), mean, atol=4)  # 100 images of deviation 10: 4 standard errors
    np.testing.assert_allclose(images.var(0).mean(), (directions**2).sum(0).mean(), rtol=0.2)


@pytest.mark.parametrize(
    ("name", "code", "sentence"),
    [
        ("no_such_module:generate", BAD_INPUT, r"cannot be imported \(No module named 'no_such_module'\)"),
        ("external_gaussian:sample", BAD_INPUT, "cannot be imported .*has no attribute 'sample'"),
        ("external_gaussian:generate", STAGE_FAILED, "failed"),  # its checkpoint is no .npz
        ("builtins:print", BAD_INPUT, "returned NoneType, expected a numpy array"),
    ],
)
def test_a_function_that_cannot_be_used(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, name: str, code: int, sentence: str
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    refusal = workshop.refusal(workshop.recipe(None, callable=name))
    assert refusal.exit_code == code
    assert re.search(sentence, str(refusal)), str(refusal)


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"image_size_px": 8}, r"makes images of 8 x 8 px, the real images are 6 x 6: set real\.image_size_px: 8"),
        ({"used_labels": "perhaps"}, r"network\.bin\.json: used_labels: .*boolean.*generators-external\.md"),
        ({"trained_on": "CIFAR-10"}, "was fitted on 'CIFAR-10', not on the real images of this run, whose digest is DIGEST; "),
        ({"used_labels": True}, "was helped by labels; .*--allow-foreign"),
        ({"trained_on": "X", "used_labels": True}, "was fitted on 'X', .* and helped by labels; "),
    ],
)
def test_a_checkpoint_that_does_not_belong_here_is_refused_before_anything_is_written(
    workshop: Workshop, said: dict[str, object], sentence: str
) -> None:
    workshop.declare(**said)
    before = workshop.objects()
    refusal = workshop.refusal(workshop.recipe(workshop.program()))
    assert refusal.exit_code == BAD_INPUT
    assert re.search(sentence.replace("DIGEST", workshop.real.digest), str(refusal)), str(refusal)
    assert workshop.objects() == before
    workshop.declare()
    workshop.make(workshop.recipe(workshop.program()))


def test_another_file_than_the_one_named_is_refused(workshop: Workshop) -> None:
    recipe = workshop.recipe(workshop.program())
    workshop.checkpoint.write_bytes(b"other weights")
    refusal = workshop.refusal(recipe)
    assert refusal.exit_code == BAD_INPUT
    assert hashlib.sha256(b"other weights").hexdigest() in str(refusal)
    workshop.checkpoint.write_bytes(b"weights")
    fit(recipe, workshop.run, Reporter())
    workshop.checkpoint.write_bytes(b"other weights")  # since fit: `generate` looks again
    assert "use the intended file" in str(workshop.refusal(recipe))
    workshop.checkpoint.unlink()
    assert "No such file or directory; set generator.checkpoint" in str(workshop.refusal(recipe))


def test_generate_refuses_what_fit_was_allowed_to_take(workshop: Workshop) -> None:
    workshop.declare(trained_on="CIFAR-10", used_labels=True)
    recipe = workshop.recipe(workshop.program())
    fit(recipe, workshop.run, Reporter(), allow_foreign=True)
    assert workshop.refusal(recipe).exit_code == BAD_INPUT
    assert not any(key.startswith("generated") for key in workshop.objects())
    (manifest,) = generate(recipe, workshop.run, Reporter(), allow_foreign=True)
    assert manifest.content["origin"]["foreign"] == ["trained_on", "used_labels"]


def test_what_was_said_of_a_checkpoint_does_not_change_unseen(workshop: Workshop) -> None:
    recipe = workshop.recipe(workshop.program())
    workshop.make(recipe)
    workshop.declare(used_labels=True)
    assert "generator/ was written by another recipe or from other inputs (inputs.data" in str(workshop.refusal(recipe))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "needs exactly one of command and callable"),
        ({"command": ["make", *ARGUMENTS], "callable": "a:b"}, "needs exactly one of command and callable"),
        ({"command": ["make", "{first}", "{count}", "{output}"]}, r"needs \{seed\} in command"),
        ({"callable": "a.b"}, "should match pattern"),
        ({"command": ["make", *ARGUMENTS], "sha256": "abc"}, "should match pattern"),
    ],
)
def test_recipes_that_cannot_call_it_are_refused(workshop: Workshop, settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        workshop.recipe(None, **settings)


CHAIN = """
name: external
cpu_threads: 1
real: {{kind: digits, train_limit_images: 256}}
generator:
  kind: external
  checkpoint: {checkpoint}
  sha256: {sha256}
  command: [{python}, {program}, "{{checkpoint}}", "{{first}}", "{{count}}", "{{seed}}", "{{output}}"]
  sampler: {{batch: 60}}
generate: {{images: 120, shard_images: 60}}
arms: [none, vanilla]
pretrain:
  method: {{kind: simclr, projector_hidden: 32, projector_out: 16}}
  backbone: {{name: resnet-small}}
  augmentation: {{flip_probability: 0}}
  steps: 2
  global_batch: 32
"""


def test_the_whole_chain_with_the_example_and_what_the_report_says(tmp_path: Path) -> None:
    mean, directions = np.full((8, 8, 3), 80.0), np.random.default_rng(0).normal(0, 20, (5, 8, 8, 1)).repeat(3, 3)
    checkpoint = tmp_path / "model.npz"
    np.savez(checkpoint, mean=mean, directions=directions)
    said = {"name": "Gauss", "trained_on": "other digits", "used_labels": False, "image_size_px": 8}
    Path(f"{checkpoint}.json").write_text(json.dumps(said))
    sha256 = hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    program = EXAMPLES / "external_gaussian.py"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(CHAIN.format(checkpoint=checkpoint, sha256=sha256, python=sys.executable, program=program))

    refused = adainf("run", recipe, "--run", tmp_path / "run")
    assert refused.returncode == BAD_INPUT
    digest = hashlib.sha256((tmp_path / "run" / "real" / "manifest.json").read_bytes()).hexdigest()
    assert f"was fitted on 'other digits', not on the real images of this run, whose digest is {digest}" in refused.stderr

    foreign = adainf("run", recipe, "--run", tmp_path / "run", "--allow-foreign")
    assert foreign.returncode == OK, foreign.stderr
    assert "The generator was fitted on images other than this run's real ones" in foreign.stdout
    page = (tmp_path / "run" / "report" / "index.html").read_text()
    assert "The generator was fitted on images other than those of this run." in page
    assert "other digits" in page
    assert str(tmp_path / "model.npz") not in page


LEGACY = """
import torch

class Network(torch.nn.Module):
    z_dim, c_dim = 6, {classes}

    def forward(self, z, c, noise_mode):
        assert c.shape == (len(z), 0) and noise_mode == "const"
        return z.reshape(-1, 1, 2, 3).float() / 3

def load_network_pkl(file):
    return {{"G_ema": Network()}}
"""


@pytest.mark.parametrize("classes", [0, 10])
def test_the_stylegan2_wrapper_keeps_the_contract_and_refuses_classes(tmp_path: Path, classes: int) -> None:
    """Against a stand-in for NVIDIA's `legacy`, which nobody may ship."""
    (tmp_path / "legacy.py").write_text(LEGACY.format(classes=classes))
    (tmp_path / "network.pkl").write_bytes(b"")

    def ask(first: int, count: int) -> subprocess.CompletedProcess[str]:
        words = ["network.pkl", first, count, 5, f"{first}.npy"]
        command = [sys.executable, str(EXAMPLES / "external_stylegan2.py"), *map(str, words)]
        environment = os.environ | {"PYTHONPATH": str(tmp_path)}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False)

    done = ask(0, 70)
    if classes:
        assert "is class-conditional" in done.stderr
        assert done.returncode != 0
        return
    assert done.returncode == 0, done.stderr
    assert ask(66, 3).returncode == 0
    whole, alone = np.load(tmp_path / "0.npy"), np.load(tmp_path / "66.npy")
    assert (whole.shape, whole.dtype) == ((70, 2, 3, 3), np.uint8)
    np.testing.assert_array_equal(alone, whole[66:69])
    assert len(np.unique(whole.reshape(70, -1), axis=0)) == 70
