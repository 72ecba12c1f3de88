"""Run an integer network: exact arithmetic, so the result depends on neither threads nor batches.

``engine="integer"`` is the Numba engine, ``"reference"`` the plain NumPy definition it is compared with.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from snnsim.engines import Inputs, Result, grid_inputs
from snnsim.engines.collect import add_rows, scores
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.integer_network import IntegerNetwork
from snnsim.kernels.integer import run_integers
from snnsim.kernels.integer_tables import CURRENT, KINDS, LAWS, PARAMETERS, STATES, V
from snnsim.kernels.reference_integer import ReferenceIntegers, ReferenceSynapses, simulate_integers
from snnsim.kernels.reference_integer_scores import SOFTMAX_ONE, fixed_scores, softmax_bits
from snnsim.machine import available_memory, usable_cores
from snnsim.metrics import Operations

__all__ = ["IntegerEngine", "simulate_integer"]

IntegerEngine = Literal["integer", "reference"]
Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

WINDOW = 2**24
"""Neuron-steps whose spikes are kept before they are listed."""

MAX_RING_BYTES = 2**33  # where the system does not say what is left
VARIABLES = {"v": V, "i": CURRENT}


@dataclass(frozen=True, eq=False)
class _Layout:
    """An integer network as tables; see :mod:`snnsim.kernels.integer`."""

    low: Integers
    order: Integers
    kinds: Integers
    parameters: Integers
    synapses: tuple[Integers, npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int32]]
    input_low: Integers
    slots: int
    out_degree: Integers
    dense: int


@dataclass(frozen=True, eq=False)
class _Sample:
    """What one sample gave: spikes by population (step, unit, one entry a spike), traces by record, counts."""

    spikes: dict[str, tuple[Integers, Integers]]
    traces: dict[str, Integers]
    overflow: Integers


def _joined(parts: Iterable[npt.NDArray[Any]]) -> Integers:
    return np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.int64)


def _edges(sizes: Iterable[int]) -> Integers:
    return np.concatenate(([0], np.cumsum(list(sizes), dtype=np.int64))).astype(np.int64)


def _layout(network: IntegerNetwork) -> _Layout:
    low = _edges(item.size for item in network.populations)
    input_low = _edges(item.size for item in network.inputs)
    rows = PARAMETERS[network.law]
    parameters = np.zeros((len(rows), int(low[-1])), np.int64)
    begin = {item.name: int(low[place]) for place, item in enumerate(network.populations)}
    first = {item.name: int(input_low[place]) for place, item in enumerate(network.inputs)}
    first |= {name: int(input_low[-1]) + neuron for name, neuron in begin.items()}
    for item in network.populations:
        for name, values in item.parameters.items():
            parameters[rows.index(name), begin[item.name] : begin[item.name] + item.size] = values
    projections = network.projections
    source = _joined(item.sources() + first[item.source] for item in projections)
    by_source = np.argsort(source, kind="stable")
    columns = (
        _joined(item.unit.astype(np.int64) + begin[item.target] for item in projections),
        _joined(item.weight for item in projections),
        _joined(item.delay for item in projections),
    )
    unit, weight, delay = (np.ascontiguousarray(column[by_source], dtype=np.int32) for column in columns)
    degree = np.bincount(source, minlength=int(input_low[-1] + low[-1])).astype(np.int64)
    sizes = {item.name: item.size for item in network.inputs} | {item.name: item.size for item in network.populations}
    return _Layout(
        low=low,
        order=np.array(network.order(), np.int64),
        kinds=np.array([KINDS[item.kind] for item in network.populations], np.int64),
        parameters=parameters,
        synapses=(_edges(degree.tolist()), unit, weight, delay),
        input_low=input_low,
        slots=network.max_delay + 1,
        out_degree=degree,
        dense=sum(sizes[item.source] * sizes[item.target] for item in projections),
    )


class _Runner:
    """An integer network ready to run."""

    def __init__(self, network: IntegerNetwork, record: tuple[str, ...]) -> None:
        self.network = network
        self.record = record
        self.layout = _layout(network)
        self.names = list(record)
        readout = network.readout
        if readout is not None and readout.variable == "v" and f"{readout.population}.v" not in self.names:
            self.names.append(f"{readout.population}.v")
        place = {item.name: number for number, item in enumerate(network.populations)}
        self.shown = np.zeros((len(self.names), 3), np.int64)
        for row, name in enumerate(self.names):
            population, _, variable = name.rpartition(".")
            number = place[population]
            low = self.layout.low
            self.shown[row] = VARIABLES[variable], low[number], low[number + 1] - low[number]

    def sample(self, inputs: Inputs, b: int) -> _Sample:
        """Run one sample with the Numba engine."""
        layout = self.layout
        n_neurons, n_steps = int(layout.low[-1]), int(inputs.n_steps[b])
        step, source, count = self._events(inputs, b)
        state = np.zeros((STATES, n_neurons), np.int64)
        ring = np.zeros((layout.slots, n_neurons), np.int64)
        overflow = np.zeros(n_neurons, np.int64)
        window = max(1, min(n_steps, WINDOW // n_neurons))
        edges = _edges(self.shown[:, 2].tolist())
        traces = np.zeros((n_steps, int(edges[-1])), np.int64)
        found: list[tuple[Integers, Integers]] = []
        for first in range(0, n_steps, window):
            length = min(window, n_steps - first)
            counts = np.zeros((length, n_neurons), np.uint8)
            start = np.searchsorted(step, np.arange(first, first + length + 1))
            events = (start.astype(np.int64), source, count)
            known = run_integers(
                LAWS[self.network.law],
                *(layout.order, layout.kinds, layout.low, layout.parameters, layout.synapses, state, ring),
                *(first, events, counts, overflow, self.shown, traces[first : first + length]),
            )
            if not known:
                raise InputError(f"law {self.network.law!r}: the integer engine does not have it")
            steps, neurons = np.nonzero(counts)
            times = counts[steps, neurons].astype(np.int64)
            found.append((np.repeat(steps + first, times), np.repeat(neurons, times)))
        steps, neurons = _joined(part[0] for part in found), _joined(part[1] for part in found)
        spikes = {}
        for place, item in enumerate(self.network.populations):
            if item.spiking:
                mine = (neurons >= layout.low[place]) & (neurons < layout.low[place + 1])
                spikes[item.name] = (steps[mine], neurons[mine] - layout.low[place])
        shown = {name: traces[:, edges[row] : edges[row + 1]] for row, name in enumerate(self.names)}
        return _Sample(spikes, shown, overflow)

    def _events(self, inputs: Inputs, b: int) -> tuple[Integers, Integers, Integers]:
        """Return step, source and count of a sample's events, inputs joined, by step."""
        parts = [slice(int(start[b]), int(start[b + 1])) for start in inputs.start]
        step = _joined(inputs.step[j][part] for j, part in enumerate(parts))
        source = _joined(inputs.unit[j][part] + self.layout.input_low[j] for j, part in enumerate(parts))
        count = _joined(inputs.count[j][part] for j, part in enumerate(parts))
        by_step = np.argsort(step, kind="stable")
        return step[by_step], source[by_step], count[by_step]

    def reference(self, inputs: Inputs, b: int) -> _Sample:
        """Run one sample with the NumPy definition."""
        network = self.network
        place = {item.name: number for number, item in enumerate(network.populations)}
        given = {item.name: number for number, item in enumerate(network.inputs)}
        counts = []
        for j, item in enumerate(network.inputs):
            part = slice(int(inputs.start[j][b]), int(inputs.start[j][b + 1]))
            counts.append(np.zeros((int(inputs.n_steps[b]), item.size), np.int64))
            counts[j][inputs.step[j][part], inputs.unit[j][part]] = inputs.count[j][part]
        run = simulate_integers(
            network.law,
            [ReferenceIntegers(item.size, item.kind, item.parameters) for item in network.populations],
            network.order(),
            [
                ReferenceSynapses(
                    item.source in given,
                    given[item.source] if item.source in given else place[item.source],
                    place[item.target],
                    *(item.sources(), item.unit, item.weight, item.delay),
                )
                for item in network.projections
            ],
            counts,
            int(inputs.n_steps[b]),
        )
        spikes = {}
        for population in network.populations:
            if population.spiking:
                fired = run.spikes[place[population.name]]
                steps, units = np.nonzero(fired)
                times = fired[steps, units]
                spikes[population.name] = (np.repeat(steps, times), np.repeat(units, times))
        traces = {}
        for name in self.names:
            shown, _, variable = name.rpartition(".")
            traces[name] = (run.v if variable == "v" else run.i)[place[shown]]
        return _Sample(spikes, traces, _joined(run.overflow))

    def logits(self, sample: _Sample, n_steps: int) -> Floats:
        """Return a sample's class scores; ``n_steps`` without those added for the latency."""
        network = self.network
        readout = network.readout
        assert readout is not None
        first = network.latency[readout.population]
        rows: Floats
        if readout.variable == "v":
            bits = softmax_bits(network.scale[readout.population])
            if network.law == "fixed" and readout.reduce == "sum_softmax" and bits is not None:
                trace = sample.traces[f"{readout.population}.v"][first + readout.skip_steps : first + n_steps]
                return np.asarray(fixed_scores(readout.reduce, trace, bits) / SOFTMAX_ONE)
            rows = sample.traces[f"{readout.population}.v"] / network.scale[readout.population]
        else:
            steps, units = sample.spikes[readout.population]
            rows = np.zeros((max(n_steps + first, 0), network.population(readout.population).size))
            inside = steps < n_steps + first
            np.add.at(rows, (steps[inside], units[inside]), 1.0)
        return scores(
            readout, add_rows(readout, rows[max(first + readout.skip_steps, 0) : max(first + n_steps, 0)], None)
        )


