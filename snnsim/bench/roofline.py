"""What this machine can do at best, measured: a large product and a large copy."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from snnsim.kernels.lanes import run_ranges
from snnsim.kernels.matrix import matrix_product

__all__ = ["Roofline", "measure_roofline"]

SIZE = 2048
COPY_BYTES = 1 << 28
ROUNDS = 7


@dataclass(frozen=True)
class Roofline:
    """Ceilings in float32.

    Attributes:
        threads: Threads.
        operations: Multiplications and additions a second in a product of 2048 x 2048 matrices.
        copy_bytes: Bytes read and written a second in a copy.
    """

    threads: int
    operations: float
    copy_bytes: float


def measure_roofline(threads: int) -> Roofline:
    """Measure both ceilings on some threads; the median of seven rounds after one to warm up."""
    draw = np.random.default_rng(0)
    a, b = (draw.standard_normal(SIZE * SIZE).astype(np.float32) for _ in range(2))
    out = np.empty(SIZE * SIZE, np.float32)
    matrix = (a, SIZE, 1, b, 1, SIZE, out, SIZE, SIZE, SIZE, SIZE, False)
    source, target = np.ones(COPY_BYTES // 4, np.float32), np.empty(COPY_BYTES // 4, np.float32)

    def copy(start: int, stop: int) -> None:
        target[start:stop] = source[start:stop]

    product = _seconds(lambda: run_ranges(matrix_product, matrix, SIZE, threads, 128))
    copied = _seconds(lambda: run_ranges(copy, (), target.size, threads, 1 << 16))
    return Roofline(threads, 2.0 * SIZE**3 / product, 2.0 * COPY_BYTES / copied)


def _seconds(call: Callable[[], object]) -> float:
    call()
    times = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)
