"""A network in integers, as a chip computes it: populations of one integer law and synapses with whole weights.

An :class:`IntegerNetwork` comes out of :func:`snnsim.quantize.quantize`, is run by
:func:`snnsim.engines.integer.simulate_integer` and written for a target by :mod:`snnsim.export`. It is immutable,
checked completely when it is built, comparable, and saved as one file.

>>> net = IntegerNetwork(
...     law="loihi2",
...     populations=(IntegerPopulation("out", 2, "li", {"v_decay": 512, "i_decay": 4096, "bias": 0}),),
...     projections=(IntegerProjection("in", "out", [0, 1, 2], [0, 1], [64, -64], [1, 3]),),
...     inputs=(Input("in", 2),),
...     readout=Readout("out"),
...     dt=0.001,
... )
>>> net.max_delay, net.latency, net.population("out").parameters["v_decay"].tolist()
(3, {'out': 0}, [512, 512])
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.files import canonical_json, sha256_bytes
from snnsim.grid import check_dt
from snnsim.integer_laws import KINDS, law_of
from snnsim.network import Input, Readout
from snnsim.network_checks import MAX_UNITS, check_finite, check_integer, check_name, frozen_array

__all__ = ["IntegerNetwork", "IntegerPopulation", "IntegerProjection"]

Integers = npt.NDArray[np.int64]
Small = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]

MAX_DELAY = 2**20
"""Longest delay in steps; the arrivals of so many steps are kept for every neuron."""


@dataclass(frozen=True, eq=False)
class IntegerPopulation:
    """Neurons of one kind.

    Attributes:
        name: Unique among inputs and populations.
        size: Number of neurons.
        kind: ``"lif"``, ``"cubalif"`` (with a synaptic current), ``"li"`` or ``"cubali"`` (without a threshold).
        parameters: Whole numbers by name, each int64 ``(size,)`` (a number stands for all neurons). Their names
            are those of the law, :data:`snnsim.integer_laws.LAWS`.
    """

    name: str
    size: int
    kind: str
    parameters: Mapping[str, Integers]

    def __post_init__(self) -> None:
        check_name(self.name, "population")
        what = f"population {self.name!r}"
        object.__setattr__(self, "size", check_integer(self.size, f"{what}: size", 1, MAX_UNITS))
        if self.kind not in KINDS:
            raise InputError(f"{what}: kind: expected one of {list(KINDS)}, got {self.kind!r}")
        if not isinstance(self.parameters, Mapping):
            raise InputError(f"{what}: parameters: expected numbers by name, got {type(self.parameters).__name__}")
        frozen: dict[str, Integers] = {}
        for name in sorted(self.parameters):
            array = frozen_array(self.parameters[name], np.int64, f"{what}: {name}")
            if array.shape not in ((), (self.size,)):
                raise InputError(f"{what}: {name} has shape {array.shape}, expected ({self.size},) or one number")
            frozen[name] = array if array.ndim else frozen_array(np.full(self.size, array), np.int64, name)
        object.__setattr__(self, "parameters", MappingProxyType(frozen))

    @property
    def spiking(self) -> bool:
        """Whether there is a threshold."""
        return self.kind.endswith("lif")

    @property
    def current(self) -> bool:
        """Whether there is a synaptic current that outlives its step."""
        return self.kind.startswith("cuba")


@dataclass(frozen=True, eq=False)
class IntegerProjection:
    """Synapses from an input or a spiking population to a population, by source.

    Attributes:
        source: Name of an input or population.
        target: Name of a population.
        indptr: int64 ``(n_source + 1,)``; source j has the synapses ``indptr[j] : indptr[j + 1]``.
        unit: Target neuron of every synapse, int32 ``(n,)``.
        weight: int32 ``(n,)``.
        delay: Whole steps from the spike's step to the step in which it arrives, int32 ``(n,)``. (A Loihi delay
            field of d is d + 1 here.)
    """

    source: str
    target: str
    indptr: Integers
    unit: Small
    weight: Small
    delay: Small

    def __post_init__(self) -> None:
        check_name(self.source, "projection source")
        check_name(self.target, "projection target")
        what = f"projection {self.name!r}"
        indptr = frozen_array(self.indptr, np.int64, f"{what}: indptr")
        columns = {
            name: frozen_array(value if np.size(value) else np.zeros(0, np.int32), np.int32, f"{what}: {name}")
            for name, value in ((name, getattr(self, name)) for name in _COLUMNS)
        }
        n = columns["unit"].size
        if indptr.ndim != 1 or indptr.size < 2 or any(column.shape != (n,) for column in columns.values()):
            shapes = ", ".join(f"{name} {column.shape}" for name, column in columns.items())
            raise InputError(
                f"{what}: expected indptr (n_source + 1,) and equally long rows, got {indptr.shape}, {shapes}"
            )
        if indptr[0] != 0 or indptr[-1] != n or np.any(np.diff(indptr) < 0):
            raise InputError(f"{what}: indptr must rise from 0 to {n}, the number of synapses")
        if n and columns["delay"].min() < 0:
            raise InputError(f"{what}: delay: expected 0 steps or more, got {columns['delay'].min()}")
        if n and columns["delay"].max() > MAX_DELAY:
            raise InputError(f"{what}: delay: expected at most {MAX_DELAY} steps, got {columns['delay'].max()}")
        object.__setattr__(self, "indptr", indptr)
        for name, column in columns.items():
            object.__setattr__(self, name, column)

    @property
    def name(self) -> str:
        """``source->target``."""
        return f"{self.source}->{self.target}"

    @property
    def n_source(self) -> int:
        """Units of the source."""
        return int(self.indptr.size) - 1

    @property
    def n_synapses(self) -> int:
        """Number of synapses."""
        return int(self.unit.size)

    def sources(self) -> Integers:
        """Return the source unit of every synapse, int64 ``(n,)``."""
        return np.repeat(np.arange(self.n_source, dtype=np.int64), np.diff(self.indptr))


_COLUMNS = ("unit", "weight", "delay")


def _tuple(value: Any, kind: type, what: str) -> tuple[Any, ...]:
    records = tuple(value) if isinstance(value, Iterable) and not isinstance(value, (str, kind)) else (value,)
    for item in records:
        if not isinstance(item, kind):
            raise InputError(f"integer network: {what}: expected {kind.__name__}s, got {type(item).__name__}")
    return records


@dataclass(frozen=True, eq=False)
class IntegerNetwork:
    """Populations and synapses in integers, with what turns their numbers back into those of the float network.

    Attributes:
        law: Name of the law, a key of :data:`snnsim.integer_laws.LAWS`.
        populations: In any order; :meth:`order` gives that of updating.
        projections: Synapses.
        inputs: Where events come in.
        readout: How scores are read, in float units, or None.
        dt: Seconds a step.
        scale: By population, integer units of ``v`` per float unit, float64 ``(size,)``; default 1.
        latency: By population, steps by which its spikes come later than in the float network (earlier if negative);
            default 0.
        changes: Sentences: everything that is not as in the float network. They do not count for equality.
        source: Digest of the float network, or empty.

    Raises:
        InputError: Something does not fit together or leaves the limits of the law.
    """

    law: str
    populations: tuple[IntegerPopulation, ...]
    projections: tuple[IntegerProjection, ...]
    inputs: tuple[Input, ...]
    readout: Readout | None
    dt: float
    scale: Mapping[str, Floats] = field(default_factory=dict)
    latency: Mapping[str, int] = field(default_factory=dict)
    changes: tuple[str, ...] = ()
    source: str = ""

    def __post_init__(self) -> None:
        law_of(self.law)
        object.__setattr__(self, "populations", _tuple(self.populations, IntegerPopulation, "populations"))
        object.__setattr__(self, "projections", _tuple(self.projections, IntegerProjection, "projections"))
        object.__setattr__(self, "inputs", _tuple(self.inputs, Input, "inputs"))
        if self.readout is not None and not isinstance(self.readout, Readout):
            raise InputError(f"integer network: readout: expected Readout or None, got {type(self.readout).__name__}")
        object.__setattr__(self, "dt", check_dt(self.dt))
        object.__setattr__(self, "changes", tuple(str(item) for item in self.changes))
        object.__setattr__(self, "source", str(self.source))
        self._check_names()
        self._check_populations()
        self._check_projections()
        self._check_maps()
        self._check_readout()
        object.__setattr__(self, "_order", self._sorted())

    def _check_names(self) -> None:
        names = [item.name for item in self.inputs] + [item.name for item in self.populations]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"integer network: the name {twice!r} is used twice")
        if not self.populations:
            raise InputError("integer network: populations: expected at least one")

    def _check_populations(self) -> None:
        known = law_of(self.law).parameters
        for item in self.populations:
            what = f"population {item.name!r}"
            if item.kind not in known:
                raise InputError(f"{what}: law {self.law!r} has the kinds {sorted(known)}, got {item.kind!r}")
            limits = known[item.kind]
            if set(item.parameters) != set(limits):
                raise InputError(
                    f"{what}: a {item.kind} of law {self.law!r} has the parameters {sorted(limits)}, "
                    f"got {sorted(item.parameters)}"
                )
            for name, (low, high) in limits.items():
                outside = (item.parameters[name] < low) | (item.parameters[name] > high)
                if outside.any():
                    at = int(np.argmax(outside))
                    raise InputError(
                        f"{what}: {name}: expected {low} to {high}, got {item.parameters[name][at]} at neuron {at}"
                    )

    def _check_projections(self) -> None:
        law = law_of(self.law)
        sizes = {item.name: item.size for item in self.inputs} | {item.name: item.size for item in self.populations}
        populations = {item.name: item for item in self.populations}
        for item in self.projections:
            what = f"projection {item.name!r}"
            for end, name in (("source", item.source), ("target", item.target)):
                if name not in sizes:
                    raise InputError(f"{what}: {end} {name!r} is not in the network; it has {sorted(sizes)}")
            if item.target not in populations:
                raise InputError(f"{what}: target {item.target!r} is an input; expected a population")
            source = populations.get(item.source)
            if source is not None and not source.spiking:
                raise InputError(f"{what}: source {item.source!r} is {source.kind}, which never spikes")
            if item.n_source != sizes[item.source]:
                raise InputError(f"{what}: has {item.n_source} sources, {item.source!r} has {sizes[item.source]} units")
            if not item.n_synapses:
                continue
            if item.unit.min() < 0 or item.unit.max() >= sizes[item.target]:
                raise InputError(f"{what}: targets must lie in 0..{sizes[item.target] - 1}")
            low, high = law.weight
            if item.weight.min() < low or item.weight.max() > high:
                raise InputError(
                    f"{what}: weight: law {self.law!r} has {low} to {high}, "
                    f"got {item.weight.min()} to {item.weight.max()}"
                )
            least = law.input_delay if source is None else law.delay
            if item.delay.min() < least:
                raise InputError(
                    f"{what}: delay: law {self.law!r} needs at least {least} steps, got {item.delay.min()}"
                )

    def _check_maps(self) -> None:
        sizes = {item.name: item.size for item in self.populations}
        for what, given in (("scale", self.scale), ("latency", self.latency)):
            if not isinstance(given, Mapping) or not set(given) <= set(sizes):
                raise InputError(f"integer network: {what}: expected a mapping from populations {sorted(sizes)}")
        scale: dict[str, Floats] = {}
        latency: dict[str, int] = {}
        for name, size in sizes.items():
            value = np.asarray(self.scale.get(name, 1.0))
            if value.shape not in ((), (size,)):
                raise InputError(f"integer network: scale of {name!r} has shape {value.shape}, expected ({size},)")
            array = frozen_array(np.broadcast_to(value, (size,)), np.float64, f"scale of {name!r}")
            check_finite(array, f"scale of {name!r}")
            if array.min() <= 0:
                raise InputError(f"integer network: scale of {name!r}: expected positive numbers, got {array.min()}")
            scale[name] = array
            latency[name] = check_integer(self.latency.get(name, 0), f"latency of {name!r}", -MAX_DELAY, MAX_DELAY)
        object.__setattr__(self, "scale", MappingProxyType(scale))
        object.__setattr__(self, "latency", latency)

    def _check_readout(self) -> None:
        if self.readout is None:
            return
        population = next((item for item in self.populations if item.name == self.readout.population), None)
        if population is None:
            names = [item.name for item in self.populations]
            raise InputError(f"readout: population {self.readout.population!r} is not in the network; it has {names}")
        if self.readout.variable == "spikes" and not population.spiking:
            raise InputError(f"readout: population {population.name!r} is {population.kind}, which never spikes")

    def _sorted(self) -> tuple[int, ...]:
        index = {item.name: place for place, item in enumerate(self.populations)}
        before: list[set[int]] = [set() for _ in self.populations]
        for item in self.projections:
            if item.source in index and item.n_synapses and item.delay.min() == 0:
                before[index[item.target]].add(index[item.source])
        order: list[int] = []
        left = list(range(len(self.populations)))
        while left:
            ready = next((place for place in left if not before[place] & set(left)), None)
            if ready is None:
                names = ", ".join(self.populations[place].name for place in left)
                raise InputError(
                    f"integer network: among the populations {names} delays of 0 steps form a circle; "
                    "one of them must be at least one step"
                )
            order.append(ready)
            left.remove(ready)
        return tuple(order)

    def order(self) -> tuple[int, ...]:
        """Return the places of the populations in their order of updating inside a step."""
        places: tuple[int, ...] = self._order  # type: ignore[attr-defined]
        return places

    def population(self, name: str) -> IntegerPopulation:
        """Return the population called ``name``."""
        for item in self.populations:
            if item.name == name:
                return item
        raise InputError(f"integer network: no population {name!r}; it has {[item.name for item in self.populations]}")

    @property
    def max_delay(self) -> int:
        """Longest delay of a synapse in steps (0 without synapses)."""
        return max((int(item.delay.max(initial=0)) for item in self.projections), default=0)

    @property
    def max_latency(self) -> int:
        """Greatest latency of a population in steps, at least 0."""
        return max(0, *self.latency.values())

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some fields changed, checked again."""
        return replace(self, **changes)

    @cached_property
    def _digest(self) -> str:
        from snnsim.integer_file import describe

        manifest, _ = describe(self)
        manifest.pop("changes")
        manifest.pop("source")
        return sha256_bytes(canonical_json(manifest).encode())

    def digest(self) -> str:
        """Return the SHA-256 of everything that is computed with, 64 hexadecimal digits."""
        return self._digest

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, IntegerNetwork):
            return NotImplemented
        return self is other or self.digest() == other.digest()

    def __hash__(self) -> int:
        return hash(self.digest())

    def save(self, path: str | Path) -> Path:
        """Write the network as one HDF5 file (``.int.h5`` by convention), atomically.

        Raises:
            SnnsimFileError: The place cannot be written.
        """
        from snnsim.integer_file import save_integer

        return save_integer(self, path)

    @classmethod
    def load(cls, path: str | Path) -> IntegerNetwork:
        """Read a network that :meth:`save` wrote, checking everything.

        Raises:
            SnnsimFileError: The file is missing, damaged, of a newer schema or not an integer network.
        """
        from snnsim.integer_file import load_integer

        return load_integer(path)
