"""What an integer network of the law ``fixed`` needs on a small processor: constants, tables, arrays in memory.

Everything gets the narrowest type that provably holds it. Both the C source and the memory images are written from
this layout.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.integer_network import IntegerNetwork, IntegerPopulation, IntegerProjection
from snnsim.kernels.reference_integer_fixed import CURRENT_LIMIT, MEMBRANE_LIMIT, fixed_faults, fixed_peak
from snnsim.kernels.reference_integer_scores import POWERS, softmax_bits
from snnsim.quantize_fixed import arrival_bounds, max_count

__all__ = ["Layout", "Numbers", "PopulationLayout", "ProjectionLayout", "Table", "lay_out"]

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Table:
    """One constant array.

    Attributes:
        name: Identifier without the prefix.
        values: int64 ``(n,)``.
        bits: 8, 16 or 32.
        signed: Whether its words are two's complement.
        what: One line for people.
    """

    name: str
    values: Integers
    bits: int
    signed: bool
    what: str

    @property
    def c_type(self) -> str:
        """Type of a word in C."""
        return f"{'' if self.signed else 'u'}int{self.bits}_t"

    @property
    def n_bytes(self) -> int:
        """Bytes of the whole table."""
        return int(self.values.size) * self.bits // 8


Numbers = int | Table
"""A parameter: one number for the population, or a table."""


@dataclass(frozen=True, eq=False)
class ProjectionLayout:
    """One projection.

    Attributes:
        number: Its place in the network.
        source: Identifier of the source.
        target: Identifier of the target.
        n_source: Units of the source.
        n_target: Neurons of the target.
        from_input: Whether an input unit may act several times in a step.
        begin: First synapse of every source, ``(n_source + 1,)``, or None if every source has one synapse a target.
        unit: Target of every synapse, or None as above.
        weight: Weight of every synapse.
        delay: Steps of every synapse.
    """

    number: int
    source: str
    target: str
    n_source: int
    n_target: int
    from_input: bool
    begin: Table | None
    unit: Table | None
    weight: Table
    delay: Numbers

    def tables(self) -> list[Table]:
        """Return the tables."""
        return [item for item in (self.begin, self.unit, self.weight, self.delay) if isinstance(item, Table)]


@dataclass(frozen=True, eq=False)
class PopulationLayout:
    """One population.

    Attributes:
        name: Identifier.
        title: Name in the network.
        size: Neurons.
        kind: As in :class:`~snnsim.integer_network.IntegerPopulation`.
        parameters: By name.
        slots: Steps that its ring of arrivals holds (0: nothing ever arrives).
        ring_bits: Width of a sum in the ring.
        v_bits: Width of a membrane.
        i_bits: Width of a current.
        left_bits: Width of a refractory counter (0: none).
        clamp_v: Whether the limit of the membrane can be reached.
        clamp_i: Whether the limit of the current can be reached.
    """

    name: str
    title: str
    size: int
    kind: str
    parameters: dict[str, Numbers]
    slots: int
    ring_bits: int
    v_bits: int
    i_bits: int
    left_bits: int
    clamp_v: bool
    clamp_i: bool

    @property
    def spiking(self) -> bool:
        """Whether it has a threshold."""
        return self.kind.endswith("lif")

    @property
    def current(self) -> bool:
        """Whether it has a synaptic current."""
        return self.kind.startswith("cuba")

    @property
    def unit_bits(self) -> int:
        """Width of a neuron's number."""
        return 8 if self.size <= 256 else 16

    def tables(self) -> list[Table]:
        """Return the tables."""
        return [item for item in self.parameters.values() if isinstance(item, Table)]

    def arrays(self) -> list[tuple[str, int, int]]:
        """Return name, words and bits of every array in memory."""
        found = [(f"v_{self.name}", self.size, self.v_bits)]
        if self.current:
            found.append((f"i_{self.name}", self.size, self.i_bits))
        if self.left_bits:
            found.append((f"left_{self.name}", self.size, self.left_bits))
        if self.slots:
            found.append((f"ring_{self.name}", self.slots * self.size, self.ring_bits))
        if self.slots > 1:
            found.append((f"slot_{self.name}", 1, 16))
        if self.spiking:
            found += [(f"spikes_{self.name}", self.size, self.unit_bits), (f"n_spikes_{self.name}", 1, 16)]
        return found


