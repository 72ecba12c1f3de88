"""What this machine can do at best, measured: a large product, a large copy, additions at random places."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numba import njit

from snnsim.kernels.lanes import run_ranges
from snnsim.kernels.matrix import matrix_product

__all__ = ["Roofline", "measure_roofline"]

SIZE = 2048
COPY_BYTES = 1 << 28
ADDITIONS = 1 << 21
ROUNDS = 7


@dataclass(frozen=True)
class Roofline:
    """Ceilings in float32.

    Attributes:
        threads: Threads.
        operations: Multiplications and additions a second in a product of 2048 x 2048 matrices.
        copy_bytes: Bytes read and written a second in a copy.
        random_adds: Additions a second at random places of an array of 128 MiB.
    """

    threads: int
    operations: float
    copy_bytes: float
    random_adds: float


@njit(cache=True, nogil=True)
def _add_at(sums, places, start, stop):  # type: ignore[no-untyped-def]
    for n in range(start, stop):
        sums[places[n]] += 1


def measure_roofline(threads: int) -> Roofline:
    """Measure the ceilings on some threads; the median of seven rounds after one to warm up."""
    draw = np.random.default_rng(0)
    a, b = (draw.standard_normal(SIZE * SIZE).astype(np.float32) for _ in range(2))
    out = np.empty(SIZE * SIZE, np.float32)
    matrix = (a, SIZE, 1, b, 1, SIZE, out, SIZE, SIZE, SIZE, SIZE, False)
    source, target = np.ones(COPY_BYTES // 4, np.float32), np.empty(COPY_BYTES // 4, np.float32)

    def copy(start: int, stop: int) -> None:
        target[start:stop] = source[start:stop]

    product = _seconds(lambda: run_ranges(matrix_product, matrix, SIZE, threads, 128))
    copied = _seconds(lambda: run_ranges(copy, (), target.size, threads, 1 << 16))
    places = draw.integers(0, target.size // 2, ADDITIONS)
    added = _seconds(lambda: run_ranges(_add_at, (target, places), ADDITIONS, threads, 1 << 14))
    return Roofline(threads, 2.0 * SIZE**3 / product, 2.0 * COPY_BYTES / copied, ADDITIONS / added)


def _seconds(call: Callable[[], object]) -> float:
    call()
    times = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)
