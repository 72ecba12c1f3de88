"""Pair STDP in continuous time: the plain definition, a sum over pairs of spikes. Slow.

``kernels/event_plastic.py`` is compared with it. It keeps every arrival and every spike and knows no traces.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from snnsim.kernels.reference_event import ReferenceNeuron, ReferenceSynapse

__all__ = ["ReferenceRule", "simulate_plastic_reference"]


@dataclass(frozen=True)
class ReferenceRule:
    """A pair at distance ``d`` counts ``a exp(-d / tau)``; see :class:`snnsim.plasticity.PairSTDP`."""

    tau_plus: float
    tau_minus: float
    a_plus: float
    a_minus: float
    w_min: float
    w_max: float
    multiplicative: bool = False
    nearest: bool = False

    def clip(self, weight: float) -> float:
        """Put a weight into its bounds."""
        return min(max(weight, self.w_min), self.w_max)

    def depressed(self, weight: float, count: int, arrival: float, spikes: Sequence[float]) -> float:
        """Return the weight after ``count`` events arrive; spikes are those before the arrival, in order."""
        before = spikes[-1:] if self.nearest else spikes
        change = self.a_minus * count * sum(math.exp(-(arrival - t) / self.tau_minus) for t in before)
        return self.clip(weight - change * (weight - self.w_min if self.multiplicative else 1.0))

    def potentiated(self, weight: float, spike: float, arrivals: Sequence[tuple[float, int]]) -> float:
        """Return the weight after a spike; arrivals, with their counts, are those up to the spike, in order."""
        before = [(t, 1) for t, _ in arrivals[-1:]] if self.nearest else arrivals
        change = self.a_plus * sum(count * math.exp(-(spike - t) / self.tau_plus) for t, count in before)
        return self.clip(weight + change * (self.w_max - weight if self.multiplicative else 1.0))


@dataclass
class _Synapse:
    fixed: ReferenceSynapse
    rule: ReferenceRule | None
    weight: float
    arrivals: list[tuple[float, int]] = field(default_factory=list)


def simulate_plastic_reference(
    neurons: Sequence[ReferenceNeuron],
    synapses: Sequence[ReferenceSynapse],
    inputs: Sequence[tuple[float, int, int]],
    stop: float,
    rules: Mapping[int, ReferenceRule],
) -> tuple[list[tuple[float, int]], list[float]]:
    """Run until ``stop`` seconds; as :func:`snnsim.kernels.reference_event.simulate_event_reference`, with learning.

    At one instant everything that arrives at a neuron comes first: each synapse is depressed by the spikes before
    this instant, then its new weight is added. If the neuron fires at the instant, its synapses are potentiated by
    all that has arrived, at this instant too.

    Args:
        neurons: Changed in place.
        synapses: In their order; loops need a delay.
        inputs: Time, source (-1 and below) and number of coincident events.
        stop: Seconds, not included.
        rules: By projection; the others do not learn.

    Returns:
        Spikes as time and neuron, in order, and the weights at the end.
    """
    plastic = [_Synapse(item, rules.get(item.projection), item.weight) for item in synapses]
    out: dict[int, list[int]] = {}
    into: dict[int, list[_Synapse]] = {}
    for place, synapse in enumerate(plastic):
        out.setdefault(synapse.fixed.source, []).append(place)
        if synapse.rule is not None:
            into.setdefault(synapse.fixed.target, []).append(synapse)
    queue: list[tuple[float, int, int, float, int, int, int, int]] = []
    crossing = [neuron.next_crossing() for neuron in neurons]
    spikes: list[tuple[float, int]] = []
    own: list[list[float]] = [[] for _ in neurons]

    def emit(time: float, source: int, count: int = 1) -> None:
        for place in out.get(source, []):
            s = plastic[place].fixed
            key = (time + s.delay, neurons[s.target].stage, s.target, time, s.projection, abs(source), place)
            heapq.heappush(queue, (*key, count))

    def fire(n: int, time: float) -> None:
        neurons[n].fire(time)
        for synapse in into.get(n, []):
            assert synapse.rule is not None
            synapse.weight = synapse.rule.potentiated(synapse.weight, time, synapse.arrivals)
        spikes.append((time, n))
        own[n].append(time)

    def receive(synapse: _Synapse, time: float, count: int) -> float:
        if synapse.rule is not None:
            before = own[synapse.fixed.target]
            synapse.weight = synapse.rule.depressed(synapse.weight, count, time, before)
            synapse.arrivals.append((time, count))
        return count * synapse.weight

    for time, source, count in inputs:
        emit(time, source, count)
    while True:
        arrival = queue[0][0] if queue else math.inf
        first = min(crossing)
        if min(arrival, first) >= stop:
            return sorted(spikes), [synapse.weight for synapse in plastic]
        if first < arrival:
            n = crossing.index(first)
            neurons[n].move(first)
            neurons[n].v = neurons[n].v_threshold
            fire(n, first)
            crossing[n] = neurons[n].next_crossing()
            emit(first, n)
            continue
        n = queue[0][2]
        sums = [0.0, 0.0]
        while queue and queue[0][0] == arrival and queue[0][2] == n:
            *_, place, count = heapq.heappop(queue)
            sums[plastic[place].fixed.receptor] += receive(plastic[place], arrival, count)
        neuron = neurons[n]
        if not neuron.tau_syn and neuron.last < arrival <= neuron.held:
            continue
        crossed, free = crossing[n] == arrival, arrival > neuron.held
        neuron.move(arrival)
        if crossed:
            neuron.v = neuron.v_threshold
        if not neuron.tau_syn:
            neuron.v += sums[0]
        fired = free and neuron.v >= neuron.v_threshold
        if fired:
            fire(n, arrival)
        for r in range(len(neuron.tau_syn)):
            neuron.i[r] += sums[r]
        crossing[n] = neuron.next_crossing()
        if fired:
            emit(arrival, n)
