"""The order in which the CUDA engine moves populations on: components, stages and windows.

Populations that act on one another in a circle are a component; components run one after the other, each through a
whole chunk of steps. Within a component a window is the shortest delay between its populations; the populations that
do not wait for one another within a step are a stage, moved on by one launch a window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.engines.clock_plan import Layout
from snnsim.kernels import clock_rows, clock_tables
from snnsim.kernels.cuda_laws import FACTS, LAW_NUMBERS
from snnsim.network import Network

__all__ = ["Component", "CudaPlan", "Stage", "make_plan"]

Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]
Edges = dict[tuple[int, int], int]


@dataclass(frozen=True)
class Stage:
    """Populations moved on together.

    Attributes:
        low: First neuron.
        high: One past the last.
        first_port: Their first port.
        late_port: First port of those that take their arrivals after all have fired.
        last_port: One past the last.
    """

    low: int
    high: int
    first_port: int
    late_port: int
    last_port: int


@dataclass(frozen=True)
class Component:
    """Stages that act on one another.

    Attributes:
        stages: In their order within a window.
        window: Steps in which no spike is felt; None: nobody in it acts on another.
        late: Whether some take their arrivals after all have fired.
    """

    stages: tuple[Stage, ...]
    window: int | None
    late: bool


@dataclass(frozen=True, eq=False)
class CudaPlan:
    """Neurons, ports and input units in the order of the device.

    Attributes:
        components: In the order of running.
        neuron: Place of every neuron in the network's order, int64 ``(n_neurons,)``.
        neuron_low: First neuron of each population.
        port_low: First port-unit of each port of the layout.
        input_low: First unit of each input; input units follow the neurons.
        n_neurons: Neurons.
        n_units: Neurons and input units.
        n_ports: Targets of synapses: a neuron has one a receptor.
        numbers: Numbers per step, ``(LAW_NUMBERS, n_neurons)`` in the dtype of the run.
        facts: Whole numbers, int64 ``(FACTS, n_neurons)``.
    """

    components: tuple[Component, ...]
    neuron: Integers
    neuron_low: Integers
    port_low: Integers
    input_low: Integers
    n_neurons: int
    n_units: int
    n_ports: int
    numbers: Array
    facts: Integers


def _edges(network: Network, layout: Layout) -> tuple[Edges, set[tuple[int, int]]]:
    """Return the shortest positive delay between populations, by their places, and who reaches whom at once."""
    later: Edges = {}
    now: set[tuple[int, int]] = set()
    order, n_inputs = layout.common["order"].tolist(), len(network.inputs)
    for path in layout.paths:
        if path.source < n_inputs:
            continue
        edge = (order[path.source - n_inputs], path.owner)
        if path.now:
            now.add(edge)
        else:
            later[edge] = min(path.shortest, later.get(edge, path.shortest))
    return later, now


def _walk(start: int, next_of: list[list[int]], seen: set[int]) -> list[int]:
    """Return what can be reached from ``start`` without what was seen, each after all it leads to."""
    done: list[int] = []
    seen.add(start)
    stack = [(start, iter(next_of[start]))]
    while stack:
        node, following = stack[-1]
        for other in following:
            if other not in seen:
                seen.add(other)
                stack.append((other, iter(next_of[other])))
                break
        else:
            done.append(node)
            stack.pop()
    return done


def _components(n: int, edges: set[tuple[int, int]]) -> list[list[int]]:
    """Return the strongly connected components in topological order (Kosaraju's two walks)."""
    forward: list[list[int]] = [[] for _ in range(n)]
    backward: list[list[int]] = [[] for _ in range(n)]
    for a, b in sorted(edges):
        forward[a].append(b)
        backward[b].append(a)
    seen: set[int] = set()
    finished = [node for start in range(n) if start not in seen for node in _walk(start, forward, seen)]
    seen = set()
    return [sorted(_walk(node, backward, seen)) for node in reversed(finished) if node not in seen]


def _levels(members: list[int], now: set[tuple[int, int]]) -> list[list[int]] | None:
    """Return members by how many others they wait for one after the other; None if they wait in a circle."""
    left, levels = set(members), []
    while left:
        waiting = {b for a, b in now if a in left and b in left}
        ready = sorted(left - waiting)
        if not ready:
            return None
        levels.append(ready)
        left -= set(ready)
    return levels


def _facts(layout: Layout, p: int, size: int, late: bool) -> tuple[Array, Array, Integers]:
    """Return numbers, flags and refractory steps of a population, one a neuron."""
    row = layout.common["populations"][p]
    flags = int(row[clock_tables.FLAGS]) & ~clock_tables.LATE | clock_tables.LATE * late
    if flags & clock_tables.OWN:
        mine = slice(int(row[clock_tables.EACH]), int(row[clock_tables.EACH]) + size)
        numbers, refractory = layout.common["each"][:LAW_NUMBERS, mine], layout.common["refractory"][mine]
    else:
        numbers = np.repeat(layout.common["one"][p, :LAW_NUMBERS, None], size, axis=1)
        refractory = np.full(size, row[clock_tables.REFRACTORY_STEPS], np.int64)
    return numbers, np.full(size, flags, np.int64), refractory


def make_plan(network: Network, layout: Layout) -> CudaPlan:
    """Order a network that the clock engine laid out."""
    later, now = _edges(network, layout)
    table, ports = layout.common["populations"], layout.common["ports"]
    n_populations = len(network.populations)
    neuron_low = np.zeros(n_populations, np.int64)
    port_low = np.zeros(ports.shape[0], np.int64)
    neuron: list[Integers] = []
    numbers: list[Array] = []
    facts: list[Array] = []
    components: list[Component] = []
    n = n_ports = 0
    for members in _components(n_populations, set(later) | now):
        inside = set(members)
        at_once = {(a, b) for a, b in now if a in inside and b in inside}
        late: set[int] = set()
        levels = _levels(members, at_once)
        if levels is None:
            late = {b for _, b in at_once if network.populations[b].neuron.current}
            levels = _levels(members, {(a, b) for a, b in at_once if b not in late})
        assert levels is not None  # a circle of delta synapses with delay 0: a Network refuses it
        stages: list[Stage] = []
        for level in levels:
            low, first_port, late_port = n, n_ports, n_ports
            for p in sorted(level, key=lambda p: (p in late, p)):
                size = int(layout.sizes[p])
                receptors = range(int(table[p, clock_tables.FIRST_PORT]), int(table[p, clock_tables.LAST_PORT]))
                places = [n_ports + size * k for k in range(len(receptors))]
                port_low[list(receptors)] = places
                mine, flags, refractory = _facts(layout, p, size, p in late)
                units = np.arange(size)
                numbers.append(mine)
                facts.append(
                    np.stack(
                        (
                            flags,
                            refractory,
                            np.full(size, table[p, clock_tables.START]),
                            np.full(size, table[p, clock_tables.STOP]),
                            places[0] + units,
                            places[-1] + units,
                            np.full(size, table[p, clock_tables.LAW]),
                        )
                    )
                )
                neuron.append(int(table[p, clock_tables.OFFSET]) + units)
                neuron_low[p] = n
                n += size
                n_ports += size * len(receptors)
                if p not in late:
                    late_port = n_ports
            stages.append(Stage(low, n, first_port, late_port, n_ports))
        windows = [steps for (a, b), steps in later.items() if a in inside and b in inside]
        components.append(Component(tuple(stages), 1 if late else min(windows, default=None), bool(late)))
    input_low = n + np.cumsum([0, *(item.size for item in network.inputs)])
    assert facts[0].shape[0] == FACTS
    return CudaPlan(
        components=tuple(components),
        neuron=np.concatenate(neuron),
        neuron_low=neuron_low,
        port_low=port_low,
        input_low=input_low[:-1].astype(np.int64),
        n_neurons=n,
        n_units=int(input_low[-1]),
        n_ports=n_ports,
        numbers=np.ascontiguousarray(np.concatenate(numbers, axis=1)),
        facts=np.ascontiguousarray(np.concatenate(facts, axis=1)),
    )


def longest_of(layout: Layout, chosen: Integers) -> int:
    """Return the longest delay into the chosen ports, 0 without any."""
    return int(layout.common["ports"][chosen, clock_rows.LIVE].max(initial=0))
