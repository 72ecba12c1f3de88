"""Read a NIR file as a network: linear nodes and delays become synapses, neuron nodes populations.

NIR gives differential equations and no time step. A file is read with Euler's rule unless another is asked
for, because that is what the programs do that write such files: ``beta = 1 - dt / tau``, an input is scaled
by ``r dt / tau``, a current acts in the step it arrives, and a loop takes one step. Files written by snnsim
hold the exact decays in their metadata; they are used if they agree with the time constants.

Files come from anywhere, and a small one can describe products of matrices without end. So all of this happens in the
limited process of :mod:`snnsim.guard`, which hands back the finished network as plain arrays.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError, SnnsimFileError
from snnsim.export.nir_graph import Graph, Node, nir_limits, read_graph
from snnsim.export.nir_timing import back_edges
from snnsim.grid import check_dt
from snnsim.guard import Parcel, run_guarded
from snnsim.network import MAX_DELAY_STEPS, Input, Network, Population, Projection, Readout, Sparse
from snnsim.network_checks import MAX_UNITS
from snnsim.network_file import describe, rebuild
from snnsim.neurons import IF, LI, LIF, CubaLI, CubaLIF, Neuron

__all__ = ["import_nir", "read_nir"]

Discretisation = Literal["euler", "exponential"]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

SPIKING = ("IF", "LIF", "CubaLIF")
SILENT = ("LI", "CubaLI")
LINEAR = ("Linear", "Affine", "Scale", "Delay", "Identity", "Output", "Flatten")
METADATA_TOLERANCE = 1e-9


def read_nir(path: str | Path, dt: float | None = None, *, discretisation: Discretisation | None = None) -> Network:
    """Read a NIR file.

    Args:
        path: A ``.nir`` file with one-dimensional nodes: Input, Output, Linear, Affine, Scale, Delay, IF,
            LIF, CubaLIF, LI, CubaLI, and graphs nested in it.
        dt: Time step in seconds; default: the one in the metadata of a file written by snnsim.
        discretisation: ``"euler"``: ``beta = 1 - dt / tau``, input gain ``r dt / tau``; ``"exponential"``:
            ``beta = exp(-dt / tau)``, input gain ``r (1 - beta)``. Default: the file's, else ``"euler"``.

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
    parcel = run_guarded(
        f"{__name__}:import_nir",
        {
            "path": os.path.abspath(path),
            "shown": str(path),
            "dt": None if dt is None else check_dt(dt),
            "discretisation": discretisation,
        },
        path=path,
        limits=nir_limits,
    )
    return rebuild(path, parcel.value, parcel.arrays)


def import_nir(path: str, shown: str, dt: float | None, discretisation: str | None) -> Parcel:
    """Read a NIR file and describe the network (runs in the limited process; see :func:`read_nir`).

    Args:
        path: The file.
        shown: The name to use in messages.
        dt: Time step in seconds, or None.
        discretisation: See :func:`read_nir`.

    Returns:
        The manifest and the arrays of :func:`snnsim.network_file.describe`.
    """
    graph = read_graph(path, shown)
    if dt is None:
        if "dt" not in graph.metadata:
            raise InputError(f"{shown}: NIR files hold no time step; pass dt in seconds, for example dt=1e-3")
        dt = _number(shown, graph.metadata["dt"], "dt")
    rule = discretisation or str(graph.metadata.get("discretisation", "euler"))
    if rule not in get_args(Discretisation):
        raise InputError(f"{shown}: discretisation: expected 'euler' or 'exponential', got {rule[:40]!r}")
    try:
        return Parcel(*describe(_Importer(Path(shown), graph, check_dt(dt), rule).network()))
    except RecursionError as error:
        raise InputError(f"{shown}: a chain of nodes without a neuron is too long to be read") from error
    except InputError as error:
        raise error if str(error).startswith(shown) else InputError(f"{shown}: {error}") from error


