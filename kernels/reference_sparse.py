"""Products of a sparse matrix in plain NumPy: the definition of :mod:`snnsim.kernels.sparse_product`.

A matrix is a list of synapses ``(target, source, weight)``. SparseProp (Nikdan et al. 2023) states the same three sums.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["sparse_backward", "sparse_delay", "sparse_forward", "sparse_spectra_backward", "sparse_spectra_forward"]

Floats = npt.NDArray[np.floating[Any]]
Complex = npt.NDArray[np.complexfloating[Any, Any]]
Places = npt.NDArray[np.int32]


def sparse_forward(x: Floats, target: Places, source: Places, weight: Floats, n_out: int) -> Floats:
    """Return ``y[r, i] = sum of weight x[r, source]`` over the synapses of target i.

    Args:
        x: Shape (rows, n_in).
        target: Target of every synapse, shape (synapses,).
        source: Source of every synapse.
        weight: Its weight.
        n_out: Targets.

    Returns:
        Shape (rows, n_out).
    """
    y = np.zeros((x.shape[0], n_out), x.dtype)
    for i, j, w in zip(target, source, weight, strict=True):
        y[:, i] += w * x[:, j]
    return y


def sparse_backward(
    x: Floats, upstream: Floats, target: Places, source: Places, weight: Floats
) -> tuple[Floats, Floats]:
    """Return the gradients of :func:`sparse_forward` for ``upstream``, the gradient of ``y``.

    ``dx[r, j] = sum of weight upstream[r, target]`` over the synapses of source j;
    ``dweight = sum_r upstream[r, target] x[r, source]`` for every synapse.

    Returns:
        ``dx``, shape (rows, n_in), and ``dweight``, shape (synapses,).
    """
    dx = np.zeros_like(x)
    dweight = np.zeros_like(weight)
    for k, (i, j, w) in enumerate(zip(target, source, weight, strict=True)):
        dx[:, j] += w * upstream[:, i]
        dweight[k] = upstream[:, i] @ x[:, j]
    return dx, dweight


def sparse_spectra_forward(x: Complex, target: Places, source: Places, h: Complex, n_out: int) -> Complex:
    """Return ``y[f, b, i] = sum of h[f] x[f, b, source]`` over the synapses of target i.

    Args:
        x: Shape (frequencies, batch, n_in).
        target: Target of every synapse.
        source: Its source.
        h: Spectra of the synapses, shape (frequencies, synapses).
        n_out: Targets.

    Returns:
        Shape (frequencies, batch, n_out).
    """
    y = np.zeros((*x.shape[:2], n_out), x.dtype)
    for k, (i, j) in enumerate(zip(target, source, strict=True)):
        y[:, :, i] += h[:, k, None] * x[:, :, j]
    return y


def sparse_spectra_backward(
    x: Complex, upstream: Complex, target: Places, source: Places, h: Complex
) -> tuple[Complex, Complex]:
    """Return ``dx[f, b, j] = sum of conj(h[f]) upstream[f, b, target]`` over the synapses of source j, and
    ``dh[f] = sum_b upstream[f, b, target] conj(x[f, b, source])`` for every synapse.
    """
    dx, dh = np.zeros_like(x), np.zeros_like(h)
    for k, (i, j) in enumerate(zip(target, source, strict=True)):
        dx[:, :, j] += np.conj(h[:, k, None]) * upstream[:, :, i]
        dh[:, k] = np.sum(upstream[:, :, i] * np.conj(x[:, :, j]), axis=1)
    return dx, dh


def sparse_delay(x: Floats, target: Places, source: Places, kernel: Floats, n_out: int) -> Floats:
    """Return ``y[t, b, i] = sum over d and the synapses of target i of kernel[d] x[t - d, b, source]``.

    Args:
        x: Shape (time, batch, n_in).
        target: Target of every synapse.
        source: Its source.
        kernel: Shape (n_delays, synapses).
        n_out: Targets.
    """
    y = np.zeros((*x.shape[:2], n_out), x.dtype)
    for k, (i, j) in enumerate(zip(target, source, strict=True)):
        for d in range(min(kernel.shape[0], x.shape[0])):
            y[d:, :, i] += kernel[d, k] * x[: x.shape[0] - d, :, j]
    return y
