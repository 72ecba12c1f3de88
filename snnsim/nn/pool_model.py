"""A heterogeneous recurrent pool (HRSNN) as a trainable network: input, one recurrent layer with masks, readout.

The pool is drawn by :func:`snnsim.pruning.pools.make_pool` or read from a network file, such as a pruned one. The
synapses that it has are ordinary weights; those that it has not stay absent, by the masks of
:mod:`snnsim.nn.masks`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from snnsim import neurons as records
from snnsim.errors import InputError
from snnsim.network import Network, Projection, Sparse
from snnsim.neurons import Neuron
from snnsim.nn import surrogates
from snnsim.nn.delays import Linear
from snnsim.nn.dropout import SequenceDropout
from snnsim.nn.model import Block, SpikingModel, build_readout, connect
from snnsim.nn.neurons import LIF, CubaLIF
from snnsim.nn.norm import BatchNormTime
from snnsim.nn.recurrent import Recurrent
from snnsim.pruning.laws import Constant, Empirical, Gamma, Law, LogNormal
from snnsim.pruning.pools import PoolPlan, draw_input, make_pool

if TYPE_CHECKING:
    from snnsim.recipes.schema import LawSpec, ModelSpec, NeuronSpec, PoolSpec

__all__ = ["PoolParts", "build_pool_model", "pool_parts"]

LARGEST = 10_000
"""Most neurons of a pool that is trained: its weights and masks are dense arrays."""

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class PoolParts:
    """A pool as arrays.

    Attributes:
        neuron: Record of its neurons.
        recurrent: Weights ``[target, source]``, float64 ``(N, N)``, 0 where there is no synapse.
        exists: Which recurrent synapses there are, bool ``(N, N)``.
        delay_steps: Their delay, one number.
        feed: Weights from the input, float64 ``(N, n_inputs)``.
        fed: Which of these there are, bool ``(N, n_inputs)``.
    """

    neuron: Neuron
    recurrent: Floats
    exists: Mask
    delay_steps: int
    feed: Floats
    fed: Mask


def _law(spec: LawSpec) -> Law:
    if spec.law == "gamma":
        return Gamma(spec.shape or 0.0, spec.scale or 0.0)
    if spec.law == "log-normal":
        return LogNormal(spec.median or 0.0, spec.sigma or 0.0)
    if spec.law == "empirical":
        return Empirical(tuple(spec.values or ()))
    return Constant(spec.value or 0.0)


def _plan(spec: PoolSpec, kind: str, n_inputs: int, dt: float, seed: int) -> PoolPlan:
    return PoolPlan(
        size=spec.size,
        neuron="CubaLIF" if kind == "cubalif" else "LIF",
        excitatory=spec.excitatory,
        tau_mem=_law(spec.tau_mem),
        tau_syn=_law(spec.tau_syn),
        v_threshold=_law(spec.v_threshold),
        homogeneous=spec.homogeneous,
        tau_max=spec.tau_max,
        threshold_min=spec.threshold_min,
        threshold_max=spec.threshold_max,
        structure=spec.structure,
        probability=spec.density,
        rewire=spec.rewire,
        n_blocks=spec.n_blocks,
        between=spec.between,
        weight=_law(spec.weight),
        inhibition=spec.inhibition,
        radius=spec.radius or None,
        n_inputs=n_inputs,
        input_share=spec.input_share,
        input_weight=spec.input_weight,
        dt=dt,
        seed=seed,
    )


def pool_parts(spec: PoolSpec, kind: str, n_inputs: int, dt: float, seed: int = 0) -> PoolParts:
    """Draw a recipe's pool, or read it from its file.

    Args:
        spec: Table ``[model.pool]``.
        kind: Neurons, ``"lif"`` or ``"cubalif"``.
        n_inputs: Input channels.
        dt: Time step, seconds.
        seed: Seed where the table has none.

    Raises:
        InputError: The pool has no synapses, or the file's does not fit recipe and data.
    """
    seed = seed if spec.seed is None else spec.seed
    if spec.file is None:
        if spec.size > LARGEST:
            raise InputError(f"model.pool.size: expected at most {LARGEST} neurons, got {spec.size}")
        if spec.tau_max < 2 * dt:
            raise InputError(
                f"model.pool.tau_max: expected at least two steps of {dt} s, got {spec.tau_max} s; raise it or lower "
                "data.dt"
            )
        network, where = make_pool(_plan(spec, kind, n_inputs, dt, seed)).network, "model.pool"
    else:
        network, where = Network.load(Path(spec.file)), f"model.pool.file {spec.file!r}"
    return _parts(network, where, spec, kind, n_inputs, dt, seed)


def _parts(network: Network, where: str, spec: PoolSpec, kind: str, n_inputs: int, dt: float, seed: int) -> PoolParts:
    loops = [item for item in network.projections if item.source == item.target]
    names = sorted({item.target for item in loops})
    if len(names) != 1 or len(loops) != 1:
        found = ", ".join(names) if names else "none"
        raise InputError(
            f"{where}: expected one population with recurrent synapses in one projection, got {found}; make one with "
            "snnsim.pruning.pools.make_pool"
        )
    pool, loop = network.population(names[0]), loops[0]
    if pool.size > LARGEST:
        raise InputError(f"{where}: expected a pool of at most {LARGEST} neurons, got {pool.size}")
    record = pool.neuron
    wanted = {"lif": records.LIF, "cubalif": records.CubaLIF}[kind]
    if type(record) is not wanted:
        raise InputError(f"{where}: its neurons are {record.kind}, the recipe says neuron.kind = {kind!r}; change one")
    drives = [name for name in ("drive", "drive_syn") if np.any(np.asarray(getattr(record, name, 0.0)))]
    if drives or pool.start_step or pool.stop_step is not None:
        found = drives[0] if drives else "start_step" if pool.start_step else "stop_step"
        raise InputError(
            f"{where}: population {pool.name!r} has {found!r}, which a trained pool has not; take a pool without, such "
            "as snnsim.pruning.pools.make_pool makes"
        )
    if network.dt != dt:
        raise InputError(
            f"{where}: was made for steps of {network.dt} s, the recipe has data.dt = {dt}; set data.dt = {network.dt} "
            "or make the pool with that dt"
        )
    recurrent, exists = _dense(loop)
    if not exists.any():
        raise InputError(f"{where}: population {pool.name!r} has no synapse left; keep more of them in pruning")
    steps = np.asarray(loop.delay_steps(dt))
    if steps.min() != steps.max() or steps.min() < 1:
        raise InputError(
            f"{where}: expected one recurrent delay of at least a step, got {steps.min()} to {steps.max()} steps"
        )
    if np.abs(recurrent).max() > np.finfo(np.float32).max:
        raise InputError(
            f"{where}: a recurrent weight of {np.abs(recurrent).max():.3g} is beyond float32; lower weight, "
            "inhibition or radius"
        )
    inputs = {item.name for item in network.inputs}
    feeds = [item for item in network.projections if item.target == pool.name and item.source in inputs]
    if not feeds:
        feed = draw_input(pool.size, n_inputs, spec.input_share, spec.input_weight, seed)[0]
        return PoolParts(record, recurrent, exists, int(steps.min()), feed, feed != 0)
    unused = [key for key in ("input_share", "input_weight", "seed") if _is_set(spec, key)]
    if spec.file is not None and unused:
        raise InputError(
            f"model.pool.{unused[0]}: draws synapses from the input, but {where} has its own; remove the key, or take "
            "a pool without input (n_inputs = 0)"
        )
    if len(feeds) != 1 or feeds[0].shape[1] != n_inputs:
        raise InputError(
            f"{where}: its input has {feeds[0].shape[1]} channels, the data have {n_inputs}; change data.channels, or "
            "prune a pool without input (n_inputs = 0), for which the recipe draws one"
        )
    if np.any(feeds[0].delay_steps(dt)):
        raise InputError(f"{where}: expected input synapses without delay; make the pool without")
    feed, fed = _dense(feeds[0])
    if not fed.any():
        raise InputError(
            f"{where}: no neuron of the pool has a synapse from its input; nothing could reach the readout"
        )
    return PoolParts(record, recurrent, exists, int(steps.min()), feed, fed)


def _is_set(spec: PoolSpec, key: str) -> bool:
    """Return whether a key differs from its default."""
    return bool(getattr(spec, key) != type(spec).model_fields[key].default)


def _dense(projection: Projection) -> tuple[Floats, Mask]:
    """Return weights and which synapses exist, both ``(n_target, n_source)``."""
    if not isinstance(projection.weight, Sparse):
        weight = np.array(projection.weight, np.float64)
        return weight, weight != 0
    weight, exists = np.zeros(projection.shape), np.zeros(projection.shape, np.bool_)
    place = (projection.weight.target, projection.weight.source)
    np.add.at(weight, place, np.asarray(projection.weight.weight, np.float64))
    exists[place] = True
    return weight, exists


def _cells(parts: PoolParts, spec: NeuronSpec, dt: float) -> LIF | CubaLIF:
    """Return the pool's neurons as a module; what is learned is one number a neuron where the numbers differ."""
    size = parts.recurrent.shape[0]
    p = parts.neuron.step(size, dt)

    def value(name: str, numbers: npt.NDArray[Any]) -> Any:
        whole = name in spec.learn and spec.learn_per == "neuron"
        return np.asarray(numbers, np.float64) if whole or np.any(numbers != numbers[0]) else float(numbers[0])

    common: dict[str, Any] = {
        "dt": dt,
        "beta": value("tau_mem", p.beta),
        "v_threshold": value("v_threshold", np.nextafter(p.v_threshold, np.inf) if p.strict else p.v_threshold),
        "v_reset": value("v_reset", p.v_reset),
        "reset": "zero" if p.reset_zero else "subtract",
        "t_ref": value("t_ref", p.refractory_steps * dt),
        "surrogate": getattr(surrogates, spec.surrogate.name)(**spec.surrogate.arguments()),
        "detach_reset": spec.detach_reset,
        "learn": tuple(spec.learn),
    }
    if not p.reset_zero and np.any(p.reset_amount != p.v_threshold):
        common["reset_amount"] = value("reset_amount", p.reset_amount)
    if not isinstance(parts.neuron, records.CubaLIF):
        return LIF(size, **common)
    return CubaLIF(size, alpha=value("tau_syn", p.alpha), **common)


