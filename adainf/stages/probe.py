"""One probe of verify: an encoder trained for a few steps in one setting, and its score on the validation split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from accelerate import Accelerator

from adainf.augment.profiles import Views
from adainf.errors import BadInput, StageFailed
from adainf.evaluation.features import Features, extract_local
from adainf.evaluation.infonce import MOST_IMAGES, infonce
from adainf.evaluation.linear import lbfgs_probe
from adainf.evaluation.neighbours import majority_vote, nearest
from adainf.inflation.search import Setting
from adainf.models.encoder import Encoder, Normalisation
from adainf.pipeline.progress import Reporter
from adainf.pretraining.loop import pretrain_arm
from adainf.pretraining.recalibrate import finished_encoder
from adainf.pretraining.trainer import Experiment
from adainf.recipe import Pretrain, Recipe
from adainf.shards.format.folder import ShardFolder
from adainf.shards.loader.read_all import Labelled
from adainf.stages.mixture import Mixture

Judge = Literal["linear", "knn", "infonce"]


def judge_for(recipe: Recipe, splits: Mapping[str, Labelled]) -> Judge:
    """The score that the recipe asks for. Raises `BadInput` where it needs labels that are not there."""
    assert recipe.plan.verify is not None
    wanted = recipe.plan.verify.judged_by
    classes = len(np.unique(splits["train"].labels[splits["train"].labels >= 0]))
    labelled = classes > 1 and (splits["validation"].labels >= 0).any()
    if wanted == "auto":
        return "linear" if labelled else "infonce"
    if wanted != "infonce" and not labelled:
        raise BadInput(
            f"plan.verify.judged_by is {wanted}, and train and validation have no labels of two classes; set it to infonce, "
            "which needs none"
        )
    return wanted


@dataclass(frozen=True)
class Probe:
    """The parts that all probes share."""

    recipe: Recipe
    config: Pretrain
    """That of the recipe, with a probe's steps."""
    real: ShardFolder
    sources: Mapping[str, ShardFolder]
    """Generated images."""
    splits: Mapping[str, Labelled]
    """Train and validation of the real images."""
    judge: Judge
    judging_views: Views
    """The plan's views, under which `infonce` scores every setting; if they bias, then towards the plan."""
    accelerator: Accelerator

    @property
    def validation_images(self) -> int:
        """The number of images that a score is computed on."""
        labels = self.splits["validation"].labels
        return min(len(labels), MOST_IMAGES) if self.judge == "infonce" else int((labels >= 0).sum())

    def mixture(self, setting: Setting) -> Mixture:
        return Mixture.of(self.real, self.sources, setting.real_weight, setting.weights, setting.views)

    def score(self, setting: Setting, seed: int) -> float | None:
        """Train, then score; higher is better. None where training fails for good, as very strong augmentation may cause.

        The seed has the meaning that it has for `pretrain`. A probe has no checkpoints: a stop costs this probe.
        """
        mixture = self.mixture(setting)
        normalisation = Normalisation.of(self.real.split("train"))
        tokens = mixture.captions(self.config)
        try:
            with mixture.open(self.config, seed, self.accelerator) as stream:
                experiment = Experiment(self.config, seed, stream, mixture.views, normalisation, tokens)
                trained = pretrain_arm(experiment, self.accelerator, None, Reporter(quiet=True), f"probe {setting.name}")
        except StageFailed:
            return None
        images, device = self.splits["train"].images, self.accelerator.device
        encoder = finished_encoder(self.config, trained.backbone, normalisation, lambda: images, device)
        return round(self._judged(encoder), 6)

    def _judged(self, encoder: Encoder) -> float:
        device, judged = self.accelerator.device, self.recipe.evaluate
        if self.judge == "infonce":
            images, hue = self.splits["validation"].images, self.config.augmentation.hue
            return -infonce(encoder, images, self.judging_views, hue, device).loss
        train, validation = (
            Features(extract_local(encoder, images[labels >= 0], judged.batch, device), labels[labels >= 0])
            for images, labels in (self.splits["train"], self.splits["validation"])
        )
        if self.judge == "knn":
            voted = majority_vote(nearest(train, validation, judged.knn_neighbours), judged.knn_neighbours)
            return float(np.mean(voted == validation.labels))
        # The validation split gives the score, so it must not choose the penalty as well.
        nothing = Features(validation.values[:0], validation.labels[:0])
        return lbfgs_probe(train, nothing, validation, judged.l2_grid).accuracy
