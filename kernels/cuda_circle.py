"""A component of populations through many short windows in one launch: blocks wait for one another on the device.

Where the shortest delay is a step or a few, a window holds little work and launching its kernels one after the other
would take longer than the work. Here one launch runs all windows of a chunk; after each phase all blocks meet. They
must all be on the device at once: no more blocks may be launched than it has multiprocessors. The phases are those of
the other kernels, and nothing depends on the number of blocks and threads.
"""

from __future__ import annotations

from typing import Any

from numba import cuda

from snnsim.kernels.cuda_gather import gather_item
from snnsim.kernels.cuda_laws import advance_item, receive_item
from snnsim.kernels.cuda_scatter import scatter_listed
from snnsim.kernels.cuda_support import SIMULATED

__all__ = ["CIRCLE_THREADS", "STAGE_COLUMNS", "run_circle"]

CIRCLE_THREADS = 2 if SIMULATED else 384
"""Threads of a block; a block's registers must fit on a multiprocessor."""

_OPTIONS: dict[str, Any] = {} if SIMULATED else {"max_registers": 168}

LOW, HIGH, FIRST_PORT, LATE_PORT, LAST_PORT, STAGE_COLUMNS = range(6)
"""Columns of the table of stages: first neuron; one past the last; first port; first late port; one past the last."""


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


@cuda.jit(**_OPTIONS)
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
        unit_row: See there.
        spike_unit: See there.
        spike_when: See there.
        counter: int64, zeros from ``which`` on, one a window and stage, and at ``barrier``.
        which: See above.
        barrier: See above.
        rows: As for :func:`snnsim.kernels.cuda_scatter.scatter`, and so on.
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
                    *(record, columns, n_columns, unit_row, spike_unit, spike_when, counter, which),
                    *(first_step, n_steps, begun, low, high, begin, end),
                    *(reach, n_neurons, n_units, n_ports, samples, fast),
                )
            turn += 1
            _meet(counter, barrier, turn)
            if scatters:
                scatter_listed(
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
