"""Matrix products whose bits do not depend on the number of threads.

A BLAS that shares one product among threads chooses the shares, and with them the kernels and the order of
summation, by shape and by the number of threads: for some shapes it splits the reduced dimension, for others the
edges of the shares fall elsewhere. Here a product is cut along a free (not reduced) dimension into blocks that
follow from its shape alone, and every block is one call of a BLAS that is limited to one thread
(:func:`snnsim.nn.blocks.run_blocks`), so the bits are the same for any number of threads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from snnsim.nn.blocks import run_blocks

__all__ = ["product", "row_product", "weight_gradient"]

WIDEST = 2048
"""Most rows or columns of a block; wider blocks are no faster."""

NARROWEST = 128
"""Fewest: the other factor is packed anew for every block."""

SMALL = 1 << 23
"""Multiplications below which a product is one block: a fraction of a millisecond, waking a thread costs as much."""

ROWS = 1024
"""Rows of a weight gradient that are summed in one block, where there are more than twice as many."""


def product(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """Return ``a b``, the same bits for any number of threads; no gradient is recorded.

    The larger free dimension is cut into eighths, rounded up to whole cache lines, but not narrower than
    :data:`NARROWEST` nor wider than :data:`WIDEST`; below :data:`SMALL` it is not cut.

    Args:
        a: Shape (m, k).
        b: Shape (k, n).
        out: Where to write, shape (m, n); None: a new tensor.
    """
    (m, k), n = a.shape, b.shape[1]
    if out is None:
        out = a.new_empty(m, n)
    if a.device.type != "cpu":
        with torch.no_grad():
            return torch.mm(a, b, out=out)
    a, b = a.detach(), b.detach()
    result = out
    if m * k * n < SMALL:
        run_blocks(lambda start, stop: torch.mm(a, b, out=result), 1, 1)
        return out
    size = max(m, n)
    block = max(NARROWEST, min(WIDEST, -(-size // 256) * 32))
    by_column = n >= m

    def one(start: int, stop: int) -> None:
        if by_column:
            torch.mm(a, b[:, start:stop], out=result[:, start:stop])
        else:
            torch.mm(a[start:stop], b, out=result[start:stop])

    run_blocks(one, size, block)
    return out


def weight_gradient(upstream: Tensor, x: Tensor) -> Tensor:
    """Return ``upstream^T x``, the same bits for any number of threads; no gradient is recorded.

    The rows, the reduced dimension, are many more than the units, so they are what is cut: every block of
    :data:`ROWS` rows is one product on one thread, and the blocks are added in order.

    Args:
        upstream: Shape (rows, n_out).
        x: Shape (rows, n_in).

    Returns:
        Shape (n_out, n_in).
    """
    rows = x.shape[0]
    if rows <= 2 * ROWS or x.device.type != "cpu":
        return product(upstream.T, x)
    upstream, x = upstream.detach(), x.detach()
    parts = x.new_empty(-(-rows // ROWS), upstream.shape[1], x.shape[1])

    def one(start: int, stop: int) -> None:
        torch.mm(upstream[start:stop].T, x[start:stop], out=parts[start // ROWS])

    run_blocks(one, rows, ROWS)
    total = parts[0]
    for part in parts[1:]:
        total += part
    return total.clone()


class _RowProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight.T)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:
        x, weight = ctx.saved_tensors
        upstream = gradients[0].contiguous()
        dx = product(upstream, weight) if ctx.needs_input_grad[0] else None
        dweight = weight_gradient(upstream, x) if ctx.needs_input_grad[1] else None
        return dx, dweight


def row_product(x: Tensor, weight: Tensor) -> Tensor:
    """Return ``x weight^T``; it and its gradients are the same bits for any number of threads.

    Args:
        x: Shape (rows, n_in).
        weight: Shape (n_out, n_in).

    Returns:
        Shape (rows, n_out).
    """
    y: Tensor = _RowProduct.apply(x, weight)  # type: ignore[no-untyped-call]
    return y
