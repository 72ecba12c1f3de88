"""Recurrent LIF neurons with one common delay as one autograd function over all time steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from snnsim.kernels import recurrent_lif as kernels
from snnsim.kernels.event_product import list_events
from snnsim.kernels.lanes import run_ranges
from snnsim.kernels.simd import TILE_VECTORS, vector_lanes
from snnsim.kernels.surrogates import surrogate_numbers
from snnsim.nn.fused import SpikeRule
from snnsim.nn.memory import buffers
from snnsim.nn.products import event_weight_gradient, product

__all__ = ["recurrent_lif"]


class _RecurrentLIF(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, current: Tensor, weight: Tensor, neuron: Tensor, delay: int, rule: SpikeRule, sparse: bool
    ) -> Any:
        shape = tuple(current.shape)
        spikes, membrane = buffers.take(shape, current.dtype), buffers.take(shape, current.dtype)
        v = torch.empty(shape[1:], dtype=current.dtype)
        by_source = weight.detach().t().contiguous().numpy().reshape(-1)
        arguments = (
            *(current.detach().numpy(), by_source, delay, neuron.numpy(), rule.reset_zero),
            *(membrane.numpy(), spikes.numpy(), v.numpy()),
        )
        run_ranges(kernels.recurrent_forward, arguments, shape[1], torch.get_num_threads(), 1)
        ctx.save_for_backward(membrane, spikes, weight, neuron)
        ctx.set_materialize_grads(False)
        ctx.numbers = delay, rule, sparse
        return spikes, v

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_spikes: Tensor | None, grad_v: Tensor | None) -> Any:
        membrane, spikes, weight, neuron = ctx.saved_tensors
        delay, rule, sparse = ctx.numbers
        n_steps, batch, units = membrane.shape
        dtype = membrane.numpy().dtype
        up = torch.zeros_like(membrane) if grad_spikes is None else grad_spikes.contiguous()
        d = membrane.new_zeros(batch, units) if grad_v is None else grad_v.clone(memory_format=torch.contiguous_format)
        width = TILE_VECTORS * vector_lanes(dtype)
        packed = np.empty(units * (-(-units // width) * width), dtype)
        kernels.pack_weight(weight.detach().contiguous().numpy().reshape(-1), units, packed)
        grad = buffers.take((n_steps, batch, units), membrane.dtype)
        surrogate = rule.surrogate
        arguments = (
            *(membrane.numpy(), packed, delay, neuron.numpy(), rule.reset_zero, rule.detach_reset, surrogate.code),
            *(surrogate_numbers(surrogate.code, surrogate.parameters, dtype), up.numpy(), d.numpy(), grad.numpy()),
        )
        run_ranges(kernels.recurrent_backward, arguments, batch, torch.get_num_threads(), kernels.GROUP)
        grad_weight = None
        if ctx.needs_input_grad[1]:
            later, earlier = grad[delay:].flatten(0, 1), spikes[: max(0, n_steps - delay)].flatten(0, 1)
            if sparse:
                rows = list_events(earlier.numpy(), torch.get_num_threads())
                grad_weight = event_weight_gradient(rows, later, units)
            else:
                grad_weight = product(later.t(), earlier)
        return (grad if ctx.needs_input_grad[0] else None), grad_weight, None, None, None, None


def recurrent_lif(
    current: Tensor,
    weight: Tensor,
    neuron: tuple[Tensor, ...],
    delay: int,
    rule: SpikeRule,
    sparse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Run recurrent LIF neurons from the zero state; differentiable in ``current`` and ``weight``.

    Args:
        current: Input without recurrence, shape (time, batch, unit), on the CPU.
        weight: Recurrent weights, shape (target, source).
        neuron: beta, threshold, v_reset and reset_amount, shape (unit,) each; constants.
        delay: Steps from a spike to its arrival, at least 1.
        rule: Reset and surrogate; no refractory period.
        sparse: Sum the gradient of the weights over the spikes that occurred, instead of a dense product.

    Returns:
        Spikes (time, batch, unit) and the last membrane (batch, unit).
    """
    numbers = torch.stack([value.detach() for value in neuron])
    out: tuple[Tensor, Tensor] = _RecurrentLIF.apply(  # type: ignore[no-untyped-call]
        current.contiguous(), weight.to(current.dtype), numbers, delay, rule, sparse
    )
    return out
