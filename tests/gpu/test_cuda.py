"""The same program on a GPU: what the CPU computes, the same bytes each time, and the complete pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from adainf import recipe
from adainf.augment.profiles import default_views
from adainf.augment.views import augment
from adainf.evaluation.features import extract_local
from adainf.generators import generator_kind
from adainf.generators.batches import Batches
from adainf.generators.sample import sample_images
from adainf.methods.clip import tokens_of
from adainf.models.encoder import Encoder, Normalisation
from adainf.pretraining.loop import build_encoder
from adainf.pretraining.trainer import Experiment, Trainer
from adainf.runtime.determinism import prepare
from adainf.shards import Source, open_stream
from adainf.shards.loader.device import DeviceStream
from tests.generators.test_gan import small
from tests.generators.tiny import diffusion, noise_images
from tests.pretraining.test_trainer import METHODS, calm, config
from tests.processes import run_on_ranks
from tests.runtime.test_distributed import agreed_on_rank
from tests.shards.sets import make_set
from tests.tiny import RECIPE, adainf, artifact_hashes, write_recipe

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: torch.cuda.is_available() is false")
IMAGES = 96


@pytest.fixture(autouse=True)
def _exact_products() -> Iterator[None]:
    """cuDNN's convolutions round to TF32 by default, three decimals of which are those of float32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before
    AcceleratorState._reset_state(True)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_set(str(tmp_path_factory.mktemp("set") / "real"), IMAGES, 32, size_px=16).uri


@contextmanager
def training(data: str, settings: recipe.Pretrain, device: str) -> Iterator[Trainer]:
    """A trainer on that device, before its first step."""
    AcceleratorState._reset_state(True)
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision=settings.precision)
    tokens = [tokens_of([f"image {number}" for number in range(IMAGES)], 8)] if settings.method.kind == "clip" else []
    with open_stream({"real": Source(data)}, settings.global_batch, 7) as stream:
        views = default_views(settings.augmentation)
        trainer = Trainer(Experiment(settings, 7, stream, views, Normalisation((0.5,) * 3, (0.25,) * 3), tokens), accelerator)
        assert trainer.device.type == device
        yield trainer


