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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.files import canonical_json, sha256_bytes
from snnsim.grid import check_dt
from snnsim.network_checks import MAX_UNITS, check_finite, check_integer, check_name, frozen_array
from snnsim.network_sparse import Sparse, Steps
from snnsim.network_synapses import Projection, Synapses
from snnsim.neurons import Neuron

__all__ = [
    "Input",
    "Network",
    "Population",
    "Projection",
    "Readout",
    "Reduce",
    "Sparse",
    "Steps",
    "Synapses",
    "Variable",
]

Variable = Literal["v", "spikes"]
Reduce = Literal["sum_softmax", "mean", "max", "last", "count"]

MAX_DELAY_STEPS = 2**31 - 1


MAX_NOTED = 2**24
"""Most steps that a note may say."""


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
        check_name(self.name, "input")
        object.__setattr__(self, "size", check_integer(self.size, f"input {self.name!r}: size", 1, MAX_UNITS))


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
        check_name(self.name, "population")
        what = f"population {self.name!r}"
        object.__setattr__(self, "size", check_integer(self.size, f"{what}: size", 1, MAX_UNITS))
        if not isinstance(self.neuron, Neuron) or not self.neuron.kind:
            raise InputError(f"{what}: neuron: expected a record such as LIF(), got {type(self.neuron).__name__}")
        implied = self.neuron.size()
        if implied is not None and implied != self.size:
            raise InputError(
                f"{what}: its {self.neuron.kind} parameters are for {implied} neurons, its size is {self.size}"
            )
        object.__setattr__(self, "start_step", check_integer(self.start_step, f"{what}: start_step", 0))
        if self.stop_step is not None:
            stop = check_integer(self.stop_step, f"{what}: stop_step", self.start_step + 1)
            object.__setattr__(self, "stop_step", stop)


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
        check_name(self.population, "readout population")
        if self.variable not in get_args(Variable):
            raise InputError(f"readout: variable: expected one of {list(get_args(Variable))}, got {self.variable!r}")
        if self.reduce not in get_args(Reduce):
            raise InputError(f"readout: reduce: expected one of {list(get_args(Reduce))}, got {self.reduce!r}")
        if self.reduce == "count" and self.variable != "spikes":
            raise InputError("readout: reduce 'count' counts spikes: use variable='spikes', or reduce='mean' for v")
        object.__setattr__(self, "skip_steps", check_integer(self.skip_steps, "readout: skip_steps", 0))


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
                check_finite(getattr(step, name), f"population {population.name!r}: {population.neuron.kind} {name}")
            for name, values in step.extra.items():
                check_finite(values, f"population {population.name!r}: {population.neuron.kind} {name}")

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
            neuron = populations[projection.target].neuron
            if projection.receptor not in (neuron.receptors or ("",)):
                known = " or ".join(repr(name) for name in neuron.receptors)
                raise InputError(
                    f"{what}: receptor: {neuron.kind} has {f'{known}; name one' if known else 'one kind of synapse'}, "
                    f"got {projection.receptor!r}"
                )
            weight = projection.weight
            lowest = weight.weight if isinstance(weight, Sparse) else weight
            if neuron.conductances and np.min(lowest, initial=0.0) < 0:
                raise InputError(
                    f"{what}: weight: {neuron.kind} has conductances, which are not negative, got {np.min(lowest)}; an "
                    "inhibitory synapse has a positive weight and the receptor 'inh'"
                )
            expected = (sizes[projection.target], sizes[projection.source])
            if projection.shape != expected:
                raise InputError(
                    f"{what}: weight has shape {projection.shape}, expected {expected} (target "
                    f"{projection.target!r} has {expected[0]} units, source {projection.source!r} has {expected[1]})"
                )
            longest = projection.longest_delay(self.dt)
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
        if not projection.delay_each:
            steps = projection.delay_steps(self.dt)
            if steps.size and steps.min() > 0:
                return False
            if steps.size == 1:
                return projection.n_synapses > 0
        return any(bool(np.any(steps == 0)) for steps in projection.existing_delays(self.dt))

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

    def projection_place(self, which: str | int) -> int:
        """Return the place of a projection in ``projections``, given its name or its place.

        Raises:
            InputError: There is no such projection, or several share the name.
        """
        if isinstance(which, str):
            places = [place for place, item in enumerate(self.projections) if item.name == which]
            if len(places) > 1:
                raise InputError(
                    f"network: {len(places)} projections are called {which!r}; give one of {places} instead"
                )
            if not places:
                raise InputError(
                    f"network: no projection {which!r}; it has {list(dict.fromkeys(p.name for p in self.projections))}"
                )
            return places[0]
        return check_integer(which, "network: place of a projection", 0, len(self.projections) - 1)

    def with_weights(self, weights: Mapping[str | int, npt.ArrayLike]) -> Network:
        """Return a copy in which some projections have other weights on the same synapses and delays.

        A weight of exactly 0 is no synapse, here as everywhere in a network.

        Args:
            weights: By name or place of a projection: float64 in the shape of its stored weights,
                ``(n_target, n_source)`` or, for a sparse weight, ``(nnz,)``.

        Raises:
            InputError: A projection is unknown or named twice, or a shape differs.
        """
        projections = list(self.projections)
        done: set[int] = set()
        for which, given in weights.items():
            place = self.projection_place(which)
            old = self.projections[place]
            what = f"projection {old.name!r}"
            if place in done:
                raise InputError(f"{what}: expected weights once, they are given by name and by place")
            done.add(place)
            values = frozen_array(given, np.float64, f"{what}: weight")
            expected = (old.weight.nnz,) if isinstance(old.weight, Sparse) else old.shape
            if values.shape != expected:
                raise InputError(f"{what}: weight has shape {values.shape}, expected {expected}, as it is stored")
            check_finite(values, f"{what}: weight")
            weight = replace(old.weight, weight=values) if isinstance(old.weight, Sparse) else values
            projections[place] = replace(old, weight=weight)
        return self.replace(projections=tuple(projections))

    def max_delay_steps(self) -> int:
        """Return the longest delay of an existing projection in steps (0 if there is none)."""
        return max((int(np.rint(item.longest_delay(self.dt))) for item in self.projections), default=0)

    def noted_steps(self, name: str) -> int:
        """Return a number of steps from the notes, ``"tail_steps"`` or ``"n_steps"`` (0 if it is not there).

        Raises:
            InputError: Something else stands there.
        """
        value = self.notes.get(name)
        return 0 if value is None else check_integer(value, f"network: notes[{name!r}]", 0, MAX_NOTED)

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
