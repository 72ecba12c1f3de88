"""Random synapses by source, from numbers that depend on nothing but what they are for.

Every draw is a Philox number of ``(source or target, draw, attempt, projection)``, so any thread may compute it, and
compute it again: rows are counted by drawing and filled by drawing the same again, which needs no second copy. All
kernels take a range ``start .. stop`` and write what belongs to it only. Whole numbers are drawn without bias, by
multiplication with rejection (Lemire, "Fast random integer generation in an interval", 2019).

Rows are sorted by target. ``own`` says that source and target are one population and nobody may reach itself: then
one number less is drawn from and the own one is stepped over.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from snnsim.kernels.philox import Stream, philox_words
from snnsim.kernels.random_laws import NONE, fill_law

__all__ = [
    "all_rows",
    "bounded_rows",
    "count_sources",
    "distinct_rows",
    "draw_values",
    "gap_rows",
    "place_columns",
    "sort_edges",
    "sort_row",
]

TOGETHER = 512
"""Synapses whose random words are made in one loop of vector instructions."""

_MASK = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_RANGE = np.uint64(2**32)
_ROW = int(Stream.CONNECT_ROW)
_COLUMN = int(Stream.CONNECT_COLUMN)
_TOTAL = int(Stream.CONNECT_TOTAL)
_VALUE = int(Stream.CONNECT_VALUE)


@njit(cache=True, nogil=True)
def _bounded(word, limit, unit, draw, key, seed, stream):  # type: ignore[no-untyped-def]
    """Return a whole number below ``limit`` (uint64, at most 2**32); draws again where ``word`` is refused."""
    product = word * limit
    low = product & _MASK
    if low < limit:
        refused = (_RANGE - limit) % limit
        attempt = 1
        while low < refused:
            product = philox_words(unit, draw, attempt, key, seed, stream)[0] * limit
            low = product & _MASK
            attempt += 1
    return product >> _SHIFT


@njit(cache=True, nogil=True)
def _draw(out, n, limit, unit, key, seed, stream):  # type: ignore[no-untyped-def]
    """Fill ``out[:n]`` (uint32) with whole numbers below ``limit``."""
    bound = np.uint64(limit)
    k = 0
    while k < n:
        words = philox_words(unit, k >> 2, 0, key, seed, stream)
        for word in words:
            if k < n:
                out[k] = np.uint32(_bounded(word, bound, unit, k, key, seed, stream))
            k += 1


@njit(cache=True, nogil=True)
def _draw_distinct(out, n, limit, unit, key, seed, stream, seen, mark):  # type: ignore[no-untyped-def]
    """Fill ``out[:n]`` with different whole numbers below ``limit`` (Floyd's subset); ``seen[x] == mark``: taken."""
    k = 0
    while k < n:
        words = philox_words(unit, k >> 2, 0, key, seed, stream)
        for word in words:
            if k < n:
                last = limit - n + k
                pick = np.int64(_bounded(word, np.uint64(last + 1), unit, k, key, seed, stream))
                if seen[pick] == mark:
                    pick = last
                seen[pick] = mark
                out[k] = np.uint32(pick)
            k += 1


@njit(cache=True, nogil=True)
def sort_row(values, spare, n, bits):  # type: ignore[no-untyped-def]
    """Sort ``values[:n]`` (uint32, below ``2**bits``) by bytes; return the one of the two arrays that holds them."""
    if n <= 24:
        for i in range(1, n):
            value = values[i]
            j = i
            while j > 0 and values[j - 1] > value:
                values[j] = values[j - 1]
                j -= 1
            values[j] = value
        return values
    place = np.empty(256, np.int64)
    shift = 0
    while shift < bits:
        place[:] = 0
        by = np.uint32(shift)
        for i in range(n):
            place[(values[i] >> by) & np.uint32(255)] += 1
        total = 0
        for digit in range(256):
            count = place[digit]
            place[digit] = total
            total += count
        for i in range(n):
            digit = (values[i] >> by) & np.uint32(255)
            spare[place[digit]] = values[i]
            place[digit] += 1
        values, spare = spare, values
        shift += 8
    return values


@njit(cache=True, nogil=True)
def _bits(limit):  # type: ignore[no-untyped-def]
    bits = 0
    while (np.int64(1) << bits) < limit:
        bits += 1
    return bits


@njit(cache=True, nogil=True)
def _longest(indptr, start, stop):  # type: ignore[no-untyped-def]
    longest = 0
    for row in range(start, stop):
        longest = max(longest, indptr[row + 1] - indptr[row])
    return longest


@njit(cache=True, nogil=True)
def _write(values, n, own, row, target, begin):  # type: ignore[no-untyped-def]
    for k in range(n):
        value = np.int64(values[k])
        if own and value >= row:
            value += 1
        target[begin + k] = value


@njit(cache=True, nogil=True)
def bounded_rows(seed, key, n_target, own, indptr, target, start, stop):  # type: ignore[no-untyped-def]
    """Fill rows with targets drawn with replacement.

    Args:
        seed: First word of the key of the random numbers.
        key: The projection, last word of the counter.
        n_target: Number of targets.
        own: Whether a source must not reach the target of its own number.
        indptr: Rows, int64, ``(n_source + 1,)``.
        target: uint16 or int32, ``(nnz,)``; written.
        start: First row.
        stop: Row after the last.
    """
    limit = n_target - 1 if own else n_target
    longest = _longest(indptr, start, stop)
    values, spare = np.empty(longest, np.uint32), np.empty(longest, np.uint32)
    bits = _bits(limit)
    for row in range(start, stop):
        n = indptr[row + 1] - indptr[row]
        _draw(values, n, limit, row, key, seed, _ROW)
        _write(sort_row(values, spare, n, bits), n, own, row, target, indptr[row])


@njit(cache=True, nogil=True)
def distinct_rows(seed, key, n_target, own, indptr, target, start, stop):  # type: ignore[no-untyped-def]
    """Fill rows with different targets; arguments as in :func:`bounded_rows`."""
    limit = n_target - 1 if own else n_target
    longest = _longest(indptr, start, stop)
    values, spare = np.empty(longest, np.uint32), np.empty(longest, np.uint32)
    seen = np.full(limit, -1, np.int32)
    bits = _bits(limit)
    for row in range(start, stop):
        n = indptr[row + 1] - indptr[row]
        _draw_distinct(values, n, limit, row, key, seed, _ROW, seen, row)
        _write(sort_row(values, spare, n, bits), n, own, row, target, indptr[row])


@njit(cache=True, nogil=True)
def all_rows(n_target, own, indptr, target, start, stop):  # type: ignore[no-untyped-def]
    """Fill rows with all targets; arguments as in :func:`bounded_rows`."""
    for row in range(start, stop):
        begin = indptr[row]
        for k in range(indptr[row + 1] - begin):
            target[begin + k] = k + 1 if own and k >= row else k


@njit(cache=True, nogil=True)
def gap_rows(seed, key, n_target, own, scale, write, indptr, target, start, stop):  # type: ignore[no-untyped-def]
    """Count or fill rows whose pairs are connected independently with one probability.

    The gap before the next target is geometric: ``floor(log(u) / log(1 - p))``.

    Args:
        seed: See :func:`bounded_rows`.
        key: See :func:`bounded_rows`.
        n_target: See :func:`bounded_rows`.
        own: See :func:`bounded_rows`.
        scale: ``1 / log(1 - p)``.
        write: True: fill ``target``. False: write each row's number of synapses to ``indptr[row + 1]``.
        indptr: Rows, see ``write``.
        target: See :func:`bounded_rows`.
        start: First row.
        stop: Row after the last.
    """
    limit = n_target - 1 if own else n_target
    for row in range(start, stop):
        begin = indptr[row] if write else 0
        n = 0
        place = 0
        block = 0
        inside = True
        while inside:
            x0, x1, x2, x3 = philox_words(row, block, 0, key, seed, _ROW)
            block += 1
            for half in range(2):
                a, b = (x0, x1) if half == 0 else (x2, x3)
                whole = np.float64(a >> np.uint64(5)) * 67108864.0 + np.float64(b >> np.uint64(6))
                gap = np.floor(math.log(1.0 - whole * (1.0 / 9007199254740992.0)) * scale)
                if gap >= limit - place:
                    inside = False
                    break
                place += int(gap)
                if write:
                    target[begin + n] = place + 1 if own and place >= row else place
                n += 1
                place += 1
        if not write:
            indptr[row + 1] = n


@njit(cache=True, nogil=True)
def place_columns(seed, key, n_source, degree, distinct, own, edges, cursor, write, indptr, target, start, stop):  # type: ignore[no-untyped-def]
    """Count or place the synapses of targets that each have ``degree`` sources.

    Args:
        seed: See :func:`bounded_rows`.
        key: See :func:`bounded_rows`.
        n_source: Number of sources.
        degree: Synapses of every target.
        distinct: Whether the sources of a target differ.
        own: See :func:`bounded_rows`.
        edges: Blocks of consecutive targets: block ``b`` is ``edges[b] : edges[b + 1]``.
        cursor: int32, ``(n_blocks, n_source)``: next place of a block in each row; counted up.
        write: Whether to fill ``target``; else only ``cursor`` is counted up.
        indptr: Rows, used if ``write``.
        target: See :func:`bounded_rows`.
        start: First block.
        stop: Block after the last.
    """
    limit = n_source - 1 if own else n_source
    values = np.empty(degree, np.uint32)
    seen = np.full(limit if distinct else 0, -1, np.int32)
    for block in range(start, stop):
        for unit in range(edges[block], edges[block + 1]):
            if distinct:
                _draw_distinct(values, degree, limit, unit, key, seed, _COLUMN, seen, unit)
            else:
                _draw(values, degree, limit, unit, key, seed, _COLUMN)
            for k in range(degree):
                row = np.int64(values[k])
                if own and row >= unit:
                    row += 1
                if write:
                    target[indptr[row] + cursor[block, row]] = unit
                cursor[block, row] += 1


@njit(cache=True, nogil=True)
def count_sources(seed, key, n_source, edges, counts, start, stop):  # type: ignore[no-untyped-def]
    """Count how many of the synapses of each block have which source.

    Args:
        seed: See :func:`bounded_rows`.
        key: See :func:`bounded_rows`.
        n_source: Number of sources.
        edges: Blocks of consecutive synapses, whose inner edges are multiples of 4.
        counts: int64, ``(n_blocks, n_source)``, zeros; written.
        start: First block.
        stop: Block after the last.
    """
    limit = np.uint64(n_source)
    for block in range(start, stop):
        k = edges[block]
        while k < edges[block + 1]:
            words = philox_words((k >> 2) & 0xFFFFFFFF, k >> 34, 0, key, seed, _TOTAL)
            for word in words:
                if k < edges[block + 1]:
                    row = _bounded(word, limit, k & 0xFFFFFFFF, k >> 32, key, seed, _TOTAL)
                    counts[block, np.int64(row)] += 1
                k += 1


@njit(cache=True, nogil=True)
def _again(law, unit, place, key, seed, later, words, out):  # type: ignore[no-untyped-def]
    """Draw a value that lies outside its bounds again; ``later`` says which half of the random words is its own."""
    attempt = 1
    value = law[3] - 1.0
    while not law[3] <= value <= law[4]:
        x0, x1, x2, x3 = philox_words(unit, place, attempt, key, seed, _VALUE)
        words[0, 0], words[1, 0] = np.int64(x2 if later else x0), np.int64(x3 if later else x1)
        fill_law(int(law[0]), law[1], law[2], law[5], words[0], words[1], 1, out)
        value = out[0]
        attempt += 1
    return value


# LLVM finds it too long to inline by itself, and a loop with a call in it gets no vector instructions.
_inline_words = njit(inline="always")(philox_words.py_func)


@njit(cache=True, nogil=True)
def _words(units, places, key, seed, n, w0, w1, w2, w3):  # type: ignore[no-untyped-def]
    for k in range(n):
        x0, x1, x2, x3 = _inline_words(units[k], places[k], 0, key, seed, _VALUE)
        w0[k], w1[k], w2[k], w3[k] = np.int64(x0), np.int64(x1), np.int64(x2), np.int64(x3)


@njit(cache=True, nogil=True)
def draw_values(seed, key, indptr, weight_law, delay_law, begin, weight, delay):  # type: ignore[no-untyped-def]
    """Draw weights and delays of consecutive synapses, each again until it lies inside its bounds.

    Args:
        seed: See :func:`bounded_rows`.
        key: See :func:`bounded_rows`.
        indptr: Rows.
        weight_law: float64 ``(kind, a, b, low, high, scale)``, see :func:`snnsim.kernels.random_laws.fill_law`; NONE
            draws nothing.
        delay_law: The same for delays.
        begin: First synapse.
        weight: float64, ``(n,)``; written.
        delay: float64, ``(n,)``; written.
    """
    n = max(weight.shape[0], delay.shape[0])
    row = np.searchsorted(indptr, begin, side="right") - 1
    units, places = np.empty(TOGETHER, np.uint64), np.empty(TOGETHER, np.uint64)
    words = np.empty((4, TOGETHER), np.int64)
    one, number = np.empty((2, 1), np.int64), np.empty(1)
    w0, w1, w2, w3 = words[0], words[1], words[2], words[3]
    for first in range(0, n, TOGETHER):
        count = min(TOGETHER, n - first)
        for k in range(count):
            while begin + first + k >= indptr[row + 1]:
                row += 1
            units[k] = np.uint64(row)
            places[k] = np.uint64(begin + first + k - indptr[row])
        _words(units, places, key, seed, count, w0, w1, w2, w3)
        for later in range(2):
            law = delay_law if later else weight_law
            out = delay if later else weight
            if int(law[0]) == NONE:
                continue
            part = out[first : first + count]
            a, b = (w2, w3) if later else (w0, w1)
            fill_law(int(law[0]), law[1], law[2], law[5], a, b, count, part)
            for k in range(count):
                if not law[3] <= part[k] <= law[4]:
                    part[k] = _again(law, units[k], places[k], key, seed, later, one, number)


@njit(cache=True, nogil=True)
def sort_edges(source, target, n_source, n_target, order, spare, indptr):  # type: ignore[no-untyped-def]
    """Write the order of edges by source, then target, then place in the list, and the rows.

    Args:
        source: Whole numbers below ``n_source``, ``(n,)``.
        target: Whole numbers below ``n_target``, ``(n,)``.
        n_source: Number of sources.
        n_target: Number of targets.
        order: Whole numbers, ``(n,)``; written.
        spare: Like ``order``; overwritten.
        indptr: int64, ``(n_source + 1,)``, zeros; written.
    """
    n = source.shape[0]
    place = np.zeros(n_target + 1, np.int64)
    for k in range(n):
        place[target[k] + 1] += 1
    for j in range(n_target):
        place[j + 1] += place[j]
    for k in range(n):
        spare[place[target[k]]] = k
        place[target[k]] += 1
    for k in range(n):
        indptr[source[k] + 1] += 1
    for j in range(n_source):
        indptr[j + 1] += indptr[j]
    following = indptr[:n_source].copy()
    for k in range(n):
        edge = spare[k]
        order[following[source[edge]]] = edge
        following[source[edge]] += 1
