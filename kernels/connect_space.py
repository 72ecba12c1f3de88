"""Synapses whose probability depends on distance: pairs are found through a grid of cells of the cutoff's size.

Whether source and target are connected is one Philox number of ``(source, target, 0, projection)``, compared with the
probability, so it depends on nothing else: neither on the grid nor on the threads. Positions are padded to three axes.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from snnsim.kernels.connect import sort_row
from snnsim.kernels.philox import Stream, uniform_scalar

__all__ = ["DISC", "FALLING", "GAUSSIAN", "fill_cells", "given_row", "near_rows"]

GAUSSIAN, FALLING, DISC = range(3)

_PAIR = int(Stream.CONNECT_PAIR)


@njit(cache=True, nogil=True)
def _cell(x, origin, size, count):  # type: ignore[no-untyped-def]
    """Return the cell along one axis; outside the grid the number of a cell that would lie there."""
    return int(min(max(np.floor((x - origin) / size), -2.0), count + 1.0))


@njit(cache=True, nogil=True)
def fill_cells(position, origin, size, count, start, member):  # type: ignore[no-untyped-def]
    """Sort points into cells.

    Args:
        position: float64, ``(n, 3)``.
        origin: Lowest corner of the grid, ``(3,)``.
        size: Edges of a cell, ``(3,)``.
        count: Cells along each axis, int64 ``(3,)``.
        start: int64, ``(cells + 1,)``, zeros; written: where the points of a cell begin in ``member``.
        member: int32, ``(n,)``; written: the points of each cell, ascending.
    """
    n = position.shape[0]
    for pass_ in range(2):
        for j in range(n):
            cell = 0
            for axis in range(3):
                place = _cell(position[j, axis], origin[axis], size[axis], count[axis])
                cell = cell * count[axis] + min(max(place, 0), count[axis] - 1)
            if pass_ == 0:
                start[cell + 1] += 1
            else:
                member[start[cell]] = j
                start[cell] += 1
        if pass_ == 0:
            for cell in range(start.shape[0] - 1):
                start[cell + 1] += start[cell]
    for cell in range(start.shape[0] - 1, 0, -1):  # placing moved every start to the next one's
        start[cell] = start[cell - 1]
    start[0] = 0


@njit(cache=True, nogil=True)
def _probability(kind, a, p_max, cutoff, square):  # type: ignore[no-untyped-def]
    if square > cutoff * cutoff:
        return 0.0
    if kind == GAUSSIAN:
        return p_max * math.exp(-square / (2.0 * a * a))
    if kind == FALLING:
        return p_max * math.exp(-math.sqrt(square) / a)
    return p_max


@njit(cache=True, nogil=True)
def near_rows(  # type: ignore[no-untyped-def]
    seed,
    key,
    sources,
    targets,
    extent,
    own,
    law,
    origin,
    size,
    count,
    start_of,
    member,
    write,
    indptr,
    target,
    start,
    stop,
):
    """Count or fill the rows of sources.

    Args:
        seed: First word of the key of the random numbers.
        key: The projection, last word of the counter.
        sources: Positions, float64 ``(n_source, 3)``.
        targets: Positions, float64 ``(n_target, 3)``.
        extent: Period of each axis, 0 where it does not repeat, ``(3,)``.
        own: Whether a source must not reach the target of its own number.
        law: float64 ``(kind, a, p_max, cutoff)``.
        origin: See :func:`fill_cells`; and so are ``size``, ``count`` and ``member``.
        size: See ``origin``.
        count: See ``origin``.
        start_of: ``start`` of :func:`fill_cells`.
        member: See ``origin``.
        write: True: fill ``target``. False: write each row's number of synapses to ``indptr[row + 1]``.
        indptr: Rows, int64 ``(n_source + 1,)``.
        target: uint16 or int32, ``(nnz,)``.
        start: First row.
        stop: Row after the last.
    """
    kind = int(law[0])
    bits = 32
    values = np.empty(256, np.uint32)
    spare = np.empty(256, np.uint32)
    first = np.empty(3, np.int64)
    last = np.empty(3, np.int64)
    for row in range(start, stop):
        for axis in range(3):
            place = _cell(sources[row, axis], origin[axis], size[axis], count[axis])
            first[axis], last[axis] = place - 1, place + 1
            if extent[axis] > 0:
                if count[axis] < 3:
                    first[axis], last[axis] = 0, count[axis] - 1
            else:
                first[axis], last[axis] = max(first[axis], 0), min(last[axis], count[axis] - 1)
        n = 0
        for a in range(first[0], last[0] + 1):
            for b in range(first[1], last[1] + 1):
                for c in range(first[2], last[2] + 1):
                    cell = ((a % count[0]) * count[1] + b % count[1]) * count[2] + c % count[2]
                    for place in range(start_of[cell], start_of[cell + 1]):
                        unit = member[place]
                        if own and unit == row:
                            continue
                        square = 0.0
                        for axis in range(3):
                            apart = abs(sources[row, axis] - targets[unit, axis])
                            if extent[axis] > 0:
                                apart = min(apart, extent[axis] - apart)
                            square += apart * apart
                        p = _probability(kind, law[1], law[2], law[3], square)
                        if p > 0 and uniform_scalar(seed, _PAIR, row, unit, 0, key) < p:
                            if write:
                                if n == values.shape[0]:
                                    longer = np.empty(2 * n, np.uint32)
                                    longer[:n] = values
                                    values, spare = longer, np.empty(2 * n, np.uint32)
                                values[n] = np.uint32(unit)
                            n += 1
        if write:
            ordered = sort_row(values, spare, n, bits)
            for k in range(n):
                target[indptr[row] + k] = ordered[k]
        else:
            indptr[row + 1] = n


@njit(cache=True, nogil=True)
def given_row(seed, key, row, probability, own, write, target):  # type: ignore[no-untyped-def]
    """Count or fill one row from given probabilities; returns the number of synapses.

    Args:
        seed: See :func:`near_rows`.
        key: See :func:`near_rows`.
        row: The source.
        probability: float64, ``(n_target,)``.
        own: See :func:`near_rows`.
        write: Whether to fill ``target``.
        target: uint16 or int32, the row's own part.
    """
    n = 0
    for unit in range(probability.shape[0]):
        p = probability[unit]
        if p > 0 and not (own and unit == row) and uniform_scalar(seed, _PAIR, row, unit, 0, key) < p:
            if write:
                target[n] = unit
            n += 1
    return n
