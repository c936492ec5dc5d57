"""Features with known separability."""

from __future__ import annotations

import numpy as np

from adainf.evaluation.features import Features

NOTHING = Features(np.empty((0, 5), np.float32), np.empty(0, np.int64))


def clusters(count: int, seed: int, noise: float = 0.1) -> Features:
    """Three classes on three directions of five dimensions."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, count)
    values = np.eye(5)[labels] + noise * random.standard_normal((count, 5))
    return Features(values.astype(np.float32), labels)
