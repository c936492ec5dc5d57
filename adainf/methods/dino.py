"""DINO: Emerging Properties in Self-Supervised Vision Transformers (Caron et al. 2021, arXiv 2104.14294), with multi-crop."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adainf import recipe
from adainf.augment.profiles import Views
from adainf.methods.method import Embedded, Method, cosine, full_precision, make_teacher, update_teacher
from adainf.models.backbones import Backbone
from adainf.models.heads import Prototypes
from adainf.runtime.distributed import all_reduce_sum, world_size


def dino(
    students_bK: Sequence[Tensor], teachers_bK: Sequence[Tensor], centre_K: Tensor, student_t: float, teacher_t: float
) -> Tensor:
    """Cross entropy of softmax(s / T_s) under softmax((t - c) / T_t) (equations 2 and 3), a mean over all pairs of a view
    of the teacher and another view of the student, and over the b local rows.

    `students_bK`: logits of all views; those of the teacher come first, in the same order. Teachers get no gradient. float32
    scalar (float64 for float64). Exact for any world size: rows are independent, and the centre is the same on every rank.
    """
    with torch.autocast(centre_K.device.type, enabled=False):
        logs = [F.log_softmax(full_precision(s) / student_t, dim=1) for s in students_bK]
        targets = [F.softmax((full_precision(t.detach()) - centre_K) / teacher_t, dim=1) for t in teachers_bK]
        terms = [-(target * log).sum(1).mean() for t, target in enumerate(targets) for s, log in enumerate(logs) if s != t]
        return torch.stack(terms).mean()


class Dino(Method):
    """Student and teacher, each a backbone with a head; views of equal size share a forward pass, as in the authors' code."""

    independent_rows = True
    collapses_by = "a teacher that is too flat (lower pretrain.method.teacher_temperature_end) or moves too fast"
    centre: Tensor

    def __init__(self, backbone: Backbone, config: recipe.Dino) -> None:
        super().__init__()
        self.config, self.momentum, self.temperature, self.frozen = config, config.momentum, config.teacher_temperature, False
        self.backbone = backbone
        self.projector = nn.Sequential(
            nn.Linear(backbone.num_features, config.projector_hidden),
            nn.GELU(),
            nn.Linear(config.projector_hidden, config.projector_hidden),
            nn.GELU(),
            nn.Linear(config.projector_hidden, config.bottleneck),
            Prototypes(config.bottleneck, config.prototypes),
        )
        self.teacher = make_teacher(nn.Sequential(self.backbone, self.projector))
        self.register_buffer("centre", torch.zeros(config.prototypes))

    def views(self, views: Views) -> Views:
        config = self.config
        local = views[0].model_copy(
            update={
                "min_scale": config.local_min_scale,
                "max_scale": config.local_max_scale,
                "size_px": config.local_size_px,
            }
        )
        return (*views, *[local] * config.local_crops)

    def before_step(self, step: int, steps: int) -> None:
        config = self.config
        self.momentum = cosine(config.momentum, config.momentum_end, step, steps)
        risen = min(step / max(steps * config.teacher_warmup_fraction, 1), 1)
        self.temperature = config.teacher_temperature + risen * (config.teacher_temperature_end - config.teacher_temperature)
        self.frozen = step < steps * config.freeze_prototypes_fraction

    def forward(self, views: Sequence[Tensor]) -> Embedded:
        features: list[Tensor] = []
        for _, alike in groupby(views, key=lambda view: view.shape[2:]):
            same = list(alike)
            features += self.backbone(torch.cat(same)).chunk(len(same))
        students = self.projector(torch.cat(features)).chunk(len(features))
        with torch.no_grad():
            teachers = self.teacher(torch.cat(list(views[:2]))).chunk(2)
        return Embedded((*students, *teachers), features[0].detach())

    def loss(self, rows: Sequence[Tensor], identities_b: Tensor) -> Tensor:
        return dino(rows[:-2], rows[-2:], self.centre, self.config.student_temperature, self.temperature)

    def before_update(self) -> None:
        if self.frozen:
            self.projector[-1].weight.grad = None

    @torch.no_grad()
    def after_update(self, rows: Sequence[Tensor], identities_b: Tensor) -> None:
        logits = full_precision(torch.cat(list(rows[-2:])))
        mean = all_reduce_sum(logits.sum(0)) / (len(logits) * world_size())
        self.centre.lerp_(mean.to(self.centre.dtype), 1 - self.config.centre_momentum)
        update_teacher(self.teacher, nn.Sequential(self.backbone, self.projector), self.momentum)
