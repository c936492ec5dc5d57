"""Statistics of batch normalisation are those of the real images, on any number of processes, and only where asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adainf import recipe
from adainf.errors import BadInput
from adainf.models.encoder import Encoder, Normalisation
from adainf.models.norm import synchronise_batch_norm
from adainf.pipeline.graph import build_graph, pretrained
from adainf.pipeline.load_recipe import load_recipe
from adainf.pretraining import recalibrate
from adainf.pretraining.loop import build_encoder, make_accelerator
from adainf.pretraining.recalibrate import finished_encoder
from adainf.runtime.determinism import default_device
from tests.processes import run_on_ranks
from tests.tiny import RECIPE, write_recipe

IMAGES = np.random.default_rng(0).integers(0, 256, (48, 8, 8, 3), np.uint8)
NORMALISATION = Normalisation((0.5,) * 3, (0.25,) * 3)


def config(**settings: Any) -> recipe.Pretrain:
    return recipe.Pretrain.model_validate({"backbone": {"name": "resnet-small"}, "bn_recalibrate": True, **settings})


def recalibrated(settings: recipe.Pretrain) -> Encoder:
    backbone = synchronise_batch_norm(build_encoder(settings, 0), default_device())
    return finished_encoder(settings, backbone, NORMALISATION, lambda: IMAGES, torch.device("cpu"))


def recalibrated_bytes(settings: recipe.Pretrain) -> bytes:
    return recalibrated(settings).to_bytes()


def test_the_first_layers_statistics_are_those_of_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch a moving average that keeps the statistics of training, and one that weighs the last batch most."""
    monkeypatch.setattr(recalibrate, "BATCH", 16)
    encoder = recalibrated(config()).eval()
    seen: list[torch.Tensor] = []
    first = next(layer for layer in encoder.modules() if isinstance(layer, torch.nn.BatchNorm2d))
    first.register_forward_hook(lambda layer, inputs, output: seen.append(inputs[0]))
    with torch.no_grad():
        encoder(torch.from_numpy(IMAGES))
    [x_BCHW] = seen
    assert first.running_mean is not None
    torch.testing.assert_close(first.running_mean, x_BCHW.mean((0, 2, 3)))
    assert first.momentum == 0.1


def test_weights_stay_and_the_trained_backbone_too() -> None:
    settings = config()
    trained = build_encoder(settings, 0)
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    after = finished_encoder(settings, trained, NORMALISATION, lambda: IMAGES, torch.device("cpu")).backbone.state_dict()
    assert all(torch.equal(trained.state_dict()[name], value) for name, value in before.items())
    changed = {name.rpartition(".")[2] for name, value in before.items() if not torch.equal(after[name], value)}
    assert changed == {"running_mean", "running_var", "num_batches_tracked"}


def test_two_processes_compute_the_bytes_of_one() -> None:
    """Synchronised layers sum in another order."""
    [one] = run_on_ranks(1, recalibrated_bytes, config())
    assert run_on_ranks(2, recalibrated_bytes, config()) == [one, one]


def test_it_is_part_of_the_request_only_where_it_is_set(tmp_path: Path) -> None:
    def settings(text: str) -> dict[str, Any]:
        return build_graph(load_recipe(write_recipe(tmp_path, text)))[pretrained("none", 0)].settings

    assert "bn_recalibrate" not in settings(RECIPE)
    assert settings(RECIPE.replace("  steps: 12", "  bn_recalibrate: true\n  steps: 12"))["bn_recalibrate"] is True


@pytest.mark.parametrize("backbone", [{"name": "resnet-small", "norm": "group"}, {"name": "vit-small", "image_size_px": 8}])
def test_a_backbone_without_batch_normalisation_is_refused(backbone: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=r"bn_recalibrate is true, but the .* has no batch normalisation"):
        make_accelerator(config(backbone=backbone))


def test_off_it_reads_no_images() -> None:
    def read() -> Any:
        raise AssertionError

    settings = config(bn_recalibrate=False)
    trained = build_encoder(settings, 0)
    assert finished_encoder(settings, trained, NORMALISATION, read, torch.device("cpu")).backbone is trained