def simulate_integer(
    network: IntegerNetwork,
    events: Events | Mapping[str, Events] | None,
    *,
    engine: IntegerEngine = "integer",
    record: Iterable[str] = (),
    threads: int | None = None,
    n_steps: npt.ArrayLike | None = None,
    tail_steps: int = 0,
    extra_steps: int | None = None,
    binary_inputs: bool = False,
) -> Result:
    """Run an integer network on samples of events.

    Spikes stand at the steps of the integer network, ``network.latency`` later than those of the float network. So
    that nothing is cut off, a sample runs for ``network.max_latency`` more steps than it has; events beyond the sample
    do not act. The readout is moved by its population's latency and reads ``v / scale``.

    Args:
        network: What to run.
        events: Events of the only input, or a dict with Events for each input; None if there is no input.
        engine: ``"integer"`` or ``"reference"``.
        record: ``"population.v"`` or ``"population.i"``, in integer units at the end of each step.
        threads: Threads; default all processors. The result does not depend on it.
        n_steps: Steps of every sample, or one number a sample; default ``events.n_steps(dt)``.
        tail_steps: Empty steps added to every sample.
        extra_steps: Steps after a sample's last; default ``network.max_latency``.
        binary_inputs: Several events of a channel in one step act as one, as on chips whose inputs are not graded.

    Returns:
        The result. ``notes["overflow"]`` holds by population in how many neuron-steps a number left its range (and
        was wrapped or saturated, as the law says); ``notes["latency"]`` the latencies.

    Raises:
        InputError: Something does not fit; the sentence says what.
    """
    if not isinstance(network, IntegerNetwork):
        raise InputError(
            f"network: expected an IntegerNetwork, got {type(network).__name__}; quantise a Network with "
            "snnsim.quantize.quantize, or run it with snnsim.engines.simulate"
        )
    if engine not in ("integer", "reference"):
        raise InputError(f"engine: expected 'integer' or 'reference', got {engine!r}")
    for name, value, least in (("threads", threads, 1), ("extra_steps", extra_steps, 0)):
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if value is not None and (not whole or value < least):
            raise InputError(f"{name}: expected an integer of at least {least}, got {value!r}")
    names = (record,) if isinstance(record, str) else tuple(record)
    for shown in names:
        population, _, variable = str(shown).rpartition(".")
        if variable not in VARIABLES or not population:
            raise InputError(f"record: expected 'population.v' or 'population.i', got {shown!r}")
        network.population(population)
    inputs = grid_inputs(network, events, n_steps, tail_steps)
    steps = inputs.n_steps
    inputs = replace(inputs, n_steps=steps + (network.max_latency if extra_steps is None else int(extra_steps)))
    if binary_inputs:
        inputs = replace(inputs, count=tuple(np.ones_like(part) for part in inputs.count))
    runner = _Runner(network, names)
    free = available_memory() or MAX_RING_BYTES
    threads = min(int(threads or usable_cores()), max(1, len(inputs)))
    if threads * runner.layout.slots * int(runner.layout.low[-1]) * 8 > free:
        raise InputError(
            f"integer engine: delays of up to {network.max_delay} steps need more than the "
            f"{free / 2**30:.1f} GiB that are free; use fewer threads or shorter delays"
        )
    started = time.perf_counter()
    work = runner.sample if engine == "integer" else runner.reference
    if threads > 1 and engine == "integer":
        with ThreadPoolExecutor(threads) as pool:
            samples = list(pool.map(lambda b: work(inputs, b), range(len(inputs))))
    else:
        samples = [work(inputs, b) for b in range(len(inputs))]
    seconds = time.perf_counter() - started
    logits = None
    if network.readout is not None:
        size = network.population(network.readout.population).size
        logits = np.zeros((len(samples), size))
        for b, sample in enumerate(samples):
            logits[b] = runner.logits(sample, int(steps[b]))
    spikes = _events_of(network, inputs, samples)
    low = runner.layout.low
    overflow = {
        item.name: sum(int(sample.overflow[low[k] : low[k + 1]].sum()) for sample in samples)
        for k, item in enumerate(network.populations)
    }
    return Result(
        spikes=spikes,
        logits=logits,
        records={name: [sample.traces[name] for sample in samples] for name in names},
        state=None,
        operations=_operations(network, runner.layout, inputs, spikes),
        n_steps=inputs.n_steps,
        dropped=inputs.dropped,
        engine=engine,
        seconds=seconds,
        notes={"overflow": overflow, "latency": dict(network.latency), "law": network.law},
    )


