"""Plain NumPy definition of the Tempotron: sums over spikes, no running state. Slow.

``kernels/tempotron.py`` is compared with it.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

__all__ = ["potential_reference", "tempotron_peak_reference"]

Floats = npt.NDArray[np.float64]


def _kernel(age: npt.ArrayLike, tau: float, tau_s: float) -> Floats:
    peak = tau * tau_s / (tau - tau_s) * np.log(tau / tau_s)
    age = np.asarray(age, dtype=np.float64)
    shape = np.exp(-np.maximum(age, 0.0) / tau) - np.exp(-np.maximum(age, 0.0) / tau_s)
    return np.asarray(np.where(age > 0, shape, 0.0) / (np.exp(-peak / tau) - np.exp(-peak / tau_s)))


def potential_reference(at: npt.ArrayLike, times: Floats, weights: Floats, tau: float, tau_s: float) -> Floats:
    """Return ``V(t) = sum w_i K(t - t_i)``, ``K(t) = V0 (e^(-t/tau) - e^(-t/tau_s))`` with peak 1.

    Args:
        at: Times, seconds.
        times: Times of the events.
        weights: Weight of each event.
        tau: Membrane time constant.
        tau_s: Synaptic time constant.
    """
    moments = np.asarray(at, dtype=np.float64)
    return np.asarray((_kernel(moments[..., None] - times, tau, tau_s) * weights).sum(-1))


def tempotron_peak_reference(
    times: Floats, weights: Floats, end: float, tau: float, tau_s: float, theta: float, shunt: bool
) -> tuple[float, float, float]:
    """Return the highest potential in ``0 .. end``, its time, and the first time at which V is theta (inf: none).

    Candidates are the events after the first, the end, and between two events the zero of V'. Without events the peak
    is 0, at time 0. With ``shunt`` events at or after the first crossing are taken away and the peak is sought again.
    """
    keep = times < end
    times, weights = times[keep], weights[keep]

    def candidates() -> Floats:
        found = [*np.unique(times)[1:], end]
        borders = [*np.unique(times), end]
        for left, right in pairwise(borders):
            past = times <= left
            a = float((weights[past] * np.exp((times[past] - left) / tau)).sum())
            b = float((weights[past] * np.exp((times[past] - left) / tau_s)).sum())
            if a * b > 0 and b * tau / (a * tau_s) > 1:
                zero = left + tau * tau_s / (tau - tau_s) * np.log(b * tau / (a * tau_s))
                if zero < right:
                    found.append(float(zero))
        return np.unique(found)

    if not times.size:
        return 0.0, 0.0, np.inf
    moments = candidates()
    values = potential_reference(moments, times, weights, tau, tau_s)
    above = np.flatnonzero(values >= theta)
    spike = np.inf
    if above.size:
        low, high = float(moments[above[0] - 1] if above[0] else times[0]), float(moments[above[0]])
        for _ in range(200):
            middle = 0.5 * (low + high)
            if float(potential_reference(middle, times, weights, tau, tau_s)) < theta:
                low = middle
            else:
                high = middle
        spike = high
        if shunt:
            weights = weights[times < spike]
            times = times[times < spike]
            moments = candidates()
            values = potential_reference(moments, times, weights, tau, tau_s)
    best = int(np.argmax(values))
    return float(values[best]), float(moments[best]), float(spike)
