"""Arrivals by scattering: every spike adds its row of synapses to the arrivals, with atomic additions in float64.

The additions come in any order. That is allowed where every partial sum is exact, because all terms are multiples of
one power of two and no sum is too large for 53 bits: then the order changes no bit. ``snnsim.engines.cuda_exact``
proves it, or rounds the weights of a float32 run to such a grid.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import cuda

from snnsim.kernels.cuda_support import times
from snnsim.kernels.cuda_trains import place

__all__ = ["BASE", "DELAY_FIRST", "LENGTH", "ROW_COLUMNS", "ROW_DELAY", "TARGET_FIRST", "WEIGHT_FIRST"]
__all__ += ["half_scales", "scatter", "scatter_listed"]

TARGET_FIRST, WEIGHT_FIRST, DELAY_FIRST, LENGTH, ROW_DELAY, BASE, ROW_COLUMNS = range(7)
"""Columns of the table of rows: where targets begin, -1 for all in turn; where weights begin, -1 if all have the row's;
where delays begin, -1 if all have the row's; synapses; the row's delay; the first target's port."""


def half_scales() -> npt.NDArray[np.float64]:
    """Return the sign and scale that belong to the upper six bits of a float16, float64 ``(64,)``.

    A float16 is its scale times the lower ten bits, with 1024 added if it is not subnormal: exactly.
    """
    exponent = np.maximum(np.arange(64) % 32, 1)
    scales: npt.NDArray[np.float64] = np.ldexp(np.where(np.arange(64) < 32, 1.0, -1.0), exponent - 25)
    return scales


@cuda.jit(device=True)
def _weight(weights: Any, halves: Any, scales: Any, halved: Any, j: Any) -> Any:
    """Return a weight as float64; float16 weights are kept as their bits in ``halves``."""
    if not halved:
        return np.float64(weights[j])
    bits = np.int64(halves[j])
    lower = bits & 1023
    if (bits >> 10) & 31:
        lower += 1024
    return times(np.float64(lower), scales[bits >> 10])


@cuda.jit(device=True)
def scatter_listed(
    arrivals: Any,
    trains: Any,
    spike_unit: Any,
    spike_when: Any,
    counter: Any,
    which: Any,
    parts: Any,
    unit_row: Any,
    rows: Any,
    grids: Any,
    targets: Any,
    weights: Any,
    halves: Any,
    scales: Any,
    delays: Any,
    halved: Any,
    reach: Any,
    n_units: Any,
    n_ports: Any,
    samples: Any,
    fast: Any,
) -> None:
    """Do what :func:`scatter` does, with all blocks of the launch."""
    for part in range(cuda.blockIdx.x, counter[which] * parts, cuda.gridDim.x):
        event = part // parts
        unit, when = np.int64(spike_unit[event]), np.int64(spike_when[event])
        b, row = when % samples, when // samples
        count = np.float64(trains[(reach + row) * n_units * samples + place(unit, b, n_units, samples, fast)])
        for r in range(unit_row[unit] + part % parts, unit_row[unit + 1], parts):
            entry = r * ROW_COLUMNS
            target_first, delay_first = rows[entry + TARGET_FIRST], rows[entry + DELAY_FIRST]
            weight_first, base, steps = rows[entry + WEIGHT_FIRST], rows[entry + BASE], rows[entry + ROW_DELAY]
            grid, weight = grids[2 * r], grids[2 * r + 1]
            for j in range(cuda.threadIdx.x, rows[entry + LENGTH], cuda.blockDim.x):
                target = base + j
                if target_first >= 0:
                    target = base + np.int64(targets[target_first + j])
                if delay_first >= 0:
                    steps = np.int64(delays[delay_first + j])
                if weight_first >= 0:
                    weight = _weight(weights, halves, scales, halved, weight_first + j)
                at = (row + steps) * n_ports * samples + place(target, b, n_ports, samples, fast)
                cuda.atomic.add(arrivals, at, times(count, (weight + grid) - grid))


@cuda.jit
def scatter(
    arrivals: Any,
    trains: Any,
    spike_unit: Any,
    spike_when: Any,
    counter: Any,
    which: Any,
    parts: Any,
    unit_row: Any,
    rows: Any,
    grids: Any,
    targets: Any,
    weights: Any,
    halves: Any,
    scales: Any,
    delays: Any,
    halved: Any,
    reach: Any,
    n_units: Any,
    n_ports: Any,
    samples: Any,
    fast: Any,
) -> None:
    """Add the synapses of listed spikes; blocks share spikes and their rows, threads the synapses of a row.

    Args:
        arrivals: Rows of ``n_ports`` targets, float64.
        trains: Rows of ``n_units`` units: how many events coincide.
        spike_unit: Units, int32.
        spike_when: ``row * samples + sample``, int32.
        counter: Numbers of listed spikes, int64.
        which: The one that counts these.
        parts: Into how many the rows of a spike are shared out.
        unit_row: First row of each unit, int64 ``(n_units + 1,)``.
        rows: Table of rows, int64 ``(. * ROW_COLUMNS,)``.
        grids: Two numbers a row, float64: one that rounds weights when added and taken away again, 0 leaves them; and
            the row's weight.
        targets: uint16 or int32.
        weights: float32 or float64.
        halves: Or float16 weights, as uint16.
        scales: :func:`half_scales`.
        delays: uint8 or uint16.
        halved: Whether weights are float16.
        reach: Row of the trains that belongs to row 0 of the arrivals.
        n_units: Units.
        n_ports: Targets in a row.
        samples: Samples.
        fast: See :func:`snnsim.kernels.cuda_trains.place`.
    """
    scatter_listed(
        arrivals,
        trains,
        spike_unit,
        spike_when,
        counter,
        which,
        parts,
        unit_row,
        rows,
        grids,
        targets,
        weights,
        halves,
        scales,
        delays,
        halved,
        reach,
        n_units,
        n_ports,
        samples,
        fast,
    )
