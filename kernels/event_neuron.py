"""One neuron in continuous time: its arrivals, its crossings between them, its reset, and its trace on a grid.

A row of ``state`` holds one neuron at its last event. Every function changes it at an event of the neuron only.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from snnsim.kernels.bare import bare, bare_inline
from snnsim.kernels.decay import decay
from snnsim.kernels.event_law import (
    AMOUNT,
    CURRENT,
    GAP,
    KIND,
    RATE_E,
    RATE_I,
    RESET,
    RESET_ZERO,
    STEADY,
    T_REF,
    TAU,
    VINF,
    first_crossing,
    membrane,
    moved,
    safe_time,
    safe_until,
)

__all__ = [
    "BLOCK",
    "CHECK",
    "WIDTH",
    "Cells",
    "Grid",
    "Spikes",
    "arrive",
    "cross",
    "examine",
    "fill",
    "grown_spikes",
    "least_checks",
    "new_check",
    "new_spikes",
    "new_state",
    "spontaneous",
]

# columns of the state
TIME = 0  # of the last event
Y = 1  # v - v_inf
FIRST = 2  # first current, from its steady value
SECOND = 3  # second current
HELD = 4  # end of the refractory time, -inf before the first spike
LAST = 5  # time of the last spike
CHECK = 6  # between runs: no crossing without arrivals before this time; in a run the array ``check``
EXACT = 7  # 1 if it is the crossing itself
WIDTH = 8

EXAMINED = 0  # spikes.meta: exact searches
N_SPIKES = 1  # spikes kept

DONE = 0  # status
ROOM = 1  # for spikes
TOO_FAST = 2

BLOCK = 16  # neurons whose earliest possible crossings share one minimum

AHEAD = 0.125  # membrane time constants that a bound looks beyond what is asked; then a quarter of it, and again

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Cells(NamedTuple):
    """All neurons.

    Attributes:
        laws: Their numbers, :mod:`snnsim.kernels.event_law`, ``(laws, COLUMNS)``.
        law: Row of ``laws`` of each neuron, int32 ``(N,)``.
        state: Columns above, ``(N, WIDTH)``.
        check: Time before which a neuron cannot fire without arrivals, ``(N,)``.
        least: At most the smallest of each block of neurons, ``(blocks,)``.
    """

    laws: Floats
    law: npt.NDArray[np.int32]
    state: Floats
    check: Floats
    least: Floats


class Spikes(NamedTuple):
    """Spikes in the order in which they were found: time, neuron, and counters (see above)."""

    time: Floats
    neuron: npt.NDArray[np.int32]
    meta: Ints


class Grid(NamedTuple):
    """What is recorded: values at the instants ``(first + k) * dt``.

    Attributes:
        dt: Seconds.
        first: Step number of row 0.
        next: Next row of each neuron, int64 ``(N,)``, or empty if nothing is recorded.
        column: Columns for v and the two currents, -1 if not recorded, int32 ``(3, N)``.
        values: ``(time, columns)``.
    """

    dt: float
    first: int
    next: Ints
    column: npt.NDArray[np.int32]
    values: Floats


def new_state(neurons: int) -> Floats:
    """Return rows of zeros, each in one line of the cache."""
    room = np.zeros(neurons * WIDTH + 8)
    begin = -room.ctypes.data % 64 // 8
    return room[begin : begin + neurons * WIDTH].reshape(neurons, WIDTH)


def new_spikes(room: int = 1024) -> Spikes:
    """Return an empty list of spikes."""
    return Spikes(np.zeros(room), np.zeros(room, np.int32), np.zeros(2, np.int64))


def least_checks(check: Floats) -> Floats:
    """Return the smallest entry of each block of neurons."""
    blocks = -(-check.shape[0] // BLOCK)
    padded = np.full(blocks * BLOCK, np.inf)
    padded[: check.shape[0]] = check
    smallest: Floats = padded.reshape(blocks, BLOCK).min(axis=1)
    return smallest


def grown_spikes(spikes: Spikes, more: int = 0) -> Spikes:
    """Return the list with twice the room and ``more``."""
    k = spikes.time.shape[0] + more
    return Spikes(np.append(spikes.time, np.zeros(k)), np.append(spikes.neuron, np.zeros(k, np.int32)), spikes.meta)


@bare
def fill(n, time, cells, grid):  # type: ignore[no-untyped-def]
    """Record a neuron at the grid instants before a time, from its state."""
    laws, state, c = cells.laws, cells.state, cells.law[n]
    column, values = grid.column, grid.values
    k = grid.next[n]
    held = state[n, HELD]
    while k < values.shape[0]:
        at = (grid.first + k) * grid.dt
        if at >= time:
            break
        begin, y, i_e, i_i = state[n, TIME], state[n, Y], state[n, FIRST], state[n, SECOND]
        if at <= held:
            i_e *= decay(-(at - begin) * laws[c, RATE_E])
            i_i *= decay(-(at - begin) * laws[c, RATE_I])
        else:
            if begin < held:
                i_e *= decay(-(held - begin) * laws[c, RATE_E])
                i_i *= decay(-(held - begin) * laws[c, RATE_I])
                begin = held
            y, i_e, i_i = membrane(at - begin, y, i_e, i_i, laws, c)
        if column[0, n] >= 0:
            values[k, column[0, n]] = y + laws[c, VINF]
        if column[1, n] >= 0:
            values[k, column[1, n]] = i_e + laws[c, STEADY]
        if column[2, n] >= 0:
            values[k, column[2, n]] = i_i
        k += 1
    grid.next[n] = k


@bare_inline
def new_check(n, cells):  # type: ignore[no-untyped-def]
    """Set the time before which the neuron cannot fire without arrivals, by the cheap bound."""
    laws, state, c = cells.laws, cells.state, cells.law[n]
    base = max(state[n, TIME], state[n, HELD])
    bound = base + safe_time(state[n, Y], state[n, FIRST], state[n, SECOND], laws, c)
    bound = max(base, bound - 1e-15 * abs(bound)) if bound < math.inf else bound
    cells.check[n] = bound
    state[n, EXACT] = 0.0
    b = n // BLOCK
    if bound < cells.least[b]:
        cells.least[b] = bound


@bare
def _decay(n, time, cells):  # type: ignore[no-untyped-def]
    """Bring the currents of a refractory neuron to a time; v is held."""
    laws, state, c = cells.laws, cells.state, cells.law[n]
    gone = time - state[n, TIME]
    state[n, FIRST] *= decay(-gone * laws[c, RATE_E])
    state[n, SECOND] *= decay(-gone * laws[c, RATE_I])
    state[n, TIME] = time


@bare
def _fire(n, time, cells, spikes):  # type: ignore[no-untyped-def]
    """Spike and reset at the time of the state."""
    laws, state, c = cells.laws, cells.state, cells.law[n]
    state[n, LAST] = time
    state[n, HELD] = time + laws[c, T_REF]
    state[n, Y] = laws[c, RESET] if laws[c, RESET_ZERO] != 0.0 else state[n, Y] - laws[c, AMOUNT]
    k = spikes.meta[N_SPIKES]
    spikes.time[k] = time
    spikes.neuron[k] = n
    spikes.meta[N_SPIKES] = k + 1


@bare
def examine(n, limit, cells, spikes, grid):  # type: ignore[no-untyped-def]
    """Find out more about a neuron that may cross before a limit: its crossing, or a later bound."""
    laws, state, check, c = cells.laws, cells.state, cells.check, cells.law[n]
    held = state[n, HELD]
    if state[n, TIME] < held:
        if held >= limit:
            check[n] = held
            return
        if grid.next.shape[0]:
            fill(n, held, cells, grid)
        _decay(n, held, cells)
    y, i_e, i_i = state[n, Y], state[n, FIRST], state[n, SECOND]
    span = limit - state[n, TIME]
    if laws[c, KIND] == CURRENT and span < math.inf:
        ahead = AHEAD * laws[c, TAU]
        for _ in range(3):
            if safe_until(span + ahead, y, i_e, i_i, laws, c):
                check[n] = max(limit, state[n, TIME] + (span + ahead) * (1.0 - 1e-12))
                return
            ahead *= 0.25
        if safe_until(span, y, i_e, i_i, laws, c):
            check[n] = limit
            return
    spikes.meta[EXAMINED] += 1
    check[n] = state[n, TIME] + first_crossing(y, i_e, i_i, laws, c)
    state[n, EXACT] = 1.0


@bare
def cross(n, cells, spikes, grid):  # type: ignore[no-untyped-def]
    """Let a neuron fire at its crossing, which is known; return the status."""
    laws, state, check, c = cells.laws, cells.state, cells.check, cells.law[n]
    time = check[n]
    if time <= state[n, LAST]:
        return TOO_FAST
    if spikes.meta[N_SPIKES] == spikes.time.shape[0]:
        return ROOM
    if grid.next.shape[0]:
        fill(n, time, cells, grid)
    _, i_e, i_i = membrane(time - state[n, TIME], state[n, Y], state[n, FIRST], state[n, SECOND], laws, c)
    state[n, TIME], state[n, Y], state[n, FIRST], state[n, SECOND] = time, laws[c, GAP], i_e, i_i
    _fire(n, time, cells, spikes)
    new_check(n, cells)
    return DONE


@bare
def spontaneous(n, limit, cells, spikes, grid):  # type: ignore[no-untyped-def]
    """Let a neuron fire at all its crossings before a limit.

    Returns:
        DONE; ROOM if the list of spikes is full (nothing is lost: call again); TOO_FAST if it fired twice at one
        instant.
    """
    state, check = cells.state, cells.check
    status = DONE
    while check[n] < limit and status == DONE:
        if state[n, EXACT] == 0.0:
            examine(n, limit, cells, spikes, grid)
        else:
            status = cross(n, cells, spikes, grid)
    b = n // BLOCK
    if check[n] < cells.least[b]:
        cells.least[b] = check[n]
    return status


@bare_inline
def arrive_current(n, time, first, second, decay_m, decay_e, decay_i, cells, spikes):  # type: ignore[no-untyped-def]
    """As :func:`arrive`, for a neuron with currents that is not refractory, from the decays since its last event."""
    laws, state, check, c = cells.laws, cells.state, cells.check, cells.law[n]
    y, i_e, i_i = state[n, Y], state[n, FIRST], state[n, SECOND]
    y = moved(time - state[n, TIME], y, i_e, i_i, decay_m, decay_e, decay_i, laws, c)
    if state[n, EXACT] == 1.0 and check[n] == time:
        y = laws[c, GAP]
    state[n, TIME], state[n, Y] = time, y
    state[n, FIRST], state[n, SECOND] = i_e * decay_e + first, i_i * decay_i + second
    if y >= laws[c, GAP]:
        _fire(n, time, cells, spikes)
    new_check(n, cells)


@bare_inline
def arrive(n, time, first, second, cells, spikes):  # type: ignore[no-untyped-def]
    """Give a neuron the sums of what arrives at a time, before which all its crossings are done; test it once.

    The list of spikes has room for one more.
    """
    laws, state, check, c = cells.laws, cells.state, cells.check, cells.law[n]
    held = state[n, HELD]
    current = laws[c, KIND] == CURRENT
    if time <= held:
        if current:
            _decay(n, time, cells)
            state[n, FIRST] += first
            state[n, SECOND] += second
            new_check(n, cells)
        elif time == state[n, LAST]:  # after the spike of the same instant: kept, not tested
            state[n, Y] += first
            new_check(n, cells)
    else:
        if state[n, TIME] < held:
            _decay(n, held, cells)
        crossing = state[n, EXACT] == 1.0 and check[n] == time
        y, i_e, i_i = membrane(time - state[n, TIME], state[n, Y], state[n, FIRST], state[n, SECOND], laws, c)
        if crossing:
            y = laws[c, GAP]
        if current:
            i_e += first
            i_i += second
        else:
            y += first
        state[n, TIME], state[n, Y], state[n, FIRST], state[n, SECOND] = time, y, i_e, i_i
        if y >= laws[c, GAP]:
            _fire(n, time, cells, spikes)
        new_check(n, cells)