def build_pool_model(spec: ModelSpec, n_inputs: int, n_classes: int, dt: float, seed: int = 0) -> SpikingModel:
    """Build the network of a ``[model.pool]`` table; arguments as in :func:`snnsim.nn.model.build_model`.

    Returns:
        A float32 model in training mode with one block, ``layer1``, whose input and recurrent weights have masks.

    Raises:
        InputError: See :func:`pool_parts`.
    """
    pool = spec.pool
    assert pool is not None
    generator = torch.Generator().manual_seed(seed)
    parts = pool_parts(pool, spec.neuron.kind, n_inputs, dt, seed)
    size = parts.recurrent.shape[0]
    connection = Linear(n_inputs, size, generator=generator)
    recurrent = Recurrent(
        _cells(parts, spec.neuron, dt), parts.recurrent.astype(np.float32), delay_steps=parts.delay_steps
    )
    with torch.no_grad():
        connection.weight.copy_(torch.from_numpy(parts.feed))
    if not parts.fed.all():
        connection.set_mask(parts.fed)
    if not parts.exists.all():
        recurrent.set_mask(parts.exists)
    connection.weight.requires_grad_("input" in pool.learn)
    recurrent.recurrent_weight.requires_grad_("recurrent" in pool.learn)
    block = Block(
        connection,
        recurrent,
        norm=BatchNormTime(size) if spec.batch_norm else None,
        dropout=SequenceDropout(spec.dropout, layer=0) if spec.dropout > 0 else None,
    )
    out = connect(spec.readout_connection(), size, n_classes, dt, generator, bias=True)
    return SpikingModel([block], build_readout(spec.readout, out, dt), dt=dt, tail_steps=spec.tail(dt))
