"""Contrastive methods, one file each: the loss as a pure function, and the module that a training step calls."""

from __future__ import annotations

from adainf import recipe
from adainf.methods.simclr import SimClr
from adainf.models.backbones import Backbone


def build_method(config: recipe.SimClr, backbone: Backbone) -> SimClr:
    """The method around a backbone; its forward takes two views and returns the loss."""
    return SimClr(backbone, config)
