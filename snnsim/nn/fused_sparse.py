"""A layer with few synapses and its neurons as one autograd function that goes through time in stretches.

A stretch of the layer's current is used by the neurons while it is still in the cache, and in the backward pass its
gradient goes from the neurons to the synapses without being written for all steps. Numbers are those of
:func:`snnsim.nn.sparse.sparse_row_product` followed by :func:`snnsim.nn.fused_norm.norm_neurons`, bit for bit but for
the weights' gradient, which is summed in another order.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from snnsim.kernels.lanes import run_ranges
from snnsim.kernels.lif_stretch import lif_stretch_backward, lif_stretch_forward
from snnsim.kernels.spike_bits import pack_spikes, unpack_spikes
from snnsim.kernels.surrogates import surrogate_numbers
from snnsim.nn.fused import SpikeRule
from snnsim.nn.memory import buffers
from snnsim.nn.sparse import SynapseOrder, WeightGradient, input_gradient, write_product

__all__ = ["sparse_lif"]

ROWS = 1024
"""Steps times samples of a stretch."""

WORD = 64
"""Spikes a word of bits."""


def stretch_steps(batch: int, n_in: int) -> int:
    """Return the steps of a stretch: about :data:`ROWS` rows, whole words of bits."""
    whole = WORD // math.gcd(WORD, batch * n_in)
    return max(1, ROWS // (batch * whole)) * whole


class _Bits:
    """Packs the spikes of one stretch after the other, as long as all are 0 or one common number."""

    def __init__(self) -> None:
        self.words: list[npt.NDArray[np.uint64]] | None = []
        self.one = 0.0

    def add(self, x: Tensor, threads: int) -> None:
        if self.words is None:
            return
        self.one = self.one or float(x.max()) or float(x.min())
        words = pack_spikes(x.numpy().reshape(-1), self.one or 1.0, threads)
        if words is None:
            self.words = None
        else:
            self.words.append(words)


class _SparseLIF(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        state: Tensor,
        order: SynapseOrder,
        neuron: Tensor,
        factors: Tensor | None,
        rule: SpikeRule,
        mask: npt.NDArray[np.uint8],
    ) -> Any:
        x = x.detach().contiguous()
        (n_steps, batch, n_in), threads = x.shape, torch.get_num_threads()
        dtype = x.numpy().dtype
        shape = (n_steps, batch, order.n_out)
        thin = np.empty((0, order.n_out), dtype) if factors is None else factors.numpy()
        current, out = buffers.take(shape, x.dtype), buffers.take(shape, x.dtype)
        v = state.detach().clone(memory_format=torch.contiguous_format)
        values = weight.detach().contiguous().numpy().reshape(-1)[order.target_place]
        steps = stretch_steps(batch, n_in)
        bits = _Bits() if all(ctx.needs_input_grad[:2]) else None
        counts = np.zeros(batch, np.int64)
        begins = []
        for start in range(0, n_steps, steps):
            part = slice(start, start + steps)
            begins.append(v.clone())
            if bits is not None:
                bits.add(x[part], threads)  # first: it reads one number after the other, and then they are at hand
            write_product(x[part].numpy(), values, order, current[part].numpy(), threads)
            arguments = (
                *(current[part].numpy(), mask[part], neuron.numpy(), rule.reset_zero, thin),
                *(v.numpy(), out[part].numpy(), counts),
            )
            run_ranges(lif_stretch_forward, arguments, batch, threads, 1)
        ctx.words = None if bits is None or bits.words is None else bits.words
        ctx.one = 1.0 if bits is None else bits.one or 1.0
        ctx.shape = tuple(x.shape)
        ctx.numbers = order, rule, thin, steps, begins
        fired = torch.from_numpy(counts)
        ctx.mark_non_differentiable(fired)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x if ctx.words is None else None, weight, current, neuron)
        return out, v, fired

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor | None, grad_v: Tensor | None, _: Any) -> Any:
        kept, weight, current, neuron = ctx.saved_tensors
        order, rule, thin, steps, begins = ctx.numbers
        n_steps, batch, n_in = ctx.shape
        threads, dtype = torch.get_num_threads(), current.numpy().dtype
        up = torch.zeros_like(current) if grad_out is None else grad_out.contiguous()
        d = current.new_zeros(batch, order.n_out) if grad_v is None else grad_v.clone()
        d = d.contiguous()
        surrogate = rule.surrogate
        numbers = (surrogate.code, surrogate_numbers(surrogate.code, surrogate.parameters, dtype))
        grad = buffers.take((min(steps, n_steps), batch, order.n_out), current.dtype)
        again = None if ctx.words is None else buffers.take((min(steps, n_steps), batch, n_in), current.dtype)
        dx = buffers.take(ctx.shape, current.dtype) if ctx.needs_input_grad[0] else None
        by_weight = WeightGradient(order, min(steps, n_steps) * batch, dtype)
        values = weight.detach().contiguous().numpy().reshape(-1)[order.source_place]
        for place in range(len(begins) - 1, -1, -1):
            part = slice(place * steps, min(n_steps, (place + 1) * steps))
            g = grad[: part.stop - part.start].numpy()
            arguments = (
                *(current[part].numpy(), neuron.numpy(), rule.reset_zero, rule.detach_reset, *numbers, thin),
                *(begins[place].numpy(), up[part].numpy(), d.numpy(), g),
            )
            run_ranges(lif_stretch_backward, arguments, batch, threads, 1)
            if again is None:
                x = kept[part].numpy()
            else:
                x = again[: part.stop - part.start].numpy()
                unpack_spikes(ctx.words[place], ctx.one, x.reshape(-1), threads)
            input_gradient(x, g, values, by_weight, None if dx is None else dx[part].numpy(), threads)
        dweight = by_weight.dense() if ctx.needs_input_grad[1] else None
        return dx, dweight, (d if ctx.needs_input_grad[2] else None), None, None, None, None, None


def sparse_lif(
    x: Tensor,
    weight: Tensor,
    order: SynapseOrder,
    state: Tensor,
    neuron: Tensor,
    factors: Tensor | None,
    rule: SpikeRule,
    mask: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run a sparse connection and its LIF neurons; differentiable in ``x``, ``weight`` and ``state``.

    Args:
        x: Input, shape (time, batch, n_in), on the CPU.
        weight: Shape (n_out, n_in); entries without a synapse are not read.
        order: The synapses.
        state: Membrane before the first step, shape (batch, n_out).
        neuron: Decay, threshold, v_reset and reset_amount, not learned, shape (4, n_out).
        factors: Dropout's factors, shape (batch, n_out), or None.
        rule: Reset and surrogate; no refractory period.
        mask: Valid steps, bool, shape (time, batch), or None for all.

    Returns:
        Thinned spikes (time, batch, n_out), the last membrane, and the spikes in valid steps before dropout, int64,
        shape (batch,).
    """
    valid = np.empty((0, 0), np.uint8) if mask is None else mask.contiguous().to(torch.uint8).numpy()
    out: tuple[Tensor, Tensor, Tensor] = _SparseLIF.apply(  # type: ignore[no-untyped-call]
        x, weight.to(x.dtype), state.to(x.dtype), order, neuron, factors, rule, valid
    )
    return out
