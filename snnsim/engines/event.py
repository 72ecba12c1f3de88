"""The event engine: continuous time, exact spike times, and no work where nothing happens.

Each sample runs in one thread; samples run in parallel. The result depends on nothing but the network and the events.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from snnsim.engines import Dtype, Inputs, Result, SampleState, State
from snnsim.engines.collect import SampleRun, accumulate, collect
from snnsim.engines.event_plan import Layout, make_layout
from snnsim.engines.event_plastic import PlasticLayout, PlasticState, advance_plastic, final_weights, make_plastic
from snnsim.engines.event_rows import run_rows, scaled_neurons
from snnsim.engines.event_spans import run_stretches
from snnsim.errors import InputError
from snnsim.grid import time_to_step
from snnsim.kernels import event as kernel
from snnsim.kernels import event_law as law
from snnsim.kernels import event_neuron as neuron
from snnsim.kernels import event_queue as queue
from snnsim.kernels import event_store as store
from snnsim.network import Network

__all__ = ["EventEngine", "EventRunner", "EventSampleState"]

COUNTS = ("windows", "arrivals", "sums", "due", "exact_searches")
VARIABLES = {"v": 0, "i": 1, "i_exc": 1, "i_inh": 2}

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class EventSampleState(SampleState):
    """Where one sample stands in continuous time. Opaque.

    Attributes:
        neurons: One row a neuron, ``(neurons, WIDTH)``.
        pending: Arrivals on their way: times, weights, targets, emission times, projections, sources; with plastic
            synapses their numbers instead of weights, and how many events coincide.
        plastic: Weights and traces, None without plasticity.
    """

    neurons: Floats
    pending: tuple[npt.NDArray[Any], ...]
    plastic: PlasticState | None = None


class EventEngine:
    """Runs networks of IF, LIF, LI, CubaLIF, CubaLI and ExpCurrentLIF neurons; see the module."""

    def prepare(self, network: Network, dtype: Dtype, threads: int) -> EventRunner:
        """Lay the network out.

        Raises:
            InputError: Not float64, or a population that has no continuous-time form here.
        """
        if dtype != "float64":
            raise InputError(f"dtype: engine 'event' computes exact times in 'float64', got {dtype!r}")
        return EventRunner(network, threads, make_layout(network))


@dataclass(frozen=True, eq=False)
class EventRunner:
    """A network ready to run."""

    network: Network
    threads: int
    layout: Layout
    plastic: PlasticLayout | None = None

    def run(
        self, inputs: Inputs, *, state: State | None = None, record: tuple[str, ...] = (), batch: int | None = None
    ) -> Result:
        """Run every sample; see :func:`snnsim.engines.simulate`.

        ``Result.notes`` hold ``counts``, what was done, and ``early``: exact times of spikes before time 0 as
        ``(sample, population, unit, seconds)``. The zero state lies one dt before step 0, so a neuron may fire
        in between; in ``Result.spikes`` such a spike has time 0, its step on a grid.
        """
        if inputs.plasticity and self.plastic is None:
            plastic = make_plastic(self.network, self.layout, inputs.plasticity)
            layout = replace(self.layout, plan=plastic.plan, rows=None)
            learner = replace(self, layout=layout, plastic=plastic)
            return learner.run(inputs, state=state, record=record, batch=batch)
        self._check_state(inputs, state)
        started = time.perf_counter()
        n = len(inputs)
        parts, inputs = self._inputs(inputs)
        size = batch or max(1, min(16, n // (4 * max(self.threads, 1))))
        chunks = [range(begin, min(begin + size, n)) for begin in range(0, n, size)]

        def work(chunk: range) -> list[tuple[SampleRun, list[tuple[str, int, float]], npt.NDArray[np.int64]]]:
            return [
                self._sample(parts[b], int(inputs.n_steps[b]), None if state is None else state.samples[b], record)
                for b in chunk
            ]

        if min(self.threads, n) > 1:
            with ThreadPoolExecutor(min(self.threads, n)) as pool:
                runs = [run for part in pool.map(work, chunks) for run in part]
        else:
            runs = [run for chunk in chunks for run in work(chunk)]
        result = collect(
            *(self.network, inputs, [run for run, _, _ in runs], record, state),
            engine="event",
            dtype="float64",
            seconds=time.perf_counter() - started,
        )
        named = {name: sum(int(counted[k]) for _, _, counted in runs) for k, name in enumerate(COUNTS)}
        early = [(b, *item) for b, (_, items, _) in enumerate(runs) for item in items]
        operations = replace(result.operations, neuron_updates=named["sums"] + named["due"])
        result = replace(result, operations=operations, notes={"counts": named, "early": early})
        if self.plastic is None:
            return result
        ends = [
            run.state.plastic for run, _, _ in runs if isinstance(run.state, EventSampleState) and run.state.plastic
        ]
        named["plastic_arrivals"] = sum(int(end.counts[0]) for end in ends)
        named["plastic_visits"] = sum(int(end.counts[1]) for end in ends)
        return replace(result, weights=final_weights(self.network, self.plastic, ends))

    @staticmethod
    def _check_state(inputs: Inputs, state: State | None) -> None:
        """Refuse a state of a run in which other synapses learned, or learned otherwise."""
        for item in () if state is None else state.samples:
            if not isinstance(item, EventSampleState):
                continue
            learned = item.plastic.rules if item.plastic is not None else ()
            if learned != inputs.plasticity:
                raise InputError(
                    "state: comes from a run with other plasticity rules; go on with the same rules in the same order, "
                    "or start without a state from network.with_weights(...)"
                )

    def _inputs(self, inputs: Inputs) -> tuple[list[kernel.Inputs], Inputs]:
        """Return the events of every sample in order of time, and the inputs as they count for the operations."""
        n, dt = len(inputs), self.network.dt
        kept: list[list[tuple[Floats, npt.NDArray[np.int64], npt.NDArray[np.int64], Floats]]] = [[] for _ in range(n)]
        units, counts, dropped = [], [], np.zeros(n, np.int64)
        for group, events in enumerate(inputs.events):
            here: list[npt.NDArray[np.int64]] = []
            many: list[npt.NDArray[np.int64]] = []
            for b in range(n):
                a, e = int(events.offsets[b]), int(events.offsets[b + 1])
                times, unit = events.times[a:e], events.units[a:e].astype(np.int64)
                inside = int(np.searchsorted(times, inputs.n_steps[b] * dt, side="left"))
                dropped[b] += e - a - inside
                times, unit = times[:inside], unit[:inside]
                new = np.ones(inside, np.bool_)
                new[1:] = (times[1:] != times[:-1]) | (unit[1:] != unit[:-1])
                first = np.flatnonzero(new)
                count = np.diff(first, append=inside)
                here.append(unit[first])
                many.append(count)
                kept[b].append((times[first], np.full(first.shape, group, np.int64), unit[first], count * 1.0))
            units.append(np.concatenate([np.zeros(0, np.int64), *here]))
            counts.append(np.concatenate([np.zeros(0, np.int64), *many]))
        parts = []
        for rows in kept:
            times, groups, unit, count = (
                np.concatenate([np.zeros(0, kind), *(row[k] for row in rows)])
                for k, kind in enumerate((np.float64, np.int64, np.int64, np.float64))
            )
            order = np.lexsort((unit, groups, times))
            parts.append(kernel.Inputs(times[order], groups[order], unit[order], count[order]))
        return parts, replace(inputs, unit=tuple(units), count=tuple(counts), dropped=dropped)

    def _load(self, given: SampleState | None) -> tuple[Floats, int]:
        """Return the neurons and the step to begin with."""
        plan, layout = self.layout.plan, self.layout
        if isinstance(given, EventSampleState):
            if layout.rows is not None:
                return given.neurons.copy(), given.step
            neurons = neuron.new_state(given.neurons.shape[0])
            neurons[:] = given.neurons
            return neurons, given.step
        laws = layout.laws[layout.law]
        neurons = neuron.new_state(layout.law.shape[0])
        neurons[:, neuron.TIME] = plan.origin
        neurons[:, [neuron.HELD, neuron.LAST]] = -np.inf
        begin = 0
        for item, at in zip(self.network.populations, layout.offset.tolist(), strict=True):
            rows = slice(at, at + item.size)
            if given is not None:
                for k, variable in enumerate(item.neuron.variables):
                    neurons[rows, neuron.Y + VARIABLES[variable]] = given.values[k, begin : begin + item.size]
            begin += item.size
        neurons[:, neuron.Y] -= laws[:, law.VINF]
        neurons[:, neuron.FIRST] -= laws[:, law.STEADY]
        if layout.rows is not None:
            return scaled_neurons(plan, layout.rows, neurons, layout.laws, layout.law), 0
        check = np.zeros(neurons.shape[0])
        kernel.begin_checks(neuron.Cells(layout.laws, layout.law, neurons, check, neuron.least_checks(check)))
        neurons[:, neuron.CHECK] = check
        return neurons, 0

    def _grid(self, first: int, n_steps: int, names: tuple[str, ...]) -> tuple[neuron.Grid, dict[str, slice]]:
        """Return what to record and where each name's columns are."""
        size = self.layout.law.shape[0]
        offset = {item.name: int(at) for item, at in zip(self.network.populations, self.layout.offset, strict=True)}
        column = np.full((3, size if names else 0), -1, np.int32)
        where: dict[str, slice] = {}
        width = 0
        for name in dict.fromkeys(names):
            population, _, variable = name.rpartition(".")
            many = self.network.population(population).size
            at = offset[population]
            column[VARIABLES[variable], at : at + many] = np.arange(width, width + many)
            where[name] = slice(width, width + many)
            width += many
        following = np.zeros(size if names else 0, np.int64)
        return neuron.Grid(self.network.dt, first, following, column, np.zeros((n_steps, width))), where

    def _sample(
        self, inputs: kernel.Inputs, n_steps: int, given: SampleState | None, record: tuple[str, ...]
    ) -> tuple[SampleRun, list[tuple[str, int, float]], npt.NDArray[np.int64]]:
        plan, network, readout = self.layout.plan, self.network, self.network.readout
        dt = network.dt
        neurons, first = self._load(given)
        base, stop = first * dt, (first + n_steps) * dt
        if base:
            inputs = inputs._replace(time=base + inputs.time)
        trace_name = f"{readout.population}.v" if readout is not None and readout.variable == "v" else None
        grid, where = self._grid(first, n_steps, record if trace_name is None else (*record, trace_name))
        size = neurons.shape[0]
        counts = np.zeros(4, np.int64)
        begin = plan.origin if not first else base
        pending = given.pending if isinstance(given, EventSampleState) else ()
        plastic = given.plastic if isinstance(given, EventSampleState) else None
        if plastic is not None:
            plastic = replace(plastic, counts=np.zeros_like(plastic.counts))

        def advance(
            events: kernel.Inputs, rows: neuron.Grid, of: npt.NDArray[np.int32], begin: float, stop: float
        ) -> neuron.Spikes:
            nonlocal pending, plastic
            layout = self.layout if of is self.layout.law else replace(self.layout, law=of)
            if self.plastic is None:
                spikes, pending = self._advance(layout, pending, events, neurons, rows, counts, begin, stop)
                return spikes
            spikes, pending, plastic = advance_plastic(
                *(self.plastic, layout, plastic, pending, events, neurons, rows, counts, begin, stop),
                lambda check: self._refuse(_too_fast(neurons, check)),
            )
            return spikes

        if self.layout.spans:
            spikes = run_stretches(
                *(self.layout.spans, self.layout.laws, self.layout.law, inputs, neurons, grid, begin, stop, advance)
            )
        else:
            spikes = advance(inputs, grid, self.layout.law, begin, stop)
        many = int(spikes.meta[neuron.N_SPIKES])
        found, who = spikes.time[:many], spikes.neuron[:many]
        by_name: dict[str, tuple[Any, npt.NDArray[np.int32]]] = {}
        early: list[tuple[str, int, float]] = []
        for item, at in zip(network.populations, self.layout.offset.tolist(), strict=True):
            if not item.neuron.spiking:
                continue
            mine = (who >= at) & (who < at + item.size)
            times, units = found[mine] - base, (who[mine] - at).astype(np.int32)
            early += [(item.name, int(units[k]), float(times[k])) for k in np.flatnonzero(times < 0)]
            times = np.maximum(times, 0.0)
            order = np.lexsort((units, times))
            by_name[item.name] = (times[order], units[order])
        accumulated = given.readout if isinstance(given, EventSampleState) else None
        if readout is not None:
            if trace_name is not None:
                trace = grid.values[:, where[trace_name]]
            else:
                times, units = by_name[readout.population]
                trace = np.zeros((n_steps, network.population(readout.population).size))
                np.add.at(trace, (np.minimum(time_to_step(times, dt), n_steps - 1), units), 1)
            accumulated = accumulate(readout, network, trace, first, accumulated)
        nothing = np.zeros(0, np.int64)
        after = EventSampleState(
            step=first + n_steps,
            values=np.zeros((0, size)),
            left=nothing,
            pending_place=nothing,
            pending_value=np.zeros(0),
            readout=accumulated,
            neurons=neurons,
            pending=pending,
            plastic=plastic,
        )
        records = {name: np.ascontiguousarray(grid.values[:, where[name]]) for name in record}
        counted = np.append(counts, spikes.meta[neuron.EXAMINED])
        return SampleRun(by_name, records, accumulated, after), early, counted

    def _advance(
        self,
        layout: Layout,
        waiting: tuple[npt.NDArray[Any], ...],
        inputs: kernel.Inputs,
        neurons: Floats,
        grid: neuron.Grid,
        counts: npt.NDArray[np.int64],
        begin: float,
        stop: float,
    ) -> tuple[neuron.Spikes, tuple[npt.NDArray[Any], ...]]:
        """Run one sample, giving the kernels longer lists when they ask; return spikes and pending arrivals."""
        plan, size = layout.plan, neurons.shape[0]
        if layout.rows is not None:
            return run_rows(
                *(plan, layout.rows, layout.laws, layout.law, layout.slots, waiting, inputs, neurons, grid, counts),
                *(begin, stop, self._refuse),
            )
        many = waiting[0].shape[0] if waiting else 0
        check = neurons[:, neuron.CHECK].copy()
        cells = neuron.Cells(layout.laws, layout.law, neurons, check, neuron.least_checks(check))
        spikes = neuron.new_spikes()
        if plan.window == 0:
            line = queue.new_queue(4096 + many)
            queue.refill(plan, line, *waiting) if waiting else None
            place = np.zeros(2, np.int64)
            while True:
                status = queue.run_queue(plan, inputs, cells, line, spikes, grid, place, counts, stop)
                if status == neuron.ROOM:
                    spikes = neuron.grown_spikes(spikes, int(line.used[0]))
                elif status == queue.ROOM_IN_QUEUE:
                    line = queue.grown_queue(line, layout.fan_out)
                elif status == neuron.TOO_FAST:
                    self._refuse(_too_fast(neurons, check))
                else:
                    neurons[:, neuron.CHECK] = check
                    return spikes, queue.waiting(line)
        buckets = layout.slots * (plan.stage_start.shape[0] - 1)
        pool = store.new_pool(buckets, 256 + (buckets if many else 0) + many // store.CHUNK)
        log, buffer = store.new_log(1024 + many), kernel.new_buffer()
        if waiting:
            kernel.load(plan, pool, log, *waiting)
        scratch = kernel.Scratch(np.zeros(size, np.int64), np.zeros(size, np.int64), np.zeros(size + 1, np.int64))
        cursor = kernel.new_cursor(begin, plan)
        while True:
            status = kernel.run(*(plan, inputs, cells, pool, log, buffer, scratch, spikes, grid, cursor, counts, stop))
            if status == neuron.ROOM:
                spikes = neuron.grown_spikes(spikes)
            elif status == kernel.ROOM_IN_BUFFER:
                buffer = kernel.new_buffer(2 * int(pool.used.max()))
            elif status == kernel.ROOM_TO_DELIVER:
                pool, log = store.grown_pool(pool, layout.fan_out), store.grown_log(log)
            elif status == neuron.TOO_FAST:
                self._refuse(_too_fast(neurons, check))
            else:
                neurons[:, neuron.CHECK] = check
                times, weights, targets, numbers = store.drain(pool)
                return spikes, (
                    times,
                    weights,
                    targets,
                    log.time[numbers],
                    log.projection[numbers],
                    log.source[numbers],
                )

    def _refuse(self, place: int) -> NoReturn:
        for item, at in zip(self.network.populations, self.layout.offset.tolist(), strict=True):
            if at <= place < at + item.size:
                raise InputError(
                    f"engine 'event': population {item.name!r}, neuron {place - at}, fires again at the same instant: "
                    "drive or currents are too strong for its threshold; expected at most one spike an instant; give "
                    "it a refractory time t_ref or smaller weights"
                )
        raise AssertionError("no neuron fires twice at one instant")


def _too_fast(neurons: Floats, check: Floats) -> int:
    """Return the neuron that would fire twice at one instant."""
    return int(np.flatnonzero((neurons[:, neuron.EXACT] == 1) & (check <= neurons[:, neuron.LAST]))[0])
