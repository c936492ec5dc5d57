"""Adaptive data inflation for contrastive learning: measure generated data, plan the inflation, compare it with controls."""

__version__ = "0.1.0"
