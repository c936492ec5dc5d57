"""The optimiser of the paper's runs, and the learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from adainf import recipe


class Lars(Optimizer):
    """Momentum SGD whose rate is adapted layer by layer: LARS (You et al. 2017, arXiv 1708.03888, algorithm 1).

    For a weight w with gradient g: local = trust |w| / (|g| + decay |w|), clipped so that it never exceeds the global
    rate; v = momentum v + min(local / lr, 1) (g + decay w); w -= lr v. Tensors of one dimension (biases, normalisation)
    get plain momentum SGD without decay.
    """

    def __init__(self, parameters: Iterable[Tensor], config: recipe.Optimizer) -> None:
        self.config = config
        super().__init__(parameters, {"lr": config.learning_rate})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group["lr"])

    def _update(self, parameter: Tensor, gradient: Tensor, learning_rate: float) -> None:
        config = self.config
        direction = gradient
        if parameter.ndim > 1:
            weight_norm, gradient_norm = parameter.norm(), gradient.norm()
            direction = gradient + config.weight_decay * parameter
            local = config.trust_coefficient * weight_norm / (gradient_norm + config.weight_decay * weight_norm + 1e-8)
            if config.clip:
                local = (local / max(learning_rate, 1e-12)).clamp(max=1.0)
            direction = direction * torch.where((weight_norm > 0) & (gradient_norm > 0), local, torch.ones_like(local))
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        velocity: Tensor = state["momentum"]
        velocity.mul_(config.momentum).add_(direction)
        parameter.add_(velocity, alpha=-learning_rate)


def learning_rate_at(step: int, steps: int, peak: float, warmup_fraction: float) -> float:
    """Linear warm-up to `peak` over the first `warmup_fraction` of `steps`, then half a cosine down to zero."""
    warmup = round(steps * warmup_fraction)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


def trainable(module: nn.Module) -> list[Tensor]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]
