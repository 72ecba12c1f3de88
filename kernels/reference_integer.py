"""Integer laws and integer networks in plain NumPy: the definition that the integer engine is compared with.

A law is a function ``(parameters, kind, state, arrivals) -> (state, spikes, overflow)`` that moves all neurons of a
population by one step:

    parameters  int64 ``(size,)`` by name, as in :data:`snnsim.kernels.integer_tables.PARAMETERS`
    kind        ``"lif"``, ``"cubalif"``, ``"li"`` or ``"cubali"``
    state       int64 ``(3, size)``: membrane v, current i, refractory steps left
    arrivals    int64 ``(size,)``: sum of ``weight * count`` over the spikes that arrive in this step
    spikes      int64 ``(size,)``: number of spikes
    overflow    bool ``(size,)``: a number left its range and was wrapped or saturated
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module

import numpy as np
import numpy.typing as npt

from snnsim.kernels.integer_tables import CURRENT, STATES, V

__all__ = ["REFERENCE_LAWS", "IntegerRun", "ReferenceIntegers", "ReferenceSynapses", "loihi2", "simulate_integers"]

Integers = npt.NDArray[np.int64]
Moved = tuple[Integers, Integers, npt.NDArray[np.bool_]]
Law = Callable[[Mapping[str, Integers], str, Integers, Integers], Moved]

REFERENCE_LAWS = {
    "loihi2": "snnsim.kernels.reference_integer:loihi2",
    "xylo": "snnsim.kernels.reference_integer_xylo:xylo",
    "fixed": "snnsim.kernels.reference_integer_fixed:fixed",
}
"""Where the function of every law is."""

UNITY = 4096
LIMIT = 2**23


def _towards_zero(value: Integers, factor: Integers) -> Integers:
    """Return ``value * factor / 4096`` rounded toward zero."""
    return np.asarray(np.sign(value) * ((np.abs(value) * factor) >> 12), dtype=np.int64)


def loihi2(parameters: Mapping[str, Integers], kind: str, state: Integers, arrivals: Integers) -> Moved:
    """Move neurons as Loihi and Loihi 2 do, in the form of Lava's fixed-point LIF (lava-nc 0.10.0).

    ``a`` are the arrivals; a product is rounded toward zero::

        u = u (4096 - i_decay) / 4096 + 64 a          wrapped into (-2**23, 2**23]
        v = v (4096 - v_decay) / 4096 + u + 64 bias   limited to +-(2**23 - 1)
        spike if v > 64 v_threshold; then v = 0

    ``i_decay = 4096`` makes the current forget its past: a plain LIF. Kinds ``li`` and ``cubali`` never spike.
    """
    u = _towards_zero(state[CURRENT], UNITY - parameters["i_decay"]) + (arrivals << 6)
    wrapped = u - 2 * LIMIT * -((LIMIT - u) // (2 * LIMIT))
    v = _towards_zero(state[V], UNITY - parameters["v_decay"]) + wrapped + (parameters["bias"] << 6)
    limited = np.clip(v, 1 - LIMIT, LIMIT - 1)
    overflow = (wrapped != u) | (limited != v)
    spikes = np.zeros_like(v)
    if kind in ("lif", "cubalif"):
        spikes = (limited > parameters["v_threshold"] << 6).astype(np.int64)
    moved = np.zeros_like(state)
    moved[V] = np.where(spikes > 0, 0, limited)
    moved[CURRENT] = wrapped
    return moved, spikes, overflow


@dataclass(frozen=True)
class ReferenceIntegers:
    """One population: size, kind and parameters."""

    size: int
    kind: str
    parameters: Mapping[str, Integers]


@dataclass(frozen=True)
class ReferenceSynapses:
    """Synapses from an input or a population.

    Attributes:
        from_input: Whether the source is an input.
        source: Its place among inputs or populations.
        target: Place of the population.
        source_unit: int64 ``(n,)``.
        unit: Target neuron, ``(n,)``.
        weight: ``(n,)``.
        delay: Steps, ``(n,)``.
    """

    from_input: bool
    source: int
    target: int
    source_unit: Integers
    unit: npt.NDArray[np.int32]
    weight: npt.NDArray[np.int32]
    delay: npt.NDArray[np.int32]


@dataclass(frozen=True)
class IntegerRun:
    """What one sample gave, by population.

    Attributes:
        spikes: Number of spikes, int64 ``(n_steps, size)``.
        v: Membrane after the reset, int64 ``(n_steps, size)``.
        i: Current at the end of the step, int64 ``(n_steps, size)``.
        overflow: Steps in which a number left its range, int64 ``(size,)``.
    """

    spikes: list[Integers]
    v: list[Integers]
    i: list[Integers]
    overflow: list[Integers]


def simulate_integers(
    law: str,
    populations: Sequence[ReferenceIntegers],
    order: Sequence[int],
    projections: Sequence[ReferenceSynapses],
    counts: Sequence[Integers],
    n_steps: int,
) -> IntegerRun:
    """Run one sample from rest (all states 0).

    In every step the inputs' events are sent on their way first. Then the populations, in their order, take what
    arrives in this step, move, and send their spikes: a delay of 0 steps reaches a later population in the same step.

    Args:
        law: A key of :data:`REFERENCE_LAWS`.
        populations: Populations.
        order: Places of the populations in the order of updating.
        projections: Synapses.
        counts: Events of every input, ``(n_steps, size)``.
        n_steps: Steps.
    """
    module, _, name = REFERENCE_LAWS[law].partition(":")
    advance: Law = getattr(import_module(module), name)
    longest = max((int(item.delay.max(initial=0)) for item in projections), default=0)
    arrivals = [np.zeros((n_steps + longest + 1, item.size), np.int64) for item in populations]
    state = [np.zeros((STATES, item.size), np.int64) for item in populations]
    run = IntegerRun(
        spikes=[np.zeros((n_steps, item.size), np.int64) for item in populations],
        v=[np.zeros((n_steps, item.size), np.int64) for item in populations],
        i=[np.zeros((n_steps, item.size), np.int64) for item in populations],
        overflow=[np.zeros(item.size, np.int64) for item in populations],
    )

    def send(from_input: bool, place: int, sent: Integers, step: int) -> None:
        for item in projections:
            if item.from_input == from_input and item.source == place:
                amount = item.weight.astype(np.int64) * sent[item.source_unit]
                np.add.at(arrivals[item.target], (step + item.delay, item.unit), amount)

    for step in range(n_steps):
        for place, events in enumerate(counts):
            send(True, place, events[step], step)
        for place in order:
            item = populations[place]
            state[place], spikes, over = advance(item.parameters, item.kind, state[place], arrivals[place][step])
            run.spikes[place][step] = spikes
            run.v[place][step], run.i[place][step] = state[place][V], state[place][CURRENT]
            run.overflow[place] += over
            send(False, place, spikes, step)
    return run