@dataclass(frozen=True, eq=False)
class Layout:
    """Everything that the exporters write.

    Attributes:
        inputs: Identifier and size of every input, in order; their units are numbered through.
        populations: In order of updating.
        projections: In order of the network.
        readout: Place in ``populations`` of the one that is read, or None.
        reduce: How it is read.
        variable: ``"v"`` or ``"spikes"``.
        skip_steps: Steps before reading.
        softmax_bits: Fractional bits of the membranes if scores are sums of softmax.
        max_count: How often an input unit may act in one step.
    """

    inputs: tuple[tuple[str, int], ...]
    populations: tuple[PopulationLayout, ...]
    projections: tuple[ProjectionLayout, ...]
    readout: int | None
    reduce: str
    variable: str
    skip_steps: int
    softmax_bits: int | None
    max_count: int

    def tables(self) -> list[Table]:
        """Return every table."""
        holders: list[PopulationLayout | ProjectionLayout] = [*self.populations, *self.projections]
        powers = [] if self.softmax_bits is None else [_table("powers", POWERS, "2^15 2^-((k + 1/2) / 64)")]
        return [*(table for item in holders for table in item.tables()), *powers]

    @property
    def score_bits(self) -> int:
        """Width of a score: sums over steps may need more than 32 bits."""
        return 64 if self.reduce in ("mean", "sum_softmax") and self.variable == "v" else 32

    def arrays(self) -> list[tuple[str, int, int]]:
        """Return name, words and bits of every array in memory."""
        found = [entry for item in self.populations for entry in item.arrays()]
        if self.readout is not None:
            found.append(("scores", self.populations[self.readout].size, self.score_bits))
            if self.softmax_bits is not None:
                found.append(("terms", self.populations[self.readout].size, 16))
            if self.reduce == "max" or self.skip_steps:
                found.append(("steps", 1, 32))
        return found

    @property
    def table_bytes(self) -> int:
        """Bytes of all tables: flash."""
        return sum(table.n_bytes for table in self.tables())

    @property
    def state_bytes(self) -> int:
        """Bytes of all arrays in memory: RAM."""
        return sum(words * bits // 8 for _, words, bits in self.arrays())


def identifiers(names: Iterable[str]) -> dict[str, str]:
    """Return an identifier of C for every name, all different: ``hidden 1`` becomes ``hidden_1``."""
    found: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"\W", "_", name, flags=re.ASCII)
        candidate, number = plain, 2
        while candidate in found.values():
            candidate, number = f"{plain}_{number}", number + 1
        found[name] = candidate
    return found


def lay_out(network: IntegerNetwork, *, counts: int = 16) -> Layout:
    """Return the layout of a network.

    Args:
        network: A network of the law ``fixed``.
        counts: How often one input unit may act in a step; sums are as wide as that needs.

    Raises:
        InputError: Another law, more than 65535 units in a place, or sums that int32 cannot hold.
    """
    if not isinstance(network, IntegerNetwork):
        raise InputError(f"c99: expected an integer network of the law 'fixed', got {type(network).__name__}")
    if network.law != "fixed":
        raise InputError(
            f"c99: expected a network of the law 'fixed', got law {network.law!r}; quantise it with 'fixed'"
        )
    total = sum(item.size for item in network.inputs)
    if total > 65535:
        raise InputError(f"c99: the inputs have {total} units; unit numbers of 16 bits end at 65535")
    for item in network.populations:
        if item.size > 65535:
            raise InputError(f"c99: population {item.name!r} has {item.size} neurons; numbers of 16 bits end at 65535")
    if network.max_delay > 65534:
        raise InputError(f"c99: a delay of {network.max_delay} steps; the rings of arrivals end at 65534")
    possible = max_count(network)
    if counts > possible:
        raise InputError(
            f"c99: max_count {counts}: sums of int32 hold at most {possible} events of one input unit in a step; "
            "quantise with this max_count or export with a smaller one"
        )
    names = identifiers([*(item.name for item in network.inputs), *(item.name for item in network.populations)])
    populations = tuple(_population(network, network.populations[k], names, counts) for k in network.order())
    projections = tuple(_projection(network, k, names) for k, item in enumerate(network.projections) if item.n_synapses)
    readout = network.readout
    place, bits = None, None
    if readout is not None:
        if readout.reduce == "sum_softmax":
            bits = softmax_bits(network.scale[readout.population])
            if bits is None or readout.variable != "v":
                raise InputError(
                    f"c99: readout: the softmax needs membranes of {readout.population!r} whose scale is one power of "
                    "two within 2^0 .. 2^26; read 'mean' or 'max'"
                )
        place = [item.title for item in populations].index(readout.population)
    return Layout(
        inputs=tuple((names[item.name], item.size) for item in network.inputs),
        populations=populations,
        projections=projections,
        readout=place,
        reduce=readout.reduce if readout is not None else "",
        variable=readout.variable if readout is not None else "",
        skip_steps=readout.skip_steps if readout is not None else 0,
        softmax_bits=bits,
        max_count=counts,
    )


