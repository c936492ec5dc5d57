"""The upper bound on a linear probe's error from labelling error and connectivity."""

from __future__ import annotations

import math


def error_bound(labelling_error: float, connectivity: float) -> float:
    """4 alpha / lambda_{k+1} + 8 alpha; 0 for zero labelling error, infinite for a graph of more than k components.

    `labelling_error`: alpha, the probability that a view has another label than its image. `connectivity`: lambda_{k+1} of the
    augmentation graph's normalised Laplacian. Theorem 4.1 of the paper without its third term, the distance between real and
    inflated data; the constants are those of HaoChen et al. 2021, 2 phi / lambda + 8 alpha with phi at most 2 alpha.
    """
    if labelling_error == 0:
        return 0.0
    return 4 * labelling_error / connectivity + 8 * labelling_error if connectivity > 0 else math.inf
