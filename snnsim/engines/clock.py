"""The clock engine: every neuron at every step, every synapse only when it carries an event.

Samples are independent and run in parallel; few samples of a large network run on several threads each. The order of
summation is the canonical one in both precisions, so the result depends on nothing but the network, the events and
the dtype.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.engines import Dtype, Inputs, Result, SampleState, State
from snnsim.engines.clock_plan import Layout, make_layout
from snnsim.engines.clock_sample import Common, end_state, make_common, new_sample
from snnsim.engines.clock_stimuli import drives, noise_table, spread
from snnsim.engines.collect import SampleRun, accumulate, collect
from snnsim.errors import InputError
from snnsim.kernels import clock, clock_tables
from snnsim.kernels.clock_results import spikes_of
from snnsim.kernels.memory import run_together
from snnsim.machine import available_memory
from snnsim.network import Network

__all__ = ["ClockEngine", "ClockRunner"]

Integers = npt.NDArray[np.int64]

MAX_RING_BYTES = 2**33  # where the system does not say what is left
WINDOW_SPIKES = 2**22  # room for spikes and recorded numbers in one window of steps
MIN_WORK = 20_000  # neuron-steps in a window of steps that are worth a meeting of threads


def _awake(network: Network, record: tuple[str, ...]) -> frozenset[str]:
    """Return the populations that must be moved on in every step because something reads their variables."""
    names = {name.rpartition(".")[0] for name in record}
    if network.readout is not None and network.readout.variable == "v":
        names.add(network.readout.population)
    return frozenset(names)


class ClockEngine:
    """Runs every network; see the module.

    Args:
        sleepy: Leave neurons alone while they cannot fire and nothing arrives, see :mod:`snnsim.kernels.clock_sleep`.
    """

    def __init__(self, sleepy: bool = False) -> None:
        self.sleepy = sleepy

    def prepare(self, network: Network, dtype: Dtype, threads: int) -> ClockRunner:
        """Lay the network out; nothing is compiled before the first run of this dtype."""
        layout = make_layout(network, dtype, _awake(network, ()) if self.sleepy else None)
        needed = layout.ring_length * np.dtype(dtype).itemsize
        free = available_memory()
        if needed > (MAX_RING_BYTES if free is None else free):
            raise InputError(
                f"engine 'clock': {layout.n_neurons} neurons and delays of up to {layout.longest} steps need "
                f"{needed / 2**30:.1f} GiB a sample, {(free or MAX_RING_BYTES) / 2**30:.1f} GiB are available; "
                "shorten the delays, use a larger dt, or dtype='float32'"
            )
        return ClockRunner(network, dtype, threads, layout, sleepy=self.sleepy)


@dataclass(frozen=True, eq=False)
class ClockRunner:
    """A network ready to run.

    Attributes:
        network: The network.
        dtype: Of the run.
        threads: Threads at most.
        layout: The network laid out.
        window: Bounds the steps of one call of the kernel and changes no bit.
        divide: Whether to run one sample on several threads; chosen from the size of the network by default.
        sleepy: Whether neurons may sleep.
    """

    network: Network
    dtype: Dtype
    threads: int
    layout: Layout
    window: int | None = None
    divide: bool | None = None
    sleepy: bool = False

    def run(
        self, inputs: Inputs, *, state: State | None = None, record: tuple[str, ...] = (), batch: int | None = None
    ) -> Result:
        """Run every sample; see :func:`snnsim.engines.simulate`."""
        n = len(inputs)
        started = time.perf_counter()
        units = np.concatenate([np.zeros(0, np.int32), *(part.astype(np.int32) for part in inputs.unit)])
        counts = np.concatenate([np.zeros(0, np.int64), *inputs.count]).astype(self.dtype)
        divide = self.divide
        if divide is None:
            divide = n < self.threads and int(self.layout.sizes.sum()) * self.layout.window >= MIN_WORK
        inner = self.threads if divide and self.layout.divisible else 1
        threads = 1 if inner > 1 else min(self.threads, n)
        size = batch or max(1, min(16, n // (4 * max(threads, 1))))
        chunks = [range(begin, min(begin + size, n)) for begin in range(0, n, size)]
        layout = self.layout
        network = spread(self.network, inputs.stimuli)
        if network is not self.network or (self.sleepy and record):
            layout = make_layout(network, self.dtype, _awake(network, record) if self.sleepy else None)
        plan, kept = layout.plan(inner, noise_table(network, inputs.stimuli, inputs.seed, self.dtype), inputs.seed)
        common = make_common(self.network, layout, plan, inner, self.dtype, record)

        def work(chunk: range) -> list[SampleRun]:
            return [
                self._sample(common, inputs, units, counts, b, None if state is None else state.samples[b], record)
                for b in chunk
            ]

        if threads > 1:
            with ThreadPoolExecutor(threads) as pool:
                runs = [run for part in pool.map(work, chunks) for run in part]
        else:
            runs = [run for chunk in chunks for run in work(chunk)]
        del kept
        result = collect(
            self.network,
            inputs,
            runs,
            record,
            state,
            engine="event-grid" if self.sleepy else "clock",
            dtype=self.dtype,
            seconds=time.perf_counter() - started,
        )
        return replace(result, notes={"moved": sum(run.moved for run in runs)}) if self.sleepy else result

    def _sample(
        self,
        common: Common,
        inputs: Inputs,
        units: npt.NDArray[np.int32],
        counts: npt.NDArray[Any],
        b: int,
        state: SampleState | None,
        record: tuple[str, ...],
    ) -> SampleRun:
        network, readout, plan, threads = self.network, self.network.readout, common.plan, common.threads
        n_populations = plan.order.shape[0]
        n_steps = int(inputs.n_steps[b])
        first_step = 0 if state is None else state.step
        sample = new_sample(common, state)
        accumulated = None if state is None else state.readout
        window = self.window or max(1, WINDOW_SPIKES // max(self.layout.n_neurons, common.columns.shape[0]))
        window = min(window, max(n_steps, 1))
        room = np.concatenate(([0], np.cumsum(window * common.owned)))
        spike_unit = np.empty(int(room[-1]), np.int32)
        spike_start = np.empty((threads, window * n_populations + 1), np.int64)
        steps_of: list[list[Integers]] = [[] for _ in range(n_populations)]
        units_of: list[list[npt.NDArray[np.int32]]] = [[] for _ in range(n_populations)]
        kept: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in record}
        bases = np.cumsum([0, *(part.shape[0] for part in inputs.unit)])
        one = np.ones(1, self.dtype)
        ids = inputs.first.sample_ids
        sample_id = b if ids is None else int(ids[b])
        stretches = drives(network, inputs.stimuli, n_steps)
        edges = sorted({*range(0, n_steps, window), *(edge for edge, _ in stretches), n_steps})
        for begin, end in pairwise(edges):
            length = end - begin
            now = _with_drives(plan, max((item for item in stretches if item[0] <= begin), key=itemgetter(0))[1])
            event_start = np.empty((len(inputs.step), length + 1), np.int64)
            grid = np.arange(begin, begin + length + 1)
            for j, (start, step) in enumerate(zip(inputs.start, inputs.step, strict=True)):
                a, e = int(start[b]), int(start[b + 1])
                event_start[j] = bases[j] + a + np.searchsorted(step[a:e], grid)
            values = np.empty((length, common.columns.shape[0]), self.dtype)
            spike_start[:, 0] = room[:-1]
            counter = np.zeros(1, np.int64)

            def part(
                t: int,
                *,
                now: clock_tables.Plan = now,
                begin: int = begin,
                length: int = length,
                counter: Integers = counter,
                of: Any = event_start,
            ) -> None:
                clock.run_steps(
                    *(
                        now,
                        sample,
                        sample_id,
                        t,
                        threads,
                        counter,
                        first_step + begin,
                        length,
                        (of, units, counts, one),
                    ),
                    *(common.columns, common.edge, values, spike_start, spike_unit),  # noqa: B023
                )

            run_together(part, threads)
            if inputs.progress is not None:
                inputs.progress(length)
            for rank, p in enumerate(plan.order.tolist()):
                if network.populations[p].neuron.spiking:
                    found, who = spikes_of(spike_start, spike_unit, rank, n_populations, length, begin)
                    steps_of[p].append(found)
                    units_of[p].append(who)
            for name in record:
                kept[name].append(values[:, common.where[name]].copy())
            if readout is not None:
                if common.trace is not None:
                    trace = values[:, common.where[common.trace]]
                else:
                    p = [item.name for item in network.populations].index(readout.population)
                    trace = np.zeros((length, network.populations[p].size))
                    trace[steps_of[p][-1] - begin, units_of[p][-1]] = 1
                accumulated = accumulate(readout, network, trace, first_step + begin, accumulated)
        spikes = {
            item.name: (
                np.concatenate([np.zeros(0, np.int64), *steps_of[p]]),
                np.concatenate([np.zeros(0, np.int32), *units_of[p]]),
            )
            for p, item in enumerate(network.populations)
            if item.neuron.spiking
        }
        records = {
            name: np.concatenate([np.zeros((0, network.population(name.rpartition(".")[0]).size), self.dtype), *parts])
            for name, parts in kept.items()
        }
        state_after = end_state(common, sample, first_step + n_steps, accumulated)
        return SampleRun(spikes, records, accumulated, state_after, int(sample.moved[:, 0].sum()))


def _with_drives(plan: clock_tables.Plan, moved: dict[int, npt.NDArray[Any]]) -> clock_tables.Plan:
    """Return the plan with other drives per step, by population place."""
    if not moved:
        return plan
    one, each = plan.one.copy(), plan.each.copy()
    for p, drive in moved.items():
        first = int(plan.populations[p, clock_tables.EACH])
        if plan.populations[p, clock_tables.FLAGS] & clock_tables.OWN:
            each[clock_tables.DRIVE, first : first + int(plan.populations[p, clock_tables.SIZE])] = drive
        else:
            one[p, clock_tables.DRIVE] = drive[0]
    return plan._replace(one=one, each=each)
