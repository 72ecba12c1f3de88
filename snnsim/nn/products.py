"""Matrix products whose bits do not depend on the number of threads.

A BLAS that shares one product among threads chooses the shares, and with them the kernels and the order of
summation, by shape and by the number of threads. :mod:`snnsim.kernels.matrix` sums every element in one fixed order
wherever a piece of work begins, and it uses the widest vectors of the processor whatever its maker.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from snnsim.errors import InputError
from snnsim.kernels import event_product as events
from snnsim.kernels.lanes import run_ranges
from snnsim.kernels.matrix import matrix_product
from snnsim.kernels.spike_bits import pack_spikes, unpack_spikes
from snnsim.nn.cuda import on_cuda, on_host
from snnsim.nn.cuda_spikes import SpikeForm, keep_spikes, restore_spikes
from snnsim.nn.memory import buffers
from snnsim.nn.precision import multiply_on_device, product_dtype, rounded

__all__ = ["event_row_product", "event_weight_gradient", "product", "row_product", "spike_bits"]

SMALL = 1 << 21
"""Multiplications below which a product stays on one thread: waking another costs as much."""

ROWS = 128
"""Rows of the result in a piece of work."""

COLUMNS = 32
"""Columns of the result in a piece of work, where it has more columns than rows."""

EVENT_COLUMNS = 64
"""Columns of the weights' gradient from events in a piece of work: whole vectors in every precision."""


def _strided(x: Tensor) -> tuple[Any, int, int]:
    """Return a matrix as flat numbers with the distances of its rows and of its columns."""
    x = x.detach()
    if x.t().is_contiguous():
        return x.t().numpy().reshape(-1), 1, x.shape[0]
    return x.contiguous().numpy().reshape(-1), x.shape[1], 1


def product(a: Tensor, b: Tensor, factors: torch.dtype | None = None) -> Tensor:
    """Return ``a b``, the same bits for any number of threads; no gradient is recorded.

    Args:
        a: Shape (m, k).
        b: Shape (k, n).
        factors: Type that float32 factors are rounded to, or None; see :mod:`snnsim.nn.precision`.

    Returns:
        Shape (m, n).
    """
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[0] or a.dtype != b.dtype:
        raise InputError(
            f"product: expected matrices (m, k) and (k, n) of one dtype, got {tuple(a.shape)} {a.dtype} and "
            f"{tuple(b.shape)} {b.dtype}"
        )
    if not on_host(a):
        with torch.no_grad():
            return multiply_on_device(a, b, factors)
    a, b = rounded(a, factors), rounded(b, factors)
    (m, depth), n = a.shape, b.shape[1]
    out = buffers.take((m, n), a.dtype)
    left, a_across, a_along = _strided(a)
    right, b_along, b_across = _strided(b)
    by_column = n >= m
    arguments = (left, a_across, a_along, right, b_across, b_along, out.numpy().reshape(-1), n, m, n, depth, by_column)
    threads = 1 if m * n * depth < SMALL else torch.get_num_threads()
    run_ranges(matrix_product, arguments, n if by_column else m, threads, COLUMNS if by_column else ROWS)
    return out


def spike_bits(x: Tensor, one: float | None = None) -> tuple[Tensor | None, float]:
    """Return spikes as bits, int64, with the value of a spike; None if ``x`` holds other numbers.

    On a device nobody looks: ``one`` is what the caller knows of its entries that are not 0.
    """
    if not x.is_contiguous() or not x.numel():
        return None, 0.0
    if on_cuda(x):
        return (None, 0.0) if one is None else (keep_spikes(x, one)[0], one)
    if x.device.type != "cpu":
        return None, 0.0
    one = float(x.max()) or float(x.min()) or 1.0
    words = pack_spikes(x.numpy().reshape(-1), one, torch.get_num_threads())
    return None if words is None else torch.from_numpy(words.view(np.int64)), one


