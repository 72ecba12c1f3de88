"""The clock engine: every neuron at every step, every synapse only when it carries an event.

Samples are independent and run in parallel; one sample runs in one thread. The order of summation is the
canonical one in both precisions, so the result depends on nothing but the network, the events and the dtype.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.engines import Dtype, Inputs, Result, SampleState, State
from snnsim.engines.collect import SampleRun, accumulate, collect
from snnsim.errors import InputError
from snnsim.kernels import clock
from snnsim.network import Network, Projection, Sparse

__all__ = ["ClockEngine", "ClockRunner", "make_plan"]

MAX_RING_BYTES = 2**33
WINDOW_SPIKES = 2**22  # room for spikes and recorded numbers in one window of steps
UNIFORM_DENSITY = 0.5  # share of existing weights from which a row is added as a whole
VARIABLES = {"v": 0, "i": 1, "w": 2}


def _is_uniform(projection: Projection) -> bool:
    """Whether each source has one delay and most of its weights exist."""
    if isinstance(projection.weight, Sparse):
        return False
    delay = np.asarray(projection.delay)
    return (delay.ndim == 0 or delay.shape[0] == 1) and (
        projection.n_synapses >= UNIFORM_DENSITY * projection.weight.size
    )


def make_plan(network: Network, dtype: Dtype) -> clock.Plan:
    """Lay a network out as flat arrays for :func:`snnsim.kernels.clock.run_window`."""
    kind = np.dtype(dtype)
    populations = network.populations
    n_inputs = len(network.inputs)
    index = {item.name: place for place, item in enumerate(network.inputs)}
    index.update({item.name: n_inputs + place for place, item in enumerate(populations)})
    sizes = np.array([item.size for item in populations], np.int64)
    steps = [item.neuron.step(item.size, network.dt) for item in populations]

    flags = []
    thresholds = []
    for item, step in zip(populations, steps, strict=True):
        adaptive = hasattr(item.neuron, "tau_adapt")
        threshold = step.v_threshold.astype(kind)
        if step.strict and not adaptive:
            threshold = np.nextafter(threshold, np.array(np.inf, kind))
        thresholds.append(threshold)
        flags.append(
            clock.SPIKING * step.spiking
            + clock.CURRENT * step.current
            + clock.ADAPTIVE * adaptive
            + clock.RESET_ZERO * step.reset_zero
            + clock.STRICT * step.strict
            + clock.REFRACTORY * bool(step.refractory_steps.any())
        )

    def joined(name: str) -> npt.NDArray[Any]:
        return np.concatenate([getattr(step, name) for step in steps]).astype(kind)

    ring_length = np.ones(len(populations), np.int64)
    into: list[list[int]] = [[] for _ in populations]
    table: dict[str, list[int]] = {name: [] for name in ("source", "target", "first_row", "uniform", "now", "later")}
    rows: list[tuple[npt.NDArray[np.int64], ...]] = []
    places: list[npt.NDArray[np.int64]] = []
    weights: list[npt.NDArray[Any]] = []
    uniform_weights: list[npt.NDArray[Any]] = []
    n_rows = n_synapses = n_uniform = 0
    for number, projection in enumerate(network.projections):
        target = index[projection.target] - n_inputs
        size, n_source = projection.shape
        uniform = _is_uniform(projection)
        if uniform:
            begin = n_uniform + size * np.arange(n_source, dtype=np.int64)
            delay = np.broadcast_to(projection.delay_steps(network.dt), (1, n_source))[0].astype(np.int64)
            rows.append((begin, delay, begin + size))
            uniform_weights.append(np.asarray(projection.weight).T.astype(kind).reshape(-1))
            n_uniform += size * n_source
            delays = delay
        else:
            synapses = projection.synapses(network.dt)
            delays = synapses.delay_steps
            source = np.repeat(np.arange(n_source, dtype=np.int64), np.diff(synapses.indptr))
            place = delays * size + synapses.target
            order = np.lexsort((place, source))
            at_once = np.bincount(source[delays == 0], minlength=n_source)
            begin = n_synapses + synapses.indptr
            rows.append((begin[:-1], begin[:-1] + at_once, begin[1:]))
            places.append(place[order])
            weights.append(synapses.weight[order].astype(kind))
            n_synapses += synapses.weight.shape[0]
        table["source"].append(index[projection.source])
        table["target"].append(target)
        table["first_row"].append(n_rows)
        table["uniform"].append(int(uniform))
        table["now"].append(int(bool(np.any(delays == 0))))
        table["later"].append(int(bool(np.any(delays > 0))))
        ring_length[target] = max(ring_length[target], 1 + int(delays.max(initial=0)))
        into[target].append(number)
        n_rows += n_source

    ring_offset = np.concatenate(([0], np.cumsum(2 * ring_length * sizes))).astype(np.int64)
    if ring_offset[-1] * kind.itemsize > MAX_RING_BYTES:
        raise InputError(
            f"engine 'clock': delays of up to {int(ring_length.max()) - 1} steps need "
            f"{ring_offset[-1] * kind.itemsize / 2**30:.1f} GiB a sample, at most {MAX_RING_BYTES / 2**30:.0f} GiB "
            "are used; shorten the delays or use a larger dt"
        )
    place_kind = np.uint32 if ring_offset[-1] < 2**32 else np.uint64
    empty = np.zeros(0, np.int64)
    starts, laters, ends = (np.concatenate([empty, *(row[column] for row in rows)]) for column in range(3))

    def integers(name: str) -> npt.NDArray[np.int64]:
        return np.array(table[name], np.int64)

    return clock.Plan(
        order=np.array([index[item.name] - n_inputs for item in network.order()], np.int64),
        offset=np.concatenate(([0], np.cumsum(sizes))).astype(np.int64),
        flags=np.array(flags, np.int64),
        start=np.array([item.start_step for item in populations], np.int64),
        stop=np.array([2**62 if item.stop_step is None else item.stop_step for item in populations], np.int64),
        ring_offset=ring_offset,
        ring_length=ring_length,
        beta=joined("beta"),
        drive_step=joined("drive_step"),
        alpha=joined("alpha"),
        kappa=joined("kappa"),
        drive_syn_step=joined("drive_syn_step"),
        drive_syn_to_v=joined("drive_syn_to_v"),
        v_threshold=np.concatenate(thresholds),
        v_reset=joined("v_reset"),
        reset_amount=joined("reset_amount"),
        refractory_steps=np.concatenate([step.refractory_steps for step in steps]),
        adapt_decay=joined("adapt_decay"),
        adapt_v=joined("adapt_v"),
        adapt_spike=joined("adapt_spike"),
        adapt_threshold=joined("adapt_threshold"),
        source=integers("source"),
        target=integers("target"),
        first_row=integers("first_row"),
        uniform=integers("uniform"),
        has_now=integers("now"),
        has_later=integers("later"),
        into=np.array([number for numbers in into for number in numbers], np.int64),
        into_start=np.concatenate(([0], np.cumsum([len(numbers) for numbers in into]))).astype(np.int64),
        row_start=starts,
        row_later=laters,
        row_end=ends,
        place=np.concatenate([empty, *places]).astype(place_kind),
        weight=np.concatenate([np.zeros(0, kind), *weights]),
        uniform_weight=np.concatenate([np.zeros(0, kind), *uniform_weights]),
    )


class ClockEngine:
    """Runs every network; see the module."""

    def prepare(self, network: Network, dtype: Dtype, threads: int) -> ClockRunner:
        """Lay the network out; nothing is compiled before the first run of this dtype."""
        return ClockRunner(network, dtype, threads, make_plan(network, dtype))


@dataclass(frozen=True, eq=False)
class ClockRunner:
    """A network ready to run. ``window`` bounds the steps of one kernel call and changes no bit."""

    network: Network
    dtype: Dtype
    threads: int
    plan: clock.Plan
    window: int | None = None

    def run(
        self, inputs: Inputs, *, state: State | None = None, record: tuple[str, ...] = (), batch: int | None = None
    ) -> Result:
        """Run every sample; see :func:`snnsim.engines.simulate`."""
        n = len(inputs)
        started = time.perf_counter()
        units = np.concatenate([np.zeros(0, np.int64), *inputs.unit])
        counts = np.concatenate([np.zeros(0, np.int64), *inputs.count]).astype(self.dtype)
        threads = min(self.threads, n)
        size = batch or max(1, min(16, n // (4 * max(threads, 1))))
        chunks = [range(begin, min(begin + size, n)) for begin in range(0, n, size)]

        def work(chunk: range) -> list[SampleRun]:
            return [
                self._sample(inputs, units, counts, b, None if state is None else state.samples[b], record)
                for b in chunk
            ]

        if threads > 1:
            with ThreadPoolExecutor(threads) as pool:
                runs = [run for part in pool.map(work, chunks) for run in part]
        else:
            runs = [run for chunk in chunks for run in work(chunk)]
        return collect(
            self.network,
            inputs,
            runs,
            record,
            state,
            engine="clock",
            dtype=self.dtype,
            seconds=time.perf_counter() - started,
        )

    def _columns(self, record: tuple[str, ...]) -> tuple[npt.NDArray[np.int64], dict[str, slice]]:
        """Return neuron and variable of each recorded column, and where each name's columns are."""
        offset = dict(zip((item.name for item in self.network.populations), self.plan.offset.tolist(), strict=False))
        parts = [np.zeros((0, 2), np.int64)]
        where: dict[str, slice] = {}
        begin = 0
        for name in record:
            if name in where:
                continue
            population, _, variable = name.rpartition(".")
            size = self.network.population(population).size
            neurons = offset[population] + np.arange(size)
            parts.append(np.stack((neurons, np.full(size, VARIABLES[variable])), axis=1))
            where[name] = slice(begin, begin + size)
            begin += size
        return np.concatenate(parts), where

    def _load(self, state: SampleState | None) -> clock.Sample:
        plan = self.plan
        n, ring = int(plan.offset[-1]), np.zeros(int(plan.ring_offset[-1]), self.dtype)
        head = np.zeros(plan.order.shape[0], np.int64)
        if state is None:
            v, i, w = (np.zeros(n, self.dtype) for _ in range(3))
            return clock.Sample(v, i, w, np.zeros(n, np.int64), ring, head)
        ring[state.pending_place] = state.pending_value
        return clock.Sample(state.v.copy(), state.i.copy(), state.w.copy(), state.left.copy(), ring, head)

    def _save(self, sample: clock.Sample, step: int, readout: Any) -> SampleState:
        plan = self.plan
        places = []
        values = []
        for p in range(plan.order.shape[0]):
            begin, size = int(plan.ring_offset[p]), int(plan.offset[p + 1] - plan.offset[p])
            pending = sample.ring[begin + int(sample.head[p]) * size : int(plan.ring_offset[p + 1])]
            at = np.flatnonzero(pending)
            places.append(begin + at)
            values.append(pending[at])
        return SampleState(
            step, sample.v, sample.i, sample.w, sample.left, np.concatenate(places), np.concatenate(values), readout
        )

    def _sample(
        self,
        inputs: Inputs,
        units: npt.NDArray[np.int64],
        counts: npt.NDArray[Any],
        b: int,
        state: SampleState | None,
        record: tuple[str, ...],
    ) -> SampleRun:
        plan, network, readout = self.plan, self.network, self.network.readout
        n_populations = plan.order.shape[0]
        n_neurons = int(plan.offset[-1])
        n_steps = int(inputs.n_steps[b])
        first_step = 0 if state is None else state.step
        trace_name = f"{readout.population}.v" if readout is not None and readout.variable == "v" else None
        columns, where = self._columns(record if trace_name is None else (*record, trace_name))
        sample = self._load(state)
        accumulated = None if state is None else state.readout
        window = self.window or max(1, WINDOW_SPIKES // max(n_neurons, columns.shape[0]))
        window = min(window, max(n_steps, 1))
        spike_unit = np.empty(window * n_neurons, np.int32)
        spike_start = np.empty(window * n_populations + 1, np.int64)
        steps_of: list[list[npt.NDArray[np.int64]]] = [[] for _ in range(n_populations)]
        units_of: list[list[npt.NDArray[np.int32]]] = [[] for _ in range(n_populations)]
        kept: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in record}
        bases = np.cumsum([0, *(part.shape[0] for part in inputs.unit)])
        for begin in range(0, n_steps, window):
            length = min(window, n_steps - begin)
            event_start = np.empty((len(inputs.step), length + 1), np.int64)
            grid = np.arange(begin, begin + length + 1)
            for j, (start, step) in enumerate(zip(inputs.start, inputs.step, strict=True)):
                a, e = int(start[b]), int(start[b + 1])
                event_start[j] = bases[j] + a + np.searchsorted(step[a:e], grid)
            values = np.empty((length, columns.shape[0]), self.dtype)
            clock.run_window(
                plan,
                sample,
                first_step + begin,
                length,
                event_start,
                units,
                counts,
                columns,
                values,
                spike_start,
                spike_unit,
            )
            fired = np.diff(spike_start[: length * n_populations + 1])
            total = int(spike_start[length * n_populations])
            group = np.repeat(np.arange(length * n_populations), fired)
            for p in range(n_populations):
                if plan.flags[p] & clock.SPIKING:
                    mine = group % n_populations == p
                    steps_of[p].append(begin + group[mine] // n_populations)
                    units_of[p].append(spike_unit[:total][mine])
            for name in record:
                kept[name].append(values[:, where[name]].copy())
            if readout is not None:
                if trace_name is not None:
                    trace = values[:, where[trace_name]]
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
        return SampleRun(spikes, records, accumulated, self._save(sample, first_step + n_steps, accumulated))
