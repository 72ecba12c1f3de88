"""What the quantisers of all laws share: weights of a population in float, rounding, and their errors."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from snnsim.integer_network import IntegerPopulation, IntegerProjection
from snnsim.limits import Profile
from snnsim.network import Network, Synapses
from snnsim.quantize_delays import DelayPlan
from snnsim.quantize_report import LayerError, QuantizeOptions

__all__ = ["Incoming", "Job", "Observed", "Quantized", "incoming", "least_scale", "make_projection", "round_weights"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Observed:
    """Largest values of a population in a run of the float network on calibration events.

    Attributes:
        v: Largest magnitude of every neuron's membrane, ``(size,)``.
        i: Of its current, zero without one.
    """

    v: Floats
    i: Floats


@dataclass(frozen=True)
class Job:
    """What a law's quantiser gets.

    Attributes:
        network: Float network that fits the profile.
        profile: The profile.
        options: Choices.
        plan: Delays in the target's steps.
        stretch: By population, factor on the scale at which its largest weight just fits; default 1.
        given: By population, the scale it was trained for; none where there is no such.
        units: By population, the float value of the integer weight 1 that it was trained for, likewise.
        observed: By population, largest values in calibration; empty without calibration.
        counts: By input, most events of a channel in one step of the calibration events; default 1.
    """

    network: Network
    profile: Profile
    options: QuantizeOptions
    plan: DelayPlan
    stretch: dict[str, float] = field(default_factory=dict)
    observed: dict[str, Observed] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    given: dict[str, Floats] = field(default_factory=dict)
    units: dict[str, Floats] = field(default_factory=dict)


@dataclass(frozen=True)
class Quantized:
    """What a law's quantiser returns.

    Attributes:
        populations: In the order of the network.
        projections: In the order of the network.
        scale: By population, integer units of v per float unit, ``(size,)``.
        errors: By population, in the same order.
        changes: Sentences about what the profile's check cannot know.
    """

    populations: list[IntegerPopulation]
    projections: list[IntegerProjection]
    scale: dict[str, Floats]
    errors: list[LayerError]
    changes: list[str]


@dataclass(frozen=True)
class Incoming:
    """All synapses into a population, projection after projection.

    Attributes:
        numbers: Places of the projections in the network.
        synapses: Their synapses.
        target: Target neuron of every synapse, int64.
        weight: Float weight of every synapse.
        size: Neurons.
    """

    numbers: list[int]
    synapses: list[Synapses]
    target: Integers
    weight: Floats
    size: int

    def largest(self, low: int, high: int) -> Floats:
        """Return for every neuron the least ``x`` with ``weight / x`` between ``low`` and ``high``, ``(size,)``."""
        needed = np.where(self.weight >= 0, self.weight / high, self.weight / low)
        result = np.zeros(self.size)
        np.maximum.at(result, self.target, needed)
        return result

    def total(self) -> Floats:
        """Return for every neuron the sum of the magnitudes of its weights, ``(size,)``."""
        return np.asarray(np.bincount(self.target, weights=np.abs(self.weight), minlength=self.size), dtype=np.float64)

    def sides(self, counts: list[int]) -> tuple[Floats, Floats]:
        """Return for every neuron the most that can enter in a step, and the most that can be taken away.

        Args:
            counts: Most events of a source in a step, one a projection.
        """
        times = np.repeat(np.array(counts, np.float64), [item.target.size for item in self.synapses])
        given = self.weight * times
        more = np.bincount(self.target, weights=np.maximum(given, 0), minlength=self.size)
        less = np.bincount(self.target, weights=np.maximum(-given, 0), minlength=self.size)
        return np.asarray(more, dtype=np.float64), np.asarray(less, dtype=np.float64)

    def pieces(self, values: npt.NDArray[np.int32]) -> list[npt.NDArray[np.int32]]:
        """Cut one number a synapse into one array a projection."""
        edges = np.cumsum([item.target.size for item in self.synapses])[:-1]
        return np.split(values, edges) if self.synapses else []


def incoming(network: Network, name: str) -> Incoming:
    """Return the synapses into the population ``name``."""
    numbers = [number for number, item in enumerate(network.projections) if item.target == name]
    synapses = [network.projections[number].synapses(network.dt) for number in numbers]
    target = np.concatenate([np.zeros(0, np.int64), *(item.target for item in synapses)]).astype(np.int64)
    weight = np.concatenate([np.zeros(0), *(item.weight for item in synapses)])
    return Incoming(numbers, synapses, target, weight, network.population(name).size)


def least_scale(limits: list[Floats], whole: bool) -> Floats:
    """Return the least of several upper limits of a scale, one a neuron or, with ``whole``, one for all neurons."""
    scale = np.min(np.stack(limits), axis=0)
    return np.full_like(scale, scale.min()) if whole else scale


def round_weights(scaled: Floats, low: int, high: int, even: bool) -> tuple[npt.NDArray[np.int32], int]:
    """Round scaled weights to whole or even numbers, ties to even, and cut what lies outside.

    Returns:
        int32 weights, and how many were cut.
    """
    rounded = 2 * np.rint(scaled / 2) if even else np.rint(scaled)
    cut = np.clip(rounded, low, high)
    return cut.astype(np.int32), int(np.count_nonzero(cut != rounded))


def make_projection(network: Network, plan: DelayPlan, number: int, weight: npt.NDArray[np.int32]) -> IntegerProjection:
    """Return a projection with integer weights and the target's delays; weights of 0 are left out."""
    item = network.projections[number]
    synapses = item.synapses(network.dt)
    keep = weight != 0
    source = np.repeat(np.arange(item.shape[1]), np.diff(synapses.indptr))[keep]
    indptr = np.concatenate(([0], np.cumsum(np.bincount(source, minlength=item.shape[1])))).astype(np.int64)
    delay = plan.delays(number, synapses)[keep].astype(np.int32)
    return IntegerProjection(item.source, item.target, indptr, synapses.target[keep], weight[keep], delay)