def spikes_of_bits(bits: Tensor, one: float, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return what :func:`spike_bits` packed."""
    if on_cuda(bits):
        return restore_spikes(bits, SpikeForm(shape, dtype, one))
    x = buffers.take(shape, dtype)
    unpack_spikes(bits.numpy().view(np.uint64), one, x.numpy().reshape(-1), torch.get_num_threads())
    return x


class _RowProduct(torch.autograd.Function):
    """Keeps the spikes of a layer before it as bits; data, which the caller holds anyway, are kept as they are."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, one: float | None) -> Tensor:
        ctx.shape, ctx.factors = tuple(x.shape), product_dtype()
        bits, ctx.one = spike_bits(x.detach(), one) if all(ctx.needs_input_grad[:2]) else (None, 0.0)
        ctx.packed = bits is not None
        kept = (x if ctx.needs_input_grad[1] else None) if bits is None else bits
        ctx.save_for_backward(kept, weight)
        return product(x, weight.T, ctx.factors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:
        kept, weight = ctx.saved_tensors
        (upstream,) = gradients
        dweight = None
        if ctx.needs_input_grad[1]:
            x = spikes_of_bits(kept, ctx.one, ctx.shape, weight.dtype) if ctx.packed else kept
            dweight = product(upstream.T, x, ctx.factors)
            del x
        dx = product(upstream, weight, ctx.factors) if ctx.needs_input_grad[0] else None
        return dx, dweight, None


def row_product(x: Tensor, weight: Tensor, one: float | None = None) -> Tensor:
    """Return ``x weight^T``; it and its gradients are the same bits for any number of threads.

    Args:
        x: Shape (rows, n_in).
        weight: Shape (n_out, n_in).
        one: What every entry of ``x`` is unless it is 0, if that is known: a device keeps bits only then; the CPU
            looks for itself.

    Returns:
        Shape (rows, n_out).
    """
    y: Tensor = _RowProduct.apply(x, weight.to(x.dtype), one)  # type: ignore[no-untyped-call]
    return y


class _EventRowProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        threads = torch.get_num_threads()
        ctx.rows = events.list_events(x.detach().contiguous().numpy(), threads)
        out = buffers.take((x.shape[0], weight.shape[0]), x.dtype)
        by_source = weight.detach().t().contiguous().numpy().reshape(-1)
        arguments = (*ctx.rows, by_source, weight.shape[0], out.numpy().reshape(-1))
        run_ranges(events.event_product, arguments, x.shape[0], threads, events.ROWS)
        ctx.save_for_backward(weight)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:
        (upstream,) = gradients
        (weight,) = ctx.saved_tensors
        dx = product(upstream, weight) if ctx.needs_input_grad[0] else None
        dweight = event_weight_gradient(ctx.rows, upstream, weight.shape[1]) if ctx.needs_input_grad[1] else None
        return dx, dweight


def event_weight_gradient(rows: events.EventRows, upstream: Tensor, n_in: int) -> Tensor:
    """Return ``upstream^T x``, shape (n_out, n_in), for a listed ``x``; the same bits for any number of threads.

    Args:
        rows: ``x``, shape (rows, n_in), from :func:`snnsim.kernels.event_product.list_events`.
        upstream: Shape (rows, n_out), on the CPU.
        n_in: Columns of ``x``.
    """
    upstream = upstream.detach().contiguous()
    n_out = upstream.shape[1]
    by_source = torch.empty(n_in, n_out, dtype=upstream.dtype)
    arguments = (*rows, upstream.numpy().reshape(-1), n_in, n_out, by_source.numpy().reshape(-1))
    run_ranges(events.event_gradient, arguments, n_out, torch.get_num_threads(), EVENT_COLUMNS)
    return by_source.t()


def event_row_product(x: Tensor, weight: Tensor) -> Tensor:
    """Return ``x weight^T`` for an input that is mostly zero; differentiable in both.

    Equal to :func:`row_product` within rounding, the same bits for any number of threads. The product and the gradient
    of the weights touch the entries of ``x`` that are not zero; the gradient of ``x`` is a dense product.

    Args:
        x: Shape (rows, n_in), on the CPU.
        weight: Shape (n_out, n_in).

    Returns:
        Shape (rows, n_out).
    """
    y: Tensor = _EventRowProduct.apply(x, weight.to(x.dtype))  # type: ignore[no-untyped-call]
    return y
