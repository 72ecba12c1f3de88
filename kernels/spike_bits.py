"""Spikes as bits: what a product of spikes keeps for its backward pass, 1/32 of the numbers.

An array qualifies if every entry is 0 or one common number: spikes, or spikes after dropout. NumPy definition:
``words = np.packbits(x != 0, bitorder="little")`` seen as little-endian 64-bit words, with zeros up to a whole word.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from snnsim.kernels.lanes import run_ranges
from snnsim.kernels.simd import lanes_of, load, nonzero_bits, splat, store, where_set

__all__ = ["WORD", "pack_spikes", "pack_words", "unpack_spikes", "unpack_words"]

WORD = 64
"""Entries a word."""

WORDS = 512
"""Words a piece of work."""

Floats = npt.NDArray[np.floating[Any]]


@njit(cache=True, nogil=True)
def pack_words(x, one, words, others, start, stop):  # type: ignore[no-untyped-def]
    """Pack words ``start .. stop - 1`` of flat ``x``; sets ``others[0]`` if an entry is neither 0 nor ``one``."""
    size, lanes = x.shape[0], lanes_of(x)
    same = splat(one)
    wrong = np.uint64(0)
    for w in range(start, stop):
        first = w * 64
        word = np.uint64(0)
        if first + 64 <= size:
            for k in range(0, 64, lanes):
                entries = load(x, first + k)
                bits = np.uint64(nonzero_bits(entries))
                wrong |= bits & np.uint64(nonzero_bits(entries - same))
                word |= bits << np.uint64(k)
        else:
            for k in range(size - first):
                entry = x[first + k]
                if entry != 0:
                    word |= np.uint64(1) << np.uint64(k)
                    if entry - one != 0:
                        wrong |= np.uint64(1)
        words[w] = word
        if wrong != 0:
            break
    if wrong != 0:
        others[0] = 1  # any thread may say so, and all say the same


@njit(cache=True, nogil=True)
def unpack_words(words, one, x, start, stop):  # type: ignore[no-untyped-def]
    """Write words ``start .. stop - 1`` into flat ``x``."""
    size, lanes = x.shape[0], lanes_of(x)
    yes, no = splat(one), splat(one - one)
    for w in range(start, stop):
        word = words[w]
        first = w * 64
        if first + 64 <= size:
            for k in range(0, 64, lanes):
                store(x, first + k, where_set(word >> np.uint64(k), yes, no))
        else:
            for k in range(size - first):
                x[first + k] = one if (word >> np.uint64(k)) & np.uint64(1) else one - one


def pack_spikes(x: Floats, one: float, threads: int) -> npt.NDArray[np.uint64] | None:
    """Return the entries of ``x`` as bits, or None if one of them is neither 0 nor ``one``.

    Args:
        x: Flat and contiguous, shape (n,).
        one: The value of a spike, finite and not 0.
        threads: Threads to use; the result does not depend on it.

    Returns:
        Words, uint64, shape (ceil(n / 64),); entry k is bit ``k % 64`` of word ``k // 64``.
    """
    words = np.empty(-(-x.shape[0] // WORD), dtype=np.uint64)
    others = np.zeros(1, dtype=np.uint8)
    run_ranges(pack_words, (x, x.dtype.type(one), words, others), words.shape[0], threads, WORDS)
    return None if others[0] else words


def unpack_spikes(words: npt.NDArray[np.uint64], one: float, x: Floats, threads: int) -> None:
    """Write what :func:`pack_spikes` read into ``x``, flat and contiguous, shape (n,)."""
    run_ranges(unpack_words, (words, x.dtype.type(one), x), words.shape[0], threads, WORDS)
