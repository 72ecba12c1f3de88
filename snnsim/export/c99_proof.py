"""The proof of a C99 export: the compiled program and the integer reference give the same spikes, scores and state.

Both sides are whole numbers, so every comparison is for equality. Samples are run by the program and by
:func:`snnsim.engines.integer.simulate_integer`; then one weight, one delay and one reset are changed on purpose, each
changed network is exported and compiled again, and its program must differ from the true reference.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.engines.integer import simulate_integer
from snnsim.errors import InputError
from snnsim.events import Events, bin_events
from snnsim.export.c99 import INTEGERS, write_c99
from snnsim.export.c99_judge import C99Judge, C99Run, CompilerMissingError, pack_samples
from snnsim.export.integer_mutations import planted_integers
from snnsim.export.outcome import LayerProof, MutationProof, Outcome, shortfalls
from snnsim.export.proof_inputs import choose_rate, draw_counts, samples_needed
from snnsim.files import sha256_bytes
from snnsim.integer_network import IntegerNetwork
from snnsim.kernels.reference_integer_scores import fixed_scores, softmax_bits
from snnsim.network import Network

__all__ = ["C99Proof", "prove_c99"]

Array = npt.NDArray[Any]
PROFILED = 3
"""Samples whose instructions and ticks are counted."""


@dataclass(frozen=True)
class C99Proof(Outcome):
    """The outcome of :func:`prove_c99`.

    Attributes:
        compiler: Command, version and flags; empty without a compiler.
        sources_sha256: Hashes of the compiled files.
        score_mismatches: Scores that differ.
        membrane_mismatches: Membranes that differ after the last step, of all populations.
        operation_mismatches: Samples whose counts of synaptic operations or neuron updates differ.
        operations_a_sample: Synapses walked, on average.
        updates_a_sample: Neurons updated, on average.
        instructions_a_sample: Host instructions in the step function, by valgrind; None where it is missing.
        ticks_a_sample: Median ticks of the host's counter in the step function; None where it has none.
        sizes: Bytes of text, data and bss of the network's object compiled with -Os; None without ``size``.
        table_bytes: Bytes of the constant tables.
        state_bytes: Bytes of the arrays in memory.
    """

    compiler: dict[str, str]
    sources_sha256: dict[str, str]
    score_mismatches: int
    membrane_mismatches: int
    operation_mismatches: int
    operations_a_sample: float
    updates_a_sample: float
    instructions_a_sample: float | None
    ticks_a_sample: float | None
    sizes: dict[str, int] | None
    table_bytes: int
    state_bytes: int

    @property
    def mismatches(self) -> int:
        """Everything that differs: neuron-steps, scores, membranes and counts."""
        return super().mismatches + self.score_mismatches + self.membrane_mismatches + self.operation_mismatches

    def headline(self) -> list[str]:
        """Return the first sentences, with scores, membranes and counts."""
        return [
            *super().headline(),
            f"{self.score_mismatches} scores, {self.membrane_mismatches} membranes after the last step and "
            f"{self.operation_mismatches} counts of operations differ.",
        ]

    def costs(self) -> list[str]:
        """Return sentences about operations, instructions and bytes."""
        cost = (
            f"{self.operations_a_sample:.0f} synapses walked and {self.updates_a_sample:.0f} neurons updated a sample"
        )
        if self.instructions_a_sample is not None:
            cost += f", {self.instructions_a_sample:.0f} instructions of this host (valgrind, -O2)"
        if self.ticks_a_sample is not None:
            cost += f", {self.ticks_a_sample:.0f} ticks of its counter"
        sizes = f"Tables: {self.table_bytes} bytes; memory: {self.state_bytes} bytes" + self._measured()
        return [f"{cost}.", f"{sizes}."]

    def _measured(self) -> str:
        if self.sizes is None:
            return ""
        return "; the object (-Os) has {text} of code and constants, {data} of data, {bss} of memory".format(
            **self.sizes
        )


def prove_c99(
    network: Network | IntegerNetwork | None,
    path: str | Path,
    *,
    events: Events | None = None,
    n_samples: int = 200,
    n_steps: int | None = None,
    seed: int = 0,
    mutate: bool = True,
    cost: bool = True,
    batch: int = 50,
) -> C99Proof:
    """Compile an export, run it, and compare it with the integer reference.

    Args:
        network: The network that was written; its notes may say how many empty steps follow a sample.
        path: The folder of the export; the integer network in it is the reference.
        events: Samples; by default they are generated. More events of a unit in a step than the export allows are
            left out.
        n_samples: Least number of generated samples.
        n_steps: Steps a sample; default: the longest sample and the tail in the network's notes, or, generated, 100
            and twice the longest delay.
        seed: Seed of generated samples.
        mutate: Whether to plant errors.
        cost: Whether to count the host's instructions and ticks.
        batch: Samples run together.

    Raises:
        InputError: The folder holds another network, one of several inputs or without a population with a threshold, or
            the program fails.
    """
    begin = perf_counter()
    whole = IntegerNetwork.load(Path(path) / INTEGERS)
    tail = network.noted_steps("tail_steps") if isinstance(network, Network) else 0
    if network is not None and network.digest() != (whole.source if isinstance(network, Network) else whole.digest()):
        raise InputError(f"proof: {path} holds another network than the one given; export it again")
    if len(whole.inputs) != 1:
        raise InputError(f"proof: expected a network with one input, got {len(whole.inputs)}")
    if not any(item.spiking for item in whole.populations):
        raise InputError("proof: the network has no spiking population to compare")
    try:
        judge = C99Judge(path)
    except CompilerMissingError as error:
        return _not_proven(whole, str(error), perf_counter() - begin)
    with judge:
        limit = int(judge.description["max_count"])
        if events is None:
            counts, source = _generated(whole, n_samples, n_steps, seed, tail)
        else:
            counts, source = _given(whole, events, n_steps, tail, limit)
        reference = _Reference(whole, counts, batch)
        layers, different, total = reference.compare(judge)
        instructions, ticks = judge.cost(counts[:, :PROFILED]) if cost else (None, None)
        mutations = tuple(_plant(reference, judge, limit)) if mutate else ()
        return C99Proof(
            reference="integer reference of law 'fixed'",
            judge=judge.name,
            compiler={
                "command": judge.compiler.command,
                "version": judge.compiler.version,
                "flags": " ".join(judge.flags),
            },
            missing="",
            digest=whole.digest(),
            sources_sha256=judge.hashes,
            inputs_sha256=sha256_bytes(pack_samples(counts)),
            layers=layers,
            score_mismatches=different["scores"],
            membrane_mismatches=different["membranes"],
            operation_mismatches=different["operations"],
            mutations=mutations,
            n_samples=counts.shape[1],
            n_steps=counts.shape[0],
            source=source,
            operations_a_sample=float(np.concatenate(total["operations"]).mean()),
            updates_a_sample=float(np.concatenate(total["updates"]).mean()),
            instructions_a_sample=instructions,
            ticks_a_sample=ticks,
            sizes=judge.sizes(),
            table_bytes=int(judge.description["table_bytes"]),
            state_bytes=int(judge.description["state_bytes"]),
            remarks=tuple(shortfalls(layers)),
            seconds=perf_counter() - begin,
        )


def _not_proven(whole: IntegerNetwork, why: str, seconds: float) -> C99Proof:
    return C99Proof(
        reference="integer reference of law 'fixed'",
        judge="nothing",
        compiler={},
        missing=why,
        digest=whole.digest(),
        sources_sha256={},
        inputs_sha256="",
        layers=(),
        score_mismatches=0,
        membrane_mismatches=0,
        operation_mismatches=0,
        mutations=(),
        n_samples=0,
        n_steps=0,
        source="",
        operations_a_sample=0.0,
        updates_a_sample=0.0,
        instructions_a_sample=None,
        ticks_a_sample=None,
        sizes=None,
        table_bytes=0,
        state_bytes=0,
        remarks=(),
        seconds=seconds,
    )


def _events(counts: Array, dt: float) -> Events:
    n_steps, samples, size = counts.shape
    times, units = [], []
    for sample in range(samples):
        step, unit = np.nonzero(counts[:, sample])
        repeat = counts[step, sample, unit].astype(np.int64)
        times.append(np.repeat(step * dt, repeat))
        units.append(np.repeat(unit, repeat).astype(np.int32))
    return Events.from_lists(times, units, size, duration=n_steps * dt)


def _given(whole: IntegerNetwork, events: Events, n_steps: int | None, tail: int, limit: int) -> tuple[Array, str]:
    size = whole.inputs[0].size
    if events.n_units != size:
        raise InputError(f"proof: the events have {events.n_units} channels, the network {size}")
    if n_steps is None:
        n_steps = int(events.n_steps(whole.dt).max(initial=1)) + tail
    counts = np.asarray(bin_events(events, whole.dt, n_steps)).astype(np.int64)
    lost = int(np.maximum(counts - limit, 0).sum())
    more = f", {lost} events beyond {limit} of a unit in a step left out" if lost else ""
    return np.minimum(counts, limit), f"{len(events)} given samples{more}"


def _generated(whole: IntegerNetwork, n_samples: int, n_steps: int | None, seed: int, tail: int) -> tuple[Array, str]:
    """Return random counts under which every layer is active, as :func:`snnsim.export.proof.generate_inputs` does."""
    steps = 100 + 2 * whole.max_delay if n_steps is None else n_steps
    size = whole.inputs[0].size

    def draw(rate: float, samples: int) -> Array:
        return draw_counts(rate, seed, samples, steps, tail, size, np.int64)

    def look(rate: float) -> tuple[list[float], float]:
        trial = _Reference(whole, draw(rate, 3), 3)
        sums = {name: int(value.sum()) for name, value in trial.unit_spikes().items()}
        active = [total / (3 * (steps + tail) * whole.population(name).size) for name, total in sums.items()]
        return active, min(sums.values()) / 3

    rate, least = choose_rate(look)
    neurons = sum(item.size for item in whole.populations if item.spiking)
    counts = draw(rate, samples_needed(n_samples, neurons, steps + tail, least))
    return counts, f"random input, rate {rate} a step, seed {seed}"


class _Reference:
    """An integer network run on fixed input, a few samples at a time."""

    def __init__(self, network: IntegerNetwork, counts: Array, batch: int) -> None:
        self.network, self.counts, self.batch = network, counts, batch
        self._runs: dict[int, C99Run] = {}

    def chunk(self, first: int) -> C99Run:
        """Return what a group of samples gives, in the form of the program's output."""
        if first not in self._runs:
            self._runs[first] = self._simulate(self.counts[:, first : first + self.batch])
        return self._runs[first]

    def _simulate(self, counts: Array) -> C99Run:
        network, (n_steps, samples, _) = self.network, counts.shape
        result = simulate_integer(
            network,
            _events(counts, network.dt),
            record=[f"{item.name}.v" for item in network.populations],
            n_steps=n_steps,
        )
        spikes = {
            name: np.asarray(bin_events(events, network.dt, n_steps)) > 0 for name, events in result.spikes.items()
        }
        traces = {item.name: np.stack(result.records[f"{item.name}.v"]) for item in network.populations}
        scores = None
        readout = network.readout
        if readout is not None:
            if readout.variable == "v":
                rows = traces[readout.population]
            else:
                rows = spikes[readout.population].transpose(1, 0, 2).astype(np.int64)
            bits = softmax_bits(network.scale[readout.population]) or 0
            scores = np.stack([fixed_scores(readout.reduce, row[readout.skip_steps :], bits) for row in rows])
        operations = np.zeros(samples, np.int64)
        sources = {network.inputs[0].name: counts > 0, **spikes}
        for item in network.projections:
            degree = np.diff(item.indptr)
            operations += (sources[item.source].sum(axis=0, dtype=np.int64) * degree).sum(axis=1)
        updates = np.full(samples, n_steps * sum(item.size for item in network.populations), np.int64)
        membranes = {name: np.asarray(trace[:, -1], np.int64) for name, trace in traces.items()}
        return C99Run(spikes, scores, membranes, operations, updates, np.zeros(samples, np.int64))

    def compare(
        self, judge: C99Judge, stop_early: bool = False
    ) -> tuple[tuple[LayerProof, ...], dict[str, int], dict[str, list[Array]]]:
        """Return the layers, how many scores, membranes and counts differ, and what the program counted."""
        found: dict[str, LayerProof] = {}
        different = {"scores": 0, "membranes": 0, "operations": 0}
        total: dict[str, list[Array]] = {"operations": [], "updates": []}
        for first in range(0, self.counts.shape[1], self.batch):
            ours, theirs = self.chunk(first), judge.run(self.counts[:, first : first + self.batch])
            for name, spikes in ours.spikes.items():
                found[name] = _add(found.get(name), name, spikes, theirs.spikes[name], first)
            if ours.scores is not None and theirs.scores is not None:
                different["scores"] += int(np.count_nonzero(ours.scores != theirs.scores))
            for name, membrane in ours.membranes.items():
                different["membranes"] += int(np.count_nonzero(membrane != theirs.membranes[name]))
            counted = (ours.operations != theirs.operations) | (ours.updates != theirs.updates)
            different["operations"] += int(np.count_nonzero(counted))
            for name in total:
                total[name].append(getattr(theirs, name))
            if stop_early and (any(layer.mismatches for layer in found.values()) or any(different.values())):
                break
        return tuple(found.values()), different, total

    def unit_spikes(self) -> dict[str, Array]:
        """Return spikes by neuron."""
        parts = [self.chunk(first).spikes for first in range(0, self.counts.shape[1], self.batch)]
        return {name: np.sum([part[name].sum(axis=(0, 1)) for part in parts], axis=0) for name in parts[0]}

    def differs(self, network: IntegerNetwork) -> bool:
        """Return whether a changed network has other spikes on this input."""
        other = _Reference(network, self.counts, self.batch)
        for first in range(0, self.counts.shape[1], self.batch):
            ours, theirs = self.chunk(first).spikes, other.chunk(first).spikes
            if any(not np.array_equal(ours[name], theirs[name]) for name in ours):
                return True
        return False


