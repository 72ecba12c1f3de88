"""Delivery: adding the synapses of the sources that fired to the sums of what is on its way.

A path is a projection as the clock engine walks along it: rows of synapses, one a source, with one delay a row or a
delay a synapse. Threads own targets: the targets of a row ascend, so a thread's share of it is one piece.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

from snnsim.kernels.memory import array_at, fetch

__all__ = [
    *("DIRTY", "LIVE", "LONGEST", "PORT_COLUMNS", "PORT_SIZE", "SHORTEST", "RING", "SLOTS"),
    *("DELAY", "DELAY_KIND", "EDGES", "NOW", "N_SOURCE", "N_SYNAPSES", "OWNER", "PATH_COLUMNS", "PORT", "ROW_DELAY"),
    *("DRAWN", "ROW_EDGE", "SOURCE", "TARGET", "TARGET_KIND", "WEIGHT", "WEIGHT_KIND"),
    *("DELAYS", "DENSE", "TARGETS", "WEIGHTS", "deliver", "divide", "slot_of"),
]

PORT_SIZE, RING, SLOTS, LIVE, DIRTY, PORT_COLUMNS = range(6)
"""Columns of the table of receptors: neurons; where its ring begins; slots; the longest delay; where the marks of its
slots begin."""

SOURCE, OWNER, PORT, NOW, N_SOURCE, N_SYNAPSES, EDGES = range(7)
"""Columns of the table of paths: the source (an input's place, or the number of inputs and a population's place in the
order of updating); the target population and its receptor; 1 if the synapses have delay 0; sources; synapses; threads
plus one."""

TARGET_KIND, TARGET, WEIGHT_KIND, WEIGHT, DELAY_KIND, DELAY, ROW_DELAY, ROW_EDGE, SHORTEST, LONGEST, DRAWN = range(
    7, 18
)
PATH_COLUMNS = 18
"""How targets, weights and delays are stored and at which addresses; addresses of the delay of each row (int64, -1 for
a row that is left out) and of where each thread's share of a row begins (int64 ``(n_source, threads + 1)``); shortest
and longest delay; 0, or where :mod:`snnsim.kernels.stochastic` finds what it draws."""

DENSE = 2
"""In place of a kind of targets: every row holds a weight for each target in turn."""

TARGETS = {"uint16": 0, "int32": 1}
WEIGHTS = {"shared": 0, "float16": 1, "float32": 2, "float64": 3}
DELAYS = {"row": 0, "uint8": 1, "uint16": 2}
"""Codes of how a path stores its targets, its weights and its delays."""


LINES = 4  # cache lines of a row to ask for ahead


@intrinsic
def _half(typing: Any, bits: Any) -> Any:
    """Return the float16 with the given 16 bits as float32, exactly (finite numbers only)."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        whole, single = ir.IntType(32), ir.FloatType()

        def part(mask: int, shift: int) -> Any:
            masked = builder.zext(builder.and_(arguments[0], ir.Constant(ir.IntType(16), mask)), whole)
            return builder.shl(masked, ir.Constant(whole, shift))

        size = builder.fmul(builder.bitcast(part(0x7FFF, 13), single), ir.Constant(single, 2.0**112))
        return builder.bitcast(builder.or_(builder.bitcast(size, whole), part(0x8000, 16)), single)

    return types.float32(bits), generate


def _weight(ring: Any, weights: Any, synapse: Any) -> Any:
    """Return a synapse's weight in the dtype of the run."""


@overload(_weight, inline="always")
def _weight_of(ring, weights, synapse):  # type: ignore[no-untyped-def]
    kind = ring.dtype
    if not isinstance(weights, types.Array):
        return lambda ring, weights, synapse: weights
    if weights.dtype == types.uint16:
        return lambda ring, weights, synapse: kind(_half(weights[synapse]))
    return lambda ring, weights, synapse: kind(weights[synapse])


def _origin(origin: Any, delays: Any, origins: Any, synapse: Any) -> Any:
    """Return where the slot begins in which a synapse's arrivals go."""


@overload(_origin, inline="always")
def _origin_of(origin, delays, origins, synapse):  # type: ignore[no-untyped-def]
    if not isinstance(delays, types.Array):
        return lambda origin, delays, origins, synapse: origin
    return lambda origin, delays, origins, synapse: origins[np.uint64(delays[synapse])]


