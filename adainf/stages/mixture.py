"""What an arm trains on: sources of images, their weights and the views."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray
from pydantic import JsonValue

from adainf.augment.profiles import Views, default_views
from adainf.errors import BadInput
from adainf.inflation.record import InflationPlan
from adainf.inflation.search import VerifyResult
from adainf.methods.clip import tokens_of
from adainf.pipeline.artifacts import Run
from adainf.pipeline.graph import POSITIVES, generated_sets
from adainf.pipeline.records import Manifest
from adainf.recipe import REAL_ALONE, WITH_CANDIDATES, Arm, Clip, Pretrain, Recipe, Replace
from adainf.shards import Companions, Source, Stream, open_stream
from adainf.shards.format.folder import ShardFolder
from adainf.shards.loader import read_all
from adainf.shards.loader.mixture import MixtureSchedule


@dataclass(frozen=True)
class Mixture:
    """The sources, weights and views of an arm; no image is read before `open`."""

    folders: dict[str, ShardFolder]
    """`real`, then the sources of generated images that the arm draws from, in the order of their names."""
    weights: dict[str, float]
    """Weight of one image of each source."""
    views: Views
    companions: Companions | None = None
    """Candidates of the real images."""

    @classmethod
    def of(
        cls,
        real: ShardFolder,
        sources: Mapping[str, ShardFolder],
        real_weight: float,
        weights: Mapping[str, float],
        views: Views,
    ) -> Mixture:
        """The mixture of the real images and the `sources` in `weights`; without any, a real image has weight 1."""
        used = {name: folder for name, folder in sorted(sources.items()) if name in weights}
        drawn = {"real": real_weight if used else 1.0, **{name: weights[name] for name in used}}
        return cls({"real": real, **used}, drawn, views)

    @property
    def real(self) -> ShardFolder:
        return self.folders["real"]

    @property
    def counts(self) -> list[int]:
        return [folder.shards.splits["train"].images for folder in self.folders.values()]

    @classmethod
    def for_arm(cls, recipe: Recipe, run: Run, arm: Arm, inputs: Mapping[str, Manifest]) -> Mixture:
        """The mixture of an arm, by the plan and by verify where it uses them; `inputs` are those of its encoder.

        Raises `BadInput` where a batch takes more images of a source than it has.
        """
        mixture = cls._for_arm(recipe, run, arm, inputs)
        if arm in WITH_CANDIDATES:
            assert recipe.positives is not None
            use, folder = recipe.positives.use, ShardFolder.of(run, POSITIVES, inputs[POSITIVES])
            probability = use.probability if isinstance(use, Replace) else 1.0
            mixture = replace(mixture, companions=Companions(folder, "real", probability, random=arm == "random-positives"))
        check_batch(recipe, arm, mixture.counts, list(mixture.weights.values()))
        return mixture

    @classmethod
    def _for_arm(cls, recipe: Recipe, run: Run, arm: Arm, inputs: Mapping[str, Manifest]) -> Mixture:
        real, default = ShardFolder.of(run, "real", inputs["real"]), default_views(recipe.pretrain.augmentation)
        if "plan" not in inputs:
            everything = {name: ShardFolder.of(run, name, inputs[name]) for name in generated_sets(recipe) if name in inputs}
            return cls.of(real, everything, 1.0, dict.fromkeys(everything, 1.0), default)
        plan = inputs["plan"].content_as(InflationPlan)
        if arm in REAL_ALONE:
            return cls.of(real, {}, 1.0, {}, plan.views)
        sources = planned_sources(run, plan, inputs)
        if "verify" in inputs:
            chosen = inputs["verify"].content_as(VerifyResult).chosen
            return cls.of(real, sources, chosen.real_weight, chosen.weights, chosen.views)
        if arm == "weak":
            return cls.of(real, sources, 1.0, dict.fromkeys(plan.weights, 1.0), plan.views)
        return cls.of(real, sources, plan.real_weight, plan.weights, default if arm == "reweighted" else plan.views)

    def captions(self, config: Pretrain) -> list[NDArray[np.uint8]]:
        """The captions of each source, for a method that reads them. Raises `BadInput` where an image has none."""
        if not isinstance(config.method, Clip):
            return []
        return [tokens_of(read_all.read_texts(folder, "train"), config.method.text_bytes) for folder in self.folders.values()]

    def open(self, config: Pretrain, seed: int, accelerator: Accelerator) -> Stream:
        """The stream of batches of this process."""
        originals = self.real.shards.originals
        return open_stream(
            {name: Source(folder, self.weights[name]) for name, folder in self.folders.items()},
            config.global_batch,
            seed,
            rank=accelerator.process_index,
            world=accelerator.num_processes,
            window_shards=config.stream.window_shards,
            damage=config.stream.damage,
            prefetch_batches=config.stream.prefetch_batches,
            size_px=None if originals is None else originals.size_px,
            cached="auto" if originals is None else "encoded",
            companions=self.companions,
        )

    def describe(self, config: Pretrain) -> dict[str, JsonValue]:
        """What the encoder's manifest states: weights, shares, views, and passes over each kind of image."""
        drawn, counts = config.steps * config.global_batch, self.counts
        shares = [float(share) for share in MixtureSchedule(counts, list(self.weights.values()), 0).shares]
        generated_share = sum(shares[1:])
        return {
            "real_weight": self.weights["real"],
            "generated_share": round(generated_share, 6),
            "shares": {name: round(share, 6) for name, share in zip(self.folders, shares, strict=True)},
            "passes_per_real_image": round(drawn * shares[0] / counts[0], 4),
            "passes_per_generated_image": round(drawn * generated_share / max(sum(counts[1:]), 1), 4),
            "views": [view.model_dump(mode="json") for view in self.views],
        }


def planned_sources(run: Run, plan: InflationPlan, manifests: Mapping[str, Manifest]) -> dict[str, ShardFolder]:
    """The shards of each source of the plan; `manifests` are those of their artifacts."""
    return {name: ShardFolder.of(run, name, manifests[name]) for name in plan.inputs.sources}


def check_batch(recipe: Recipe, arm: str, counts: Sequence[int], weights: Sequence[float]) -> None:
    """Raise `BadInput` where a batch takes more images of a source than there are: copies would be their own negatives.

    (Where a pass over a source ends within a batch a few images can still come twice.)
    """
    batch = recipe.pretrain.global_batch
    try:
        shares = MixtureSchedule(counts, weights, 0).shares
    except ValueError as error:
        raise BadInput(f"arm {arm!r}: {error}") from None
    for count, share in zip(counts, shares, strict=True):
        if batch * share > count:
            raise BadInput(
                f"pretrain.global_batch is {batch}, of which arm {arm!r} would take {math.ceil(batch * share)}, more than the "
                f"{count} training images that there are; choose at most {math.floor(count / share)}, or give more images"
            )
