"""The definition: what one run of a network computes, step by step, in plain NumPy.

Nothing here is fast. Contributions to a neuron are kept as a list and sorted into the canonical order before
they are summed, so the code can be held against ``docs/model.md`` line by line. Every engine is tested
against it bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from snnsim.kernels.reference_models import JUMPS, MODELS
from snnsim.kernels.reference_stochastic import Chance

__all__ = ["ReferenceNoise", "ReferencePopulation", "ReferenceProjection", "ReferenceRun", "simulate_reference"]

Array = npt.NDArray[Any]


class ReferencePopulation(NamedTuple):
    """Numbers per step of one population, arrays of shape ``(size,)`` in the dtype of the run.

    ``spiking``, ``current`` and ``strict`` are Booleans, ``refractory_steps`` is integer; ``kind``, ``variables`` and
    ``receptors`` are those of the neuron record, ``rest`` holds its variables before step 0, ``extra`` what only its
    law needs; the other names are those of the laws in ``docs/model.md``. Arrivals add to the variables that follow the
    membrane, one a receptor.
    """

    size: int
    kind: str
    variables: tuple[str, ...]
    receptors: tuple[str, ...]
    rest: dict[str, Array]
    start_step: int
    stop_step: int
    spiking: bool
    current: bool
    adaptive: bool
    strict: bool
    reset_zero: bool
    beta: Array
    drive_step: Array
    alpha: Array
    kappa: Array
    drive_syn_step: Array
    drive_syn_to_v: Array
    v_threshold: Array
    v_reset: Array
    reset_amount: Array
    refractory_steps: Array
    adapt_decay: Array
    adapt_v: Array
    adapt_spike: Array
    adapt_threshold: Array
    extra: dict[str, Array]


class ReferenceProjection(NamedTuple):
    """Synapses of one projection, arrays of shape ``(n_synapses,)``, by source, then synapse index.

    ``source_kind`` is ``"input"`` or ``"population"``; ``source`` and ``target`` are places in the lists;
    ``receptor`` is one of the target's, or empty.
    """

    source_kind: str
    source: int
    target: int
    receptor: str
    source_unit: Array
    target_unit: Array
    weight: Array
    delay_steps: Array


class ReferenceNoise(NamedTuple):
    """A stimulus that arrives at a population: counts ``(time, unit)`` times weights ``(size,)``."""

    target: int
    receptor: str
    counts: Array
    weight: Array


class ReferenceRun(NamedTuple):
    """What came out, one entry a population: ``(time, unit)`` arrays, those of ``state`` by variable."""

    spikes: list[npt.NDArray[np.bool_]]
    state: list[dict[str, Array]]


def simulate_reference(
    populations: Sequence[ReferencePopulation],
    order: Sequence[int],
    projections: Sequence[ReferenceProjection],
    inputs: Sequence[npt.NDArray[np.int64]],
    n_steps: int,
    dtype: npt.DTypeLike = np.float64,
    initial: Sequence[dict[str, Array]] | None = None,
    noise: Sequence[ReferenceNoise] = (),
    drives: Sequence[tuple[int, dict[int, Array]]] = (),
    chance: Chance | None = None,
) -> ReferenceRun:
    """Run one sample from rest, or from given values one step before step 0.

    Args:
        populations: Numbers per step.
        order: Order of updating inside a step.
        projections: Synapses; their order is the order of summation.
        inputs: Counts of events of each input, int64 ``(time, unit)``.
        n_steps: Number of steps.
        dtype: float64 or float32; every operation is done in it.
        initial: Variables of each population one step before step 0; none means rest.
        noise: Stimuli; what they add is the last term of a sum, in their order.
        drives: From which step on which population has which drive per step.
        chance: What is drawn within the network; none means nothing.

    Returns:
        Spikes and, at the end of every step, the variables of each population.
    """
    kind = np.dtype(dtype).type
    populations = list(populations)
    state = [{name: np.array(item.rest[name], dtype) for name in item.variables} for item in populations]
    if initial is not None:
        state = [{name: np.array(part[name], dtype) for name in part} for part in initial]
    left = [np.zeros(item.size, np.int64) for item in populations]
    run = ReferenceRun(
        [np.zeros((n_steps, item.size), np.bool_) for item in populations],
        [{name: np.zeros((n_steps, item.size), dtype) for name in item.variables} for item in populations],
    )
    # What is on its way: (target population, receptor, arrival step) -> [(emission step, projection, source unit,
    # synapse index, target unit, count * weight), ...]
    pending: dict[tuple[int, str, int], list[tuple[int, int, int, int, int, Any]]] = {}

    def send(k: int, kind_of_source: str, place: int, counts: npt.NDArray[np.int64]) -> None:
        for number, item in enumerate(projections):
            if item.source_kind == kind_of_source and item.source == place:
                for synapse in np.flatnonzero(counts[item.source_unit]):
                    unit = int(item.source_unit[synapse])
                    term = kind(counts[unit]) * item.weight[synapse].astype(dtype)
                    arrival = (item.target, item.receptor, k + int(item.delay_steps[synapse]))
                    target_unit = int(item.target_unit[synapse])
                    if chance is not None:
                        term = chance.term(number, k, int(synapse), target_unit, term)
                    pending.setdefault(arrival, []).append((k, number, unit, int(synapse), target_unit, term))

    def arrivals(place: int, k: int, receptor: str = "") -> Array:
        total = np.zeros(populations[place].size, dtype)
        for *_, target_unit, term in sorted(pending.pop((place, receptor, k), []), key=lambda entry: entry[:4]):
            total[target_unit] = total[target_unit] + term
        for item in noise:
            if (item.target, item.receptor) == (place, receptor):
                total = total + item.counts[k].astype(dtype) * item.weight.astype(dtype)
        return total

    for k in range(n_steps):
        for place, counts in enumerate(inputs):
            send(k, "input", place, counts[k])
        for place in order:
            item = populations[place]
            if not item.start_step <= k < item.stop_step:
                if not item.current:
                    arrivals(place, k)  # lost
                continue
            for begin, moved_drives in drives:
                if begin == k and place in moved_drives:
                    item = item._replace(drive_step=moved_drives[place].astype(dtype))
                    populations[place] = item
            free = left[place] == 0
            now = state[place]
            if item.kind in MODELS:
                moved = MODELS[item.kind](item, now, free, None if item.current else arrivals(place, k))
            elif item.receptors:
                moved = item.beta * now["v"]
                for name in item.receptors:
                    moved = moved + item.extra[f"kappa_{name}"] * now[f"i_{name}"]
                    now[f"i_{name}"] = item.extra[f"alpha_{name}"] * now[f"i_{name}"]
                moved = moved + item.drive_step
            elif item.current:
                moved = ((item.beta * now["v"] + item.kappa * now["i"]) + item.drive_step) + item.drive_syn_to_v
                now["i"] = item.alpha * now["i"] + item.drive_syn_step
            else:
                moved = (item.beta * now["v"] + item.drive_step) + arrivals(place, k)
            on_threshold = item.adapt_threshold > 0
            if item.adaptive:
                moved = np.where(on_threshold, moved, moved - now["w"])
            v = np.where(free, moved, now["v"])
            left[place] = np.where(free, 0, left[place] - 1)
            spikes = np.zeros(item.size, np.bool_)
            if item.spiking:
                theta = item.v_threshold
                if item.adaptive:
                    theta = np.where(on_threshold, theta + item.adapt_threshold * now["w"], theta)
                if chance is not None and place in chance.noisy:
                    spikes = free & chance.fires(place, item, v, k)
                else:
                    spikes = free & ((v > theta) if item.strict else (v >= theta))
                after = item.v_reset if item.reset_zero else v - item.reset_amount
                v = np.where(spikes, after, v)
                left[place] = np.where(spikes, item.refractory_steps, left[place])
            now["v"] = v
            if item.adaptive:
                w = item.adapt_decay * now["w"] + item.adapt_v * v
                now["w"] = np.where(spikes, w + item.adapt_spike, w)
            if item.kind in JUMPS:
                jumping = now[JUMPS[item.kind]]
                now[JUMPS[item.kind]] = np.where(spikes, jumping + item.extra["jump"], jumping)
            run.spikes[place][k] = spikes
            send(k, "population", place, spikes.astype(np.int64))
        for place, item in enumerate(populations):
            if item.current:
                for name, variable in zip(item.receptors or ("",), item.variables[1:], strict=False):
                    total = arrivals(place, k, name)
                    if item.start_step <= k < item.stop_step:
                        state[place][variable] = state[place][variable] + total
            for variable, values in state[place].items():
                run.state[place][variable][k] = values
    return run
