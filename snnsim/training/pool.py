"""Before the first update of a pool: unsupervised STDP of its synapses, and a look at whether it runs as it should."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from snnsim.datasets.frames import Frames
from snnsim.engines import simulate
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.grid import time_to_step
from snnsim.network import Input, Network, Population, Projection, Sparse
from snnsim.neurons import LIF, CubaLIF, Neuron
from snnsim.nn.context import Context
from snnsim.nn.model import SpikingModel
from snnsim.nn.neurons import CubaLIF as CubaLIFModule
from snnsim.nn.recurrent import Recurrent
from snnsim.plasticity import PairSTDP
from snnsim.training.health import SATURATED, SILENT

if TYPE_CHECKING:
    from snnsim.datasets.batches import Batch
    from snnsim.nn.trained import TrainedModel
    from snnsim.recipes import Recipe
    from snnsim.recipes.schema import StdpSpec
    from snnsim.training.distributed import World
from snnsim.training.upload import device_of, upload

__all__ = ["StdpFacts", "check_activity", "learn_by_stdp", "stdp_network"]

Floats = npt.NDArray[np.float64]

STEP = 2.0**-10
"""Step of the run in which synapses learn. A power of two: sums of steps are exact, so that all that arrives in one
step of the grid arrives at one instant of continuous time. All time constants are scaled with it."""


@dataclass(frozen=True)
class StdpFacts:
    """What unsupervised STDP did.

    Attributes:
        synapses: Synapses that learned.
        change: Sum of the sizes of their changes over the sum of their initial weights.
        rates: Spikes a neuron and step (pauses between samples not counted) in every epoch.
    """

    synapses: int
    change: float
    rates: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**asdict(self), "rates": list(self.rates)}


def _sparse(weight: Floats, exists: npt.NDArray[np.bool_]) -> Sparse:
    source, target = np.nonzero(exists.T)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(source, minlength=weight.shape[1]))])
    return Sparse(indptr, target.astype(np.int32), weight[target, source], weight.shape)


def _scaled(recurrent: Recurrent) -> Neuron:
    """Return the neurons with time constants for :data:`STEP`."""
    p = recurrent.neuron.neuron().step(recurrent.size, recurrent.neuron.dt)
    numbers: dict[str, Any] = {
        "tau_mem": -STEP / np.log(p.beta),
        "v_threshold": np.nextafter(p.v_threshold, np.inf) if p.strict else p.v_threshold,
        "v_reset": p.v_reset,
        "reset": "zero" if p.reset_zero else "subtract",
        "t_ref": p.refractory_steps * STEP,
    }
    if not p.reset_zero:
        numbers["reset_amount"] = p.reset_amount
    if isinstance(recurrent.neuron, CubaLIFModule):
        return CubaLIF(tau_syn=-STEP / np.log(p.alpha), **numbers)
    return LIF(**numbers)


def stdp_network(model: SpikingModel) -> Network:
    """Return input and pool of a model as a network at :data:`STEP`, excitatory and inhibitory synapses apart.

    Projections: input, excitatory and inhibitory recurrence, in this order; those without a synapse are left out.
    """
    block: Any = model.blocks[0]
    recurrent: Recurrent = block.neuron
    feed = block.connection.existing_weight().detach().double().cpu().numpy()
    loop = recurrent.existing_weight().detach().double().cpu().numpy()
    delay = int(recurrent.delay_steps) * STEP
    parts = [Projection("in", "pool", _sparse(feed, feed != 0))]
    parts += [
        Projection("pool", "pool", _sparse(loop, chosen), delay) for chosen in (loop > 0, loop < 0) if chosen.any()
    ]
    return Network(
        (Population("pool", recurrent.size, _scaled(recurrent)),),
        tuple(parts),
        (Input("in", feed.shape[1]),),
        None,
        STEP,
    )


def _stream(events: Events, chosen: npt.NDArray[np.int64], pool: int, n_inputs: int, dt: float, gap: int) -> Events:
    """Return samples one after the other, on the grid of :data:`STEP`, as one long sample."""
    steps = events.n_steps(dt)[chosen]
    begin = np.concatenate([[0], np.cumsum(steps + gap)])
    times, units = [], []
    for place, index in enumerate(chosen.tolist()):
        a, b = int(events.offsets[index]), int(events.offsets[index + 1])
        times.append((begin[place] + time_to_step(events.times[a:b], dt)) * STEP)
        units.append(np.asarray(events.units[a:b] // pool, np.int32))
    return Events.from_lists(
        [np.concatenate(times)], [np.concatenate(units)], n_inputs, duration=float(begin[-1] * STEP), sort=True
    )


def _rules(spec: StdpSpec, network: Network, dt: float) -> dict[int, PairSTDP]:
    """Return a rule for every projection that learns, by its place."""
    rules: dict[int, PairSTDP] = {}
    for place, projection in enumerate(network.projections):
        assert isinstance(projection.weight, Sparse)
        weight = np.asarray(projection.weight.weight)
        name = "recurrent" if projection.source == "pool" else "input"
        if name not in spec.synapses or (name == "recurrent" and weight.max() < 0):
            continue
        if weight.min() < 0:
            raise InputError("train.stdp: expected input synapses of weight 0 or more; take synapses = ['recurrent']")
        unit = 1.0 if spec.bound == "multiplicative" else float(weight.mean())
        rules[place] = PairSTDP(
            place,
            a_plus=spec.a_plus * unit,
            a_minus=spec.a_minus * unit,
            w_max=spec.w_max * float(weight.max()),
            tau_plus=spec.tau_plus * STEP / dt,
            tau_minus=spec.tau_minus * STEP / dt,
            bound=spec.bound,
        )
    if not rules:
        raise InputError(
            f"train.stdp: no excitatory synapse among {', '.join(spec.synapses)}; raise pool.excitatory or pool.density"
        )
    return rules


def learn_by_stdp(model: SpikingModel, events: Events, recipe: Recipe, pool: int) -> StdpFacts:
    """Let the excitatory synapses of a pool learn from samples without labels; the model's weights are changed.

    Args:
        model: A network of one pool.
        events: Training samples on their time axis, channels not yet pooled.
        recipe: With ``train.stdp``.
        pool: Neighbouring channels summed into one.

    Raises:
        InputError: The samples are frames, or nothing can learn.
    """
    spec, dt = recipe.train.stdp, recipe.data.dt
    assert spec is not None
    if isinstance(events, Frames):
        raise InputError("train.stdp: expected samples of events, got frames; take a data set of spikes")
    network = stdp_network(model)
    rules = _rules(spec, network, dt)
    weights: dict[str | int, Floats] = {place: _values(network, place) for place in rules}
    first = {place: value.copy() for place, value in weights.items()}
    targets = {place: np.asarray(_of(network, place).target, np.int64) for place in rules}
    size = network.population("pool").size
    sums = {place: np.bincount(targets[place], first[place], size) for place in rules}
    gap = round(spec.gap / dt)
    rates = []
    for _ in range(spec.epochs):
        spikes = 0
        for start in range(0, len(events), spec.chunk):
            chosen = np.arange(start, min(start + spec.chunk, len(events)))
            train = _stream(events, chosen, pool, model.n_inputs, dt, gap)
            learning = network.with_weights(weights)
            result = simulate(learning, train, engine="event", plasticity=tuple(rules.values()), threads=1)
            fired = result.spikes["pool"].n_events
            _check_calm(fired / (int(result.n_steps.sum()) * size), start + len(chosen))
            spikes += fired
            weights = {place: result.weights[place][0] for place in rules}
            if spec.normalise:
                for place, target in targets.items():
                    now = np.bincount(target, weights[place], size)
                    factor = np.divide(sums[place], now, out=np.ones(size), where=now > 0)
                    weights[place] = np.minimum(weights[place] * factor[target], rules[place].w_max)
        rates.append(spikes / max(1, int(events.n_steps(dt).sum()) * size))
    with torch.no_grad():
        for place in rules:
            block: Any = model.blocks[0]
            value = upload(weights[place], device_of(model))
            parameter = block.connection.weight if place == 0 else block.neuron.recurrent_weight
            source = np.repeat(np.arange(_of(network, place).shape[1]), np.diff(_of(network, place).indptr))
            at = (upload(targets[place], value.device), upload(source, value.device))
            parameter[at] = value.to(parameter.dtype)
    moved = sum(float(np.abs(weights[place] - first[place]).sum()) for place in rules)
    whole = sum(float(value.sum()) for value in first.values())
    return StdpFacts(sum(value.size for value in first.values()), moved / whole, tuple(rates))


def _check_calm(rate: float, samples: int) -> None:
    if rate > SATURATED:
        raise InputError(
            f"train.stdp: after {samples} samples the pool fires {rate:.2g} spikes a neuron and step: it "
            "drives itself; lower stdp.a_plus or stdp.chunk, raise stdp.a_minus, or take a smaller pool.radius"
        )


def _of(network: Network, place: int) -> Sparse:
    weight = network.projections[place].weight
    assert isinstance(weight, Sparse)
    return weight


def _values(network: Network, place: int) -> Floats:
    return np.array(_of(network, place).weight, np.float64)


@torch.no_grad()
def check_activity(model: TrainedModel, batch: Batch, recipe: Recipe, world: World) -> float:
    """Return the spikes a neuron and step of a pool on one batch; refuse a pool that nothing can be learned from.

    Raises:
        InputError: The pool is silent, or drives itself.
    """
    part = world.part(len(batch))
    device = device_of(model)
    x, mask = upload(batch.x[:, part], device), upload(batch.mask[:, part], device)
    output = model(x, None, Context(mask, upload(batch.sample_id[part], device)))
    steps = float(mask.sum())
    spikes, total = world.sum([float(output.rates[0]) * steps, steps])
    rate = spikes / max(1.0, total)
    if rate > SATURATED:
        raise InputError(
            f"model.pool: fires {rate:.2g} spikes a neuron and step on the first batch: it drives itself; lower "
            "pool.radius or pool.input_weight, raise pool.inhibition, or set model.initial_rate = 0.05"
        )
    if rate < SILENT:
        raise InputError(
            f"model.pool: fires {rate:.2g} spikes a neuron and step on the first batch, too few to read; raise "
            "pool.input_weight or pool.input_share, or set model.initial_rate = 0.05"
        )
    return rate
