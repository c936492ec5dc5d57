"""All collectives of the project; no other module imports `torch.distributed`.

The backward of a collective *sums* over ranks. DistributedDataParallel averages gradients, so a loss that is the mean over the
local rows against gathered rows has exactly the gradient of the global batch, on any number of ranks. A backward that averages,
or that keeps only the local slot, gives the right loss and a wrong gradient.
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
from adainf.runtime.environment import check_accelerate


@atexit.register
def _destroy_process_group() -> None:
    """Destroy the process group at exit: threads that outlive the interpreter sometimes abort a finished process (SIGABRT)."""
    if dist.is_initialized():
        dist.destroy_process_group()


def init() -> PartialState:
    """Initialize from the environment of `accelerate launch`: the device and the processes; else one process on one device.

    Raises `BadInput` for a setting there that would change a result.
    """
    check_accelerate()
    # Accelerator reads this flag, PartialState does not: without it each process of a CPU launch would run as the only one.
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))


def init_for_batch(setting: str, batch: int) -> PartialState:
    """`init` for a batch of `batch` rows, the recipe's `setting`. Raises `BadInput` if the processes do not divide it."""
    state = init()
    world = state.num_processes
    if batch % world:
        raise BadInput(
            f"{setting} is {batch}, which is not divisible by {world} processes; set it to a multiple of {world}, or change "
            "the number of processes"
        )
    return state


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
    """Concatenate the rows of all ranks in rank order: b x D each → (W b) x D. Every rank must hold the same number of rows."""
    if world_size() == 1:
        return local_bD
    return _GatherRows.apply(local_bD)


def local_rows(gathered: Tensor) -> Tensor:
    """This rank's rows, b x …, of a tensor from `gather_rows`."""
    local = len(gathered) // world_size()
    return gathered[rank() * local : (rank() + 1) * local]


def all_reduce_sum(local: Tensor) -> Tensor:
    """The sum of a tensor over the ranks, of the same shape on each."""
    if world_size() == 1:
        return local
    return _SumRanks.apply(local)


@torch.no_grad()
def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Average the gradients over ranks as DistributedDataParallel does, for gradients accumulated without synchronization."""
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


def gather_uint64(value: int, device: torch.device) -> list[int]:
    """One unsigned 64-bit integer from each rank, in rank order."""
    if world_size() == 1:
        return [value]
    own = torch.tensor([value >> 32, value & 0xFFFFFFFF], device=device)  # collectives do not support unsigned 64-bit integers
    parts = [torch.empty_like(own) for _ in range(world_size())]
    dist.all_gather(parts, own)
    return [(int(high) << 32) | int(low) for high, low in parts]


class Agreement:
    """Asynchronous all-reduce of a number, so that all ranks take the same branch. Every rank must call it equally often.

    With more than one rank a call returns the result of the previous one: the reduction overlaps with the device's work.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._reduced = torch.zeros(1, pin_memory=device.type == "cuda")
        self._copied: torch.cuda.Event | None = None

    def highest(self, value: int) -> int:
        """The highest value that a rank passed at the previous call, 0 at the first; with one rank, the value itself."""
        if world_size() == 1:
            return value
        if self._copied is not None:
            self._copied.synchronize()
        previous = int(self._reduced.item())
        values = torch.full((1,), float(value), device=self._device)
        dist.all_reduce(values, dist.ReduceOp.MAX)
        on_gpu = self._device.type == "cuda"
        self._reduced.copy_(values, non_blocking=on_gpu)
        if on_gpu:
            self._copied = torch.cuda.Event()
            self._copied.record()
        return previous


def barrier() -> None:
    """Block until every rank has called this."""
    if world_size() > 1:
        dist.barrier()
