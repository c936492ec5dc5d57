"""Backbones: an image batch in, one feature vector an image out; what they are is recorded with their weights."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet

from adainf import recipe


class Backbone(nn.Module):
    """B x 3 x H x W floats → B x `num_features`; the stem is `conv1` and `maxpool`."""

    num_features: int
    conv1: nn.Conv2d
    maxpool: nn.Module


class ResNet18(ResNet, Backbone):  # type: ignore[misc] # torchvision has no types
    """torchvision's ResNet-18 without its classifier."""

    def __init__(self) -> None:
        super().__init__(BasicBlock, [2, 2, 2, 2])
        self.num_features = 512
        self.fc = nn.Identity()


class ResNetSmall(Backbone):
    """Three stages of one residual block, 32-64-128 channels: a ResNet that two CPU cores can train in minutes."""

    def __init__(self) -> None:
        super().__init__()
        widths = (32, 64, 128)
        self.conv1 = nn.Conv2d(3, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity()
        stages = []
        for before, width in zip((widths[0], *widths), widths, strict=False):
            stride = 1 if before == width else 2
            shortcut = None
            if before != width:
                shortcut = nn.Sequential(nn.Conv2d(before, width, 1, stride, bias=False), nn.BatchNorm2d(width))
            stages.append(BasicBlock(before, width, stride, shortcut))
        self.stages = nn.Sequential(*stages)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.num_features = widths[-1]

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x_BCHW))))
        pooled: Tensor = self.avgpool(self.stages(x))
        return pooled.flatten(1)


def build_backbone(config: recipe.Backbone) -> Backbone:
    """The backbone that a recipe names, with fresh weights."""
    backbone: Backbone = ResNetSmall() if config.name == "resnet-small" else ResNet18()
    width = backbone.conv1.out_channels
    if config.stem == "cifar":
        # Padding 2 (34 x 34 maps from 32 x 32 images) has the same weight shapes as padding 1: it must be recorded.
        backbone.conv1 = nn.Conv2d(3, width, 3, stride=1, padding=config.stem_padding, bias=False)
        backbone.maxpool = nn.Identity()
    else:
        backbone.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=config.stem_padding, bias=False)
        backbone.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
    nn.init.kaiming_normal_(backbone.conv1.weight, mode="fan_out", nonlinearity="relu")
    return backbone
