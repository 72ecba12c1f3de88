"""Suffix automaton of a symbol string, and the LZ76 words and previous matches that it answers in linear time.

State ``v`` stands for all substrings that end at the same places; ``first[v]`` is the earliest of these places.
``s[i..j]`` starts somewhere before ``i`` if and only if ``first`` of its state is below ``j``. Source: Blumer, Blumer,
Haussler, Ehrenfeucht, Chen and Seiferas, "The smallest automaton recognizing the subwords of a text", 1985.
Edges of two symbols lie in an array; edges of larger alphabets in a hash table, with a list for each state so that a
state can be copied. An edge is never removed and there are fewer than three a symbol, so both take linear time.
"""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["automaton_words", "binary_automaton_words", "previous_matches"]


@njit(cache=True, nogil=True)
def _build_binary(s):  # type: ignore[no-untyped-def]
    n = s.shape[0]
    following = np.full((2 * n + 2, 2), -1, np.int32)
    link = np.empty(2 * n + 2, np.int32)
    length = np.empty(2 * n + 2, np.int32)
    first = np.empty(2 * n + 2, np.int32)
    link[0], length[0], first[0] = -1, 0, -1
    states, last = 1, 0
    for j in range(n):
        symbol = s[j]
        current = states
        states += 1
        length[current], first[current] = j + 1, j
        p = last
        while p >= 0 and following[p, symbol] < 0:
            following[p, symbol] = current
            p = link[p]
        if p < 0:
            link[current] = 0
        else:
            q = following[p, symbol]
            if length[p] + 1 == length[q]:
                link[current] = q
            else:
                copy = states
                states += 1
                length[copy], first[copy], link[copy] = length[p] + 1, first[q], link[q]
                following[copy, 0] = following[q, 0]
                following[copy, 1] = following[q, 1]
                while p >= 0 and following[p, symbol] == q:
                    following[p, symbol] = copy
                    p = link[p]
                link[q] = copy
                link[current] = copy
        last = current
    return following, link, length, first


@njit(cache=True, nogil=True)
def binary_automaton_words(s):  # type: ignore[no-untyped-def]
    """Return the number of LZ76 words of a string of zeros and ones."""
    following, _, _, first = _build_binary(s)
    count = state = inside = 0
    for j in range(s.shape[0]):
        state = following[state, s[j]]
        inside = 1
        if first[state] >= j:
            count += 1
            state = inside = 0
    return count + inside


@njit(cache=True, nogil=True)
def _slot(keys, state, symbol, shift, mask):  # type: ignore[no-untyped-def]
    """Return the place of an edge in the table, or the free place where it belongs."""
    key = (np.int64(state) << np.int64(16)) | np.int64(symbol)
    slot = np.int64((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> shift)
    while keys[slot] >= 0 and keys[slot] != key:
        slot = (slot + 1) & mask
    return slot, key


@njit(cache=True, nogil=True)
def _build(s):  # type: ignore[no-untyped-def]
    n = s.shape[0]
    bits = 4
    while (1 << bits) < 6 * (n + 1):
        bits += 1
    shift, mask = np.uint64(64 - bits), (1 << bits) - 1
    keys = np.full(1 << bits, -1, np.int64)
    target = np.empty(1 << bits, np.int32)
    after = np.empty(1 << bits, np.int32)  # the next edge of the same state
    edges = np.full(2 * n + 2, -1, np.int32)  # the newest edge of a state
    link = np.empty(2 * n + 2, np.int32)
    length = np.empty(2 * n + 2, np.int32)
    first = np.empty(2 * n + 2, np.int32)
    link[0], length[0], first[0] = -1, 0, -1
    states, last = 1, 0
    for j in range(n):
        symbol = s[j]
        current = states
        states += 1
        length[current], first[current] = j + 1, j
        p, q = last, -1
        while p >= 0:
            slot, key = _slot(keys, p, symbol, shift, mask)
            if keys[slot] >= 0:
                q = target[slot]
                break
            keys[slot], target[slot], after[slot] = key, current, edges[p]
            edges[p] = slot
            p = link[p]
        if p < 0:
            link[current] = 0
        elif length[p] + 1 == length[q]:
            link[current] = q
        else:
            copy = states
            states += 1
            length[copy], first[copy], link[copy] = length[p] + 1, first[q], link[q]
            edge = edges[q]
            while edge >= 0:
                slot, key = _slot(keys, copy, keys[edge] & np.int64(65535), shift, mask)
                keys[slot], target[slot], after[slot] = key, target[edge], edges[copy]
                edges[copy] = slot
                edge = after[edge]
            while p >= 0:
                slot, _ = _slot(keys, p, symbol, shift, mask)
                if keys[slot] < 0 or target[slot] != q:
                    break
                target[slot] = copy
                p = link[p]
            link[q] = copy
            link[current] = copy
        last = current
    return keys, target, link, length, first, shift, mask


@njit(cache=True, nogil=True)
def automaton_words(s):  # type: ignore[no-untyped-def]
    """Return the number of LZ76 words of a string of any alphabet up to 65536 symbols."""
    keys, target, _, _, first, shift, mask = _build(s)
    count = state = inside = 0
    for j in range(s.shape[0]):
        slot, _ = _slot(keys, state, s[j], shift, mask)
        state = target[slot]
        inside = 1
        if first[state] >= j:
            count += 1
            state = inside = 0
    return count + inside


@njit(cache=True, nogil=True)
def previous_matches(s, out):  # type: ignore[no-untyped-def]
    """Fill for every ``i`` the length of the longest ``s[i..]`` that also starts before ``i``.

    Args:
        s: Symbols, uint16, shape (n,).
        out: int64, shape (n,).
    """
    keys, target, link, length, first, shift, mask = _build(s)
    n = s.shape[0]
    state = matched = 0
    for i in range(n):
        while i + matched < n:
            slot, _ = _slot(keys, state, s[i + matched], shift, mask)
            following = target[slot]
            if first[following] >= i + matched:
                break
            state = following
            matched += 1
        out[i] = matched
        if matched > 0:
            matched -= 1
            if state > 0 and matched <= length[link[state]]:
                state = link[state]
