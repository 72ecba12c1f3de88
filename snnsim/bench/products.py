"""Where a sparse input's events beat a dense product: what :data:`snnsim.nn.formulation.EVENT_DENSITY` rests on."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snnsim.nn.memory import keep_freed_memory
from snnsim.nn.products import event_row_product, row_product

__all__ = ["BreakEven", "format_break_evens", "measure_break_evens"]

SIZES = ((256, 256), (700, 256), (512, 512), (1024, 1024))
"""Sources and targets."""

ROWS = 12800
"""Steps times samples."""

DENSITIES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4)
ROUNDS = 7


@dataclass(frozen=True)
class BreakEven:
    """Times of one pair of layers.

    Attributes:
        n_in: Sources.
        n_out: Targets.
        ratios: By density, time by events over time of the dense product; product and weight gradient together.
    """

    n_in: int
    n_out: int
    ratios: tuple[float, ...]

    @property
    def density(self) -> float:
        """Return the density at which both take equally long, between the measured ones in a straight line."""
        rising = np.maximum.accumulate(self.ratios)
        return float(np.interp(1.0, rising, DENSITIES))

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**asdict(self), "densities": DENSITIES, "break_even": self.density}


def measure_break_evens(
    threads: int, sizes: Sequence[tuple[int, int]] = SIZES, rows: int = ROWS, rounds: int = ROUNDS
) -> list[BreakEven]:
    """Time products and weight gradients of random events, dense and by events in turn.

    Args:
        threads: Threads.
        sizes: Sources and targets of every pair.
        rows: Steps times samples.
        rounds: Measurements of each; the median counts.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    keep_freed_memory()
    generator = torch.Generator().manual_seed(0)
    done = []
    try:
        for n_in, n_out in sizes:
            weight = torch.randn(n_out, n_in, generator=generator).requires_grad_()
            upstream = torch.randn(rows, n_out, generator=generator)
            ratios = []
            for density in DENSITIES:
                x = (torch.rand(rows, n_in, generator=generator) < density).float()
                times: dict[Any, list[float]] = {row_product: [], event_row_product: []}
                for _ in range(rounds + 1):
                    for way, seconds in times.items():
                        seconds.append(_seconds(way, x, weight, upstream))
                dense, sparse = (statistics.median(seconds[1:]) for seconds in times.values())
                ratios.append(sparse / dense)
            done.append(BreakEven(n_in, n_out, tuple(ratios)))
    finally:
        torch.set_num_threads(before)
    return done


def _seconds(way: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor, upstream: Tensor) -> float:
    begin = time.perf_counter()
    y = way(x, weight)
    torch.autograd.grad(y, weight, upstream)
    return time.perf_counter() - begin


def format_break_evens(rows: Sequence[BreakEven]) -> str:
    """Return a table: time by events as a multiple of the dense product's, by density, and where they are equal."""
    lines = ["events / dense  " + "  ".join(f"{density:>5.0%}" for density in DENSITIES) + "   equal at"]
    for row in rows:
        times = "  ".join(f"{ratio:5.2f}" for ratio in row.ratios)
        lines.append(f"{row.n_in:>5} -> {row.n_out:<6} {times}   {row.density:6.1%}")
    return "\n".join(lines)
