"""Recurrent neurons with one common delay as one autograd function over all time steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from snnsim.kernels import dynamics
from snnsim.kernels import recurrent as kernels
from snnsim.kernels.event_product import list_events
from snnsim.kernels.lanes import run_ranges
from snnsim.kernels.simd import TILE_VECTORS, vector_lanes
from snnsim.kernels.surrogates import surrogate_numbers
from snnsim.nn.cuda import on_cuda
from snnsim.nn.fused import SpikeRule
from snnsim.nn.memory import buffers
from snnsim.nn.products import event_weight_gradient, product
from snnsim.nn.sparse import SynapseOrder, WeightGradient, backward_work
from snnsim.nn.spiking import stack_rows, vector_rows

__all__ = ["recurrent_spikes"]


class _Recurrent(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        current: Tensor,
        weight: Tensor,
        delay: int,
        kind: int,
        rule: SpikeRule,
        events: bool,
        order: SynapseOrder | None,
        *vectors: Tensor,
    ) -> Any:
        shape = tuple(current.shape)
        learn = any(ctx.needs_input_grad[7:])
        keep = kind == dynamics.ADAPTIVE or (learn and kind == dynamics.CUBA)
        spikes, membrane = buffers.take(shape, current.dtype), buffers.take(shape, current.dtype)
        second = buffers.take(shape if keep else (0, *shape[1:]), current.dtype)
        v, w = (torch.empty(shape[1:], dtype=current.dtype) for _ in range(2))
        neuron = stack_rows(kind, vectors)
        by_source = weight.detach().t().contiguous().numpy().reshape(-1)
        arguments = (
            *(current.detach().numpy(), by_source, delay, neuron.numpy(), kind, rule.reset_zero),
            *(membrane.numpy(), second.numpy(), spikes.numpy(), v.numpy(), w.numpy()),
        )
        run_ranges(kernels.recurrent_forward, arguments, shape[1], torch.get_num_threads(), 1)
        ctx.save_for_backward(membrane, second, spikes, weight, neuron)
        ctx.set_materialize_grads(False)
        ctx.numbers = delay, kind, rule, events, order, learn
        return spikes, v, w

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_spikes: Tensor | None, grad_v: Tensor | None, grad_w: Tensor | None) -> Any:
        membrane, second, spikes, weight, neuron = ctx.saved_tensors
        delay, kind, rule, events, order, learn = ctx.numbers
        n_steps, batch, units = membrane.shape
        dtype = membrane.numpy().dtype
        up = torch.zeros_like(membrane) if grad_spikes is None else grad_spikes.contiguous()
        d, c = (membrane.new_zeros(batch, units) if grad is None else grad.contiguous() for grad in (grad_v, grad_w))
        flat, width = weight.detach().contiguous().numpy().reshape(-1), TILE_VECTORS * vector_lanes(dtype)
        if order is None:
            packed = np.empty(units * (-(-units // width) * width), dtype)
            kernels.pack_weight(flat, units, packed)
            synapses, group = (np.zeros(0, np.int32), np.zeros(0, np.int32)), kernels.GROUP
        else:
            packed, synapses = flat[order.source_place], (order.by_source, order.target)
            group = kernels.SPARSE_VECTORS * vector_lanes(dtype)
        grad = buffers.take((n_steps, batch, units), membrane.dtype)
        by_sample = np.empty((dynamics.PARAMETERS, batch if learn else 0, units), dtype)
        surrogate = rule.surrogate
        arguments = (
            *(membrane.numpy(), second.numpy(), packed, *synapses, delay, neuron.numpy(), kind),
            *(rule.reset_zero, rule.detach_reset, surrogate.code),
            *(surrogate_numbers(surrogate.code, surrogate.parameters, dtype), up.numpy(), d.numpy(), c.numpy()),
            *(grad.numpy(), by_sample),
        )
        run_ranges(kernels.recurrent_backward, arguments, batch, torch.get_num_threads(), group)
        grad_weight = None
        if ctx.needs_input_grad[1]:
            later, earlier = grad[delay:].flatten(0, 1), spikes[: max(0, n_steps - delay)].flatten(0, 1)
            if order is not None:
                sums = WeightGradient(order, max(1, earlier.shape[0]), dtype)
                if earlier.shape[0]:
                    backward_work(earlier.numpy(), later.numpy(), packed, sums, None).run(torch.get_num_threads())
                grad_weight = sums.dense()
            elif events:
                rows = list_events(earlier.numpy(), torch.get_num_threads())
                grad_weight = event_weight_gradient(rows, later, units)
            else:
                grad_weight = product(later.t(), earlier)
        by_vector: list[Tensor | None] = [None] * len(ctx.needs_input_grad[7:])
        if learn:
            total = torch.from_numpy(by_sample.sum(axis=1, dtype=np.float64).astype(dtype))
            wanted = zip(ctx.needs_input_grad[7:], vector_rows(kind), strict=True)
            by_vector = [total[row] if wants else None for wants, row in wanted]
        return (grad if ctx.needs_input_grad[0] else None), grad_weight, *(None,) * 5, *by_vector


def recurrent_spikes(
    current: Tensor,
    weight: Tensor,
    vectors: tuple[Tensor, ...],
    delay: int,
    kind: int,
    rule: SpikeRule,
    events: bool = False,
    order: SynapseOrder | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run recurrent neurons from the zero state; differentiable in ``current``, ``weight`` and ``vectors``.

    Args:
        current: Input without recurrence, shape (time, batch, unit).
        weight: Recurrent weights, shape (target, source).
        vectors: The neurons' parameters as their ``prepare`` gives them, shape (unit,) each.
        delay: Steps from a spike to its arrival, at least 1.
        kind: Kind of neuron, see :mod:`snnsim.kernels.dynamics`.
        rule: Reset and surrogate; no refractory period.
        events: Sum the gradient of the weights over the spikes that occurred, instead of a dense product.
        order: The synapses that exist, to go back along these alone; the others must have weight 0. Like ``events``
            it changes nothing on a device, where products are dense.

    Returns:
        Spikes (time, batch, unit), and the last membrane and the last synaptic current or adaptation (batch, unit),
        the last zero for LIF.
    """
    if on_cuda(current):
        from snnsim.nn import cuda_recurrent

        return cuda_recurrent.recurrent_spikes(current, weight, vectors, delay, kind, rule)
    out: tuple[Tensor, Tensor, Tensor] = _Recurrent.apply(  # type: ignore[no-untyped-call]
        current.contiguous(), weight.to(current.dtype), delay, kind, rule, events, order, *vectors
    )
    return out
