"""Contrastive methods, one file each: the loss as a pure function, and the module that a training step calls."""

from __future__ import annotations

from typing import Any

from adainf import recipe
from adainf.methods.barlow import BarlowTwins
from adainf.methods.byol import Byol
from adainf.methods.clip import Clip
from adainf.methods.dino import Dino
from adainf.methods.method import Method
from adainf.methods.moco import MoCo
from adainf.methods.simclr import SimClr
from adainf.methods.simsiam import SimSiam
from adainf.methods.spectral import Spectral
from adainf.methods.vicreg import VicReg
from adainf.models.backbones import Backbone

METHODS: dict[type[Any], type[Any]] = {
    recipe.SimClr: SimClr,
    recipe.MoCo: MoCo,
    recipe.Byol: Byol,
    recipe.SimSiam: SimSiam,
    recipe.BarlowTwins: BarlowTwins,
    recipe.VicReg: VicReg,
    recipe.Spectral: Spectral,
    recipe.Dino: Dino,
    recipe.Clip: Clip,
}
"""The module of each class of settings."""


def build_method(config: recipe.Method, backbone: Backbone) -> Method:
    """The method around a backbone, with fresh weights of its own."""
    method: Method = METHODS[type(config)](backbone, config)
    return method
