"""When a NIR reader does things: latency of current neurons, and the step that a loop takes.

Our CubaLIF moves the membrane one step after an arrival; readers of NIR let a current act in the step it
arrives. So a population of the file can be ahead of ours by its latency ``L`` (in steps), and delays change to
``d + L_source - L_target``, plus 1 into a current neuron. A reader also needs one step to go round a loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from snnsim.errors import InputError
from snnsim.neurons import StepParameters

if TYPE_CHECKING:
    from snnsim.network import Network

__all__ = ["Timing", "back_edges", "plan_timing"]


@dataclass(frozen=True)
class Timing:
    """Latency of every population (0 for inputs) and the pairs (source, target) that close a loop."""

    latency: dict[str, int]
    back: frozenset[tuple[str, str]]
    current: frozenset[str]

    def shift(self, source: str, target: str) -> int:
        """Return the steps to add to a delay of the network to get the delay of the file."""
        steps = self.latency.get(source, 0) - self.latency[target]
        return steps + int(target in self.current) - int((source, target) in self.back)


def back_edges(order: list[str], pairs: set[tuple[str, str]]) -> frozenset[tuple[str, str]]:
    """Return the pairs (source, target) on a cycle that go against ``order``.

    A reader computes nodes in order; a value that is not there yet is taken from the step before.
    """
    position = {name: place for place, name in enumerate(order)}
    following: dict[str, set[str]] = {}
    for source, target in pairs:
        following.setdefault(source, set()).add(target)

    def reaches(start: str, goal: str) -> bool:
        seen, queue = {start}, [start]
        while queue:
            name = queue.pop()
            if name == goal:
                return True
            queue.extend(following.get(name, set()) - seen)
            seen |= following.get(name, set())
        return False

    return frozenset(
        (source, target)
        for source, target in pairs
        if source in position and position[source] >= position[target] and reaches(target, source)
    )


def plan_timing(network: Network, parameters: Mapping[str, StepParameters]) -> Timing:
    """Choose the latency of every population so that no delay becomes negative and drives start in time.

    Raises:
        InputError: A delay would become negative, or a drive cannot start when it must.
    """
    pairs = {(item.source, item.target) for item in network.projections}
    order = [item.name for item in network.order()]
    back = back_edges(order, pairs)
    current = frozenset(name for name, p in parameters.items() if p.current)
    latency: dict[str, int] = {}
    for name in order:
        p, start = parameters[name], network.population(name).start_step
        step = int(p.current)
        sources = [source for source, target in pairs if target == name and (source, target) not in back]
        before = [latency.get(source, 0) + step for source in sources]
        chosen = min(before, default=step)
        on_current = bool(np.any(p.drive_syn_step))
        on_membrane = bool(np.any(p.drive_step + p.drive_syn_to_v)) if p.current else bool(np.any(p.drive_step))
        if on_current and on_membrane:
            raise InputError(
                f"population {name!r}: NIR cannot hold a drive on the membrane and one on the current together"
            )
        if p.current and on_membrane and start:
            raise InputError(f"population {name!r}: NIR cannot say that its drive starts at step {start}")
        if on_current or on_membrane:
            chosen = start + int(on_current)
        elif start > chosen - step:
            raise InputError(f"population {name!r}: NIR cannot say that it starts at step {start}")
        latency[name] = chosen
    timing = Timing(latency, back, current)
    for projection in network.projections:
        shortest = int(np.min(projection.synapses(network.dt).delay_steps, initial=2**31))
        if shortest + timing.shift(projection.source, projection.target) < 0:
            raise InputError(
                f"projection {projection.name!r}: its delay of {shortest} steps is too short for a reader of NIR, "
                f"which needs at least {-timing.shift(projection.source, projection.target)}; lengthen the delay"
            )
    return timing
