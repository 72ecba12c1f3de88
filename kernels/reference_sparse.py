"""Products of a sparse matrix in plain NumPy: the definition of :mod:`snnsim.kernels.sparse_product`.

A matrix is a list of synapses ``(target, source, weight)``. SparseProp (Nikdan et al. 2023) states the same three sums.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["sparse_backward", "sparse_forward"]

Floats = npt.NDArray[np.floating[Any]]
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
