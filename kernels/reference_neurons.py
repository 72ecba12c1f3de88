"""The neuron laws of training once more, in plain NumPy: what the fused kernels must compute.

Arrays are (time, batch, unit), parameters (unit,), states (batch, unit). Forward functions give the bits of
the fused kernels; backward functions are the recursions written in the kernels' docstrings, in float64 or in
the dtype of their arguments, equal within rounding. ``g`` is the derivative of the surrogate, a function of
``v - threshold``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "Spiking",
    "adaptive_backward",
    "adaptive_forward",
    "batch_norm_backward",
    "batch_norm_forward",
    "cuba_backward",
    "cuba_forward",
    "li_backward",
    "li_forward",
    "lif_backward",
    "lif_forward",
]

Floats = npt.NDArray[np.floating[Any]]
Derivative = Callable[[Floats], Floats]


class Spiking(NamedTuple):
    """Threshold and reset of a spiking population, arrays of shape (unit,).

    Attributes:
        threshold: Firing threshold.
        v_reset: Value after a ``zero`` reset.
        reset_amount: Amount of a ``subtract`` reset.
        refractory_steps: Steps skipped after a spike.
        reset_zero: Whether a spike resets to ``v_reset``.
    """

    threshold: Floats
    v_reset: Floats
    reset_amount: Floats
    refractory_steps: npt.NDArray[np.int32]
    reset_zero: bool

    def after(self, h: Floats, fired: npt.NDArray[np.bool_]) -> Floats:
        """Return the membrane after the reset."""
        return np.where(fired, self.v_reset if self.reset_zero else h - self.reset_amount, h).astype(h.dtype)

    def wait(self, refractory: npt.NDArray[np.int32], fired: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
        """Return the refractory counters after a step."""
        return np.where(fired, self.refractory_steps, np.maximum(refractory - 1, 0)).astype(np.int32)

    def spike_gradient(self, up: Floats, d: Floats, h: Floats, detach_reset: bool) -> Floats:
        """Return the gradient of the spike from its own upstream and from the reset."""
        if detach_reset:
            return up
        return up + (d * (self.v_reset - h) if self.reset_zero else -d * self.reset_amount)

    def membrane_gradient(self, d: Floats, fired: npt.NDArray[np.bool_]) -> Floats:
        """Return what the reset lets through of the gradient of the membrane."""
        return np.where(fired, 0, d) if self.reset_zero else d


def lif_forward(
    current: Floats, v: Floats, refractory: npt.NDArray[np.int32], beta: Floats, law: Spiking
) -> tuple[Floats, Floats, npt.NDArray[np.bool_], Floats, npt.NDArray[np.int32]]:
    """Return spikes, membrane before the reset, active steps (time, batch, unit), last v, last counters."""
    spikes, saved = np.zeros_like(current), np.zeros_like(current)
    active = np.zeros(current.shape, dtype=np.bool_)
    for t, x in enumerate(current):
        active[t] = refractory <= 0
        h = np.where(active[t], beta * v + x, v)
        fired = active[t] & (h >= law.threshold)
        spikes[t], saved[t] = fired, h
        v, refractory = law.after(h, fired), law.wait(refractory, fired)
    return spikes, saved, active, v, refractory


def lif_backward(
    saved: Floats,
    active: npt.NDArray[np.bool_],
    v_start: Floats,
    grad_spikes: Floats,
    grad_v: Floats,
    beta: Floats,
    law: Spiking,
    g: Derivative,
    detach_reset: bool,
    carry: bool = True,
) -> tuple[Floats, Floats, dict[str, Floats]]:
    """Return the gradients of the current, of the first membrane, and of every parameter (unit,).

    Without ``carry`` the membrane before a step counts as a constant.
    """
    fired = active & (saved >= law.threshold)
    grad_current, d = np.zeros_like(saved), grad_v if carry else np.zeros_like(grad_v)
    sums = dict.fromkeys(("beta", "threshold", "v_reset", "reset_amount"), np.zeros_like(beta))
    for t in reversed(range(saved.shape[0])):
        h = saved[t]
        e = np.where(active[t], law.spike_gradient(grad_spikes[t], d, h, detach_reset) * g(h - law.threshold), 0)
        dh = law.membrane_gradient(d, fired[t]) + e
        before = law.after(saved[t - 1], fired[t - 1]) if t > 0 else v_start
        sums["beta"] = sums["beta"] + np.where(active[t], dh * before, 0).sum(axis=0)
        sums["threshold"] = sums["threshold"] - e.sum(axis=0)
        name, sign = ("v_reset", 1) if law.reset_zero else ("reset_amount", -1)
        sums[name] = sums[name] + sign * np.where(fired[t], d, 0).sum(axis=0)
        grad_current[t] = np.where(active[t], dh, 0)
        d = np.where(active[t], beta * dh, dh) if carry else np.zeros_like(dh)
    return grad_current, d, sums


def li_forward(current: Floats, v: Floats, beta: Floats) -> Floats:
    """Return the membrane of every step, (time, batch, unit)."""
    trace = np.zeros_like(current)
    for t, x in enumerate(current):
        v = beta * v + x
        trace[t] = v
    return trace


def li_backward(
    trace: Floats, v_start: Floats, grad_out: Floats, grad_v: Floats, beta: Floats
) -> tuple[Floats, Floats, Floats]:
    """Return the gradients of the current, of the first membrane and of beta."""
    grad_current, d, grad_beta = np.zeros_like(grad_out), grad_v, np.zeros_like(beta)
    for t in reversed(range(grad_out.shape[0])):
        d = d + grad_out[t]
        grad_beta = grad_beta + (d * (trace[t - 1] if t > 0 else v_start)).sum(axis=0)
        grad_current[t] = d
        d = beta * d
    return grad_current, d, grad_beta


def cuba_forward(
    current: Floats,
    v: Floats,
    i_syn: Floats,
    refractory: npt.NDArray[np.int32],
    beta: Floats,
    alpha: Floats,
    kappa: Floats,
    law: Spiking,
) -> tuple[Floats, Floats, Floats, npt.NDArray[np.bool_], Floats, Floats, npt.NDArray[np.int32]]:
    """Return spikes, membrane before the reset, current before the step, active steps, last v, i and counters."""
    spikes, saved_v, saved_i = np.zeros_like(current), np.zeros_like(current), np.zeros_like(current)
    active = np.zeros(current.shape, dtype=np.bool_)
    for t, x in enumerate(current):
        active[t] = refractory <= 0
        saved_i[t] = i_syn
        h = np.where(active[t], beta * v + kappa * i_syn, v)
        fired = active[t] & (h >= law.threshold)
        spikes[t], saved_v[t] = fired, h
        v, refractory = law.after(h, fired), law.wait(refractory, fired)
        i_syn = alpha * i_syn + x
    return spikes, saved_v, saved_i, active, v, i_syn, refractory


def cuba_backward(
    saved_v: Floats,
    saved_i: Floats,
    active: npt.NDArray[np.bool_],
    v_start: Floats,
    grad_spikes: Floats,
    grad_v: Floats,
    grad_i: Floats,
    beta: Floats,
    alpha: Floats,
    kappa: Floats,
    law: Spiking,
    g: Derivative,
    detach_reset: bool,
) -> tuple[Floats, Floats, Floats, dict[str, Floats]]:
    """Return the gradients of the arrivals, of the first v and i, and of every parameter."""
    fired = active & (saved_v >= law.threshold)
    grad_current, d, c = np.zeros_like(saved_v), grad_v, grad_i
    names = ("beta", "alpha", "kappa", "threshold", "v_reset", "reset_amount")
    sums = dict.fromkeys(names, np.zeros_like(beta))
    for t in reversed(range(saved_v.shape[0])):
        h = saved_v[t]
        e = np.where(active[t], law.spike_gradient(grad_spikes[t], d, h, detach_reset) * g(h - law.threshold), 0)
        dh = law.membrane_gradient(d, fired[t]) + e
        moved = np.where(active[t], dh, 0)
        before = law.after(saved_v[t - 1], fired[t - 1]) if t > 0 else v_start
        sums["beta"] = sums["beta"] + (moved * before).sum(axis=0)
        sums["alpha"] = sums["alpha"] + (c * saved_i[t]).sum(axis=0)
        sums["kappa"] = sums["kappa"] + (moved * saved_i[t]).sum(axis=0)
        sums["threshold"] = sums["threshold"] - e.sum(axis=0)
        name, sign = ("v_reset", 1) if law.reset_zero else ("reset_amount", -1)
        sums[name] = sums[name] + sign * np.where(fired[t], d, 0).sum(axis=0)
        grad_current[t] = c
        c = alpha * c + kappa * moved
        d = np.where(active[t], beta * dh, dh)
    return grad_current, d, c, sums


def adaptive_forward(
    current: Floats,
    v: Floats,
    w: Floats,
    refractory: npt.NDArray[np.int32],
    beta: Floats,
    rho: Floats,
    adapt_v: Floats,
    adapt_spike: Floats,
    adapt_threshold: Floats,
    law: Spiking,
) -> tuple[Floats, Floats, Floats, npt.NDArray[np.bool_], Floats, Floats, npt.NDArray[np.int32]]:
    """Return spikes, membrane before the reset, adaptation before the step, active steps, last v, w, counters."""
    spikes, saved_v, saved_w = np.zeros_like(current), np.zeros_like(current), np.zeros_like(current)
    active = np.zeros(current.shape, dtype=np.bool_)
    gain = (adapt_threshold <= 0).astype(current.dtype)
    for t, x in enumerate(current):
        active[t] = refractory <= 0
        saved_w[t] = w
        h = np.where(active[t], (beta * v + x) - gain * w, v)
        fired = active[t] & (h >= law.threshold + adapt_threshold * w)
        spikes[t], saved_v[t] = fired, h
        v, refractory = law.after(h, fired), law.wait(refractory, fired)
        w = (rho * w + adapt_v * v) + adapt_spike * spikes[t]
    return spikes, saved_v, saved_w, active, v, w, refractory


def adaptive_backward(
    saved_v: Floats,
    saved_w: Floats,
    active: npt.NDArray[np.bool_],
    v_start: Floats,
    grad_spikes: Floats,
    grad_v: Floats,
    grad_w: Floats,
    beta: Floats,
    rho: Floats,
    adapt_v: Floats,
    adapt_spike: Floats,
    adapt_threshold: Floats,
    law: Spiking,
    g: Derivative,
    detach_reset: bool,
) -> tuple[Floats, Floats, Floats, dict[str, Floats]]:
    """Return the gradients of the current, of the first v and w, and of every parameter."""
    level = law.threshold + adapt_threshold * saved_w
    fired = active & (saved_v >= level)
    gain = (adapt_threshold <= 0).astype(saved_v.dtype)
    grad_current, d, c = np.zeros_like(saved_v), grad_v, grad_w
    names = ("beta", "rho", "adapt_v", "adapt_spike", "adapt_threshold", "threshold", "v_reset", "reset_amount")
    sums = dict.fromkeys(names, np.zeros_like(beta))
    for t in reversed(range(saved_v.shape[0])):
        h = saved_v[t]
        sums["rho"] = sums["rho"] + (c * saved_w[t]).sum(axis=0)
        sums["adapt_v"] = sums["adapt_v"] + (c * law.after(h, fired[t])).sum(axis=0)
        sums["adapt_spike"] = sums["adapt_spike"] + (c * fired[t]).sum(axis=0)
        d = d + adapt_v * c
        total = law.spike_gradient(grad_spikes[t] + adapt_spike * c, d, h, detach_reset)
        e = np.where(active[t], total * g(h - level[t]), 0)
        dh = law.membrane_gradient(d, fired[t]) + e
        moved = np.where(active[t], dh, 0)
        before = law.after(saved_v[t - 1], fired[t - 1]) if t > 0 else v_start
        sums["beta"] = sums["beta"] + (moved * before).sum(axis=0)
        sums["adapt_threshold"] = sums["adapt_threshold"] - (e * saved_w[t]).sum(axis=0)
        sums["threshold"] = sums["threshold"] - e.sum(axis=0)
        name, sign = ("v_reset", 1) if law.reset_zero else ("reset_amount", -1)
        sums[name] = sums[name] + sign * np.where(fired[t], d, 0).sum(axis=0)
        grad_current[t] = moved
        c = rho * c - (gain * moved + adapt_threshold * e)
        d = np.where(active[t], beta * dh, dh)
    return grad_current, d, c, sums


def batch_norm_forward(
    x: Floats, valid: npt.NDArray[np.bool_], weight: Floats, bias: Floats, eps: float
) -> tuple[Floats, Floats, Floats]:
    """Return the normalised rows (rows, units), mean and biased variance over the valid rows."""
    mean, variance = x[valid].mean(axis=0), x[valid].var(axis=0)
    return (x - mean) / np.sqrt(variance + eps) * weight + bias, mean, variance


def batch_norm_backward(
    x: Floats, valid: npt.NDArray[np.bool_], grad: Floats, weight: Floats, eps: float
) -> tuple[Floats, Floats, Floats]:
    """Return the gradients of the rows, of weight and of bias."""
    mean, variance = x[valid].mean(axis=0), x[valid].var(axis=0)
    deviation = np.sqrt(variance + eps)
    z = (x - mean) / deviation
    grad_weight, grad_bias = (grad * z).sum(axis=0), grad.sum(axis=0)
    shared = (grad_bias + z * grad_weight) / valid.sum()
    return weight / deviation * (grad - np.where(valid[:, None], shared, 0)), grad_weight, grad_bias
