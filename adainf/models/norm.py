"""Batch normalisation over the batch of all ranks, on any device."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from adainf.dist import sum_ranks, world_size

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class SyncBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose statistics are those of the global batch; torch's own SyncBatchNorm refuses to run on CPU."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if not self.training or world_size() == 1:
            return super().forward(x_BCHW)
        x = x_BCHW.float()
        count = x.numel() // x.shape[1] * world_size()
        mean_C = sum_ranks(x.sum((0, 2, 3))) / count
        centred = x - mean_C[:, None, None]
        variance_C = sum_ranks(centred.square().sum((0, 2, 3))) / count  # biased, as batch normalisation uses it
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with torch.no_grad():
                momentum = 0.1 if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean_C, momentum)
                self.running_var.lerp_(variance_C * (count / (count - 1)), momentum)
                self.num_batches_tracked += 1
        scale_C = torch.rsqrt(variance_C + self.eps) * self.weight
        return (centred * scale_C[:, None, None] + self.bias[:, None, None]).to(x_BCHW.dtype)


def synchronise_batch_norm(module: ModuleT, device: torch.device) -> ModuleT:
    """The same module with every BatchNorm2d over the global batch; the names and values of its state do not change."""
    if world_size() == 1:
        return module
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for name, child in module.named_children():
        if type(child) is nn.BatchNorm2d:
            synced = SyncBatchNorm2d(child.num_features, child.eps, child.momentum)
            synced.load_state_dict(child.state_dict())
            setattr(module, name, synced)
        else:
            synchronise_batch_norm(child, device)
    return module
