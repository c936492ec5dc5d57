"""Projection heads on a backbone during pretraining. B x inputs → B x outputs."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


def mlp(inputs: int, hidden: int, outputs: int, layers: int = 2, norm: bool = False, norm_last: bool = False) -> nn.Sequential:
    """Linear layers with ReLU between them. `norm`: batch normalisation before each ReLU; `norm_last`: also after the last
    layer, without scale and shift."""
    parts: list[nn.Module] = []
    for before in (inputs, *[hidden] * (layers - 2)):
        parts.append(nn.Linear(before, hidden, bias=not norm))
        parts += [nn.BatchNorm1d(hidden)] * norm
        parts.append(nn.ReLU(inplace=True))
    parts.append(nn.Linear(hidden, outputs, bias=not norm_last))
    parts += [nn.BatchNorm1d(outputs, affine=False)] * norm_last
    return nn.Sequential(*parts)


class Prototypes(nn.Module):
    """B x D → B x K: cosine similarity to K learned prototypes; DINO's weight-normalised last layer of gain 1."""

    def __init__(self, inputs: int, prototypes: int) -> None:
        super().__init__()
        self.weight = nn.Linear(inputs, prototypes, bias=False).weight

    def forward(self, x_BD: Tensor) -> Tensor:
        return F.linear(F.normalize(x_BD, dim=1), F.normalize(self.weight, dim=1))
