"""A proof that counts: two programs run the same network on the same input and must give the same spikes.

One side is an engine of snnsim, the reference. The other is a judge: another program that loaded an exported
file, or the model that a network was frozen from. Both compute in float64. The proof counts if it compares
at least a million neuron-steps with at least ten thousand spikes in every layer, and if the same comparison
fails when one delay, one weight or one reset is changed on purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.events import Events, bin_events
from snnsim.export.mutations import Mutation, planted
from snnsim.export.outcome import MIN_NEURON_STEPS, MIN_SPIKES, LayerProof, MutationProof, Outcome, shortfalls
from snnsim.export.proof_inputs import choose_rate, draw_counts, samples_needed
from snnsim.files import sha256_bytes

if TYPE_CHECKING:
    from snnsim.network import Network, Population

__all__ = [
    "MIN_NEURON_STEPS",
    "MIN_SPIKES",
    "Judge",
    "LayerProof",
    "MutationProof",
    "Proof",
    "generate_inputs",
    "prove",
]

TRACE_TOLERANCE = 1e-9
"""Largest difference of an integrator's trace that counts as rounding, relative to its largest value."""

Array = npt.NDArray[Any]


class Judge(Protocol):
    """Another program that runs the network."""

    name: str
    latency: Mapping[str, int]

    def run(self, inputs: npt.NDArray[np.float64]) -> Mapping[str, Array]:
        """Run counts (time, batch, unit); return spikes or traces (time, batch, unit) by population."""
        ...


@dataclass(frozen=True)
class Proof(Outcome):
    """The outcome of :func:`prove`.

    Attributes:
        executed_by: Where the judge tells: which of its code ran which node or population.
    """

    executed_by: dict[str, str]

    @property
    def equal(self) -> bool:
        """Whether no spike differs and no trace differs by more than rounding."""
        traces = [layer.trace_error for layer in self.layers if layer.trace_error is not None]
        return self.mismatches == 0 and all(error <= TRACE_TOLERANCE for error in traces)


def prove(
    network: Network,
    judge: Judge,
    *,
    events: Events | None = None,
    n_samples: int = 200,
    n_steps: int | None = None,
    seed: int = 0,
    engine: str = "clock",
    replant: Callable[[Network], Judge] | None = None,
    mutate: bool = True,
    batch: int = 50,
) -> Proof:
    """Compare an engine's spikes with a judge's, and check that planted errors are noticed.

    Args:
        network: The reference.
        judge: The other program, see :class:`Judge`.
        events: Input; by default it is generated (:func:`generate_inputs`).
        n_samples: Least number of generated samples; raised until the proof counts.
        n_steps: Steps a sample; default: the longest sample and the tail in the network's notes. Of generated
            input: steps before that tail; default 100 and twice the longest delay.
        seed: Seed of the generated input.
        engine: Engine of the reference, float64.
        replant: Makes a judge from a changed network (exports it again); by default the reference is changed.
        mutate: Whether to plant a delay, a weight and a reset.
        batch: Samples run together.

    Raises:
        InputError: The network has several inputs, or no population with a threshold.
    """
    begin = perf_counter()
    if len(network.inputs) != 1:
        raise InputError(f"proof: expected a network with one input, got {len(network.inputs)}")
    if not any(population.neuron.spiking for population in network.populations):
        raise InputError("proof: the network has no spiking population to compare")
    if events is None:
        counts, source = generate_inputs(network, n_samples=n_samples, n_steps=n_steps, seed=seed, engine=engine)
    else:
        counts, source = _given(network, events, n_steps)
    reference = _Reference(network, engine, counts, batch)
    layers = reference.compare(judge)
    mutations: list[MutationProof] = []
    if mutate:
        for choices in planted(network, reference.input_spikes(), reference.unit_spikes()):
            mutations.append(_plant_first(reference, judge, choices, replant))
    return Proof(
        reference=f"snnsim {engine} engine",
        judge=judge.name,
        executed_by=dict(getattr(judge, "executed_by", {})),
        digest=network.digest(),
        inputs_sha256=sha256_bytes(counts.tobytes()),
        layers=layers,
        mutations=tuple(mutations),
        n_samples=counts.shape[1],
        n_steps=counts.shape[0],
        source=source,
        remarks=(*shortfalls(layers), *_unexercised(network)),
        seconds=perf_counter() - begin,
        missing="",
    )


def _plant_first(
    reference: _Reference, judge: Judge, choices: list[Mutation], replant: Callable[[Network], Judge] | None
) -> MutationProof:
    """Plant the first change that makes a difference and that the target can hold; else the first one."""
    for item in choices:
        if reference.differs(item.network):
            try:
                return _plant(reference, judge, item, replant)
            except InputError:  # a target without the other kind of reset refuses the changed network
                if item.kind != "reset":
                    raise
    return _plant(reference, judge, choices[0], replant)


