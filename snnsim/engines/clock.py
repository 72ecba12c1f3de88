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
from snnsim.engines.clock_stimuli import drives, noise_table, spread
from snnsim.engines.collect import SampleRun, accumulate, collect
from snnsim.engines.initial import rest_values
from snnsim.errors import InputError
from snnsim.kernels import clock, clock_tables
from snnsim.kernels.clock_sleep import SLEEPERS
from snnsim.kernels.memory import run_together
from snnsim.machine import available_memory
from snnsim.network import Network

__all__ = ["ClockEngine", "ClockRunner"]

Integers = npt.NDArray[np.int64]

MAX_RING_BYTES = 2**33  # where the system does not say what is left
WINDOW_SPIKES = 2**22  # room for spikes and recorded numbers in one window of steps
LINE = 64  # bytes of a cache line
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
class Columns:
    """What is recorded: per column its neuron, variable and place, by the thread that owns the neuron."""

    table: Integers
    edge: Integers
    where: dict[str, slice]


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
        plan, kept = layout.plan(inner, noise_table(network, inputs.stimuli, inputs.seed, self.dtype))

        def work(chunk: range) -> list[SampleRun]:
            return [
                self._sample(
                    layout, plan, inner, inputs, units, counts, b, None if state is None else state.samples[b], record
                )
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

    def _columns(self, record: tuple[str, ...], plan: clock_tables.Plan, threads: int) -> Columns:
        place = {item.name: p for p, item in enumerate(self.network.populations)}
        parts = [np.zeros((0, 4), np.int64)]
        where: dict[str, slice] = {}
        begin = 0
        for name in record:
            if name in where:
                continue
            population, _, variable = name.rpartition(".")
            p = place[population]
            item = self.network.populations[p]
            edges = plan.own_edge[p]
            units = np.arange(item.size)
            parts.append(
                np.stack(
                    (
                        plan.populations[p, clock_tables.OFFSET] + units,
                        np.full(item.size, item.neuron.variables.index(variable)),
                        begin + units,
                        np.searchsorted(edges, units, side="right") - 1,
                    ),
                    axis=1,
                )
            )
            where[name] = slice(begin, begin + item.size)
            begin += item.size
        table = np.concatenate(parts)
        table = table[np.argsort(np.minimum(table[:, 3], threads - 1), kind="stable")]
        edge = np.searchsorted(np.minimum(table[:, 3], threads - 1), np.arange(threads + 1)).astype(np.int64)
        return Columns(np.ascontiguousarray(table[:, :3]), edge, where)

    def _load(
        self, state: SampleState | None, layout: Layout, plan: clock_tables.Plan, threads: int
    ) -> clock_tables.Sample:
        n = self.layout.n_neurons
        n_populations = plan.order.shape[0]
        ring = _aligned(self.layout.ring_length, self.dtype)
        start = rest_values(self.network, self.dtype).reshape(-1)
        values = _aligned(start.shape[0], self.dtype)
        values[:] = start
        blocks = -(-np.diff(plan.own_edge, axis=1).T // SLEEPERS)
        sample = clock_tables.Sample(
            values=values,
            release=np.zeros(n, np.int64),
            held=np.zeros(n, np.int64),
            until=np.zeros(n, np.int64),
            kept=np.zeros(n, self.dtype),
            n_held=np.zeros((threads, n_populations), np.int64),
            ring=ring,
            head=np.zeros((threads, plan.ports.shape[0]), np.int64),
            since=np.full(int(blocks.sum()), -1),
            first_block=(np.cumsum(blocks) - blocks.reshape(-1)).reshape(blocks.shape),
            dirty=np.zeros((threads, layout.slots), np.uint8),
            moved=np.zeros((threads, 8), np.int64),
        )
        if state is None:
            return sample
        ring[state.pending_place] = state.pending_value
        sample.values[:] = state.values.reshape(-1)
        sample.release[:] = state.step + state.left
        for p in range(n_populations):
            for t in range(threads):
                low, high = plan.populations[p, clock_tables.OFFSET] + plan.own_edge[p, t : t + 2]
                busy = low + np.flatnonzero(state.left[low:high])
                sample.held[low : low + busy.size] = busy
                sample.until[low : low + busy.size] = sample.release[busy]
                sample.kept[low : low + busy.size] = sample.values[busy]
                sample.n_held[t, p] = busy.size
        return sample

    def _save(self, sample: clock_tables.Sample, plan: clock_tables.Plan, step: int, readout: Any) -> SampleState:
        places = [np.zeros(0, np.int64)]
        values = [np.zeros(0, self.dtype)]
        for port in range(plan.ports.shape[0]):
            size, begin, slots = plan.ports[port, :3].tolist()
            ring = sample.ring[begin : begin + slots * size].reshape(slots, size)
            pending = np.roll(ring, -int(sample.head[0, port]), axis=0).reshape(-1)
            at = np.flatnonzero(pending)
            places.append(begin + at)
            values.append(pending[at])
        return SampleState(
            step=step,
            values=sample.values.reshape(-1, self.layout.n_neurons),
            left=np.maximum(sample.release - step, 0),
            pending_place=np.concatenate(places),
            pending_value=np.concatenate(values),
            readout=readout,
        )

    def _sample(
        self,
        layout: Layout,
        plan: clock_tables.Plan,
        threads: int,
        inputs: Inputs,
        units: npt.NDArray[np.int32],
        counts: npt.NDArray[Any],
        b: int,
        state: SampleState | None,
        record: tuple[str, ...],
    ) -> SampleRun:
        network, readout = self.network, self.network.readout
        n_populations = plan.order.shape[0]
        n_neurons = self.layout.n_neurons
        n_steps = int(inputs.n_steps[b])
        first_step = 0 if state is None else state.step
        trace_name = f"{readout.population}.v" if readout is not None and readout.variable == "v" else None
        columns = self._columns(record if trace_name is None else (*record, trace_name), plan, threads)
        sample = self._load(state, layout, plan, threads)
        accumulated = None if state is None else state.readout
        window = self.window or max(1, WINDOW_SPIKES // max(n_neurons, columns.table.shape[0]))
        window = min(window, max(n_steps, 1))
        room = np.concatenate(([0], np.cumsum(window * np.diff(plan.own_edge, axis=1).sum(axis=0))))
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
            values = np.empty((length, columns.table.shape[0]), self.dtype)
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
                    *(columns.table, columns.edge, values, spike_start, spike_unit),  # noqa: B023
                )

            run_together(part, threads)
            if inputs.progress is not None:
                inputs.progress(length)
            for rank, p in enumerate(plan.order.tolist()):
                found, who = _spikes_of(spike_start, spike_unit, rank, n_populations, length)
                if network.populations[p].neuron.spiking:
                    steps_of[p].append(begin + found)
                    units_of[p].append(who)
            for name in record:
                kept[name].append(values[:, columns.where[name]].copy())
            if readout is not None:
                if trace_name is not None:
                    trace = values[:, columns.where[trace_name]]
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
        state_after = self._save(sample, plan, first_step + n_steps, accumulated)
        return SampleRun(spikes, records, accumulated, state_after, int(sample.moved[:, 0].sum()))


def _aligned(n: int, dtype: Dtype) -> npt.NDArray[Any]:
    """Return ``n`` zeros that begin on a cache line: a vector that lies across two lines costs twice."""
    size = np.dtype(dtype).itemsize
    raw = np.zeros(n * size + LINE, np.uint8)
    first = -raw.ctypes.data % LINE
    return raw[first : first + n * size].view(dtype)


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


def _spikes_of(
    spike_start: Integers, spike_unit: npt.NDArray[np.int32], rank: int, n_populations: int, length: int
) -> tuple[Integers, npt.NDArray[np.int32]]:
    """Return steps and units of one population's spikes, by step, then unit."""
    steps, units = [], []
    for row in spike_start:
        first = row[rank : length * n_populations : n_populations]
        count = row[rank + 1 : length * n_populations + 1 : n_populations] - first
        steps.append(np.repeat(np.arange(length), count))
        begin = np.repeat(first - np.concatenate(([0], np.cumsum(count)[:-1])), count)
        units.append(spike_unit[begin + np.arange(begin.shape[0])])
    if len(steps) == 1:
        return steps[0], units[0]
    order = np.argsort(np.concatenate(steps), kind="stable")
    return np.concatenate(steps)[order], np.concatenate(units)[order]
