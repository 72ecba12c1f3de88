"""Sums over the middle of three dimensions on a device, in float64 and in an order that the shape alone fixes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda

from snnsim.kernels.cuda_support import launch

__all__ = ["SEGMENT", "segments_of", "sum_middle", "sum_segments"]

SEGMENT = 32
"""Items that one thread adds up."""


def segments_of(n: int) -> int:
    """Return the sums of at most :data:`SEGMENT` items that ``n`` items are added up by, at least one."""
    return max(1, -(-n // SEGMENT))


@cuda.jit
def sum_segments(x: Any, n: int, units: int, segment: int, out: Any) -> None:
    """Add up stretches of ``segment`` items; one thread a (row, stretch, unit).

    Args:
        x: Numbers, shape (rows, n, units), flat.
        n: Items.
        units: Numbers of an item.
        segment: Items of a stretch.
        out: Output, float64, shape (rows, stretches, units), flat.
    """
    place = cuda.grid(1)
    if place >= out.shape[0]:
        return
    segments = max((n + segment - 1) // segment, 1)
    unit = place % units
    rest = place // units
    row = rest // segments
    first = (rest - row * segments) * segment
    total = np.float64(0.0)
    for item in range(first, min(first + segment, n)):
        total += np.float64(x[(row * n + item) * units + unit])
    out[place] = total


def sum_middle(x: Any, rows: int, n: int, units: int, part: Any, out: Any, stream: Any = 0) -> None:
    """Write the sums over the middle dimension: stretches of :data:`SEGMENT` items first, then these in order.

    Args:
        x: Numbers on the device, shape (rows, n, units), flat.
        rows: Rows.
        n: Items that are added up.
        units: Numbers of an item.
        part: Scratch on the device, float64, ``rows * segments_of(n) * units`` long.
        out: Output on the device, float64, shape (rows, units), flat.
        stream: Stream to run on.
    """
    segments = segments_of(n)
    launch(sum_segments, rows * segments * units, (x, n, units, SEGMENT, part), stream)
    launch(sum_segments, rows * units, (part, segments, units, segments, out), stream)
