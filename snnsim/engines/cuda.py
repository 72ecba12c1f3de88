"""The CUDA engine: many samples at once on an NVIDIA GPU, with the bits of the clock engine in float64.

Arrivals are gathered: every target adds its incoming synapses in the canonical order. Into large sparse populations
spikes are scattered instead, with atomic additions, where :mod:`snnsim.engines.cuda_exact` proves that their order
changes no bit; in float32 weights are rounded to a grid on which that holds. Which of the two is taken depends on the
network, the dtype and whether more than 255 input events coincide; ``Result.notes["arrivals"]`` says it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.device import check_device
from snnsim.engines import Dtype, Inputs, Result, SampleState, State
from snnsim.engines.clock_plan import Layout, make_layout
from snnsim.engines.clock_stimuli import drives, spread
from snnsim.engines.collect import SampleRun, accumulate, collect
from snnsim.engines.cuda_batch import Batch, Shape, bytes_of_sample
from snnsim.engines.cuda_device import DeviceNetwork, check_memory, free_memory, upload
from snnsim.engines.cuda_exact import MOST
from snnsim.engines.cuda_noise import make_noise
from snnsim.engines.cuda_plan import CudaPlan, longest_of, make_plan
from snnsim.engines.cuda_synapses import DENSE, SCATTER_FROM, choose, gathered, scattered
from snnsim.engines.initial import rest_values
from snnsim.engines.stochastic import plain, releases
from snnsim.errors import InputError
from snnsim.kernels import clock_rows, clock_tables
from snnsim.kernels.clock_tables import DRIVE
from snnsim.network import Network
from snnsim.stimuli import Poisson

__all__ = ["CudaEngine", "CudaRunner"]

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]

CHUNK = 256  # steps run before spikes are fetched
MAX_CHUNK = 2048  # where delays are long
MAX_BATCH = 256  # samples at once by default
SHARE = 0.8  # of the free memory that samples may take
MAX_INDEX = 2**31 - 1  # of a thread


class CudaEngine:
    """Runs networks of LIF, IF, LI, CubaLIF, CubaLI, ExpCurrentLIF and AdaptiveLIF neurons; see the module.

    Args:
        chunk: Steps run before spikes are fetched; changes no bit.
        scatter_from: Synapses of a port from which spikes are scattered where they may be.
        dense: Share of existing synapses of a port from which they are not.
    """

    def __init__(self, chunk: int | None = None, scatter_from: int = SCATTER_FROM, dense: float = DENSE) -> None:
        self.chunk, self.scatter_from, self.dense = chunk, scatter_from, dense

    def prepare(self, network: Network, dtype: Dtype, threads: int) -> CudaRunner:
        """Lay the network out; ``threads`` has no effect.

        Raises:
            InputError: There is no usable device, or a neuron or synapse has no CUDA kernel.
        """
        check_device("cuda", "engine")
        _refuse(network)
        layout = make_layout(network, dtype)
        plan = make_plan(network, layout)
        return CudaRunner(network, dtype, layout, plan, self.chunk, self.scatter_from, self.dense)


def _refuse(network: Network) -> None:
    """Refuse what has no CUDA kernel."""
    network = plain(network)
    random = {network.projections[number].target for number in releases(network)}
    for item in network.populations:
        own = getattr(item.neuron, "noisy", False) or item.name in random
        kinds = ("LIF", "IF", "LI", "CubaLIF", "CubaLI", "ExpCurrentLIF", "AdaptiveLIF")
        if own or item.neuron.kind not in kinds:
            raise InputError(
                f"engine 'cuda': population {item.name!r}: {item.neuron.kind} has no CUDA kernel, only "
                f"{', '.join(kinds)}; use engine='clock'"
            )


@dataclass(frozen=True, eq=False)
class _Ready:
    """A network on the device: where arrivals are scattered, and it."""

    flags: npt.NDArray[np.bool_]
    grids: Array
    device: DeviceNetwork


@dataclass(frozen=True, eq=False)
class CudaRunner:
    """A network ready to run.

    Attributes:
        network: The network.
        dtype: Of the run.
        layout: As the clock engine lays it out.
        plan: In the order of the device.
        chunk: Steps run before spikes are fetched; None: chosen from the delays.
        scatter_from: Synapses of a port from which spikes are scattered where they may be.
        dense: Share of existing synapses of a port from which they are not.
        kept: The network on the device, by whether more input events coincide than a byte holds.
    """

    network: Network
    dtype: Dtype
    layout: Layout
    plan: CudaPlan
    chunk: int | None = None
    scatter_from: int = SCATTER_FROM
    dense: float = DENSE
    kept: dict[bool, _Ready] = field(default_factory=dict)

    def _ready(self, piled: bool) -> _Ready:
        """Return the network on the device, uploaded when it is first used."""
        if piled not in self.kept:
            flags, grids = choose(self.network, self.layout, self.dtype, self.scatter_from, self.dense, piled)
            self.kept.clear()  # one copy of the synapses at a time
            device = upload(
                self.plan,
                gathered(self.network, self.layout, self.plan, flags, self.dtype),
                scattered(self.network, self.layout, self.plan, flags, grids),
            )
            self.kept[piled] = _Ready(flags, grids, device)
        return self.kept[piled]

    def run(
        self, inputs: Inputs, *, state: State | None = None, record: tuple[str, ...] = (), batch: int | None = None
    ) -> Result:
        """Run every sample; see :func:`snnsim.engines.simulate`.

        Args:
            inputs: Events on the grid.
            state: To go on from.
            record: Names of variables.
            batch: Samples on the device at once; default as many as fit, 256 at most.

        Raises:
            InputError: A sample, or ``batch`` samples, do not fit on the device.
        """
        most = max((int(part.max(initial=0)) for part in inputs.count), default=0)
        ready = self._ready(most > MOST)
        started = time.perf_counter()
        columns, where = self._columns(record)
        n = len(inputs)
        wide = "float64" if ready.flags.any() else self.dtype
        trains = "uint8" if most <= MOST else "int32"
        ahead = longest_of(self.layout, np.arange(ready.flags.size))
        steps = int(inputs.n_steps.max(initial=1))
        chunk = max(1, min(self.chunk or max(CHUNK, min(ahead, MAX_CHUNK)), steps))
        width = sum(part.stop - part.start for part in where.values())
        shape = Shape(1, chunk, ahead, width, self.dtype, wide, trains, events_of_sample(inputs))
        shape = self._sized(inputs, shape, ready, batch)
        runs: list[SampleRun] = []
        for begin in range(0, n, shape.samples):
            some = range(begin, min(begin + shape.samples, n))
            part = replace(shape, samples=len(some))
            runs += _Run(self, ready, inputs, part, some, state, record, columns, where).run()
        result = collect(
            self.network,
            inputs,
            runs,
            record,
            state,
            engine="cuda",
            dtype=self.dtype,
            seconds=time.perf_counter() - started,
        )
        return replace(result, notes={"arrivals": self._arrivals(ready), "batch": shape.samples, "chunk": shape.chunk})

    def _arrivals(self, ready: _Ready) -> dict[str, str]:
        """Return how the arrivals of each receptor are summed."""
        found: dict[str, str] = {}
        table = self.layout.common["populations"]
        for p, item in enumerate(self.network.populations):
            receptors = item.neuron.receptors or ("",)
            for receptor, s in zip(
                receptors, range(table[p, clock_tables.FIRST_PORT], table[p, clock_tables.LAST_PORT]), strict=True
            ):
                name = f"{item.name}.{receptor}" if receptor else item.name
                grid = "scatter, weights rounded to a grid" if ready.grids[s] else "scatter"
                found[name] = grid if ready.flags[s] else "gather"
        return found

    def _columns(self, record: tuple[str, ...]) -> tuple[npt.NDArray[np.int32], dict[str, slice]]:
        """Return the recorded column of each variable and neuron, and the columns of each name."""
        readout, names = self.network.readout, list(record)
        if readout is not None and readout.variable == "v":
            names.append(f"{readout.population}.v")
        columns = np.full((3, self.plan.n_neurons), -1, np.int32)
        where: dict[str, slice] = {}
        places = {item.name: p for p, item in enumerate(self.network.populations)}
        begin = 0
        for name in dict.fromkeys(names):
            population, _, variable = name.rpartition(".")
            item = self.network.populations[places[population]]
            low = int(self.plan.neuron_low[places[population]])
            columns[item.neuron.variables.index(variable), low : low + item.size] = np.arange(begin, begin + item.size)
            where[name] = slice(begin, begin + item.size)
            begin += item.size
        return columns, where

    def _sized(self, inputs: Inputs, shape: Shape, ready: _Ready, batch: int | None) -> Shape:
        """Return how many samples and steps are on the device at once."""
        plan, longest = self.plan, ready.device.longest
        noisy = sum(
            self.network.population(item.population).size for item in inputs.stimuli if isinstance(item, Poisson)
        )
        scatters = ready.device.scatters
        free = SHARE * free_memory()  # of the device; infinite in the simulator
        while True:
            each = bytes_of_sample(plan, longest, scatters, noisy, shape)
            numbers = (shape.chunk + shape.ahead + longest) * max(plan.n_ports, plan.n_units)
            wanted = min(batch or MAX_BATCH, max(len(inputs), 1))
            if shape.chunk == 1 or self.chunk or (each * (batch or 1) <= free and numbers <= MAX_INDEX):
                break
            shape = replace(shape, chunk=max(1, shape.chunk // 2))
        together = wanted if batch else 1
        what = f"{together} samples of {plan.n_neurons} neurons with delays of {shape.ahead} steps"
        check_memory(each * together, free, what, "use a smaller batch, shorter delays, or engine='clock'")
        if numbers * together > MAX_INDEX:
            raise InputError(
                f"engine 'cuda': {what} hold {numbers * together} numbers, at most {MAX_INDEX} are indexed; use a "
                "smaller batch, or shorter delays"
            )
        fitting = min(int(min(free, 2.0**62)) // each, MAX_INDEX // numbers)
        return replace(shape, samples=max(1, wanted if batch else min(wanted, fitting)))


class _Run:
    """One batch, from its state to its results."""

    def __init__(
        self,
        runner: CudaRunner,
        ready: _Ready,
        inputs: Inputs,
        shape: Shape,
        some: range,
        state: State | None,
        record: tuple[str, ...],
        columns: npt.NDArray[np.int32],
        where: dict[str, slice],
    ) -> None:
        self.runner, self.inputs, self.shape, self.some = runner, inputs, shape, some
        self.record, self.where = record, where
        self.before = None if state is None else [state.samples[b] for b in some]
        self.n_steps = inputs.n_steps[some.start : some.stop]
        self.first_step = np.zeros(len(some), np.int64)
        self.readout: list[Any] = [None] * len(some)
        if self.before is not None:
            self.first_step[:] = [item.step for item in self.before]
            self.readout = [item.readout for item in self.before]
        ids = inputs.first.sample_ids
        sample_ids = np.array(some) if ids is None else np.asarray(ids[some.start : some.stop], np.int64)
        network, plan = runner.network, runner.plan
        noise = make_noise(network, plan, inputs.stimuli, inputs.seed, runner.dtype, shape.chunk, shape.samples)
        self.batch = Batch(
            plan, ready.device, shape, noise, columns, self.first_step, self.n_steps.astype(np.int64), sample_ids
        )
        n, populations = len(some), network.populations
        self.spikes: list[dict[str, list[tuple[Integers, Integers]]]] = [
            {item.name: [] for item in populations if item.neuron.spiking} for _ in range(n)
        ]
        self.records: list[dict[str, list[Array]]] = [{name: [] for name in record} for _ in range(n)]
        self.pending: list[Array] = [np.zeros((0, 0))] * n

    def run(self) -> list[SampleRun]:
        """Run all steps."""
        runner, shape, inputs = self.runner, self.shape, self.inputs
        self._start()
        last = int(self.n_steps.max(initial=0))
        network = spread(runner.network, inputs.stimuli)
        stretches = drives(network, inputs.stimuli, last)
        events = self._events()
        edges = sorted({*range(0, last, shape.chunk), *(edge for edge, _ in stretches), last})
        self._finish(0, 0)
        drive = -1
        for begin, end in pairwise(edges):
            if begin == end:
                continue
            now = max(k for k, item in enumerate(stretches) if item[0] <= begin)
            if now != drive:
                self.batch.set_drive(self._drive(stretches[now][1]))
                drive = now
            low, high = np.searchsorted(events[0], (begin, end))
            row, unit, b, count = (part[low:high] for part in events)
            self.batch.run(end - begin, row - begin, unit, b, count)
            self._fetch(begin, end)
            self._finish(begin, end)
            self.batch.go_on(end - begin)
        return self._results()

    def _start(self) -> None:
        plan, layout, samples = self.runner.plan, self.runner.layout, self.shape.samples
        rest = rest_values(self.runner.network, self.runner.dtype)
        values = np.zeros((3, plan.n_neurons, samples), self.runner.dtype)
        left = np.zeros((plan.n_neurons, samples), np.int64)
        parts: list[tuple[Array, ...]] = []
        ports = layout.common["ports"]
        for k in range(samples):
            given = rest if self.before is None else self.before[k].values
            values[: given.shape[0], :, k] = given[:, plan.neuron]
            if self.before is None:
                continue
            left[:, k] = self.before[k].left[plan.neuron]
            at = self.before[k].pending_place
            s = np.searchsorted(ports[:, clock_rows.RING], at, side="right") - 1
            row, unit = np.divmod(at - ports[s, clock_rows.RING], ports[s, clock_rows.PORT_SIZE])
            parts.append((plan.port_low[s] + unit, row, np.full(at.size, k), self.before[k].pending_value))
        nothing = np.zeros(0, np.int64)
        joined = [np.concatenate([nothing, *column]) for column in zip(*parts, strict=True)] or [nothing] * 4
        port, row, b = (part.astype(np.int64) for part in joined[:3])
        self.batch.start(values, self.first_step + left, port, row, b, joined[3])

    def _drive(self, moved: dict[int, Array]) -> Array:
        plan = self.runner.plan
        drive: Array = plan.numbers[DRIVE].copy()
        for p, value in moved.items():
            low = int(plan.neuron_low[p])
            drive[low : low + self.runner.network.populations[p].size] = value
        return drive

    def _events(self) -> tuple[Integers, Integers, Integers, Integers]:
        """Return steps, units, samples and counts of the batch's input events, by step."""
        inputs, some = self.inputs, self.some
        parts: list[tuple[Integers, ...]] = [(np.zeros(0, np.int64),) * 4]
        for low, start, step, unit, count in zip(
            *(self.runner.plan.input_low, inputs.start, inputs.step, inputs.unit, inputs.count), strict=True
        ):
            first, last = int(start[some.start]), int(start[some.stop])
            b = np.repeat(np.arange(len(some)), np.diff(start[some.start : some.stop + 1]))
            parts.append((step[first:last], low + unit[first:last], b, count[first:last]))
        step, unit, b, count = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.argsort(step, kind="stable")
        return step[order], unit[order], b[order], count[order]

    def _fetch(self, begin: int, end: int) -> None:
        """Take over what a chunk gave."""
        runner, network, length = self.runner, self.runner.network, end - begin
        b, row, neuron = self.batch.spikes(length)
        edge = np.searchsorted(b, np.arange(len(self.some) + 1))
        recorded = self.batch.recorded(length)
        readout = network.readout
        for k in range(len(self.some)):
            steps = max(0, min(length, int(self.n_steps[k]) - begin))
            if not steps:
                continue
            mine = slice(edge[k], edge[k + 1])
            rows, neurons = row[mine], neuron[mine]
            for p, item in enumerate(network.populations):
                if item.neuron.spiking:
                    low = int(runner.plan.neuron_low[p])
                    here = (neurons >= low) & (neurons < low + item.size)
                    self.spikes[k][item.name].append((begin + rows[here], neurons[here] - low))
            for name in self.record:
                self.records[k][name].append(np.ascontiguousarray(recorded[:steps, self.where[name], k]))
            if readout is not None:
                if readout.variable == "v":
                    trace = recorded[:steps, self.where[f"{readout.population}.v"], k]
                else:
                    at, unit = self.spikes[k][readout.population][-1]
                    trace = np.zeros((steps, network.population(readout.population).size))
                    trace[at - begin, unit] = 1
                first = int(self.first_step[k]) + begin
                self.readout[k] = accumulate(readout, network, np.ascontiguousarray(trace), first, self.readout[k])
            if self.inputs.progress is not None:
                self.inputs.progress(steps)

    def _finish(self, begin: int, end: int) -> None:
        """Keep what is on its way to the samples whose last step was in ``begin .. end``."""
        ended = [k for k, n in enumerate(self.n_steps) if (begin < n <= end) or n == end == 0]
        if ended:
            sums = self.batch.pending(ended, [int(self.n_steps[k]) - begin for k in ended])
            for k, mine in zip(ended, sums, strict=True):
                self.pending[k] = mine

    def _results(self) -> list[SampleRun]:
        runner, plan, layout = self.runner, self.runner.plan, self.runner.layout
        values, release = self.batch.state()
        n_rows = rest_values(runner.network, runner.dtype).shape[0]
        runs = []
        for k in range(len(self.some)):
            spikes = {
                name: (
                    np.concatenate([np.zeros(0, np.int64), *(part[0] for part in parts)]),
                    np.concatenate([np.zeros(0, np.int64), *(part[1] for part in parts)]).astype(np.int32),
                )
                for name, parts in self.spikes[k].items()
            }
            records = {}
            for name, pieces in self.records[k].items():
                size = runner.network.population(name.rpartition(".")[0]).size
                records[name] = np.concatenate([np.zeros((0, size), runner.dtype), *pieces])
            step = int(self.first_step[k] + self.n_steps[k])
            after = np.zeros((n_rows, plan.n_neurons), runner.dtype)
            left = np.zeros(plan.n_neurons, np.int64)
            after[:, plan.neuron] = values[:n_rows, :, k]
            left[plan.neuron] = np.maximum(release[:, k] - step, 0)
            place, sums = _pending(layout, plan, self.pending[k])
            state = SampleState(step, after, left, place, sums, self.readout[k])
            runs.append(SampleRun(spikes, records, self.readout[k], state))
        return runs


def events_of_sample(inputs: Inputs) -> int:
    """Return the input events of the sample that has most."""
    per_sample = sum((np.diff(start) for start in inputs.start), np.zeros(len(inputs), np.int64))
    return int(per_sample.max(initial=0))


def _pending(layout: Layout, plan: CudaPlan, rows: Array) -> tuple[Integers, Array]:
    """Return places and sums of what is on its way, ``(ahead, n_ports)``, as a SampleState holds them."""
    places: list[Integers] = [np.zeros(0, np.int64)]
    sums: list[Array] = [np.zeros(0, rows.dtype)]
    for port, low in zip(layout.common["ports"], plan.port_low, strict=True):
        size = int(port[clock_rows.PORT_SIZE])
        mine = rows[: port[clock_rows.LIVE], low : low + size].reshape(-1)
        there = np.flatnonzero(mine)
        places.append(int(port[clock_rows.RING]) + there)
        sums.append(mine[there])
    return np.concatenate(places), np.concatenate(sums)
