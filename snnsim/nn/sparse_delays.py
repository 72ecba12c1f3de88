"""Delay layers with few synapses: the frequency domain, but only with the synapses that exist.

Kernels, their transforms and the products of every frequency go along the existing synapses; only the transforms of
input, output and their gradients are those of :mod:`snnsim.nn.frequency`. The products take ``n`` complex
multiply-additions a frequency and sample for ``n`` synapses in the forward pass and ``2 n`` in the backward one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from snnsim.kernels import sparse_spectral as kernels
from snnsim.kernels.delay_profile import kernel_backward, kernel_forward
from snnsim.kernels.lanes import run_ranges
from snnsim.nn.frequency import Spectrum, Transform
from snnsim.nn.sparse import SynapseOrder

__all__ = ["sparse_delay", "sparse_delay_kernel"]

Floats = npt.NDArray[np.floating[Any]]


class _SynapseKernel(torch.autograd.Function):
    """Kernel by delay slot of the existing synapses, from weights, positions and sigma."""

    @staticmethod
    def forward(
        ctx: Any,
        weight: Tensor,
        position: Tensor,
        sigma: Tensor,
        mask: Tensor | None,
        order: SynapseOrder,
        version: str,
        n_delays: int,
        steps: Tensor | None,
    ) -> Tensor:
        taps = weight.shape[2]
        values = np.ascontiguousarray(weight.detach().numpy().reshape(-1, taps)[order.source_place])
        exists = None if mask is None else mask.numpy().reshape(-1, taps)[order.source_place]
        if exists is not None:
            values *= exists
        ctx.numbers = order, version, exists
        ctx.save_for_backward(weight, position, sigma, steps)
        if steps is not None:
            places = steps.numpy().reshape(-1, taps)[order.source_place]
            kernel = np.zeros((n_delays, order.n_synapses), values.dtype)
            for tap in range(taps):
                kernel[places[:, tap], np.arange(order.n_synapses)] += values[:, tap]
            ctx.places = places
            return torch.from_numpy(kernel)
        ctx.values, ctx.rows = values, _rows(position, weight, order)
        kernel = kernel_forward(values, ctx.rows, float(sigma), version, n_delays, torch.get_num_threads())
        return torch.from_numpy(kernel)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:
        weight, position, sigma, steps = ctx.saved_tensors
        order, version, exists = ctx.numbers
        dkernel = gradients[0].contiguous().numpy()
        by_position = dsigma = None
        if steps is not None:
            dvalues = np.stack([dkernel[places, np.arange(order.n_synapses)] for places in ctx.places.T], axis=1)
        else:
            dvalues, drows, total = kernel_backward(
                ctx.values, ctx.rows, float(sigma), version, dkernel, torch.get_num_threads()
            )
            dsigma = sigma.new_tensor(total)
            everywhere = _scattered(drows, weight, order)
            for axis in (0, 1):
                if position.shape[axis] == 1:  # NumPy's sum: one thread, so that the bits do not depend on their number
                    everywhere = everywhere.sum(axis=axis, keepdims=True)
            by_position = torch.from_numpy(everywhere)
        if exists is not None:
            dvalues = dvalues * exists
        return torch.from_numpy(_scattered(dvalues, weight, order)), by_position, dsigma, *(None,) * 5


def _rows(position: Tensor, weight: Tensor, order: SynapseOrder) -> Floats:
    rows = position.detach().expand_as(weight).reshape(-1, weight.shape[2]).numpy()[order.source_place]
    return np.ascontiguousarray(rows)


def _scattered(rows: Floats, weight: Tensor, order: SynapseOrder) -> Floats:
    """Return numbers of synapses in the shape of the weights, 0 where there is none."""
    everywhere = np.zeros(tuple(weight.shape), rows.dtype)
    everywhere.reshape(-1, weight.shape[2])[order.source_place] = rows
    return everywhere


def sparse_delay_kernel(
    weight: Tensor,
    position: Tensor,
    sigma: Tensor,
    mask: Tensor | None,
    order: SynapseOrder,
    version: str,
    n_delays: int,
    steps: Tensor | None = None,
) -> Tensor:
    """Return the kernels of the existing synapses, differentiable in weight, position and sigma.

    They are the columns of :func:`snnsim.nn.delays.delay_kernel`, or of exact deltas at ``steps``.

    Args:
        weight: Shape (n_out, n_in, taps).
        position: Shape (n_out | 1, n_in | 1, taps).
        sigma: Stored width, shape ().
        mask: Which taps exist, the shape of the weights; None: all.
        order: Pairs of neurons with at least one tap.
        version: Interpolation kernel.
        n_delays: Delay slots.
        steps: Delay of every tap in steps, int64, the shape of the weights: instead of positions.

    Returns:
        Shape (n_delays, synapses), in the order of the sources.
    """
    out: Tensor = _SynapseKernel.apply(weight, position, sigma, mask, order, version, n_delays, steps)  # type: ignore[no-untyped-call]
    return out


class _SparseDelay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, order: SynapseOrder) -> Tensor:
        n_steps, batch, n_in = x.shape
        transform = Transform(n_steps, kernel.shape[0], x.dtype)
        spectrum, result = transform.analyse(x), transform.empty(batch, order.n_out)
        transfer = transform.analyse(kernel.unsqueeze(1))
        arguments = (
            *(spectrum.data.numpy(), spectrum.row, transfer.data.numpy(), transfer.row),
            *(order.by_target, order.source, order.along_source, batch, n_in, order.n_out),
            *(result.data.numpy(), result.row),
        )
        run_ranges(kernels.sparse_spectra_forward, arguments, transform.frequencies, torch.get_num_threads(), 1)
        ctx.save_for_backward(transfer.data, spectrum.data if ctx.needs_input_grad[0] else x)
        ctx.numbers = transform, order, kernel.shape[0], tuple(x.shape)
        return transform.synthesise(result, n_steps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:
        (dy,) = gradients
        data, kept = ctx.saved_tensors
        transform, order, n_delays, (n_steps, batch, n_in) = ctx.numbers
        transfer = Spectrum(data, 1, order.n_synapses)
        upstream = transform.analyse(dy)
        spectrum = Spectrum(kept, batch, n_in) if ctx.needs_input_grad[0] else transform.analyse(kept)
        dtransfer = transform.empty(1, order.n_synapses)
        ends = (order.by_source, order.target, batch, n_in, order.n_out)
        inputs = (spectrum.data.numpy(), spectrum.row, upstream.data.numpy(), upstream.row)
        count, threads = transform.frequencies, torch.get_num_threads()
        dx = None
        if ctx.needs_input_grad[0]:
            result = transform.empty(batch, n_in)
            outputs = (result.data.numpy(), result.row, dtransfer.data.numpy())
            arguments = (*inputs, transfer.data.numpy(), transfer.row, *ends, *outputs)
            run_ranges(kernels.sparse_spectra_backward, arguments, count, threads, 1)
            dx = transform.synthesise(result, n_steps)
        else:
            alone = (*inputs, transfer.row, *ends, dtransfer.data.numpy())
            run_ranges(kernels.sparse_spectra_weights, alone, count, threads, 1)
        return dx, transform.synthesise(dtransfer, n_delays).squeeze(1), None


def sparse_delay(x: Tensor, kernel: Tensor, order: SynapseOrder) -> Tensor:
    """Return :func:`snnsim.nn.frequency.frequency_delay` for the existing synapses, within rounding.

    Args:
        x: Spikes or counts, shape (time, batch, n_in), at least one step, on the CPU.
        kernel: Shape (n_delays, synapses), in the order of the sources; differentiable, as is ``x``.
        order: The synapses, at least one.

    Returns:
        Shape (time, batch, n_out).
    """
    y: Tensor = _SparseDelay.apply(x, kernel.to(x.dtype), order)  # type: ignore[no-untyped-call]
    return y
