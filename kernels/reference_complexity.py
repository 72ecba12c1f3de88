"""Lempel-Ziv word counts in plain Python: the definition of what :mod:`snnsim.kernels.complexity` computes.

Symbols are whole numbers. Sources: Lempel and Ziv, "On the complexity of finite sequences", 1976 (exhaustive history);
Ziv and Lempel, "Compression of individual sequences via variable-rate coding", 1978 (incremental parsing).
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["longest_previous", "lz76_words", "lz78_words"]


def lz76_words(symbols: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the words of the exhaustive history.

    The word that starts at ``i`` is the shortest ``s[i..j]`` that does not occur in ``s[0..j-1]``; the occurrence may
    overlap the word. A last word that does occur is incomplete and counts too.
    """
    s = tuple(int(symbol) for symbol in symbols)
    words, i = [], 0
    while i < len(s):
        end = i + 1
        while end < len(s) and _occurs(s, i, end):
            end += 1
        words.append(s[i:end])
        i = end
    return words


def lz78_words(symbols: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the phrases of the incremental parsing: the longest known phrase and one symbol more.

    A last phrase that is known already is incomplete and counts too.
    """
    known: set[tuple[int, ...]] = set()
    words: list[tuple[int, ...]] = []
    word: tuple[int, ...] = ()
    for symbol in symbols:
        word = (*word, int(symbol))
        if word not in known:
            known.add(word)
            words.append(word)
            word = ()
    return [*words, word] if word else words


def longest_previous(symbols: Sequence[int]) -> list[int]:
    """Return for every ``i`` the length of the longest ``s[i..]`` that also starts at some ``p < i``."""
    s = tuple(int(symbol) for symbol in symbols)
    lengths = []
    for i in range(len(s)):
        best = 0
        while i + best < len(s) and _occurs(s, i, i + best + 1):
            best += 1
        lengths.append(best)
    return lengths


def _occurs(s: tuple[int, ...], i: int, end: int) -> bool:
    """Whether ``s[i:end]`` starts at some earlier place."""
    return any(s[p : p + end - i] == s[i:end] for p in range(i))
