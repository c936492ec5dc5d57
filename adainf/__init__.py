"""Adaptive data inflation for contrastive learning: measure, decide, explain, and prove it against the controls."""

__version__ = "0.1.0"