@njit(cache=True, nogil=True)
def slot_of(slot, slots, size, begin):  # type: ignore[no-untyped-def]
    """Return where a slot of a ring begins; ``slot`` is below twice the number of slots."""
    return np.uint64(begin + (slot - slots if slot >= slots else slot) * size)


@njit(cache=True, nogil=True)
def _fill_origins(origins, port, now):  # type: ignore[no-untyped-def]
    """Write down where the slot of every delay begins."""
    for delay in range(port[LIVE] + 1):
        origins[delay] = slot_of(now + delay, port[SLOTS], port[PORT_SIZE], port[RING])


@njit(cache=True, nogil=True)
def _rows(  # type: ignore[no-untyped-def]
    ring, port, now, targets, weights, delays, origins, paths, q, units, counts, stride, first, last, t
):
    size, begin, slots = port[PORT_SIZE], port[RING], port[SLOTS]
    n, edges = paths[q, N_SOURCE], paths[q, EDGES]
    row_delay = array_at(paths[q, ROW_DELAY], n, np.int64)
    row_edge = array_at(paths[q, ROW_EDGE], n * edges, np.int64)
    for event in range(first, last):
        if event + 1 < last:  # rows lie anywhere: the first lines of the next one are asked for in time
            ahead = row_edge[units[event + 1] * edges + t]
            for line in range(LINES):
                fetch(targets, ahead + line * 64 // targets.itemsize)
        r = units[event]
        if row_delay[r] >= 0:
            origin = slot_of(now + row_delay[r], slots, size, begin)
            count = counts[event * stride]
            for s in range(np.uint64(row_edge[r * edges + t]), np.uint64(row_edge[r * edges + t + 1])):
                place = _origin(origin, delays, origins, s) + np.uint64(targets[s])
                ring[place] += count * _weight(ring, weights, s)


@njit(cache=True, nogil=True)
def _by_delay(ring, port, now, targets, weights, origins, paths, q, units, counts, stride, first, last, t):  # type: ignore[no-untyped-def]
    kind, address, n = paths[q, DELAY_KIND], paths[q, DELAY], paths[q, N_SYNAPSES]
    if kind == 0:
        _rows(ring, port, now, targets, weights, 0, origins, paths, q, units, counts, stride, first, last, t)
        return
    _fill_origins(origins, port, now)
    if kind == 1:
        byte = array_at(address, n, np.uint8)
        _rows(ring, port, now, targets, weights, byte, origins, paths, q, units, counts, stride, first, last, t)
    else:
        wide = array_at(address, n, np.uint16)
        _rows(ring, port, now, targets, weights, wide, origins, paths, q, units, counts, stride, first, last, t)


@njit(cache=True, nogil=True)
def _by_weight(ring, port, now, targets, origins, paths, q, units, counts, stride, first, last, t):  # type: ignore[no-untyped-def]
    kind, address, n = paths[q, WEIGHT_KIND], paths[q, WEIGHT], paths[q, N_SYNAPSES]
    if kind == 0:
        same = array_at(address, 1, ring.dtype)[0]
        _by_delay(ring, port, now, targets, same, origins, paths, q, units, counts, stride, first, last, t)
    elif kind == 1:
        half = array_at(address, n, np.uint16)
        _by_delay(ring, port, now, targets, half, origins, paths, q, units, counts, stride, first, last, t)
    elif kind == 2:
        single = array_at(address, n, np.float32)
        _by_delay(ring, port, now, targets, single, origins, paths, q, units, counts, stride, first, last, t)
    else:
        double = array_at(address, n, np.float64)
        _by_delay(ring, port, now, targets, double, origins, paths, q, units, counts, stride, first, last, t)


@njit(cache=True, nogil=True)
def _whole_rows(ring, port, now, paths, q, units, counts, stride, first, last, low, high):  # type: ignore[no-untyped-def]
    size = port[PORT_SIZE]
    weights = array_at(paths[q, WEIGHT], paths[q, N_SOURCE] * size, ring.dtype)
    row_delay = array_at(paths[q, ROW_DELAY], paths[q, N_SOURCE], np.int64)
    for event in range(first, last):
        delay = row_delay[units[event]]
        if delay >= 0:
            count = counts[event * stride]
            origin = slot_of(now + delay, port[SLOTS], size, port[RING] + low)
            begin = np.uint64(units[event] * size + low)
            for n in range(np.uint64(high - low)):
                ring[origin + n] += count * weights[begin + n]


@njit(cache=True, nogil=True)
def _whole_rows_own(  # type: ignore[no-untyped-def]
    ring, port, delays, origins, paths, q, units, counts, stride, first, last, low, high
):
    size = port[PORT_SIZE]
    weights = array_at(paths[q, WEIGHT], paths[q, N_SOURCE] * size, ring.dtype)
    for event in range(first, last):
        count = counts[event * stride]
        begin = np.uint64(units[event] * size)
        for n in range(np.uint64(low), np.uint64(high)):
            ring[origins[np.uint64(delays[begin + n])] + n] += count * weights[begin + n]


@njit(cache=True, nogil=True)
def _dense(ring, port, now, origins, paths, q, units, counts, stride, first, last, low, high):  # type: ignore[no-untyped-def]
    kind, address = paths[q, DELAY_KIND], paths[q, DELAY]
    if kind == 0:
        _whole_rows(ring, port, now, paths, q, units, counts, stride, first, last, low, high)
        return
    _fill_origins(origins, port, now)
    n = paths[q, N_SOURCE] * port[PORT_SIZE]
    if kind == 1:
        byte = array_at(address, n, np.uint8)
        _whole_rows_own(ring, port, byte, origins, paths, q, units, counts, stride, first, last, low, high)
    else:
        wide = array_at(address, n, np.uint16)
        _whole_rows_own(ring, port, wide, origins, paths, q, units, counts, stride, first, last, low, high)


@njit(cache=True, nogil=True)
def deliver(ring, port, now, origins, paths, q, units, counts, stride, first, last, t, low, high):  # type: ignore[no-untyped-def]
    """Send the events ``first:last`` on their way along a path, to the targets of one thread.

    Args:
        ring: Sums of what is on its way, one slot of ``port[PORT_SIZE]`` targets a step.
        port: The receptor where the path ends: its row of the table.
        now: Slot of the step of emission.
        origins: Scratch, uint64, one more than the longest delay.
        paths: The table of paths, int64 ``(n_paths, PATH_COLUMNS)``.
        q: Which path.
        units: Source units, ascending.
        counts: Coincident events of each unit, in the dtype of the run, or one number for all with stride 0.
        stride: 1 or 0.
        first: First event.
        last: One past the last.
        t: Which thread.
        low: First target of the thread.
        high: One past its last.
    """
    kind, address, n = paths[q, TARGET_KIND], paths[q, TARGET], paths[q, N_SYNAPSES]
    if kind == DENSE:
        _dense(ring, port, now, origins, paths, q, units, counts, stride, first, last, low, high)
    elif kind == 0:
        near = array_at(address, n, np.uint16)
        _by_weight(ring, port, now, near, origins, paths, q, units, counts, stride, first, last, t)
    else:
        far = array_at(address, n, np.int32)
        _by_weight(ring, port, now, far, origins, paths, q, units, counts, stride, first, last, t)


@njit(cache=True, nogil=True)
def divide(indptr, targets, edges, out):  # type: ignore[no-untyped-def]
    """Find where each thread's share of every row begins.

    Args:
        indptr: Where rows begin, int64 ``(n_source + 1,)``.
        targets: Ascending in each row.
        edges: First target of each thread's share, int64 ``(threads + 1,)``.
        out: Filled, int64 ``(n_source, threads + 1)``.
    """
    threads = edges.shape[0] - 1
    for r in range(indptr.shape[0] - 1):
        out[r, 0], out[r, threads] = indptr[r], indptr[r + 1]
        for t in range(1, threads):
            low, high = out[r, t - 1], indptr[r + 1]
            while low < high:
                middle = (low + high) // 2
                if np.int64(targets[middle]) < edges[t]:
                    low = middle + 1
                else:
                    high = middle
            out[r, t] = low
