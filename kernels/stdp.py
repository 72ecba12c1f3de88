"""A layer of neurons whose synapses learn by spike timing, on a time grid, one sample at a time.

Pairs and triplets of spikes (Pfister and Gerstner 2006, "Triplets of spikes in a model of spike timing-dependent
plasticity", equations 2 and 3) change weights at once or an eligibility. The order inside a step is written at
:func:`stdp_sample`; ``kernels/reference_stdp.py`` is the definition.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from snnsim.kernels.stochastic import FIRING, RELEASE, draw_firings, draw_row, fires_by

__all__ = ["LayerNumbers", "RuleNumbers", "add_passed_on", "certain", "stdp_run", "stdp_sample"]


Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class LayerNumbers(NamedTuple):
    """N neurons: arrays of shape (N,), but for the last five.

    ``subtract`` is 1 where reset subtracts ``amount``, 0 where v becomes ``v_reset``. ``winners`` is how many neurons
    may fire in a step (0: all), ``inhibition`` what a spike takes from all others in the next step.
    """

    beta: Floats
    drive: Floats
    theta: Floats
    v_reset: Floats
    amount: Floats
    ref_steps: Ints
    release: Floats
    low: float
    high: float
    temperature: float
    subtract: int
    winners: int
    inhibition: float


class RuleNumbers(NamedTuple):
    """Decays of the traces a step, sizes of pairs and triplets, limits; flags are 0 or 1."""

    decay_plus: float
    decay_minus: float
    decay_x: float
    decay_y: float
    a2_plus: float
    a2_minus: float
    a3_plus: float
    a3_minus: float
    w_min: float
    w_max: float
    multiplicative: int
    nearest: int


@njit(cache=True, nogil=True)
def certain(layer):  # type: ignore[no-untyped-def]
    """Return whether no synapse draws anything."""
    sure = layer.low == layer.high
    for j in range(layer.release.shape[0]):
        sure = sure and layer.release[j] >= 1.0
    return sure


@njit(cache=True, nogil=True)
def add_passed_on(weight, count, source, layer, seed, sample, step, kept, others, total):  # type: ignore[no-untyped-def]
    """Add what ``count`` coincident events of one source pass on to every neuron: one draw a synapse for all of them.

    Where nothing is random (release 1, low equal to high) this is ``(count * weight) * low`` whatever is drawn.

    Args:
        weight: Of the source's synapses, (neuron,).
        count: Events.
        source: Which one.
        layer: :class:`LayerNumbers`.
        seed: Of the release.
        sample: Id of the sample.
        step: Step.
        kept: (neuron,), for the draws.
        others: (neuron,), likewise.
        total: (neuron,), added to.
    """
    n = total.shape[0]
    draw_row(layer.release, seed, RELEASE, sample, step, source, 0, n, kept, others)
    span = layer.high - layer.low
    for j in range(n):
        total[j] += kept[j] * ((count * weight[j]) * (layer.low + span * others[j]))


@njit(cache=True, nogil=True)
def stdp_sample(  # type: ignore[no-untyped-def]
    begin, source, count, weight, eligibility, fading, teacher, layer, rule, learn, seed, sample, spikes
):
    """Run one sample from rest.

    In a step, in this order: traces decay; each source that is active, in ascending order, first changes its synapses
    by the spikes of their neurons in earlier steps, then raises its traces and acts with the new weights; neurons
    move and fire; each neuron that fires changes its synapses by all that has arrived, in this step too, then raises
    its traces. So a pair at distance 0 counts as source before neuron.

    Args:
        begin: First entry of each step, int64 (step + 1,).
        source: Sources that are active, ascending in a step, int64.
        count: Their coincident events, float64.
        weight: (source, neuron), changed in place unless ``fading`` has entries.
        eligibility: (source, neuron), set to 0 and filled if ``fading`` has entries.
        fading: What is left at the end of the sample of a change in each step; empty: weights change at once.
        teacher: Added to the drive of each neuron in each step.
        layer: :class:`LayerNumbers`.
        rule: :class:`RuleNumbers`.
        learn: Whether synapses change.
        seed: Of release and firing.
        sample: Id of the sample.
        spikes: uint8 (step, neuron), filled.
    """
    n_sources, n = weight.shape
    r1, r2 = np.zeros(n_sources), np.zeros(n_sources)
    o1, o2 = np.zeros(n), np.zeros(n)
    v, total, held = np.zeros(n), np.zeros(n), np.zeros(n, np.int64)
    fired, before = np.zeros(n, np.uint8), np.zeros(n, np.uint8)
    low, high = rule.w_min, rule.w_max
    later = fading.shape[0] > 0
    if later:
        eligibility[:] = 0.0
    sure, noisy = certain(layer), layer.temperature != 0
    kept, others, chances = np.empty(n), np.empty(n), np.zeros(n)
    for k in range(begin.shape[0] - 1):
        if learn:
            for s in range(n_sources):
                r1[s] *= rule.decay_plus
                r2[s] *= rule.decay_x
            for j in range(n):
                o1[j] *= rule.decay_minus
                o2[j] *= rule.decay_y
        total[:] = 0.0
        if layer.inhibition != 0.0:
            for i in range(n):
                if before[i]:
                    for j in range(n):
                        if j != i:
                            total[j] -= layer.inhibition
        for e in range(begin[k], begin[k + 1]):
            s, c = source[e], count[e]
            if learn:
                size = c * (rule.a2_minus + rule.a3_minus * r2[s])
                if later:
                    for j in range(n):
                        factor = weight[s, j] - low if rule.multiplicative else 1.0
                        eligibility[s, j] -= size * o1[j] * factor * fading[k]
                else:
                    for j in range(n):
                        factor = weight[s, j] - low if rule.multiplicative else 1.0
                        weight[s, j] = min(max(weight[s, j] - size * o1[j] * factor, low), high)
                r1[s] = 1.0 if rule.nearest else r1[s] + c
                r2[s] = 1.0 if rule.nearest else r2[s] + c
            if sure:
                for j in range(n):
                    total[j] += (c * weight[s, j]) * layer.low
            else:
                add_passed_on(weight[s], c, s, layer, seed, sample, k, kept, others, total)
        room = n if layer.winners == 0 else layer.winners
        able = 0
        if noisy:
            draw_firings(seed, FIRING, sample, k, chances)
        for j in range(n):
            fired[j] = 0
            if held[j] > 0:
                held[j] -= 1
                continue
            v[j] = (layer.beta[j] * v[j] + (layer.drive[j] + teacher[j])) + total[j]
            theta = layer.theta[j]
            fired[j] = fires_by(chances[j], v[j], theta, layer.temperature) if noisy else v[j] >= theta
            able += fired[j]
        if able > room:  # the highest above their thresholds, the first among equals, fire; 2 marks them
            for _ in range(room):
                best = -1
                for j in range(n):
                    if fired[j] == 1 and (best < 0 or v[j] - layer.theta[j] > v[best] - layer.theta[best]):
                        best = j
                fired[best] = 2
            for j in range(n):
                fired[j] = fired[j] == 2
        for j in range(n):
            before[j] = spikes[k, j] = fired[j]
            if not fired[j]:
                continue
            v[j] = v[j] - layer.amount[j] if layer.subtract else layer.v_reset[j]
            held[j] = layer.ref_steps[j]
            if learn:
                size = rule.a2_plus + rule.a3_plus * o2[j]
                for s in range(n_sources):
                    factor = high - weight[s, j] if rule.multiplicative else 1.0
                    if later:
                        eligibility[s, j] += size * r1[s] * factor * fading[k]
                    else:
                        weight[s, j] = min(max(weight[s, j] + size * r1[s] * factor, low), high)
                o1[j] = 1.0 if rule.nearest else o1[j] + 1.0
                o2[j] = 1.0 if rule.nearest else o2[j] + 1.0


@njit(cache=True, nogil=True)
def stdp_run(i0, i1, first, begin, entry, source, count, weight, layer, rule, seed, ids, spikes):  # type: ignore[no-untyped-def]
    """Run samples i0 to i1 without learning.

    Args:
        i0: First sample.
        i1: The sample after the last.
        first: First step of each sample in ``spikes``, int64 (sample + 1,).
        begin: First entry of each step inside its sample, one more a sample than steps.
        entry: First entry of each sample.
        source: Sources of all samples.
        count: Coincident events of all samples.
        weight: (source, neuron).
        layer: As in :func:`stdp_sample`.
        rule: As there.
        seed: As there.
        ids: Ids of the samples.
        spikes: uint8 (all steps, neuron), filled.
    """
    none, fading, teacher = np.zeros((0, 0)), np.zeros(0), np.zeros(weight.shape[1])
    for i in range(i0, i1):
        a, b = first[i], first[i + 1]
        stdp_sample(
            begin[a + i : b + i + 1],
            source[entry[i] : entry[i + 1]],
            count[entry[i] : entry[i + 1]],
            weight,
            none,
            fading,
            teacher,
            layer,
            rule,
            False,
            seed,
            ids[i],
            spikes[a:b],
        )
