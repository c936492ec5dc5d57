"""The evaluation protocol of every encoder: linear probe, kNN, and optional fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from adainf.evaluation.features import Features, extract
from adainf.evaluation.finetune import finetune_hits
from adainf.evaluation.linear import lbfgs_probe, sgd_probe
from adainf.evaluation.neighbours import majority_vote, nearest, weighted_vote
from adainf.evaluation.scores import Measure, SeedScores
from adainf.models.encoder import Encoder
from adainf.recipe import Evaluate
from adainf.shards.loader.read_all import Labelled

SPLITS = ("train", "validation", "test")


def can_evaluate(splits: Mapping[str, Labelled]) -> bool:
    """Whether a probe can be fitted and scored: labels of at least two classes in train, and labels in test."""
    train, test = (splits[name].labels[splits[name].labels >= 0] for name in ("train", "test"))
    return len(np.unique(train)) > 1 and len(test) > 0


def measure(
    encoder: Encoder, splits: Mapping[str, Labelled], config: Evaluate, seed: int | None, device: torch.device
) -> SeedScores:
    """All measures of one encoder on the labelled images; see `can_evaluate`.

    `splits` are train, validation (possibly empty) and test. Every process of a launch calls this: features are computed by all
    processes together, and then each fits the same probes, so that no process runs into a collective's timeout.
    """
    labelled = {name: _labelled(splits[name]) for name in SPLITS}
    train, validation, test = (
        Features(extract(encoder, images, config.batch, device), labels) for images, labels in labelled.values()
    )
    measures = [_linear(train, validation, test, config, seed), *_neighbours(train, test, config, seed)]
    if config.finetune is not None:
        # An encoder file has no seed: use the first one's.
        hits = finetune_hits(encoder, labelled["train"], labelled["test"], config.finetune, seed or 0, device)
        measures.append(Measure.of("finetune", hits, seed, config.finetune.model_dump(mode="json")))
    return SeedScores(measures=measures)


def _labelled(split: Labelled) -> Labelled:
    known = split.labels >= 0
    return split if known.all() else Labelled(split.images[known], split.labels[known])  # no copy of a memory-mapped split


def _linear(train: Features, validation: Features, test: Features, config: Evaluate, seed: int | None) -> Measure:
    if config.linear == "lbfgs":
        score, chosen = lbfgs_probe(train, validation, test, config.l2_grid), "l2"
    else:
        score, chosen = sgd_probe(train, validation, test, config.learning_rate_grid), "learning_rate"
    return Measure.of("linear", score.hits, seed, {"solver": config.linear}, chosen={chosen: score.chosen})


def _neighbours(train: Features, test: Features, config: Evaluate, seed: int | None) -> list[Measure]:
    found = nearest(train, test, max(config.knn_neighbours, *config.weighted_knn_neighbours))

    temperature = config.knn_temperature
    majority = majority_vote(found, config.knn_neighbours) == test.labels
    weighted = {k: weighted_vote(found, k, temperature) == test.labels for k in config.weighted_knn_neighbours}
    return [
        Measure.of("knn", majority, seed, {"neighbours": config.knn_neighbours}),
        *(
            Measure.of("knn-weighted", hits, seed, {"neighbours": k, "temperature": temperature})
            for k, hits in weighted.items()
        ),
    ]