def losses(data: str, settings: recipe.Pretrain, device: str, steps: int) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Of the first steps, and the state after them."""
    with training(data, settings, device) as trainer:
        return [float(trainer.step(step).loss) for step in range(steps)], trainer.state()[0]


@pytest.mark.parametrize("hue", ["exact", "yiq"])
def test_views_are_those_of_the_cpu(hue: Any) -> None:
    """Would catch draws that differ by device, and a kernel that is wrong on one."""
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (64, 32, 32, 3), dtype=np.uint8))
    profiles = default_views(recipe.Augmentation(blur_probability=0.5))
    made = [
        augment(images.to(device), torch.arange(64), 3, 5, profiles, (0.5,) * 3, (0.25,) * 3, hue) for device in ("cpu", "cuda")
    ]
    for ours, theirs in zip(*made, strict=True):
        torch.testing.assert_close(theirs.cpu(), ours, atol=2e-4, rtol=0)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_the_losses_of_the_cpu(data: str, name: str) -> None:
    ours, theirs = (losses(data, calm(name), device, 3)[0] for device in ("cpu", "cuda"))
    assert theirs == pytest.approx(ours, rel=1e-3)


@pytest.mark.parametrize("backbone", [{"name": "resnet-small"}, {"name": "resnet18", "stem": "cifar"}])
@pytest.mark.parametrize("kind", ["lars", "adamw"])
def test_training_twice_ends_in_the_same_bytes(data: str, backbone: dict[str, str], kind: str) -> None:
    """In bf16, with batch normalisation: all kernels of a step are deterministic."""
    prepare(None)
    settings = config("simclr", 6, precision="bf16", backbone=backbone, optimizer={"kind": kind, "learning_rate": 0.05})
    first, second = losses(data, settings, "cuda", 4), losses(data, settings, "cuda", 4)
    assert first[0] == second[0]
    assert all(torch.equal(value, second[1][key]) for key, value in first[1].items())


@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_a_step_does_not_wait_for_the_device(data: str, name: str, resident: bool) -> None:
    """Else calls do not run ahead of the device, which then stands still while the next ones are made."""
    settings = config(name, 6, precision="bf16", stream={"on_device": resident})
    with training(data, settings, "cuda") as trainer:
        for step in range(3):  # the first ones compare batches, and copy what is constant
            trainer.step(step)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            trainer.step(3)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("kind", ["small", "diffusers"])
def test_fitting_twice_ends_in_the_same_bytes(kind: str) -> None:
    """With attention over many pixels, whose fused kernels sum as it comes."""
    prepare(None)
    unet = {"kind": kind, "channels": 64, "multipliers": [1, 2], "attention_below_px": 16}
    settings, images = diffusion(unet=unet, batch=64, precision="bf16"), noise_images(256, 16)
    ends = []
    for _ in range(2):
        trainer, batches = (make(settings, images, torch.device("cuda")) for make in (generator_kind(settings).begin, Batches))
        for step in range(4):
            trainer.step(step, *batches.at(step))
        ends.append(trainer.state())
    assert all(torch.equal(value, ends[1][key]) for key, value in ends[0].items())


@pytest.mark.parametrize("resident", [False, True])
def test_batches_on_the_device_are_those_of_the_stream_while_it_computes(data: str, resident: bool) -> None:
    """Would catch pinned memory that is overwritten before its copy has ended, or used before it."""
    with open_stream({"real": Source(data)}, 32, 1) as ours, open_stream({"real": Source(data)}, 32, 1) as theirs:
        busy, batches = torch.rand(4096, 4096, device="cuda"), DeviceStream(theirs, torch.device("cuda"), resident)
        kept = []
        for _ in range(40):
            busy = busy @ busy / 2048
            kept.append((next(ours).images, next(batches).images_BHWC))
        for expected, found in kept:
            assert np.array_equal(found.cpu().numpy(), expected)


def test_a_compiled_backbone_trains_the_same_within_tolerance(data: str) -> None:
    settings = config("simclr", 6, precision="bf16")
    compiled = settings.model_copy(update={"compile": True})
    assert losses(data, compiled, "cuda", 4)[0] == pytest.approx(losses(data, settings, "cuda", 4)[0], abs=0.05)


@pytest.mark.parametrize("kind", ["diffusion", "gan"])
def test_a_generator_is_fitted_and_draws_as_on_the_cpu(kind: str) -> None:
    """The loss of a step, and images of the same weights: noise is by index, whatever the device."""
    settings = diffusion() if kind == "diffusion" else small()
    images, devices = noise_images(64), [torch.device(name) for name in ("cpu", "cuda")]
    trainers = [generator_kind(settings).begin(settings, images, device) for device in devices]
    lost = [float(each.step(0, *Batches(settings, images, on).at(0))) for each, on in zip(trainers, devices, strict=True)]
    assert lost[1] == pytest.approx(lost[0], rel=1e-3)
    fitted = trainers[0].fitted()
    ours, theirs = (
        sample_images(generator_kind(settings).open(settings, fitted, 8, 0, device), 8, range(16)) for device in devices
    )
    assert len(np.unique(ours, axis=0)) == 16
    assert np.abs(theirs.astype(int) - ours).max() <= 1


def test_ranks_hear_of_a_flag_at_the_same_call() -> None:
    """Would catch an answer that is read before it has come from the device."""
    assert run_on_ranks(2, agreed_on_rank, "cuda") == 2 * [[False, False, False, True, False]]


def test_features_are_those_of_the_cpu() -> None:
    images = np.random.default_rng(0).integers(0, 256, (300, 16, 16, 3), dtype=np.uint8)
    settings = config("simclr", 6)
    encoder = Encoder(settings.backbone, build_encoder(settings, 0), Normalisation((0.5,) * 3, (0.25,) * 3))
    ours, theirs = (extract_local(encoder, images, 100, torch.device(device)) for device in ("cpu", "cuda"))
    np.testing.assert_allclose(theirs, ours, atol=1e-4)


def test_the_chain_ends_in_the_same_bytes_twice(tmp_path: Path) -> None:
    """ingest to report on the GPU, each stage a process of its own; and `doctor` names the device."""
    recipe_file = write_recipe(tmp_path, RECIPE + "  precision: bf16\n")
    for run in ("one", "two"):
        done = adainf("run", recipe_file, "--run", tmp_path / run)
        assert done.returncode == 0, done.stderr
    encoders = [
        {key: value for key, value in artifact_hashes(tmp_path / run).items() if "safetensors" in key} for run in ("one", "two")
    ]
    assert encoders[0]
    assert encoders[0] == encoders[1]
    found = adainf("doctor")
    assert torch.cuda.get_device_name() in found.stdout + found.stderr
