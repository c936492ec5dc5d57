"""The card beside an encoder: the lines of the README that use it work without AdaInf."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import adainf
from adainf import recipe
from adainf.errors import BadInput
from adainf.models.backbones import build_backbone
from adainf.models.card import Card
from adainf.models.encoder import Encoder, Normalisation
from adainf.pipeline.records import Request, sha256
from adainf.recipe import Pretrain
from adainf.storage import open_store

README = Path(__file__).parents[2] / "README.md"


FAMILIES = [
    ("resnet18", "cifar", 1, "torchvision"),
    ("resnet18", "cifar", 2, "torchvision"),
    ("resnet18", "imagenet", 3, "torchvision"),
    ("resnet50", "cifar", 1, "torchvision"),
    ("vit-small", "cifar", 1, "timm"),
    ("resnet-small", "cifar", 1, None),
]


def export(folder: Path, backbone: recipe.Backbone) -> Encoder:
    """An encoder as `adainf export` writes it."""
    encoder = Encoder(backbone, build_backbone(backbone), Normalisation((0.5, 0.4, 0.3), (0.2, 0.25, 0.3))).eval()
    request = Request(stage="pretrain", settings={"arm": "adainf", "seed": 3}, inputs={"real": "0" * 64})
    folder.mkdir()
    data = encoder.to_bytes()
    (folder / "encoder.safetensors").write_bytes(data)
    card = Card.of(encoder, sha256(data), request, Pretrain(backbone=backbone), (32, 32))
    (folder / "encoder.json").write_bytes(card.to_json())
    return encoder


def snippet(imports: str) -> str:
    """The block of the README that imports this."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    (code,) = [block for block in blocks if re.match(rf"import .*\b{imports}\n", block)]
    return code


@pytest.mark.heavy
@pytest.mark.parametrize(("name", "stem", "padding", "library"), FAMILIES)
def test_readmes_lines_load_an_exported_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: Any, stem: Any, padding: int, library: str | None
) -> None:
    encoder = export(tmp_path / "encoder", recipe.Backbone(name=name, stem=stem, stem_padding=padding))
    monkeypatch.chdir(tmp_path)
    images = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    names: dict[str, Any] = {"images": images}
    with torch.no_grad():
        expected = encoder(images)
        exec(snippet("adainf"), names)
        torch.testing.assert_close(names["features"], expected, atol=0, rtol=0)
        if library is not None:
            exec(snippet(library), names)
            mean, std = (torch.tensor(names["card"][key]) for key in ("mean", "std"))
            loaded = names["encoder"].eval()
            features = loaded(((images / 255 - mean) / std).permute(0, 3, 1, 2).contiguous())
            torch.testing.assert_close(features, expected, atol=1e-4, rtol=1e-4)
            assert names["card"]["made_from"] == {"real": "0" * 64}


def test_what_is_not_an_encoder_is_one_sentence(tmp_path: Path, s3_env: str) -> None:
    folder = tmp_path / "encoder"
    encoder = export(folder, recipe.Backbone(name="resnet-small"))
    weights = (folder / "encoder.safetensors").read_bytes()
    store = open_store(f"{s3_env}/encoder")
    store.put("encoder.safetensors", weights)  # without a card
    for uri in (str(folder), f"{folder}/", f"{folder}/encoder.safetensors", store.uri):
        loaded = adainf.load_encoder(uri)
        assert not loaded.training
        assert loaded.to_bytes() == encoder.to_bytes()
    for uri, words in ((str(tmp_path), "contains no encoder.safetensors"), (f"{s3_env}/no", "contains no"), ("", "empty")):
        with pytest.raises(BadInput, match=words):
            adainf.load_encoder(uri)
    broken = {"encoder.safetensors": weights[:-1] + b"x", "encoder.json": b"{}"}
    for name, data in (*broken.items(), ("encoder.json", b"[]")):
        (folder / name).write_bytes(data)
        with pytest.raises(BadInput, match="do not belong together"):
            adainf.load_encoder(str(folder))
