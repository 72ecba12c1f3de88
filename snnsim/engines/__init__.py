"""Engines that run a frozen network: one protocol, one function :func:`simulate`, one :class:`Result`.

``clock`` is the Numba engine, ``cuda`` the same on a GPU; ``reference`` is the plain NumPy definition, slow and for
comparison. In float64 all give the same spikes, bit for bit, for any number of threads and any split into batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from snnsim.engines.initial import initial_state
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.grid import check_dt, time_to_step
from snnsim.machine import usable_cores
from snnsim.metrics import Operations
from snnsim.network import Input, Network
from snnsim.network_checks import check_integer
from snnsim.plasticity import PairSTDP, check_plasticity
from snnsim.stimuli import Stimulus, check_stimuli

__all__ = ["ENGINES", "Dtype", "Engine", "Inputs", "Result", "Runner", "SampleState", "State", "simulate"]

Dtype = Literal["float64", "float32"]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SampleState:
    """Where one sample stands after its last step. Opaque: pass it back, do not build it.

    Attributes:
        step: Steps done.
        values: Row r holds variable r of every neuron's record, ``(most variables, neurons)``.
        left: Refractory steps left of every neuron, int64.
        pending_place: Where arrivals are on their way, int64.
        pending_value: Their sums.
        readout: The readout so far, None without one.
    """

    step: int
    values: npt.NDArray[Any]
    left: Integers
    pending_place: Integers
    pending_value: npt.NDArray[Any]
    readout: tuple[Floats, int] | None


@dataclass(frozen=True, eq=False)
class State:
    """The state of all samples after a run; ``simulate(..., state=result.state)`` goes on from there."""

    digest: str
    dtype: str
    engine: str
    samples: tuple[SampleState, ...]


@dataclass(frozen=True, eq=False)
class Inputs:
    """Events of every input on the grid, ready for an engine.

    Attributes:
        start: First entry of each sample, one int64 ``(n_samples + 1,)`` an input.
        step: Step of each entry, ascending within a sample, int64.
        unit: Unit of each entry, ascending within a step, int64.
        count: Coincident events of the unit in the step, int64.
        n_steps: Steps of each sample, int64 ``(n_samples,)``.
        dropped: Events beyond the last step of their sample, int64 ``(n_samples,)``.
        first: The first input's Events: labels, sample ids and class names come from it.
        stimuli: What acts on populations without events.
        seed: Of random stimuli.
        events: Events of every input as they were given, for an engine that does not need a grid.
        progress: Called from time to time with the number of steps that one sample has done since the last call.
        plasticity: Rules by which synapses learn.
    """

    start: tuple[Integers, ...]
    step: tuple[Integers, ...]
    unit: tuple[Integers, ...]
    count: tuple[Integers, ...]
    n_steps: Integers
    dropped: Integers
    first: Events
    stimuli: tuple[Stimulus, ...] = ()
    seed: int = 0
    events: tuple[Events, ...] = ()
    progress: Callable[[int], None] | None = None
    plasticity: tuple[PairSTDP, ...] = ()

    def __len__(self) -> int:
        return int(self.n_steps.shape[0])


@dataclass(frozen=True, eq=False)
class Result:
    """What a run gave.

    Attributes:
        spikes: Per spiking population its Events; a spike of step k has time ``k * dt``.
        logits: Class scores, float64 ``(n_samples, n_classes)``, or None without a readout. When a run is
            continued they cover all steps since the zero state.
        records: Per requested ``"population.variable"`` one ``(n_steps_i, size)`` array a sample: the value
            at the end of each step (v after the reset, i after the arrivals).
        state: Pass it to :func:`simulate` to go on.
        operations: Operation counts.
        n_steps: Steps of each sample, int64 ``(n_samples,)``.
        dropped: Input events of each sample at or beyond its last step, int64 ``(n_samples,)``.
        engine: Name of the engine.
        seconds: Wall time of the run without preparation.
        notes: What else an engine has to say.
        weights: Per plastic projection, called as its rule calls it, one float64 array a sample: the weights at the
            end, in the shape the projection stores. ``network.with_weights({name: result.weights[name][0]})``.
    """

    spikes: dict[str, Events]
    logits: Floats | None
    records: dict[str, list[npt.NDArray[Any]]]
    state: State | None
    operations: Operations
    n_steps: Integers
    dropped: Integers
    engine: str
    seconds: float
    notes: dict[str, Any] = field(default_factory=dict)
    weights: dict[str | int, list[Floats]] = field(default_factory=dict)

    @property
    def predictions(self) -> Integers:
        """Class with the highest score of each sample (the first of equal ones), int64 ``(n_samples,)``.

        Raises:
            InputError: The network has no readout.
        """
        if self.logits is None:
            raise InputError("predictions: the network has no readout, so there are no class scores")
        return np.asarray(np.argmax(self.logits, axis=1), dtype=np.int64)


class Runner(Protocol):
    """A network made ready by an engine."""

    def run(
        self, inputs: Inputs, *, state: State | None = None, record: tuple[str, ...] = (), batch: int | None = None
    ) -> Result:
        """Run every sample and return the result."""
        ...


class Engine(Protocol):
    """A way to run a network."""

    def prepare(self, network: Network, dtype: Dtype, threads: int) -> Runner:
        """Make ``network`` ready; refuse, with a reason, what the engine cannot run."""
        ...


def _clock() -> Engine:
    from snnsim.engines.clock import ClockEngine

    return ClockEngine()


def _reference() -> Engine:
    from snnsim.engines.reference import ReferenceEngine

    return ReferenceEngine()


def _event() -> Engine:
    from snnsim.engines.event import EventEngine

    return EventEngine()


def _event_grid() -> Engine:
    from snnsim.engines.clock import ClockEngine

    return ClockEngine(sleepy=True)


def _cuda() -> Engine:
    from snnsim.engines.cuda import CudaEngine

    return CudaEngine()


ENGINES = {"clock": _clock, "cuda": _cuda, "event": _event, "event-grid": _event_grid, "reference": _reference}
"""Engine by name; an entry is called when its engine is first used."""


def _mode(network: Network, engine: str, resolution: float | None) -> str:
    """Return the engine that runs: engine "event" has two ways through time."""
    if resolution is None:
        return engine
    if engine not in ("event", "event-grid"):
        raise InputError(f"resolution: expected None with engine {engine!r}, which runs on the grid of dt anyway")
    if isinstance(resolution, bool) or not np.isclose(check_dt(resolution), network.dt, rtol=1e-9, atol=0):
        raise InputError(
            f"resolution: expected None (continuous time) or the network's dt = {network.dt} s, got {resolution!r}"
        )
    return "event-grid"


def at_dt(network: Network, dt: float | None) -> Network:
    """Return the network on the grid ``dt``, which is its own unless all its numbers are continuous-time ones."""
    if dt is None or check_dt(dt) == network.dt:
        return network
    try:
        if any(item.start_step or item.stop_step is not None for item in network.populations):
            raise InputError("its populations start or stop at given steps")
        if network.readout is not None and network.readout.skip_steps:
            raise InputError("its readout skips a number of steps")
        return network.replace(dt=dt)
    except InputError as error:
        raise InputError(f"dt = {dt} s: this network can only run at its own dt = {network.dt} s: {error}") from None


class OnGrid(Protocol):
    """A network, in floats or in integers, whose inputs are put on a grid."""

    @property
    def inputs(self) -> tuple[Input, ...]:
        """Its inputs."""
        ...

    @property
    def dt(self) -> float:
        """Seconds a step."""
        ...


def grid_inputs(
    network: OnGrid,
    events: Events | Mapping[str, Events] | None,
    n_steps: npt.ArrayLike | None = None,
    tail_steps: int = 0,
) -> Inputs:
    """Put the events of every input on the network's grid and count coincident ones.

    Raises:
        InputError: Inputs are missing or unknown, sizes or sample counts disagree, or n_steps is needed.
    """
    if isinstance(tail_steps, bool) or not isinstance(tail_steps, (int, np.integer)) or tail_steps < 0:
        raise InputError(f"tail_steps: expected a non-negative integer, got {tail_steps!r}")
    names = [item.name for item in network.inputs]
    if isinstance(events, Events):
        if len(names) != 1:
            raise InputError(f"events: the network has inputs {names}; pass a dict with Events for each")
        events = {names[0]: events}
    given = dict(events or {})
    if set(given) != set(names):
        raise InputError(f"events: expected Events for the inputs {names}, got {sorted(given)}")
    for item in network.inputs:
        if not isinstance(given[item.name], Events):
            raise InputError(f"events: input {item.name!r}: expected Events, got {type(given[item.name]).__name__}")
        if given[item.name].n_units != item.size:
            raise InputError(
                f"events: input {item.name!r} has {item.size} units, its events have {given[item.name].n_units}; "
                "are these the data the network was made for?"
            )
    lengths = {len(item) for item in given.values()}
    if len(lengths) > 1:
        raise InputError(f"events: the inputs have different numbers of samples {sorted(lengths)}")
    if names:
        first = given[names[0]]
    else:
        count = 1 if n_steps is None else int(np.asarray(n_steps).size)
        first = Events.from_lists([[]] * count, [[]] * count, n_units=1, duration=0.0)
    if n_steps is None:
        if not names:
            raise InputError("n_steps: the network has no input, so the number of steps must be given")
        steps = np.max([item.n_steps(network.dt) for item in given.values()], axis=0)
    else:
        array = np.asarray(n_steps)
        if array.dtype.kind not in "iu" or array.ndim > 1 or (array.ndim and array.shape != (len(first),)):
            raise InputError(
                f"n_steps: expected an integer or one a sample ({len(first)},), got {array.dtype} {array.shape}"
            )
        steps = np.broadcast_to(array.astype(np.int64), (len(first),))
        if steps.size and steps.min() < 0:
            raise InputError(f"n_steps: expected non-negative integers, got {steps.min()}")
    steps = np.asarray(steps, dtype=np.int64) + int(tail_steps)
    dropped = np.zeros(len(first), np.int64)
    parts: list[tuple[Integers, Integers, Integers, Integers]] = []
    for item in network.inputs:
        start, step, unit, count_of, lost = _count(given[item.name], network.dt, steps)
        parts.append((start, step, unit, count_of))
        dropped += lost
    columns = [tuple(part[column] for part in parts) for column in range(4)]
    unbinned = tuple(given[name] for name in names)
    return Inputs(columns[0], columns[1], columns[2], columns[3], steps, dropped, first, events=unbinned)


def _count(events: Events, dt: float, n_steps: Integers) -> tuple[Integers, Integers, Integers, Integers, Integers]:
    """Return start, step, unit, count of the events on the grid, and how many were dropped a sample."""
    step = time_to_step(events.times, dt)
    unit = events.units.astype(np.int64)
    sample = np.repeat(np.arange(len(events), dtype=np.int64), np.diff(events.offsets))
    inside = (step >= 0) & (step < n_steps[sample])
    lost = np.bincount(sample[~inside], minlength=len(events)).astype(np.int64)
    if lost.any():
        step, unit, sample = step[inside], unit[inside], sample[inside]
    ends = np.concatenate((np.zeros(1, np.int64), np.cumsum(n_steps)))
    total_steps = int(ends[-1])
    if total_steps and events.n_units > (2**63 - 1) // total_steps:
        raise InputError(f"n_steps: {total_steps} steps in all samples together are too many")
    key = np.sort((ends[sample] + step) * events.n_units + unit)
    new = np.ones(key.shape[0], np.bool_)
    new[1:] = key[1:] != key[:-1]
    first = np.flatnonzero(new)
    count = np.diff(first, append=key.shape[0])
    key = key[first]
    at, unit = np.divmod(key, events.n_units)
    start = np.searchsorted(at, ends).astype(np.int64)
    step = at - np.repeat(ends[:-1], np.diff(start))
    return start, step, unit, count.astype(np.int64), lost


def simulate(
    network: Network,
    events: Events | Mapping[str, Events] | None,
    *,
    engine: str = "clock",
    dt: float | None = None,
    record: Iterable[str] = (),
    threads: int | None = None,
    dtype: Dtype = "float64",
    n_steps: npt.ArrayLike | None = None,
    tail_steps: int = 0,
    batch: int | None = None,
    state: State | None = None,
    initial: Mapping[str, npt.ArrayLike] | None = None,
    stimuli: Iterable[Stimulus] | Stimulus = (),
    seed: int = 0,
    resolution: float | None = None,
    progress: Callable[[int], None] | None = None,
    plasticity: Iterable[PairSTDP] | PairSTDP = (),
) -> Result:
    """Run a network on samples of events.

    Args:
        network: What to run.
        events: Events of the only input, or a dict with Events for each input; None if there is no input.
        engine: A name in :data:`ENGINES`.
        dt: Time step in seconds; default the network's, and another one only for a network whose numbers
            are all continuous-time ones.
        record: ``"population.v"`` or another of the neuron's ``variables``, such as ``"population.i"``.
        threads: Threads; default all processors. The result does not depend on it; engine ``"cuda"`` ignores it.
        dtype: ``"float64"``, the parity mode, or ``"float32"``.
        n_steps: Steps of every sample, or one number a sample; default ``events.n_steps(dt)``.
        tail_steps: Empty steps added to every sample.
        batch: Samples handed to a thread at a time, or on the device at once; default chosen from their number. The
            result does not depend on it.
        state: ``Result.state`` of an earlier run of the same network and samples, to go on from; step 0 of
            this run's events is the step after that run's last.
        initial: Values before step 0 instead of the neurons' rest, by ``"population.variable"``: a number, one a
            neuron, or one a sample and neuron.
        stimuli: :class:`snnsim.stimuli.Poisson` and :class:`snnsim.stimuli.Current` that act in this run.
        seed: Of random stimuli, below 2**32.
        resolution: Of engine ``"event"``: None, continuous time on the events as they are; the network's ``dt``, its
            grid, with the spikes of engine ``"clock"``.
        progress: Called from time to time, perhaps from several threads, with the number of steps that one sample has
            done since the last call; engines on the grid only.
        plasticity: :class:`snnsim.plasticity.PairSTDP` rules by which synapses learn in this run; engine ``"event"``
            in continuous time only. Every sample starts from the network's weights, or from its own in ``state``.

    Raises:
        InputError: Something does not fit; the sentence says what.
    """
    if engine not in ENGINES:
        raise InputError(f"engine: expected one of {sorted(ENGINES)}, got {engine!r}")
    if dtype not in ("float64", "float32"):
        raise InputError(f"dtype: expected 'float64' or 'float32', got {dtype!r}")
    for name, value in (("threads", threads), ("batch", batch)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1):
            raise InputError(f"{name}: expected a positive integer, got {value!r}")
    network = at_dt(network, dt)
    mode = _mode(network, engine, resolution)
    names = (record,) if isinstance(record, str) else tuple(record)
    check_records(network, names)
    inputs = grid_inputs(network, events, n_steps, tail_steps)
    seed = check_integer(seed, "seed", 0, 2**32 - 1)
    inputs = replace(inputs, stimuli=check_stimuli(network, stimuli), seed=seed, progress=progress)
    inputs = replace(inputs, plasticity=check_plasticity(network, plasticity))
    if inputs.plasticity and mode != "event":
        raise InputError("plasticity: synapses learn in continuous time: use engine='event' without a resolution")
    if initial and state is not None:
        raise InputError("initial: a run that goes on from a state has its values already; give one of the two")
    if initial:
        state = initial_state(network, initial, len(inputs), dtype, mode)
    elif state is not None:
        if state.digest != network.digest() or state.dtype != dtype or state.engine != mode:
            raise InputError("state: comes from another network, dtype or engine; start without it")
        if len(state.samples) != len(inputs):
            raise InputError(f"state: holds {len(state.samples)} samples, the events {len(inputs)}")
    if mode == "event" and inputs.stimuli:
        raise InputError(
            "stimuli: engine 'event' in continuous time runs on events alone; give the noise as events, or use "
            "engine='clock' or resolution=dt"
        )
    runner = ENGINES[mode]().prepare(network, dtype, threads or usable_cores())
    return runner.run(inputs, state=state, record=names, batch=batch)


def check_records(network: Network, names: tuple[str, ...], what: str = "record") -> None:
    """Refuse names that are not ``"population.variable"`` of this network."""
    for name in names:
        population, _, variable = str(name).rpartition(".")
        if not population:
            raise InputError(f"{what}: expected 'population.variable' such as 'hidden.v', got {name!r}")
        neuron = network.population(population).neuron
        if variable not in neuron.variables:
            raise InputError(
                f"{what}: {name!r}: {neuron.kind} has the variables {', '.join(neuron.variables)}, not {variable!r}"
            )
