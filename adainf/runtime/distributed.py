"""Every collective of the project; nothing else imports `torch.distributed`.

Their backward is a *sum* over ranks. As DistributedDataParallel averages gradients, a loss that is the mean over the
local rows against gathered rows then has exactly the gradient of the whole batch, on any number of ranks. Backwards
that average, or that keep the own slot only, give the right loss and a wrong gradient.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from torch import Tensor

from adainf.errors import BadInput


@atexit.register
def _leave() -> None:
    """Threads of a process group that outlive the interpreter end the process by SIGABRT now and then, its work done."""
    if dist.is_initialized():
        dist.destroy_process_group()


def init() -> PartialState:
    """The device and the processes as `accelerate launch` set them up; alone it is one process on one device."""
    # Accelerator looks at the flag by itself; here each process of a launch on CPUs would take itself for the only one.
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))


def init_for_batch(setting: str, batch: int) -> PartialState:
    """As `launched`, for work on a batch, the recipe's `setting`. Raises `BadInput` where the processes cannot share it."""
    processes = init()
    world = processes.num_processes
    if batch % world:
        raise BadInput(
            f"{setting} is {batch}, which {world} processes cannot share equally; choose a multiple of {world}, or another "
            "number of processes"
        )
    return processes


def world_size() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if world_size() > 1 else 0


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        ctx.rows = len(local)
        parts = [torch.empty_like(local) for _ in range(world_size())]
        dist.all_gather(parts, local.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous()
        dist.all_reduce(total)
        return total[rank() * ctx.rows : (rank() + 1) * ctx.rows]


class _SumRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        total = local.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def gather_rows(local_bD: Tensor) -> Tensor:
    """All ranks' rows, b x D each → (W b) x D, in the order of ranks. Every rank must hold the same number of rows."""
    if world_size() == 1:
        return local_bD
    return _GatherRows.apply(local_bD)


def local_rows(whole: Tensor) -> Tensor:
    """This rank's part, b x …, of what `gather_rows` put together."""
    local = len(whole) // world_size()
    return whole[rank() * local : (rank() + 1) * local]


def all_reduce_sum(local: Tensor) -> Tensor:
    """The sum of a tensor over the ranks, of the same shape on each."""
    if world_size() == 1:
        return local
    return _SumRanks.apply(local)


@torch.no_grad()
def average_gradients(parameters: Iterable[Tensor]) -> None:
    """What DistributedDataParallel does, for gradients that were summed up on each rank alone."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if world_size() == 1 or not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    parts = (flat / world_size()).split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def mean_over_ranks(value: Tensor) -> float:
    """A scalar averaged over the ranks, for the log; no gradient."""
    return float(all_reduce_sum(value.detach().double())) / world_size()


def gather_uint64(word: int, device: torch.device) -> list[int]:
    """A word of 64 bits from each rank, in their order."""
    if world_size() == 1:
        return [word]
    own = torch.tensor([word >> 32, word & 0xFFFFFFFF], device=device)  # no collective knows unsigned 64-bit integers
    parts = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(parts, own)
    return [(int(high) << 32) | int(low) for high, low in parts]


class Agreement:
    """Whether any rank has raised a flag, so that all take the same turn. Every rank asks as often.

    On several ranks what was said at one call is the answer to the next: it comes while the device works on, so nobody waits.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._answer = torch.zeros(1, pin_memory=device.type == "cuda")
        self._arrived: torch.cuda.Event | None = None

    def any_rank(self, flag: bool) -> bool:
        """What all ranks said last time; alone on this one, the flag itself."""
        if world_size() == 1:
            return flag
        if self._arrived is not None:
            self._arrived.synchronize()
        said = bool(self._answer.item())
        flags = torch.full((1,), float(flag), device=self._device)
        dist.all_reduce(flags, dist.ReduceOp.MAX)
        on_gpu = self._device.type == "cuda"
        self._answer.copy_(flags, non_blocking=on_gpu)
        if on_gpu:
            self._arrived = torch.cuda.Event()
            self._arrived.record()
        return said


def barrier() -> None:
    """Return once every rank has come here."""
    if world_size() > 1:
        dist.barrier()
