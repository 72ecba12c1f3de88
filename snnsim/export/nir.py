"""Write a network as a NIR file, with delays of single synapses as delay lines.

NIR (Pedersen et al., Nature Communications 2024) has one delay per channel and none per synapse. A synapse's
delay is still expressed exactly: a selection matrix makes one row for each pair (source, delay), a ``Delay``
node delays the rows, and the weight matrix reads from them.

The numbers are written for readers that integrate with Euler's rule, which is nearly all of them:
``tau = dt / (1 - beta)`` and ``r = tau / dt``, so that ``v <- beta v + I``. What NIR cannot say (the time
step, the kind of reset, the comparison) stands in the metadata and in the list of changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.export import ExportReport
from snnsim.export.nir_conventions import PLAIN
from snnsim.export.nir_fit import check_fit, reader_convention, without_integrators
from snnsim.export.nir_graph import Graph, identifier, write_graph
from snnsim.export.nir_read import read_nir
from snnsim.export.nir_timing import Timing, plan_timing
from snnsim.neurons import StepParameters

if TYPE_CHECKING:
    from snnsim.network import Network, Population

__all__ = ["build_nir", "read_nir", "write_nir"]

Delays = Literal["delay-node", "error", "drop-with-report"]
Form = Literal["line", "branch"]
StopSteps = Literal["error", "drop-with-report"]
Integrators = Literal["error", "drop-with-report"]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def write_nir(
    network: Network,
    path: str | Path,
    *,
    delays: Delays = "delay-node",
    form: Form = "line",
    stop_steps: StopSteps = "error",
    reader: str | None = None,
    integrators: Integrators = "error",
) -> ExportReport:
    """Write ``network`` as a NIR file, float64 throughout.

    Args:
        network: Populations of IF, LIF, CubaLIF, LI or CubaLI neurons without refractory time.
        path: File to write, ``.nir`` by convention.
        delays: ``"delay-node"`` writes delays; ``"error"`` refuses a network that needs them;
            ``"drop-with-report"`` leaves them out and says how many.
        form: ``"line"``: one delay line for each pair (source, delay); ``"branch"``: one delayed copy of
            the input for each distinct delay. Both are exact; the line is smaller.
        stop_steps: What to do with populations that stop before the end of a run, which NIR cannot say.
        reader: The program that is to run the file (``"spikingjelly"``, ``"snntorch"``, ``"norse"``): it is written in
            that program's convention, and what it cannot hold is refused. Default: in the format's own terms.
        integrators: Populations without threshold, which none of these programs' importers has: refused, or left out
            with a report. Only with ``reader``.

    Returns:
        The list of changes, and the latency of each population.

    Raises:
        InputError: NIR cannot hold the network; the message names the population or projection.
        SnnsimFileError: The file cannot be written.
    """
    graph, changes, timing = build_nir(
        network, delays=delays, form=form, stop_steps=stop_steps, reader=reader, integrators=integrators
    )
    write_graph(path, graph)
    return ExportReport("nir", Path(path), tuple(changes), timing.latency)


def build_nir(
    network: Network,
    *,
    delays: Delays = "delay-node",
    form: Form = "line",
    stop_steps: StopSteps = "error",
    reader: str | None = None,
    integrators: Integrators = "error",
) -> tuple[Graph, list[str], Timing]:
    """Return the graph of :func:`write_nir`, the list of changes and the timing, without writing."""
    for name, value, choices in (
        ("delays", delays, get_args(Delays)),
        ("form", form, get_args(Form)),
        ("stop_steps", stop_steps, get_args(StopSteps)),
        ("integrators", integrators, get_args(Integrators)),
    ):
        if value not in choices:
            raise InputError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")
    said = ""
    if integrators != "error":
        if reader is None:
            raise InputError("integrators: NIR holds them; leaving them out needs a reader that has none")
        network, said = without_integrators(network)
    builder = _Builder(network, delays, form, stop_steps, reader)
    builder.changes += [said] if said else []
    builder.build()
    return builder.graph, builder.changes, builder.timing


@dataclass
class _Bundle:
    """All synapses from one source to one target, with the delays that the file needs."""

    source: str
    target: str
    n_source: int
    n_target: int
    sources: Integers
    targets: Integers
    weight: Floats
    steps: Integers
    back: bool

    @property
    def label(self) -> str:
        return f"{identifier(self.source)}_to_{identifier(self.target)}"


class _Builder:
    def __init__(self, network: Network, delays: Delays, form: Form, stop_steps: StopSteps, reader: str | None) -> None:
        self.network = network
        self.delays = delays
        self.form = form
        self.stop_steps = stop_steps
        self.graph = Graph()
        self.changes: list[str] = []
        self.names: dict[str, str] = {}
        self.parameters = {item.name: item.neuron.step(item.size, network.dt) for item in network.populations}
        for item in network.populations:
            self._check(item, self.parameters[item.name])
        self.timing = plan_timing(network, self.parameters)
        self.reader = reader
        self.convention = PLAIN if reader is None else reader_convention(reader)
        self.dt = self.convention.dt or network.dt  # what time constants are written for
        if reader is not None:
            self.changes += check_fit(network, reader, self.parameters, self.timing, delays)

    def _check(self, population: Population, p: StepParameters) -> None:
        what = f"population {population.name!r}"
        if population.neuron.kind not in ("IF", "LIF", "LI", "CubaLIF", "CubaLI"):
            raise InputError(
                f"{what}: NIR has no {population.neuron.kind} neuron; use IF, LIF, CubaLIF, LI or CubaLI populations"
            )
        if np.any(p.refractory_steps):
            raise InputError(f"{what}: NIR has no refractory time; set t_ref to 0")
        for letter, value in (("beta", p.beta), ("alpha", p.alpha)):
            if np.any(value >= 1) and not (letter == "beta" and np.all(value == 1) and not p.current):
                raise InputError(
                    f"{what}: {letter} = 1 means an infinite time constant, which NIR's {population.neuron.kind} "
                    "cannot hold; use an IF population for neurons without leak"
                )
        if population.stop_step is not None:
            if self.stop_steps == "error":
                raise InputError(
                    f"{what}: NIR cannot say that it stops at step {population.stop_step}; "
                    "pass stop_steps='drop-with-report' to let it run to the end"
                )
            self.changes.append(f"{what} stops at step {population.stop_step}; in the file it runs to the end.")

    def build(self) -> None:
        for item in self.network.inputs:
            self.names[item.name] = self.graph.add(
                identifier(item.name), "Input", {"population": item.name}, shape=np.array([item.size])
            )
        bundles = self._bundles()
        for population in self.network.order():
            p = self.parameters[population.name]
            drive = self._drive(population, p)
            name = identifier(population.name)
            ends: list[str] = []
            for bundle in bundles:
                if bundle.target == population.name and not bundle.back:
                    last, took = self._connect(bundle, drive)
                    ends += last
                    drive = None if took else drive
            if drive is not None or not ends:
                ends.append(self._bias(population, np.zeros(population.size) if drive is None else drive))
            self.names[population.name] = self._neuron(name, population, p)
            for end in ends:
                self.graph.connect(end, self.names[population.name])
        for bundle in bundles:
            if bundle.back:
                for end in self._connect(bundle, None)[0]:
                    self.graph.connect(end, self.names[bundle.target])
        self._output()
        self._metadata(bundles)

    def _bundles(self) -> list[_Bundle]:
        sizes = {item.name: item.size for item in self.network.inputs}
        sizes |= {item.name: item.size for item in self.network.populations}
        groups: dict[tuple[str, str], list[tuple[Integers, Integers, Floats, Integers]]] = {}
        for projection in self.network.projections:
            s = projection.synapses(self.network.dt)
            source = np.repeat(np.arange(projection.shape[1]), np.diff(s.indptr))
            part = (source, s.target.astype(np.int64), s.weight, s.delay_steps)
            groups.setdefault((projection.source, projection.target), []).append(part)
        result: list[_Bundle] = []
        dropped, latest = 0, 0
        for (source_name, target_name), parts in groups.items():
            source, target, weight, steps = (np.concatenate([part[i] for part in parts]) for i in range(4))
            steps = steps + self.timing.shift(source_name, target_name)
            p = self.parameters[target_name]
            weight = weight * self._input_scale(self.network.population(target_name), p)[target]
            if np.any(steps) and self.delays == "error":
                raise InputError(
                    f"projection '{source_name}->{target_name}': has delays up to {steps.max()} steps and "
                    "delays='error' was asked for; use delays='delay-node' or 'drop-with-report'"
                )
            if self.delays == "drop-with-report":
                dropped += int(np.count_nonzero(steps))
                latest = max(latest, int(steps.max(initial=0)))
                steps = np.zeros_like(steps)
            back = (source_name, target_name) in self.timing.back
            ends = (sizes[source_name], sizes[target_name])
            result.append(_Bundle(source_name, target_name, *ends, source, target, weight, steps, back))
        if dropped:
            self.changes.append(
                f"The delays of {dropped} synapses (up to {latest} steps) were dropped; the file computes other spikes."
            )
        if any(np.any(bundle.steps) for bundle in result):
            self.changes.append(
                "Delays are written as Delay nodes: SpikingJelly, snnTorch, Norse and snn-mlir refuse such a file, "
                "Sinabs and Spyx drop the delays without a word; check your reader."
            )
        return result

    def _drive(self, population: Population, p: StepParameters) -> Floats | None:
        """Return the bias on the neuron's input, or None; the membrane drive of a current neuron is its v_leak."""
        value = (p.drive_syn_step if p.current else p.drive_step) * self._input_scale(population, p)
        return value if np.any(value) else None

    def _input_scale(self, population: Population, p: StepParameters) -> Floats:
        """Return by what weights and drives are multiplied so that the reader's gain makes them what they are here."""
        if p.current:
            return p.kappa
        leaky = population.neuron.kind != "IF" and not np.all(p.beta == 1)
        return 1 / (1 - p.beta) if leaky and self.convention.gain == "leak" else np.ones(population.size)

    def _dense(self, rows: Integers, columns: Integers, weight: Floats, shape: tuple[int, int]) -> Floats:
        matrix = np.zeros(shape)
        np.add.at(matrix, (rows, columns), weight)
        return matrix

    def _weight(self, label: str, matrix: Floats, bias: Floats | None) -> str:
        if bias is None:
            return self.graph.add(f"{label}_weight", "Linear", weight=matrix)
        return self.graph.add(f"{label}_weight", "Affine", weight=matrix, bias=bias)

    def _bias(self, population: Population, drive: Floats) -> str:
        """Add a constant input: an affine map whose weights are zero."""
        if not self.network.inputs:
            raise InputError(
                f"population {population.name!r}: its drive is written as the bias of a map from an input, and the "
                "network has none; add an input"
            )
        first = self.network.inputs[0]
        end = self._weight(f"{identifier(population.name)}_drive", np.zeros((population.size, first.size)), drive)
        self.graph.connect(self.names[first.name], end)
        return end

    def _connect(self, bundle: _Bundle, drive: Floats | None) -> tuple[list[str], bool]:
        """Add the nodes of a bundle; return the last ones, and whether one took the drive as its bias."""
        begin, label, dt = self.names[bundle.source], bundle.label, self.network.dt
        shape = (bundle.n_target, bundle.n_source)
        if not np.any(bundle.steps):
            end = self._weight(label, self._dense(bundle.targets, bundle.sources, bundle.weight, shape), drive)
            self.graph.connect(begin, end)
            return [end], True
        axonal = _one_delay_each(bundle.sources, bundle.steps, bundle.n_source)
        if axonal is not None:
            delay = self.graph.add(f"{label}_delay", "Delay", delay=axonal * dt)
            end = self._weight(label, self._dense(bundle.targets, bundle.sources, bundle.weight, shape), drive)
            self.graph.connect(begin, delay, end)
            return [end], True
        dendritic = _one_delay_each(bundle.targets, bundle.steps, bundle.n_target)
        if dendritic is not None:
            weight = self._weight(label, self._dense(bundle.targets, bundle.sources, bundle.weight, shape), None)
            end = self.graph.add(f"{label}_delay", "Delay", delay=dendritic * dt)
            self.graph.connect(begin, weight, end)
            return [end], False
        if self.form == "branch":
            return self._branches(bundle, drive), True
        pairs, row = np.unique(bundle.sources * (1 << 31) + bundle.steps, return_inverse=True)
        rows = np.arange(pairs.size)
        select = self._dense(rows, pairs >> 31, np.ones(pairs.size), (pairs.size, bundle.n_source))
        lines = self.graph.add(f"{label}_lines", "Linear", weight=select)
        delay = self.graph.add(f"{label}_delay", "Delay", delay=(pairs & ((1 << 31) - 1)) * dt)
        matrix = self._dense(bundle.targets, row.reshape(-1), bundle.weight, (bundle.n_target, pairs.size))
        end = self._weight(label, matrix, drive)
        self.graph.connect(begin, lines, delay, end)
        return [end], True

    def _branches(self, bundle: _Bundle, drive: Floats | None) -> list[str]:
        """Form (b): one delayed copy of the input and one weight matrix for each distinct delay."""
        ends: list[str] = []
        for steps in np.unique(bundle.steps):
            chosen = bundle.steps == steps
            shape = (bundle.n_target, bundle.n_source)
            matrix = self._dense(bundle.targets[chosen], bundle.sources[chosen], bundle.weight[chosen], shape)
            path = [self.names[bundle.source]]
            if steps:
                delay = np.full(bundle.n_source, steps * self.network.dt)
                path.append(self.graph.add(f"{bundle.label}_{steps}_delay", "Delay", delay=delay))
            path.append(self._weight(f"{bundle.label}_{steps}", matrix, None if ends else drive))
            self.graph.connect(*path)
            ends.append(path[-1])
        return ends

    def _neuron(self, name: str, population: Population, p: StepParameters) -> str:
        dt, kind = self.dt, population.neuron.kind
        what = f"population {population.name!r}"
        latency = self.timing.latency[population.name]
        metadata: dict[str, Any] = {"population": population.name, "latency_steps": latency}
        values: dict[str, Floats] = {}
        if kind == "LIF" and np.all(p.beta == 1):
            kind = "IF"
        if kind == "LI" and np.all(p.beta == 1):
            kind = "I"
        if kind in ("IF", "I"):
            values["r"] = np.full(population.size, 1 / dt if self.convention.if_gain == "r dt" else 1.0)
        else:
            tau = dt / (1 - p.beta)
            metadata["beta"] = p.beta
            values["r"] = tau / dt if p.current or self.convention.gain == "r" else np.ones(population.size)
            values["v_leak"] = np.zeros(population.size)
            if p.current:
                values["tau_mem"] = tau
                values["tau_syn"] = dt / (1 - p.alpha)
                values["w_in"] = values["tau_syn"] / dt
                metadata["alpha"], metadata["kappa"] = p.alpha, p.kappa
                on_membrane = p.drive_step + p.drive_syn_to_v
                if np.any(on_membrane):
                    values["v_leak"] = on_membrane / (1 - p.beta)
                    self.changes.append(
                        f"{what}: its drive on the membrane is v_leak, which SpikingJelly and snnTorch refuse."
                    )
            else:
                values["tau"] = tau
        if not p.spiking:
            return self.graph.add(name, kind, metadata, **values)
        threshold = p.v_threshold
        if p.strict and not self.convention.strict:
            threshold = np.nextafter(threshold, np.inf)
            self.changes.append(f"{what}: fires above its threshold; readers fire at >=, so a hair more is written.")
        values["v_threshold"] = threshold
        metadata["reset"] = "zero" if p.reset_zero else "subtract"
        if not p.reset_zero:
            metadata["reset_amount"] = p.reset_amount
            self.changes.append(
                f"{what}: resets by subtraction, which NIR cannot say; it stands in the metadata, and a reader "
                "that does not look there resets to zero."
            )
        elif np.any(p.v_reset):
            values["v_reset"] = p.v_reset
            self.changes.append(
                f"{what}: v_reset is not 0, its start is; SpikingJelly starts IF neurons at v_reset, refuses others."
            )
        uneven = [
            label
            for label, value in (("beta", p.beta), ("alpha", p.alpha), ("threshold", threshold), ("v_reset", p.v_reset))
            if np.unique(value).size > 1
        ]
        if uneven and self.reader is None:
            self.changes.append(
                f"{what}: {', '.join(uneven)} not equal for all neurons, as SpikingJelly, snnTorch and snn-mlir want."
            )
        return self.graph.add(name, kind, metadata, **values)

    def _output(self) -> None:
        readout = self.network.readout
        last = readout.population if readout else self.network.order()[-1].name
        size = self.network.population(last).size
        name = self.graph.add("output", "Output", shape=np.array([size]))
        self.graph.connect(self.names[last], name)

    def _metadata(self, bundles: list[_Bundle]) -> None:
        from snnsim import __version__

        network, readout = self.network, self.network.readout
        if len(network.inputs) > 1:
            self.changes.append(f"The file has {len(network.inputs)} Input nodes; readers built on nirtorch take one.")
        loops = [bundle for bundle in bundles if bundle.back]
        if loops:
            self.changes.append(
                "Recurrent connections: a reader takes one step round a loop, so their Delay nodes hold one step less."
            )
        early = {name: steps for name, steps in self.timing.latency.items() if steps}
        if early:
            listed = ", ".join(f"{name} {steps}" for name, steps in early.items())
            self.changes.append(
                f"In the file a current acts in the step it arrives: spikes come earlier, in steps: {listed}."
            )
        sign = ">" if self.convention.strict else ">="
        self.changes.append(
            f"NIR has no time step, no comparison: dt = {self.dt} s, Euler's rule and '{sign}' stand in the metadata."
        )
        self.graph.metadata = {
            "producer": f"snnsim {__version__}",
            "dt": self.dt,
            "time_unit": "s",
            "discretisation": "euler",
            "comparison": sign,
            "loop_steps": 1,
            "digest": network.digest(),
        }
        if self.reader is not None:
            self.graph.metadata |= {"reader": self.reader, "step": network.dt}
        if readout is not None:
            self.graph.metadata["readout"] = {
                "population": readout.population,
                "variable": readout.variable,
                "reduce": readout.reduce,
                "skip_steps": readout.skip_steps,
            }


def _one_delay_each(index: Integers, steps: Integers, size: int) -> Floats | None:
    """Return one delay for each value of ``index`` if all its synapses agree, else None."""
    low = np.full(size, np.iinfo(np.int64).max)
    high = np.zeros(size, np.int64)
    np.minimum.at(low, index, steps)
    np.maximum.at(high, index, steps)
    unused = np.bincount(index, minlength=size) == 0
    if np.any((low != high) & ~unused):
        return None
    return np.where(unused, 0, high).astype(np.float64)