def _number(path: str | Path, value: Any, name: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise SnnsimFileError(path, f"metadata/{name}", f"expected a number, got {str(value)[:40]!r}") from error


@dataclass
class _Taps:
    """Synapses from one source, as rows of equal length."""

    row: Integers
    column: Integers
    weight: Floats
    steps: Integers


@dataclass
class _Signal:
    """What flows along an edge: a sum of delayed, weighted spikes of sources, and a constant."""

    size: int
    parts: dict[str, _Taps] = field(default_factory=dict)
    bias: Floats | None = None


def _join(first: _Taps, second: _Taps) -> _Taps:
    return _Taps(
        np.concatenate([first.row, second.row]),
        np.concatenate([first.column, second.column]),
        np.concatenate([first.weight, second.weight]),
        np.concatenate([first.steps, second.steps]),
    )


class _Importer:
    def __init__(self, path: Path, graph: Graph, dt: float, rule: str) -> None:
        self.path, self.graph, self.dt, self.rule = path, graph, dt, rule
        self.own = str(graph.metadata.get("producer", "")).startswith("snnsim")
        self.before: dict[str, list[str]] = {name: [] for name in graph.nodes}
        for source, target in graph.edges:
            self.before[target].append(source)
        self.signals: dict[str, _Signal] = {}
        self.open: set[str] = set()
        self.off_grid = 0.0
        self.names: dict[str, str] = {}

    def error(self, name: str, text: str) -> InputError:
        return InputError(f"{self.path}: node {name[:200]!r}: {text}")

    def value(self, name: str, key: str, default: Floats | None = None) -> Floats:
        node = self.graph.nodes[name]
        if key not in node.values:
            if default is None:
                raise self.error(name, f"{node.kind} has no {key!r}; is the file complete?")
            return default
        array = node.values[key]
        if array.dtype.kind not in "fiu":
            raise self.error(name, f"{key}: expected numbers, got {array.dtype}")
        return array.astype(np.float64)

    def vector(self, name: str, key: str, size: int, default: float | None = None) -> Floats:
        array = self.value(name, key, None if default is None else np.full(size, default))
        if array.size == 1:
            return np.full(size, array.reshape(-1)[0])
        if array.shape != (size,):
            raise self.error(name, f"{key} has shape {array.shape}, expected ({size},)")
        return array

    # -- linear nodes ---------------------------------------------------------------------------------

    def incoming(self, name: str, size: int | None) -> _Signal:
        """Return the sum of what flows into a node."""
        total: _Signal | None = _Signal(size) if size is not None else None
        for source in self.before[name]:
            signal = self.outgoing(source)
            if total is None:
                total = _Signal(signal.size)
            if signal.size != total.size:
                raise self.error(name, f"takes {total.size} values, but {source!r} gives {signal.size}")
            for key, taps in signal.parts.items():
                total.parts[key] = _join(total.parts[key], taps) if key in total.parts else taps
            if signal.bias is not None:
                total.bias = signal.bias if total.bias is None else total.bias + signal.bias
        if total is None:
            raise self.error(name, "nothing flows into it")
        return total

    def outgoing(self, name: str) -> _Signal:
        if name in self.signals:
            return self.signals[name]
        if name in self.open:
            raise self.error(name, "a loop without a neuron in it cannot be read")
        self.open.add(name)
        signal = self.linear(name, self.graph.nodes[name])
        self.open.discard(name)
        self.signals[name] = signal
        return signal

    def linear(self, name: str, node: Node) -> _Signal:
        kind = node.kind
        if kind == "Input" or kind in SPIKING or kind in SILENT:
            if kind in SILENT:
                raise self.error(name, f"{kind} has no spikes and feeds another node; put a spiking neuron there")
            size = self.size(name)
            index = np.arange(size)
            return _Signal(size, {name: _Taps(index, index, np.ones(size), np.zeros(size, np.int64))})
        if kind not in LINEAR:
            known = ", ".join((*SPIKING, *SILENT, *LINEAR))
            label = kind if kind.isidentifier() and len(kind) <= 40 else repr(kind[:40])
            raise self.error(name, f"{label} nodes cannot be read; supported are {known}")
        if kind in ("Linear", "Affine"):
            weight = self.value(name, "weight")
            if weight.ndim != 2:
                raise self.error(name, f"weight has shape {weight.shape}, expected (n_out, n_in)")
            signal = self.incoming(name, weight.shape[1])
            bias = None if signal.bias is None else weight @ signal.bias
            if kind == "Affine":
                own = self.vector(name, "bias", weight.shape[0])
                bias = own if bias is None else bias + own
            parts = {source: _product(weight, taps) for source, taps in signal.parts.items()}
            return _Signal(weight.shape[0], parts, bias)
        signal = self.incoming(name, None)
        if kind == "Scale":
            scale = self.vector(name, "scale", signal.size)
            for taps in signal.parts.values():
                taps.weight = taps.weight * scale[taps.row]
            bias = None if signal.bias is None else signal.bias * scale
            return _Signal(signal.size, signal.parts, bias)
        if kind == "Delay":
            exact = self.vector(name, "delay", signal.size) / self.dt
            if np.any(exact < 0) or np.any(exact > MAX_DELAY_STEPS):
                raise self.error(name, f"delay: expected non-negative seconds, at most {MAX_DELAY_STEPS} steps of dt")
            steps = np.rint(exact).astype(np.int64)
            self.off_grid = max(self.off_grid, float(np.abs(exact - steps).max(initial=0.0)))
            if signal.bias is not None and np.any(signal.bias[steps > 0]):
                raise self.error(name, "a constant flows through a delay and would start late; move the bias behind it")
            parts = {
                key: _Taps(taps.row, taps.column, taps.weight, taps.steps + steps[taps.row])
                for key, taps in signal.parts.items()
            }
            return _Signal(signal.size, parts, signal.bias)
        return signal

    def size(self, name: str) -> int:
        node = self.graph.nodes[name]
        if node.kind == "Input":
            shape = self.value(name, "shape").reshape(-1)
            if shape.size != 1:
                raise self.error(name, f"shape is {shape[:8].tolist()}; only one-dimensional inputs can be read")
            if not 1 <= shape[0] <= MAX_UNITS or shape[0] % 1:
                raise self.error(name, f"shape: expected a whole number from 1 to {MAX_UNITS}, got {shape[0]}")
            return int(shape[0])
        key = "r" if "r" in node.values else "v_threshold"
        array = self.value(name, key)
        if array.ndim != 1:
            raise self.error(name, f"{key} has shape {array.shape}, expected one value a neuron")
        return int(array.shape[0])

    # -- neurons --------------------------------------------------------------------------------------

    def stored(self, name: str, key: str, derived: Floats) -> Floats:
        """Return the exact number in the metadata if it agrees with the one derived from the standard fields."""
        value = self.graph.nodes[name].metadata.get(key) if self.own else None
        if isinstance(value, np.ndarray) and value.shape == derived.shape and value.dtype.kind == "f":
            close = np.abs(value - derived) <= METADATA_TOLERANCE * np.maximum(np.abs(derived), 1)
            return np.where(close, value, derived)
        return derived

    def decay(self, name: str, key: str, label: str, size: int, gain: str) -> tuple[Floats, Floats]:
        """Return the decay a step and the gain of the input, from a time constant and a resistance."""
        tau = self.vector(name, key, size)
        if np.any(tau <= 0):
            raise self.error(name, f"{key}: expected positive seconds, got {tau.min()}")
        scale = self.vector(name, gain, size, 1.0)
        if self.rule == "euler":
            if np.any(tau < self.dt * (1 - 1e-12)):
                raise self.error(name, f"{key} = {tau.min()} s is shorter than dt = {self.dt} s; pass a smaller dt")
            beta = np.maximum(1 - self.dt / tau, 0.0)
            factor = scale * self.dt / tau
        else:
            beta = np.exp(-self.dt / tau)
            factor = scale * (1 - beta)
        factor = np.where(np.abs(factor - 1) < METADATA_TOLERANCE, 1.0, factor)
        return self.stored(name, label, beta), factor

    def firing(self, name: str, size: int) -> dict[str, Any]:
        node = self.graph.nodes[name]
        values: dict[str, Any] = {
            "v_threshold": self.vector(name, "v_threshold", size),
            "v_reset": self.vector(name, "v_reset", size, 0.0),
            "reset": "zero",
        }
        if str(node.metadata.get("reset", "zero")) == "subtract":
            values["reset"] = "subtract"
            amount = node.metadata.get("reset_amount")
            if isinstance(amount, np.ndarray) and amount.shape == (size,):
                values["reset_amount"] = amount
        return values

    def neuron(self, name: str, signal: _Signal) -> tuple[Neuron, Floats]:
        """Return the neuron record and the gain of its input (weights are multiplied by it)."""
        node, size, dt = self.graph.nodes[name], signal.size, self.dt
        bias = np.zeros(size) if signal.bias is None else signal.bias
        firing = self.firing(name, size) if node.kind in SPIKING else {}
        if node.kind == "IF":
            gain = self.vector(name, "r", size) * dt
            gain = np.where(np.abs(gain - 1) < METADATA_TOLERANCE, 1.0, gain)
            return IF.from_step(dt=dt, drive_step=bias * gain, **firing), gain
        leak = self.vector(name, "v_leak", size, 0.0)
        if node.kind in ("LIF", "LI"):
            beta, gain = self.decay(name, "tau", "beta", size, "r")
            drive = bias * gain + leak * (1 - beta)
            if node.kind == "LI":
                return LI.from_step(dt=dt, beta=beta, drive_step=drive), gain
            return LIF.from_step(dt=dt, beta=beta, drive_step=drive, **firing), gain
        beta, gain_v = self.decay(name, "tau_mem", "beta", size, "r")
        alpha, gain_i = self.decay(name, "tau_syn", "alpha", size, "w_in")
        if np.any(beta <= 0) or np.any(beta >= 1) or np.any(alpha <= 0) or np.any(alpha >= 1):
            raise self.error(name, "decays of 0 or 1 a step cannot be read; use time constants longer than dt")
        plain = CubaLI.from_step(dt=dt, beta=beta, alpha=alpha)
        kappa = self.stored(name, "kappa", np.asarray(plain.kappa, dtype=np.float64))
        gain = gain_i * gain_v / kappa
        on_current = bias * gain
        on_membrane = leak * (1 - beta)
        if np.any(on_current) and np.any(on_membrane):
            raise self.error(name, "a bias and a v_leak together cannot be read; fold one into the other")
        record = CubaLIF if node.kind == "CubaLIF" else CubaLI
        made = record.from_step(
            dt=dt, beta=beta, alpha=alpha, kappa=kappa, drive_step=on_membrane, drive_syn_step=on_current, **firing
        )
        return made, gain

    # -- the network ----------------------------------------------------------------------------------

    def network(self) -> Network:
        graph = self.graph
        inputs = [name for name, node in graph.nodes.items() if node.kind == "Input"]
        if not inputs:
            raise InputError(f"{self.path}: the graph has no Input node; add one in front of the first layer")
        cells = [name for name, node in graph.nodes.items() if node.kind in SPIKING or node.kind in SILENT]
        signals = {name: self.incoming(name, self.size(name)) for name in cells}
        records = {name: self.neuron(name, signals[name]) for name in cells}
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
        latency = self.latency(order, signals, records, back)
        self.name_nodes(inputs, cells)
        populations, projections = [], []
        for name in order:
            neuron, gain = records[name]
            p = neuron.step(signals[name].size, self.dt)
            start = 0
            if np.any(p.drive_step) or np.any(p.drive_syn_step):
                start = latency[name] - int(bool(np.any(p.drive_syn_step)))
            if p.current and np.any(p.drive_step) and latency[name] and not self.own:
                raise self.error(name, "its v_leak would start after its first input; remove it or lengthen delays")
            populations.append(Population(self.names[name], signals[name].size, neuron, start_step=start))
            for source, taps in signals[name].parts.items():
                shift = latency[name] - latency.get(source, 0) - int(p.current) + int((source, name) in back)
                projections.append(self.projection(source, name, taps, gain, shift))
        return Network(
            populations=tuple(populations),
            projections=tuple(item for item in projections if item is not None),
            inputs=tuple(Input(self.names[name], self.size(name)) for name in inputs),
            readout=self.readout({item.name for item in populations}),
            dt=self.dt,
            notes=self.notes(latency),
        )

    def walk(self, inputs: list[str], cells: list[str], signals: dict[str, _Signal]) -> list[str]:
        """Return the neurons by distance from the inputs: the order in which readers come to them."""
        level, found = set(inputs), []
        while level:
            found += [name for name in cells if name in level and name not in found]
            level = {name for name in cells if name not in found and level & set(signals[name].parts)}
        return found + [name for name in cells if name not in found]

    def latency(
        self,
        order: list[str],
        signals: dict[str, _Signal],
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

    def projection(self, source: str, target: str, taps: _Taps, gain: Floats, shift: int) -> Projection | None:
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
        sentences = [f"Read from a NIR file with dt = {self.dt} s and the {self.rule} rule; spikes at v >= threshold."]
        late = {self.names[name]: steps for name, steps in latency.items() if steps}
        if late:
            sentences.append("Currents act one step after an arrival here and at once in the file: see latency_steps.")
        if self.off_grid > 1e-3:
            sentences.append(f"Delays were rounded to steps of dt, by up to {self.off_grid:.3f} steps.")
        return {"imported": sentences, "latency_steps": late}


def _product(weight: Floats, taps: _Taps) -> _Taps:
    """Return the taps behind a weight matrix; equal (row, column, delay) are added."""
    rows, columns = np.nonzero(weight.T)  # by column of the matrix: rows holds the column index
    count = np.bincount(rows, minlength=weight.shape[1])
    begin = np.concatenate(([0], np.cumsum(count)))
    repeat = count[taps.row]
    total = int(repeat.sum())
    offset = np.arange(total) - np.repeat(np.cumsum(repeat) - repeat, repeat)
    place = np.repeat(begin[taps.row], repeat) + offset
    row, column = columns[place], np.repeat(taps.column, repeat)
    value = weight[row, np.repeat(taps.row, repeat)] * np.repeat(taps.weight, repeat)
    steps = np.repeat(taps.steps, repeat)
    order = np.lexsort((steps, column, row))
    row, column, value, steps = row[order], column[order], value[order], steps[order]
    if not total:
        return _Taps(row, column, value, steps)
    fresh = np.concatenate(([True], (np.diff(row) != 0) | (np.diff(column) != 0) | (np.diff(steps) != 0)))
    first = np.flatnonzero(fresh)
    return _Taps(row[first], column[first], np.add.reduceat(value, first), steps[first])
