"""Generative models, fitted on the real training images of the run without labels; one file per kind."""

from __future__ import annotations

from pkgutil import resolve_name

from adainf.generators.kind import GeneratorKind
from adainf.recipe import FittedGenerator


def generator_kind(config: FittedGenerator) -> GeneratorKind:
    """The kind that the settings name. Imports its module."""
    kind: GeneratorKind = resolve_name(config.implementation)
    return kind
