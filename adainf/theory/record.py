"""What was measured of the theory on a run, and the ladder of strengths on which it is."""

from __future__ import annotations

from adainf.pipeline.artifacts import Record

LADDER = (1.0, 0.6, 0.4, 0.2, 0.08, 0.02)
"""Min scales of the crop, weakest first; the rest of the views is the recipe's default profile."""
VIEWS = 6
"""Of each image, as ARC's authors take."""
REAL_IMAGES, GENERATED_IMAGES = 256, 768
"""Most images of a graph."""
EVALUATOR_STEPS = 2000
"""Most steps; an arm of fewer steps is long enough for its evaluator, too."""


class Connectivity(Record):
    """How views of different images hang together at one strength."""

    images: int
    acr: float
    """Share of views whose nearest other view is of another image."""
    acr_untrained: float
    """The same on the features that training started from."""
    arc: float | None
    """(1 - ACR) / (1 - ACR untrained); null where the untrained encoder confuses all views."""
    connectivity: float
    """lambda_{k+1} of the sampled graph, k the number of classes."""
    bound: float | None
    """4 alpha / lambda_{k+1} + 8 alpha; null is infinite. Above 1 it says nothing."""


class Rung(Record):
    """One strength of the ladder."""

    min_scale: float
    labelling_error: float
    """Share of views of validation images that the evaluator takes for another class."""
    graphs: dict[str, Connectivity]
    """`real`; `inflated`, the same and generated images; `more real`, as many real ones where there are so many."""


class Theory(Record):
    """The content of ``theory/ARM``."""

    arm: str
    seed: int
    features: int
    """k, the number of classes."""
    evaluator_error: float
    """Of validation images without augmentation: what of each labelling error is the evaluator's own."""
    bandwidth: float
    """Of the kernel."""
    rungs: list[Rung]
