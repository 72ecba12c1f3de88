"""Batch norm, neurons and dropout of a hidden layer as one autograd function over all time steps.

Kept for the backward pass is the layer's current alone: normalised current, membrane and spikes are computed again
from it, block by block (:mod:`snnsim.kernels.norm_lif`, :mod:`snnsim.kernels.norm_neurons`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from snnsim.errors import InputError
from snnsim.kernels import dynamics
from snnsim.kernels.lanes import run_ranges
from snnsim.kernels.norm_lif import current_gradient, norm_lif_backward, norm_lif_forward
from snnsim.kernels.norm_neurons import norm_neurons_backward, norm_neurons_forward
from snnsim.kernels.surrogates import surrogate_numbers
from snnsim.nn.cuda import on_cuda
from snnsim.nn.fused import SpikeRule
from snnsim.nn.memory import buffers
from snnsim.nn.norm import BatchStatistics, all_reduce
from snnsim.nn.spiking import stack_rows, vector_rows

if TYPE_CHECKING:
    from snnsim.nn.cuda_norm import DeviceStatistics

__all__ = ["norm_neurons"]

_CONSTANTS = 9
"""Arguments before the neurons' vectors."""


class _NormNeurons(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        current: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        state: Tensor,
        factors: Tensor | None,
        kind: int,
        rule: SpikeRule,
        statistics: BatchStatistics | None,
        mask: npt.NDArray[np.uint8],
        *vectors: Tensor,
    ) -> Any:
        dtype = current.numpy().dtype
        affine = np.zeros((3, current.shape[2]), dtype=dtype)
        affine[1] = 1
        if statistics is not None and weight is not None and bias is not None:
            affine[0] = statistics.mean.astype(dtype)
            affine[1] = (weight.detach().numpy().astype(np.float64) / statistics.deviation).astype(dtype)
            affine[2] = bias.detach().numpy()
        thin = np.empty((0, current.shape[2]), dtype) if factors is None else factors.numpy()
        end = state.clone(memory_format=torch.contiguous_format)
        out = buffers.take(tuple(current.shape), current.dtype)
        counts = torch.zeros(current.shape[1], dtype=torch.int64)
        neuron = stack_rows(kind, vectors)
        learn = any(ctx.needs_input_grad[_CONSTANTS:])
        after = (thin, *end.numpy(), out.numpy(), counts.numpy())
        simple = kind == dynamics.LIF and not learn
        if simple:
            arguments = (current.numpy(), mask, affine, neuron[:4].numpy(), rule.reset_zero, *after)
            run_ranges(norm_lif_forward, arguments, current.shape[1], torch.get_num_threads(), 1)
        else:
            if kind == dynamics.LIF:
                after = (thin, end[0].numpy(), np.zeros_like(end[0].numpy()), *after[2:])
            numbers = (current.numpy(), mask, affine, neuron.numpy(), kind, rule.reset_zero, *after)
            run_ranges(norm_neurons_forward, numbers, current.shape[1], torch.get_num_threads(), 1)
        ctx.mark_non_differentiable(counts)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(current, state, neuron)
        ctx.numbers = affine, thin, kind, rule, statistics, mask, simple, learn
        return out, end, counts

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor | None, grad_end: Tensor | None, _: Any) -> Any:
        current, state, neuron = ctx.saved_tensors
        affine, thin, kind, rule, statistics, mask, simple, learn = ctx.numbers
        dtype = affine.dtype
        up = torch.zeros_like(current) if grad_out is None else grad_out.contiguous()
        d = torch.zeros_like(state) if grad_end is None else grad_end.clone(memory_format=torch.contiguous_format)
        grad = buffers.take(tuple(current.shape), current.dtype)
        batch, units = state.shape[1:]
        sums = np.empty((2, batch, units))
        threads = torch.get_num_threads()
        surrogate = (rule.surrogate.code, surrogate_numbers(rule.surrogate.code, rule.surrogate.parameters, dtype))
        by_vector: list[Tensor | None] = [None] * len(ctx.needs_input_grad[_CONSTANTS:])
        if simple:
            arguments = (
                *(current.numpy(), affine, neuron[:4].numpy(), rule.reset_zero, rule.detach_reset, *surrogate, thin),
                *(state[0].numpy(), up.numpy(), d[0].numpy(), grad.numpy(), sums),
            )
            run_ranges(norm_lif_backward, arguments, batch, threads, 1)
        else:
            by_sample = np.empty((dynamics.PARAMETERS, batch if learn else 0, units), dtype)
            nothing = np.zeros((batch, units), dtype)  # LIF has no second state
            w = state[1].numpy() if len(state) > 1 else nothing
            c = d[1].numpy() if len(state) > 1 else nothing.copy()
            numbers = (
                *(current.numpy(), affine, neuron.numpy(), kind, rule.reset_zero, rule.detach_reset, *surrogate, thin),
                *(state[0].numpy(), w, up.numpy(), d[0].numpy(), c, grad.numpy(), sums, by_sample),
            )
            run_ranges(norm_neurons_backward, numbers, batch, threads, 1)
            if learn:
                total = torch.from_numpy(by_sample.sum(axis=1, dtype=np.float64).astype(dtype))
                wanted = zip(ctx.needs_input_grad[_CONSTANTS:], vector_rows(kind), strict=True)
                by_vector = [total[row] if wants else None for wants, row in wanted]
        if statistics is None:
            return grad, None, None, d, *[None] * 5, *by_vector
        by_unit = sums.sum(axis=1)
        grad_bias = torch.from_numpy(by_unit[0].astype(dtype))
        grad_weight = torch.from_numpy((by_unit[1] / statistics.deviation).astype(dtype))
        if ctx.needs_input_grad[0]:
            offset, slope = all_reduce(by_unit) / statistics.count
            slopes = (slope / statistics.deviation**2).astype(dtype)
            arrays = (current.numpy(), mask, affine, offset.astype(dtype), slopes, grad.numpy())
            run_ranges(current_gradient, arrays, current.shape[0], threads, 1)
        return grad, grad_weight, grad_bias, d, *[None] * 5, *by_vector


