"""A LightningModule as lightly's examples have it, with lightly's transforms, heads, losses and LARS."""

from __future__ import annotations

import copy
import logging
import time
import warnings
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.child import Values, cpu_s
from benchmarks.trainers.task import MEAN, STD, WORKERS, Task

PACKAGE = "lightly"


def train(**task: Any) -> Values:
    import pytorch_lightning as pl
    from lightly.loss import NegativeCosineSimilarity, NTXentLoss
    from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead, SimCLRProjectionHead
    from lightly.models.utils import deactivate_requires_grad, update_momentum
    from lightly.transforms import BYOLTransform, SimCLRTransform
    from lightly.transforms.byol_transform import BYOLView1Transform, BYOLView2Transform
    from lightly.utils.lars import LARS
    from PIL import Image

    asked = Task(**task)
    backbone = asked.build()
    features = backbone.num_features
    normalise = {"mean": list(MEAN), "std": list(STD)}

    class SimCLR(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.head = backbone, SimCLRProjectionHead(features, 2048, 256, batch_norm=False)
            self.criterion = NTXentLoss(0.2)

        def training_step(self, batch: Any, number: int) -> Tensor:
            (x0, x1), _ = batch
            return self.criterion(self.head(self.backbone(x0)), self.head(self.backbone(x1)))

        def configure_optimizers(self) -> Any:
            return LARS(self.parameters(), lr=0.4, momentum=0.9, weight_decay=1e-4)

    class BYOL(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.head = backbone, BYOLProjectionHead(features, 4096, 256)
            self.predictor = BYOLPredictionHead(256, 4096, 256)
            self.teacher, self.teacher_head = copy.deepcopy(self.backbone), copy.deepcopy(self.head)
            deactivate_requires_grad(self.teacher)
            deactivate_requires_grad(self.teacher_head)
            self.criterion = NegativeCosineSimilarity()

        def training_step(self, batch: Any, number: int) -> Tensor:
            update_momentum(self.backbone, self.teacher, 0.99)
            update_momentum(self.head, self.teacher_head, 0.99)
            (x0, x1), _ = batch
            p0, p1 = (self.predictor(self.head(self.backbone(x))) for x in (x0, x1))
            with torch.no_grad():
                z0, z1 = (self.teacher_head(self.teacher(x)).detach() for x in (x0, x1))
            return 0.5 * (self.criterion(p0, z1) + self.criterion(p1, z0))

        def configure_optimizers(self) -> Any:
            return LARS(self.parameters(), lr=0.4, momentum=0.9, weight_decay=1e-4)

    clock = _Clock(asked)

    class Timing(pl.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            clock.started()

        def on_train_batch_end(self, *_: Any) -> None:
            clock.ended()

    images = [Image.fromarray(image) for image in asked.images()]
    if asked.method == "simclr":
        transform: Any = SimCLRTransform(input_size=32, normalize=normalise)
    else:  # without blur and first solarise, as ours and the paper's on 32 px
        view1 = BYOLView1Transform(input_size=32, gaussian_blur=0.0, normalize=normalise)
        view2 = BYOLView2Transform(input_size=32, gaussian_blur=0.0, normalize=normalise)
        transform = BYOLTransform(view1, view2)

    class Views(Dataset[Any]):
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, index: int) -> Any:
            return transform(images[index]), 0

    loader = DataLoader(Views(), asked.batch, shuffle=True, num_workers=WORKERS, drop_last=True, persistent_workers=True)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=asked.warm_steps + asked.steps,
        precision="bf16-mixed" if asked.precision == "bf16" else "32-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Timing()],
    )
    module: pl.LightningModule = SimCLR() if asked.method == "simclr" else BYOL()
    trainer.fit(module, loader)
    return clock.values()


class _Clock:
    """Wall time in batches and between them, after the warm steps."""

    def __init__(self, task: Task) -> None:
        self._left, self._steps = task.warm_steps, task.steps
        self._began_s = self._used_s = self._since = self._in_batches = 0.0

    def started(self) -> None:
        self._since = time.perf_counter()

    def ended(self) -> None:
        now = time.perf_counter()
        if self._left > 0:
            self._left -= 1
            self._began_s, self._used_s, self._in_batches = now, cpu_s(), 0.0
        else:
            self._in_batches += now - self._since
            self._until = now

    def values(self) -> Values:
        seconds = self._until - self._began_s
        return {
            "steps_per_s": self._steps / seconds,
            "non_model_share": 1 - self._in_batches / seconds,
        }
