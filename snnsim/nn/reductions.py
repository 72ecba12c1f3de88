"""Sums and softmax whose bits do not depend on the number of threads, with their gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from snnsim.kernels.lanes import run_ranges
from snnsim.nn.cuda import on_cuda

__all__ = ["add_bias", "softmax", "sum_first"]

ROWS = 2048
"""Rows of a softmax that are one piece of work for a thread."""


def _sum_rows(x: Tensor) -> Tensor:
    """Sum over the first dimension in float64: on one thread (NumPy's), or in a fixed order on a device."""
    if on_cuda(x) and x.numel():
        from snnsim.nn.cuda_norm import sum_over_middle

        total = sum_over_middle(x.detach().contiguous().reshape(1, x.shape[0], -1))
        return total.to(x.dtype).reshape(x.shape[1:])
    if x.device.type != "cpu":
        return x.sum(dim=0)
    array = x.detach().numpy()
    return torch.from_numpy(np.asarray(array.sum(axis=0, dtype=np.float64)).astype(array.dtype))


class _SumFirst(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape = x.shape
        return _sum_rows(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].expand(ctx.shape)


def sum_first(x: Tensor) -> Tensor:
    """Sum over the first dimension; a sum of torch's has other bits where its threads divide the columns otherwise.

    Args:
        x: Shape (n, ...).

    Returns:
        Shape (...).
    """
    total: Tensor = _SumFirst.apply(x)  # type: ignore[no-untyped-call]
    return total


class _AddBias(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, bias: Tensor) -> Tensor:
        return y + bias

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:
        (upstream,) = gradients
        dbias = _sum_rows(upstream.flatten(0, 1)) if ctx.needs_input_grad[1] else None
        return (upstream if ctx.needs_input_grad[0] else None), dbias


def add_bias(y: Tensor, bias: Tensor) -> Tensor:
    """Add a drive to every step of every sample; its gradient is the same bits for any number of threads.

    Args:
        y: Shape (time, batch, unit).
        bias: Shape (unit,).

    Returns:
        Shape (time, batch, unit).
    """
    out: Tensor = _AddBias.apply(y, bias)  # type: ignore[no-untyped-call]
    return out


def _by_blocks(work: Callable[[slice], None], n: int) -> None:
    """Call ``work`` for every block of :data:`ROWS` rows, on any number of threads: they follow from ``n`` alone."""

    def some(start: int, stop: int) -> None:
        for first in range(start, stop, ROWS):
            work(slice(first, min(stop, first + ROWS)))

    run_ranges(some, (), n, torch.get_num_threads(), ROWS)


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or on_cuda(x):
            y = torch.softmax(x, dim=1)
        else:
            y = torch.empty_like(x)
            source, out = x.detach().numpy(), y.numpy()

            def one(rows: slice) -> None:
                part = np.exp(source[rows] - source[rows].max(axis=1, keepdims=True))
                np.divide(part, part.sum(axis=1, keepdims=True), out=out[rows])

            _by_blocks(one, x.shape[0])
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:
        (y,) = ctx.saved_tensors
        (upstream,) = gradients
        if y.device.type != "cpu" or on_cuda(y):
            return y * (upstream - (y * upstream).sum(dim=1, keepdim=True))
        dx = torch.empty_like(y)
        share, up, out = y.numpy(), upstream.numpy(), dx.numpy()

        def one(rows: slice) -> None:
            mean = (share[rows] * up[rows]).sum(axis=1, keepdims=True)
            np.multiply(share[rows], up[rows] - mean, out=out[rows])

        _by_blocks(one, y.shape[0])
        return dx


def softmax(x: Tensor) -> Tensor:
    """Return the softmax over the last dimension.

    torch's own has other bits where its threads divide the rows otherwise.

    Args:
        x: Shape (time, batch, class).

    Returns:
        Shape (time, batch, class).
    """
    y: Tensor = _Softmax.apply(x.reshape(-1, x.shape[-1]))  # type: ignore[no-untyped-call]
    return y.view(x.shape)
