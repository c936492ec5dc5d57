"""A plain loop over a DataLoader whose workers augment by torchvision on PIL images."""

from __future__ import annotations

import copy
import itertools
import time
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from benchmarks.child import Values
from benchmarks.trainers.task import MEAN, STD, WORKERS, Task

PACKAGE = "torchvision"


def train(**task: Any) -> Values:
    from PIL import Image
    from torchvision import transforms as T

    asked = Task(**task)
    backbone = asked.build()
    simclr = asked.method == "simclr"
    jitter = T.ColorJitter(0.8, 0.8, 0.8, 0.2) if simclr else T.ColorJitter(0.4, 0.4, 0.2, 0.1)
    common = [
        T.RandomResizedCrop(32, (0.08, 1), interpolation=T.InterpolationMode.BICUBIC),
        T.RandomApply([jitter], 0.8),
        T.RandomGrayscale(0.2),
    ]
    last = [T.RandomHorizontalFlip(), T.ToTensor(), T.Normalize(MEAN, STD)]
    blur, solarize = T.RandomApply([T.GaussianBlur(5, (0.1, 2.0))], 0.5), T.RandomSolarize(128, 0.2)
    first_view = T.Compose([*common, *([blur] if simclr else []), *last])
    second_view = T.Compose([*common, *([blur] if simclr else [solarize]), *last])
    images = [Image.fromarray(image) for image in asked.images()]

    class Views(Dataset[Any]):
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, index: int) -> Any:
            return first_view(images[index]), second_view(images[index])

    def head(inputs: int, hidden: int, norm: bool) -> nn.Sequential:
        parts = [nn.Linear(inputs, hidden), *([nn.BatchNorm1d(hidden)] if norm else []), nn.ReLU(), nn.Linear(hidden, 256)]
        return nn.Sequential(*parts)

    projector = head(backbone.num_features, 2048 if simclr else 4096, not simclr)
    student = nn.Sequential(backbone, projector)
    predictor = nn.Identity() if simclr else head(256, 4096, True)
    teacher = copy.deepcopy(student).requires_grad_(False)
    optimizer = torch.optim.SGD([*student.parameters(), *predictor.parameters()], 0.06, 0.9, weight_decay=1e-4)
    loader = DataLoader(Views(), asked.batch, shuffle=True, num_workers=WORKERS, drop_last=True, persistent_workers=True)
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    waited_s = began_s = 0.0
    for step in range(asked.warm_steps + asked.steps):
        if step == asked.warm_steps:
            began_s, waited_s = time.perf_counter(), 0.0
        asked_s = time.perf_counter()
        x1, x2 = next(batches)
        waited_s += time.perf_counter() - asked_s
        with torch.autocast("cpu", torch.bfloat16, enabled=asked.precision == "bf16"):
            if simclr:
                z = student(torch.cat([x1, x2])).float()
            else:
                p1, p2 = (predictor(student(x)).float() for x in (x1, x2))
                with torch.no_grad():
                    t1, t2 = (teacher(x).float() for x in (x1, x2))
        if simclr:
            z = F.normalize(z, dim=1)
            logits = (z @ z.T / 0.2).fill_diagonal_(float("-inf"))
            loss = F.cross_entropy(logits, torch.arange(len(z)).roll(len(x1)))
        else:
            loss = 4 - 2 * (F.cosine_similarity(p1, t2).mean() + F.cosine_similarity(p2, t1).mean())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if not simclr:
            torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), 0.01)
    seconds = time.perf_counter() - began_s
    return {"steps_per_s": asked.steps / seconds, "non_model_share": waited_s / seconds}