def _plant(
    reference: _Reference, judge: Judge, mutation: Mutation, replant: Callable[[Network], Judge] | None
) -> MutationProof:
    if replant is not None:
        layers = reference.compare(replant(mutation.network), stop_early=True)
    else:
        changed = _Reference(mutation.network, reference.engine, reference.counts, reference.batch)
        layers = changed.compare(judge, stop_early=True)
    return MutationProof(mutation.kind, mutation.what, sum(layer.mismatches for layer in layers))


def generate_inputs(
    network: Network, *, n_samples: int = 200, n_steps: int | None = None, seed: int = 0, engine: str = "clock"
) -> tuple[Array, str]:
    """Make random input under which every layer is active.

    Every channel has an event in a step with a probability of its own (half to one and a half times the
    rate), now and then two. The rate is the lowest at which every layer is active enough on a few
    samples, else the best one; the number of samples grows until a proof with them counts.

    Returns:
        Counts, uint8, shape (time, batch, unit), and a sentence that describes them.
    """
    if n_steps is None:
        n_steps = network.noted_steps("n_steps") or 100 + 2 * network.max_delay_steps()
    tail = network.noted_steps("tail_steps")
    size = network.inputs[0].size

    def draw(rate: float, samples: int) -> Array:
        return draw_counts(rate, seed, samples, n_steps, tail, size, np.uint8)

    def look(rate: float) -> tuple[list[float], float]:
        trial = _Reference(network, engine, draw(rate, 3), 3)
        active = [float(value.mean()) for value in trial.unit_rates().values()]
        return active, min(float(value.sum()) for value in trial.unit_spikes().values()) / 3

    rate, least = choose_rate(look)
    neurons = sum(population.size for population in network.populations if population.neuron.spiking)
    counts = draw(rate, samples_needed(n_samples, neurons, n_steps, least))
    return counts, f"random input, rate {rate} a step, seed {seed}"


def _given(network: Network, events: Events, n_steps: int | None) -> tuple[Array, str]:
    size = network.inputs[0].size
    if events.n_units != size:
        raise InputError(f"proof: the events have {events.n_units} channels, the network {size}")
    if n_steps is None:
        n_steps = int(events.n_steps(network.dt).max(initial=1)) + network.noted_steps("tail_steps")
    counts = np.asarray(bin_events(events, network.dt, n_steps)).astype(np.uint8)
    return counts, f"{len(events)} given samples"


class _Reference:
    """A network run by an engine of snnsim on fixed input, a few samples at a time."""

    def __init__(self, network: Network, engine: str, counts: Array, batch: int) -> None:
        self.network, self.engine, self.counts, self.batch = network, engine, counts, batch
        self._dense: dict[int, dict[str, Array]] = {}

    def chunks(self) -> range:
        return range(0, self.counts.shape[1], self.batch)

    def chunk(self, first: int) -> dict[str, Array]:
        """Return spikes (bool) or traces (float64) of one group of samples, (time, batch, unit)."""
        if first not in self._dense:
            self._dense[first] = self._simulate(self.counts[:, first : first + self.batch])
        return self._dense[first]

    def _simulate(self, counts: Array) -> dict[str, Array]:
        from snnsim.engines import simulate

        n_steps, _, size = counts.shape
        silent = [item.name for item in self.network.populations if not item.neuron.spiking]
        result = simulate(
            self.network,
            _events(counts, size, self.network.dt),
            engine=self.engine,
            record=tuple(f"{name}.v" for name in silent),
            n_steps=n_steps,
            dtype="float64",
        )
        dense: dict[str, Array] = {}
        for population in self.network.populations:
            name = population.name
            if population.neuron.spiking:
                dense[name] = np.asarray(bin_events(result.spikes[name], self.network.dt, n_steps)) > 0
            else:
                dense[name] = np.stack(result.records[f"{name}.v"], axis=1)
        return dense

    def compare(self, judge: Judge, stop_early: bool = False) -> tuple[LayerProof, ...]:
        """Run the judge on the same input and compare every population that it knows.

        Args:
            judge: The other program.
            stop_early: Stop after the first group of samples with a difference.
        """
        found: dict[str, LayerProof] = {}
        for first in self.chunks():
            ours = self.chunk(first)
            theirs = judge.run(self.counts[:, first : first + self.batch].astype(np.float64))
            for population in self.network.populations:
                name = population.name
                if name in theirs:
                    one = _compare(population, ours[name], theirs[name], judge.latency.get(name, 0), first)
                    found[name] = _add(found[name], one) if name in found else one
            if stop_early and any(layer.mismatches for layer in found.values()):
                break
        missing = [item.name for item in self.network.populations if item.neuron.spiking and item.name not in found]
        if missing:
            raise InputError(f"proof: {judge.name} gave no spikes of {', '.join(missing)}")
        return tuple(found.values())

    def differs(self, network: Network) -> bool:
        """Return whether a changed network has other spikes at all, on the same engine and input."""
        other = _Reference(network, self.engine, self.counts, self.batch)
        spiking = [item.name for item in network.populations if item.neuron.spiking]
        for first in self.chunks():
            ours, theirs = self.chunk(first), other.chunk(first)
            if any(not np.array_equal(ours[name], theirs[name]) for name in spiking):
                return True
        return False

    def input_spikes(self) -> Array:
        """Return events by channel."""
        totals: Array = self.counts.sum(axis=(0, 1), dtype=np.int64)
        return totals

    def unit_spikes(self) -> dict[str, Array]:
        """Return spikes by neuron, for every spiking population."""
        spiking = [item.name for item in self.network.populations if item.neuron.spiking]
        totals = {}
        for name in spiking:
            parts = [self.chunk(first)[name].sum(axis=(0, 1)) for first in self.chunks()]
            totals[name] = np.sum(parts, axis=0)
        return totals

    def unit_rates(self) -> dict[str, Array]:
        """Return spikes a step by neuron, for every spiking population."""
        steps = self.counts.shape[0] * self.counts.shape[1]
        return {name: value / steps for name, value in self.unit_spikes().items()}


