"""Delay layers in the frequency domain: exact training path whose cost does not depend on taps or sigma.

A delay layer is ``y_j(t) = sum_i (K_ji * x_i)(t)`` with kernels K of ``n_delays`` slots. With the sequence
padded to ``n = n_steps + n_delays - 1`` a circular convolution equals the causal one, so with the discrete
Fourier transform over time each of the ``n // 2 + 1`` frequencies is one complex matrix product::

    Y(f) = X(f) H(f)^T          dX(f) = dY(f) conj(H(f))          dH(f) = dY(f)^T conj(X(f))

The transforms are products with a cosine and a sine matrix (at these lengths a matrix product is faster
than an FFT library), a complex product is four real ones that accumulate in place, and large intermediates are
taken from a pool so that no page is faulted in twice. See docs/delays.md for the derivation and the operation counts.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from snnsim.nn.blocks import run_blocks
from snnsim.nn.products import product

__all__ = ["BufferPool", "frequency_delay"]

FREQUENCY_BLOCK = 8
"""Frequencies whose products are one piece of work for a thread."""

SMALL = 1 << 21
"""Complex multiplications below which all frequencies are one piece."""


class BufferPool:
    """Large tensors for reuse: :meth:`take` hands one out, :meth:`give` takes it back.

    A tensor that is never given back is collected as usual, so forgetting one costs time, not memory.
    """

    def __init__(self, limit_bytes: int = 1 << 30) -> None:
        self._free: dict[torch.dtype, list[Tensor]] = {}
        self._bytes = 0
        self.limit_bytes = limit_bytes

    def take(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return an uninitialised tensor of this shape."""
        size = math.prod(shape)
        free = self._free.setdefault(dtype, [])
        best = -1
        for index, flat in enumerate(free):
            if size <= flat.numel() <= 2 * size and (best < 0 or flat.numel() < free[best].numel()):
                best = index
        if best >= 0:
            flat = free.pop(best)
            self._bytes -= flat.numel() * flat.element_size()
        else:
            flat = torch.empty(size, dtype=dtype)
        return flat[:size].view(shape)

    def give(self, *tensors: Tensor) -> None:
        """Take tensors back; their content may be overwritten from now on."""
        for tensor in tensors:
            flat = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage())
            size = flat.numel() * flat.element_size()
            if self._bytes + size <= self.limit_bytes:
                self._free.setdefault(tensor.dtype, []).append(flat)
                self._bytes += size


_pool = BufferPool()


class _Lease:
    """Buffers that an autograd node holds; they go back to the pool when the node is freed."""

    def __init__(self, *tensors: Tensor) -> None:
        self.tensors = tensors

    def __del__(self) -> None:
        _pool.give(*self.tensors)


