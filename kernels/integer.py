"""One sample of an integer network over a window of steps, for every law; exact, so no order of sums matters.

Neurons of all populations are numbered through; sources are the units of all inputs, then the neurons. Tables:

    parameters  int64 ``(rows, neurons)``, rows as in :data:`snnsim.kernels.integer_tables.PARAMETERS`
    state       int64 ``(3, neurons)``: membrane, current, refractory steps left
    ring        int64 ``(longest delay + 1, neurons)``: arrivals of the steps to come
    counts      uint8 ``(steps, neurons)``: spikes
    overflow    int64 ``(neurons,)``: steps in which a number left its range

A law moves the neurons ``low`` to ``high`` of one population by one step:
``advance(kind, parameters, state, arrivals, counts, overflow, low, high)`` with the rows ``arrivals`` of the ring and
``counts`` of this step.
"""

from __future__ import annotations

from numba import njit

from snnsim.kernels.integer_fixed import advance_fixed
from snnsim.kernels.integer_loihi2 import advance_loihi2
from snnsim.kernels.integer_tables import FIXED, LOIHI2, XYLO
from snnsim.kernels.integer_xylo import advance_xylo

__all__ = ["run_integers"]


@njit(cache=True, nogil=True)
def _advance(law, kind, parameters, state, arrivals, counts, overflow, low, high):  # type: ignore[no-untyped-def]
    """Move one population by its law; return whether the law is known."""
    if law == LOIHI2:
        advance_loihi2(kind, parameters, state, arrivals, counts, overflow, low, high)
        return True
    if law == FIXED:
        advance_fixed(kind, parameters, state, arrivals, counts, overflow, low, high)
        return True
    if law == XYLO:
        advance_xylo(kind, parameters, state, arrivals, counts, overflow, low, high)
        return True
    return False


@njit(cache=True, nogil=True)
def run_integers(  # type: ignore[no-untyped-def]
    law, order, kinds, low, parameters, synapses, state, ring, first, events, counts, overflow, shown, traces
):
    """Move all populations over ``counts.shape[0]`` steps.

    Args:
        law: Code of the law.
        order: Places of the populations in the order of updating.
        kinds: Code of every population's kind.
        low: First neuron of every population, and the number of neurons.
        parameters: Table of parameters.
        synapses: ``(indptr, unit, weight, delay)`` by source, delays in steps.
        state: Table of states, moved on.
        ring: Arrivals, moved on.
        first: Number of the first step since the sample's begin.
        events: ``(start, source, count)`` of the inputs' events, ``start`` int64 ``(steps + 1,)``.
        counts: Spikes, filled.
        overflow: Counted on.
        shown: int64 ``(records, 3)``: row of the state, first neuron, number of neurons.
        traces: int64 ``(steps, sum of the numbers)``, filled with them at the end of each step.

    Returns:
        Whether the law is known.
    """
    indptr, unit, weight, delay = synapses
    start, source, count = events
    slots = ring.shape[0]
    n_inputs = indptr.shape[0] - 1 - low[-1]
    for step in range(counts.shape[0]):
        slot = (first + step) % slots
        for event in range(start[step], start[step + 1]):
            for synapse in range(indptr[source[event]], indptr[source[event] + 1]):
                place = slot + delay[synapse]
                place -= slots if place >= slots else 0
                ring[place, unit[synapse]] += count[event] * weight[synapse]
        for population in order:
            begin, end = low[population], low[population + 1]
            kind = kinds[population]
            if not _advance(law, kind, parameters, state, ring[slot], counts[step], overflow, begin, end):
                return False
            for neuron in range(begin, end):
                ring[slot, neuron] = 0
            for neuron in range(begin, end):
                spikes = counts[step, neuron]
                if spikes:
                    for synapse in range(indptr[n_inputs + neuron], indptr[n_inputs + neuron + 1]):
                        place = slot + delay[synapse]
                        place -= slots if place >= slots else 0
                        ring[place, unit[synapse]] += spikes * weight[synapse]
        column = 0
        for record in range(shown.shape[0]):
            for neuron in range(shown[record, 1], shown[record, 1] + shown[record, 2]):
                traces[step, column] = state[shown[record, 0], neuron]
                column += 1
    return True
