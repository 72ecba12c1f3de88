"""Synapses as the CUDA engine keeps them on the device: by target to be gathered, or by source to be scattered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.engines import Dtype
from snnsim.engines.clock_paths import Path
from snnsim.engines.clock_plan import Layout
from snnsim.engines.cuda_exact import bounds, exact, rounding
from snnsim.engines.cuda_plan import CudaPlan
from snnsim.engines.stochastic import plain
from snnsim.kernels import clock_rows, clock_tables
from snnsim.kernels.cuda_gather import SLICE
from snnsim.kernels.cuda_scatter import (
    BASE,
    DELAY_FIRST,
    LENGTH,
    ROW_COLUMNS,
    ROW_DELAY,
    TARGET_FIRST,
    WEIGHT_FIRST,
)
from snnsim.network import Network

__all__ = ["DENSE", "SCATTER_FROM", "Gathered", "Scattered", "choose", "gathered", "scattered"]

SCATTER_FROM = 2**20
"""Synapses of a port from which spikes are scattered, if they may be."""

DENSE = 0.5
"""Share of existing synapses of a port from which arrivals are gathered however many there are."""

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Gathered:
    """Synapses by target, as :func:`snnsim.kernels.cuda_gather.gather` reads them.

    Attributes:
        first: int64, one a slice of targets.
        length: int32 ``(n_ports,)``.
        source: Units, int32.
        weight: In the dtype of the run.
        delay: uint8, uint16 or int32.
        longest: The longest delay.
    """

    first: Integers
    length: npt.NDArray[np.int32]
    source: npt.NDArray[np.int32]
    weight: Array
    delay: Array
    longest: int


@dataclass(frozen=True, eq=False)
class Scattered:
    """Synapses by source, as :func:`snnsim.kernels.cuda_scatter.scatter` reads them.

    Attributes:
        unit_row: First row of each unit, int64 ``(n_units + 1,)``.
        rows: int64 ``(n_rows, ROW_COLUMNS)``.
        grids: float64 ``(n_rows, 2)``.
        targets: Pieces of one array: uint16 or int32.
        weights: Pieces of one array: float16, float32 or float64.
        delays: Pieces of one array: uint8 or uint16.
        most_rows: Most rows of one unit.
    """

    unit_row: Integers
    rows: Integers
    grids: npt.NDArray[np.float64]
    targets: list[Array]
    weights: list[Array]
    delays: list[Array]
    most_rows: int


def choose(
    network: Network, layout: Layout, dtype: Dtype, scatter_from: int, dense: float, piled: bool
) -> tuple[Flags, npt.NDArray[np.float64]]:
    """Choose the ports into which spikes are scattered, by the network alone.

    Args:
        network: The network.
        layout: It, laid out.
        dtype: Of the run.
        scatter_from: Synapses of a port from which they may be.
        dense: Share of existing synapses of a port from which they are not.
        piled: Whether more input events coincide than sums are proven for: ports of inputs are gathered then.

    Returns:
        One flag a port, and the number that rounds its weights, 0 without rounding.
    """
    ports, n_inputs = layout.common["ports"], len(network.inputs)
    flags, grids = np.zeros(ports.shape[0], np.bool_), np.zeros(ports.shape[0])
    for s in range(ports.shape[0]):
        paths = [path for path in layout.paths if path.port == s]
        size = int(ports[s, clock_rows.PORT_SIZE])
        n = pairs = 0
        for path in paths:
            n += path.weight.size if path.target is None else path.target.shape[0]
            pairs += size * path.row_delay.shape[0]
        if n < max(scatter_from, 1) or n >= dense * pairs:
            continue
        if piled and any(path.source < n_inputs for path in paths):
            continue
        unit, most = bounds(paths, size, n_inputs)
        if exact(unit, most):
            flags[s] = True
        elif dtype == "float32":
            flags[s], grids[s] = True, rounding(most)
    return flags, grids


def _joined(parts: Sequence[Array], kind: Any) -> Array:
    return np.concatenate([np.zeros(0, kind), *parts]).astype(kind, copy=False)


def _canonical(port: Integers, rank: Integers) -> Integers:
    """Return the order by port, then rank, then place: sorted by digits of 16 bits, the fast sort of NumPy."""
    order = np.arange(port.shape[0])
    for key in (rank, port):
        for shift in (0, 16):
            if shift == 0 or key.max(initial=0) >> shift:
                digit = (key[order] >> shift).astype(np.uint16)
                order = order[np.argsort(digit, kind="stable")]
    return order


def gathered(network: Network, layout: Layout, plan: CudaPlan, flags: Flags, dtype: Dtype) -> Gathered | None:
    """Return the synapses into ports that are not scattered, or None if there are none."""
    network = plain(network)
    table = layout.common["populations"]
    places = {item.name: p for p, item in enumerate(network.populations)}
    lows = {item.name: int(plan.neuron_low[p]) for p, item in enumerate(network.populations)}
    lows.update({item.name: int(low) for item, low in zip(network.inputs, plan.input_low, strict=True)})
    ports: list[Array] = []
    sources: list[Array] = []
    weights: list[Array] = []
    delays: list[Array] = []
    for item in network.projections:
        p = places[item.target]
        receptors = network.populations[p].neuron.receptors
        s = int(table[p, clock_tables.FIRST_PORT]) + (receptors.index(item.receptor) if receptors else 0)
        if flags[s]:
            continue
        synapses = item.synapses(network.dt)
        source = np.repeat(np.arange(item.shape[1], dtype=np.int32), np.diff(synapses.indptr))
        ports.append(synapses.target + np.int32(plan.port_low[s]))
        sources.append(source + np.int32(lows[item.source]))
        weights.append(synapses.weight.astype(dtype))
        delays.append(synapses.delay_steps)
    port, delay = _joined(ports, np.int64), _joined(delays, np.int64)
    if not port.size:
        return None
    longest = int(delay.max())
    order = _canonical(port, longest - delay)
    length = np.bincount(port, minlength=plan.n_ports)
    begin = np.cumsum(length) - length
    n_slices = -(-plan.n_ports // SLICE)
    deepest = np.zeros(n_slices * SLICE, np.int64)
    deepest[: plan.n_ports] = length
    deepest = deepest.reshape(n_slices, SLICE).max(axis=1)
    first = (np.cumsum(deepest) - deepest) * SLICE
    port = port[order]
    where = first[port // SLICE] + (np.arange(port.shape[0]) - begin[port]) * SLICE + port % SLICE
    total = int(deepest.sum()) * SLICE

    def spread(values: Array, kind: Any) -> Array:
        out = np.zeros(total, kind)
        out[where] = values[order]
        return out

    narrow = np.uint8 if longest < 2**8 else np.uint16 if longest < 2**16 else np.int32
    return Gathered(
        first=first,
        length=length.astype(np.int32),
        source=spread(_joined(sources, np.int32), np.int32),
        weight=spread(_joined(weights, dtype), dtype),
        delay=spread(delay, narrow),
        longest=longest,
    )


class _Pieces:
    """Arrays put one after the other, each once."""

    def __init__(self) -> None:
        self.parts: list[Array] = []
        self.first: dict[tuple[int, int], int] = {}
        self.n = 0

    def add(self, values: Array) -> int:
        """Return where an array begins."""
        key = (values.ctypes.data, values.size)
        if key not in self.first:
            self.first[key] = self.n
            self.parts.append(values)
            self.n += values.size
        return self.first[key]


def _rows(
    path: Path, size: int, base: int, targets: _Pieces, weights: _Pieces, delays: _Pieces
) -> tuple[Integers, Integers]:
    """Return the rows of a path that have synapses, and their sources."""
    n_source = path.row_delay.shape[0]
    rows = np.zeros((n_source, ROW_COLUMNS), np.int64)
    begin = np.arange(n_source) * size if path.indptr is None else path.indptr[:-1]
    rows[:, LENGTH] = size if path.indptr is None else np.diff(path.indptr)
    rows[:, TARGET_FIRST] = -1 if path.target is None else targets.add(path.target) + begin
    rows[:, WEIGHT_FIRST] = weights.add(path.weight) + begin if path.weight.ndim else -1
    rows[:, DELAY_FIRST] = -1 if path.delay is None else delays.add(path.delay) + begin
    rows[:, ROW_DELAY], rows[:, BASE] = path.row_delay, base
    source = np.flatnonzero((rows[:, LENGTH] > 0) & (path.row_delay >= 0))
    return rows[source], source


def scattered(
    network: Network, layout: Layout, plan: CudaPlan, flags: Flags, grids: npt.NDArray[np.float64]
) -> Scattered | None:
    """Return the synapses into ports that are scattered, or None if there are none."""
    order, n_inputs = layout.common["order"], len(network.inputs)
    targets, weights, delays = _Pieces(), _Pieces(), _Pieces()
    rows: list[Integers] = []
    units: list[Integers] = []
    grid: list[Array] = []
    for path in layout.paths:
        if not flags[path.port]:
            continue
        size, base = int(layout.sizes[path.owner]), int(plan.port_low[path.port])
        mine, source = _rows(path, size, base, targets, weights, delays)
        low = plan.input_low[path.source] if path.source < n_inputs else plan.neuron_low[order[path.source - n_inputs]]
        rows.append(mine)
        units.append(int(low) + source)
        shared = 0.0 if path.weight.ndim else float(path.weight)
        grid.append(np.repeat([[grids[path.port], shared]], source.shape[0], axis=0))
    if not rows:
        return None
    unit = np.concatenate(units)
    by_unit = np.argsort(unit, kind="stable")
    count = np.bincount(unit, minlength=plan.n_units)
    return Scattered(
        unit_row=np.concatenate(([0], np.cumsum(count))).astype(np.int64),
        rows=np.concatenate(rows)[by_unit],
        grids=np.concatenate(grid)[by_unit],
        targets=targets.parts,
        weights=weights.parts,
        delays=delays.parts,
        most_rows=int(count.max(initial=0)),
    )
