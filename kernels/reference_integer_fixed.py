"""The definition of the law ``fixed``: integer neurons for small processors and memories, in plain NumPy.

Everything is a whole number in int32. One step of a population, with ``a`` the sum of the weights that arrive in it::

    decay(x, b) = sgn(x) * ((|x| * b) >> 15)                b in 0 .. 32768, truncated towards zero
    clamp(x, m) = min(max(x, -m), m)

    lif, li:          v <- clamp(decay(v, beta) + drive + a * 2^shift, 2^30)
    cubalif, cubali:  i <- clamp(i + a * 2^shift, 2^29)
                      v <- clamp(decay(v, beta) + i + drive, 2^30)
                      i <- clamp(decay(i, alpha) + drive_syn, 2^29)
    spike:            v >= v_threshold;   then  v <- v_reset  or  v <- v - reset_amount
    refractory:       for refractory_steps after a spike v is held, drive and arrivals to it are lost; i goes on

A spike that leaves in step k with delay d arrives in step k + d. All is zero before step 0. The gain from the current
to the membrane is part of the weights, and the step that a current of :class:`snnsim.neurons.CubaLIF` waits before it
moves the membrane is part of the delay. ``beta`` = 32768 does not decay (IF).

Truncation towards zero is symmetric, and nothing that decays gets stuck: a silent neuron returns to exactly 0. It also
keeps ``|decay(x, b)| <= |x| b / 2^15``, so bounds on real numbers hold for the integers. No intermediate leaves int32
if :func:`fixed_faults` finds nothing; the law is ours and not taken from a paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.kernels.integer_tables import CURRENT, LEFT, V

__all__ = [
    "CURRENT_LIMIT",
    "DECAY_ONE",
    "MEMBRANE_LIMIT",
    "fixed",
    "fixed_decay",
    "fixed_faults",
    "fixed_max_count",
    "fixed_peak",
]

DECAY_BITS = 15
DECAY_ONE = 1 << DECAY_BITS
"""The decay of a neuron that keeps everything."""

MEMBRANE_LIMIT = 1 << 30
"""Largest absolute value of a membrane."""

CURRENT_LIMIT = 1 << 29
"""Largest absolute value of a synaptic current."""

Integers = npt.NDArray[np.int64]
Parameters = Mapping[str, Integers]


def fixed_decay(x: Integers, decay: Integers) -> Integers:
    """Return ``sgn(x) ((|x| decay) >> 15)``, int64 arrays of one shape."""
    return np.asarray(np.sign(x) * ((np.abs(x) * decay) >> DECAY_BITS), np.int64)


def _clamp(x: Integers, limit: int) -> Integers:
    return np.minimum(np.maximum(x, -limit), limit)


def fixed(
    parameters: Parameters, kind: str, state: Integers, arrivals: Integers
) -> tuple[Integers, Integers, npt.NDArray[np.bool_]]:
    """Move all neurons of a population by one step.

    Args:
        parameters: ``beta``, ``drive``, ``shift``; with a threshold ``v_threshold``, ``v_reset``, ``reset_amount``,
            ``reset_zero`` (0 or 1), ``refractory_steps``; with a current ``alpha`` and ``drive_syn``; int64
            ``(size,)``.
        kind: ``"lif"``, ``"li"``, ``"cubalif"`` or ``"cubali"``.
        state: Membrane, current, refractory steps left; int64 ``(3, size)``.
        arrivals: Sum of the weights that arrive in this step, int64 ``(size,)``.

    Returns:
        The state after the step, spikes (0 or 1), and where a value was clamped or arrivals were too many for int32.
    """
    p = parameters
    v, i, left = state[V], state[CURRENT], state[LEFT]
    arrived = arrivals << p["shift"]
    clamped = np.abs(arrived) >= MEMBRANE_LIMIT
    moved = fixed_decay(v, p["beta"]) + p["drive"]
    if kind in ("cubalif", "cubali"):
        received = _clamp(i + arrived, CURRENT_LIMIT)
        clamped |= received != i + arrived
        moved = moved + received
        kept = fixed_decay(received, p["alpha"]) + p["drive_syn"]
        i = _clamp(kept, CURRENT_LIMIT)
        clamped |= i != kept
    else:
        moved = moved + arrived
    free = left == 0
    clamped |= free & (np.abs(moved) > MEMBRANE_LIMIT)
    v = np.where(free, _clamp(moved, MEMBRANE_LIMIT), v)
    left = np.where(free, 0, left - 1)
    spikes = np.zeros(v.shape, np.int64)
    if kind in ("lif", "cubalif"):
        fired = free & (v >= p["v_threshold"])
        v = np.where(fired, np.where(p["reset_zero"] == 1, p["v_reset"], v - p["reset_amount"]), v)
        left = np.where(fired, p["refractory_steps"], left)
        spikes = fired.astype(np.int64)
    return np.stack([v, i, left]), spikes, clamped


def fixed_faults(kind: str, p: Parameters, arrivals: Integers) -> list[tuple[int, str]]:
    """Return why int32 could not hold an intermediate, one entry a neuron and reason; empty if it always can.

    Args:
        kind: As for :func:`fixed`.
        p: Parameters as for :func:`fixed`.
        arrivals: Largest possible absolute sum of weights that arrive at each neuron in one step.
    """
    found: list[tuple[int, str]] = []

    def need(good: npt.NDArray[Any], sentence: str) -> None:
        found.extend((int(neuron), sentence) for neuron in np.flatnonzero(~good))

    need((p["beta"] >= 0) & (p["beta"] <= DECAY_ONE), "beta lies outside 0 .. 32768")
    need((p["shift"] >= 0) & (p["shift"] <= 30), "shift lies outside 0 .. 30")
    need(arrivals < MEMBRANE_LIMIT, "arrivals reach 2^30")
    if found:
        return found
    scaled = arrivals << p["shift"]
    if kind in ("cubalif", "cubali"):
        need((p["alpha"] >= 0) & (p["alpha"] <= DECAY_ONE), "alpha lies outside 0 .. 32768")
        need(np.abs(p["drive"]) < CURRENT_LIMIT, "|drive| reaches 2^29")
        need(scaled + np.abs(p["drive_syn"]) < MEMBRANE_LIMIT, "arrivals and drive_syn reach 2^30")
    else:
        need(scaled + np.abs(p["drive"]) < MEMBRANE_LIMIT, "arrivals and drive reach 2^30")
    if kind in ("lif", "cubalif"):
        for name in ("v_threshold", "v_reset"):
            need(np.abs(p[name]) < MEMBRANE_LIMIT, f"|{name}| reaches 2^30")
        low = np.minimum(p["v_threshold"], 0) - p["reset_amount"]
        need((p["reset_amount"] >= 0) & (low > -MEMBRANE_LIMIT), "reset_amount is negative or reaches 2^30")
        need((p["reset_zero"] == 0) | (p["reset_zero"] == 1), "reset_zero is neither 0 nor 1")
        need(
            (p["refractory_steps"] >= 0) & (p["refractory_steps"] < 1 << 16), "refractory_steps lies outside 0 .. 65535"
        )
    return found


def fixed_max_count(kind: str, p: Parameters, from_inputs: Integers, from_neurons: Integers) -> int:
    """Return how often every input unit may act in one step without an intermediate leaving int32.

    Args:
        kind: As for :func:`fixed`.
        p: Parameters as for :func:`fixed`.
        from_inputs: Sum of the absolute weights of all synapses of inputs, by neuron.
        from_neurons: The same of populations, whose neurons act at most once in a step.
    """
    drive = np.abs(p["drive_syn"] if kind in ("cubalif", "cubali") else p["drive"])
    room = ((MEMBRANE_LIMIT - 1 - drive) >> p["shift"]) - from_neurons
    counts = room[from_inputs > 0] // from_inputs[from_inputs > 0]
    return int(np.clip(counts.min(initial=2**31 - 1), 0, 2**31 - 1))


def fixed_peak(kind: str, p: Parameters, arrivals: Integers) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return what ``|v|`` and ``|i|`` can never exceed if nothing is clamped, float64 ``(size,)``; inf without decay.

    The bounds are those of the real recursion, ``arrivals / (1 - decay)``; they hold for the integers because decay
    truncates towards zero.
    """

    def sup(step: npt.NDArray[np.float64], decay: Integers) -> npt.NDArray[np.float64]:
        left = (DECAY_ONE - decay) / DECAY_ONE
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(step == 0, 0.0, step / left)

    step = (arrivals << p["shift"]).astype(np.float64)
    current = np.zeros_like(step)
    if kind in ("cubalif", "cubali"):
        current = sup(step + np.abs(p["drive_syn"]), p["alpha"])
        step = current
    v = sup(step + np.abs(p["drive"]), p["beta"])
    if kind in ("lif", "cubalif"):
        reset = np.where(
            p["reset_zero"] == 1, np.abs(p["v_reset"]), p["reset_amount"] - np.minimum(p["v_threshold"], 0)
        )
        v = np.maximum(v, reset.astype(np.float64))
    return v, current
