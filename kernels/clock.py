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

BLOCK = 64  # neurons looked at together for a spike

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
        ring: Sums of what is on its way, ``(ring_offset[P],)``; a population has room for twice its
            ``ring_length`` slots, so that a row of synapses never wraps around.
        head: Slot of the next step in each ring, below ``ring_length``, int64 ``(P,)``.
    """

    v: Array
    i: Array
    w: Array
    left: Ints
    ring: Array
    head: Ints


# In the loops below an index is unsigned, because a signed one is tested for being negative at every access, and
# arrays are never sliced, because a slice counts references with atomic operations that all threads share.


@njit(cache=True, nogil=True)
def _add_rows(ring, slot, row_place, row_weight, begins, ends, row, units, counts, first, last):  # type: ignore[no-untyped-def]
    """Add the synapses ``begins[r]:ends[r]`` of the rows of ``units[first:last]`` at ``slot + place``."""
    origin = np.uint64(slot)
    for event in range(np.uint64(first), np.uint64(last)):
        count = counts[event]
        r = row + units[event]
        for synapse in range(np.uint64(begins[r]), np.uint64(ends[r])):
            ring[origin + np.uint64(row_place[synapse])] += count * row_weight[synapse]


@njit(cache=True, nogil=True)
def _add_uniform(ring, slot, size, weight, begins, delays, row, units, counts, first, last, now):  # type: ignore[no-untyped-def]
    """Add whole rows of weights, those with delay 0 (``now``) or the others."""
    for event in range(np.uint64(first), np.uint64(last)):
        r = row + units[event]
        if now == (delays[r] == 0):
            count = counts[event]
            origin = np.uint64(slot + delays[r] * size)
            begin = np.uint64(begins[r])
            for n in range(np.uint64(size)):
                ring[origin + n] += count * weight[begin + n]


@njit(cache=True, nogil=True)
def _charge(v, beta, drive, ring, slot, a, size):  # type: ignore[no-untyped-def]
    first, origin = np.uint64(a), np.uint64(slot)
    for n in range(np.uint64(size)):
        v[first + n] = (beta[first + n] * v[first + n] + drive[first + n]) + ring[origin + n]


@njit(cache=True, nogil=True)
def _charge_free(v, beta, drive, ring, slot, a, size, left):  # type: ignore[no-untyped-def]
    first, origin = np.uint64(a), np.uint64(slot)
    for n in range(np.uint64(size)):
        moved = (beta[first + n] * v[first + n] + drive[first + n]) + ring[origin + n]
        v[first + n] = moved if left[first + n] == 0 else v[first + n]


@njit(cache=True, nogil=True)
def _charge_current(v, i, beta, kappa, drive, to_v, alpha, syn_step, a, size, left):  # type: ignore[no-untyped-def]
    for n in range(np.uint64(a), np.uint64(a + size)):
        moved = ((beta[n] * v[n] + kappa[n] * i[n]) + drive[n]) + to_v[n]
        v[n] = moved if left[n] == 0 else v[n]
        i[n] = alpha[n] * i[n] + syn_step[n]


@njit(cache=True, nogil=True)
def _receive(i, ring, slot, a, size):  # type: ignore[no-untyped-def]
    first, origin = np.uint64(a), np.uint64(slot)
    for n in range(np.uint64(size)):
        i[first + n] += ring[origin + n]


@njit(cache=True, nogil=True)
def _fire(v, threshold, left, spikes, a, size):  # type: ignore[no-untyped-def]
    """Write the units that fire to ``spikes[a:]``, ascending, and return their number."""
    fired = 0
    for block in range(a, a + size, BLOCK):
        end = min(block + BLOCK, a + size)
        ready = np.int64(0)
        for n in range(np.uint64(block), np.uint64(end)):  # few fire: this loop is the fast one, it has no branch
            ready += np.int64(v[n] >= threshold[n]) & np.int64(left[n] == 0)
        if ready:
            for n in range(block, end):
                if v[n] >= threshold[n] and left[n] == 0:
                    spikes[a + fired] = n - a
                    fired += 1
    return fired


@njit(cache=True, nogil=True)
def _count_down(left, a, size):  # type: ignore[no-untyped-def]
    for n in range(np.uint64(a), np.uint64(a + size)):
        left[n] -= left[n] > 0


@njit(cache=True, nogil=True)
def _reset(v, left, spikes, fired, zero, v_reset, amount, refractory, a):  # type: ignore[no-untyped-def]
    for event in range(a, a + fired):
        n = a + spikes[event]
        v[n] = v_reset[n] if zero else v[n] - amount[n]
        left[n] = refractory[n]


@njit(cache=True, nogil=True)
def _adaptive(plan, sample, p, spikes):  # type: ignore[no-untyped-def]
    """Finish the step of an adaptive population whose ``v`` lacks only ``- w``; return the number of spikes."""
    a = plan.offset[p]
    flags = plan.flags[p]
    fired = 0
    for n in range(a, plan.offset[p + 1]):
        w = sample.w[n]
        spike = False
        if sample.left[n] == 0:
            theta = plan.v_threshold[n]
            if plan.adapt_threshold[n] > 0:
                theta = theta + plan.adapt_threshold[n] * w
            else:
                sample.v[n] = sample.v[n] - w
            spike = sample.v[n] > theta if flags & STRICT else sample.v[n] >= theta
            if spike:
                sample.v[n] = plan.v_reset[n] if flags & RESET_ZERO else sample.v[n] - plan.reset_amount[n]
                sample.left[n] = plan.refractory_steps[n]
                spikes[a + fired] = n - a
                fired += 1
        else:
            sample.left[n] -= 1
        w = plan.adapt_decay[n] * w + plan.adapt_v[n] * sample.v[n]
        if spike:
            w = w + plan.adapt_spike[n]
        sample.w[n] = w
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
    n_neurons = plan.offset[n_populations]
    offset, flags, length, source, uniform = plan.offset, plan.flags, plan.ring_length, plan.source, plan.uniform
    row_start, row_later, row_end = plan.row_start, plan.row_later, plan.row_end
    place, weight, uniform_weight = plan.place, plan.weight, plan.uniform_weight
    v, i, w, left, ring = sample.v, sample.i, sample.w, sample.left, sample.ring
    spikes = np.empty(n_neurons, np.int64)
    fired = np.zeros(n_populations, np.int64)
    slot = np.empty(n_populations, np.int64)  # where the arrivals of this step lie in the ring
    ones = np.ones(n_neurons, event_count.dtype)
    total = 0
    spike_start[0] = 0
    for k in range(n_steps):
        step = first_step + k
        fired[:] = 0
        for p in range(n_populations):
            slot[p] = plan.ring_offset[p] + sample.head[p] * (offset[p + 1] - offset[p])
        # Three rounds. 0: each delta population receives what has delay 0 and is updated, current populations
        # are updated. 1: current populations receive what has delay 0. 2: everything else is sent on its way.
        for stage in range(3):
            for entry in range(n_populations):
                p = plan.order[entry]
                a = offset[p]
                size = offset[p + 1] - a
                current = flags[p] & CURRENT != 0
                active = plan.start[p] <= step < plan.stop[p]
                if stage == 2 or current == (stage == 1):
                    for into in range(plan.into_start[p], plan.into_start[p + 1]):
                        q = plan.into[into]
                        if plan.has_later[q] if stage == 2 else plan.has_now[q]:
                            s = source[q]
                            row = plan.first_row[q]
                            if s < n_inputs:
                                units, counts = event_unit, event_count
                                first, last = event_start[s, k], event_start[s, k + 1]
                            else:
                                units, counts = spikes, ones
                                first = offset[s - n_inputs]
                                last = first + fired[s - n_inputs]
                            if first == last:
                                continue
                            if uniform[q]:
                                _add_uniform(
                                    *(ring, slot[p], size, uniform_weight, row_start, row_later, row),
                                    *(units, counts, first, last, stage < 2),
                                )
                            elif stage < 2:
                                _add_rows(
                                    *(ring, slot[p], place, weight, row_start, row_later, row),
                                    *(units, counts, first, last),
                                )
                            else:
                                _add_rows(
                                    *(ring, slot[p], place, weight, row_later, row_end, row),
                                    *(units, counts, first, last),
                                )
                if stage == 0 and active:
                    if current:
                        _charge_current(
                            *(v, i, plan.beta, plan.kappa, plan.drive_step, plan.drive_syn_to_v),
                            *(plan.alpha, plan.drive_syn_step, a, size, left),
                        )
                    elif flags[p] & REFRACTORY:
                        _charge_free(v, plan.beta, plan.drive_step, ring, slot[p], a, size, left)
                    else:
                        _charge(v, plan.beta, plan.drive_step, ring, slot[p], a, size)
                    if flags[p] & ADAPTIVE:
                        fired[p] = _adaptive(plan, sample, p, spikes)
                    elif flags[p] & SPIKING:
                        fired[p] = _fire(v, plan.v_threshold, left, spikes, a, size)
                        if flags[p] & REFRACTORY:
                            _count_down(left, a, size)
                        zero = flags[p] & RESET_ZERO != 0
                        _reset(
                            v, left, spikes, fired[p], zero, plan.v_reset, plan.reset_amount, plan.refractory_steps, a
                        )
                if stage == 1 and current and active:
                    _receive(i, ring, slot[p], a, size)
        for p in range(n_populations):
            a = offset[p]
            size = offset[p + 1] - a
            for n in range(np.uint64(slot[p]), np.uint64(slot[p] + size)):
                ring[n] = 0
            sample.head[p] += 1
            if sample.head[p] == length[p]:
                sample.head[p] = 0
                begin = plan.ring_offset[p]
                half = length[p] * size
                ring[begin : begin + half] = ring[begin + half : begin + 2 * half]
                ring[begin + half : begin + 2 * half] = 0
            for event in range(a, a + fired[p]):
                spike_unit[total] = spikes[event]
                total += 1
            spike_start[k * n_populations + p + 1] = total
        for column in range(recorded.shape[0]):
            n = recorded[column, 0]
            if recorded[column, 1] == 0:
                record[k, column] = v[n]
            elif recorded[column, 1] == 1:
                record[k, column] = i[n]
            else:
                record[k, column] = w[n]