def _events_of(network: IntegerNetwork, inputs: Inputs, samples: list[_Sample]) -> dict[str, Events]:
    first = inputs.first
    spikes = {}
    for item in network.populations:
        if item.spiking:
            parts = [sample.spikes[item.name] for sample in samples]
            spikes[item.name] = Events(
                times=_joined(part[0] for part in parts).astype(np.float64) * network.dt,
                units=_joined(part[1] for part in parts).astype(np.int32),
                offsets=_edges(part[0].size for part in parts),
                labels=first.labels,
                n_units=item.size,
                duration=inputs.n_steps.astype(np.float64) * network.dt,
                speakers=first.speakers,
                class_names=first.class_names,
                sample_ids=first.sample_ids,
            )
    return spikes


def _operations(network: IntegerNetwork, layout: _Layout, inputs: Inputs, spikes: dict[str, Events]) -> Operations:
    """Count as :class:`snnsim.metrics.Operations` says; a neuron that spikes several times in a step is active once."""
    effective = 0
    counts: dict[str, int] = {}
    for j, item in enumerate(network.inputs):
        active = np.bincount(inputs.unit[j], minlength=item.size)
        effective += int(active @ layout.out_degree[layout.input_low[j] : layout.input_low[j] + item.size])
        counts[item.name] = int(inputs.count[j].sum())
    for place, population in enumerate(network.populations):
        if population.spiking:
            events = spikes[population.name]
            sample = np.repeat(np.arange(len(events)), np.diff(events.offsets))
            once = np.ones(events.n_events, np.bool_)
            once[1:] = (np.diff(sample) != 0) | (np.diff(events.times) != 0) | (np.diff(events.units) != 0)
            active = np.bincount(events.units[once], minlength=population.size)
            first = int(layout.input_low[-1] + layout.low[place])
            effective += int(active @ layout.out_degree[first : first + population.size])
            counts[population.name] = events.n_events
    steps = int(inputs.n_steps.sum())
    return Operations(effective, steps * layout.dense, steps * int(layout.low[-1]), counts, len(inputs))
