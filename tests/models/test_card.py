"""The card beside an encoder: the lines of the README that use it work without AdaInf."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torchvision

from adainf import recipe
from adainf.models.backbones import build_backbone
from adainf.models.card import Card
from adainf.models.encoder import Encoder, Normalisation
from adainf.pipeline.records import Request
from adainf.recipe import Pretrain

README = Path(__file__).parents[2] / "README.md"


@pytest.mark.heavy
@pytest.mark.parametrize(("name", "padding"), [("resnet18", 1), ("resnet18", 2), ("resnet50", 1)])
def test_readmes_lines_load_an_exported_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: Any, padding: int
) -> None:
    backbone = recipe.Backbone(name=name, stem="cifar", stem_padding=padding)
    encoder = Encoder(backbone, build_backbone(backbone), Normalisation((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))).eval()
    request = Request(stage="pretrain", settings={"arm": "adainf", "seed": 3}, inputs={"real": "0" * 64})
    folder = tmp_path / "encoder"
    folder.mkdir()
    (folder / "encoder.safetensors").write_bytes(encoder.to_bytes())
    card = Card.of(encoder, "1" * 64, request, Pretrain(backbone=backbone), (32, 32))
    (folder / "encoder.json").write_bytes(card.to_json())
    monkeypatch.chdir(tmp_path)
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", README.read_text(), re.S) if "encoder.json" in block]
    names: dict[str, Any] = {"json": json, "safetensors": safetensors, "torch": torch, "torchvision": torchvision}
    exec(code, names)
    images = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    mean, std = (torch.tensor(names["card"][key]) for key in ("mean", "std"))
    loaded = names["encoder"].eval()
    with torch.no_grad():
        features = loaded(((images / 255 - mean) / std).permute(0, 3, 1, 2).contiguous())
        torch.testing.assert_close(features, encoder(images), atol=1e-4, rtol=1e-4)
    assert names["card"]["made_from"] == {"real": "0" * 64}
