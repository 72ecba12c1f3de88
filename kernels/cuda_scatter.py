"""Arrivals by scattering: every spike adds its row of synapses to the arrivals, with atomic additions in float64.

The additions come in any order. That is allowed where every partial sum is exact, because all terms are multiples of
one power of two and no sum is too large for 53 bits: then the order changes no bit. ``snnsim.engines.cuda_exact``
proves it, or rounds the weights of a float32 run to such a grid.

:func:`run_circle` takes a component of populations through many short windows in one launch. Where the shortest delay
is a step or a few, a window holds little work and launching its kernels one after the other would take longer than the
work. Here blocks wait for one another after each phase. They must all be on the device at once: no more blocks may be
launched than it has multiprocessors. The phases are those of the other kernels, and nothing depends on the number of
blocks and threads. It stands in this file because of the simulator, in which a function that reads ``cuda`` may only be
called from a kernel of its own file.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import cuda

from snnsim.kernels.cuda_gather import gather_item
from snnsim.kernels.cuda_laws import advance_item, receive_item
from snnsim.kernels.cuda_support import SIMULATED, times
from snnsim.kernels.cuda_trains import place

__all__ = ["BASE", "DELAY_FIRST", "LENGTH", "ROW_COLUMNS", "ROW_DELAY", "TARGET_FIRST", "WEIGHT_FIRST"]
__all__ += ["CIRCLE_THREADS", "STAGE_COLUMNS", "half_scales", "list_spikes", "run_circle", "scatter"]

TARGET_FIRST, WEIGHT_FIRST, DELAY_FIRST, LENGTH, ROW_DELAY, BASE, ROW_COLUMNS = range(7)
"""Columns of the table of rows: where targets begin, -1 for all in turn; where weights begin, -1 if all have the row's;
where delays begin, -1 if all have the row's; synapses; the row's delay; the first target's port."""

CIRCLE_THREADS = 2 if SIMULATED else 256
"""Threads of a block: as many as a multiprocessor starts whatever registers they take. Its registers are four parts,
and a warp lies whole in one of them: of the largest warps each part holds two."""

LOW, HIGH, FIRST_PORT, LATE_PORT, LAST_PORT, STAGE_COLUMNS = range(6)
"""Columns of the table of stages: first neuron; one past the last; first port; first late port; one past the last."""


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
def _list_item(
    i: Any,
    trains: Any,
    unit_row: Any,
    spike_unit: Any,
    spike_when: Any,
    counter: Any,
    which: Any,
    low: Any,
    high: Any,
    begin: Any,
    end: Any,
    reach: Any,
    n_units: Any,
    samples: Any,
    fast: Any,
) -> None:
    """List the spikes of the ``i``-th neuron and sample of :func:`list_spikes`."""
    if fast:
        b, n = i % samples, low + i // samples
    else:
        n, b = low + i % (high - low), i // (high - low)
    if unit_row[n + 1] > unit_row[n]:
        for row in range(begin, end):
            if trains[(reach + row) * n_units * samples + place(n, b, n_units, samples, fast)] != 0:
                entry = cuda.atomic.add(counter, which, 1)
                spike_unit[entry] = n
                spike_when[entry] = row * samples + b


@cuda.jit
def list_spikes(
    trains: Any,
    unit_row: Any,
    spike_unit: Any,
    spike_when: Any,
    counter: Any,
    which: Any,
    low: Any,
    high: Any,
    begin: Any,
    end: Any,
    reach: Any,
    n_units: Any,
    samples: Any,
    fast: Any,
) -> None:
    """List the spikes of some neurons in some rows that have synapses to be scattered; a thread a neuron and sample.

    Args:
        trains: Rows of ``n_units`` units, neurons first.
        unit_row: First row of each unit, int64 ``(n_units + 1,)``.
        spike_unit: Filled with the neurons, in any order, int32.
        spike_when: Filled with ``row * samples + sample``, int32.
        counter: ``counter[which]`` counts them, int64, 0 before.
        which: See above.
        low: First neuron.
        high: One past the last.
        begin: First row.
        end: One past the last.
        reach: Row of the trains that belongs to row 0.
        n_units: Units.
        samples: Samples.
        fast: See :func:`snnsim.kernels.cuda_trains.place`.
    """
    i = cuda.grid(1)
    if i < (high - low) * samples:
        _list_item(
            *(i, trains, unit_row, spike_unit, spike_when, counter, which, low, high, begin, end),
            *(reach, n_units, samples, fast),
        )


