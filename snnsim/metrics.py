"""What is counted and measured: operations, footprint, accuracy, under NeuroBench's names.

Source of the terms: Yik et al., "The NeuroBench framework", Nature Communications 2025: synaptic operations
are ``dense`` (every weight times every activation) or ``effective`` (neither is zero), the footprint is the
memory of what must be stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.network import Network, Sparse, Steps

__all__ = ["Footprint", "Operations", "accuracy", "count_operations", "footprint", "mean_rates"]


@dataclass(frozen=True)
class Operations:
    """Operation counts of one run, summed over its samples.

    Attributes:
        synaptic_operations: Effective ones: a term ``count * weight`` with neither zero. A source that is
            active in a step costs one operation for each of its existing synapses; coincident events of one
            input unit are one active step.
        dense: Synaptic operations without any zero skipped: steps times all weights, absent ones included.
        neuron_updates: Steps times neurons (within start_step and stop_step).
        spikes: Spikes of each population, and events of each input inside its samples.
        n_samples: Number of samples.
        by_source: Effective synaptic operations that the spikes of each population and input cause.
        active: Units times steps with at least one spike or event, of each population and input.
        neuron_steps: Steps times neurons of each population.
    """

    synaptic_operations: int
    dense: int
    neuron_updates: int
    spikes: dict[str, int]
    n_samples: int
    by_source: dict[str, int] = field(default_factory=dict)
    active: dict[str, int] = field(default_factory=dict)
    neuron_steps: dict[str, int] = field(default_factory=dict)

    def per_sample(self) -> dict[str, float]:
        """Return the means over samples (0 if there is none), by name."""
        share = 1.0 / self.n_samples if self.n_samples else 0.0
        values = {
            "synaptic_operations": self.synaptic_operations,
            "dense": self.dense,
            "neuron_updates": self.neuron_updates,
            **{f"spikes.{name}": count for name, count in self.spikes.items()},
        }
        return {name: value * share for name, value in values.items()}


def count_operations(
    network: Network,
    active: Mapping[str, npt.NDArray[np.int64]],
    spikes: Mapping[str, int],
    n_steps: npt.NDArray[np.int64],
    first_step: npt.NDArray[np.int64],
) -> Operations:
    """Count operations from how often each source unit was active.

    Args:
        network: The network.
        active: For each input and spiking population, in how many steps each unit was active, ``(size,)``.
        spikes: Number of spikes or events of each.
        n_steps: Steps of each sample.
        first_step: First step of each sample's run (not 0 when a run is continued).
    """
    by_source = dict.fromkeys(active, 0)
    dense = 0
    steps = int(n_steps.sum())
    for projection in network.projections:
        by_source[projection.source] += int(projection.out_degree @ active[projection.source])
        dense += steps * projection.shape[0] * projection.shape[1]
    updates: dict[str, int] = {}
    for population in network.populations:
        stop = first_step + n_steps
        if population.stop_step is not None:
            stop = np.minimum(stop, population.stop_step)
        running = int(np.maximum(stop - np.maximum(first_step, population.start_step), 0).sum())
        updates[population.name] = running * population.size
    return Operations(
        synaptic_operations=sum(by_source.values()),
        dense=dense,
        neuron_updates=sum(updates.values()),
        spikes=dict(spikes),
        n_samples=len(n_steps),
        by_source=by_source,
        active={name: int(counts.sum()) for name, counts in active.items()},
        neuron_steps=updates,
    )


@dataclass(frozen=True)
class Footprint:
    """What a network needs to be stored.

    Attributes:
        neurons: Number of neurons.
        synapses: Existing synapses (weight not zero).
        weights: Weights including absent ones of dense projections.
        connection_sparsity: Share of absent weights, 0 to 1.
        bytes: Bytes of all weights, delays and neuron parameters as they are stored.
        delayed_synapses: Existing synapses with a delay of at least one step.
        max_delay_steps: The longest delay of an existing synapse in steps.
    """

    neurons: int
    synapses: int
    weights: int
    connection_sparsity: float
    bytes: int
    delayed_synapses: int
    max_delay_steps: int


def footprint(network: Network) -> Footprint:
    """Measure what ``network`` needs to be stored."""
    neurons = sum(item.size for item in network.populations)
    synapses = weights = total = delayed = longest = 0
    for projection in network.projections:
        weight = projection.weight
        synapses += projection.n_synapses
        for steps in projection.existing_delays(network.dt):
            delayed += int(np.count_nonzero(steps))
            longest = max(longest, int(steps.max(initial=0)))
        if isinstance(weight, Sparse):
            weights += weight.nnz
            total += weight.nbytes
        else:
            weights += weight.size
            total += weight.nbytes
        delay = projection.delay
        total += (delay.values if isinstance(delay, Steps) else np.asarray(delay)).nbytes
    for population in network.populations:
        total += sum(
            np.asarray(value).nbytes
            for value in population.neuron.parameters().values()
            if isinstance(value, (float, np.ndarray))
        )
    sparsity = 1 - synapses / weights if weights else 0.0
    return Footprint(neurons, synapses, weights, sparsity, total, delayed, longest)


def accuracy(predictions: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Return the share of labelled samples (label >= 0) that are predicted right.

    Raises:
        InputError: The lengths differ or no sample has a label.
    """
    said, truth = np.asarray(predictions), np.asarray(labels)
    if said.shape != truth.shape or said.ndim != 1:
        raise InputError(f"accuracy: {said.shape} predictions and {truth.shape} labels; expected one of each a sample")
    known = truth >= 0
    if not known.any():
        raise InputError("accuracy: no sample has a label")
    return float(np.mean(said[known] == truth[known]))


def mean_rates(spikes: Mapping[str, Events], start: float = 0.0) -> dict[str, float]:
    """Return the mean rate of every population, spikes a second and neuron, over all samples.

    Args:
        spikes: Population name to events, as in ``Result.spikes``.
        start: What happens earlier in a sample is left out, seconds.

    Raises:
        InputError: No sample lasts longer than ``start``.
    """
    rates = {}
    for name, events in spikes.items():
        span = float(np.sum(np.maximum(events.duration - start, 0)))
        if span <= 0:
            raise InputError(f"mean_rates: {name!r}: no sample lasts longer than start = {start} s")
        rates[name] = float(np.count_nonzero(events.times >= start)) / (events.n_units * span)
    return rates
