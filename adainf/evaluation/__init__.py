"""Evaluation of encoders by one protocol: features, linear and kNN probes, fine-tuning, and InfoNCE."""
