"""Backbones: their sizes, names of their weights, and what a stem or a norm changes."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import nn

from adainf import recipe
from adainf.models.backbones import build_backbone
from adainf.models.norm import SplitBatchNorm, batch_norms, split_batch_norm


@pytest.mark.parametrize(
    ("name", "features"),
    [("resnet18", 512), ("resnet34", 512), ("resnet50", 2048), ("resnet-small", 128), ("vit-small", 384), ("vit-base", 768)],
)
def test_an_image_becomes_one_vector(name: Any, features: int) -> None:
    backbone = build_backbone(recipe.Backbone(name=name)).eval()
    assert backbone.num_features == features
    with torch.no_grad():
        assert backbone(torch.rand(2, 3, 32, 32)).shape == (2, features)
        assert backbone(torch.rand(2, 3, 24, 24)).shape == (2, features)  # a small crop


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_with_the_imagenet_stem_it_is_torchvisions(name: Any) -> None:
    ours = build_backbone(recipe.Backbone(name=name, stem="imagenet", stem_padding=3)).eval()
    theirs = getattr(torchvision.models, name)().eval()
    theirs.fc = nn.Identity()
    theirs.load_state_dict(ours.state_dict())
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-4, rtol=1e-4)


def test_a_vit_is_timms() -> None:
    ours = build_backbone(recipe.Backbone(name="vit-small", image_size_px=32, patch_px=8)).eval()
    theirs = timm.create_model("vit_small_patch16_224", num_classes=0, img_size=32, patch_size=8).eval()
    theirs.load_state_dict({key.removeprefix("model."): value for key, value in ours.state_dict().items()})
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-4)


def test_group_normalisation_keeps_images_apart() -> None:
    x = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    grouped = build_backbone(recipe.Backbone(name="resnet-small", norm="group")).train()
    assert batch_norms(grouped) == []
    torch.testing.assert_close(grouped(x)[:2], grouped(x[:2]), atol=1e-5, rtol=1e-5)
    batched = build_backbone(recipe.Backbone(name="resnet-small")).train()
    assert not torch.allclose(batched(x)[:2], batched(x[:2]), atol=1e-3)


def test_the_paddings_of_a_stem_see_other_maps_with_the_same_weights() -> None:
    one, two = (build_backbone(recipe.Backbone(name="resnet-small", stem_padding=padding)).eval() for padding in (1, 2))
    two.load_state_dict(one.state_dict())
    x = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        assert one.conv1(x).shape[2:] == (16, 16)
        assert two.conv1(x).shape[2:] == (18, 18)
        assert not torch.allclose(one(x), two(x))


def test_split_statistics_are_separate_for_each_group() -> None:
    x = 3 * torch.randn(12, 4, 5, 5, generator=torch.Generator().manual_seed(0)) + 1
    norm = nn.BatchNorm2d(4)
    nn.init.uniform_(norm.weight)
    plain = nn.Sequential(norm)
    groups = [nn.Sequential(nn.BatchNorm2d(4)) for _ in range(3)]
    for group in groups:
        group.load_state_dict(plain.state_dict())
    split = split_batch_norm(plain, 3)
    assert type(split[0]) is SplitBatchNorm
    expected = torch.cat([group(part) for group, part in zip(groups, x.chunk(3), strict=True)])
    torch.testing.assert_close(split(x), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(split[0].running_mean, torch.stack([group[0].running_mean for group in groups]).mean(0))
    torch.testing.assert_close(split[0].running_var, torch.stack([group[0].running_var for group in groups]).mean(0))
    assert split.state_dict().keys() == groups[0].state_dict().keys()
