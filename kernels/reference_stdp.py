"""Plain NumPy definition of a layer that learns by spike timing: sums over pairs of spikes. Slow.

``kernels/stdp.py`` is compared with it. It keeps every spike and knows no traces.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.kernels.reference_philox import philox_reference, uniform_reference

__all__ = ["stdp_reference"]

Floats = npt.NDArray[np.float64]


def _sum(times: list[tuple[int, float]], k: int, decay: float, nearest: bool) -> float:
    """Return the trace at step k of spikes given with their counts."""
    if nearest:
        times = [(step, 1.0) for step, _ in times[-1:]]
    return float(sum(c * decay ** (k - step) for step, c in times))


def stdp_reference(
    counts: Floats, weight: Floats, fade: float | None, teacher: Floats, layer: Any, rule: Any, seed: int, sample: int
) -> tuple[npt.NDArray[np.uint8], Floats, Floats]:
    """Run one sample; see :func:`snnsim.kernels.stdp.stdp_sample`.

    Args:
        counts: Events, (step, source).
        weight: (source, neuron); not changed.
        fade: Decay of the eligibility a step; None: weights change at once.
        teacher: As there.
        layer: As there.
        rule: As there.
        seed: As there.
        sample: As there.

    Returns:
        Spikes (step, neuron), weights and eligibility at the end, (source, neuron).
    """
    weight = weight.copy()
    n_steps, n_sources = counts.shape
    n = weight.shape[1]
    kept = np.zeros_like(weight)
    v, held = np.zeros(n), np.zeros(n, dtype=np.int64)
    spikes = np.zeros((n_steps, n), dtype=np.uint8)
    arrived: list[list[tuple[int, float]]] = [[] for _ in range(n_sources)]
    own: list[list[tuple[int, float]]] = [[] for _ in range(n)]

    def change(s: int, j: int, by: float) -> None:
        if rule.multiplicative:
            by *= rule.w_max - weight[s, j] if by > 0 else weight[s, j] - rule.w_min
        if fade is None:
            weight[s, j] = min(max(weight[s, j] + by, rule.w_min), rule.w_max)
        else:
            kept[s, j] += by

    for k in range(n_steps):
        if fade is not None and k:
            kept *= fade
        total = np.zeros(n)
        for i in np.flatnonzero(spikes[k - 1]) if k and layer.inhibition else ():
            total[np.arange(n) != i] -= layer.inhibition
        for s in np.flatnonzero(counts[k]).tolist():
            c = float(counts[k, s])
            r2 = _sum(arrived[s], k, rule.decay_x, rule.nearest)
            for j in range(n):
                o1 = _sum(own[j], k, rule.decay_minus, rule.nearest)
                change(s, j, -c * o1 * (rule.a2_minus + rule.a3_minus * r2))
            arrived[s].append((k, c))
            passed = (c * weight[s]) * layer.low
            if np.any(layer.release < 1) or layer.low != layer.high:
                words = philox_reference((sample, k, np.arange(n), s), (seed, 41))
                u = uniform_reference(seed, 41, sample, k, np.arange(n), s)
                high, low = (words[2] >> np.uint64(5)).astype(float), (words[3] >> np.uint64(6)).astype(float)
                q = layer.low + (layer.high - layer.low) * ((high * 2.0**26 + low) * 2.0**-53)
                passed = np.where(u < layer.release, (c * weight[s]) * q, 0.0)
            total += passed
        free = held == 0
        held[~free] -= 1
        v[free] = ((layer.beta * v + (layer.drive + teacher)) + total)[free]
        if layer.temperature > 0:
            chance = 1.0 / (1.0 + np.exp(-(v - layer.theta) / layer.temperature))
            fired = free & (uniform_reference(seed, 44, sample, k, np.arange(n), 0) < chance)
        else:
            fired = free & (v >= layer.theta)
        if layer.winners:
            ranked = [j for j in np.argsort(-(v - layer.theta), kind="stable") if fired[j]]
            fired[ranked[layer.winners :]] = False
        spikes[k] = fired
        for j in np.flatnonzero(fired).tolist():
            v[j] = v[j] - layer.amount[j] if layer.subtract else layer.v_reset[j]
            held[j] = layer.ref_steps[j]
            o2 = _sum(own[j], k, rule.decay_y, rule.nearest)
            for s in range(n_sources):
                r1 = _sum(arrived[s], k, rule.decay_plus, rule.nearest)
                change(s, j, r1 * (rule.a2_plus + rule.a3_plus * o2))
            own[j].append((k, 1.0))
    return spikes, weight, kept
