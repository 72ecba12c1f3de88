"""How much memory a rule keeps while it goes through a sequence that nobody holds as a whole."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from snnsim.learning import Loss
from snnsim.nn.context import Context

DOMAIN = np.lib.tracemalloc_domain


def alive() -> int:
    """Return the bytes of all tensors that something refers to."""
    gc.collect()
    return sum(item.nbytes for item in gc.get_objects() if issubclass(type(item), Tensor))


class Drawn:
    """A stream that makes its inputs when they are asked for, keeps none, and counts memory when the last are."""

    def __init__(self, n_steps: int, batch: int, n_inputs: int, rate: float, dtype: torch.dtype) -> None:
        self.n_steps, self.batch, self.context = n_steps, batch, Context(None, torch.arange(batch))
        self.n_inputs, self.rate, self.dtype = n_inputs, rate, dtype
        self.tensors = self.arrays = 0

    def chunk(self, start: int, stop: int) -> Tensor:
        if stop == self.n_steps:
            self.tensors = alive()
            arrays = tracemalloc.take_snapshot().filter_traces([tracemalloc.DomainFilter(True, DOMAIN)])
            self.arrays = sum(trace.size for trace in arrays.traces)
        rows = []
        for step in range(start, stop):
            generator = torch.Generator().manual_seed(100 + step)
            rows.append(torch.rand(1, self.batch, self.n_inputs, generator=generator) < self.rate)
        return torch.cat(rows).to(self.dtype)


class Saved:
    """A tensor that a graph keeps, and the sizes of all that are kept now and at most."""

    now = peak = 0

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        Saved.now += tensor.nbytes
        Saved.peak = max(Saved.peak, Saved.now)

    def __del__(self) -> None:
        Saved.now -= self.tensor.nbytes


class Kept(NamedTuple):
    """Memory of one batch.

    Attributes:
        arrays: Bytes of NumPy arrays that are alive before the last stretch.
        graphs: Most bytes that graphs kept at once.
        tensors: Bytes of tensors that came into being and are alive before the last stretch; what waits to be freed is
            chance.
    """

    arrays: int
    graphs: int
    tensors: int


def kept(rule: Any, network: Any, steps: int, kind: Any = "per_step", *, batch: int = 16, rate: float = 0.3) -> Kept:
    """Return what a rule keeps on its way through a batch."""
    network.zero_grad(set_to_none=True)
    stream = Drawn(steps, batch, network.n_inputs, rate, next(network.parameters()).dtype)
    Saved.now = Saved.peak = 0
    before = alive()
    tracemalloc.start()
    try:
        with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.tensor):
            rule.gradients(network, stream, Loss(torch.arange(batch) % network.n_classes, kind))
    finally:
        tracemalloc.stop()
    return Kept(stream.arrays, Saved.peak, stream.tensors - before)


def assert_flat(short: Kept, long: Kept, all_spikes: int) -> None:
    """Check that a longer sequence takes no more.

    Args:
        short: Of few steps.
        long: Of many.
        all_spikes: Bytes of the spikes of the steps that are more.
    """
    assert long.arrays + long.graphs <= 1.05 * (short.arrays + short.graphs), (short, long)
    assert long.tensors - short.tensors < 0.4 * all_spikes, (short, long)
