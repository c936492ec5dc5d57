"""Records of the theory's quantities measured on a run, and the grid of augmentation strengths."""

from __future__ import annotations

from adainf.pipeline.records import Record

MIN_SCALES = (1.0, 0.6, 0.4, 0.2, 0.08, 0.02)
"""Min scales of the crop, weakest first; all other augmentation settings are the recipe's default profile."""
VIEWS = 6
"""Views per image, as in the ARC paper."""
REAL_IMAGES, GENERATED_IMAGES = 256, 768
"""Maximum number of images in a graph."""
EVALUATOR_STEPS = 2000
"""Maximum number of steps; the evaluator never trains longer than an arm."""


class Connectivity(Record):
    """Connectivity of views of different images at one strength."""

    images: int
    acr: float
    """Share of views whose nearest other view is of another image."""
    acr_untrained: float
    """The same on the features of the untrained encoder."""
    arc: float | None
    """(1 - ACR) / (1 - ACR untrained); null if the untrained ACR is 1."""
    connectivity: float
    """lambda_{k+1} of the sampled graph, k the number of classes."""
    bound: float | None
    """4 alpha / lambda_{k+1} + 8 alpha; null is infinite. Vacuous above 1."""


class StrengthResult(Record):
    """Results at one strength."""

    min_scale: float
    labelling_error: float
    """Share of views of validation images that the evaluator misclassifies."""
    graphs: dict[str, Connectivity]
    """`real`; `inflated`: the same plus generated images; `more real`: equally many real images, if available."""


class Theory(Record):
    """The content of ``theory/ARM``."""

    arm: str
    seed: int
    features: int
    """k, the number of classes."""
    evaluator_error: float
    """Error on validation images without augmentation: the evaluator's own part of each labelling error."""
    bandwidth: float
    """Of the kernel."""
    rungs: list[StrengthResult]
