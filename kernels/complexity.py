"""Lempel-Ziv word counts of many symbol strings, near linear in their length.

LZ76 needs, where a word starts, the longest match that starts earlier. Binary strings are packed 64 symbols a machine
word, and all places are sorted by the next few symbols, so many that about 16 places share them. A table of the first
place of every short string answers for short matches; for longer ones the places with the same symbols lie side by
side, and the longest match has the smallest exclusive or with the next 64 symbols. The candidates are counted: strings
that use up a budget, which grows with their length only, and all larger alphabets take a suffix automaton (Blumer et
al., 1985), which is linear for every input. LZ78 walks a tree of phrases. :mod:`snnsim.kernels.reference_complexity` is
the definition.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from snnsim.kernels.complexity_automaton import automaton_words, binary_automaton_words
from snnsim.kernels.lanes import run_ranges

__all__ = ["count_words"]

BUDGET = 1
"""Candidates a symbol, and 64 symbols compared, before a string goes to the automaton."""
FEW = 64
"""Places that are compared one by one before all are sorted."""
DEEPEST = 20
"""Symbols by which places are sorted at most; a string of n symbols has about 16 candidates a key."""

_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_LOW = np.uint64(63)


@njit(cache=True, nogil=True)
def _window(packed, place):  # type: ignore[no-untyped-def]
    """Return 64 symbols from a place on, the first one in the highest bit; zeros follow the end."""
    word = place >> 6
    shift = np.uint64(place) & _LOW
    if shift == np.uint64(0):
        return packed[word]
    return (packed[word] << shift) | (packed[word + 1] >> (np.uint64(64) - shift))


@njit(cache=True, nogil=True)
def _leading_zeros(x):  # type: ignore[no-untyped-def]
    count = 0
    for shift in (32, 16, 8, 4, 2, 1):
        if x >> np.uint64(64 - shift) == np.uint64(0):
            count += shift
            x <<= np.uint64(shift)
    return count


@njit(cache=True, nogil=True)
def _pack(symbols, packed):  # type: ignore[no-untyped-def]
    n = symbols.shape[0]
    for word in range(packed.shape[0]):
        value = np.uint64(0)
        base = word << 6
        for bit in range(max(0, min(64, n - base))):
            value |= np.uint64(symbols[base + bit] & 1) << np.uint64(63 - bit)
        packed[word] = value


@njit(cache=True, nogil=True)
def _sort_places(packed, n, depth):  # type: ignore[no-untyped-def]
    """Sort all places by their first ``depth`` symbols, zeros after the end, and equal ones by place.

    First into 256 parts, then each part by itself, so that the writes stay in the cache.

    Returns:
        Places, int32 (n,), and where each key begins, int32 (2**depth + 1,).
    """
    high = min(8, depth)
    low = depth - high
    top, rest = np.uint64(64 - high), np.uint64(64 - depth)
    edges = np.zeros((1 << high) + 1, np.int64)
    for i in range(n):
        edges[np.int64(_window(packed, i) >> top) + 1] += 1
    for part in range(1 << high):
        edges[part + 1] += edges[part]
    rough = np.empty(n, np.int32)
    free = edges[:-1].copy()
    for i in range(n):
        target = np.int64(_window(packed, i) >> top)
        rough[free[target]] = i
        free[target] += 1
    places = np.empty(n, np.int32)
    begins = np.empty((1 << depth) + 1, np.int32)
    inner = np.empty(1 << low, np.int64)
    mask = np.uint64((1 << low) - 1)
    for part in range(1 << high):
        inner[:] = 0
        for k in range(edges[part], edges[part + 1]):
            inner[np.int64((_window(packed, np.int64(rough[k])) >> rest) & mask)] += 1
        total = edges[part]
        for key in range(1 << low):
            begins[(part << low) + key] = total
            total += inner[key]
            inner[key] = total - inner[key]
        for k in range(edges[part], edges[part + 1]):
            slot = np.int64((_window(packed, np.int64(rough[k])) >> rest) & mask)
            places[inner[slot]] = rough[k]
            inner[slot] += 1
    begins[1 << depth] = n
    return places, begins


@njit(cache=True, nogil=True)
def _first_places(places, begins, depth):  # type: ignore[no-untyped-def]
    """Return where each string of fewer than ``depth`` symbols starts first, at ``(1 << length) + string``."""
    size = 1 << (depth - 1)
    first = np.full(2 * size, places.shape[0], np.int32)
    for key in range(2 * size):
        if begins[key] < begins[key + 1]:
            node = (2 * size + key) >> 1
            first[node] = min(first[node], places[begins[key]])
    for node in range(size - 1, 0, -1):
        first[node] = min(first[2 * node], first[2 * node + 1])
    return first


@njit(cache=True, nogil=True)
def _binary_lz76(symbols):  # type: ignore[no-untyped-def]
    """Return the number of words of a string of zeros and ones, or -1 if the budget is used up.

    Zeros are read after the end of the string. They cannot make a match wrong: what a match says is cut at ``n - i``
    symbols, and an earlier place has more than that.
    """
    n = symbols.shape[0]
    depth = 1
    while (24 << depth) <= n and depth < DEEPEST:
        depth += 1
    packed = np.empty((n >> 6) + 3, np.uint64)
    _pack(symbols, packed)
    # the first words are compared with all places before them: a periodic string ends here, without any sorting
    places, begins = np.arange(min(n, FEW)).astype(np.int32), np.zeros(2, np.int32)
    begins[1] = places.shape[0]
    first = np.zeros(1, np.int32)
    indexed = False
    left = BUDGET * n + 64
    rest = np.uint64(64 - depth)
    count = i = 0
    while i < n:
        here = _window(packed, i)
        if i >= FEW and not indexed:
            places, begins = _sort_places(packed, n, depth)
            first = _first_places(places, begins, depth)
            indexed = True
        key = np.int64(here >> rest) if indexed else 0
        best = depth
        if not indexed:
            best = 0
        elif begins[key] == begins[key + 1] or places[begins[key]] >= i:
            best -= 1
            while best > 0 and first[(1 << best) + (key >> (depth - best))] >= i:
                best -= 1
        if best == depth or not indexed:
            nearest = _ALL  # the candidate with the longest match has the smallest difference
            k, stop = begins[key], begins[key + 1]
            while k < stop and places[k] < i:
                different = _window(packed, np.int64(places[k])) ^ here
                if different == np.uint64(0):
                    length = 64
                    while i + length < n:
                        left -= 1
                        different = _window(packed, places[k] + length) ^ _window(packed, i + length)
                        if different != np.uint64(0):
                            length += _leading_zeros(different)
                            break
                        length += 64
                    best = max(best, length)
                    if i + best >= n or left < 0:
                        break
                elif different < nearest:
                    nearest = different
                k += 1
            left -= k - begins[key]
            if left < 0:
                return -1
            if nearest != _ALL:
                best = max(best, _leading_zeros(nearest))
        count += 1
        i += best + 1
    return count


@njit(cache=True, nogil=True)
def _binary_lz78(symbols):  # type: ignore[no-untyped-def]
    n = symbols.shape[0]
    room = 64
    child = np.zeros(2 * room, np.int32)
    nodes, count, node = 1, 0, 0
    for k in range(n):
        place = 2 * node + (symbols[k] & 1)
        following = child[place]
        if following > 0:
            node = following
            continue
        if nodes == room:
            wider = np.zeros(4 * room, np.int32)
            wider[: 2 * room] = child
            child = wider
            room *= 2
        child[place] = nodes
        nodes += 1
        count += 1
        node = 0
    return count + (1 if node > 0 else 0)


@njit(cache=True, nogil=True)
def _any_lz78(symbols):  # type: ignore[no-untyped-def]
    n = symbols.shape[0]
    bits = 6
    while (1 << bits) < 2 * (n + 1):
        bits += 1
    shift = np.uint64(64 - bits)
    mask = (1 << bits) - 1
    keys = np.full(1 << bits, -1, np.int64)
    child = np.empty(1 << bits, np.int32)
    nodes, count, node = 1, 0, 0
    for k in range(n):
        key = (np.int64(node) << np.int64(16)) | np.int64(symbols[k])
        slot = np.int64((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> shift)
        while keys[slot] >= 0 and keys[slot] != key:
            slot = (slot + 1) & mask
        if keys[slot] == key:
            node = child[slot]
            continue
        keys[slot] = key
        child[slot] = nodes
        nodes += 1
        count += 1
        node = 0
    return count + (1 if node > 0 else 0)


@njit(cache=True, nogil=True)
def _count(symbols, offsets, alphabet, method, out, start, stop):  # type: ignore[no-untyped-def]
    for b in range(start, stop):
        string = symbols[offsets[b] : offsets[b + 1]]
        if method == 78:
            out[b] = _binary_lz78(string) if alphabet <= 2 else _any_lz78(string)
        elif alphabet <= 2:
            found = _binary_lz76(string)
            out[b] = found if found >= 0 else binary_automaton_words(string)
        else:
            out[b] = automaton_words(string)


def count_words(
    symbols: npt.NDArray[np.uint16], offsets: npt.NDArray[np.int64], alphabet: int, method: int, threads: int = 1
) -> npt.NDArray[np.int64]:
    """Count the words of many strings.

    Args:
        symbols: The strings one after the other, uint16, shape (total,), below ``alphabet``.
        offsets: String ``b`` is ``symbols[offsets[b]:offsets[b + 1]]``, int64, shape (strings + 1,).
        alphabet: Number of symbols, at most 65536.
        method: 76 or 78.
        threads: Threads; each string belongs to one, so the counts do not depend on their number.

    Returns:
        Numbers of words, int64, shape (strings,).
    """
    out = np.zeros(offsets.shape[0] - 1, np.int64)
    arguments: tuple[Any, ...] = (symbols, offsets, alphabet, method, out)
    run_ranges(_count, arguments, out.shape[0], threads, 1)
    return out
