"""Validation while an encoder trains: an online linear probe, and nearest neighbours on the validation split."""

from __future__ import annotations

import numpy as np
from accelerate import Accelerator

from adainf.evaluation.features import Features, extract_local
from adainf.evaluation.neighbours import majority_vote, nearest
from adainf.models.backbones import Backbone
from adainf.models.encoder import Encoder, Normalisation
from adainf.pretraining.loop import Judges
from adainf.recipe import Recipe
from adainf.shards.format.folder import ShardFolder
from adainf.shards.loader import read_all


def validation_judges(recipe: Recipe, real: ShardFolder, normalisation: Normalisation, accelerator: Accelerator) -> Judges:
    """What `pretrain.monitor` asks for: labels of train and validation are read, never those of test."""
    config = recipe.pretrain.monitor
    classes = len(real.shards.classes) if config.online_probe else 0
    if config.knn_every_steps is None or not real.shards.splits["validation"].images:
        return Judges(classes)
    train, validation = (read_all.read_split(real, name) for name in ("train", "validation"))
    known = np.flatnonzero(train.labels >= 0)[: config.knn_images]
    among, judged = np.flatnonzero(validation.labels >= 0), recipe.evaluate

    def knn(backbone: Backbone) -> float:
        encoder = Encoder(recipe.pretrain.backbone, backbone, normalisation)
        mine, theirs = (
            Features(extract_local(encoder, split.images[rows], judged.batch, accelerator.device), split.labels[rows])
            for split, rows in ((train, known), (validation, among))
        )
        voted = majority_vote(nearest(mine, theirs, judged.knn_neighbours), judged.knn_neighbours)
        return float(np.mean(voted == theirs.labels))

    return Judges(classes, knn if len(known) and len(among) else None)
