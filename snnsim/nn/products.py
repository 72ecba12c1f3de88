"""Matrix products whose bits do not depend on the number of threads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["ROWS", "row_product", "weight_gradient"]

ROWS = 512
"""Rows summed in one block. A BLAS splits longer sums among its threads, which changes their rounding."""


def weight_gradient(upstream: Tensor, x: Tensor) -> Tensor:
    """Return ``upstream^T x``, summed in blocks of :data:`ROWS` rows, the blocks in order.

    Args:
        upstream: Shape (rows, n_out).
        x: Shape (rows, n_in).

    Returns:
        Shape (n_out, n_in).
    """
    rows = x.shape[0]
    blocks = max(1, -(-rows // ROWS))
    missing = blocks * ROWS - rows
    if missing:
        upstream = functional.pad(upstream, (0, 0, 0, missing))
        x = functional.pad(x, (0, 0, 0, missing))
    parts = torch.bmm(upstream.view(blocks, ROWS, -1).transpose(1, 2), x.view(blocks, ROWS, -1))
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total


class _RowProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x @ weight.T

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        upstream = gradients[0].contiguous()
        dx = upstream @ weight if ctx.needs_input_grad[0] else None
        dweight = weight_gradient(upstream, x.contiguous()) if ctx.needs_input_grad[1] else None
        return dx, dweight


def row_product(x: Tensor, weight: Tensor) -> Tensor:
    """Return ``x weight^T`` with gradients that are the same bits for any number of threads.

    Args:
        x: Shape (rows, n_in).
        weight: Shape (n_out, n_in).
    """
    y: Tensor = _RowProduct.apply(x, weight)  # type: ignore[no-untyped-call]
    return y