def _add(before: LayerProof | None, name: str, ours: Array, theirs: Array, first: int) -> LayerProof:
    differing = ours != theirs
    where = before.first if before is not None else None
    if where is None and differing.any():
        sample = int(np.flatnonzero(differing.any(axis=(0, 2)))[0])
        step, neuron = np.argwhere(differing[:, sample])[0]
        where = (first + sample, int(step), int(neuron))
    old = LayerProof(name, ours.shape[2], 0, 0, 0) if before is None else before
    return LayerProof(
        name,
        ours.shape[2],
        old.compared + ours.size,
        old.spikes + int(ours.sum()),
        old.mismatches + int(differing.sum()),
        where,
    )


def _plant(reference: _Reference, judge: C99Judge, limit: int) -> Iterator[MutationProof]:
    """Export, compile and run changed networks against the true reference."""
    network = reference.network
    given = reference.counts.sum(axis=(0, 1))
    for kind, choices in planted_integers(network, {network.inputs[0].name: given, **reference.unit_spikes()}):
        what, changed = next((item for item in choices if reference.differs(item[1])), choices[0])
        with TemporaryDirectory(prefix="snnsim-planted-") as folder:
            write_c99(changed, folder, prefix=judge.prefix, counts=limit, images=False)
            with C99Judge(folder, flags=judge.flags, compiler=judge.compiler) as other:
                layers, _, _ = reference.compare(other, stop_early=True)
        yield MutationProof(kind, what, sum(layer.mismatches for layer in layers))