def norm_neurons(
    current: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    state: tuple[Tensor, ...],
    vectors: tuple[Tensor, ...],
    factors: Tensor | None,
    kind: int,
    rule: SpikeRule,
    statistics: BatchStatistics | DeviceStatistics | None,
    mask: Tensor | None,
) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
    """Normalise a layer's current, let its neurons fire and thin the spikes.

    Differentiable in ``current``, ``weight``, ``bias``, ``state`` and ``vectors``; equal to the separate modules in
    training.

    Args:
        current: Shape (time, batch, unit).
        weight: Batch norm's factor, shape (unit,), or None without batch norm.
        bias: Batch norm's shift, shape (unit,), or None.
        state: Membrane before the first step and, but for LIF, synaptic current or adaptation, shape (batch, unit)
            each.
        vectors: The neurons' parameters as their ``prepare`` gives them, shape (unit,) each.
        factors: Dropout's factors, shape (batch, unit), or None.
        kind: Kind of neuron, see :mod:`snnsim.kernels.dynamics`.
        rule: Reset and surrogate; no refractory period.
        statistics: Batch norm's statistics of this batch, or None.
        mask: Valid steps, bool, shape (time, batch), or None for all.

    Returns:
        Thinned spikes (time, batch, unit), the last state, and the spikes in valid steps before dropout, int64, shape
        (batch,).
    """
    shape = tuple(current.shape)
    for part in state:
        if tuple(part.shape) != shape[1:]:
            raise InputError(f"state: expected shape {shape[1:]}, got {tuple(part.shape)}")
    if mask is not None and tuple(mask.shape) != shape[:2]:
        raise InputError(f"mask: expected shape {shape[:2]}, got {tuple(mask.shape)}")
    if on_cuda(current):
        from snnsim.nn import cuda_neurons

        moments = cast("DeviceStatistics | None", statistics)
        return cuda_neurons.norm_neurons(current, weight, bias, state, vectors, factors, kind, rule, moments, mask)
    valid = np.empty((0, 0), dtype=np.uint8)
    if mask is not None:
        valid = mask.contiguous().to(torch.uint8).numpy()
    begin = torch.stack([part.to(current.dtype) for part in state])
    out, end, counts = _NormNeurons.apply(  # type: ignore[no-untyped-call]
        current.contiguous(), weight, bias, begin, factors, kind, rule, statistics, valid, *vectors
    )
    return out, tuple(end), counts
