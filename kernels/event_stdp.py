"""Spike-timing dependent plasticity of pairs, event by event: one synapse at an arrival, one neuron at its spike.

Every plastic synapse keeps a trace of what arrived at it, every neuron one of its own spikes. A trace is a number and
the time at which it was set; in between it decays in closed form, so nothing is done where nothing happens::

    arrival at t:  w <- clip(w - a_minus c y(t) [w - w_min])    then w arrives, then  x <- x(t) + c   (nearest: 1)
    spike at t:    w <- clip(w + a_plus x(t) [w_max - w])       then                  y <- y(t) + 1   (nearest: 1)

with the factors in brackets for multiplicative bounds and c the number of coincident events. Morrison, Diesmann and
Gerstner (2008), "Phenomenological models of synaptic plasticity based on spike timing", section 4.1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from snnsim.kernels.bare import bare, bare_inline
from snnsim.kernels.decay import decay

__all__ = ["COLUMNS", "LOOKS", "VISITS", "Plastic", "neuron_fires", "synapse_receives"]
__all__ += ["A_MINUS", "A_PLUS", "MULTIPLICATIVE", "NEAREST", "RATE_MINUS", "RATE_PLUS", "W_MAX", "W_MIN"]

# columns of a rule
RATE_PLUS = 0  # 1 / tau_plus
RATE_MINUS = 1  # 1 / tau_minus
A_PLUS = 2
A_MINUS = 3
W_MIN = 4
W_MAX = 5
MULTIPLICATIVE = 6
NEAREST = 7
COLUMNS = 8

LOOKS = 0  # counts: arrivals at plastic synapses
VISITS = 1  # synapses visited because their target fired

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Plastic(NamedTuple):
    """P plastic synapses by target neuron, then rule, then in the order of the plan; R rules, N neurons, Q projections.

    Attributes:
        rules: Numbers of the rules, ``(R, COLUMNS)``.
        rule: Rule of each projection, -1 for fixed weights, int32 ``(Q,)``.
        begin: First synapse of neuron n and rule r at ``n * R + r``, int64 ``(N * R + 1,)``.
        weight: ``(P,)``.
        trace: Trace x of the arrivals at the time ``last``, ``(P,)``.
        last: Seconds, ``(P,)``.
        post: Trace y of the spikes at the time ``fired``, ``(R, N)``.
        fired: Last spike of each neuron, seconds, ``(N,)``.
        counts: LOOKS and VISITS, int64 ``(2,)``.
    """

    rules: Floats
    rule: npt.NDArray[np.int32]
    begin: Ints
    weight: Floats
    trace: Floats
    last: Floats
    post: Floats
    fired: Floats
    counts: Ints


@bare_inline
def synapse_receives(p, r, n, time, count, plastic):  # type: ignore[no-untyped-def]
    """Let ``count`` events arrive at a synapse of neuron ``n``; return the weight that acts.

    All spikes of the neuron so far are earlier than ``time``.
    """
    rules = plastic.rules
    low, high = rules[r, W_MIN], rules[r, W_MAX]
    w, y = plastic.weight[p], plastic.post[r, n]
    if y > 0.0:
        change = rules[r, A_MINUS] * count * (y * decay((plastic.fired[n] - time) * rules[r, RATE_MINUS]))
        if rules[r, MULTIPLICATIVE] != 0.0:
            change *= w - low
        w = min(max(w - change, low), high)
        plastic.weight[p] = w
    x = plastic.trace[p] * decay((plastic.last[p] - time) * rules[r, RATE_PLUS]) + count
    plastic.trace[p] = 1.0 if rules[r, NEAREST] != 0.0 else x
    plastic.last[p] = time
    plastic.counts[LOOKS] += 1
    return w


@bare
def neuron_fires(n, time, plastic):  # type: ignore[no-untyped-def]
    """Change the plastic synapses of a neuron at its spike; what arrived at the same time has been received."""
    rules, begin, weight, trace, last = plastic.rules, plastic.begin, plastic.weight, plastic.trace, plastic.last
    many = rules.shape[0]
    for r in range(many):
        first, end = begin[n * many + r], begin[n * many + r + 1]
        rate, plus, low, high = rules[r, RATE_PLUS], rules[r, A_PLUS], rules[r, W_MIN], rules[r, W_MAX]
        bounded = rules[r, MULTIPLICATIVE]
        for p in range(first, end):
            u = np.uint64(p)
            change = plus * (trace[u] * decay((last[u] - time) * rate))
            w = weight[u]
            change *= high - w if bounded != 0.0 else 1.0
            weight[u] = min(max(w + change, low), high)
        plastic.counts[VISITS] += end - first
        if end > first:
            y = plastic.post[r, n] * decay((plastic.fired[n] - time) * rules[r, RATE_MINUS]) + 1.0
            plastic.post[r, n] = 1.0 if rules[r, NEAREST] != 0.0 else y
    plastic.fired[n] = time
