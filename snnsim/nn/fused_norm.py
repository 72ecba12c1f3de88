"""Batch norm, LIF and dropout of a hidden layer as one autograd function over all time steps.

Kept for the backward pass is the layer's current alone: normalised current, membrane and spikes are computed again
from it, block by block (:mod:`snnsim.kernels.norm_lif`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from snnsim.errors import InputError
from snnsim.kernels.lanes import run_ranges
from snnsim.kernels.norm_lif import current_gradient, norm_lif_backward, norm_lif_forward
from snnsim.kernels.surrogates import surrogate_numbers
from snnsim.nn.fused import SpikeRule
from snnsim.nn.memory import buffers
from snnsim.nn.norm import BatchStatistics, all_reduce

__all__ = ["norm_lif"]


class _NormLIF(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        current: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        v: Tensor,
        neuron: Tensor,
        factors: Tensor | None,
        rule: SpikeRule,
        statistics: BatchStatistics | None,
        mask: npt.NDArray[np.uint8],
    ) -> Any:
        dtype = current.numpy().dtype
        affine = np.zeros((3, current.shape[2]), dtype=dtype)
        affine[1] = 1
        if statistics is not None and weight is not None and bias is not None:
            affine[0] = statistics.mean.astype(dtype)
            affine[1] = (weight.detach().numpy().astype(np.float64) / statistics.deviation).astype(dtype)
            affine[2] = bias.detach().numpy()
        thin = np.empty((0, current.shape[2]), dtype) if factors is None else factors.numpy()
        v_end = v.clone(memory_format=torch.contiguous_format)
        out = buffers.take(tuple(current.shape), current.dtype)
        counts = torch.zeros(current.shape[1], dtype=torch.int64)
        arguments = (
            *(current.numpy(), mask, affine, neuron.numpy(), rule.reset_zero, thin),
            *(v_end.numpy(), out.numpy(), counts.numpy()),
        )
        run_ranges(norm_lif_forward, arguments, current.shape[1], torch.get_num_threads(), 1)
        ctx.mark_non_differentiable(counts)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(current, v, neuron)
        ctx.numbers = affine, thin, rule, statistics, mask
        return out, v_end, counts

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor | None, grad_v: Tensor | None, _: Any) -> Any:
        current, v, neuron = ctx.saved_tensors
        affine, thin, rule, statistics, mask = ctx.numbers
        dtype = affine.dtype
        up = torch.zeros_like(current) if grad_out is None else grad_out.contiguous()
        d = torch.zeros_like(v) if grad_v is None else grad_v.clone(memory_format=torch.contiguous_format)
        grad = buffers.take(tuple(current.shape), current.dtype)
        batch, units = v.shape
        sums = np.empty((2, batch, units))
        arguments = (
            *(current.numpy(), affine, neuron.numpy(), rule.reset_zero, rule.detach_reset, rule.surrogate.code),
            *(surrogate_numbers(rule.surrogate.code, rule.surrogate.parameters, dtype), thin),
            *(v.contiguous().numpy(), up.numpy(), d.numpy(), grad.numpy(), sums),
        )
        threads = torch.get_num_threads()
        run_ranges(norm_lif_backward, arguments, batch, threads, 1)
        if statistics is None:
            return grad, None, None, d, None, None, None, None, None
        by_unit = sums.sum(axis=1)
        grad_bias = torch.from_numpy(by_unit[0].astype(dtype))
        grad_weight = torch.from_numpy((by_unit[1] / statistics.deviation).astype(dtype))
        if ctx.needs_input_grad[0]:
            offset, slope = all_reduce(by_unit) / statistics.count
            slopes = (slope / statistics.deviation**2).astype(dtype)
            numbers = (current.numpy(), mask, affine, offset.astype(dtype), slopes, grad.numpy())
            run_ranges(current_gradient, numbers, current.shape[0], threads, 1)
        return grad, grad_weight, grad_bias, d, None, None, None, None, None


def norm_lif(
    current: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    v: Tensor,
    neuron: tuple[Tensor, ...],
    factors: Tensor | None,
    rule: SpikeRule,
    statistics: BatchStatistics | None,
    mask: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise a layer's current, let its neurons fire and thin the spikes.

    Differentiable in ``current``, ``weight``, ``bias`` and ``v``; equal to the separate modules in training.

    Args:
        current: Shape (time, batch, unit), on the CPU.
        weight: Batch norm's factor, shape (unit,), or None without batch norm.
        bias: Batch norm's shift, shape (unit,), or None.
        v: Membrane before the first step, shape (batch, unit).
        neuron: beta, threshold, v_reset and reset_amount, shape (unit,) each; constants.
        factors: Dropout's factors, shape (batch, unit), or None.
        rule: Reset and surrogate; no refractory period.
        statistics: Batch norm's statistics of this batch, or None.
        mask: Valid steps, bool, shape (time, batch), or None for all.

    Returns:
        Thinned spikes (time, batch, unit), the last membrane (batch, unit), and the spikes in valid steps before
        dropout, int64, shape (batch,).
    """
    shape = tuple(current.shape)
    if tuple(v.shape) != shape[1:]:
        raise InputError(f"state: expected a membrane of shape {shape[1:]}, got {tuple(v.shape)}")
    valid = np.empty((0, 0), dtype=np.uint8)
    if mask is not None:
        if tuple(mask.shape) != shape[:2]:
            raise InputError(f"mask: expected shape {shape[:2]}, got {tuple(mask.shape)}")
        valid = mask.contiguous().to(torch.uint8).numpy()
    numbers = torch.stack([value.detach() for value in neuron])
    out: tuple[Tensor, Tensor, Tensor] = _NormLIF.apply(  # type: ignore[no-untyped-call]
        current.contiguous(), weight, bias, v.to(current.dtype), numbers, factors, rule, statistics, valid
    )
    return out
