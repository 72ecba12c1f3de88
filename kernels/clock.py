"""Clock-driven simulation of one sample of any network, event-driven inside a step.

Arrivals wait in one ring of steps a population, one slot a neuron and step. Slots are filled at the end of the
step in which the events are emitted, projection by projection, source by source, synapse by synapse, so each
slot holds the sum in canonical order without sorting anything. Synapses with delay 0 are delivered apart, when
all their sources have fired: to a delta population just before it is updated, to a current population after
all have fired; their emission step is the last one, so they are the last terms of the sum.

The same bits as :func:`snnsim.kernels.reference.simulate_reference` for any split of a run into windows. No
fastmath: products and sums are rounded one by one, as NumPy does.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = ["ADAPTIVE", "CURRENT", "REFRACTORY", "RESET_ZERO", "SPIKING", "STRICT", "Plan", "Sample", "run_window"]

SPIKING = 1
CURRENT = 2
ADAPTIVE = 4
RESET_ZERO = 8
STRICT = 16  # only looked at with ADAPTIVE; other thresholds are moved to the next float beforehand
REFRACTORY = 32

Ints = npt.NDArray[np.int64]
Array = npt.NDArray[Any]


class Plan(NamedTuple):
    """A network as flat arrays. P populations, N neurons, Q projections, R rows (sources of projections).

    Attributes:
        order: Population places in their order of updating, int64 ``(P,)``.
        offset: First neuron of each population, int64 ``(P + 1,)``.
        flags: Sum of the flags above, int64 ``(P,)``.
        start: First step of a population, int64 ``(P,)``.
        stop: First step after its last, int64 ``(P,)``.
        ring_offset: Where a population's ring begins, int64 ``(P + 1,)``.
        ring_length: Its number of steps, the longest delay plus one, int64 ``(P,)``.
        beta: And the following: numbers per step in the dtype of the run, ``(N,)``.
        drive_step: Added to v.
        alpha: Decay of i.
        kappa: Gain from i to v.
        drive_syn_step: Added to i.
        drive_syn_to_v: Added to v.
        v_threshold: Threshold.
        v_reset: Value after a zero reset.
        reset_amount: Taken off by a subtract reset.
        refractory_steps: int64.
        adapt_decay: Decay of w.
        adapt_v: From v to w.
        adapt_spike: Jump of w at a spike.
        adapt_threshold: From w to the threshold.
        source: Place of a projection's source: inputs first, then populations, int64 ``(Q,)``.
        target: Place of its target population, int64 ``(Q,)``.
        first_row: Its first row, int64 ``(Q,)``.
        uniform: 1 if each source has one delay and a weight for every target, int64 ``(Q,)``.
        has_now: 1 if some synapse has delay 0, int64 ``(Q,)``.
        has_later: 1 if some synapse has a longer delay, int64 ``(Q,)``.
        into: Projections by target population, each in ascending order, int64 ``(Q,)``.
        into_start: Where a population's entries of ``into`` begin, int64 ``(P + 1,)``.
        row_start: First synapse of a row, int64 ``(R,)``.
        row_later: Its first synapse with a delay above 0; of a uniform row: its delay, int64 ``(R,)``.
        row_end: One past its last synapse, int64 ``(R,)``.
        place: ``delay * size + target`` of each synapse, ascending within a row, int32 or int64.
        weight: Weight of each synapse.
        uniform_weight: Weights of uniform rows.
    """

    order: Ints
    offset: Ints
    flags: Ints
    start: Ints
    stop: Ints
    ring_offset: Ints
    ring_length: Ints
    beta: Array
    drive_step: Array
    alpha: Array
    kappa: Array
    drive_syn_step: Array
    drive_syn_to_v: Array
    v_threshold: Array
    v_reset: Array
    reset_amount: Array
    refractory_steps: Ints
    adapt_decay: Array
    adapt_v: Array
    adapt_spike: Array
    adapt_threshold: Array
    source: Ints
    target: Ints
    first_row: Ints
    uniform: Ints
    has_now: Ints
    has_later: Ints
    into: Ints
    into_start: Ints
    row_start: Ints
    row_later: Ints
    row_end: Ints
    place: Array
    weight: Array
    uniform_weight: Array


class Sample(NamedTuple):
    """The changing state of one sample; :func:`run_window` works in place.

    Attributes:
        v: ``(N,)``.
        i: ``(N,)``.
        w: ``(N,)``.
        left: Refractory steps left, int64 ``(N,)``.
        ring: Sums of what is on its way, ``(ring_offset[P],)``.
        head: Slot of the next step in each ring, int64 ``(P,)``.
    """

    v: Array
    i: Array
    w: Array
    left: Ints
    ring: Array
    head: Ints


@njit(cache=True, nogil=True)
def _deliver(plan, sample, q, units, counts, first, last, now):  # type: ignore[no-untyped-def]
    """Add the synapses of projection ``q`` from ``units[first:last]`` to the target's ring.

    ``now``: those with delay 0; otherwise the others.
    """
    target = plan.target[q]
    size = plan.offset[target + 1] - plan.offset[target]
    length = plan.ring_length[target] * size
    ring = sample.ring[plan.ring_offset[target] : plan.ring_offset[target] + length]
    head = sample.head[target] * size
    for event in range(first, last):
        count = counts[event]
        row = plan.first_row[q] + units[event]
        if plan.uniform[q]:
            delay = plan.row_later[row]
            if now == (delay == 0):
                begin = head + delay * size
                if begin >= length:
                    begin -= length
                slot = ring[begin : begin + size]
                weight = plan.uniform_weight[plan.row_start[row] : plan.row_end[row]]
                for n in range(size):
                    slot[n] += count * weight[n]
        else:
            start = plan.row_start[row] if now else plan.row_later[row]
            end = plan.row_later[row] if now else plan.row_end[row]
            for synapse in range(start, end):
                slot_place = head + plan.place[synapse]
                if slot_place >= length:
                    slot_place -= length
                ring[slot_place] += count * plan.weight[synapse]


@njit(cache=True, nogil=True)
def _update(plan, sample, p, spikes):  # type: ignore[no-untyped-def]
    """Advance population ``p`` one step; write its spikes (ascending) and return their number."""
    a = plan.offset[p]
    size = plan.offset[p + 1] - a
    flags = plan.flags[p]
    begin = plan.ring_offset[p] + sample.head[p] * size
    slot = sample.ring[begin : begin + size]
    v = sample.v[a : a + size]
    beta = plan.beta[a : a + size]
    drive = plan.drive_step[a : a + size]
    left = sample.left[a : a + size]
    adaptive = flags & ADAPTIVE
    if flags & CURRENT:
        i = sample.i[a : a + size]
        kappa = plan.kappa[a : a + size]
        alpha = plan.alpha[a : a + size]
        syn_step = plan.drive_syn_step[a : a + size]
        syn_to_v = plan.drive_syn_to_v[a : a + size]
        if flags & REFRACTORY:
            for n in range(size):
                if left[n] == 0:
                    v[n] = ((beta[n] * v[n] + kappa[n] * i[n]) + drive[n]) + syn_to_v[n]
                i[n] = alpha[n] * i[n] + syn_step[n]
        else:
            for n in range(size):
                v[n] = ((beta[n] * v[n] + kappa[n] * i[n]) + drive[n]) + syn_to_v[n]
                i[n] = alpha[n] * i[n] + syn_step[n]
    elif flags & REFRACTORY:
        for n in range(size):
            if left[n] == 0:
                v[n] = (beta[n] * v[n] + drive[n]) + slot[n]
            slot[n] = 0
    else:
        for n in range(size):
            v[n] = (beta[n] * v[n] + drive[n]) + slot[n]
            slot[n] = 0
    if not flags & SPIKING:
        return 0
    if adaptive:
        return _adaptive_spikes(plan, sample, p, spikes)
    threshold = plan.v_threshold[a : a + size]
    fired = 0
    for n in range(size):
        if v[n] >= threshold[n] and left[n] == 0:
            spikes[fired] = n
            fired += 1
    if flags & REFRACTORY:
        for n in range(size):
            left[n] -= left[n] > 0
    for event in range(fired):
        n = spikes[event]
        if flags & RESET_ZERO:
            v[n] = plan.v_reset[a + n]
        else:
            v[n] = v[n] - plan.reset_amount[a + n]
        left[n] = plan.refractory_steps[a + n]
    return fired


@njit(cache=True, nogil=True)
def _adaptive_spikes(plan, sample, p, spikes):  # type: ignore[no-untyped-def]
    """Finish the step of an adaptive population whose ``v`` lacks only ``- w``."""
    a = plan.offset[p]
    size = plan.offset[p + 1] - a
    flags = plan.flags[p]
    fired = 0
    for n in range(size):
        at = a + n
        w = sample.w[at]
        spike = False
        if sample.left[at] == 0:
            theta = plan.v_threshold[at]
            if plan.adapt_threshold[at] > 0:
                theta = theta + plan.adapt_threshold[at] * w
            else:
                sample.v[at] = sample.v[at] - w
            spike = sample.v[at] > theta if flags & STRICT else sample.v[at] >= theta
            if spike:
                if flags & RESET_ZERO:
                    sample.v[at] = plan.v_reset[at]
                else:
                    sample.v[at] = sample.v[at] - plan.reset_amount[at]
                sample.left[at] = plan.refractory_steps[at]
                spikes[fired] = n
                fired += 1
        else:
            sample.left[at] -= 1
        w = plan.adapt_decay[at] * w + plan.adapt_v[at] * sample.v[at]
        if spike:
            w = w + plan.adapt_spike[at]
        sample.w[at] = w
    return fired


@njit(cache=True, nogil=True)
def run_window(  # type: ignore[no-untyped-def]
    plan, sample, first_step, n_steps, event_start, event_unit, event_count, recorded, record, spike_start, spike_unit
):
    """Advance one sample by a window of steps.

    Args:
        plan: The network, :class:`Plan`.
        sample: The state, :class:`Sample`, changed in place.
        first_step: Step number of the window's first step (start_step and stop_step count from 0).
        n_steps: Steps in the window.
        event_start: Where each input's events of each step begin, int64 ``(n_inputs, n_steps + 1)``.
        event_unit: Units, ascending within a step, int64.
        event_count: Coincident events of the unit, in the dtype of the run.
        recorded: Per recorded column its neuron and variable (0 v, 1 i, 2 w), int64 ``(n_columns, 2)``.
        record: Filled with the values at the end of each step, ``(n_steps, n_columns)``.
        spike_start: Filled: where the spikes of each step and population begin, int64 ``(n_steps * P + 1,)``.
        spike_unit: Filled with spiking units, ascending within a population, int32, room for all.
    """
    n_inputs = event_start.shape[0]
    n_populations = plan.order.shape[0]
    n_projections = plan.source.shape[0]
    n_neurons = plan.offset[n_populations]
    spikes = np.empty(n_neurons, np.int64)
    fired = np.zeros(n_populations, np.int64)
    ones = np.ones(n_neurons, event_count.dtype)
    total = 0
    spike_start[0] = 0
    for k in range(n_steps):
        step = first_step + k
        fired[:] = 0
        for place in range(n_populations):
            p = plan.order[place]
            a = plan.offset[p]
            size = plan.offset[p + 1] - a
            if plan.flags[p] & CURRENT == 0:
                for entry in range(plan.into_start[p], plan.into_start[p + 1]):
                    q = plan.into[entry]
                    if plan.has_now[q]:
                        s = plan.source[q]
                        if s < n_inputs:
                            first, last = event_start[s, k], event_start[s, k + 1]
                            _deliver(plan, sample, q, event_unit, event_count, first, last, True)
                        else:
                            mine = spikes[plan.offset[s - n_inputs] : plan.offset[s - n_inputs + 1]]
                            _deliver(plan, sample, q, mine, ones, 0, fired[s - n_inputs], True)
            if step < plan.start[p] or step >= plan.stop[p]:
                begin = plan.ring_offset[p] + sample.head[p] * size
                if plan.flags[p] & CURRENT == 0:
                    sample.ring[begin : begin + size] = 0
            else:
                fired[p] = _update(plan, sample, p, spikes[a : a + size])
        for p in range(n_populations):
            if plan.flags[p] & CURRENT:
                a = plan.offset[p]
                size = plan.offset[p + 1] - a
                for entry in range(plan.into_start[p], plan.into_start[p + 1]):
                    q = plan.into[entry]
                    if plan.has_now[q]:
                        s = plan.source[q]
                        if s < n_inputs:
                            first, last = event_start[s, k], event_start[s, k + 1]
                            _deliver(plan, sample, q, event_unit, event_count, first, last, True)
                        else:
                            mine = spikes[plan.offset[s - n_inputs] : plan.offset[s - n_inputs + 1]]
                            _deliver(plan, sample, q, mine, ones, 0, fired[s - n_inputs], True)
                begin = plan.ring_offset[p] + sample.head[p] * size
                if plan.start[p] <= step < plan.stop[p]:
                    for n in range(size):
                        sample.i[a + n] += sample.ring[begin + n]
                sample.ring[begin : begin + size] = 0
        for q in range(n_projections):
            if plan.has_later[q]:
                s = plan.source[q]
                if s < n_inputs:
                    first, last = event_start[s, k], event_start[s, k + 1]
                    _deliver(plan, sample, q, event_unit, event_count, first, last, False)
                else:
                    mine = spikes[plan.offset[s - n_inputs] : plan.offset[s - n_inputs + 1]]
                    _deliver(plan, sample, q, mine, ones, 0, fired[s - n_inputs], False)
        for p in range(n_populations):
            sample.head[p] += 1
            if sample.head[p] == plan.ring_length[p]:
                sample.head[p] = 0
            for event in range(fired[p]):
                spike_unit[total] = spikes[plan.offset[p] + event]
                total += 1
            spike_start[k * n_populations + p + 1] = total
        for column in range(recorded.shape[0]):
            n = recorded[column, 0]
            if recorded[column, 1] == 0:
                record[k, column] = sample.v[n]
            elif recorded[column, 1] == 1:
                record[k, column] = sample.i[n]
            else:
                record[k, column] = sample.w[n]
