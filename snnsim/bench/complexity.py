"""How the time of counting Lempel-Ziv words grows with the length, and how it compares with a plain quadratic scan."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from snnsim.kernels.complexity import count_words

__all__ = ["Growth", "format_growth", "measure_growth"]

ROUNDS = 15


@dataclass(frozen=True)
class Growth:
    """Seconds for one kind of string.

    Attributes:
        name: What the strings are.
        words: LZ76 words of the long one.
        short: Processor seconds for n symbols, the least of the rounds.
        long: Seconds for ten times as many.
        quadratic: Seconds of the plain scan on n symbols; None where it was not run.
        same: Whether the plain scan counted the same words.
    """

    name: str
    words: int
    short: float
    long: float
    quadratic: float | None = None
    same: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return the figures and both ratios."""
        faster = None if self.quadratic is None else self.quadratic / self.short
        return {**asdict(self), "growth": self.long / self.short, "faster": faster}


@njit(cache=True, nogil=True)
def quadratic_words(s):  # type: ignore[no-untyped-def]
    """Count LZ76 words as Kaspar and Schuster (1987) do: every earlier place is tried for every word."""
    n = s.shape[0]
    count = i = 0
    while i < n:
        best = 0
        for p in range(i):
            length = 0
            while i + length < n and s[p + length] == s[i + length]:
                length += 1
            best = max(best, length)
            if i + best >= n:
                break
        count += 1
        i += best + 1
    return count


def measure_growth(n: int = 100_000) -> list[Growth]:
    """Measure strings of n and of 10 n symbols, in turn on one thread, by processor time; the first is fair coins.

    Args:
        n: Symbols of the short strings.
    """
    draw = np.random.default_rng(0)
    long = np.arange(10 * n)
    kinds: dict[str, npt.NDArray[Any]] = {
        "fair coins": draw.random(10 * n) < 0.5,
        "period 2": long % 2,
        "period 7": long % 7 < 3,
        "all zeros": np.zeros(10 * n),
        "one in twenty": draw.random(10 * n) < 0.05,
    }
    rows = []
    for name, values in kinds.items():
        strings = [np.ascontiguousarray(values[:size], dtype=np.uint16) for size in (n, 10 * n)]
        least = [np.inf, np.inf]
        words = [0, 0]
        for _ in range(ROUNDS):
            for k, string in enumerate(strings):
                for _ in range(1 if k else 5):
                    offsets = np.array([0, string.size], dtype=np.int64)
                    begin = time.thread_time()
                    words[k] = int(count_words(string, offsets, 2, 76)[0])
                    least[k] = min(least[k], time.thread_time() - begin)
        quadratic, same = None, True
        if name == "fair coins":
            quadratic_words(strings[0][:100])
            begin = time.thread_time()
            same = int(quadratic_words(strings[0])) == words[0]
            quadratic = time.thread_time() - begin
        rows.append(Growth(name, words[1], least[0], least[1], quadratic, same))
    return rows


def format_growth(rows: list[Growth], n: int) -> str:
    """Return a table for people."""
    lines = [f"{'strings':<14}{f'{n:,} symbols':>18}{f'{10 * n:,}':>14}{'ratio':>8}{'words':>9}"]
    for row in rows:
        times = f"{row.short * 1e3:>15.2f} ms{row.long * 1e3:>11.2f} ms"
        lines.append(f"{row.name:<14}{times}{row.long / row.short:>8.1f}{row.words:>9}")
    for row in rows:
        if row.quadratic is not None:
            agree = "same count" if row.same else "OTHER COUNT"
            lines.append(
                f"{row.name}, {n:,} symbols: {row.quadratic / row.short:.0f} times faster than a plain quadratic scan "
                f"({row.quadratic * 1e3:.0f} ms, compiled; {agree})"
            )
    return "\n".join(lines)