def _bits(low: int, high: int) -> tuple[int, bool]:
    """Return the narrowest width for a range, and whether it is signed; 32 bits always are, as C compares them."""
    for bits, signed in ((8, low < 0), (16, low < 0), (32, True)):
        top = 1 << (bits - signed)
        if high < top and low >= -top * signed:
            return bits, signed
    raise InputError(f"c99: {low} to {high} does not fit 32 bits")


def _table(name: str, values: npt.NDArray[np.integer], what: str) -> Table:
    wide = values.astype(np.int64)
    bits, signed = _bits(int(wide.min(initial=0)), int(wide.max(initial=0)))
    return Table(name, wide, bits, signed, what)


def _numbers(name: str, values: npt.NDArray[np.integer], what: str) -> Numbers:
    """Return one number if all are equal, else a table."""
    if values.size and np.all(values == values[0]):
        return int(values[0])
    return _table(name, values, what)


def _population(
    network: IntegerNetwork, item: IntegerPopulation, names: dict[str, str], counts: int
) -> PopulationLayout:
    inputs, neurons = arrival_bounds(network, item.name)
    arrivals = inputs * counts + neurons
    faults = fixed_faults(item.kind, item.parameters, arrivals)
    if faults:
        raise InputError(f"c99: population {item.name!r}: neuron {faults[0][0]}: {faults[0][1]}")
    v, i = fixed_peak(item.kind, item.parameters, arrivals)
    incoming = [p for p in network.projections if p.target == item.name and p.n_synapses]
    name = names[item.name]
    unused = {"reset_amount"} if item.spiking and np.all(item.parameters["reset_zero"] == 1) else set()
    if item.spiking and np.all(item.parameters["reset_zero"] == 0):
        unused = {"v_reset"}
    parameters = {
        key: _numbers(f"table_{key}_{name}", values, f"{key} of {item.name}")
        for key, values in item.parameters.items()
        if key not in unused
    }
    refractory = int(item.parameters["refractory_steps"].max()) if item.spiking else 0
    largest_v = min(float(v.max()), float(MEMBRANE_LIMIT))
    largest_i = min(float(i.max(initial=0.0)), float(CURRENT_LIMIT))
    return PopulationLayout(
        name=name,
        title=item.name,
        size=item.size,
        kind=item.kind,
        parameters=parameters,
        slots=max((int(p.delay.max()) for p in incoming), default=-1) + 1,
        ring_bits=16 if int(arrivals.max(initial=0)) <= 32767 else 32,
        v_bits=16 if largest_v <= 32767 else 32,
        i_bits=16 if largest_i <= 32767 else 32,
        left_bits=0 if not refractory else 8 if refractory < 256 else 16,
        clamp_v=bool((v > MEMBRANE_LIMIT).any()),
        clamp_i=bool((i > CURRENT_LIMIT).any()),
    )


def _projection(network: IntegerNetwork, number: int, names: dict[str, str]) -> ProjectionLayout:
    item: IntegerProjection = network.projections[number]
    n_target = network.population(item.target).size
    label = f"of {item.source} -> {item.target}"
    source, target = item.sources(), item.unit.astype(np.int64)
    place = source * n_target + target
    weight = _table(f"weight_{number}", item.weight, f"weights {label}")
    delay = _numbers(f"delay_{number}", item.delay, f"delays in steps {label}")
    begin = _table(f"begin_{number}", item.indptr, f"first synapse of every unit {label}")
    unit = _table(f"unit_{number}", target, f"target neurons {label}")
    cells = item.n_source * n_target
    each = weight.bits // 8 + (delay.bits // 8 if isinstance(delay, Table) else 0)
    sparse = item.n_synapses * (each + unit.bits // 8) + begin.n_bytes
    dense = len(np.unique(place)) == place.size and cells * each <= sparse
    if dense:
        weights, delays = np.zeros(cells, np.int64), np.zeros(cells, np.int64)
        weights[place] = item.weight
        delays[place] = item.delay
        weight = Table(weight.name, weights, weight.bits, weight.signed, weight.what)
        if isinstance(delay, Table):
            delay = Table(delay.name, delays, delay.bits, delay.signed, delay.what)
    return ProjectionLayout(
        number=number,
        source=names[item.source],
        target=names[item.target],
        n_source=item.n_source,
        n_target=n_target,
        from_input=item.source in {entry.name for entry in network.inputs},
        begin=None if dense else begin,
        unit=None if dense else unit,
        weight=weight,
        delay=delay,
    )
