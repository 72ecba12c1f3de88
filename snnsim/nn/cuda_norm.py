"""Batch normalisation on a CUDA device: moments, normalisation and their gradients, without leaving it.

Everything that follows from the data stays in tensors on the device: nothing here waits for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable

from snnsim.errors import InputError
from snnsim.kernels import cuda_batch_norm as kernels
from snnsim.kernels.cuda_reductions import segments_of, sum_middle
from snnsim.kernels.cuda_support import launch
from snnsim.nn.cuda import as_cuda, current_stream

__all__ = ["DeviceStatistics", "all_reduce_tensor", "current_gradient", "moments", "normalise", "sum_over_middle"]


@dataclass(frozen=True)
class DeviceStatistics:
    """Moments of one batch, on the device: what :class:`snnsim.nn.norm.BatchStatistics` holds on the CPU.

    Attributes:
        count: Valid rows of all processes, float64, shape ().
        mean: Mean of every unit, float64, shape (unit,).
        variance: Biased variance of every unit.
        deviation: Root of variance plus eps.
    """

    count: Tensor
    mean: Tensor
    variance: Tensor
    deviation: Tensor

    def affine(self, weight: Tensor, bias: Tensor) -> Tensor:
        """Return mean, scale and shift of the normalisation in the dtype of ``weight``, shape (3, unit)."""
        scale = (weight.detach().double() / self.deviation).to(weight.dtype)
        return torch.stack([self.mean.to(weight.dtype), scale, bias.detach()])


def all_reduce_tensor(x: Tensor) -> Tensor:
    """Sum over all processes in place, where there is more than one."""
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        distributed.all_reduce(x)
    return x


_nothing: dict[tuple[torch.dtype, torch.device], Any] = {}


def flat(x: Tensor | None, like: Tensor, dtype: torch.dtype | None = None) -> Any:
    """Return a tensor as kernels take it, flat; None is an array of no numbers on the device of ``like``."""
    if x is None:
        key = (dtype or like.dtype, like.device)
        if key not in _nothing:
            _nothing[key] = as_cuda(torch.empty(0, dtype=key[0], device=key[1]))
        return _nothing[key]
    return as_cuda(x.reshape(-1))


def sum_over_middle(x: Tensor) -> Tensor:
    """Sum a contiguous tensor of shape (rows, n, unit) over ``n``, in float64 and in a fixed order.

    Returns:
        float64, shape (rows, unit).
    """
    rows, n, units = x.shape
    part = torch.empty(rows * segments_of(n) * units, dtype=torch.float64, device=x.device)
    out = torch.empty(rows, units, dtype=torch.float64, device=x.device)
    sum_middle(flat(x, x), rows, n, units, as_cuda(part), flat(out, out), current_stream(x))
    return out


def moments(x: Tensor, mask: Tensor | None, eps: float) -> DeviceStatistics:
    """Return the moments over the valid rows of all processes.

    How many rows a mask leaves is not asked, which would wait for the device: with fewer than two the moments are NaN.

    Args:
        x: Values, shape (time, batch, unit), contiguous.
        mask: Valid rows, bool, shape (time, batch), or None for all.
        eps: Added to the variance.

    Raises:
        InputError: There are fewer than two rows.
    """
    x = x.detach()
    units = x.shape[-1]
    rows = x.numel() // units
    blocks = -(-rows // kernels.ROWS)
    count = torch.empty(blocks, dtype=torch.float64, device=x.device)
    total = torch.empty(blocks, units, dtype=torch.float64, device=x.device)
    square = torch.empty_like(total)
    valid = None if mask is None else mask.contiguous()
    arguments = (flat(x, x), flat(valid, x, torch.uint8), units, as_cuda(count), flat(total, x), flat(square, x))
    launch(kernels.moments, blocks * units, arguments, current_stream(x))
    sums = all_reduce_tensor(torch.cat([sum_over_middle(total.unsqueeze(0))[0], count.sum().unsqueeze(0)]))
    n = sums[-1]
    several = distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
    if mask is not None or several:
        n = torch.where(n < 2, torch.nan, n)
    elif rows < 2:
        raise InputError(
            f"BatchNormTime: expected at least 2 valid steps in a training batch, got {rows}; "
            "check the mask, or use a larger batch"
        )
    mean = sums[:-1] / n
    here = count.unsqueeze(1)
    apart = total / here.clamp(min=1.0) - mean
    centred = all_reduce_tensor(sum_over_middle((square + here * apart * apart).unsqueeze(0))[0])
    variance = (centred / n).clamp(min=0.0)
    return DeviceStatistics(n, mean, variance, torch.sqrt(variance + eps))


def current_gradient(
    x: Tensor,
    mask: Tensor | None,
    affine: Tensor,
    statistics: DeviceStatistics,
    sums: Tensor,
    grad: Tensor,
    out: Tensor,
) -> None:
    """Write the gradient of the values into ``out``, which may be ``grad``.

    Args:
        x: Values, shape (time, batch, unit), contiguous.
        mask: Valid rows, bool, contiguous, or None.
        affine: Mean, scale and shift, shape (3, unit).
        statistics: Moments of the batch.
        sums: Sums of ``grad`` and of ``grad * (x - mean)`` over the rows of this process, float64, shape (2, unit).
        grad: Gradient of the normalised values, like ``x``.
        out: Output, like ``x``.
    """
    means = all_reduce_tensor(sums.clone()) / statistics.count
    offset, slope = means[0].to(x.dtype), (means[1] / statistics.deviation**2).to(x.dtype)
    units = x.shape[-1]
    blocks = -(-(x.numel() // units) // kernels.SCALED)
    arguments = (
        *(flat(x, x), flat(mask, x, torch.uint8), as_cuda(affine), as_cuda(offset), as_cuda(slope)),
        *(flat(grad, x), flat(out, x)),
    )
    launch(kernels.input_gradient, blocks * units, arguments, current_stream(x))


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, statistics: DeviceStatistics, mask: Tensor | None
    ) -> Tensor:
        affine = statistics.affine(weight, bias)
        out = torch.empty_like(x)
        units = x.shape[-1]
        blocks = -(-(x.numel() // units) // kernels.SCALED)
        launch(kernels.scale_rows, blocks * units, (flat(x, x), as_cuda(affine), flat(out, x)), current_stream(x))
        ctx.save_for_backward(x, affine, mask)
        ctx.statistics = statistics
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:
        x, affine, mask = ctx.saved_tensors
        statistics: DeviceStatistics = ctx.statistics
        grad = gradients[0].contiguous()
        units = x.shape[-1]
        blocks = -(-(x.numel() // units) // kernels.ROWS)
        part = torch.empty(2, blocks, units, dtype=torch.float64, device=x.device)
        arguments = (flat(x, x), flat(grad, x), as_cuda(affine), flat(part, x))
        launch(kernels.gradient_sums, blocks * units, arguments, current_stream(x))
        sums = sum_over_middle(part)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.empty_like(x)
            current_gradient(x, mask, affine, statistics, sums, grad, grad_x)
        return grad_x, (sums[1] / statistics.deviation).to(x.dtype), sums[0].to(x.dtype), None, None


def normalise(x: Tensor, weight: Tensor, bias: Tensor, statistics: DeviceStatistics, mask: Tensor | None) -> Tensor:
    """Return ``weight (x - mean) / deviation + bias``; differentiable in the first three, moments included.

    Args:
        x: Values, shape (time, batch, unit), contiguous.
        weight: Factor, shape (unit,).
        bias: Shift, shape (unit,).
        statistics: Moments of ``x``.
        mask: Rows that entered them, bool, shape (time, batch), or None for all.
    """
    valid = None if mask is None else mask.contiguous()
    return cast(Tensor, _Normalise.apply(x, weight, bias, statistics, valid))  # type: ignore[no-untyped-call]
