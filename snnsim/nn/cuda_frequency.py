"""Delay layers in the frequency domain on a CUDA device.

As in :mod:`snnsim.nn.frequency`, each frequency of the padded sequences is one complex product, and a complex product
is three real ones::

    P1 = ar br    P2 = ai bi    P3 = (ar + ai)(br + bi)        real: P1 - P2        imaginary: P3 - P1 - P2

The three factors are linear in the sequence and the output is linear in the three products. A layer is therefore

    y = S [(A x) (B k)^T]        one real matrix product for every row of A, all rows in one batched product

with matrices A (rows, steps), B (rows, slots) and S (steps, rows), and its gradients are those of the same three
matrices transposed. Up to :data:`MATRIX_LENGTH` steps the transforms are products with these matrices: they read and
write whole lines, row after row, which is the order that the batched product wants, and no sum or difference of planes
is a pass of its own. Longer sequences go through the fast Fourier transform of torch.

A row is worked on without the others, so rows are taken in blocks whose planes hold at most :data:`BLOCK_BYTES`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from snnsim.kernels.fourier import smooth_length
from snnsim.nn.cuda_spikes import keep_spikes, restore_spikes, spike_value

__all__ = ["BLOCK_BYTES", "MATRIX_LENGTH", "device_frequency_delay", "transform_of"]

MATRIX_LENGTH = 320
"""Longest padded sequence that is transformed by matrix products.

