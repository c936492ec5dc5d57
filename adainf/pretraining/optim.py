"""The optimisers, the learning rate schedule and the weight decay schedule."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import SGD, AdamW, Optimizer

from adainf import recipe
from adainf.methods.method import cosine


class Lars(Optimizer):
    """Momentum SGD with layer-wise learning rates: LARS (You et al. 2017, arXiv 1708.03888, algorithm 1).

    For a weight w with gradient g: local = trust |w| / (|g| + decay |w|), clipped to the global learning
    rate; v = momentum v + min(local / lr, 1) (g + decay w); w -= lr v. Tensors of one dimension (biases, normalisation)
    get plain momentum SGD without decay.
    """

    def __init__(self, parameters: Iterable[Tensor], config: recipe.Optimizer) -> None:
        self.config = config
        super().__init__(_groups(parameters, config), {"lr": config.learning_rate})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        # Foreach operations: Python overhead dominates in small networks.
        for group in self.param_groups:
            weights = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not weights:
                continue
            directions = [weight.grad for weight in weights]
            if weights[0].ndim > 1:
                directions = self._adapted(weights, directions, group["lr"], group["weight_decay"])
            for weight in weights:
                if "momentum" not in self.state[weight]:
                    self.state[weight]["momentum"] = torch.zeros_like(weight)
            velocities = [self.state[weight]["momentum"] for weight in weights]
            torch._foreach_mul_(velocities, self.config.momentum)
            torch._foreach_add_(velocities, directions)
            torch._foreach_add_(weights, velocities, alpha=-group["lr"])

    def _adapted(self, weights: list[Tensor], gradients: list[Tensor], rate: float, decay: float) -> list[Tensor]:
        lengths, slopes = (torch.stack(torch._foreach_norm(tensors)) for tensors in (weights, gradients))
        local = self.config.trust_coefficient * lengths / (slopes + decay * lengths + 1e-8)
        if self.config.clip:
            local = (local / max(rate, 1e-12)).clamp(max=1.0)
        local = torch.where((lengths > 0) & (slopes > 0), local, torch.ones_like(local))
        directions = torch._foreach_add(gradients, weights, alpha=decay)
        torch._foreach_mul_(directions, list(local.unbind()))
        return list(directions)


def build_optimizer(parameters: Iterable[Tensor], config: recipe.Optimizer) -> Optimizer:
    """The recipe's optimiser over the trainable parameters; its first group has weight decay."""
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    if config.kind == "lars":
        return Lars(learning, config)
    groups = _groups(learning, config)
    if config.kind == "sgd":
        return SGD(groups, config.learning_rate, config.momentum)
    return AdamW(groups, config.learning_rate, (config.momentum, 0.999))


def _groups(parameters: Iterable[Tensor], config: recipe.Optimizer) -> list[dict[str, object]]:
    """Weights of two or more dimensions, and the rest without weight decay."""
    every = list(parameters)
    return [
        {"params": [parameter for parameter in every if parameter.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [parameter for parameter in every if parameter.ndim <= 1], "weight_decay": 0.0},
    ]


def apply_schedules(optimizer: Optimizer, config: recipe.Pretrain, step: int) -> float:
    """Set learning rate and weight decay of the optimiser for a step; returns the learning rate."""
    settings = config.optimizer
    rate = learning_rate_at(step, config.steps, settings.learning_rate, config.warmup_fraction)
    for group in optimizer.param_groups:
        group["lr"] = rate
    if settings.weight_decay_end is not None:
        decay = cosine(settings.weight_decay, settings.weight_decay_end, step, config.steps)
        optimizer.param_groups[0]["weight_decay"] = decay
    return rate


@torch.no_grad()
def clip_gradients(parameters: Iterable[Tensor], largest: float) -> None:
    """Clip the gradient of each parameter to the norm `largest`, as DINO does."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    factors = (largest / (torch.stack(torch._foreach_norm(gradients)) + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(gradients, list(factors.unbind()))


def learning_rate_at(step: int, steps: int, peak: float, warmup_fraction: float) -> float:
    """The learning rate schedule: linear warm-up to `peak` over `warmup_fraction` of `steps`, then cosine decay to zero."""
    warmup = round(steps * warmup_fraction)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))
