"""Generative models, fitted on the run's own real images only and without labels."""
