"""The reference engine: the plain NumPy definition behind the same protocol. Slow; for comparisons."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from snnsim.engines import Dtype, Inputs, Result, SampleState, State
from snnsim.engines.clock_stimuli import drives
from snnsim.engines.collect import SampleRun, accumulate, collect
from snnsim.engines.stochastic import plain, releases
from snnsim.errors import InputError
from snnsim.kernels.philox import Stream
from snnsim.kernels.poisson import poisson_counts
from snnsim.kernels.reference import ReferenceNoise, ReferencePopulation, ReferenceProjection, simulate_reference
from snnsim.kernels.reference_stochastic import Chance, ReferenceSynapses
from snnsim.network import Network, Population
from snnsim.stimuli import Poisson

__all__ = ["ReferenceEngine", "ReferenceRunner"]

PER_STEP = (
    *("beta", "drive_step", "alpha", "kappa", "drive_syn_step", "drive_syn_to_v"),
    *("v_threshold", "v_reset", "reset_amount"),
    *("adapt_decay", "adapt_v", "adapt_spike", "adapt_threshold"),
)


def _population(item: Population, dt: float, dtype: Dtype) -> ReferencePopulation:
    step = item.neuron.step(item.size, dt)
    rest = item.neuron.rest()
    return ReferencePopulation(
        size=item.size,
        kind=item.neuron.kind,
        variables=item.neuron.variables,
        receptors=item.neuron.receptors,
        rest={name: np.broadcast_to(value, (item.size,)).astype(dtype) for name, value in rest.items()},
        start_step=item.start_step,
        stop_step=2**62 if item.stop_step is None else item.stop_step,
        spiking=step.spiking,
        current=step.current,
        adaptive=hasattr(item.neuron, "tau_adapt"),
        strict=step.strict,
        reset_zero=step.reset_zero,
        refractory_steps=step.refractory_steps,
        **{name: getattr(step, name).astype(dtype) for name in PER_STEP},
        extra={name: value.astype(dtype) for name, value in step.extra.items()},
    )


class ReferenceEngine:
    """Runs every network from rest."""

    def prepare(self, network: Network, dtype: Dtype, threads: int) -> ReferenceRunner:
        """Lay the network out; it runs in one thread whatever ``threads`` says."""
        given, network = network, plain(network)
        index = {item.name: place for place, item in enumerate(network.populations)}
        inputs = {item.name: place for place, item in enumerate(network.inputs)}
        projections = []
        for item in network.projections:
            synapses = item.synapses(network.dt)
            from_input = item.source in inputs
            projections.append(
                ReferenceProjection(
                    source_kind="input" if from_input else "population",
                    source=inputs[item.source] if from_input else index[item.source],
                    target=index[item.target],
                    receptor=item.receptor,
                    source_unit=np.repeat(np.arange(item.shape[1]), np.diff(synapses.indptr)),
                    target_unit=synapses.target,
                    weight=synapses.weight.astype(dtype),
                    delay_steps=synapses.delay_steps,
                )
            )
        synapses_of = {
            number: ReferenceSynapses(item.word, item.release, item.low, item.span)
            for number, item in releases(network).items()
        }
        noisy = (place for place, item in enumerate(network.populations) if getattr(item.neuron, "noisy", False))
        return ReferenceRunner(
            given,
            dtype,
            [_population(item, network.dt, dtype) for item in network.populations],
            [index[item.name] for item in network.order()],
            projections,
            synapses_of,
            frozenset(noisy),
        )


@dataclass(frozen=True, eq=False)
class ReferenceRunner:
    """A network ready to run."""

    network: Network
    dtype: Dtype
    populations: list[ReferencePopulation]
    order: list[int]
    projections: list[ReferenceProjection]
    random: dict[int, ReferenceSynapses]
    noisy: frozenset[int]

    def run(
        self, inputs: Inputs, *, state: State | None = None, record: tuple[str, ...] = (), batch: int | None = None
    ) -> Result:
        """Run every sample, one after the other.

        Raises:
            InputError: A state in the midst of a run was given; this engine always begins at step 0.
        """
        if state is not None and any(sample.step for sample in state.samples):
            raise InputError("state: engine 'reference' cannot go on from a state; use engine 'clock'")
        started = time.perf_counter()
        runs = [
            self._sample(inputs, b, record, None if state is None else state.samples[b]) for b in range(len(inputs))
        ]
        seconds = time.perf_counter() - started
        return collect(self.network, inputs, runs, record, None, engine="reference", dtype=self.dtype, seconds=seconds)

    def _sample(self, inputs: Inputs, b: int, record: tuple[str, ...], state: SampleState | None) -> SampleRun:
        network = self.network
        n_steps = int(inputs.n_steps[b])
        counts: list[npt.NDArray[np.int64]] = []
        for j, item in enumerate(network.inputs):
            a, e = int(inputs.start[j][b]), int(inputs.start[j][b + 1])
            counts.append(np.zeros((n_steps, item.size), np.int64))
            counts[j][inputs.step[j][a:e], inputs.unit[j][a:e]] = inputs.count[j][a:e]
        initial = None
        if state is not None:
            edges = np.cumsum([item.size for item in self.populations])[:-1]
            parts = np.split(state.values, edges, axis=1)
            initial = [
                dict(zip(item.variables, part, strict=False))
                for item, part in zip(self.populations, parts, strict=True)
            ]
        index = {item.name: place for place, item in enumerate(network.populations)}
        ids = inputs.first.sample_ids
        noise = []
        for number, stimulus in enumerate(inputs.stimuli):
            if isinstance(stimulus, Poisson):
                size = network.population(stimulus.population).size
                drawn = poisson_counts(
                    *(inputs.seed, int(Stream.POISSON), b if ids is None else int(ids[b]), n_steps, number, size),
                    np.asarray(stimulus.rate) * network.dt,
                )
                weight = np.broadcast_to(np.asarray(stimulus.weight), (size,))
                noise.append(ReferenceNoise(index[stimulus.population], stimulus.receptor, drawn, weight))
        changes = drives(network, inputs.stimuli, n_steps)
        chance = None
        if self.random or self.noisy:
            chance = Chance(inputs.seed, b if ids is None else int(ids[b]), self.random, self.noisy)
        run = simulate_reference(
            self.populations, self.order, self.projections, counts, n_steps, self.dtype, initial, noise, changes, chance
        )
        spikes = {}
        for name, place in index.items():
            if self.populations[place].spiking:
                steps, units = np.nonzero(run.spikes[place])
                spikes[name] = (steps, units.astype(np.int32))
        records = {}
        for name in record:
            population, _, variable = name.rpartition(".")
            records[name] = run.state[index[population]][variable]
        accumulated = None
        if network.readout is not None:
            place = index[network.readout.population]
            trace = run.state[place]["v"] if network.readout.variable == "v" else run.spikes[place]
            accumulated = accumulate(network.readout, network, trace, 0, None)
        return SampleRun(spikes, records, accumulated, None)
