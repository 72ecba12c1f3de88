"""Products of layers with few synapses: forward, gradient of the input and of the weights touch existing synapses only.

The operations are those of SparseProp (Nikdan et al. 2023): one multiplication and addition a synapse and row in the
forward product, two in the backward one; the weights' gradient exists on the synapses alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from snnsim.kernels import sparse_product as kernels
from snnsim.kernels.lanes import run_ranges, share
from snnsim.kernels.simd import vector_lanes
from snnsim.kernels.spike_bits import unpack_spikes
from snnsim.nn.memory import buffers
from snnsim.nn.products import spike_bits

__all__ = ["SynapseOrder", "WeightGradient", "Work", "backward_work", "forward_work", "sparse_row_product"]

Floats = npt.NDArray[np.floating[Any]]
Places = npt.NDArray[np.int32]


class Work(NamedTuple):
    """Pieces of work that may be done in any order, by any threads: ``kernel(*arguments, start, stop)``."""

    kernel: Callable[..., None]
    arguments: tuple[Any, ...]
    pieces: int

    def run(self, threads: int) -> None:
        """Do all of it; the bits do not depend on ``threads``."""
        run_ranges(self.kernel, self.arguments, self.pieces, threads, 1)

    def part(self, t: int, threads: int) -> None:
        """Do the part of thread ``t``."""
        self.kernel(*self.arguments, *share(self.pieces, t, threads))


@dataclass(frozen=True)
class SynapseOrder:
    """The synapses of a mask along their targets (CSR) and along their sources (CSC).

    Attributes:
        n_out: Targets.
        n_in: Sources.
        by_target: First synapse of every target (and the end), int32 ``(n_out + 1,)``.
        source: Source of every synapse in that order, int32 ``(synapses,)``.
        target_place: Its place in the flat weight matrix, int32 ``(synapses,)``.
        by_source: First synapse of every source (and the end), int32 ``(n_in + 1,)``.
        target: Target of every synapse in that order, int32 ``(synapses,)``.
        source_place: Its place in the flat weight matrix, int32 ``(synapses,)``.
    """

    n_out: int
    n_in: int
    by_target: Places
    source: Places
    target_place: Places
    by_source: Places
    target: Places
    source_place: Places

    @classmethod
    def of(cls, mask: npt.NDArray[np.bool_]) -> SynapseOrder:
        """Build from a mask, bool, shape (n_out, n_in)."""
        n_out, n_in = mask.shape
        rows, columns = np.nonzero(mask)
        sources, targets = np.nonzero(mask.T)
        return cls(
            n_out,
            n_in,
            _starts(rows, n_out),
            columns.astype(np.int32),
            (rows * n_in + columns).astype(np.int32),
            _starts(sources, n_in),
            targets.astype(np.int32),
            (targets * n_in + sources).astype(np.int32),
        )

    @cached_property
    def along_source(self) -> Places:
        """Return the place of every synapse, in the order of the targets, in that of the sources."""
        places = np.empty(self.n_out * self.n_in, np.int32)
        places[self.source_place] = np.arange(self.n_synapses, dtype=np.int32)
        return places[self.target_place]

    @property
    def n_synapses(self) -> int:
        """Number of synapses."""
        return int(self.source.shape[0])

    def operations(self, rows: int) -> tuple[int, int]:
        """Return the multiply-additions of the forward and of the backward product over ``rows`` rows."""
        return self.n_synapses * rows, 2 * self.n_synapses * rows


def _starts(ordered: npt.NDArray[np.integer[Any]], n: int) -> Places:
    return np.concatenate(([0], np.cumsum(np.bincount(ordered, minlength=n)))).astype(np.int32)


def _blocks(rows: int, dtype: Any) -> int:
    return -(-rows // (kernels.VECTORS * vector_lanes(dtype)))


def forward_work(x: Floats, values: Floats, order: SynapseOrder, out: Floats) -> Work:
    """Return the work of writing ``x W^T`` into ``out``, which any threads may share out among them.

    Args:
        x: Input, contiguous, shape (..., n_in).
        values: Weights in the order of the targets.
        order: The synapses.
        out: Output, contiguous, shape (..., n_out).
    """
    rows = x.size // order.n_in
    arguments = (x.reshape(-1), order.by_target, order.source, values, rows, order.n_in, order.n_out, out.reshape(-1))
    return Work(kernels.sparse_forward, arguments, _blocks(rows, x.dtype))


class WeightGradient:
    """Gradients of the weights, summed over works of :func:`backward_work`.

    Args:
        order: The synapses.
        rows: Rows of the longest of them.
        dtype: Of the product.
    """

    def __init__(self, order: SynapseOrder, rows: int, dtype: Any) -> None:
        self.order = order
        self.sums = np.zeros((max(1, min(kernels.CHUNKS, _blocks(rows, dtype))), order.n_synapses), dtype)

    def dense(self) -> Tensor:
        """Return the gradient of the weight matrix, shape (n_out, n_in); 0 where there is no synapse."""
        total = np.zeros((self.order.n_out, self.order.n_in), self.sums.dtype)
        total.reshape(-1)[self.order.source_place] = self.sums.sum(axis=0)
        return torch.from_numpy(total)


def backward_work(x: Floats, upstream: Floats, values: Floats, weights: WeightGradient, dx: Floats | None) -> Work:
    """Return the work of writing the gradient of ``x`` and of adding to that of the weights.

    Args:
        x: Input, contiguous, shape (..., n_in).
        upstream: Gradient of the product, contiguous, shape (..., n_out).
        values: Weights in the order of the sources.
        weights: Receives the gradients of the weights.
        dx: Receives the gradient of ``x``, or None.
    """
    order = weights.order
    rows, chunks = x.size // order.n_in, weights.sums.shape[0]
    numbers = (rows, order.n_in, order.n_out, chunks, weights.sums)
    ends = (x.reshape(-1), upstream.reshape(-1), order.by_source, order.target)
    if dx is None:
        return Work(kernels.sparse_weights, (*ends, *numbers), chunks)
    return Work(kernels.sparse_backward, (*ends, values, *numbers, dx.reshape(-1)), chunks)


class _SparseRowProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, order: SynapseOrder) -> Tensor:
        threads = torch.get_num_threads()
        ctx.order, ctx.shape = order, tuple(x.shape)
        bits, ctx.one = spike_bits(x.detach()) if all(ctx.needs_input_grad[:2]) else (None, 0.0)
        ctx.packed = bits is not None
        x = x.contiguous()
        out = buffers.take((x.shape[0], order.n_out), x.dtype)
        flat = weight.detach().contiguous().numpy().reshape(-1)
        forward_work(x.detach().numpy(), flat[order.target_place], order, out.numpy()).run(threads)
        ctx.save_for_backward(x if bits is None else bits, weight)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:
        kept, weight = ctx.saved_tensors
        threads = torch.get_num_threads()
        upstream = gradients[0].contiguous()
        x = kept
        if ctx.packed:
            x = buffers.take(ctx.shape, weight.dtype)
            unpack_spikes(kept.numpy().view(np.uint64), ctx.one, x.numpy().reshape(-1), threads)
        sums = WeightGradient(ctx.order, x.shape[0], x.numpy().dtype)
        dx = buffers.take(ctx.shape, weight.dtype) if ctx.needs_input_grad[0] else None
        values = weight.detach().contiguous().numpy().reshape(-1)[ctx.order.source_place]
        to = None if dx is None else dx.numpy()
        backward_work(x.numpy(), upstream.numpy(), values, sums, to).run(threads)
        return dx, (sums.dense() if ctx.needs_input_grad[1] else None), None


def sparse_row_product(x: Tensor, weight: Tensor, order: SynapseOrder) -> Tensor:
    """Return ``x weight^T`` over the existing synapses; differentiable in both, the same bits for any thread count.

    Equal to :func:`snnsim.nn.products.row_product` with the masked weight within rounding; the gradient of ``weight``
    is 0 where there is no synapse.

    Args:
        x: Shape (rows, n_in), on the CPU.
        weight: Shape (n_out, n_in); entries without a synapse are not read.
        order: The synapses.

    Returns:
        Shape (rows, n_out).
    """
    y: Tensor = _SparseRowProduct.apply(x, weight.to(x.dtype), order)  # type: ignore[no-untyped-call]
    return y
