"""Continuous time, exact spikes: the plain definition, one queue of all events, one neuron at a time. Slow.

``kernels/event.py`` and ``kernels/event_queue.py`` are compared with it. It works on v itself, finds extrema and
crossings by bisection to the last bit and knows no windows and no bounds.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

__all__ = ["ReferenceNeuron", "ReferenceSynapse", "simulate_event_reference"]

FAR = 60.0  # longest time constants after which nothing that decays is left


@dataclass
class ReferenceNeuron:
    """One neuron: ``dv/dt = -v / tau_mem + sum(i) / tau_mem + drive``, ``di_r/dt = -i_r / tau_syn[r] + drive_syn``.

    Attributes:
        v_threshold: infinite without spikes.
        tau_mem: Seconds, infinite without leak.
        tau_syn: Seconds of each current; none for delta synapses.
        drive: Of v, per second.
        drive_syn: Of the first current, per second.
        t_ref: Seconds.
        v_reset: None for a subtract reset.
        reset_amount: Of a subtract reset.
        stage: Neurons of a later stage are given what arrives at an instant later.
        v: Value at ``time``, and the following.
        i: Currents.
        time: Last event, seconds.
        held: End of the refractory time.
        last: Last spike.
    """

    v_threshold: float
    tau_mem: float = math.inf
    tau_syn: tuple[float, ...] = ()
    drive: float = 0.0
    drive_syn: float = 0.0
    t_ref: float = 0.0
    v_reset: float | None = 0.0
    reset_amount: float = 1.0
    stage: int = 0
    v: float = 0.0
    i: list[float] = field(default_factory=list)
    time: float = 0.0
    held: float = -math.inf
    last: float = -math.inf

    def end(self) -> tuple[float, list[float]]:
        """Return where v and the currents would go without events."""
        steady = [self.drive_syn * tau if r == 0 else 0.0 for r, tau in enumerate(self.tau_syn)]
        return (0.0 if math.isinf(self.tau_mem) else self.tau_mem * self.drive + sum(steady)), steady

    def away(self, time: float) -> tuple[float, list[float]]:
        """Return how far v and the currents are from there at a time, without events in between."""
        end, steady = self.end()
        begin, y = self.time, self.v - end
        currents = [value - s for value, s in zip(self.i, steady, strict=True)]
        if begin < self.held:
            gone = min(time, self.held) - begin
            currents = [value * math.exp(-gone / tau) for value, tau in zip(currents, self.tau_syn, strict=True)]
            begin = min(time, self.held)
        t = time - begin
        if math.isinf(self.tau_mem):
            return y + self.drive * t, currents
        decay = math.exp(-t / self.tau_mem)
        y *= decay
        for tau, value in zip(self.tau_syn, currents, strict=True):
            x = t * (1.0 / tau - 1.0 / self.tau_mem)
            if abs(x) > 1.0:
                share = (decay - math.exp(-t / tau)) / x
            else:
                share = decay * (1.0 if x == 0.0 else -math.expm1(-x) / x)
            y += value * t / self.tau_mem * share
        return y, [value * math.exp(-t / tau) for value, tau in zip(currents, self.tau_syn, strict=True)]

    def at(self, time: float) -> tuple[float, list[float]]:
        """Return v and the currents at a time, without events in between."""
        end, steady = self.end()
        y, currents = self.away(time)
        return end + y, [value + s for value, s in zip(currents, steady, strict=True)]

    def rises(self, time: float) -> bool:
        """Whether dv/dt > 0 (with leak)."""
        y, currents = self.away(time)
        return sum(currents) > y

    def next_crossing(self) -> float:
        """Return the first time after the last event at which v rises from below the threshold to it."""
        base = max(self.time, self.held)
        if math.isinf(self.v_threshold):
            return math.inf
        if math.isinf(self.tau_mem):
            if self.drive <= 0 or self.v >= self.v_threshold:
                return math.inf
            return base + (self.v_threshold - self.v) / self.drive
        gap = self.v_threshold - self.end()[0]
        end = FAR * max(self.tau_mem, *self.tau_syn, 0.0)
        parts = [base]
        if len(self.tau_syn) == 2:  # where e^(t/tau_mem) dv/dt turns
            a, b = (value / tau for value, tau in zip(self.away(base)[1], self.tau_syn, strict=True))
            rate = 1.0 / self.tau_syn[0] - 1.0 / self.tau_syn[1]
            if a * b < 0 and rate:
                turn = math.log(-a / b) / rate
                if 0 < turn < end:
                    parts.append(base + turn)
        parts.append(base + end)
        extrema = [base]
        for low, high in itertools.pairwise(parts):
            sign = self.rises(low)
            if sign != self.rises(high):
                extrema.append(_bisect(lambda t, sign=sign: self.rises(t) == sign, low, high))  # type: ignore[misc]
            extrema.append(high)
        for low, high in itertools.pairwise(extrema):
            if self.away(low)[0] < gap <= self.away(high)[0]:
                return _bisect(lambda t: self.away(t)[0] < gap, low, high)
        return math.inf

    def move(self, time: float) -> None:
        """Bring the state to a time."""
        self.v, self.i = self.at(time)
        self.time = time

    def fire(self, time: float) -> None:
        """Reset at the time of a spike."""
        self.v = self.v - self.reset_amount if self.v_reset is None else self.v_reset
        self.last, self.held = time, time + self.t_ref


@dataclass(frozen=True)
class ReferenceSynapse:
    """From a source (neurons are counted from 0, inputs from -1 down) to a neuron."""

    source: int
    target: int
    weight: float
    delay: float
    projection: int = 0
    receptor: int = 0


def _bisect(before: Callable[[float], bool], low: float, high: float) -> float:
    """Return the first float at which ``before`` is no longer true."""
    while True:
        middle = 0.5 * (low + high)
        if not low < middle < high:
            return high
        if before(middle):
            low = middle
        else:
            high = middle


def simulate_event_reference(
    neurons: Sequence[ReferenceNeuron],
    synapses: Sequence[ReferenceSynapse],
    inputs: Sequence[tuple[float, int, int]],
    stop: float,
) -> list[tuple[float, int]]:
    """Run until ``stop`` seconds.

    Arrivals at one instant are given stage by stage: all of one neuron that are known are summed in order of
    emission time, projection, source and synapse, then the threshold is tested once. What a spike causes at the
    same instant in the same stage is a later event; a neuron that has fired at the instant is given it untested.

    Args:
        neurons: Changed in place.
        synapses: In their order.
        inputs: Time, source (-1 and below) and number of coincident events.
        stop: Seconds, not included.

    Returns:
        Spikes as time and neuron, in order.
    """
    out: dict[int, list[tuple[int, ReferenceSynapse]]] = {}
    for place, synapse in enumerate(synapses):
        out.setdefault(synapse.source, []).append((place, synapse))
    queue: list[tuple[float, int, int, float, int, int, int, float, int]] = []

    def emit(time: float, source: int, count: int = 1) -> None:
        for place, s in out.get(source, []):
            key = (time + s.delay, neurons[s.target].stage, s.target, time, s.projection, abs(source), place)
            heapq.heappush(queue, (*key, count * s.weight, s.receptor))

    for time, source, count in inputs:
        emit(time, source, count)
    crossing = [neuron.next_crossing() for neuron in neurons]
    spikes: list[tuple[float, int]] = []

    def fire(n: int, time: float) -> None:
        neurons[n].fire(time)
        spikes.append((time, n))

    while True:
        arrival = queue[0][0] if queue else math.inf
        first = min(crossing)
        if min(arrival, first) >= stop:
            return sorted(spikes)
        if first < arrival:
            n = crossing.index(first)
            neurons[n].move(first)
            neurons[n].v = neurons[n].v_threshold
            fire(n, first)
            crossing[n] = neurons[n].next_crossing()
            emit(first, n)
            continue
        stage, fired = queue[0][1], []
        while queue and queue[0][:2] == (arrival, stage):
            n = queue[0][2]
            sums = [0.0, 0.0]
            while queue and queue[0][:3] == (arrival, stage, n):
                *_, weight, receptor = heapq.heappop(queue)
                sums[receptor] += weight
            neuron = neurons[n]
            crossed = crossing[n] == arrival
            if not neuron.tau_syn and neuron.last < arrival <= neuron.held:
                continue
            free = arrival > neuron.held
            neuron.move(arrival)
            if crossed:
                neuron.v = neuron.v_threshold
            if not neuron.tau_syn:
                neuron.v += sums[0]
            if free and neuron.v >= neuron.v_threshold and arrival != neuron.last:
                fire(n, arrival)
                fired.append(n)
            for r in range(len(neuron.tau_syn)):
                neuron.i[r] += sums[r]
            crossing[n] = neuron.next_crossing()
        for n in fired:
            emit(arrival, n)