@cuda.jit(device=True)
def _scatter_listed(
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
    _scatter_listed(
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


@cuda.jit(device=True)
def _meet(counter: Any, barrier: Any, turn: Any) -> None:
    """Wait until all threads of all blocks are here for the ``turn``-th time; what they wrote can be read then."""
    cuda.syncthreads()
    if cuda.threadIdx.x == 0:
        cuda.threadfence()
        cuda.atomic.add(counter, barrier, 1)
        while cuda.atomic.add(counter, barrier, 0) < turn * cuda.gridDim.x:
            pass
        cuda.threadfence()
    cuda.syncthreads()


@cuda.jit
def run_circle(
    values: Any,
    release: Any,
    arrivals: Any,
    trains: Any,
    first: Any,
    length: Any,
    source: Any,
    weight: Any,
    delay: Any,
    numbers: Any,
    facts: Any,
    noise: Any,
    n_noise: Any,
    counts: Any,
    noise_weights: Any,
    record: Any,
    columns: Any,
    n_columns: Any,
    unit_row: Any,
    spike_unit: Any,
    spike_when: Any,
    counter: Any,
    which: Any,
    barrier: Any,
    rows: Any,
    grids: Any,
    targets: Any,
    weights: Any,
    halves: Any,
    scales: Any,
    delays: Any,
    halved: Any,
    parts: Any,
    first_step: Any,
    n_steps: Any,
    begun: Any,
    stages: Any,
    n_stages: Any,
    window: Any,
    n_rows: Any,
    gathers: Any,
    scatters: Any,
    late: Any,
    reach: Any,
    n_neurons: Any,
    n_units: Any,
    n_ports: Any,
    samples: Any,
    fast: Any,
) -> None:
    """Run all windows of a chunk.

    Args:
        values: As for :func:`snnsim.kernels.cuda_laws.advance`, and so on.
        release: See there.
        arrivals: See there.
        trains: See there.
        first: As for :func:`snnsim.kernels.cuda_gather.gather`, and so on.
        length: See there.
        source: See there.
        weight: See there.
        delay: See there.
        numbers: As for :func:`snnsim.kernels.cuda_laws.advance`, and so on.
        facts: See there.
        noise: See there.
        n_noise: See there.
        counts: See there.
        noise_weights: See there.
        record: See there.
        columns: See there.
        n_columns: See there.
        unit_row: As for :func:`list_spikes`, and so on.
        spike_unit: See there.
        spike_when: See there.
        counter: int64, zeros from ``which`` on, one a window and stage, and at ``barrier``.
        which: See above.
        barrier: See above.
        rows: As for :func:`scatter`, and so on.
        grids: See there.
        targets: See there.
        weights: See there.
        halves: See there.
        scales: See there.
        delays: See there.
        halved: See there.
        parts: See there.
        first_step: As for :func:`snnsim.kernels.cuda_laws.advance`, and so on.
        n_steps: See there.
        begun: See there.
        stages: Table of stages, int64 ``(n_stages * STAGE_COLUMNS,)``.
        n_stages: Stages.
        window: Steps of a window.
        n_rows: Steps of the chunk.
        gathers: Whether any arrivals are gathered.
        scatters: Whether any spikes are scattered.
        late: Whether some populations take their arrivals after all have fired.
        reach: As for :func:`snnsim.kernels.cuda_laws.advance`, and so on.
        n_neurons: See there.
        n_units: See there.
        n_ports: See there.
        samples: See there.
        fast: See there.
    """
    me, everybody = cuda.grid(1), cuda.gridsize(1)
    turn = 0
    for begin in range(0, n_rows, window):
        end = begin + window
        if end > n_rows:
            end = n_rows
        for stage in range(n_stages):
            low, high = stages[stage * STAGE_COLUMNS + LOW], stages[stage * STAGE_COLUMNS + HIGH]
            low_port = stages[stage * STAGE_COLUMNS + FIRST_PORT]
            high_port = stages[stage * STAGE_COLUMNS + LATE_PORT]
            if gathers and high_port > low_port:
                for i in range(me, (end - begin) * (high_port - low_port) * samples, everybody):
                    gather_item(
                        *(i, arrivals, trains, first, length, source, weight, delay, n_steps, begun),
                        *(low_port, high_port, begin, end, reach, n_units, n_ports, samples, fast),
                    )
                turn += 1
                _meet(counter, barrier, turn)
            for i in range(me, (high - low) * samples, everybody):
                advance_item(
                    *(i, values, release, arrivals, trains, numbers, facts, noise, n_noise, counts, noise_weights),
                    *(record, columns, n_columns, first_step, n_steps, begun, low, high, begin, end),
                    *(reach, n_neurons, n_units, n_ports, samples, fast),
                )
                if scatters:
                    _list_item(
                        *(i, trains, unit_row, spike_unit, spike_when, counter, which, low, high, begin, end),
                        *(reach, n_units, samples, fast),
                    )
            turn += 1
            _meet(counter, barrier, turn)
            if scatters:
                _scatter_listed(
                    *(arrivals, trains, spike_unit, spike_when, counter, which, parts, unit_row, rows, grids),
                    *(targets, weights, halves, scales, delays, halved, reach, n_units, n_ports, samples, fast),
                )
                turn += 1
                _meet(counter, barrier, turn)
            which += 1
        if late:
            for stage in range(n_stages):
                low, high = stages[stage * STAGE_COLUMNS + LOW], stages[stage * STAGE_COLUMNS + HIGH]
                low_port = stages[stage * STAGE_COLUMNS + LATE_PORT]
                high_port = stages[stage * STAGE_COLUMNS + LAST_PORT]
                if high_port > low_port:
                    if gathers:
                        for i in range(me, (high_port - low_port) * samples, everybody):
                            gather_item(
                                *(i, arrivals, trains, first, length, source, weight, delay, n_steps, begun),
                                *(low_port, high_port, begin, end, reach, n_units, n_ports, samples, fast),
                            )
                        turn += 1
                        _meet(counter, barrier, turn)
                    for i in range(me, (high - low) * samples, everybody):
                        receive_item(
                            *(i, values, arrivals, facts, noise, n_noise, counts, noise_weights),
                            *(record, columns, n_columns, first_step, n_steps, begun, low, high, begin),
                            *(n_neurons, n_ports, samples, fast),
                        )
            turn += 1
            _meet(counter, barrier, turn)
