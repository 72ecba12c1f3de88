"""Convolution whose bits, gradients included, do not depend on the number of threads.

Output and input gradient share no sum among threads. The gradient of the weights is a sum over all images: it is
computed for groups of images that follow from the shape alone, one thread a group, and added in their order.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from snnsim.kernels.lanes import run_ranges
from snnsim.nn.cuda import on_host

__all__ = ["convolve"]

GROUPS = 8
"""Most groups of images of a weight gradient."""

LEAST = 32
"""Images of a group at least: smaller ones cost more than they share."""


def _exact(x: Tensor) -> AbstractContextManager[None]:
    """Have cuDNN compute float32 as float32, and the same bits in every run; the CPU knows nothing of it."""
    if on_host(x):
        return nullcontext()
    exact: AbstractContextManager[None] = torch.backends.cudnn.flags(
        enabled=torch.backends.cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=False
    )
    return exact


def _backward(up: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int, wanted: list[bool]) -> list[Any]:
    with _exact(x):
        result: list[Any] = torch.ops.aten.convolution_backward(
            up, x, weight, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1, [*wanted, False]
        )
    return result


def _weight_gradient(up: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    threads = torch.get_num_threads()
    images = x.shape[0]
    size = max(LEAST, -(-images // GROUPS))
    starts = list(range(0, images, size)) or [0]
    parts: list[Tensor] = [weight] * len(starts)

    def work(first: int, last: int) -> None:
        if torch.get_num_threads() != 1:
            torch.set_num_threads(1)  # of this thread alone
        for index in range(first, last):
            some = slice(starts[index], starts[index] + size)
            parts[index] = _backward(up[some], x[some], weight, stride, padding, [False, True])[1]

    try:
        run_ranges(work, (), len(starts), threads, 1)
    finally:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.sizes = stride, padding
        with _exact(x):
            y = torch.nn.functional.conv2d(x, weight, None, stride, padding)
        return y.contiguous(memory_format=torch.channels_last)  # with one input channel torch chooses the other order

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:
        x, weight = ctx.saved_tensors
        stride, padding = ctx.sizes
        up = gradients[0].contiguous(memory_format=torch.channels_last)
        dx = dweight = None
        if ctx.needs_input_grad[0]:
            dx = _backward(up, x, weight, stride, padding, [True, False])[0]
        if ctx.needs_input_grad[1]:
            if on_host(x):
                dweight = _weight_gradient(up, x, weight, stride, padding)
            else:
                dweight = _backward(up, x, weight, stride, padding, [False, True])[1]
        return dx, dweight, None, None


def convolve(x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Convolve images, differentiable in both arguments.

    Args:
        x: Images, shape (image, n_in, height, width), in torch's ``channels_last`` order.
        weight: Shape (n_out, n_in, kernel, kernel).
        stride: Step between the kernel's places.
        padding: Empty pixels around an image.

    Returns:
        Shape (image, n_out, height', width'), in the same order.
    """
    y: Tensor = _Convolve.apply(x, weight, stride, padding)  # type: ignore[no-untyped-call]
    return y
