"""Validation while an encoder trains: an online linear probe, and nearest neighbours on the validation split."""

from __future__ import annotations

import numpy as np
from accelerate import Accelerator

from adainf.evaluation.features import Features, extract_local
from adainf.evaluation.neighbours import majority_vote, nearest
from adainf.models.backbones import Backbone
from adainf.models.encoder import Encoder, Normalisation
from adainf.pretraining.loop import OnlineValidation
from adainf.recipe import Recipe
from adainf.shards.format.folder import ShardFolder
from adainf.shards.loader import read_all


def online_validation(
    recipe: Recipe, real: ShardFolder, normalisation: Normalisation, accelerator: Accelerator
) -> OnlineValidation:
    """The metrics with labels that `pretrain.monitor` enables; reads labels of train and validation, never of test."""
    config = recipe.pretrain.monitor
    classes = len(real.shards.classes) if config.online_probe else 0
    if config.knn_every_steps is None or not real.shards.splits["validation"].images:
        return OnlineValidation(classes)
    train, validation = (read_all.read_split(real, name) for name in ("train", "validation"))
    known = np.flatnonzero(train.labels >= 0)[: config.knn_images]
    among, evaluate = np.flatnonzero(validation.labels >= 0), recipe.evaluate

    def knn(backbone: Backbone) -> float:
        encoder = Encoder(recipe.pretrain.backbone, backbone, normalisation)
        mine, theirs = (
            Features(extract_local(encoder, split.images[rows], evaluate.batch, accelerator.device), split.labels[rows])
            for split, rows in ((train, known), (validation, among))
        )
        voted = majority_vote(nearest(mine, theirs, evaluate.knn_neighbours), evaluate.knn_neighbours)
        return float(np.mean(voted == theirs.labels))

    return OnlineValidation(classes, knn if len(known) and len(among) else None)
