"""Contrastive pretraining: the loop, one step, optimisers with their schedules, and metrics."""
