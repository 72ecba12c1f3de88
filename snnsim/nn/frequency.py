"""Delay layers in the frequency domain: exact training path whose cost does not depend on taps or sigma.

A delay layer is ``y_j(t) = sum_i (K_ji * x_i)(t)`` with kernels K of ``n_delays`` slots. With the sequence
padded to ``n >= n_steps + n_delays - 1`` a circular convolution equals the causal one, so with the discrete
Fourier transform over time each of the ``n // 2 + 1`` frequencies is one complex matrix product::

    Y(f) = X(f) H(f)^T          dX(f) = dY(f) conj(H(f))          dH(f) = dY(f)^T conj(X(f))

:mod:`snnsim.kernels.fourier` has the transforms, :mod:`snnsim.kernels.spectral` the products; large intermediates
are taken from a pool. See docs/delays.md for the derivation and the operation
counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from snnsim.kernels import fourier
from snnsim.kernels.lanes import run_ranges
from snnsim.kernels.spectral import complex_products
from snnsim.nn.cuda import on_cuda
from snnsim.nn.cuda_frequency import device_frequency_delay
from snnsim.nn.memory import buffers

__all__ = ["Spectrum", "Transform", "frequency_delay"]

LANES = 256
"""Sequences whose transforms are one piece of work for a thread."""

KERNEL_LANES = 1 << 16
"""Synapses whose spectra are held at a time."""


@dataclass(frozen=True)
class Spectrum:
    """Spectra of ``(rows, columns)`` sequences.

    Attributes:
        data: Flat, rows ``2 f + part`` of ``row`` numbers.
        rows: First extent: samples, or targets of a kernel.
        columns: Second extent: units, or sources of a kernel.
    """

    data: Tensor
    rows: int
    columns: int

    @property
    def row(self) -> int:
        """Return the length of a row of the data."""
        return fourier.row_length(self.rows * self.columns)

    def flat(self, column: int = 0) -> npt.NDArray[Any]:
        """Return the numbers from a column of the first row of the first matrix on."""
        numbers: npt.NDArray[Any] = self.data.numpy()
        return numbers[column:]

    def factor(self, *, transpose: bool, conjugate: bool, column: int = 0) -> tuple[Any, ...]:
        """Return the arguments of a left factor (rows, columns), or of a right one if transposed."""
        across, along = (1, self.columns) if transpose else (self.columns, 1)
        return self.flat(column), self.row, across, along, -1.0 if conjugate else 1.0


class Transform:
    """Transforms and products for sequences of one length, kernels of one length and one dtype.

    Args:
        n_steps: Steps of a sequence.
        n_delays: Slots of a kernel.
        dtype: float32 or float64.
    """

    def __init__(self, n_steps: int, n_delays: int, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.plan = fourier.plan(fourier.smooth_length(n_steps + n_delays - 1), str(dtype).removeprefix("torch."))
        self.frequencies = self.plan.n // 2 + 1

    def empty(self, rows: int, columns: int) -> Spectrum:
        """Return memory for spectra."""
        row = fourier.row_length(rows * columns)
        data = buffers.take((2 * self.frequencies * row,), self.dtype)
        data.view(-1, row)[:, rows * columns :] = 0  # lanes that are no sequence go through the same steps
        return Spectrum(data, rows, columns)

    def analyse(self, x: Tensor) -> Spectrum:
        """Return the spectra of (time, rows, columns)."""
        n_steps, rows, columns = x.shape
        out = self.empty(rows, columns)
        plan = self.plan
        flat = x.detach().contiguous().numpy().reshape(-1)
        source = (flat, n_steps, rows * columns, plan.n, plan.radices, plan.twiddles, plan.turns)
        run_ranges(
            fourier.analyse, (*source, out.data.numpy(), out.row), rows * columns, torch.get_num_threads(), LANES
        )
        return out

    def synthesise(self, spectrum: Spectrum, n_steps: int) -> Tensor:
        """Return the first steps of the sequences, (n_steps, rows, columns)."""
        y = buffers.take((n_steps, spectrum.rows, spectrum.columns), self.dtype)
        plan, lanes = self.plan, spectrum.rows * spectrum.columns
        source = (spectrum.data.numpy(), spectrum.row, lanes, plan.n, plan.radices, plan.twiddles, plan.turns)
        arguments = (*source, y.numpy().reshape(-1), n_steps)
        run_ranges(fourier.synthesise, arguments, lanes, torch.get_num_threads(), LANES)
        return y

    def product(
        self, a: tuple[Any, ...], b: tuple[Any, ...], out: Spectrum, column: int, shape: tuple[int, int, int]
    ) -> None:
        """Write the products of all frequencies into some columns of ``out``.

        Args:
            a: Left factor, from :meth:`Spectrum.factor`.
            b: Right factor.
            out: Spectra that receive the products.
            column: First column.
            shape: Rows and columns of a product, and how many numbers are summed.
        """
        arguments = (*a, *b, out.flat(column), out.row, out.columns, *shape)
        run_ranges(complex_products, arguments, self.frequencies, torch.get_num_threads(), 1)


def _blocks(n: int, others: int) -> Iterator[tuple[int, int]]:
    """Cut the targets or sources of a kernel so that a block's spectra stay in the last-level cache."""
    size = max(16, KERNEL_LANES // others // 16 * 16)
    for start in range(0, n, size):
        yield start, min(n, start + size)


class _FrequencyDelay(torch.autograd.Function):
    """``y[t, b, j] = sum_i sum_d kernel[d, j, i] x[t - d, b, i]`` through the frequency domain."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor) -> Tensor:
        n_steps, batch, n_in = x.shape
        n_delays, n_out, _ = kernel.shape
        transform = Transform(n_steps, n_delays, x.dtype)
        spectrum, result = transform.analyse(x), transform.empty(batch, n_out)
        left = spectrum.factor(transpose=False, conjugate=False)
        for start, stop in _blocks(n_out, n_in):
            transfer = transform.analyse(kernel[:, start:stop])
            right = transfer.factor(transpose=False, conjugate=False)
            transform.product(left, right, result, start, (batch, stop - start, n_in))
            del transfer, right
        y = transform.synthesise(result, n_steps)
        # torch drops what is saved as soon as this node is done; an input that learns nothing is held by its owner
        # anyway and its spectra are quickly made again
        ctx.save_for_backward(kernel, spectrum.data if ctx.needs_input_grad[0] else x)
        ctx.transform = transform
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:
        (dy,) = gradients
        kernel, data = ctx.saved_tensors
        n_steps, batch, n_out = dy.shape
        n_delays, _, n_in = kernel.shape
        transform: Transform = ctx.transform
        dresult = transform.analyse(dy)
        dx = dkernel = None
        if ctx.needs_input_grad[1]:
            dkernel = torch.empty_like(kernel)
            spectrum = Spectrum(data, batch, n_in) if ctx.needs_input_grad[0] else transform.analyse(data)
            right = spectrum.factor(transpose=True, conjugate=True)
            for start, stop in _blocks(n_out, n_in):
                dtransfer = transform.empty(stop - start, n_in)
                left = dresult.factor(transpose=True, conjugate=False, column=start)
                transform.product(left, right, dtransfer, 0, (stop - start, n_in, batch))
                dkernel[:, start:stop] = transform.synthesise(dtransfer, n_delays)
                del dtransfer, left
            del data, spectrum, right  # torch has given the spectrum up to this node: it is free from here
        if ctx.needs_input_grad[0]:
            dspectrum = transform.empty(batch, n_in)
            left = dresult.factor(transpose=False, conjugate=False)
            for start, stop in _blocks(n_in, n_out):
                transfer = transform.analyse(kernel[:, :, start:stop])
                right = transfer.factor(transpose=True, conjugate=True)
                transform.product(left, right, dspectrum, start, (batch, stop - start, n_out))
                del transfer, right
            del dresult, left
            dx = transform.synthesise(dspectrum, n_steps)
        return dx, dkernel


def frequency_delay(x: Tensor, kernel: Tensor) -> Tensor:
    """Convolve spikes with delay kernels, causally, keeping the number of steps.

    ``y[t, b, j] = sum_i sum_d kernel[d, j, i] x[t - d, b, i]`` with ``x = 0`` before step 0. Differentiable
    in both arguments; equal to the time-domain sum within rounding (relative 1e-6 in float32).

    Args:
        x: Spikes or counts, shape (time, batch, n_in).
        kernel: Shape (n_delays, n_out, n_in), slot d is the delay of d steps.

    Returns:
        Shape (time, batch, n_out).
    """
    if x.shape[0] == 0:
        return x @ kernel[0].to(x.dtype).t()
    if on_cuda(x):
        return device_frequency_delay(x, kernel.to(x.dtype))
    y: Tensor = _FrequencyDelay.apply(x, kernel.to(x.dtype))  # type: ignore[no-untyped-call]
    return y
