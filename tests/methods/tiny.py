"""The smallest of everything that a method's step needs, in float64 so that what differs is not rounding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from adainf import recipe
from adainf.methods import build_method
from adainf.models.backbones import Backbone
from adainf.models.norm import synchronise_batch_norm
from adainf.runtime.distributed import local_rows, mean_over_ranks, world_size

BATCH = 16
SETTINGS: dict[str, recipe.Method] = {
    "simclr": recipe.SimClr(projector_hidden=12, projector_out=6),
    "moco": recipe.MoCo(kind="moco", projector_hidden=12, projector_out=6, queue=48, norm_splits=4),
    "moco-sync": recipe.MoCo(kind="moco", projector_hidden=12, projector_out=6, queue=50, norm_splits=1),
    "byol": recipe.Byol(kind="byol", projector_hidden=12, projector_out=6, predictor_hidden=10),
    "simsiam": recipe.SimSiam(kind="simsiam", projector_hidden=12, projector_out=6, predictor_hidden=4),
    "barlow": recipe.BarlowTwins(kind="barlow", projector_hidden=12, projector_out=6),
    "vicreg": recipe.VicReg(kind="vicreg", projector_hidden=12, projector_out=6),
    "spectral": recipe.Spectral(kind="spectral", projector_hidden=12, projector_out=6),
    "dino": recipe.Dino(kind="dino", projector_hidden=12, bottleneck=6, prototypes=20, local_crops=2, local_size_px=6),
    "clip": recipe.Clip(kind="clip", projector_out=6, text_width=8, text_layers=1, text_heads=2, text_bytes=5),
}


class TinyBackbone(Backbone):
    """One convolution, with batch normalisation or without."""

    def __init__(self, norm: bool = True) -> None:
        super().__init__()
        self.num_features = 8
        self.conv = nn.Conv2d(3, 8, 3, bias=not norm)
        self.bn = nn.BatchNorm2d(8) if norm else nn.Identity()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return self.bn(self.conv(x_BCHW)).relu().mean((2, 3))


def tiny_method(name: str, norm: bool = True) -> Any:
    torch.manual_seed(0)
    return build_method(SETTINGS[name], TinyBackbone(norm)).double()


def global_views(name: str, step: int, batch: int = BATCH) -> tuple[list[Tensor], Tensor]:
    """The views of a global batch, of other images at each step, and their identities; images 3 and 11 are copies."""
    generator = torch.Generator().manual_seed(step)
    image = torch.randn(batch, 3, 8, 8, generator=generator, dtype=torch.float64)

    def view() -> Tensor:
        return image + 0.3 * torch.randn(image.shape, generator=generator, dtype=torch.float64)

    identities = torch.arange(batch) + 100 * step
    identities[11] = identities[3]
    if name == "clip":
        return [view(), torch.randint(0, 256, (batch, 5), generator=generator, dtype=torch.uint8)], identities
    local = [view()[:, :, 1:7, 1:7] for _ in range(2)] if name == "dino" else []
    return [view(), view(), *local], identities


def train(name: str, steps: int, norm: bool = True) -> dict[str, Any]:
    """Train on this rank's rows: the first step's loss and gradients, and the state at the end."""
    method = synchronise_batch_norm(tiny_method(name, norm), torch.device("cpu"))
    wrapped: nn.Module = DistributedDataParallel(method, broadcast_buffers=False) if world_size() > 1 else method
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.02, momentum=0.9)
    first: dict[str, Any] = {}
    for step in range(steps):
        views, identities = global_views(name, step)
        mine, own = [local_rows(view) for view in views], local_rows(identities)
        method.before_step(step, steps)
        embedded = wrapped(mine)
        loss = method.loss(embedded.rows, own)
        optimizer.zero_grad()
        loss.backward()
        if not first:
            grads = {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}
            first = {"loss": mean_over_ranks(loss), "gradients": grads}
        method.before_update()
        optimizer.step()
        method.after_update([row.detach() for row in embedded.rows], own)
    return {**first, "state": {key: value.clone() for key, value in method.state_dict().items()}}


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, atol=tolerance, rtol=0, msg=lambda text, key=key: f"{key}: {text}")
