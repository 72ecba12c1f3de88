"""A frozen spiking network: populations, projections with delays, inputs, a readout and a time step.

A :class:`Network` is immutable, checked completely when it is built, comparable, and saved as one file. What
it computes is written in ``docs/model.md``; nothing here knows how it is run.

>>> from snnsim.neurons import LIF
>>> net = Network(
...     populations=(Population("hidden", 2, LIF(tau_mem=0.01)),),
...     projections=(Projection("sound", "hidden", np.ones((2, 3)), delay=0.002),),
...     inputs=(Input("sound", 3),),
...     readout=None,
...     dt=0.001,
... )
>>> net.projections[0].synapses(net.dt).delay_steps.tolist()
[2, 2, 2, 2, 2, 2]
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.files import canonical_json, sha256_bytes
from snnsim.grid import check_dt, delay_to_steps
from snnsim.neurons import Neuron

__all__ = [
    "Input",
    "Network",
    "Population",
    "Projection",
    "Readout",
    "Reduce",
    "Sparse",
    "Synapses",
    "Variable",
]

Variable = Literal["v", "spikes"]
Reduce = Literal["sum_softmax", "mean", "max", "last", "count"]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

MAX_UNITS = 2**31 - 1
MAX_DELAY_STEPS = 2**31 - 1


def _name(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{what} name: expected text, got {type(value).__name__}")
    if not value or len(value) > 200 or not value.isprintable() or "->" in value or "/" in value:
        raise InputError(
            f"{what} name {value[:40]!r}: expected 1 to 200 printable characters without '->' and '/', "
            "because projections and files are named with them"
        )
    return value


def _integer(value: object, what: str, low: int, high: int = 2**63 - 1) -> int:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise InputError(f"{what}: expected an integer, got {value!r}")
    if not low <= int(value) <= high:
        raise InputError(f"{what}: expected {low} to {high}, got {int(value)}")
    return int(value)


def _array(value: Any, dtype: Any, what: str) -> npt.NDArray[Any]:
    """Return a read-only copy, C order; an array that nobody can write to is taken as it is."""
    if isinstance(value, np.ndarray):
        array = value
    else:
        try:
            array = np.asarray(value)
        except (TypeError, ValueError) as error:
            raise InputError(f"{what}: expected an array of numbers, got {type(value).__name__}") from error
    kinds = "iuf" if np.dtype(dtype).kind == "f" else "iu"
    if array.dtype.kind not in kinds:
        raise InputError(f"{what}: expected {np.dtype(dtype)} numbers, got {array.dtype}")
    frozen = array.dtype == dtype and array.flags.c_contiguous and not array.flags.writeable
    if frozen and (array.base is None or (isinstance(array.base, np.ndarray) and not array.base.flags.writeable)):
        return array
    if kinds == "iu" and array.size:
        limits = np.iinfo(dtype)
        if int(array.min()) < limits.min or int(array.max()) > limits.max:
            raise InputError(f"{what}: values do not fit {np.dtype(dtype)}")
    copy = np.array(array, dtype=dtype, order="C")
    copy.setflags(write=False)
    return copy


def _finite(array: npt.NDArray[Any], what: str) -> None:
    if array.size and not np.isfinite(array).all():
        place = np.argwhere(~np.isfinite(array))[0].tolist()
        raise InputError(f"{what}: expected finite numbers, got {array[tuple(place)]} at {place}")


@dataclass(frozen=True)
class Input:
    """A source of events: ``size`` channels named together.

    Attributes:
        name: Unique among inputs and populations.
        size: Number of units.
    """

    name: str
    size: int

    def __post_init__(self) -> None:
        _name(self.name, "input")
        object.__setattr__(self, "size", _integer(self.size, f"input {self.name!r}: size", 1, MAX_UNITS))


@dataclass(frozen=True)
class Population:
    """Neurons of one law.

    Attributes:
        name: Unique among inputs and populations.
        size: Number of neurons.
        neuron: A record of :mod:`snnsim.neurons`; parameters are scalars or ``(size,)`` arrays.
        start_step: Before this step the state is zero, the drive is off and arrivals are lost.
        stop_step: From this step on the population is no longer updated: no spikes, state held, arrivals
            lost. None: it runs to the end.
    """

    name: str
    size: int
    neuron: Neuron
    start_step: int = 0
    stop_step: int | None = None

    def __post_init__(self) -> None:
        _name(self.name, "population")
        what = f"population {self.name!r}"
        object.__setattr__(self, "size", _integer(self.size, f"{what}: size", 1, MAX_UNITS))
        if not isinstance(self.neuron, Neuron) or not self.neuron.kind:
            raise InputError(f"{what}: neuron: expected a record such as LIF(), got {type(self.neuron).__name__}")
        implied = self.neuron.size()
        if implied is not None and implied != self.size:
            raise InputError(
                f"{what}: its {self.neuron.kind} parameters are for {implied} neurons, its size is {self.size}"
            )
        object.__setattr__(self, "start_step", _integer(self.start_step, f"{what}: start_step", 0))
        if self.stop_step is not None:
            stop = _integer(self.stop_step, f"{what}: stop_step", self.start_step + 1)
            object.__setattr__(self, "stop_step", stop)


@dataclass(frozen=True, eq=False)
class Sparse:
    """Synapses as compressed rows by source. Parallel synapses are allowed; their order is kept.

    The synapses of source ``j`` are the entries ``indptr[j] : indptr[j + 1]``.

    Attributes:
        indptr: int64, shape ``(n_source + 1,)``, from 0 to nnz, never falling.
        target: int32, shape ``(nnz,)``.
        weight: float64, shape ``(nnz,)``.
        shape: ``(n_target, n_source)``.
    """

    indptr: Integers
    target: npt.NDArray[np.int32]
    weight: Floats
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        shape = tuple(self.shape)
        if len(shape) != 2:
            raise InputError(f"sparse weight: shape: expected (n_target, n_source), got {shape}")
        n_target = _integer(shape[0], "sparse weight: n_target", 1, MAX_UNITS)
        n_source = _integer(shape[1], "sparse weight: n_source", 1, MAX_UNITS)
        object.__setattr__(self, "shape", (n_target, n_source))
        indptr = _array(self.indptr, np.int64, "sparse weight: indptr")
        target = _array(self.target, np.int32, "sparse weight: target")
        weight = _array(self.weight, np.float64, "sparse weight: weight")
        if indptr.shape != (n_source + 1,):
            raise InputError(
                f"sparse weight: indptr has shape {indptr.shape}, expected ({n_source + 1},) for {n_source} sources"
            )
        if target.ndim != 1 or weight.shape != target.shape:
            raise InputError(
                f"sparse weight: target {target.shape} and weight {weight.shape} must be equally long rows"
            )
        if indptr[0] != 0 or indptr[-1] != target.shape[0] or np.any(np.diff(indptr) < 0):
            raise InputError(f"sparse weight: indptr must rise from 0 to {target.shape[0]}, the number of synapses")
        if target.size and (target.min() < 0 or target.max() >= n_target):
            raise InputError(
                f"sparse weight: targets must lie in 0..{n_target - 1}, got {target.min()}..{target.max()}"
            )
        _finite(weight, "sparse weight")
        object.__setattr__(self, "indptr", indptr)
        object.__setattr__(self, "target", target)
        object.__setattr__(self, "weight", weight)

    @classmethod
    def from_triples(
        cls, source: npt.ArrayLike, target: npt.ArrayLike, weight: npt.ArrayLike, shape: tuple[int, int]
    ) -> Self:
        """Build from one ``(source, target, weight)`` a synapse; synapses of a source keep their order."""
        sources = _array(source, np.int64, "sparse weight: source")
        if sources.size and (sources.min() < 0 or sources.max() >= shape[1]):
            raise InputError(f"sparse weight: sources must lie in 0..{shape[1] - 1}")
        order = np.argsort(sources, kind="stable")
        indptr = np.concatenate(([0], np.cumsum(np.bincount(sources, minlength=shape[1]))))
        return cls(indptr, np.asarray(target)[order], np.asarray(weight)[order], shape)

    @property
    def nnz(self) -> int:
        """Number of stored synapses."""
        return int(self.target.shape[0])

    @cached_property
    def source(self) -> Integers:
        """Source of every synapse, int64 ``(nnz,)``."""
        return np.repeat(np.arange(self.shape[1], dtype=np.int64), np.diff(self.indptr))


@dataclass(frozen=True)
class Synapses:
    """The existing synapses of a projection, by source: what an engine walks along.

    Attributes:
        indptr: int64 ``(n_source + 1,)``.
        target: int32 ``(n,)``.
        weight: float64 ``(n,)``, none is zero.
        delay_steps: int64 ``(n,)``.
        index: int64 ``(n,)``, flat index into the projection's weight.
    """

    indptr: Integers
    target: npt.NDArray[np.int32]
    weight: Floats
    delay_steps: Integers
    index: Integers


@dataclass(frozen=True, eq=False)
class Projection:
    """Synapses from an input or a spiking population to a population.

    Attributes:
        source: Name of an input or population.
        target: Name of a population.
        weight: float64 ``(n_target, n_source)``, where 0 means no synapse, or :class:`Sparse`.
        delay: Seconds: a number; ``(1, n_source)`` axonal; ``(n_target, 1)`` dendritic; ``(n_target,
            n_source)``; or for a sparse weight ``(nnz,)``, one a synapse.
    """

    source: str
    target: str
    weight: Floats | Sparse
    delay: float | Floats = 0.0

    def __post_init__(self) -> None:
        _name(self.source, "projection source")
        _name(self.target, "projection target")
        what = f"projection {self.name!r}"
        weight = self.weight
        if not isinstance(weight, Sparse):
            weight = _array(weight, np.float64, f"{what}: weight")
            if weight.ndim != 2:
                raise InputError(f"{what}: weight has shape {weight.shape}, expected (n_target, n_source)")
            _finite(weight, f"{what}: weight")
            object.__setattr__(self, "weight", weight)
        delay = _array(self.delay, np.float64, f"{what}: delay")
        _finite(delay, f"{what}: delay")
        if delay.size and delay.min() < 0:
            raise InputError(f"{what}: delay: expected non-negative seconds, got {delay.min()}")
        n_target, n_source = weight.shape
        allowed = [(1, 1), (1, n_source), (n_target, 1), (n_target, n_source)]
        if isinstance(weight, Sparse):
            if delay.ndim and delay.shape not in [*allowed, (weight.nnz,)]:
                raise InputError(
                    f"{what}: delay has shape {delay.shape}, expected a number, ({weight.nnz},) for one a synapse, "
                    f"(1, {n_source}) axonal, ({n_target}, 1) dendritic or ({n_target}, {n_source})"
                )
        elif delay.ndim == 1:
            raise InputError(
                f"{what}: delay has shape {delay.shape}, which does not say whose delays they are; "
                f"use (1, {n_source}) for one a source or ({n_target}, 1) for one a target"
            )
        elif delay.ndim and delay.shape not in allowed:
            raise InputError(
                f"{what}: delay has shape {delay.shape}, expected a number, (1, {n_source}) axonal, "
                f"({n_target}, 1) dendritic or ({n_target}, {n_source})"
            )
        object.__setattr__(self, "delay", delay if delay.ndim else float(delay))

    @property
    def name(self) -> str:
        """``source->target``; parallel projections share it."""
        return f"{self.source}->{self.target}"

    @property
    def shape(self) -> tuple[int, int]:
        """``(n_target, n_source)``."""
        rows, columns = self.weight.shape
        return int(rows), int(columns)

    def delay_steps(self, dt: float) -> Integers:
        """Return the delays in steps of ``dt``, in the shape they were given in (ties round to even)."""
        try:
            steps = delay_to_steps(self.delay, dt)
        except InputError as error:
            raise InputError(f"projection {self.name!r}: {error}") from None
        return steps

    def synapses(self, dt: float) -> Synapses:
        """Return the existing synapses, by source, then target (dense) or stored order (sparse).

        A weight of exactly 0 is no synapse: leaving it out changes no bit of any sum.
        """
        steps = self.delay_steps(dt)
        if isinstance(self.weight, Sparse):
            sparse = self.weight
            sources, targets, weights = sparse.source, sparse.target, sparse.weight
            delays = steps if steps.ndim == 1 else np.broadcast_to(steps, sparse.shape)[targets, sources]
            keep = np.flatnonzero(weights)
            index = keep
            if keep.shape[0] != weights.shape[0]:
                sources, targets, weights, delays = sources[keep], targets[keep], weights[keep], delays[keep]
        else:
            sources, rows = np.nonzero(self.weight.T)
            targets = rows.astype(np.int32)
            weights = self.weight[rows, sources]
            delays = np.broadcast_to(steps, self.shape)[rows, sources]
            index = rows * self.shape[1] + sources
        counts = np.bincount(sources, minlength=self.shape[1])
        indptr = np.concatenate((np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)))
        return Synapses(indptr, targets, np.ascontiguousarray(weights), np.ascontiguousarray(delays), index)

    @cached_property
    def n_synapses(self) -> int:
        """Number of synapses whose weight is not zero."""
        weight = self.weight.weight if isinstance(self.weight, Sparse) else self.weight
        return int(np.count_nonzero(weight))


@dataclass(frozen=True)
class Readout:
    """How a sample's class scores are read from a population, one score a neuron.

    The trace ``x[k]`` is ``v`` after the reset, or the spike (0 or 1), at every step ``k`` of the sample with
    ``k >= start_step + skip_steps`` and before the population's ``stop_step``. If no step is left all scores are 0.

    Attributes:
        population: Its name.
        variable: ``"v"`` or ``"spikes"``.
        reduce: ``sum_softmax``: sum over steps of softmax(x[k]) over neurons; ``mean``, ``max``, ``last`` of
            x; ``count``: number of spikes.
        skip_steps: First steps left out.
    """

    population: str
    variable: Variable = "v"
    reduce: Reduce = "sum_softmax"
    skip_steps: int = 0

    def __post_init__(self) -> None:
        _name(self.population, "readout population")
        if self.variable not in get_args(Variable):
            raise InputError(f"readout: variable: expected one of {list(get_args(Variable))}, got {self.variable!r}")
        if self.reduce not in get_args(Reduce):
            raise InputError(f"readout: reduce: expected one of {list(get_args(Reduce))}, got {self.reduce!r}")
        if self.reduce == "count" and self.variable != "spikes":
            raise InputError("readout: reduce 'count' counts spikes: use variable='spikes', or reduce='mean' for v")
        object.__setattr__(self, "skip_steps", _integer(self.skip_steps, "readout: skip_steps", 0))


def _records(value: Any, kind: type, what: str) -> tuple[Any, ...]:
    if isinstance(value, kind):
        raise InputError(
            f"network: {what}: expected a tuple of {kind.__name__}, got one {kind.__name__}; write ({what[:-1]},)"
        )
    if not isinstance(value, Iterable):
        raise InputError(f"network: {what}: expected a tuple of {kind.__name__}, got {type(value).__name__}")
    records = tuple(value)
    for item in records:
        if not isinstance(item, kind):
            raise InputError(f"network: {what}: expected {kind.__name__} records, got {type(item).__name__}")
    return records


@dataclass(frozen=True, eq=False)
class Network:
    """Populations joined by projections, with inputs, a readout and a time step.

    Two networks are equal if they compute the same: names, order, every number bit for bit. ``notes`` say
    where a network comes from and are not compared.

    Attributes:
        populations: In any order; :meth:`order` is the order of updating.
        projections: Their order is the order of summation, see ``docs/model.md``.
        inputs: Where events enter.
        readout: None if there are no class scores.
        dt: Time step, seconds.
        notes: JSON values, for people and reports.

    Raises:
        InputError: Names repeat or are unknown, shapes disagree, a population without spikes is a source, or
            delay-0 projections into delta-synapse populations form a cycle.
    """

    populations: tuple[Population, ...]
    projections: tuple[Projection, ...]
    inputs: tuple[Input, ...]
    readout: Readout | None
    dt: float
    notes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "populations", _records(self.populations, Population, "populations"))
        object.__setattr__(self, "projections", _records(self.projections, Projection, "projections"))
        object.__setattr__(self, "inputs", _records(self.inputs, Input, "inputs"))
        if self.readout is not None and not isinstance(self.readout, Readout):
            raise InputError(f"network: readout: expected Readout or None, got {type(self.readout).__name__}")
        object.__setattr__(self, "dt", check_dt(self.dt))
        try:
            notes = json.loads(canonical_json(self.notes))
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"network: notes: expected values that JSON can hold ({error})") from None
        if not isinstance(notes, dict):
            raise InputError(f"network: notes: expected a dict, got {type(self.notes).__name__}")
        object.__setattr__(self, "notes", notes)
        self._check_names()
        self._check_populations()
        self._check_projections()
        self._check_readout()
        object.__setattr__(self, "_order", self._sorted())

    def _check_names(self) -> None:
        seen: set[str] = set()
        members: tuple[Input | Population, ...] = (*self.inputs, *self.populations)
        for item in members:
            if item.name in seen:
                raise InputError(
                    f"network: the name {item.name!r} is used twice; inputs and populations need their own"
                )
            seen.add(item.name)
        if not self.populations:
            raise InputError("network: populations: expected at least one")

    def _check_populations(self) -> None:
        for population in self.populations:
            try:
                step = population.neuron.step(population.neuron.size() or 1, self.dt)
            except InputError as error:
                raise InputError(f"population {population.name!r}: {error}") from None
            for name in ("beta", "drive_step", "alpha", "kappa", "drive_syn_step", "drive_syn_to_v"):
                _finite(getattr(step, name), f"population {population.name!r}: {population.neuron.kind} {name}")

    def _check_projections(self) -> None:
        members: tuple[Input | Population, ...] = (*self.inputs, *self.populations)
        sizes = {item.name: item.size for item in members}
        populations = {item.name: item for item in self.populations}
        for projection in self.projections:
            what = f"projection {projection.name!r}"
            for end, name in (("source", projection.source), ("target", projection.target)):
                if name not in sizes:
                    raise InputError(f"{what}: {end} {name!r} is not in the network; it has {sorted(sizes)}")
            if projection.target not in populations:
                raise InputError(f"{what}: target {projection.target!r} is an input; expected a population")
            source = populations.get(projection.source)
            if source is not None and not source.neuron.spiking:
                raise InputError(f"{what}: source {source.name!r} is {source.neuron.kind}, which never spikes")
            expected = (sizes[projection.target], sizes[projection.source])
            if projection.shape != expected:
                raise InputError(
                    f"{what}: weight has shape {projection.shape}, expected {expected} (target "
                    f"{projection.target!r} has {expected[0]} units, source {projection.source!r} has {expected[1]})"
                )
            longest = float(np.max(projection.delay, initial=0.0)) / self.dt
            if longest > MAX_DELAY_STEPS:
                raise InputError(f"{what}: delay of {longest:.3g} steps; expected at most {MAX_DELAY_STEPS}")

    def _check_readout(self) -> None:
        if self.readout is None:
            return
        population = next((item for item in self.populations if item.name == self.readout.population), None)
        if population is None:
            names = [item.name for item in self.populations]
            raise InputError(f"readout: population {self.readout.population!r} is not in the network; it has {names}")
        if self.readout.variable == "spikes" and not population.neuron.spiking:
            raise InputError(
                f"readout: population {population.name!r} is {population.neuron.kind}, which never spikes; read 'v'"
            )

    def _sorted(self) -> tuple[int, ...]:
        index = {item.name: place for place, item in enumerate(self.populations)}
        before: list[set[int]] = [set() for _ in self.populations]
        for projection in self.projections:
            target = index[projection.target]
            if (
                projection.source in index
                and not self.populations[target].neuron.current
                and self._has_delay_0(projection)
            ):
                before[target].add(index[projection.source])
        order: list[int] = []
        left = list(range(len(self.populations)))
        while left:
            ready = next((place for place in left if not before[place] & set(left)), None)
            if ready is None:
                names = [self.populations[place].name for place in self._cycle(before, left)]
                raise InputError(
                    f"network: populations {' -> '.join(names)} wait for one another: their projections have delay 0 "
                    f"after rounding to dt = {self.dt} s; give one of them a delay of at least one step"
                )
            order.append(ready)
            left.remove(ready)
        return tuple(order)

    def _has_delay_0(self, projection: Projection) -> bool:
        steps = projection.delay_steps(self.dt)
        if steps.size and steps.min() > 0:
            return False
        if steps.size == 1:
            return projection.n_synapses > 0
        synapses = projection.synapses(self.dt)
        return bool(np.any(synapses.delay_steps == 0))

    @staticmethod
    def _cycle(before: list[set[int]], left: list[int]) -> list[int]:
        """Follow one waiting population to the next until one repeats."""
        path = [left[0]]
        while True:
            following = min(before[path[-1]] & set(left))
            if following in path:
                return [*reversed(path[path.index(following) :]), path[-1]]
            path.append(following)

    def order(self) -> tuple[Population, ...]:
        """Return the populations in their order of updating inside a step.

        A population comes after those that reach it with delay 0 (after rounding to ``dt``), if its synapses
        are delta synapses; among several possible ones the first listed comes first.
        """
        places: tuple[int, ...] = self._order  # type: ignore[attr-defined]
        return tuple(self.populations[place] for place in places)

    def population(self, name: str) -> Population:
        """Return the population called ``name``."""
        for item in self.populations:
            if item.name == name:
                return item
        raise InputError(f"network: no population {name!r}; it has {[item.name for item in self.populations]}")

    def input(self, name: str) -> Input:
        """Return the input called ``name``."""
        for item in self.inputs:
            if item.name == name:
                return item
        raise InputError(f"network: no input {name!r}; it has {[item.name for item in self.inputs]}")

    def max_delay_steps(self) -> int:
        """Return the longest delay of an existing projection in steps (0 if there is none)."""
        longest = [int(np.max(item.delay_steps(self.dt), initial=0)) for item in self.projections]
        return max(longest, default=0)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed, checked again."""
        return replace(self, **changes)

    @cached_property
    def _digest(self) -> str:
        from snnsim.network_file import describe

        manifest, _ = describe(self)
        manifest.pop("notes")
        return sha256_bytes(canonical_json(manifest).encode())

    def digest(self) -> str:
        """Return the SHA-256 of everything that is computed with (notes left out), 64 hexadecimal digits."""
        return self._digest

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Network):
            return NotImplemented
        return self is other or self.digest() == other.digest()

    def __hash__(self) -> int:
        return hash(self.digest())

    def save(self, path: str | Path) -> Path:
        """Write the network as one HDF5 file (``.snn.h5`` by convention), atomically.

        Raises:
            SnnsimFileError: The place cannot be written.
        """
        from snnsim.network_file import save_network

        return save_network(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Network:
        """Read a network that :meth:`save` wrote, checking everything.

        Raises:
            SnnsimFileError: The file is missing, damaged, of a newer schema or not a network.
        """
        from snnsim.network_file import load_network

        return load_network(path)
