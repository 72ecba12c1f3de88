"""Spatial learning through time of a feed-forward LIF network in plain NumPy: what the kernels must compute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from snnsim.kernels.reference_neurons import Spiking

__all__ = ["FeedForward", "sltt"]

Floats = npt.NDArray[np.floating[Any]]


class FeedForward(NamedTuple):
    """A layer.

    Attributes:
        weight: Shape (n_out, n_in).
        beta: Decay of the membrane per step, shape (n_out,).
        law: Threshold and reset; None for the readout, which does not fire.
        factor: What dropout multiplies the spikes by, shape (batch, n_out).
    """

    weight: Floats
    beta: Floats
    law: Spiking | None = None
    factor: Floats | None = None


def sltt(
    x: Floats,
    layers: Sequence[FeedForward],
    g: Callable[[Floats], Floats],
    by_trace: Callable[[Floats, int], Floats],
) -> tuple[Floats, list[Floats], list[Floats]]:
    """Run a network and go back in every step.

    ``h_l[t] = beta v_l[t-1] + W_l y_{l-1}[t]``; ``e_l[t] = (e_{l+1}[t] W_{l+1}) factor g(h_l[t] - threshold)``;
    ``dW_l = sum_t e_l[t]^T y_{l-1}[t]``, where the readout's e is the derivative of the loss by its membrane.

    Args:
        x: Inputs, shape (time, batch, n_in).
        layers: Hidden layers and the readout, in order.
        g: Derivative of the surrogate, a function of ``h - threshold``.
        by_trace: Derivative of the loss by the readout's membrane at a step, from that membrane (batch, class) and the
            step.

    Returns:
        Trace of the readout (time, batch, class); spikes of every hidden layer (time, batch, unit); gradients of the
        weights.
    """
    steps, batch = x.shape[:2]
    v = [np.zeros((batch, layer.weight.shape[0]), x.dtype) for layer in layers]
    gradients = [np.zeros_like(layer.weight) for layer in layers]
    spikes = [np.zeros((steps, batch, layer.weight.shape[0]), x.dtype) for layer in layers[:-1]]
    trace = np.zeros((steps, batch, layers[-1].weight.shape[0]), x.dtype)
    for t in range(steps):
        y, inputs, slopes = x[t], [], []
        for index, layer in enumerate(layers):
            inputs.append(y)
            h = layer.beta * v[index] + y @ layer.weight.T
            if layer.law is None:
                v[index] = trace[t] = h
                continue
            fired = h >= layer.law.threshold
            factor = np.ones_like(h) if layer.factor is None else layer.factor
            slopes.append(factor * g(h - layer.law.threshold))
            v[index] = layer.law.after(h, fired)
            spikes[index][t] = fired
            y = spikes[index][t] * factor
        error = by_trace(trace[t], t)
        for index in reversed(range(len(layers))):
            gradients[index] += error.T @ inputs[index]
            if index:
                error = (error @ layers[index].weight) * slopes[index - 1]
    return trace, spikes, gradients
