"""Delays of a target: which latency every population gets so that all delays fit, and the delays in its steps.

An arrival of the float network acts in its step (LIF) or one step later (CubaLIF); in an integer network it acts in
its step. With the latencies L by which the spikes of the integer network come later::

    delay_integer = delay + c + L_target - L_source        c = 1 into a CubaLIF or CubaLI, else 0

Latencies are the least ones from 0 on for which every delay lies between the target's least and greatest. On a target
without delays they may be -1: if its currents act at once, it is a step early.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from snnsim.network import Network, Projection, Synapses

__all__ = ["DelayPlan", "DelayRange", "plan_delays"]

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class DelayRange:
    """Delays that a target holds, in steps from spike to arrival.

    Attributes:
        from_input: Least delay from an input.
        least: Least delay from a population.
        greatest: Greatest delay, or None.
        each: Whether delays may differ; without it every delay is the least one.
    """

    from_input: int
    least: int
    greatest: int | None
    each: bool = True


@dataclass(frozen=True, eq=False)
class DelayPlan:
    """Latencies, and what of the delays does not fit.

    Attributes:
        latency: By population, in steps.
        shift: By projection, what is added to its delays: ``c + L_target - L_source``.
        outside: By projection, the places of the synapses (in :meth:`Projection.synapses`) whose delay does not fit.
        longest: By projection, the longest delay in the target's steps, before any clamping.
        limit: By projection, ``(least, greatest)``; None is without limit.
    """

    latency: dict[str, int]
    shift: list[int]
    outside: list[Integers]
    longest: list[int]
    limit: list[tuple[int, int | None]]

    @property
    def fits(self) -> bool:
        """Whether every delay fits."""
        return not any(places.size for places in self.outside)

    def delays(self, number: int, synapses: Synapses) -> Integers:
        """Return the delays of projection ``number`` in the target's steps, clamped to its limits."""
        low, high = self.limit[number]
        moved = synapses.delay_steps + self.shift[number]
        return np.asarray(np.clip(moved, low, high), dtype=np.int64)


def _current(network: Network, projection: Projection) -> int:
    return int(network.population(projection.target).neuron.current)


def _edges(
    network: Network, limits: list[tuple[int, int | None]], spans: list[tuple[int, int] | None], upper: bool
) -> Iterator[tuple[str, str, int]]:
    """Yield (from, to, at least): the latency of ``to`` is at least that of ``from`` plus the number."""
    for item, (low, high), span in zip(network.projections, limits, spans, strict=True):
        if span is None:
            continue
        c = _current(network, item)
        yield item.source, item.target, low - c - span[0]
        if upper and high is not None:
            yield item.target, item.source, span[1] + c - high


def _latencies(network: Network, edges: list[tuple[str, str, int]], lowest: int = 0) -> dict[str, int] | None:
    """Return the least latencies from ``lowest`` on, those of inputs 0, or None if there are none."""
    inputs = {item.name for item in network.inputs}
    latency = {item.name: lowest for item in network.populations}
    for _ in range(len(latency) + 2):
        moved = False
        for source, target, least in edges:
            needed = (0 if source in inputs else latency[source]) + least
            if needed > (0 if target in inputs else latency[target]):
                if target in inputs:
                    return None
                latency[target] = needed
                moved = True
        if not moved:
            return latency
    return None


def _without_loops(network: Network, lower: list[tuple[str, str, int]]) -> dict[str, int]:
    """Return latencies that respect the least delays, but for those that close a loop too fast for the target."""
    kept: list[tuple[str, str, int]] = []
    latency = dict.fromkeys((item.name for item in network.populations), 0)
    for edge in lower:
        found = _latencies(network, [*kept, edge])
        if found is not None:
            kept.append(edge)
            latency = found
    return latency


def plan_delays(network: Network, limits: DelayRange) -> DelayPlan:
    """Choose latencies and find the synapses whose delays cannot be held.

    If no latencies make all delays fit, the least ones that respect the least delays are taken, and delays beyond the
    greatest are listed in ``outside``; in a loop that is too fast for the target, delays below the least are listed.
    """
    inputs = {item.name for item in network.inputs}
    all_synapses = [item.synapses(network.dt).delay_steps for item in network.projections]
    spans = [(int(steps.min()), int(steps.max())) if steps.size else None for steps in all_synapses]
    pairs: list[tuple[int, int | None]] = []
    for item in network.projections:
        least = limits.from_input if item.source in inputs else limits.least
        pairs.append((least, limits.greatest if limits.each else least))
    both = list(_edges(network, pairs, spans, upper=True))
    latency = _latencies(network, both)
    if latency is None and not limits.each:
        latency = _latencies(network, both, -1)
    if latency is None:
        latency = _without_loops(network, list(_edges(network, pairs, spans, upper=False)))
    shift, outside, longest = [], [], []
    for item, steps, (low, high) in zip(network.projections, all_synapses, pairs, strict=True):
        source = 0 if item.source in inputs else latency[item.source]
        by = _current(network, item) + latency[item.target] - source
        moved = steps + by
        beyond = moved < low
        if high is not None:
            beyond |= moved > high
        shift.append(by)
        outside.append(np.flatnonzero(beyond).astype(np.int64))
        longest.append(int(moved.max(initial=0)))
    return DelayPlan(latency, shift, outside, longest, pairs)
