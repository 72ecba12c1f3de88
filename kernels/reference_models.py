"""The definition of the laws that only networks of biology use, in plain NumPy: one step of one population.

A law gets the numbers per step of :class:`snnsim.kernels.reference.ReferencePopulation`, the variables at the end of
the step before, which neurons are free, and what arrived at a population of delta synapses. It changes the variables
other than the membrane and returns the membrane before the threshold is tested, which is not used of a neuron that is
not free.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.kernels.exponential import LIMIT, LN2_HIGH, LN2_LOW, LOG2_E, TAYLOR

__all__ = ["FINE", "JUMPS", "MODELS", "exponential"]

FINE = 8
"""Parts of a step in which the membrane of an AdEx neuron runs up."""

Array = npt.NDArray[Any]


def exponential(x: Array) -> Array:
    """Return ``exp(x)``, in the dtype of ``x``; the operations are those of :mod:`snnsim.kernels.exponential`."""
    kind = x.dtype.type
    limit = kind(LIMIT[x.dtype.name])
    x = np.maximum(np.minimum(x, limit), -limit)
    k = np.floor(x * kind(LOG2_E) + kind(0.5))
    r = (x - k * kind(LN2_HIGH)) - k * kind(LN2_LOW)
    p: Array = np.full_like(x, kind(TAYLOR[0]))
    for coefficient in TAYLOR[1:]:
        p = p * r + kind(coefficient)
    power: Array = np.ldexp(kind(1), k.astype(np.int64)).astype(x.dtype)
    p = (((p * r) * r + r) + kind(1)) * power
    return p


def _alpha_current(item: Any, now: dict[str, Array], free: Array, arrived: Array | None) -> Array:
    """Exact solution of ``tau_mem dv/dt = -v + i``, ``tau di/dt = -i + e rise``, ``tau d(rise)/dt = -rise``."""
    extra = item.extra
    v: Array = item.beta * now["v"]
    for name in item.receptors:
        v = (v + extra[f"kappa_rise_{name}"] * now[f"rise_{name}"]) + extra[f"kappa_{name}"] * now[f"i_{name}"]
    v = v + item.drive_step
    for name in item.receptors:
        alpha = extra[f"alpha_{name}"]
        now[f"i_{name}"] = alpha * now[f"i_{name}"] + extra[f"rise_{name}"] * now[f"rise_{name}"]
        now[f"rise_{name}"] = alpha * now[f"rise_{name}"]
    return v


def _conductance(item: Any, now: dict[str, Array], free: Array, arrived: Array | None) -> Array:
    """``tau_mem dv/dt = -v + g_exc (e_exc - v) + g_inh (e_inh - v)`` with the mean g of each part of a step.

    Exact for that mean, or the semi-implicit step where ``fused`` is not 0.
    """
    extra, one = item.extra, now["v"].dtype.type(1)
    v: Array = now["v"]
    g_exc, g_inh, rate = now["g_exc"], now["g_inh"], extra["rate"]
    for _ in range(int(extra["substeps"][0])):
        mean_exc, mean_inh = extra["mean_exc"] * g_exc, extra["mean_inh"] * g_inh
        total = (one + mean_exc) + mean_inh
        pull = (mean_exc * extra["e_exc"] + mean_inh * extra["e_inh"]) + item.drive_step
        if extra["fused"][0]:
            v = (v + rate * pull) / (one + rate * total)
        else:
            end = pull / total
            v = end + (v - end) * exponential(-(rate * total))
        g_exc, g_inh = extra["alpha_exc"] * g_exc, extra["alpha_inh"] * g_inh
    now["g_exc"], now["g_inh"] = g_exc, g_inh
    return v


def _adex(item: Any, now: dict[str, Array], free: Array, arrived: Array | None) -> Array:
    """Heun's method for v and w, with currents along the chord of their exact decay; v counts up to ``v_peak``.

    A step that begins above ``v_t`` is done in FINE parts, up to the one in which v reaches ``v_peak``.
    """
    extra, kind = item.extra, now["v"].dtype.type
    v, w, peak = now["v"], now["w"], item.v_threshold
    x, y = now["i_exc"], now["i_inh"]
    now["i_exc"], now["i_inh"] = extra["alpha_exc"] * x, extra["alpha_inh"] * y
    dw = extra["a"] * v - w
    dw = dw + (extra["a"] * v - (w + extra["rate_w"] * dw))
    held = w + (kind(0.5) * extra["rate_w"]) * dw

    def slopes(v: Array, w: Array) -> tuple[Array, Array]:
        v = np.minimum(v, peak)
        up = extra["slope"] * exponential((v - extra["v_t"]) * extra["steepness"])
        return ((((up - v) + x) + y) - w) + item.drive_step, extra["a"] * v - w

    share = np.where(v > extra["v_t"], kind(1 / FINE), kind(1))
    rate, rate_w = extra["rate"] * share, extra["rate_w"] * share
    x_part, y_part = (now["i_exc"] - x) * share, (now["i_inh"] - y) * share
    going = np.ones(v.shape, np.bool_)
    for _ in range(FINE):
        dv, dw = slopes(v, w)
        x, y = x + x_part, y + y_part
        dv_later, dw_later = slopes(v + rate * dv, w + rate_w * dw)
        v = np.where(going, v + (kind(0.5) * rate) * (dv + dv_later), v)
        w = np.where(going, w + (kind(0.5) * rate_w) * (dw + dw_later), w)
        going = going & (share < 1) & (v < peak)
    now["w"] = np.where(free, w, held)
    return v


def _izhikevich(item: Any, now: dict[str, Array], free: Array, arrived: Array | None) -> Array:
    """Euler's method for both variables from their values before the step; arrivals are jumps of v."""
    kind = now["v"].dtype.type
    v, u, extra = now["v"], now["u"], item.extra
    dv = (((kind(0.04) * v) * v + kind(5) * v) + kind(140)) - u
    now["u"] = u + extra["rate_u"] * (extra["b"] * v - u)
    moved: Array = v + (extra["rate"] * (dv + item.drive_step) + arrived)
    return moved


def _meta_dynamic(item: Any, now: dict[str, Array], free: Array, arrived: Array | None) -> Array:
    """Euler's method for both variables from their values before the step; v is not taken below its floor."""
    v, u, extra = now["v"], now["u"], item.extra
    dv = (v * v - v) - u
    now["u"] = u + extra["rate"] * (extra["theta_v"] * v - extra["theta_u"] * u)
    moved: Array = np.maximum(((v + extra["rate"] * dv) + item.drive_step) + arrived, extra["v_floor"])
    return moved


MODELS: dict[str, Callable[[Any, dict[str, Array], Array, Array | None], Array]] = {
    "AlphaCurrentLIF": _alpha_current,
    "ConductanceLIF": _conductance,
    "AdEx": _adex,
    "Izhikevich": _izhikevich,
    "MetaDynamicNeuron": _meta_dynamic,
}
"""Laws by the kind of the neuron record."""

JUMPS = {"AdEx": "w", "Izhikevich": "u", "MetaDynamicNeuron": "u"}
"""The variable to which a spike adds ``jump``."""
