"""Backbones: an image batch in, one feature vector an image out; what they are is recorded with their weights."""

from __future__ import annotations

from collections.abc import Callable

import timm
import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from adainf import recipe

Norm = Callable[[int], nn.Module]

_RESNETS: dict[str, tuple[type[nn.Module], list[int]]] = {
    "resnet18": (BasicBlock, [2, 2, 2, 2]),
    "resnet34": (BasicBlock, [3, 4, 6, 3]),
    "resnet50": (Bottleneck, [3, 4, 6, 3]),
}
_VITS = {"vit-small": "vit_small_patch16_224", "vit-base": "vit_base_patch16_224"}


class Backbone(nn.Module):
    """B x 3 x H x W floats → B x `num_features`."""

    num_features: int


class _Stemmed(Backbone):
    """The stem is `conv1` and `maxpool`."""

    conv1: nn.Conv2d
    maxpool: nn.Module


class TorchvisionResNet(ResNet, _Stemmed):  # type: ignore[misc] # torchvision has no types
    """A ResNet of torchvision without its classifier: the state has torchvision's names."""

    def __init__(self, block: type[nn.Module], layers: list[int], norm: Norm) -> None:
        super().__init__(block, layers, norm_layer=norm)
        self.num_features = int(self.fc.in_features)  # type: ignore[has-type]
        self.fc = nn.Identity()


class ResNetSmall(_Stemmed):
    """Three stages of one residual block, 32-64-128 channels: a ResNet that two CPU cores can train in minutes."""

    def __init__(self, norm: Norm) -> None:
        super().__init__()
        widths = (32, 64, 128)
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.bn1 = norm(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity()
        stages = []
        for before, width in zip((widths[0], *widths), widths, strict=False):
            stride = 1 if before == width else 2
            shortcut = None
            if before != width:
                shortcut = nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), norm(width))
            stages.append(BasicBlock(before, width, stride, shortcut, norm_layer=norm))
        self.stages = nn.Sequential(*stages)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.num_features = widths[-1]

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x_BCHW))))
        pooled: Tensor = self.avgpool(self.stages(x))
        return pooled.flatten(1)


class Vit(Backbone):
    """A vision transformer of timm, whose features are its class token's; `model` has timm's names."""

    def __init__(self, config: recipe.Backbone) -> None:
        super().__init__()
        self.model = timm.create_model(
            _VITS[config.name],
            pretrained=False,
            num_classes=0,
            img_size=config.image_size_px,
            patch_size=config.patch_px,
            dynamic_img_size=True,  # small crops, and images of other sizes
        )
        self.num_features = int(self.model.num_features)  # type: ignore[arg-type]

    def forward(self, x_BCHW: Tensor) -> Tensor:
        features: Tensor = self.model(x_BCHW)
        return features


def build_backbone(config: recipe.Backbone) -> Backbone:
    """The backbone that a recipe names, with fresh weights. Convolutions run channels last, which is the faster on CPUs and
    on GPUs."""
    if config.name in _VITS:
        return Vit(config)
    norm: Norm = nn.BatchNorm2d if config.norm == "batch" else _group_norm
    small = config.name == "resnet-small"
    backbone: _Stemmed = ResNetSmall(norm) if small else TorchvisionResNet(*_RESNETS[config.name], norm)
    width = backbone.conv1.out_channels
    if config.stem == "cifar":
        # Padding 2 (34 x 34 maps from 32 x 32 images) has the same weight shapes as padding 1: it must be recorded.
        backbone.conv1 = nn.Conv2d(3, width, 3, stride=1, padding=config.stem_padding, bias=False)
        backbone.maxpool = nn.Identity()
    else:
        backbone.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=config.stem_padding, bias=False)
        backbone.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
    nn.init.kaiming_normal_(backbone.conv1.weight, mode="fan_out", nonlinearity="relu")
    return backbone.to(memory_format=torch.channels_last)


def _group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(min(32, channels // 4), channels)
