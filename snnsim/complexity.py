"""Lempel-Ziv complexity of symbol strings and spike trains, and estimates of their entropy rate.

Sources: Lempel and Ziv 1976, Ziv and Lempel 1978 (the words that are counted); Amigo, Szczepanski, Wajnryb and
Sanchez-Vives, "Estimating the entropy rate of spike trains via Lempel-Ziv complexity", 2004 (its use for spikes);
Kontoyiannis, Algoet, Suhov and Wyner 1998 (match lengths); Miller 1955 (bias of the block entropy).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.kernels.complexity import count_words
from snnsim.kernels.complexity_automaton import previous_matches
from snnsim.kernels.philox import Stream, uniform

__all__ = ["Method", "block_entropy_rate", "lz76", "lz78", "lz_complexity", "lz_entropy_rate", "match_entropy_rate"]

Method = Literal["lz76", "lz78"]
Symbols = npt.ArrayLike | Sequence[npt.ArrayLike]
Counts = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

LARGEST = 1 << 16
FAIR_STRINGS = 16
"""Fair strings whose words are counted for the correction of :func:`lz_entropy_rate`."""


def lz76(symbols: Symbols, *, alphabet: int | None = None, threads: int = 1) -> Counts:
    """Count the words of the exhaustive history (Lempel and Ziv, 1976).

    A word is the shortest string that does not occur, overlaps allowed, in what was read before its last symbol; an
    incomplete last word counts 1.

    Args:
        symbols: Whole numbers (or booleans) from 0 on: one string, shape (n,), a batch, shape (strings, n), or a list
            of strings of any lengths.
        alphabet: Number of symbols, 1 to 65536; default the highest symbol plus one.
        threads: Threads; the counts do not depend on it.

    Returns:
        Numbers of words, int64, shape () for one string, else (strings,).

    Raises:
        InputError: Symbols that are not whole numbers in [0, alphabet).

    >>> int(lz76([0, 0, 0, 1, 1, 0, 1, 0, 0, 1, 0, 0, 0, 1, 0, 1]))
    6
    """
    return _counts(symbols, alphabet, "lz76", threads)


def lz78(symbols: Symbols, *, alphabet: int | None = None, threads: int = 1) -> Counts:
    """Count the phrases of the incremental parsing (Ziv and Lempel, 1978); arguments as in :func:`lz76`.

    >>> int(lz78([0, 0, 0, 1, 1, 0, 1, 0, 0, 1, 0, 0, 0, 1, 0, 1]))
    7
    """
    return _counts(symbols, alphabet, "lz78", threads)


def lz_complexity(
    symbols: Symbols,
    method: Method = "lz76",
    normalised: bool = True,
    *,
    alphabet: int | None = None,
    threads: int = 1,
) -> Float64:
    """Return the Lempel-Ziv complexity ``C = c log_k(n) / n`` of strings of n symbols.

    C goes to the entropy rate in units of ``log2(k)`` bits (k = 2: bits a symbol), from above and slowly, with LZ78
    far slower than with LZ76.

    Args:
        symbols: As in :func:`lz76`.
        method: Which words are counted.
        normalised: False gives the count c itself.
        alphabet: k, at least 2 for the logarithm; default the highest symbol of all strings plus one, at least 2.
        threads: Threads.

    Returns:
        float64, shape () or (strings,); 0 for strings of one symbol or none, whose logarithm is no scale.
    """
    counts = _counts(symbols, alphabet, method, threads).astype(np.float64)
    if not normalised:
        return counts
    lengths, k = _shape(symbols, alphabet)
    return counts * _scale(lengths, k)


def lz_entropy_rate(
    symbols: Symbols,
    correction: Literal["none", "fair"] = "fair",
    *,
    alphabet: int | None = None,
    threads: int = 1,
) -> Float64:
    """Estimate the entropy rate, bits a symbol, from the words of LZ76.

    ``none``: ``h = c log2(n) / n`` (Amigo et al. 2004), too high for short strings. ``fair``:
    ``h = log2(k) c / mean c'``, with ``c'`` the words of 16 strings of the same length of independent, equally likely
    symbols. It is unbiased for such strings by construction; it is this package's own correction, in the manner of the
    usual normalisation by shuffled strings, and comes from no paper.

    Args:
        symbols: As in :func:`lz76`.
        correction: Which estimate.
        alphabet: k; default the highest symbol plus one, at least 2.
        threads: Threads.

    Returns:
        float64, shape () or (strings,).
    """
    if correction not in ("none", "fair"):
        raise InputError(f"correction: expected 'none' or 'fair', got {correction!r}")
    lengths, k = _shape(symbols, alphabet)
    counts = _counts(symbols, alphabet, "lz76", threads).astype(np.float64)
    if correction == "none":
        return counts * _scale(lengths, k) * math.log2(k)
    fair = np.array([_fair_words(int(n), k) for n in lengths.reshape(-1)]).reshape(lengths.shape)
    return np.asarray(math.log2(k) * counts / np.maximum(fair, 1.0))


def match_entropy_rate(symbols: npt.ArrayLike) -> float:
    """Estimate the entropy rate of one string, bits a symbol, from the lengths of its matches in its past.

    ``1 / h = mean over i of (L_i + 1) / log2(i + 1)``, with ``L_i`` the longest match of what starts at ``i >= 1`` with
    what starts earlier, overlaps allowed (Kontoyiannis et al. 1998, growing window). Matches that the end of the string
    cuts short are left out.

    Args:
        symbols: Whole numbers from 0 on, shape (n,).

    Returns:
        Bits a symbol; 0 where every match reaches the end, as in periodic strings.
    """
    flat, offsets, _, _ = _flat(symbols, None)
    if offsets.size != 2:
        raise InputError(f"match_entropy_rate: expected one string, got {offsets.size - 1}; call it for each")
    lengths = np.zeros(flat.size, np.int64)
    previous_matches(flat, lengths)
    i = np.arange(flat.size)
    whole = (i >= 1) & (i + lengths < flat.size)
    if not whole.any() or 2 * np.count_nonzero(whole) < flat.size:
        return 0.0
    return float(1.0 / np.mean((lengths[whole] + 1) / np.log2(i[whole] + 1)))


def block_entropy_rate(symbols: npt.ArrayLike, length: int | None = None, *, corrected: bool = True) -> float:
    """Estimate the entropy rate of one string, bits a symbol, from how often its blocks occur.

    ``h = H(m) - H(m - 1)`` with the entropies of overlapping blocks; each has Miller's correction
    ``(different blocks - 1) / (2 N ln 2)`` added (Miller 1955).

    Args:
        symbols: Whole numbers from 0 on, shape (n,).
        length: m, at least 1; default half the logarithm of n to the base of the alphabet.
        corrected: Add Miller's correction.
    """
    flat, offsets, k, _ = _flat(symbols, None)
    if offsets.size != 2 or flat.size < 2:
        raise InputError("block_entropy_rate: expected one string of at least 2 symbols")
    m = max(1, int(math.log(flat.size) / math.log(max(k, 2)) / 2)) if length is None else int(length)
    if not 1 <= m <= flat.size or m * math.log2(max(k, 2)) > 62:
        raise InputError(f"length: expected 1 to {int(62 / math.log2(max(k, 2)))} symbols a block, got {length}")

    def entropy(size: int) -> float:
        if size == 0:
            return 0.0
        keys = np.zeros(flat.size - size + 1, np.int64)
        for shift in range(size):
            keys = keys * max(k, 2) + flat[shift : shift + keys.size]
        counts = np.unique(keys, return_counts=True)[1]
        p = counts / keys.size
        more = (counts.size - 1) / (2 * keys.size * math.log(2)) if corrected else 0.0
        return float(-np.sum(p * np.log2(p)) + more)

    return entropy(m) - entropy(m - 1)


def _flat(symbols: Symbols, alphabet: int | None) -> tuple[npt.NDArray[np.uint16], Counts, int, bool]:
    """Return all strings in one array, where each begins, the size of the alphabet, and whether it is a batch."""
    ragged = isinstance(symbols, (list, tuple)) and len(symbols) > 0 and not np.isscalar(symbols[0])
    try:
        parts = [np.asarray(part) for part in symbols] if ragged else []  # type: ignore[union-attr]
        parts = [part if part.size else part.astype(np.uint16) for part in parts]  # an empty list is of floats
        if ragged and any(part.ndim != 1 for part in parts):
            ragged, symbols = False, np.asarray(symbols)
    except ValueError:
        raise InputError("symbols: expected one string, or strings of shape (n,) each, got nested lists") from None
    if ragged:
        values = np.concatenate(parts)
        offsets = np.concatenate([[0], np.cumsum([part.size for part in parts])]).astype(np.int64)
    else:
        values = np.asarray(symbols)
        if values.ndim not in (1, 2):
            raise InputError(f"symbols: expected shape (n,) or (strings, n), got {values.shape}")
        rows = 1 if values.ndim == 1 else values.shape[0]
        offsets = np.arange(rows + 1, dtype=np.int64) * values.shape[-1]
        ragged = values.ndim == 2
        values = values.reshape(-1)
    if values.dtype.kind not in "iub" and values.size:
        raise InputError(f"symbols: expected whole numbers, got {values.dtype}; cast counts with .astype(int)")
    highest = int(values.max()) if values.size else 0
    if alphabet is not None and (isinstance(alphabet, bool) or not isinstance(alphabet, (int, np.integer))):
        raise InputError(f"alphabet: expected a whole number of symbols, got {alphabet!r}")
    size = highest + 1 if alphabet is None else int(alphabet)
    if not 1 <= size <= LARGEST:
        raise InputError(f"alphabet: expected 1 to {LARGEST} symbols, got {size}; number your symbols from 0 on")
    if values.size and (int(values.min()) < 0 or highest >= size):
        raise InputError(f"symbols: expected 0 to {size - 1}, got {values.min()} to {highest}")
    return np.ascontiguousarray(values, dtype=np.uint16), offsets, size, ragged


def _counts(symbols: Symbols, alphabet: int | None, method: Method, threads: int) -> Counts:
    if method not in ("lz76", "lz78"):
        raise InputError(f"method: expected 'lz76' or 'lz78', got {method!r}")
    if isinstance(threads, bool) or not isinstance(threads, (int, np.integer)) or threads < 1:
        raise InputError(f"threads: expected at least 1, got {threads}")
    flat, offsets, size, batch = _flat(symbols, alphabet)
    counts = count_words(flat, offsets, size, 76 if method == "lz76" else 78, threads)
    return counts if batch else counts.reshape(())


def _shape(symbols: Symbols, alphabet: int | None) -> tuple[Counts, int]:
    _, offsets, size, batch = _flat(symbols, alphabet)
    lengths = np.diff(offsets)
    return (lengths if batch else lengths.reshape(())), max(size, 2)


def _scale(lengths: Counts, k: int) -> Float64:
    n = np.maximum(lengths, 1).astype(np.float64)
    return np.asarray(np.log2(n) / (math.log2(k) * n))


@lru_cache(maxsize=256)
def _fair_words(n: int, k: int) -> float:
    """Return the mean number of words of fair strings of ``n`` symbols out of ``k``."""
    draws = uniform(0, Stream.SOURCE, np.arange(FAIR_STRINGS)[:, None], np.arange(n)[None, :], k, 9)
    symbols = np.minimum((draws * k).astype(np.uint16), k - 1)
    return float(lz76(symbols, alphabet=k).mean())
