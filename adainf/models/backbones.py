"""The interface of a backbone, and how the recipe's backbone is built; `resnet` and `vit` are the implementations."""

from __future__ import annotations

from pkgutil import resolve_name

from torch import nn

from adainf import recipe
from adainf.recipe.pretrain import BACKBONES


class Backbone(nn.Module):
    """B x 3 x H x W floats → B x `num_features`."""

    num_features: int


def build_backbone(config: recipe.Backbone) -> Backbone:
    """The backbone that the recipe names, with newly initialised weights. Imports its module."""
    backbone: Backbone = resolve_name(BACKBONES[config.name])(config)
    return backbone
