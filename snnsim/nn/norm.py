"""Batch normalisation over time and batch, with padding masks and under data-parallel training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable

from snnsim.errors import InputError
from snnsim.kernels import batch_norm as kernels
from snnsim.nn.context import Context
from snnsim.nn.cuda import on_cuda

if TYPE_CHECKING:
    from snnsim.nn.cuda_norm import DeviceStatistics

__all__ = ["BatchNormTime", "BatchStatistics", "all_reduce"]

Vector = npt.NDArray[np.float64]


def all_reduce(array: Vector) -> Vector:
    """Sum over all processes, where there is more than one."""
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return array
    total = torch.from_numpy(np.ascontiguousarray(array))
    distributed.all_reduce(total)
    return total.numpy()


@dataclass(frozen=True)
class BatchStatistics:
    """Moments of one batch.

    Attributes:
        count: Valid rows of all processes.
        mean: Mean of every unit, float64, shape (unit,).
        variance: Biased variance of every unit.
        deviation: Root of variance plus eps.
    """

    count: float
    mean: Vector
    variance: Vector
    deviation: Vector


def _rows(x: Tensor) -> npt.NDArray[Any]:
    rows: npt.NDArray[Any] = x.detach().numpy().reshape(-1, x.shape[-1])
    return rows


def _moments(x: Tensor, mask: npt.NDArray[np.uint8]) -> tuple[float, Vector, Vector]:
    """Return count, mean and biased variance over the valid rows of all processes."""
    rows = _rows(x)
    blocks = -(-rows.shape[0] // kernels.ROWS)
    count = np.zeros(blocks, dtype=np.int64)
    total = np.zeros((blocks, rows.shape[1]))
    square = np.zeros((blocks, rows.shape[1]))
    kernels.run_rows(kernels.statistics, (rows, mask, count, total, square), rows.shape[0], torch.get_num_threads())
    sums = all_reduce(np.concatenate([total.sum(axis=0), [float(count.sum())]]))
    n = float(sums[-1])
    if n < 2:
        raise InputError(
            f"BatchNormTime: expected at least 2 valid steps in a training batch, got {int(n)}; "
            "check the mask, or use a larger batch"
        )
    mean = sums[:-1] / n
    weight = count[:, None].astype(np.float64)
    apart = total / np.maximum(weight, 1.0) - mean
    centred = all_reduce((square + weight * apart * apart).sum(axis=0))
    return n, mean, np.maximum(centred / n, 0.0)


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        statistics: BatchStatistics,
        mask: npt.NDArray[np.uint8],
    ) -> Tensor:
        dtype = x.numpy().dtype
        centre = statistics.mean.astype(dtype)
        scale = (weight.detach().numpy().astype(np.float64) / statistics.deviation).astype(dtype)
        out = torch.empty_like(x)
        arguments = (_rows(x), centre, scale, bias.detach().numpy(), _rows(out))
        kernels.run_rows(kernels.scale_rows, arguments, arguments[0].shape[0], torch.get_num_threads())
        ctx.save_for_backward(x)
        ctx.numbers = centre, scale, statistics.deviation, statistics.count, mask
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        (x,) = ctx.saved_tensors
        centre, scale, deviation, count, mask = ctx.numbers
        grad = grad_outputs[0].contiguous()
        rows, up = _rows(x), _rows(grad)
        threads = torch.get_num_threads()
        blocks = -(-rows.shape[0] // kernels.ROWS)
        total = np.zeros((blocks, rows.shape[1]))
        product = np.zeros((blocks, rows.shape[1]))
        kernels.run_rows(kernels.gradient_sums, (rows, up, centre, total, product), rows.shape[0], threads)
        sums = np.stack([total.sum(axis=0), product.sum(axis=0)])
        grad_bias = torch.from_numpy(sums[0].astype(rows.dtype))
        grad_weight = torch.from_numpy((sums[1] / deviation).astype(rows.dtype))
        grad_x = None
        if ctx.needs_input_grad[0]:
            offset, slope = all_reduce(sums) / count
            grad_x = torch.empty_like(x)
            arguments = (
                rows,
                up,
                mask,
                centre,
                scale,
                offset.astype(rows.dtype),
                (slope / deviation**2).astype(rows.dtype),
                _rows(grad_x),
            )
            kernels.run_rows(kernels.input_gradient, arguments, rows.shape[0], threads)
        return grad_x, grad_weight, grad_bias, None, None


class BatchNormTime(nn.Module):
    """Batch normalisation of every unit over all valid (step, sample) pairs.

    ``y = weight (x - mean) / sqrt(var + eps) + bias``, as ``torch.nn.BatchNorm1d`` over ``time * batch`` rows
    (Ioffe & Szegedy 2015): the biased variance normalises, the unbiased one enters the running average with
    ``momentum``. Steps that ``context.mask`` marks as padding do not count. Under ``torch.distributed`` count,
    sum and centred square sum are summed over the processes, so that the result is that of one process with
    the whole batch.

    Note that the statistics look into the future of a training sequence; in evaluation the layer is an affine
    map (:meth:`fold`).

    Args:
        size: Number of units.
        eps: Added to the variance.
        momentum: Share of the new batch in the running average.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, size: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        if size < 1 or eps < 0 or not 0 < momentum <= 1:
            raise InputError(
                "BatchNormTime: expected size >= 1, eps >= 0 and momentum in (0, 1], "
                f"got size={size}, eps={eps}, momentum={momentum}"
            )
        self.size = size
        self.eps = eps
        self.momentum = momentum
        self.weight = nn.Parameter(torch.ones(size))
        self.bias = nn.Parameter(torch.zeros(size))
        self.register_buffer("running_mean", torch.zeros(size))
        self.register_buffer("running_var", torch.ones(size))
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.int64))

    def extra_repr(self) -> str:
        """Return what ``print(module)`` shows."""
        return f"{self.size}, eps={self.eps}, momentum={self.momentum}"

    def fold(self) -> tuple[Vector, Vector]:
        """Return ``(scale, shift)``, float64, shape (unit,): in evaluation ``y = scale * x + shift``."""
        variance = self.running_var.detach().cpu().numpy().astype(np.float64)
        mean = self.running_mean.detach().cpu().numpy().astype(np.float64)
        scale = self.weight.detach().cpu().numpy().astype(np.float64) / np.sqrt(variance + self.eps)
        return scale, self.bias.detach().cpu().numpy().astype(np.float64) - mean * scale

    def affine(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return scale and shift of evaluation, shape (unit,) each, differentiable."""
        deviation = torch.sqrt(self.running_var.double() + self.eps)
        scale = self.weight.double() / deviation
        return scale.to(dtype), (self.bias.double() - self.running_mean.double() * scale).to(dtype)

    def _check(self, x: Tensor, context: Context | None) -> Tensor | None:
        if x.dim() != 3 or x.shape[2] != self.size:
            raise InputError(
                f"BatchNormTime({self.size}): expected input of shape (time, batch, {self.size}), got {tuple(x.shape)}"
            )
        mask = None if context is None else context.mask
        if mask is not None and mask.shape != x.shape[:2]:
            raise InputError(
                f"BatchNormTime({self.size}): expected a mask of shape {tuple(x.shape[:2])}, got {tuple(mask.shape)}"
            )
        return mask

    def forward(self, x: Tensor, state: None = None, context: Context | None = None) -> tuple[Tensor, None]:
        """Return the normalised input (time, batch, unit) and no state.

        Args:
            x: Input, shape (time, batch, unit).
            state: None; the layer has no state over time.
            context: Its mask says which steps are valid.
        """
        mask = self._check(x, context)
        if not self.training:
            scale, shift = self.affine(x.dtype)
            return x * scale + shift, None
        if on_cuda(x):
            from snnsim.nn.cuda_norm import normalise

            x = x.contiguous()
            moments = self._measure_on_device(x, mask)
            return normalise(x, self.weight.to(x.dtype), self.bias.to(x.dtype), moments, mask), None
        if x.device.type != "cpu":
            return self._forward_elsewhere(x, mask), None
        x = x.contiguous()
        statistics, valid = self._measure(x, mask)
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        out = _Normalise.apply(x, weight, bias, statistics, valid)  # type: ignore[no-untyped-call]
        return cast(Tensor, out), None

    def statistics(self, x: Tensor, context: Context | None) -> BatchStatistics | DeviceStatistics:
        """Return the moments of a training batch, where it lies, and enter them into the running averages.

        Args:
            x: Input, shape (time, batch, unit), contiguous.
            context: Its mask says which steps are valid.
        """
        mask = self._check(x, context)
        return self._measure_on_device(x, mask) if on_cuda(x) else self._measure(x, mask)[0]

    def _measure_on_device(self, x: Tensor, mask: Tensor | None) -> DeviceStatistics:
        from snnsim.nn.cuda_norm import moments

        found = moments(x, mask, self.eps)
        self._track(found.mean, found.variance, found.count)
        return found

    def _measure(self, x: Tensor, mask: Tensor | None) -> tuple[BatchStatistics, npt.NDArray[np.uint8]]:
        valid = np.empty(0, dtype=np.uint8)
        if mask is not None:
            valid = mask.contiguous().reshape(-1).to(torch.uint8).numpy()
        count, mean, variance = _moments(x, valid)
        self._track(torch.from_numpy(mean), torch.from_numpy(variance), count)
        return BatchStatistics(count, mean, variance, np.sqrt(variance + self.eps)), valid

    def _track(self, mean: Tensor, variance: Tensor, count: float | Tensor) -> None:
        with torch.no_grad():
            keep = 1.0 - self.momentum
            unbiased = variance * (count / (count - 1.0))
            self.running_mean.copy_(keep * self.running_mean.double() + self.momentum * mean)
            self.running_var.copy_(keep * self.running_var.double() + self.momentum * unbiased)
            self.num_batches_tracked += 1

    def _forward_elsewhere(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Normalise with torch operations only, for devices without kernels of their own."""
        if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
            raise InputError("BatchNormTime: data-parallel training is only available on the CPU and on CUDA devices")
        valid = x.reshape(-1, self.size) if mask is None else x[mask]
        if valid.shape[0] < 2:
            raise InputError("BatchNormTime: expected at least 2 valid steps in a training batch")
        mean = valid.mean(dim=0)
        variance = valid.var(dim=0, unbiased=False)
        self._track(mean.detach().double(), variance.detach().double(), float(valid.shape[0]))
        return (x - mean) * (self.weight / torch.sqrt(variance + self.eps)) + self.bias
