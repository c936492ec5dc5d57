"""Batch normalisation whose statistics are independent of the number of processes, on any device."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from adainf.errors import BadInput
from adainf.runtime.distributed import all_reduce_sum, world_size

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class SyncBatchNorm(_BatchNorm):
    """Batch normalisation over the global batch; torch's SyncBatchNorm does not run on CPUs."""

    def forward(self, x: Tensor) -> Tensor:
        """B x C or B x C x H x W."""
        if not self.training or world_size() == 1:
            return super().forward(x)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        over = [dim for dim in range(x.ndim) if dim != 1]
        shape = (-1, *[1] * (x.ndim - 2))
        count = x.numel() // x.shape[1] * world_size()
        mean_C = all_reduce_sum(wide.sum(over)) / count
        centred = wide - mean_C.view(shape)
        variance_C = all_reduce_sum(centred.square().sum(over)) / count  # biased, as batch normalisation uses it
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with torch.no_grad():
                momentum = 0.1 if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean_C, momentum)
                self.running_var.lerp_(variance_C * (count / (count - 1)), momentum)
                self.num_batches_tracked += 1
        normed = centred * torch.rsqrt(variance_C + self.eps).view(shape)
        if self.affine:
            normed = normed * self.weight.view(shape) + self.bias.view(shape)
        return normed.to(x.dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept any number of dimensions."""


class SplitBatchNorm(nn.BatchNorm2d):
    """Separate normalisation of `splits` equal, contiguous groups of the global batch, as on several unsynchronised GPUs.

    The number of processes must divide `splits`. Running statistics are the mean over groups.
    """

    def __init__(self, num_features: int, splits: int, eps: float, momentum: float | None) -> None:
        super().__init__(num_features, eps, momentum)
        self.splits = splits

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Raises `BadInput` where the batch cannot be split evenly."""
        if not self.training:
            return super().forward(x_BCHW)
        groups, left = divmod(self.splits, world_size())
        if left or len(x_BCHW) % groups:
            raise BadInput(
                f"pretrain.method.norm_splits is {self.splits}, which does not evenly split {world_size()} processes with "
                f"{len(x_BCHW)} images each; choose a multiple of the number of processes that divides pretrain.global_batch"
            )
        channels = self.num_features
        x = x_BCHW.unflatten(0, (groups, -1)).transpose(0, 1).flatten(1, 2)  # n x (groups C) x H x W
        mean, var = (statistic.repeat(groups) for statistic in (self.running_mean, self.running_var) if statistic is not None)
        weight, bias = self.weight.repeat(groups), self.bias.repeat(groups)
        normed = F.batch_norm(x, mean, var, weight, bias, True, self.momentum or 0.1, self.eps)
        with torch.no_grad():
            means = all_reduce_sum(torch.stack([mean, var]).view(2, groups, channels).sum(1)) / self.splits
            for running, value in zip((self.running_mean, self.running_var), means, strict=True):
                if running is not None:
                    running.copy_(value)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked += 1
        return normed.unflatten(1, (groups, channels)).transpose(0, 1).flatten(0, 1)


def batch_norms(module: nn.Module) -> list[nn.Module]:
    """The layers with batch normalisation, through which images of a batch depend on each other."""
    return [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]


def split_batch_norm(module: ModuleT, splits: int) -> ModuleT:
    """Replace every BatchNorm2d by one over `splits` groups, in place; names and values of the state dict do not change."""
    return _replace(module, lambda layer: SplitBatchNorm(layer.num_features, splits, layer.eps, layer.momentum))


def synchronise_batch_norm(module: ModuleT, device: torch.device) -> ModuleT:
    """Replace every plain batch normalisation by one over the global batch, in place; names and values of the state dict do
    not change."""
    if world_size() == 1:
        return module
    return _replace(module, _torch_layer if device.type == "cuda" else _own_layer)


def _torch_layer(layer: _BatchNorm) -> _BatchNorm:
    return nn.SyncBatchNorm(layer.num_features, layer.eps, layer.momentum, layer.affine)


def _own_layer(layer: _BatchNorm) -> _BatchNorm:
    return SyncBatchNorm(layer.num_features, layer.eps, layer.momentum, layer.affine)


def _replace(module: ModuleT, make: Callable[[_BatchNorm], _BatchNorm]) -> ModuleT:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d | nn.BatchNorm1d) and not isinstance(child, SplitBatchNorm):
            assert child.running_mean is not None
            other = make(child).to(child.running_mean)
            other.load_state_dict(child.state_dict())
            for parameter in other.parameters():
                parameter.requires_grad_(all(old.requires_grad for old in child.parameters()))
            setattr(module, name, other)
        else:
            _replace(child, make)
    return module
