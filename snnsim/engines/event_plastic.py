"""Plastic synapses in the event engine: where they are, their state, and one sample's run with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.kernels import event as kernel
from snnsim.kernels import event_neuron as neuron
from snnsim.kernels import event_plastic, event_stdp
from snnsim.kernels import event_store as store
from snnsim.network import Network, Sparse
from snnsim.neurons_stochastic import StochasticNeuron
from snnsim.plasticity import PairSTDP

if TYPE_CHECKING:
    from snnsim.engines.event_plan import Layout

__all__ = ["PlasticLayout", "PlasticState", "advance_plastic", "final_weights", "make_plastic"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Pending = tuple[npt.NDArray[Any], ...]


@dataclass(frozen=True, eq=False)
class PlasticState:
    """Weights and traces of one sample; see :class:`snnsim.kernels.event_stdp.Plastic` for the arrays."""

    rules: tuple[PairSTDP, ...]
    weight: Floats
    trace: Floats
    last: Floats
    post: Floats
    fired: Floats
    counts: Integers


@dataclass(frozen=True, eq=False)
class PlasticLayout:
    """The plastic synapses of a network, by target neuron.

    Attributes:
        rules: As given.
        numbers: ``(rules, COLUMNS)`` of :mod:`snnsim.kernels.event_stdp`.
        rule: Rule of each projection, -1 for fixed weights, int32.
        begin: First synapse of each neuron and rule.
        weight: First weights.
        plan: The network's plan, with the numbers of the plastic synapses instead of their weights.
        named: Of each plastic projection what its rule calls it, its place in the network, and the numbers of its
            existing synapses in the order of :meth:`snnsim.network.Projection.synapses`.
    """

    rules: tuple[PairSTDP, ...]
    numbers: Floats
    rule: npt.NDArray[np.int32]
    begin: Integers
    weight: Floats
    plan: kernel.Plan
    named: tuple[tuple[str | int, int, Integers], ...]


def _numbers(rule: PairSTDP) -> Floats:
    row = np.zeros(event_stdp.COLUMNS)
    row[event_stdp.RATE_PLUS], row[event_stdp.RATE_MINUS] = 1.0 / rule.tau_plus, 1.0 / rule.tau_minus
    row[event_stdp.A_PLUS], row[event_stdp.A_MINUS] = rule.a_plus, rule.a_minus
    row[event_stdp.W_MIN], row[event_stdp.W_MAX] = rule.w_min, rule.w_max
    row[event_stdp.MULTIPLICATIVE] = rule.bound == "multiplicative"
    row[event_stdp.NEAREST] = rule.pairing == "nearest"
    return row


def make_plastic(network: Network, layout: Layout, rules: tuple[PairSTDP, ...]) -> PlasticLayout:
    """Find the plastic synapses of a laid out network and number them by target neuron and rule.

    Raises:
        InputError: A loop of the network has no delay, or a target does not run all the time.
    """
    plan = layout.plan
    if plan.window == 0:
        raise InputError(
            "plasticity: some loop of projections has no delay at all, so a spike could come back at its own instant; "
            "give one of them a delay"
        )
    rule = np.full(len(network.projections), -1, np.int32)
    named: list[tuple[str | int, int]] = []
    for r, item in enumerate(rules):
        assert isinstance(item.projections, tuple)
        for name in item.projections:
            place = network.projection_place(name)
            target = network.population(network.projections[place].target)
            if isinstance(target.neuron, StochasticNeuron):
                raise InputError(
                    f"plasticity: projection {network.projections[place].name!r}: its target {target.name!r} is a "
                    f"{target.neuron.kind}, whose synapses stand for random ones; only fixed synapses can learn"
                )
            if target.start_step or target.stop_step is not None:
                raise InputError(
                    f"plasticity: projection {network.projections[place].name!r}: its target {target.name!r} has a "
                    "start_step or stop_step; only synapses of neurons that run all the time can learn"
                )
            rule[place] = r
            named.append((name, place))
    parts = []
    for place in range(len(network.projections)):
        first = int(plan.first_row[place])
        parts.append(slice(plan.row_start[first], plan.row_start[first + network.projections[place].shape[1]]))
    chosen = np.flatnonzero(rule >= 0).tolist()
    synapse = np.concatenate([np.arange(parts[q].start, parts[q].stop) for q in chosen])
    of = np.concatenate([np.full(parts[q].stop - parts[q].start, rule[q], np.int64) for q in chosen])
    group = (plan.target[synapse] >> 1).astype(np.int64) * len(rules) + of
    order = np.argsort(group, kind="stable")
    begin = np.zeros(layout.law.shape[0] * len(rules) + 1, np.int64)
    np.cumsum(np.bincount(group, minlength=begin.shape[0] - 1), out=begin[1:])
    number = np.zeros(synapse.shape[0], np.int64)
    number[order] = np.arange(synapse.shape[0])
    weight = plan.weight.copy()
    weight[synapse] = number
    ends = np.cumsum([0, *(parts[q].stop - parts[q].start for q in chosen)])
    mine = {q: number[ends[k] : ends[k + 1]] for k, q in enumerate(chosen)}
    return PlasticLayout(
        rules=rules,
        numbers=np.stack([_numbers(item) for item in rules]),
        rule=rule,
        begin=begin,
        weight=plan.weight[synapse[order]],
        plan=plan._replace(weight=weight),
        named=tuple((name, place, mine[place]) for name, place in named),
    )


def final_weights(
    network: Network, plastic: PlasticLayout, ends: Sequence[PlasticState]
) -> dict[str | int, list[Floats]]:
    """Return the weights of every sample in the shapes in which the projections store them."""
    found: dict[str | int, list[Floats]] = {}
    for name, place, number in plastic.named:
        projection = network.projections[place]
        index = projection.synapses(network.dt).index
        weight = projection.weight
        stored = np.broadcast_to(weight.weight, (weight.nnz,)) if isinstance(weight, Sparse) else weight
        found[name] = []
        for end in ends:
            values = np.array(stored, dtype=np.float64)
            values.reshape(-1)[index] = end.weight[number]
            found[name].append(values)
    return found


def advance_plastic(
    plastic: PlasticLayout,
    layout: Layout,
    given: PlasticState | None,
    pending: Pending,
    inputs: kernel.Inputs,
    neurons: Floats,
    grid: neuron.Grid,
    counts: Integers,
    begin: float,
    stop: float,
    refuse: Callable[[Floats], NoReturn],
) -> tuple[neuron.Spikes, Pending, PlasticState]:
    """Run one sample, giving the kernel longer lists when it asks.

    Args:
        plastic: The plastic synapses.
        layout: The network.
        given: Weights and traces to begin with; None for those of the network.
        pending: Arrivals on their way.
        inputs: Events.
        neurons: The neurons; changed in place.
        grid: What to record; filled in place.
        counts: Counters; changed in place.
        begin: Seconds.
        stop: Seconds.
        refuse: Called with the neurons' ``check`` if one would fire twice at one instant.

    Returns:
        Spikes, pending arrivals, weights and traces.
    """
    plan, size = plastic.plan, neurons.shape[0]
    many = pending[0].shape[0] if pending else 0
    synapses = plastic.weight.shape[0]
    after = PlasticState(
        rules=plastic.rules,
        weight=(plastic.weight if given is None else given.weight).copy(),
        trace=np.zeros(synapses) if given is None else given.trace.copy(),
        last=np.full(synapses, plan.origin) if given is None else given.last.copy(),
        post=np.zeros((len(plastic.rules), size)) if given is None else given.post.copy(),
        fired=np.full(size, plan.origin) if given is None else given.fired.copy(),
        counts=np.zeros(2, np.int64) if given is None else given.counts.copy(),
    )
    learning = event_stdp.Plastic(
        *(plastic.numbers, plastic.rule, plastic.begin, after.weight, after.trace, after.last),
        *(after.post, after.fired, after.counts),
    )
    check = neurons[:, neuron.CHECK].copy()
    cells = neuron.Cells(layout.laws, layout.law, neurons, check, neuron.least_checks(check))
    spikes = neuron.new_spikes()
    buckets = layout.slots * (plan.stage_start.shape[0] - 1)
    pool = store.new_pool(buckets, 256 + (buckets if many else 0) + many // store.CHUNK)
    log, buffer = store.new_log(1024 + many), kernel.new_buffer()
    copies = np.zeros(log.time.shape[0])
    if pending:
        event_plastic.load_plastic(plan, pool, log, copies, *pending)
    scratch = kernel.Scratch(np.zeros(size, np.int64), np.zeros(size, np.int64), np.zeros(size + 1, np.int64))
    cursor = kernel.new_cursor(begin, plan)
    while True:
        status = event_plastic.run_plastic(
            *(plan, inputs, cells, pool, log, copies, buffer, scratch, spikes, grid, cursor, counts, stop, learning)
        )
        if status == neuron.ROOM:
            spikes = neuron.grown_spikes(spikes)
        elif status == kernel.ROOM_IN_BUFFER:
            buffer = kernel.new_buffer(2 * int(pool.used.max()))
        elif status == kernel.ROOM_TO_DELIVER:
            pool, log = store.grown_pool(pool, layout.fan_out), store.grown_log(log)
            copies = np.append(copies, np.zeros(log.time.shape[0] - copies.shape[0]))
        elif status == neuron.TOO_FAST:
            refuse(check)
        else:
            neurons[:, neuron.CHECK] = check
            times, numbers, targets, delivery = store.drain(pool)
            left = (log.time[delivery], log.projection[delivery], log.source[delivery], copies[delivery])
            return spikes, (times, numbers, targets, *left), after
