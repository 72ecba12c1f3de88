"""Read a NIR file as a network: linear nodes and delays become synapses, neuron nodes populations.

NIR gives differential equations and no time step. A file is read with Euler's rule unless another is asked
for, because that is what the programs do that write such files: ``beta = 1 - dt / tau``, an input is scaled
by ``r dt / tau``, a current acts in the step it arrives, and a loop takes one step. Files written by snnsim
hold the exact decays in their metadata; they are used if they agree with the time constants. What other programs
do instead is recorded in :mod:`snnsim.export.nir_conventions` and asked for by name.

Files come from anywhere, and a small one can describe products of matrices without end. So all of this happens in the
limited process of :mod:`snnsim.guard`, which hands back the finished network as plain arrays.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError, SnnsimFileError
from snnsim.export.nir_conventions import PLAIN, READERS, Convention, Reset, convention_of
from snnsim.export.nir_graph import Graph, Node, nir_limits, read_graph
from snnsim.export.nir_maps import convolution, flattened, pool
from snnsim.export.nir_neurons import CELLS, SILENT, Fields, NeuronReader, merge_thresholds
from snnsim.export.nir_signals import Matrix, Signal, Taps, dense, join, product
from snnsim.export.nir_timing import back_edges
from snnsim.grid import check_dt
from snnsim.guard import Parcel, run_guarded
from snnsim.network import MAX_DELAY_STEPS, Input, Network, Population, Projection, Readout, Sparse
from snnsim.network_checks import MAX_UNITS
from snnsim.network_file import describe, rebuild
from snnsim.neurons import LI, Neuron

__all__ = ["import_nir", "read_nir"]

Discretisation = Literal["euler", "exponential"]
Floats = npt.NDArray[np.float64]

MAPS = ("Conv1d", "Conv2d", "SumPool2d", "AvgPool2d")
LINEAR = ("Linear", "Affine", "Scale", "Delay", "Identity", "Output", "Flatten", *MAPS)


def read_nir(
    path: str | Path,
    dt: float | None = None,
    *,
    discretisation: Discretisation | None = None,
    convention: str | None = None,
    reader: str | None = None,
    reset: Reset | None = None,
) -> Network:
    """Read a NIR file.

    Args:
        path: A ``.nir`` file: Input, Output, Linear, Affine, Scale, Delay, Conv1d, Conv2d, SumPool2d, AvgPool2d,
            Flatten, IF, LIF, CubaLIF, LI, CubaLI, I, Threshold, and graphs nested in it. Convolutions are unrolled
            into one weight a synapse, at most ten million each.
        dt: Time step in seconds; default: the one in the metadata of a file written by snnsim, else the one that the
            named program takes.
        discretisation: ``"euler"``: ``beta = 1 - dt / tau``, input gain ``r dt / tau``; ``"exponential"``:
            ``beta = exp(-dt / tau)``, input gain ``r (1 - beta)``. Default: the file's, else ``"euler"``.
        convention: The program that wrote the file (``"spikingjelly"``, ``"snntorch"``, ``"norse"``, ``"sinabs"``,
            ``"spyx"``): the network has the spikes of the model that it exported.
        reader: The program that is to run the file: the network has the spikes that this program's importer makes of
            it, whether or not NIR means them.
        reset: How neurons are reset, for files that do not say: ``"zero"``, ``"subtract"``, or ``"late-subtract"``
            (the threshold is taken off in the update of the next step). Default: the convention's.

    Returns:
        A network whose spikes are those of a reader of the file; populations of current neurons, and what
        follows them, come later by the latency recorded in ``notes["latency_steps"]``.

    Raises:
        SnnsimFileError: Damaged file.
        InputError: A node is not supported or no time step is known; the message names the node.
    """
    path = Path(path)
    if not path.is_file():
        raise SnnsimFileError(path, "", "no such file; give the path of a .nir file")
    if discretisation not in (None, *get_args(Discretisation)):
        raise InputError(f"discretisation: expected 'euler' or 'exponential', got {discretisation!r}")
    if reset not in (None, *get_args(Reset)):
        raise InputError(f"reset: expected one of {', '.join(get_args(Reset))}, got {reset!r}")
    if convention_of(convention, reader) is not PLAIN and discretisation is not None:
        raise InputError("discretisation: the convention of a program includes it; leave one of the two out")
    parcel = run_guarded(
        f"{__name__}:import_nir",
        {
            "path": os.path.abspath(path),
            "shown": str(path),
            "dt": None if dt is None else check_dt(dt),
            "discretisation": discretisation,
            "convention": convention,
            "reader": reader,
            "reset": reset,
        },
        path=path,
        limits=nir_limits,
    )
    return rebuild(path, parcel.value, parcel.arrays)


def import_nir(
    path: str,
    shown: str,
    dt: float | None,
    discretisation: str | None,
    convention: str | None = None,
    reader: str | None = None,
    reset: Reset | None = None,
) -> Parcel:
    """Read a NIR file and describe the network (runs in the limited process; see :func:`read_nir`).

    Args:
        path: The file.
        shown: The name to use in messages.
        dt: Time step in seconds, or None.
        discretisation, convention, reader, reset: See :func:`read_nir`.

    Returns:
        The manifest and the arrays of :func:`snnsim.network_file.describe`.
    """
    graph = read_graph(path, shown)
    own = str(graph.metadata.get("producer", "")).startswith("snnsim")
    written_for = str(graph.metadata.get("reader", ""))
    if own and convention is None and reader is None and written_for in READERS:
        reader = written_for
    chosen = convention_of(convention, reader)
    try:
        unit, step = _steps(shown, graph, dt, chosen)
        rule = discretisation or str(graph.metadata.get("discretisation", "euler"))
        if chosen is not PLAIN:
            rule = chosen.decay
        if rule not in get_args(Discretisation):
            raise InputError(f"{shown}: discretisation: expected 'euler' or 'exponential', got {rule[:40]!r}")
        neurons = NeuronReader(chosen, unit, step, reset, own, rule)
        return Parcel(*describe(_Importer(Path(shown), graph, neurons).network()))
    except RecursionError as error:
        raise InputError(f"{shown}: a chain of nodes without a neuron is too long to be read") from error
    except InputError as error:
        raise error if str(error).startswith(shown) else InputError(f"{shown}: {error}") from error


def _steps(shown: str, graph: Graph, dt: float | None, chosen: Convention) -> tuple[float, float]:
    """Return the time step that the file's times are read with, and the network's."""
    stored = {key: _number(shown, graph.metadata[key], key) for key in ("dt", "step") if key in graph.metadata}
    if chosen.dt is not None:  # the program cannot leave it; how long a step is, is another matter
        return chosen.dt, check_dt(dt or stored.get("step") or chosen.dt)
    for value in (dt, stored.get("dt"), chosen.default_dt):
        if value is not None:
            return check_dt(value), check_dt(value)
    raise InputError(f"{shown}: NIR files hold no time step; pass dt in seconds, for example dt=1e-3")


def _number(path: str | Path, value: Any, name: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise SnnsimFileError(path, f"metadata/{name}", f"expected a number, got {str(value)[:40]!r}") from error


class _Importer:
    def __init__(self, path: Path, graph: Graph, neurons: NeuronReader) -> None:
        self.path, self.graph, self.neurons = path, graph, neurons
        self.dt, self.own, self.convention = neurons.step, neurons.own, neurons.convention
        self.before: dict[str, list[str]] = {name: [] for name in graph.nodes}
        for source, target in graph.edges:
            self.before[target].append(source)
        self.signals: dict[str, Signal] = {}
        self.open: set[str] = set()
        self.off_grid = 0.0
        self.names: dict[str, str] = {}
        merge_thresholds(graph, self.before)

    def fields(self, name: str) -> Fields:
        return Fields(self.path, name, self.graph.nodes[name])

    def error(self, name: str, text: str) -> InputError:
        return self.fields(name).error(text)

    # -- linear nodes ---------------------------------------------------------------------------------

    def incoming(self, name: str, size: int | None) -> Signal:
        """Return the sum of what flows into a node."""
        total: Signal | None = Signal((size,)) if size is not None else None
        for source in self.before[name]:
            signal = self.outgoing(source)
            if total is None:
                total = Signal(signal.shape)
            if signal.size != total.size:
                raise self.error(name, f"takes {total.size} values, but {source!r} gives {signal.size}")
            if len(signal.shape) > len(total.shape):
                total.shape = signal.shape
            for key, taps in signal.parts.items():
                total.parts[key] = join(total.parts[key], taps) if key in total.parts else taps
            if signal.bias is not None:
                total.bias = signal.bias if total.bias is None else total.bias + signal.bias
        if total is None:
            raise self.error(name, "nothing flows into it")
        return total

    def outgoing(self, name: str) -> Signal:
        if name in self.signals:
            return self.signals[name]
        if name in self.open:
            raise self.error(name, "a loop without a neuron in it cannot be read")
        self.open.add(name)
        signal = self.linear(name, self.graph.nodes[name])
        self.open.discard(name)
        self.signals[name] = signal
        return signal

    def linear(self, name: str, node: Node) -> Signal:
        kind, fields = node.kind, self.fields(name)
        if kind == "Input" or kind in CELLS:
            if kind in SILENT:
                raise self.error(name, f"{kind} has no spikes and feeds another node; put a spiking neuron there")
            shape = self.shape(name)
            index = np.arange(int(np.prod(shape)))
            part = Taps(index, index, np.ones(index.size), np.zeros(index.size, np.int64))
            return Signal(shape, {name: part})
        if kind not in LINEAR:
            known = ", ".join((*CELLS, *LINEAR))
            label = kind if kind.isidentifier() and len(kind) <= 40 else repr(kind[:40])
            raise self.error(name, f"{label} nodes cannot be read; supported are {known}")
        if kind in ("Linear", "Affine"):
            weight = self.convention.rounded(fields.value("weight"))
            if weight.ndim != 2:
                raise self.error(name, f"weight has shape {weight.shape}, expected (n_out, n_in)")
            own = self.convention.rounded(fields.vector("bias", weight.shape[0])) if kind == "Affine" else None
            return self.through(dense(weight), (weight.shape[0],), self.incoming(name, weight.shape[1]), own)
        signal = self.incoming(name, None)
        if kind in MAPS:
            return self.mapped(name, node, signal)
        if kind == "Flatten":
            start, end = fields.whole("start_dim", 1), fields.whole("end_dim", -1)
            return Signal(flattened(signal.shape, start, end), signal.parts, signal.bias)
        if kind == "Scale":
            scale = fields.vector("scale", signal.size)
            parts = {
                key: Taps(taps.row, taps.column, taps.weight * scale[taps.row], taps.steps)
                for key, taps in signal.parts.items()
            }
            return Signal(signal.shape, parts, None if signal.bias is None else signal.bias * scale)
        if kind == "Delay":
            exact = fields.vector("delay", signal.size) / self.neurons.dt
            if np.any(exact < 0) or np.any(exact > MAX_DELAY_STEPS):
                raise self.error(name, f"delay: expected non-negative seconds, at most {MAX_DELAY_STEPS} steps of dt")
            steps = np.rint(exact).astype(np.int64)
            self.off_grid = max(self.off_grid, float(np.abs(exact - steps).max(initial=0.0)))
            if signal.bias is not None and np.any(signal.bias[steps > 0]):
                raise self.error(name, "a constant flows through a delay and would start late; move the bias behind it")
            parts = {
                key: Taps(taps.row, taps.column, taps.weight, taps.steps + steps[taps.row])
                for key, taps in signal.parts.items()
            }
            return Signal(signal.shape, parts, signal.bias)
        return signal

    def through(self, matrix: Matrix, shape: tuple[int, ...], signal: Signal, own: Floats | None) -> Signal:
        """Return what comes out of a matrix."""
        bias = None if signal.bias is None else matrix.apply(signal.bias)
        if own is not None:
            bias = own if bias is None else bias + own
        return Signal(shape, {source: product(matrix, taps) for source, taps in signal.parts.items()}, bias)

    def mapped(self, name: str, node: Node, signal: Signal) -> Signal:
        """Return what comes out of a convolution or a pool."""
        fields, kind = self.fields(name), node.kind
        shape, bias = signal.shape, None
        try:
            if kind.endswith("Pool2d"):
                kernel, stride = fields.each("kernel_size", 2), fields.each("stride", 2)
                padding = fields.each("padding", 2, 0)
                average = kind == "AvgPool2d"
                matrix, out = pool(shape, kernel=kernel, stride=stride, padding=padding, average=average)
                return self.through(matrix, out, signal, None)
            space = int(kind[4])
            weight = self.convention.rounded(fields.value("weight"))
            if weight.ndim != space + 2:
                raise self.error(name, f"weight has shape {weight.shape}, expected (n_out, n_in, kernel)")
            groups = fields.whole("groups", 1)
            if len(shape) != space + 1 and "input_shape" in node.values:
                shape = (weight.shape[1] * groups, *fields.each("input_shape", space))
                if int(np.prod(shape)) != signal.size:
                    raise self.error(name, f"takes an input of shape {shape}, gets {signal.size} values")
            text = node.values["padding"] if "padding" in node.values else np.array(0)
            matrix, out = convolution(
                weight,
                shape,
                stride=fields.each("stride", space, 1),
                padding=str(text) if text.dtype.kind == "U" else fields.each("padding", space, 0),
                dilation=fields.each("dilation", space, 1),
                groups=groups,
            )
            if "bias" in node.values:
                bias = np.repeat(self.convention.rounded(fields.vector("bias", out[0])), int(np.prod(out[1:])))
        except InputError as error:
            raise error if str(error).startswith(str(self.path)) else self.error(name, str(error)) from error
        return self.through(matrix, out, signal, bias)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of what an input or a neuron gives out."""
        node, fields = self.graph.nodes[name], self.fields(name)
        if node.kind == "Input":
            shape = fields.value("shape").reshape(-1)
            size = float(np.prod(shape))
            if not shape.size or np.any(shape < 1) or np.any(shape % 1) or not 1 <= size <= MAX_UNITS:
                said = shape[:8].tolist() if shape.size != 1 else shape[0]
                raise self.error(name, f"shape: expected a whole number from 1 to {MAX_UNITS}, got {said}")
            return tuple(int(number) for number in shape)
        key = next((key for key in ("r", "v_threshold", "threshold") if key in node.values), "v_threshold")
        array = fields.value(key)
        if array.size > 1:
            return array.shape
        return self.width(name) or (1,)

    def width(self, name: str, seen: frozenset[str] = frozenset()) -> tuple[int, ...] | None:
        """Return the shape of what flows into a node, from the nearest one that knows it."""
        for source in self.before[name]:
            node = self.graph.nodes[source]
            if source in seen or len(seen) > 200:
                continue
            if node.kind in ("Linear", "Affine"):
                return self.fields(source).value("weight").shape[:1]
            if node.kind in MAPS:
                return self.outgoing(source).shape
            if node.kind == "Input":
                return self.shape(source)
            found = self.width(source, seen | {source})
            if found:
                return found
        return None

    def size(self, name: str) -> int:
        return int(np.prod(self.shape(name)))

    # -- the network ----------------------------------------------------------------------------------

    def network(self) -> Network:
        graph = self.graph
        inputs = [name for name, node in graph.nodes.items() if node.kind == "Input"]
        if not inputs:
            raise InputError(f"{self.path}: the graph has no Input node; add one in front of the first layer")
        cells = [name for name, node in graph.nodes.items() if node.kind in CELLS]
        signals = {name: self.incoming(name, self.size(name)) for name in cells}
        for name in cells:
            if len(shape := self.shape(name)) > 1 and signals[name].shape != shape:
                raise self.error(
                    name, f"has shape {shape}, its input {signals[name].shape}: expected one value a neuron"
                )
        records = {
            name: self.neurons.record(self.fields(name), signals[name].size, signals[name].bias) for name in cells
        }
        for name, node in graph.nodes.items():
            if node.kind == "Output" and not any(source in records for source in self.before[name]):
                signals[name] = self.incoming(name, None)
                bias = signals[name].bias
                drive = np.zeros(signals[name].size) if bias is None else bias
                records[name] = (LI.from_step(dt=self.dt, beta=0.0, drive_step=drive), np.ones(signals[name].size))
                cells.append(name)
        if not cells:
            raise InputError(f"{self.path}: the graph has no neurons")
        order = cells if self.own else self.walk(inputs, cells, signals)
        pairs = {(source, name) for name in cells for source in signals[name].parts}
        back = back_edges(order, pairs)
        if back and not self.convention.loops:
            raise self.error(
                next(iter(back))[1], f"{self.convention.program} does not run recurrent connections as NIR"
            )
        latency = self.latency(order, signals, records, back)
        self.name_nodes(inputs, cells)
        populations, projections = [], []
        for name in order:
            neuron, gain = records[name]
            p = neuron.step(signals[name].size, self.dt)
            start = self.convention.late if np.any(p.drive_step) or np.any(p.drive_syn_step) else 0
            if np.any(p.drive_step) or np.any(p.drive_syn_step):
                start += latency[name] - int(bool(np.any(p.drive_syn_step)))
            if p.current and np.any(p.drive_step) and latency[name] and not self.own:
                raise self.error(name, "its v_leak would start after its first input; remove it or lengthen delays")
            populations.append(Population(self.names[name], signals[name].size, neuron, start_step=start))
            for source, taps in signals[name].parts.items():
                shift = latency[name] - latency.get(source, 0) - int(p.current) + int((source, name) in back)
                shift += self.convention.late if p.spiking else 0
                projections.append(self.projection(source, name, taps, gain, shift))
        return Network(
            populations=tuple(populations),
            projections=tuple(item for item in projections if item is not None),
            inputs=tuple(Input(self.names[name], self.size(name)) for name in inputs),
            readout=self.readout({item.name for item in populations}),
            dt=self.dt,
            notes=self.notes(latency),
        )

    def walk(self, inputs: list[str], cells: list[str], signals: dict[str, Signal]) -> list[str]:
        """Return the neurons by distance from the inputs: the order in which readers come to them."""
        level, found = set(inputs), []
        while level:
            found += [name for name in cells if name in level and name not in found]
            level = {name for name in cells if name not in found and level & set(signals[name].parts)}
        return found + [name for name in cells if name not in found]

    def latency(
        self,
        order: list[str],
        signals: dict[str, Signal],
        records: dict[str, tuple[Neuron, Floats]],
        back: frozenset[tuple[str, str]],
    ) -> dict[str, int]:
        """Return by how many steps every population comes later than in the file."""
        stored = [self.graph.nodes[name].metadata.get("latency_steps") if self.own else None for name in order]
        known = [int(value) for value in stored if isinstance(value, (int, np.integer)) and 0 <= value < 1 << 20]
        if len(known) == len(order):
            return dict(zip(order, known, strict=True))
        result: dict[str, int] = {}
        for name in order:
            p = records[name][0].step(signals[name].size, self.dt)
            least = int(p.current and bool(np.any(p.drive_syn_step)))
            for source, taps in signals[name].parts.items():
                if (source, name) not in back:
                    shortest = int(taps.steps.min(initial=1 << 40))
                    least = max(least, result.get(source, 0) + int(p.current) - shortest)
            result[name] = least
        return result

    def name_nodes(self, inputs: list[str], cells: list[str]) -> None:
        for name in (*inputs, *cells):
            stored = self.graph.nodes[name].metadata.get("population") if self.own else None
            text = (stored if isinstance(stored, str) and stored else name).replace("/", ".").replace("->", ".")
            while text in self.names.values():
                text += "_"
            self.names[name] = text

    def projection(self, source: str, target: str, taps: Taps, gain: Floats, shift: int) -> Projection | None:
        keep = np.flatnonzero(taps.weight)
        if not keep.size:
            return None
        row, column, steps = taps.row[keep], taps.column[keep], taps.steps[keep] + shift
        weight = taps.weight[keep] * gain[row]
        if steps.min() < 0:
            raise self.error(target, f"the path from {source!r} would need a negative delay")
        shape = (int(gain.shape[0]), self.size(source))
        distinct = np.unique(row * shape[1] + column).size == row.size
        if distinct and 4 * row.size >= shape[0] * shape[1]:
            dense, delay = np.zeros(shape), np.zeros(shape)
            dense[row, column], delay[row, column] = weight, steps * self.dt
            value: Floats | float = float(steps[0] * self.dt) if np.all(steps == steps[0]) else delay
            return Projection(self.names[source], self.names[target], dense, value)
        order = np.lexsort((steps, row, column))
        sparse = Sparse.from_triples(column[order], row[order], weight[order], shape)
        return Projection(self.names[source], self.names[target], sparse, np.asarray(steps[order] * self.dt))

    def readout(self, names: set[str]) -> Readout | None:
        text = self.graph.metadata.get("readout") if self.own else None
        if not isinstance(text, str):
            return None
        try:
            values = json.loads(text)
            readout = Readout(**values)
        except (ValueError, TypeError) as error:
            raise SnnsimFileError(self.path, "metadata/readout", "is not the readout that snnsim writes") from error
        return readout if readout.population in names else None

    def notes(self, latency: dict[str, int]) -> dict[str, Any]:
        c = self.convention
        sentences = [
            f"Read from a NIR file with dt = {self.dt} s and the {self.neurons.rule} rule; spikes at "
            f"v {'>' if c.strict else '>='} threshold."
        ]
        if c is not PLAIN:
            reset = self.neurons.reset or c.reset
            sentences.append(f"By the convention of {c.program} {c.version}: reset {reset}, comparison included.")
            sentences += [f"{c.program}: {remark}." for remark in c.remarks]
        late = {self.names[name]: steps for name, steps in latency.items() if steps}
        if late:
            sentences.append("Currents act one step after an arrival here and at once in the file: see latency_steps.")
        if self.off_grid > 1e-3:
            sentences.append(f"Delays were rounded to steps of dt, by up to {self.off_grid:.3f} steps.")
        return {"imported": sentences, "latency_steps": late}
