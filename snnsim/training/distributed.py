"""Data-parallel training: every process takes a part of each batch, gradients are summed.

Started by ``torchrun``; on CPU the processes talk through gloo. On devices every process has one of its own, and
gradients go from device to device through nccl; numbers and scores that the host knows go through gloo. Losses are
divided by the size of the whole batch and batch norm sums its statistics over all processes, so that N processes
compute what one process with the same batch does, within rounding.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module

import torch
import torch.distributed as dist
from torch import Tensor, nn

from snnsim.errors import InputError

__all__ = ["World", "process_group", "take_own_gpu"]


@dataclass(frozen=True)
class World:
    """This process among all.

    Attributes:
        rank: Number of this process; 0 writes the files.
        size: Number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Return whether this process writes files and messages."""
        return self.rank == 0

    def part(self, n: int) -> slice:
        """Return the part of ``n`` samples that belongs to this process: contiguous, sizes differ by at most one."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def check_batches(self, n_samples: int, batch_size: int) -> None:
        """Refuse batches with fewer samples than processes.

        Raises:
            InputError: The batch size, or the last batch of an epoch, is too small.
        """
        smallest = n_samples % batch_size or min(batch_size, n_samples)
        if smallest < self.size:
            raise InputError(
                f"data-parallel: the last batch of an epoch has {smallest} sample(s) ({n_samples} samples in batches "
                f"of {batch_size}), fewer than the {self.size} processes; choose another train.batch_size"
            )

    def sum_gradients(self, model: nn.Module) -> None:
        """Replace every gradient by its sum over all processes."""
        if self.size == 1:
            return
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        start = 0
        for parameter in parameters:
            stop = start + parameter.numel()
            parameter.grad = flat[start:stop].view_as(parameter).clone()
            start = stop

    def sum(self, values: list[float]) -> list[float]:
        """Return the sums of numbers over all processes."""
        if self.size == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor)
        result: list[float] = tensor.tolist()
        return result

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process."""
        return self.sum([float(flag)])[0] > 0

    def gather(self, values: Tensor) -> Tensor:
        """Return the tensors of all processes joined along their first axis, in order of rank."""
        if self.size == 1:
            return values
        parts: list[Tensor | None] = [None] * self.size
        dist.all_gather_object(parts, values)
        return torch.cat([part for part in parts if part is not None])

    def wait(self) -> None:
        """Wait until every process is here."""
        self.sum([0.0])


def take_own_gpu() -> None:
    """Give a process that ``torchrun`` started the GPU of its place on the machine (``LOCAL_RANK``); else do nothing.

    Raises:
        InputError: The machine has fewer GPUs than processes.
    """
    place = os.environ.get("LOCAL_RANK")
    if place is None or int(os.environ.get("WORLD_SIZE", "1")) <= 1 or not torch.cuda.is_available():
        return
    here = torch.cuda.device_count()
    if int(place) >= here:
        raise InputError(
            f"device 'cuda': process {place} of this machine has no GPU of its own, it has {here}; "
            "start torchrun with --nproc-per-node set to their number"
        )
    from numba import cuda

    cuda.select_device(int(place))  # kernels and torch must mean the same device
    torch.cuda.set_device(int(place))


@contextmanager
def process_group(device: str = "cpu") -> Iterator[World]:
    """Join the processes that ``torchrun`` started, for the length of the block; alone without it.

    A process group that the caller has made already is used and left open; it must take tensors of the CPU.

    Args:
        device: ``cpu`` or ``cuda``: where gradients are.
    """
    if dist.is_available() and dist.is_initialized():
        yield World(dist.get_rank(), dist.get_world_size())
        return
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size <= 1 or "RANK" not in os.environ:
        yield World()
        return
    # its functions have the default group as default arguments: imported later, by an optimiser, it would keep the
    # group and its threads beyond their end, and a thread that meets the end of the interpreter aborts the process
    import_module("torch.distributed.nn.functional")
    dist.init_process_group("gloo" if device == "cpu" else "cpu:gloo,cuda:nccl")
    try:
        yield World(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
