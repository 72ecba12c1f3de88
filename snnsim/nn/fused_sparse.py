"""A layer with few synapses and its neurons as one autograd function that goes through time in stretches.

A stretch of the layer's current is used by the neurons while it is still in the cache, and in the backward pass its
gradient goes from the neurons to the synapses without being written for all steps. Numbers are those of
:func:`snnsim.nn.sparse.sparse_row_product` followed by :func:`snnsim.nn.fused_norm.norm_neurons`, bit for bit but for
the weights' gradient, which is summed in another order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from snnsim.kernels.lanes import run_phases, share
from snnsim.kernels.lif_stretch import lif_stretch_backward, lif_stretch_forward
from snnsim.kernels.spike_bits import WORD, pack_words, unpack_words
from snnsim.kernels.surrogates import surrogate_numbers
from snnsim.nn.fused import SpikeRule
from snnsim.nn.memory import buffers
from snnsim.nn.sparse import SynapseOrder, WeightGradient, backward_work, forward_work

__all__ = ["sparse_lif"]

ROWS = 1024
"""Steps times samples of a stretch."""


def stretch_steps(batch: int, n_in: int) -> int:
    """Return the steps of a stretch: about :data:`ROWS` rows, whole words of bits."""
    whole = WORD // math.gcd(WORD, batch * n_in)
    return max(1, ROWS // (batch * whole)) * whole


def _value(x: Tensor, steps: int) -> float:
    """Return the first number that is not 0, or 1.0: what all spikes are if ``x`` holds spikes."""
    for start in range(0, x.shape[0], steps):
        part = x[start : start + steps]
        if value := float(part.max()) or float(part.min()):
            return value
    return 1.0


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
        parts = [slice(start, min(n_steps, start + steps)) for start in range(0, n_steps, steps)]
        keep = all(ctx.needs_input_grad[:2])
        words = np.empty(-(-x.numel() // WORD) if keep else 0, np.uint64)
        ctx.one = _value(x, steps) if keep else 1.0
        others = np.zeros(1, np.uint8)
        counts = np.zeros(batch, np.int64)
        begins = np.empty((len(parts), *v.shape), dtype)
        flat, ends = x.numpy().reshape(-1), v.numpy()
        products = [forward_work(x[part].numpy(), values, order, current[part].numpy()) for part in parts]
        fires = [
            (current[part].numpy(), mask[part], neuron.numpy(), rule.reset_zero, thin, ends, out[part].numpy(), counts)
            for part in parts
        ]

        def work(t: int, wait: Callable[[], None]) -> None:
            first, last = share(batch, t, threads)
            for place, part in enumerate(parts):
                if keep:  # first: it reads one number after the other, and then they are at hand
                    edges = (part.start * batch * n_in // WORD, -(-part.stop * batch * n_in // WORD))
                    low, high = share(edges[1] - edges[0], t, threads)
                    pack_words(flat, dtype.type(ctx.one), words, others, edges[0] + low, edges[0] + high)
                products[place].part(t, threads)
                wait()
                begins[place, first:last] = ends[first:last]
                lif_stretch_forward(*fires[place], first, last)

        run_phases(work, threads)
        ctx.words = words if keep and not others[0] else None
        ctx.shape = tuple(x.shape)
        ctx.numbers = order, rule, thin, parts, begins
        fired = torch.from_numpy(counts)
        ctx.mark_non_differentiable(fired)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x if ctx.words is None else None, weight, current, neuron)
        return out, v, fired

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor | None, grad_v: Tensor | None, _: Any) -> Any:
        kept, weight, current, neuron = ctx.saved_tensors
        order, rule, thin, parts, begins = ctx.numbers
        _, batch, n_in = ctx.shape
        threads, dtype = torch.get_num_threads(), current.numpy().dtype
        up = torch.zeros_like(current) if grad_out is None else grad_out.contiguous()
        d = current.new_zeros(batch, order.n_out) if grad_v is None else grad_v.clone()
        d = d.contiguous()
        surrogate = rule.surrogate
        numbers = (surrogate.code, surrogate_numbers(surrogate.code, surrogate.parameters, dtype))
        longest = max((part.stop - part.start for part in parts), default=0)
        dx = buffers.take(ctx.shape, current.dtype) if ctx.needs_input_grad[0] else None
        by_weight = WeightGradient(order, longest * batch, dtype)
        values = weight.detach().contiguous().numpy().reshape(-1)[order.source_place]
        # two of each: the threads are never more than one stretch apart
        grad = [buffers.take((longest, batch, order.n_out), current.dtype).numpy() for _ in range(2)]
        again = [] if ctx.words is None else [buffers.take((longest, batch, n_in), current.dtype).numpy() for _ in grad]
        fires, products = [], []
        for place, part in enumerate(parts):
            length = part.stop - part.start
            g = grad[place % 2][:length]
            x = again[place % 2][:length] if again else kept[part].numpy()
            ways = (rule.reset_zero, rule.detach_reset, *numbers, thin, begins[place])
            fires.append((current[part].numpy(), neuron.numpy(), *ways, up[part].numpy(), d.numpy(), g))
            products.append(backward_work(x, g, values, by_weight, None if dx is None else dx[part].numpy()))

        def work(t: int, wait: Callable[[], None]) -> None:
            for place in range(len(parts) - 1, -1, -1):
                lif_stretch_backward(*fires[place], *share(batch, t, threads))
                if again:
                    first = parts[place].start * batch * n_in // WORD
                    x = again[place % 2][: parts[place].stop - parts[place].start].reshape(-1)
                    piece = ctx.words[first : first + -(-x.size // WORD)]
                    unpack_words(piece, dtype.type(ctx.one), x, *share(piece.size, t, threads))
                wait()
                products[place].part(t, threads)

        run_phases(work, threads)
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