@lru_cache(maxsize=64)
def _matrices(n_steps: int, n_delays: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Return the forward transform (2F, n_steps), the inverse (n_steps, 2F) and the kernel's (2F, n_delays)."""
    n = n_steps + n_delays - 1
    frequencies = n // 2 + 1
    f = torch.arange(frequencies, dtype=torch.int64)
    angle = 2 * math.pi / n * ((f[:, None] * torch.arange(n)[None, :]) % n).to(torch.float64)
    both = torch.cat([torch.cos(angle), -torch.sin(angle)])
    share = torch.full((frequencies,), 2.0 / n, dtype=torch.float64)
    share[0] = 1.0 / n
    if n % 2 == 0:
        share[-1] = 1.0 / n
    inverse = (both[:, :n_steps] * share.repeat(2)[:, None]).T.contiguous()
    return (
        both[:, :n_steps].to(dtype).contiguous(),
        inverse.to(dtype),
        both[:, :n_delays].to(dtype).contiguous(),
    )


def _complex_product(a: Tensor, b: Tensor, out: Tensor, *, conjugate: bool) -> None:
    """Write ``a @ b`` (or ``a @ conj(b)``) into ``out``; real and imaginary parts are stacked in dimension 0.

    Four real products that accumulate in place. Three would need sums of the operands and of the products, which
    at the sizes of delay layers cost more in memory traffic than the fourth product does in arithmetic.

    Args:
        a: Shape (2, F, m, k).
        b: Shape (2, F, k, n).
        out: Shape (2, F, m, n).
        conjugate: Whether ``b`` is conjugated.
    """
    sign = 1 if conjugate else -1

    def one(start: int, stop: int) -> None:
        block = slice(start, stop)
        ar, ai, br, bi = a[0, block], a[1, block], b[0, block], b[1, block]
        real, imaginary = out[0, block], out[1, block]
        torch.bmm(ar, br, out=real)
        torch.baddbmm(real, ai, bi, alpha=sign, out=real)
        torch.bmm(ai, br, out=imaginary)
        torch.baddbmm(imaginary, ar, bi, alpha=-sign, out=imaginary)

    # no product is divided, and every block of frequencies runs on one thread: the same bits for any number of them
    frequencies = a.shape[1]
    small = math.prod(a.shape[1:]) * b.shape[3] < SMALL
    run_blocks(one, frequencies, frequencies if small else FREQUENCY_BLOCK)


class _FrequencyDelay(torch.autograd.Function):
    """``y[t, b, j] = sum_i sum_d kernel[d, j, i] x[t - d, b, i]`` through the frequency domain."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor) -> Tensor:
        n_steps, batch, n_in = x.shape
        n_delays, n_out, _ = kernel.shape
        forward, inverse, kernel_forward = _matrices(n_steps, n_delays, x.dtype)
        frequencies = forward.shape[0] // 2
        spectrum = _pool.take((2 * frequencies, batch * n_in), x.dtype)
        product(forward, x.reshape(n_steps, batch * n_in), spectrum)
        transfer = _pool.take((2 * frequencies, n_out * n_in), x.dtype)
        product(kernel_forward, kernel.reshape(n_delays, n_out * n_in), transfer)
        result = _pool.take((2, frequencies, batch, n_out), x.dtype)
        spectrum_4d = spectrum.view(2, frequencies, batch, n_in)
        transfer_4d = transfer.view(2, frequencies, n_out, n_in)
        _complex_product(spectrum_4d, transfer_4d.transpose(2, 3), result, conjugate=False)
        y = product(inverse, result.view(2 * frequencies, batch * n_out)).view(n_steps, batch, n_out)
        _pool.give(result)
        if any(ctx.needs_input_grad):
            ctx.lease, ctx.n_delays = _Lease(spectrum_4d, transfer_4d), n_delays
        else:
            _pool.give(spectrum, transfer)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:
        (dy,) = gradients
        spectrum, transfer = ctx.lease.tensors
        n_steps, batch, n_out = dy.shape
        frequencies, n_in = spectrum.shape[1], spectrum.shape[3]
        n_delays = ctx.n_delays
        forward, inverse, kernel_forward = _matrices(n_steps, n_delays, dy.dtype)
        dresult = _pool.take((2 * frequencies, batch * n_out), dy.dtype)
        product(inverse.T, dy.reshape(n_steps, batch * n_out), dresult)
        dresult_4d = dresult.view(2, frequencies, batch, n_out)
        dx = dkernel = None
        if ctx.needs_input_grad[1]:
            dtransfer = _pool.take((2, frequencies, n_out, n_in), dy.dtype)
            _complex_product(dresult_4d.transpose(2, 3), spectrum, dtransfer, conjugate=True)
            dkernel = product(kernel_forward.T, dtransfer.view(2 * frequencies, n_out * n_in))
            dkernel = dkernel.view(n_delays, n_out, n_in)
            _pool.give(dtransfer)
        if ctx.needs_input_grad[0]:
            dspectrum = _pool.take((2, frequencies, batch, n_in), dy.dtype)
            _complex_product(dresult_4d, transfer, dspectrum, conjugate=True)
            dx = product(forward.T, dspectrum.view(2 * frequencies, batch * n_in)).view(n_steps, batch, n_in)
            _pool.give(dspectrum)
        _pool.give(dresult)
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
    y: Tensor = _FrequencyDelay.apply(x, kernel)  # type: ignore[no-untyped-call]
    return y