def _events(counts: Array, size: int, dt: float) -> Events:
    """Return the events of dense counts; event k of a step is repeated as often as it counts."""
    n_steps, samples, _ = counts.shape
    times, units = [], []
    for sample in range(samples):
        step, unit = np.nonzero(counts[:, sample])
        repeat = counts[step, sample, unit].astype(np.int64)
        times.append(np.repeat(step * dt, repeat))
        units.append(np.repeat(unit, repeat).astype(np.int32))
    return Events.from_lists(times, units, size, duration=n_steps * dt)


def _compare(population: Population, ours: Array, theirs: Array, latency: int, first_sample: int) -> LayerProof:
    """Compare one population on one group of samples; steps in which it does not run must be silent on both sides."""
    name, n_steps = population.name, ours.shape[0]
    running = min(population.stop_step or n_steps, n_steps) - min(population.start_step, n_steps)
    compared = running * ours.shape[1] * ours.shape[2]
    if theirs.shape != ours.shape:
        raise InputError(f"proof: {name!r}: the judge gave shape {theirs.shape}, expected {ours.shape}")
    early = ours[:latency]
    late, judged = ours[latency:], theirs[: n_steps - latency]
    if ours.dtype != np.bool_:
        scale = max(1.0, float(np.abs(late).max(initial=0.0)))
        error = float(np.abs(late - judged).max(initial=0.0)) / scale
        return LayerProof(name, ours.shape[2], compared, 0, 0, None, error)
    differing = np.concatenate([early, late != (judged > 0.5)])
    places = np.argwhere(differing.any(axis=0)) if differing.any() else np.zeros((0, 2), np.int64)
    where = None
    if places.size:
        sample = int(places[:, 0].min())
        step, neuron = np.argwhere(differing[:, sample])[0]
        where = (first_sample + sample, int(step), int(neuron))
    return LayerProof(name, ours.shape[2], compared, int(ours.sum()), int(differing.sum()), where)


def _add(a: LayerProof, b: LayerProof) -> LayerProof:
    error = None if a.trace_error is None else max(a.trace_error, b.trace_error or 0.0)
    return LayerProof(
        a.population,
        a.size,
        a.compared + b.compared,
        a.spikes + b.spikes,
        a.mismatches + b.mismatches,
        a.first or b.first,
        error,
    )


def _unexercised(network: Network) -> list[str]:
    """Return what the comparison did not exercise."""
    remarks = []
    parameters = [item.neuron.step(item.size, network.dt) for item in network.populations]
    if not any(np.any(p.drive_step) or np.any(p.drive_syn_step) for p in parameters):
        remarks.append("The network has no drive, so none was exercised.")
    delays = [np.unique(item.delay_steps(network.dt)) for item in network.projections]
    if len(np.unique(np.concatenate(delays))) < 2:
        remarks.append("All delays of the network are equal, so no other was exercised.")
    if len(np.unique(np.concatenate([p.beta for p in parameters]))) < 2:
        remarks.append("All time constants of the network are equal, so no other was exercised.")
    return remarks
