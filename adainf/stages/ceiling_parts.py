"""What the arms of `ceiling` are trained on: parts of the real training images as sets of shards, drawn again for each seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray
from pydantic import JsonValue

from adainf.augment.profiles import Views
from adainf.evaluation.linear import epoch_order
from adainf.inflation.ceiling import HELD_OUT, SAME_CLASS
from adainf.inflation.search import Setting
from adainf.pipeline.artifacts import Run
from adainf.pipeline.graph import training
from adainf.pipeline.lifecycle import ArtifactJob
from adainf.pipeline.progress import Reporter
from adainf.pipeline.records import Request, canonical_json, sha256
from adainf.recipe import Recipe
from adainf.shards.format.folder import ShardFolder
from adainf.shards.format.manifest import ShardSet
from adainf.shards.format.tar import Sample
from adainf.shards.format.writer import SplitWriter, joined_split
from adainf.shards.loader.read_all import Labelled

NAME = "ceiling"
CANDIDATES, CANDIDATES_PER_IMAGE = "candidates", 4
"""The set with other images of the class, for each image of arm `same-class`."""

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Experiments:
    """What all arms and seeds share."""

    recipe: Recipe
    """With the steps of this measurement."""
    run: Run
    real: ShardFolder
    train: Labelled
    validation: Labelled
    settings: list[Setting]
    real_images: int
    accelerator: Accelerator
    reporter: Reporter

    @property
    def has_labels(self) -> bool:
        return has_labels(self.train, self.validation)

    @property
    def judging_views(self) -> Views:
        return self.settings[-1].views

    def request(self, seed: int, **of: JsonValue) -> Request:
        """That of one artifact of the seed."""
        protocol = {"l2_grid": list(self.recipe.evaluate.l2_grid), "knn_neighbours": self.recipe.evaluate.knn_neighbours}
        common = {"real_images": self.real_images, "seed": seed, **protocol, **training(self.recipe)}
        return Request(stage=NAME, settings={**common, **of}, inputs={"real": self.real.digest})

    def folder(self, seed: int) -> str:
        """Of all artifacts of the seed; other settings have another one."""
        settings: list[JsonValue] = [setting.model_dump(mode="json") for setting in self.settings]
        return f"{NAME}/{sha256(canonical_json(self.request(0, arms=settings).model_dump(mode='json')))[:12]}/seed-{seed}"

    def rows(self, seed: int) -> dict[str, Rows]:
        """The rows of the training split that stand for the real images, and for those of a perfect generator."""
        order = epoch_order(len(self.train.labels), 0, seed)
        return {"real": np.sort(order[: self.real_images]), HELD_OUT: np.sort(order[self.real_images :])}

    def parts(self, seed: int) -> dict[str, ShardFolder]:
        """Both parts as sets of shards, and where an arm needs them the candidates of the same class."""
        made = {name: self._set(seed, name, [rows]) for name, rows in self.rows(seed).items()}
        if any(setting.name == SAME_CLASS for setting in self.settings):
            made[CANDIDATES] = self._set(seed, CANDIDATES, self._same_class(seed))
        return made

    def _same_class(self, seed: int) -> list[Rows]:
        """For each candidate number and image that stands for a real one, another training image of its class; the image itself
        where it has no label, or is the only one."""
        labels, rows = self.train.labels, self.rows(seed)["real"]
        members = {int(label): np.flatnonzero(labels == label) for label in np.unique(labels[labels >= 0])}
        found = []
        for candidate in range(CANDIDATES_PER_IMAGE):
            words = np.random.Philox(key=[seed, candidate + 1]).random_raw(len(rows))
            chosen = rows.copy()
            for at, row in enumerate(rows.tolist()):
                others = members.get(int(labels[row]), rows[:0])
                if len(others) > 1:
                    shift = 1 + int(words[at]) % (len(others) - 1)
                    chosen[at] = others[(int(np.searchsorted(others, row)) + shift) % len(others)]
            found.append(chosen)
        return found

    @cached_property
    def _texts(self) -> list[str | None]:
        return [text for shard in self.real.split("train").shards for text in self.real.index(shard).texts]

    def _set(self, seed: int, name: str, rows: Sequence[Rows]) -> ShardFolder:
        """The training images of these rows as shards; several arrays of the same length are candidates (see `Companions`)."""
        key = f"{self.folder(seed)}/{name}"
        with ArtifactJob(self.run, key, self.request(seed, part=name), {}) as job:
            manifest = job.finished
            if manifest is None:
                job.claim()
                shard_images = self.recipe.real.shard_images
                stems = ["train"] if len(rows) == 1 else [f"{number:03d}" for number in range(len(rows))]
                writers = [SplitWriter(self.run, key, stem, len(rows[0]), shard_images) for stem in stems]
                for writer, chosen in zip(writers, rows, strict=True):
                    writer.write(range(len(writer)), partial(self._samples, chosen), lambda images: None)
                _, height_px, width_px, _ = self.train.images.shape  # also where the real shards hold original photos
                known = self.real.shards
                shards = ShardSet(
                    height_px=height_px,
                    width_px=width_px,
                    classes=known.classes,
                    splits={"train": joined_split(writers)},
                    origin=known.origin,
                )
                manifest = job.commit(shards)
        return ShardFolder.of(self.run, key, manifest)

    def _samples(self, rows: Rows, indices: range) -> list[Sample]:
        labels = self.train.labels
        return [
            Sample(self.train.images[row], int(labels[row]) if labels[row] >= 0 else None, self._texts[row])
            for row in rows[indices.start : indices.stop].tolist()
        ]


def has_labels(train: Labelled, validation: Labelled) -> bool:
    """Whether a probe can be fitted on some of the training images, and scored."""
    known = [split.labels[split.labels >= 0] for split in (train, validation)]
    return len(np.unique(known[0])) > 1 and len(known[1]) > 1
