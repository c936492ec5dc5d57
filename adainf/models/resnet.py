"""ResNets of torchvision with the stem and normalisation of the recipe, and a small one for CPUs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from adainf import recipe
from adainf.models.backbones import Backbone

Norm = Callable[[int], nn.Module]

_RESNETS: dict[str, tuple[type[nn.Module], list[int]]] = {
    "resnet18": (BasicBlock, [2, 2, 2, 2]),
    "resnet34": (BasicBlock, [3, 4, 6, 3]),
    "resnet50": (Bottleneck, [3, 4, 6, 3]),
}


class _Stemmed(Backbone):
    """A backbone whose stem is `conv1` and `maxpool`."""

    conv1: nn.Conv2d
    maxpool: nn.Module


class TorchvisionResNet(ResNet, _Stemmed):  # type: ignore[misc] # torchvision has no types
    """A ResNet of torchvision without its classifier; the state dict has torchvision's names."""

    def __init__(self, block: type[nn.Module], layers: list[int], norm: Norm) -> None:
        super().__init__(block, layers, norm_layer=norm)
        self.num_features = int(self.fc.in_features)  # type: ignore[has-type]
        self.fc = nn.Identity()


class ResNetSmall(_Stemmed):
    """Three stages of one residual block each, 32-64-128 channels: trains in minutes on two CPU cores."""

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


def build_resnet(config: recipe.Backbone) -> Backbone:
    """The ResNet that the recipe names, with newly initialised weights, in channels-last layout, which is faster on CPUs and
    GPUs."""
    norm: Norm = nn.BatchNorm2d if config.norm == "batch" else _group_norm
    small = config.name == "resnet-small"
    backbone: _Stemmed = ResNetSmall(norm) if small else TorchvisionResNet(*_RESNETS[config.name], norm)
    width = backbone.conv1.out_channels
    if config.stem == "cifar":
        # Padding 2 (34 x 34 maps from 32 x 32 images) has the weight shapes of padding 1, so it must be recorded.
        backbone.conv1 = nn.Conv2d(3, width, 3, stride=1, padding=config.stem_padding, bias=False)
        backbone.maxpool = nn.Identity()
    else:
        backbone.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=config.stem_padding, bias=False)
        backbone.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
    nn.init.kaiming_normal_(backbone.conv1.weight, mode="fan_out", nonlinearity="relu")
    return backbone.to(memory_format=torch.channels_last)


def _group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(min(32, channels // 4), channels)
