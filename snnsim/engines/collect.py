"""From the runs of single samples to one :class:`Result`: readout, spike events, operation counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.engines import Inputs, Result, SampleState, State
from snnsim.events import Events
from snnsim.metrics import count_operations
from snnsim.network import Network, Readout

__all__ = ["SampleRun", "accumulate", "add_rows", "collect", "scores"]

Floats = npt.NDArray[np.float64]
Accumulated = tuple[Floats, int]


@dataclass(frozen=True, eq=False)
class SampleRun:
    """What an engine found for one sample.

    Attributes:
        spikes: Per spiking population steps (int64, ascending, 0 is the run's first step), or seconds since then
            (float64, ascending), and units.
        records: As in Result, for this sample.
        readout: What :func:`accumulate` returned last, or None without a readout.
        state: None if the engine cannot go on.
        moved: Neuron-steps that were computed in populations whose neurons may sleep.
    """

    spikes: dict[str, tuple[npt.NDArray[Any], npt.NDArray[np.int32]]]
    records: dict[str, npt.NDArray[Any]]
    readout: Accumulated | None
    state: SampleState | None
    moved: int = 0


def accumulate(
    readout: Readout, network: Network, trace: npt.NDArray[Any], first_step: int, previous: Accumulated | None
) -> Accumulated:
    """Add a piece of the readout's trace to what came before, step by step.

    Args:
        readout: The network's readout.
        network: The network.
        trace: v, or spikes as 0 and 1, ``(time, class)``.
        first_step: Step number of its first row.
        previous: The result for the steps before, None at the beginning.

    Returns:
        Accumulated values, float64 ``(class,)``, and the number of steps in them; independent of how the
        trace was cut into pieces.
    """
    population = network.population(readout.population)
    low = max(population.start_step + readout.skip_steps - first_step, 0)
    high = trace.shape[0] if population.stop_step is None else max(population.stop_step - first_step, 0)
    return add_rows(readout, trace[low:high].astype(np.float64), previous)


def add_rows(readout: Readout, rows: Floats, previous: Accumulated | None) -> Accumulated:
    """Add all rows ``(time, class)`` of a trace to what came before; see :func:`accumulate`."""
    total, count = previous if previous is not None else (np.zeros(rows.shape[1]), 0)
    if not rows.shape[0]:
        return total, count
    if readout.reduce == "last":
        total = rows[-1]
    elif readout.reduce == "max":
        best = rows.max(axis=0)
        total = np.maximum(total, best) if count else best
    else:
        if readout.reduce == "sum_softmax":
            with np.errstate(over="ignore", invalid="ignore"):
                rows = np.exp(rows - rows.max(axis=1, keepdims=True))
                rows /= rows.sum(axis=1, keepdims=True)
        total = np.add.accumulate(np.concatenate((total[None], rows)), axis=0)[-1]
    return total, count + rows.shape[0]


def scores(readout: Readout, accumulated: Accumulated) -> Floats:
    """Return the class scores of one sample."""
    total, count = accumulated
    return total / count if readout.reduce == "mean" and count else total


def collect(
    network: Network,
    inputs: Inputs,
    runs: Sequence[SampleRun],
    record: tuple[str, ...],
    state: State | None,
    *,
    engine: str,
    dtype: str,
    seconds: float,
) -> Result:
    """Join the samples' runs."""
    first = inputs.first
    spikes: dict[str, Events] = {}
    active: dict[str, npt.NDArray[np.int64]] = {}
    counts: dict[str, int] = {}
    for item, unit, count in zip(network.inputs, inputs.unit, inputs.count, strict=True):
        active[item.name] = np.bincount(unit, minlength=item.size)
        counts[item.name] = int(count.sum())
    for population in network.populations:
        if not population.neuron.spiking:
            continue
        name = population.name
        steps = [run.spikes[name][0] for run in runs]
        units = np.concatenate([np.zeros(0, np.int32), *(run.spikes[name][1] for run in runs)])
        ends = np.cumsum([0, *(part.shape[0] for part in steps)], dtype=np.int64)
        times = np.concatenate([np.zeros(0, np.int64), *steps])
        spikes[name] = Events(
            times=times if times.dtype.kind == "f" else times * network.dt,
            units=units,
            offsets=ends,
            labels=first.labels,
            n_units=population.size,
            duration=inputs.n_steps.astype(np.float64) * network.dt,
            speakers=first.speakers,
            class_names=first.class_names,
            sample_ids=first.sample_ids,
        )
        active[name] = np.bincount(units, minlength=population.size)
        counts[name] = int(units.shape[0])
    logits = None
    readout = network.readout
    if readout is not None:
        size = network.population(readout.population).size
        logits = np.zeros((len(runs), size))
        for row, run in enumerate(runs):
            if run.readout is not None:
                logits[row] = scores(readout, run.readout)
    begun = [0] * len(runs) if state is None else [item.step for item in state.samples]
    states = [run.state for run in runs if run.state is not None]
    return Result(
        spikes=spikes,
        logits=logits,
        records={name: [run.records[name] for run in runs] for name in record},
        state=State(network.digest(), dtype, engine, tuple(states)) if len(states) == len(runs) else None,
        operations=count_operations(network, active, counts, inputs.n_steps, np.asarray(begun, np.int64)),
        n_steps=inputs.n_steps,
        dropped=inputs.dropped,
        engine=engine,
        seconds=seconds,
    )
