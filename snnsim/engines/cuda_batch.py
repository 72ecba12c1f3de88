"""A batch of samples on the device: its state, and the kernels that take it through a chunk of steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import cuda

from snnsim.engines.cuda_device import DeviceNetwork
from snnsim.engines.cuda_noise import Noise
from snnsim.engines.cuda_plan import Component, CudaPlan, Stage
from snnsim.kernels.clock_tables import DRIVE
from snnsim.kernels.cuda_gather import gather, gather_pending
from snnsim.kernels.cuda_laws import advance, receive
from snnsim.kernels.cuda_scatter import CIRCLE_THREADS, list_spikes, run_circle, scatter
from snnsim.kernels.cuda_support import SIMULATED, device_array, launch
from snnsim.kernels.cuda_trains import collect_spikes, place_numbers, shift_rows

__all__ = ["MANY", "Batch", "Shape", "bytes_of_sample"]

MANY = 32
"""Samples from which samples lie side by side in memory, and not units."""

BLOCKS, THREADS = (1, 4) if SIMULATED else (1024, 128)
"""Of a launch that scatters: blocks that share the spikes and their rows, threads that share a row."""

MOST_PARTS = 16
"""Into how many the rows of a spike are shared out at most."""

CIRCLE_ITEMS = 2**18
"""Neuron-steps of a window up to which all windows of a chunk run in one launch."""

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shape:
    """Sizes of what a batch keeps on the device.

    Attributes:
        samples: Samples.
        chunk: Most steps that are run together.
        ahead: Steps that arrivals lie ahead: the longest delay.
        n_columns: Recorded columns.
        dtype: Of the run.
        exact: Type of the arrivals: float64 where spikes are scattered.
        trains: Type of the trains.
        events: Most input events of a sample that may be on the device at once.
    """

    samples: int
    chunk: int
    ahead: int
    n_columns: int
    dtype: str
    exact: str
    trains: str
    events: int = 0

    @property
    def fast(self) -> bool:
        """Whether samples lie side by side."""
        return self.samples >= MANY


def _rows_listed(component: Component, chunk: int) -> int:
    return chunk if component.window is None else min(component.window, chunk)


def bytes_of_sample(plan: CudaPlan, longest: int, scatters: bool, noisy: int, shape: Shape) -> int:
    """Return the bytes that one sample takes on the device.

    Args:
        plan: The network in the order of the device.
        longest: The longest delay of synapses that are gathered.
        scatters: Whether spikes are scattered.
        noisy: Neurons of all Poisson stimuli.
        shape: Of the batch.
    """
    kind, train = np.dtype(shape.dtype).itemsize, np.dtype(shape.trains).itemsize
    total = (shape.chunk + 2 * shape.ahead) * plan.n_ports * np.dtype(shape.exact).itemsize
    total += (longest + shape.chunk) * plan.n_units * train
    total += plan.n_neurons * (3 * kind + 8 + shape.chunk * train)
    total += shape.chunk * (shape.n_columns * kind + noisy)
    total += shape.events * (16 + train)  # where, how many, and once more as spikes
    if scatters:
        total += 8 * max(_listed(plan, shape.chunk), 0)
    return total


def _listed(plan: CudaPlan, chunk: int) -> int:
    """Return the most spikes of a sample that one launch lists."""
    return max((s.high - s.low) * _rows_listed(c, chunk) for c in plan.components for s in c.stages)


class Batch:
    """The state of some samples on the device.

    Rows of trains and arrivals begin with the chunk: row 0 of the arrivals is its first step, and so is row
    ``longest`` of the trains, before which stand the steps that delays reach back to.

    Args:
        plan: The network in the order of the device.
        network: It, uploaded.
        shape: Sizes.
        noise: Poisson stimuli.
        columns: Column of each variable and neuron or -1, int32 ``(3, n_neurons)``.
        first_step: Step number of each sample's first step.
        n_steps: Steps of each sample.
        sample_ids: Of each sample.
    """

    def __init__(
        self,
        plan: CudaPlan,
        network: DeviceNetwork,
        shape: Shape,
        noise: Noise,
        columns: npt.NDArray[np.int32],
        first_step: Integers,
        n_steps: Integers,
        sample_ids: Integers,
    ) -> None:
        self.plan, self.network, self.shape, self.noise = plan, network, shape, noise
        self.samples, self.fast, self.reach = shape.samples, shape.fast, network.longest
        samples = self.samples
        self.train_width, self.arrival_width = plan.n_units * samples, plan.n_ports * samples
        self.arrivals = self._zeros((shape.chunk + shape.ahead) * self.arrival_width, shape.exact)
        self.trains = self._zeros((self.reach + shape.chunk) * self.train_width, shape.trains)
        self.values = cuda.device_array(3 * plan.n_neurons * samples, shape.dtype)
        self.release = cuda.device_array(plan.n_neurons * samples, np.int64)
        self.record = cuda.device_array(max(shape.chunk * shape.n_columns * samples, 1), shape.dtype)
        self.columns = device_array(columns.reshape(-1))
        listed = _listed(plan, shape.chunk) * samples if network.scatters else 1
        self.spike_unit, self.spike_when = cuda.device_array(listed, np.int32), cuda.device_array(listed, np.int32)
        self.blocks = 1 if SIMULATED else int(cuda.get_current_device().MULTIPROCESSOR_COUNT)
        self.parts = max(1, min(network.most_rows, MOST_PARTS))
        self.stages = [
            device_array(np.array([astuple(stage) for stage in component.stages], np.int64).reshape(-1))
            for component in plan.components
        ]
        launches = (
            1
            + len(plan.components)
            + sum(len(c.stages) * -(-shape.chunk // _rows_listed(c, shape.chunk)) for c in plan.components)
        )
        self.no_counts = np.zeros(launches, np.int64)
        self.counter = device_array(self.no_counts)
        room = shape.chunk * plan.n_neurons * samples * np.dtype(shape.trains).itemsize // 8
        self.keys = cuda.device_array(max(room, 1), np.int64)
        self.steps = device_array(n_steps)
        self.first_step, self.sample_ids = device_array(first_step), device_array(sample_ids)
        self.begun = 0

    def _zeros(self, n: int, kind: str) -> Any:
        """Return zeros on the device, made there."""
        rows = cuda.device_array(max(n, 1), kind)
        launch(shift_rows, n, (rows, n, 1, 1))
        return rows

    def place(self, unit: Array, sample: Array, size: int) -> Integers:
        """Return where units' numbers stand in a row, as :func:`snnsim.kernels.cuda_trains.place`."""
        unit, sample = unit.astype(np.int64), sample.astype(np.int64)
        return unit * self.samples + sample if self.fast else sample * size + unit

    def unfold(self, flat: Array, size: int) -> Array:
        """Return rows as they stand on the device as ``(row, unit, sample)``."""
        if self.fast:
            return flat.reshape(-1, size, self.samples)
        return flat.reshape(-1, self.samples, size).transpose(0, 2, 1)

    def _fold(self, values: Array) -> Array:
        """Return ``(row, unit, sample)`` as it stands on the device."""
        return np.ascontiguousarray(values if self.fast else values.transpose(0, 2, 1)).reshape(-1)

    def start(self, values: Array, release: Integers, port: Integers, row: Integers, b: Integers, sums: Array) -> None:
        """Set the state.

        Args:
            values: ``(3, n_neurons, samples)``.
            release: Step from which a neuron is not refractory, ``(n_neurons, samples)``.
            port: Port-units of arrivals on their way.
            row: Steps until they come.
            b: Their samples.
            sums: Their sums.
        """
        self.values.copy_to_device(self._fold(values))
        self.release.copy_to_device(self._fold(release[None]))
        if port.size:
            where = row * self.arrival_width + self.place(port, b, self.plan.n_ports)
            self._write(self.arrivals, where, sums)

    def _write(self, rows: Any, where: Integers, numbers: Array) -> None:
        launch(
            place_numbers,
            where.size,
            (rows, device_array(where), device_array(numbers.astype(rows.dtype)), where.size),
        )

    def set_drive(self, drive: Array) -> None:
        """Set the drive per step of every neuron, in the dtype of the run."""
        n = self.plan.n_neurons
        self.network.numbers[DRIVE * n : (DRIVE + 1) * n].copy_to_device(drive)

    def run(self, length: int, row: Integers, unit: Integers, b: Integers, count: Integers) -> None:
        """Run a chunk.

        Args:
            length: Its steps.
            row: Steps of its input events, from 0 on.
            unit: Their units.
            b: Their samples.
            count: How many coincide.
        """
        self.counter.copy_to_device(self.no_counts)
        if row.size:
            where = (self.reach + row) * self.train_width + self.place(unit, b, self.plan.n_units)
            self._write(self.trains, where, count)
        if self.noise.n:
            self.noise.draw(self.sample_ids, self.first_step, self.begun, length, self.samples, self.fast)
        self._send_inputs(row, unit, b)
        which = 1 + len(self.plan.components)  # before them: how many spikes are fetched, and where blocks meet
        for number, component in enumerate(self.plan.components):
            window = _rows_listed(component, length)
            items = sum(stage.high - stage.low for stage in component.stages) * window * self.samples
            if window < length and items <= CIRCLE_ITEMS:
                self._circle(number, length, window, which)
                which += -(-length // window) * len(component.stages)
                continue
            for begin in range(0, length, window):
                which = self._window(component, begin, min(begin + window, length), which)

    def _send_inputs(self, row: Integers, unit: Integers, b: Integers) -> None:
        """Scatter input events."""
        if not self.network.scatters or not row.size:
            return
        units = device_array(unit.astype(np.int32))
        when = device_array((row * self.samples + b).astype(np.int32))
        self._scatter(units, when, device_array(np.array([row.size])), 0)

    def _scatter(self, units: Any, when: Any, counter: Any, which: int) -> None:
        scatter[BLOCKS, THREADS](
            *(self.arrivals, self.trains, units, when, counter, which, self.parts, self.network.unit_row),
            *(*self.network.scattered, self.reach, self.plan.n_units, self.plan.n_ports, self.samples, self.fast),
        )

    def _circle(self, number: int, length: int, window: int, which: int) -> None:
        """Run all windows of a component in one launch."""
        plan, network, noise, component = self.plan, self.network, self.noise, self.plan.components[number]
        run_circle[self.blocks, CIRCLE_THREADS](
            *(self.values, self.release, self.arrivals, self.trains, *network.gathered),
            *(network.numbers, network.facts, noise.table, noise.n, noise.counts, noise.weights),
            *(self.record, self.columns, self.shape.n_columns, network.unit_row, self.spike_unit, self.spike_when),
            *(self.counter, which, 1 + number, *network.scattered, self.parts, self.first_step, self.steps, self.begun),
            *(self.stages[number], len(component.stages), window, length, network.gathers, network.scatters),
            *(component.late, self.reach, plan.n_neurons, plan.n_units, plan.n_ports, self.samples, self.fast),
        )

    def _window(self, component: Component, begin: int, end: int, which: int) -> int:
        """Run a window of one component; return the next counter."""
        for stage in component.stages:
            self._gather(stage.first_port, stage.late_port, begin, end)
            self._advance(stage, begin, end)
            if self.network.scatters:
                self._list(stage, begin, end, which)
                self._scatter(self.spike_unit, self.spike_when, self.counter, which)
            which += 1
        if component.late:
            for stage in component.stages:
                if stage.last_port > stage.late_port:
                    self._gather(stage.late_port, stage.last_port, begin, end)
                    self._receive(stage, begin)
        return which

    def _gather(self, low: int, high: int, begin: int, end: int) -> None:
        if self.network.gathers:
            plan = self.plan
            launch(
                gather,
                (end - begin) * (high - low) * self.samples,
                (
                    *(self.arrivals, self.trains, *self.network.gathered, self.steps, self.begun, low, high),
                    *(begin, end, self.reach, plan.n_units, plan.n_ports, self.samples, self.fast),
                ),
            )

    def _advance(self, stage: Stage, begin: int, end: int) -> None:
        plan, network, noise = self.plan, self.network, self.noise
        launch(
            advance,
            (stage.high - stage.low) * self.samples,
            (
                *(self.values, self.release, self.arrivals, self.trains, network.numbers, network.facts),
                *(noise.table, noise.n, noise.counts, noise.weights),
                *(self.record, self.columns, self.shape.n_columns),
                *(self.first_step, self.steps, self.begun, stage.low, stage.high, begin, end),
                *(self.reach, plan.n_neurons, plan.n_units, plan.n_ports, self.samples, self.fast),
            ),
        )

    def _list(self, stage: Stage, begin: int, end: int, which: int) -> None:
        launch(
            list_spikes,
            (stage.high - stage.low) * self.samples,
            (
                *(self.trains, self.network.unit_row, self.spike_unit, self.spike_when, self.counter, which),
                *(stage.low, stage.high, begin, end, self.reach, self.plan.n_units, self.samples, self.fast),
            ),
        )

    def _receive(self, stage: Stage, row: int) -> None:
        plan, noise = self.plan, self.noise
        launch(
            receive,
            (stage.high - stage.low) * self.samples,
            (
                *(self.values, self.arrivals, self.network.facts),
                *(noise.table, noise.n, noise.counts, noise.weights),
                *(self.record, self.columns, self.shape.n_columns),
                *(self.first_step, self.steps, self.begun, stage.low, stage.high, row),
                *(plan.n_neurons, plan.n_ports, self.samples, self.fast),
            ),
        )

    def spikes(self, length: int) -> tuple[Integers, Integers, Integers]:
        """Return samples, rows and neurons of the chunk's spikes, in this order."""
        plan, samples = self.plan, self.samples
        launch(
            collect_spikes,
            length * plan.n_neurons * samples,
            (
                *(self.trains, self.keys, self.counter, length, self.reach),
                *(plan.n_neurons, plan.n_units, samples, self.fast),
            ),
        )
        n = int(self.counter[:1].copy_to_host()[0])
        if n > self.keys.size:  # so many that the trains are shorter than the list
            first = self.reach * self.train_width
            trains = self.trains[first : first + length * self.train_width].copy_to_host()
            rows = self.unfold(trains, plan.n_units)[:, : plan.n_neurons]
            b, row, neuron = np.nonzero(rows.transpose(2, 0, 1))
            return b, row, neuron
        keys = np.sort(self.keys[:n].copy_to_host()) if n else np.zeros(0, np.int64)
        rest, neuron = np.divmod(keys, plan.n_neurons)
        b, row = np.divmod(rest, length)
        return b, row, neuron

    def recorded(self, length: int) -> Array:
        """Return what the chunk recorded, ``(length, n_columns, samples)``."""
        n_columns = self.shape.n_columns
        if not n_columns:
            return np.zeros((length, 0, self.samples), self.shape.dtype)
        return self.unfold(self.record[: length * n_columns * self.samples].copy_to_host(), n_columns)

    def pending(self, ended: Sequence[int], ends: Sequence[int]) -> Array:
        """Return what is on its way to samples that end before given rows, ``(ended, ahead, n_ports)``."""
        plan, ahead, n = self.plan, self.shape.ahead, len(ended)
        if not n * ahead:
            return np.zeros((n, ahead, plan.n_ports), self.shape.exact)
        out = cuda.device_array(n * ahead * plan.n_ports, self.shape.exact)
        launch(
            gather_pending,
            out.size,
            (
                *(out, self.arrivals, self.trains, *self.network.gathered),
                *(device_array(np.array(ended)), device_array(np.array(ends)), n, ahead),
                *(self.reach, plan.n_units, plan.n_ports, self.samples, self.fast),
            ),
        )
        return np.asarray(out.copy_to_host()).reshape(n, ahead, plan.n_ports)

    def go_on(self, length: int) -> None:
        """Move what the next chunk needs to its place."""
        self.begun += length
        n_rows = self.shape.chunk + self.shape.ahead
        launch(shift_rows, self.arrival_width, (self.arrivals, self.arrival_width, length, n_rows))
        launch(shift_rows, self.train_width, (self.trains, self.train_width, length, self.reach + length))

    def state(self) -> tuple[Array, Integers]:
        """Return values ``(3, n_neurons, samples)`` and releases ``(n_neurons, samples)``."""
        n = self.plan.n_neurons
        values = self.unfold(self.values.copy_to_host(), n)
        return values, self.unfold(self.release.copy_to_host(), n)[0]
