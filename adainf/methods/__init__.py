"""Contrastive methods, one file each: the loss as a pure function, and the module that a training step calls."""

from __future__ import annotations

from pkgutil import resolve_name

from adainf import recipe
from adainf.methods.method import Method
from adainf.models.backbones import Backbone


def build_method(config: recipe.Method, backbone: Backbone) -> Method:
    """The method that the settings name, around `backbone`, with newly initialised heads. Imports its module."""
    method: Method = resolve_name(config.implementation)(backbone, config)
    return method
