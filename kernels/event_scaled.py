"""A neuron with currents in scaled coordinates, in which an arrival is two additions and nothing else happens.

With gains ``g = tau / (tau_mem - tau)`` the sum ``z = y + g_e i_e + g_i i_i`` decays with tau_mem alone. So z, i_e and
i_i, each multiplied by ``e^((t - t0) / tau)`` of its own time constant, do not change between arrivals, and a weight w
that arrives at t adds ``w g e^((t - t0) / tau_mem)`` to the first and ``w e^((t - t0) / tau)`` to its current. The
reference instant t0 is the begin of an epoch, a cell of a grid that depends on absolute time only; a neuron is brought
to a new epoch by its first arrival in it, so its bits depend on nothing but its own events.

An arrival is not tested: a neuron keeps a time ``UNTIL`` and an amount ``SLACK``, and ``docs/event-engine.md`` proves
that before that time, and while no more positive weight than that arrives, it cannot fire.
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
    GAIN_E,
    GAIN_I,
    GAP,
    MARGIN,
    RATE_E,
    RATE_I,
    RATE_M,
    RESET,
    RESET_ZERO,
    STEADY,
    T_REF,
    VINF,
    first_crossing,
)
from snnsim.kernels.event_neuron import BLOCK, DONE, EXAMINED, N_SPIKES, ROOM, TOO_FAST

__all__ = ["BOUND_COLUMNS", "COLD", "EPOCH", "FIRST", "HELD", "HOT", "LAST", "MODE", "SECOND", "SLACK", "TIME"]
__all__ += ["UNTIL", "Y_HELD", "Scaled", "Z", "advance", "begin", "epoch_of", "meet", "record", "renew"]

Floats = npt.NDArray[np.float64]

# columns of ``hot``: what an arrival touches, one line of the cache
TIME = 0  # of the last event
Z = 1  # scaled
FIRST = 2  # scaled currents
SECOND = 3
SLACK = 4  # positive weight that may still arrive without a look; below 0: the next arrival needs one
UNTIL = 5  # no crossing before; the crossing itself, or the end of the refractory time
EPOCH = 6  # of z and the currents
MODE = 7  # what UNTIL is
HOT = 8

# columns of ``cold``
HELD = 0  # end of the refractory time, -inf before the first spike
LAST = 1  # time of the last spike
Y_HELD = 2  # y in the refractory time
COLD = 3

FREE = 0.0  # mode, this or more: a bound, from the span of that number
EXACT = -1.0  # the crossing
REFRACTORY = -2.0  # the end of the refractory time; z is not in use

# columns of ``bounds``: for a span from now
SPAN = 0  # seconds, infinite in row 0
LEFT_M = 1  # what is left of y after it
LEFT_E = 2  # and of the currents
LEFT_I = 3
PEAK_E = 4  # largest response within it to a unit of current
PEAK_I = 5
PER_PEAK = 6  # 1 / the larger of the two
TYPICAL = 7  # the span, finite
BOUND_COLUMNS = 8


class Scaled(NamedTuple):
    """All neurons.

    Attributes:
        laws: Their numbers, :mod:`snnsim.kernels.event_law`, ``(laws, COLUMNS)``.
        law: Row of ``laws`` of each neuron, int32 ``(N,)``.
        hot: Columns above, ``(N, HOT)``.
        cold: Columns above, ``(N, COLD)``.
        bounds: Spans and what the bound needs to know of them, longest first, ``(laws, spans, BOUND_COLUMNS)``.
        check: UNTIL once more, ``(N,)``.
        least: At most the smallest of each block of neurons, ``(blocks,)``.
        pace: Positive weight a neuron and second; any value is right, a good one saves looks, ``(1,)``.
        origin: Begin of epoch 0.
        length: Of an epoch, seconds.
    """

    laws: Floats
    law: npt.NDArray[np.int32]
    hot: Floats
    cold: Floats
    bounds: Floats
    check: Floats
    least: Floats
    pace: Floats
    origin: float
    length: float


@bare_inline
def epoch_of(time, cells):  # type: ignore[no-untyped-def]
    """Return the epoch of a time as a float."""
    return math.floor((time - cells.origin) / cells.length) * 1.0


@bare_inline
def _since(time, epoch, cells):  # type: ignore[no-untyped-def]
    return time - (cells.origin + epoch * cells.length)


@bare_inline
def _rebase(n, epoch, cells):  # type: ignore[no-untyped-def]
    """Scale a neuron from its epoch to another."""
    hot, laws, c = cells.hot, cells.laws, cells.law[n]
    gone = (epoch - hot[n, EPOCH]) * cells.length
    hot[n, Z] *= decay(-gone * laws[c, RATE_M])
    hot[n, FIRST] *= decay(-gone * laws[c, RATE_E])
    hot[n, SECOND] *= decay(-gone * laws[c, RATE_I])
    hot[n, EPOCH] = epoch


@bare_inline
def _values(n, time, cells):  # type: ignore[no-untyped-def]
    """Return y and the currents of a neuron at a time without arrivals since its last event (y: not refractory)."""
    hot, laws, c = cells.hot, cells.laws, cells.law[n]
    t = _since(time, hot[n, EPOCH], cells)
    i_e = hot[n, FIRST] * decay(-t * laws[c, RATE_E])
    i_i = hot[n, SECOND] * decay(-t * laws[c, RATE_I])
    y = hot[n, Z] * decay(-t * laws[c, RATE_M]) - laws[c, GAIN_E] * i_e - laws[c, GAIN_I] * i_i
    return y, i_e, i_i


@bare_inline
def _set_until(n, until, slack, mode, cells):  # type: ignore[no-untyped-def]
    cells.hot[n, UNTIL] = until
    cells.hot[n, SLACK] = slack
    cells.check[n] = until
    cells.hot[n, MODE] = mode
    b = n // BLOCK
    if until < cells.least[b]:
        cells.least[b] = until


@bare_inline
def _bound(n, now, beyond, y, i_e, i_i, cells):  # type: ignore[no-untyped-def]
    """Find a span from ``now`` and an amount of weight that exclude a crossing; say whether one leads beyond a time.

    The longest span is taken whose amount is what arrives in it at the usual pace, else the one with most of that;
    spans longer than the next to the former one are not tried.
    """
    bounds, c = cells.bounds, cells.law[n]
    gap, pace = cells.laws[c, GAP], cells.pace[0]
    margin = MARGIN * (
        abs(gap)
        + abs(y)
        + abs(i_e) * (1.0 + abs(cells.laws[c, GAIN_E]))
        + abs(i_i) * (1.0 + abs(cells.laws[c, GAIN_I]))
    )
    top = gap - margin
    plus_e, plus_i = max(i_e, 0.0), max(i_i, 0.0)
    minus_e, minus_i = i_e - plus_e, i_i - plus_i
    most, best, amount = -1.0, 0, -1.0
    if y < top:
        former = int(cells.hot[n, MODE]) - 1
        for k in range(max(former, 0 if gap > 0.0 else 1), bounds.shape[1]):
            p = minus_e * bounds[c, k, LEFT_E] + minus_i * bounds[c, k, LEFT_I]
            u = max(y, p + (y - p) * bounds[c, k, LEFT_M])
            left = top - u - plus_e * bounds[c, k, PEAK_E] - plus_i * bounds[c, k, PEAK_I]
            may = left * bounds[c, k, PER_PEAK]
            if may < 0.0:
                continue
            if now + bounds[c, k, SPAN] <= beyond:
                break
            need = pace * bounds[c, k, TYPICAL]
            value = min(may, need)
            if value > most:
                most, best, amount = value, k, may
            if may >= need:
                break
    if most < 0.0:
        return False
    until = now + bounds[c, best, SPAN]
    _set_until(n, until - 1e-15 * abs(until) if until < math.inf else until, amount, FREE + best, cells)
    return True


@bare
def begin(cells):  # type: ignore[no-untyped-def]
    """Set the first bounds of all neurons."""
    for n in range(cells.check.shape[0]):
        if cells.laws[cells.law[n], GAP] == math.inf:
            _set_until(n, math.inf, math.inf, FREE, cells)
        else:
            time = cells.hot[n, TIME]
            y, i_e, i_i = _values(n, time, cells)
            if not _bound(n, time, time, y, i_e, i_i, cells):
                _set_until(n, time, -1.0, FREE, cells)


@bare
def record(n, time, cells, grid):  # type: ignore[no-untyped-def]
    """Record a neuron at the grid instants before a time, from its state."""
    laws, c = cells.laws, cells.law[n]
    column, values = grid.column, grid.values
    k = grid.next[n]
    while k < values.shape[0]:
        at = (grid.first + k) * grid.dt
        if at >= time:
            break
        y, i_e, i_i = _values(n, at, cells)
        if cells.hot[n, MODE] == REFRACTORY:
            y = cells.cold[n, Y_HELD]
        if column[0, n] >= 0:
            values[k, column[0, n]] = y + laws[c, VINF]
        if column[1, n] >= 0:
            values[k, column[1, n]] = i_e + laws[c, STEADY]
        if column[2, n] >= 0:
            values[k, column[2, n]] = i_i
        k += 1
    grid.next[n] = k


@bare
def _fire(n, time, y, cells, spikes, grid):  # type: ignore[no-untyped-def]
    """Spike and reset from y; return the status."""
    laws, c, hot, cold = cells.laws, cells.law[n], cells.hot, cells.cold
    if time <= cold[n, LAST]:
        return TOO_FAST
    k = spikes.meta[N_SPIKES]
    if k == spikes.time.shape[0]:
        return ROOM
    if grid.next.shape[0]:
        record(n, time, cells, grid)
    held = time + laws[c, T_REF]
    cold[n, LAST] = time
    cold[n, HELD] = held
    cold[n, Y_HELD] = laws[c, RESET] if laws[c, RESET_ZERO] != 0.0 else y - laws[c, AMOUNT]
    hot[n, TIME] = time
    _set_until(n, held, math.inf, REFRACTORY, cells)
    spikes.time[k] = time
    spikes.neuron[k] = n
    spikes.meta[N_SPIKES] = k + 1
    return DONE


@bare
def _wake(n, cells, grid):  # type: ignore[no-untyped-def]
    """End the refractory time: y goes on from where it was held."""
    laws, c, hot, cold = cells.laws, cells.law[n], cells.hot, cells.cold
    time = cold[n, HELD]
    if grid.next.shape[0]:
        record(n, time, cells, grid)
    hot[n, Z] = 0.0
    epoch = epoch_of(time, cells)
    if epoch != hot[n, EPOCH]:
        _rebase(n, epoch, cells)
    t, y = _since(time, epoch, cells), cold[n, Y_HELD]
    i_e, i_i = hot[n, FIRST] * decay(-t * laws[c, RATE_E]), hot[n, SECOND] * decay(-t * laws[c, RATE_I])
    hot[n, Z] = (y + laws[c, GAIN_E] * i_e + laws[c, GAIN_I] * i_i) / decay(-t * laws[c, RATE_M])
    hot[n, TIME] = time
    hot[n, MODE] = FREE
    if not _bound(n, time, time, y, i_e, i_i, cells):
        _set_until(n, time, -1.0, FREE, cells)


@bare_inline
def renew(n, limit, cells):  # type: ignore[no-untyped-def]
    """Find a new bound for a neuron whose bound ends before a limit; say whether it excludes a crossing until then."""
    hot = cells.hot
    if hot[n, MODE] < FREE:
        return False
    now = max(hot[n, UNTIL], hot[n, TIME])
    y, i_e, i_i = _values(n, now, cells)
    return _bound(n, now, limit, y, i_e, i_i, cells) and hot[n, UNTIL] >= limit


@bare
def advance(n, limit, cells, spikes, grid):  # type: ignore[no-untyped-def]
    """Take a neuron through its crossings and refractory times before a limit.

    Returns:
        DONE; ROOM if the list of spikes is full (nothing is lost: call again); TOO_FAST if it fired twice at one
        instant.
    """
    hot, _cold, laws, c = cells.hot, cells.cold, cells.laws, cells.law[n]
    while hot[n, UNTIL] < limit:
        mode = hot[n, MODE]
        if mode == EXACT:
            status = _fire(n, hot[n, UNTIL], laws[c, GAP], cells, spikes, grid)
            if status != DONE:
                return status
        elif mode == REFRACTORY:
            _wake(n, cells, grid)
        else:
            now = max(hot[n, UNTIL], hot[n, TIME])
            y, i_e, i_i = _values(n, now, cells)
            if not _bound(n, now, limit, y, i_e, i_i, cells):
                spikes.meta[EXAMINED] += 1
                if now != hot[n, TIME]:
                    y, i_e, i_i = _values(n, hot[n, TIME], cells)
                _set_until(n, hot[n, TIME] + first_crossing(y, i_e, i_i, laws, c), -1.0, EXACT, cells)
    return DONE


@bare_inline
def meet(n, at, epoch, after, first, second, add, decay_m, decay_e, decay_i, cells, spikes, grid):  # type: ignore[no-untyped-def]
    """Give a neuron that needs a look an arrival: ``add`` to z, ``first`` and ``second`` to the currents, all scaled.

    Args:
        n: The neuron.
        at: Time of the arrival.
        epoch: Its epoch.
        after: The next float time.
        first: To the first current.
        second: To the second.
        add: To z.
        decay_m: Decay of z since the epoch began.
        decay_e: Of the first current.
        decay_i: Of the second.
        cells: All neurons.
        spikes: List to fill.
        grid: What to record.

    Returns:
        The status; the arrival is not done if it is not DONE.
    """
    hot, cold, laws, c = cells.hot, cells.cold, cells.laws, cells.law[n]
    status = DONE
    if hot[n, UNTIL] <= at and not renew(n, after, cells):
        status = advance(n, after, cells, spikes, grid)
    if status != DONE:
        return status
    if grid.next.shape[0]:
        record(n, at, cells, grid)
    if epoch != hot[n, EPOCH]:
        _rebase(n, epoch, cells)
    free = hot[n, MODE] != REFRACTORY
    e, i = hot[n, FIRST] * decay_e, hot[n, SECOND] * decay_i
    y = hot[n, Z] * decay_m - laws[c, GAIN_E] * e - laws[c, GAIN_I] * i
    if free and y >= laws[c, GAP] and at > cold[n, HELD]:
        status = _fire(n, at, y, cells, spikes, grid)
        if status != DONE:
            return status
        free = False
    hot[n, TIME] = at
    hot[n, Z] += add
    hot[n, FIRST] += first
    hot[n, SECOND] += second
    if free and laws[c, GAP] < math.inf:
        e, i = hot[n, FIRST] * decay_e, hot[n, SECOND] * decay_i
        if not _bound(n, at, at, y, e, i, cells):
            _set_until(n, at, -1.0, FREE, cells)
    return DONE