An estimate from operations and bytes, not a measurement: a product takes ``3 n T`` operations a sequence, the fast
transform some seven passes over it, two of them transposing.
"""

BLOCK_BYTES = 1 << 29
"""Most bytes of the planes of input, kernel and output that are held at a time, unless one frequency takes more."""

Side = Literal["signal", "slots"]
Planes = Callable[[int, int], Tensor]


class Sum(ABC):
    """A sequence that is summed over blocks of rows."""

    @abstractmethod
    def add(self, start: int, stop: int, planes: Tensor) -> None:
        """Add rows ``start`` to ``stop``; planes have shape (rows, first, second)."""

    @abstractmethod
    def result(self) -> Tensor:
        """Return the sequence, shape (steps, first, second)."""


class DeviceTransform(ABC):
    """Transforms of sequences of one length, kernels of one length, and their transposes.

    Attributes:
        rows: Rows that can be worked on by themselves.
        planes: Planes a row.
    """

    rows: int
    planes: int

    @abstractmethod
    def analyse(self, x: Tensor, side: Side) -> Planes:
        """Return what gives blocks of ``A x`` (``signal``) or ``B x`` (``slots``), x is (steps, first, second)."""

    @abstractmethod
    def analyse_output(self, x: Tensor) -> Planes:
        """Return what gives blocks of ``S^T x``."""

    @abstractmethod
    def sum_output(self, shape: tuple[int, int]) -> Sum:
        """Return what sums ``S P`` over blocks."""

    @abstractmethod
    def sum_gradient(self, shape: tuple[int, int], side: Side) -> Sum:
        """Return what sums ``A^T P`` (``signal``) or ``B^T P`` (``slots``) over blocks."""

    def blocks(self, row_bytes: int) -> Iterator[tuple[int, int]]:
        """Cut the rows so that a block's planes stay below the limit."""
        size = max(1, min(self.rows, BLOCK_BYTES // max(1, row_bytes * self.planes)))
        for start in range(0, self.rows, size):
            yield start, min(self.rows, start + size)


class _MatrixSum(Sum):
    def __init__(self, matrix: Tensor, shape: tuple[int, int]) -> None:
        self.matrix, self.shape = matrix, shape
        self.total: Tensor | None = None

    def add(self, start: int, stop: int, planes: Tensor) -> None:
        some, flat = self.matrix[:, start:stop], planes.view(stop - start, math.prod(self.shape))
        if self.total is None:
            self.total = torch.mm(some, flat)
        else:
            self.total.addmm_(some, flat)

    def result(self) -> Tensor:
        total = self.matrix.new_zeros(self.matrix.shape[0], math.prod(self.shape)) if self.total is None else self.total
        return total.view(self.matrix.shape[0], *self.shape)


class MatrixTransform(DeviceTransform):
    """Transforms as matrix products; edges of the spectrum, which are real, have one row instead of three.

    Args:
        n: Length of the circle, even.
        n_steps: Steps of a sequence.
        n_delays: Slots of a kernel.
        dtype: float32 or float64.
        device: Where the matrices lie.
    """

    planes = 1

    def __init__(self, n: int, n_steps: int, n_delays: int, dtype: torch.dtype, device: torch.device) -> None:
        cosine, sine = _waves(n, max(n_steps, n_delays), device)
        inner = slice(1, n // 2)
        analysis = torch.cat([cosine, -sine[inner], cosine[inner] - sine[inner]])
        weight = torch.full((n // 2 + 1, 1), 2.0 / n, dtype=torch.float64, device=device)
        weight[:: n // 2] = 1.0 / n
        cosine, sine = weight * cosine, weight * sine
        synthesis = torch.cat([cosine + sine, sine[inner] - cosine[inner], -sine[inner]])
        self.rows = analysis.shape[0]
        self.signal = analysis[:, :n_steps].to(dtype).contiguous()
        self.slots = analysis[:, :n_delays].to(dtype).contiguous()
        self.synthesis = synthesis[:, :n_steps].to(dtype).contiguous()

    def analyse(self, x: Tensor, side: Side) -> Planes:
        return _products(self.signal if side == "signal" else self.slots, x)

    def analyse_output(self, x: Tensor) -> Planes:
        return _products(self.synthesis, x)

    def sum_output(self, shape: tuple[int, int]) -> Sum:
        return _MatrixSum(self.synthesis.t(), shape)

    def sum_gradient(self, shape: tuple[int, int], side: Side) -> Sum:
        return _MatrixSum((self.signal if side == "signal" else self.slots).t(), shape)


def _products(matrix: Tensor, x: Tensor) -> Planes:
    flat = x.reshape(x.shape[0], math.prod(x.shape[1:]))

    def planes(start: int, stop: int) -> Tensor:
        return torch.mm(matrix[start:stop], flat).view(stop - start, *x.shape[1:])

    return planes


def _waves(n: int, steps: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of ``2 pi f t / n``, float64, shape (n // 2 + 1, steps); sines of the edges are 0."""
    f = torch.arange(n // 2 + 1, device=device)[:, None]
    turn = (f * torch.arange(steps, device=device)[None, :]) % n
    angle = turn.double() * (2.0 * math.pi / n)
    sine = torch.sin(angle)
    sine[:: n // 2] = 0.0
    return torch.cos(angle), sine


class FastTransform(DeviceTransform):
    """Transforms by torch's fast Fourier transform; three planes a frequency.

    Args:
        n: Length of the circle, even.
        n_steps: Steps of a sequence.
        n_delays: Slots of a kernel.
        dtype: float32 or float64.
        device: Where the spectra lie.
    """

    planes = 3

    def __init__(self, n: int, n_steps: int, n_delays: int, dtype: torch.dtype, device: torch.device) -> None:
        self.n, self.steps = n, {"signal": n_steps, "slots": n_delays}
        self.rows = n // 2 + 1
        self.dtype, self.device = dtype, device

    def analyse(self, x: Tensor, side: Side) -> Planes:
        spectrum = torch.fft.rfft(x, self.n, dim=0)

        def planes(start: int, stop: int) -> Tensor:
            part = torch.view_as_real(spectrum[start:stop])
            out = x.new_empty(3, stop - start, *x.shape[1:])
            out[0], out[1] = part[..., 0], part[..., 1]
            torch.add(out[0], out[1], out=out[2])
            return out.flatten(0, 1)

        return planes

    def analyse_output(self, x: Tensor) -> Planes:
        spectrum = torch.fft.rfft(x, self.n, dim=0, norm="forward")
        spectrum[1:-1] *= 2.0

        def planes(start: int, stop: int) -> Tensor:
            part = torch.view_as_real(spectrum[start:stop])
            out = x.new_empty(3, stop - start, *x.shape[1:])
            out[2] = part[..., 1]
            torch.sub(part[..., 0], out[2], out=out[0])
            torch.add(part[..., 0], out[2], out=out[1]).neg_()
            return out.flatten(0, 1)

        return planes

    def sum_output(self, shape: tuple[int, int]) -> Sum:
        return _FastSum(self, shape, self.steps["signal"], transposed=False)

    def sum_gradient(self, shape: tuple[int, int], side: Side) -> Sum:
        return _FastSum(self, shape, self.steps[side], transposed=True)


class _FastSum(Sum):
    def __init__(self, transform: FastTransform, shape: tuple[int, int], steps: int, *, transposed: bool) -> None:
        self.transform, self.shape, self.steps, self.transposed = transform, shape, steps, transposed
        kind = torch.complex64 if transform.dtype == torch.float32 else torch.complex128
        self.spectrum = torch.empty(transform.rows, *shape, dtype=kind, device=transform.device)

    def add(self, start: int, stop: int, planes: Tensor) -> None:
        first, second, third = planes.view(3, stop - start, *self.shape)
        part = torch.view_as_real(self.spectrum[start:stop])
        if self.transposed:
            torch.add(first, third, out=part[..., 0])
            torch.add(second, third, out=part[..., 1])
        else:
            torch.sub(first, second, out=part[..., 0])
            torch.sub(third, first, out=part[..., 1])
            part[..., 1] -= second

    def result(self) -> Tensor:
        edges = torch.view_as_real(self.spectrum)[:: self.transform.rows - 1]
        edges[..., 1] = 0.0  # real by definition; not every library leaves the imaginary part unread
        if self.transposed:
            self.spectrum[1:-1] *= 0.5
        norm = "forward" if self.transposed else "backward"
        whole: Tensor = torch.fft.irfft(self.spectrum, self.transform.n, dim=0, norm=norm)
        return whole[: self.steps].contiguous()


@cache  # captured steps read the matrices where they lie
def transform_of(n_steps: int, n_delays: int, dtype: torch.dtype, device: torch.device) -> DeviceTransform:
    """Return the transforms of sequences of one length, kernels of one length and one dtype; kept for the next call."""
    n = smooth_length(n_steps + n_delays - 1)
    if n <= MATRIX_LENGTH:
        return MatrixTransform(n, n_steps, n_delays, dtype, device)
    return FastTransform(n, n_steps, n_delays, dtype, device)


class _DeviceFrequencyDelay(torch.autograd.Function):
    """``y[t, b, j] = sum_i sum_d kernel[d, j, i] x[t - d, b, i]`` through the frequency domain."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, one: float | None) -> Tensor:
        n_steps, batch, n_in = x.shape
        n_delays, n_out, _ = kernel.shape
        transform = transform_of(n_steps, n_delays, x.dtype, x.device)
        signal, slots = transform.analyse(x, "signal"), transform.analyse(kernel, "slots")
        total = transform.sum_output((batch, n_out))
        for start, stop in transform.blocks(_row_bytes(x, n_out)):
            planes = torch.bmm(signal(start, stop), slots(start, stop).transpose(1, 2))
            total.add(start, stop, planes)
            del planes
        # the spectra are quickly made again and larger than the input: the input is kept, spikes of a layer as bits
        data, ctx.form = keep_spikes(x, one if ctx.needs_input_grad[0] else None)
        ctx.save_for_backward(kernel, data if ctx.needs_input_grad[1] else None)
        ctx.sizes = n_steps, batch, n_in
        return total.result()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:
        dy = gradients[0]
        kernel, data = ctx.saved_tensors
        n_delays, n_out, _ = kernel.shape
        n_steps, batch, n_in = ctx.sizes
        transform = transform_of(n_steps, n_delays, dy.dtype, dy.device)
        upstream = transform.analyse_output(dy)
        dx = dkernel = signal = slots = None
        if ctx.needs_input_grad[0]:
            slots, dx = transform.analyse(kernel, "slots"), transform.sum_gradient((batch, n_in), "signal")
        if data is not None:
            signal = transform.analyse(restore_spikes(data, ctx.form), "signal")
            dkernel = transform.sum_gradient((n_out, n_in), "slots")
        for start, stop in transform.blocks(_row_bytes(dy, n_in)):
            up = upstream(start, stop)
            if dkernel is not None and signal is not None:
                dkernel.add(start, stop, torch.bmm(up.transpose(1, 2), signal(start, stop)))
            if dx is not None and slots is not None:
                dx.add(start, stop, torch.bmm(up, slots(start, stop)))
            del up
        return (None if dx is None else dx.result()), (None if dkernel is None else dkernel.result()), None


def _row_bytes(x: Tensor, others: int) -> int:
    """Return the bytes of one plane of input, kernel and output; ``x`` has (steps, batch, units) of one end."""
    _, batch, units = x.shape
    return (batch * units + units * others + batch * others) * x.element_size()


def device_frequency_delay(x: Tensor, kernel: Tensor) -> Tensor:
    """Return :func:`snnsim.nn.frequency.frequency_delay` on a CUDA device; differentiable in both, the same rounding.

    Nothing waits for the device. What is held besides the arguments: planes of at most :data:`BLOCK_BYTES` (with the
    fast transform also the spectra of input, kernel and output), and for the backward pass the input, one bit an entry
    where it is known to be spikes of a layer (:func:`snnsim.nn.cuda_spikes.mark_spikes`).

    Args:
        x: Spikes or counts, shape (time, batch, n_in), at least one step.
        kernel: Shape (n_delays, n_out, n_in), dtype of ``x``.

    Returns:
        Shape (time, batch, n_out).
    """
    y: Tensor = _DeviceFrequencyDelay.apply(x.contiguous(), kernel.contiguous(), spike_value(x))  # type: ignore[no-untyped-call]
    return y
