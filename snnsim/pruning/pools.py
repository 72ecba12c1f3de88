"""Heterogeneous recurrent pools (HRSNN) as networks: structure, Dale's law, distributions, spectral scale.

The pool is ``v <- beta v + W s + U x`` with fixed random sparse ``W`` and one time constant, synaptic time constant
and threshold a neuron. The homogeneous control has the mean of each distribution. The model is that of Chakraborty
and Mukhopadhyay (ICLR 2023); what follows their text and what is reconstructed is in ``docs/pruning.md``.

>>> made = make_pool(PoolPlan(size=50, seed=1))
>>> made.network.population("pool").size, made.report["excitatory"]
(50, 40)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.grid import check_dt
from snnsim.kernels.philox import Stream, uniform
from snnsim.network import Input, Network, Population, Projection, Readout, Sparse
from snnsim.network_checks import check_integer
from snnsim.neurons import LI, LIF, CubaLIF
from snnsim.pruning.laws import Constant, Gamma, Law, draw
from snnsim.pruning.spectrum import DENSE_MAX, spectral_abscissa, spectral_radius

__all__ = ["Made", "PoolPlan", "Structure", "draw_input", "make_pool"]

Structure = Literal["random", "small-world", "blocks"]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

RECURRENT, INPUT, READOUT = 0, 1, 2

TAU_MEM = Gamma(shape=3.0, scale=0.02 / 3)
TAU_SYN = Gamma(shape=3.0, scale=0.005 / 3)
THRESHOLD = Constant(1.0)
WEIGHT = Gamma(shape=2.0, scale=0.5)


@dataclass(frozen=True)
class PoolPlan:
    """What a pool is made of. Times are seconds, potentials dimensionless.

    Attributes:
        size: Neurons of the pool.
        neuron: ``"LIF"`` (delta synapses) or ``"CubaLIF"`` (exponential currents); recurrent delays are one step, which
            trainable layers have too.
        excitatory: Share of excitatory neurons, the first ones; every neuron has synapses of one sign (Dale).
        tau_mem: Distribution of membrane time constants.
        tau_syn: Distribution of synaptic time constants (CubaLIF).
        v_threshold: Distribution of thresholds.
        homogeneous: Use the means of the three instead: the control.
        tau_max: Greatest time constant; the least is ``2 dt``. What lies outside is clipped and counted.
        threshold_min: Least threshold.
        threshold_max: Greatest threshold.
        structure: ``random``: each ordered pair with ``probability``. ``small-world``: every neuron reaches its
            nearest ``probability size`` neighbours on a ring, each synapse moved to a random target with
            ``rewire`` (Watts and Strogatz, Nature 1998, directed). ``blocks``: ``n_blocks`` groups of neighbours,
            ``probability`` inside, ``between`` across.
        probability: Density.
        rewire: Of ``small-world``.
        n_blocks: Of ``blocks``.
        between: Of ``blocks``.
        weight: Distribution of the sizes of weights.
        inhibition: Factor on inhibitory weights.
        radius: Scale the weights to this spectral radius, those of CubaLIF neurons after multiplication by
            ``tau_syn / tau_mem`` of the target (what moves the membrane in all); None: leave it.
        abscissa: Scale them so that this is the greatest real part of an eigenvalue; None: leave it.
        n_inputs: Channels of the input ``in``; 0: no input.
        input_share: Share of the neurons that get synapses from the input: those with the lowest draws.
        input_weight: Mean input weight; weights are uniform from 0 to its double.
        n_outputs: Leaky integrators ``out`` that read the pool with random weights; 0: none.
        dt: Time step.
        seed: Of everything drawn.
    """

    size: int = 200
    neuron: Literal["LIF", "CubaLIF"] = "LIF"
    excitatory: float = 0.8
    tau_mem: Law = TAU_MEM
    tau_syn: Law = TAU_SYN
    v_threshold: Law = THRESHOLD
    homogeneous: bool = False
    tau_max: float = 0.2
    threshold_min: float = 0.2
    threshold_max: float = 5.0
    structure: Structure = "random"
    probability: float = 0.1
    rewire: float = 0.1
    n_blocks: int = 4
    between: float = 0.01
    weight: Law = WEIGHT
    inhibition: float = 4.0
    radius: float | None = 0.9
    abscissa: float | None = None
    n_inputs: int = 0
    input_share: float = 0.3
    input_weight: float = 0.5
    n_outputs: int = 0
    dt: float = 0.001
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in (("size", 2), ("n_blocks", 1), ("n_inputs", 0), ("n_outputs", 0), ("seed", 0)):
            object.__setattr__(self, name, check_integer(getattr(self, name), f"pool: {name}", low))
        object.__setattr__(self, "dt", check_dt(self.dt))
        for name in ("excitatory", "probability", "rewire", "between", "input_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"pool: {name}: expected a share from 0 to 1, got {getattr(self, name)!r}")
        for name in ("tau_max", "threshold_min", "threshold_max", "inhibition", "input_weight"):
            if not getattr(self, name) > 0:
                raise InputError(f"pool: {name}: expected a positive number, got {getattr(self, name)!r}")
        if self.structure not in get_args(Structure):
            raise InputError(f"pool: structure: expected one of {list(get_args(Structure))}, got {self.structure!r}")
        if self.neuron not in ("LIF", "CubaLIF"):
            raise InputError(f"pool: neuron: expected 'LIF' or 'CubaLIF', got {self.neuron!r}")
        for item in fields(self):
            if item.type == "Law" and not isinstance(getattr(self, item.name), Law):
                given = type(getattr(self, item.name)).__name__
                raise InputError(f"pool: {item.name}: expected a distribution such as Gamma(3.0, 0.007), got {given}")
        if self.radius is not None and self.abscissa is not None:
            raise InputError("pool: expected radius or abscissa, both are given; leave one at None")
        for name in ("radius", "abscissa"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"pool: {name}: expected a positive number or None, got {value!r}")


@dataclass(frozen=True)
class Made:
    """A pool that was made.

    Attributes:
        network: Population ``pool``, input ``in`` and population ``out`` where the plan has them.
        report: What was clipped, counted and scaled; JSON values.
    """

    network: Network
    report: dict[str, Any]


def _targets(plan: PoolPlan) -> Iterator[Integers]:
    """Yield the targets of every neuron, ascending, without itself."""
    n = plan.size
    units = np.arange(n)
    if plan.structure == "small-world":
        half = max(1, round(plan.probability * n / 2))
        if 2 * half >= n:
            raise InputError(
                f"pool: small-world: {2 * half} neighbours of {n} neurons; expected a probability below {1 - 1 / n:.3g}"
            )
        offsets = np.concatenate((np.arange(-half, 0), np.arange(1, half + 1)))
        for source in range(n):
            near = (source + offsets) % n
            moved = uniform(plan.seed, Stream.POOL_EDGE, 0, 0, near, source) < plan.rewire
            chosen = set(near[~moved].tolist())
            for place, draws in enumerate(near[moved].tolist()):
                free = np.setdiff1d(units, [*chosen, source])
                share = uniform(plan.seed, Stream.POOL_EDGE, 0, 1 + place, draws, source)
                chosen.add(int(free[int(share * free.shape[0])]))
            yield np.array(sorted(chosen), np.int64)
        return
    block = units * plan.n_blocks // n
    for source in range(n):
        share = uniform(plan.seed, Stream.POOL_EDGE, 0, 0, units, source)
        limit: float | Floats = plan.probability
        if plan.structure == "blocks":
            limit = np.where(block == block[source], plan.probability, plan.between)
        yield np.flatnonzero((share < limit) & (units != source))


def _weights(plan: PoolPlan) -> Sparse:
    """Draw the recurrent synapses."""
    reached = list(_targets(plan))
    degree = np.array([row.shape[0] for row in reached])
    target = np.concatenate(reached).astype(np.int32)
    source = np.repeat(np.arange(plan.size), degree)
    if not target.size:
        raise InputError(f"pool: no synapse among {plan.size} neurons with probability {plan.probability}; raise it")
    size = plan.weight.quantile(uniform(plan.seed, Stream.POOL_WEIGHT, 0, RECURRENT, target, source))
    sign = np.where(np.arange(plan.size) < round(plan.excitatory * plan.size), 1.0, -plan.inhibition)
    return Sparse(np.concatenate(([0], np.cumsum(degree))), target, size * sign[source], (plan.size, plan.size))


def _scale(plan: PoolPlan, weight: Sparse, into: Floats) -> tuple[Sparse, float]:
    """Scale the weights as the plan says; ``into`` is how far an arrival of 1 moves the membrane of a target."""
    from scipy.sparse import csc_matrix, diags

    goal = plan.radius if plan.radius is not None else plan.abscissa
    if goal is None:
        return weight, 1.0
    matrix = csc_matrix((np.asarray(weight.weight), weight.target, weight.indptr), shape=weight.shape)
    measure = spectral_radius if plan.radius is not None else spectral_abscissa
    found = measure(diags(into) @ matrix)
    if not found > 1e-9:
        name = "radius" if plan.radius is not None else "abscissa"
        raise InputError(
            f"pool: {name}: the weights have {found:.3g} (no loop that could be scaled); raise probability, or use None"
        )
    factor = goal / found
    return Sparse(weight.indptr, weight.target, np.asarray(weight.weight) * factor, weight.shape), factor


def draw_input(size: int, n_inputs: int, share: float, weight: float, seed: int) -> tuple[Floats, int]:
    """Draw the synapses from an input into a pool; see :class:`PoolPlan`.

    Args:
        size: Neurons of the pool.
        n_inputs: Channels.
        share: Share of the neurons that get synapses, at least one of them.
        weight: Mean weight.
        seed: Seed.

    Returns:
        Weights, float64 ``(size, n_inputs)``, 0 where there is no synapse, and how many neurons have some.
    """
    count = max(1, round(share * size))
    order = np.argsort(uniform(seed, Stream.POOL_EDGE, 1, 0, np.arange(size)), kind="stable")
    receiving = np.sort(order[:count])
    feed = np.zeros((size, n_inputs))
    drawn = uniform(seed, Stream.POOL_WEIGHT, 0, INPUT, receiving[:, None], np.arange(n_inputs))
    feed[receiving] = 2 * weight * drawn
    return feed, count


def make_pool(plan: PoolPlan) -> Made:
    """Make a pool.

    Up to 2000 neurons the recurrent weight is dense, above sparse. The same plan gives the same pool; what weights are
    scaled by for ``radius`` and ``abscissa`` comes from LAPACK, whose last bit may follow the number of threads.

    Raises:
        InputError: The structure has no synapse, or nothing that could be scaled.
    """
    n, dt = plan.size, plan.dt
    report: dict[str, Any] = {"size": n, "excitatory": round(plan.excitatory * n), "structure": plan.structure}
    values: dict[str, Floats] = {}
    laws = {"tau_mem": plan.tau_mem, "tau_syn": plan.tau_syn, "v_threshold": plan.v_threshold}
    for parameter, (name, law) in enumerate(laws.items()):
        low, high = (2 * dt, plan.tau_max) if name != "v_threshold" else (plan.threshold_min, plan.threshold_max)
        used = law.homogeneous() if plan.homogeneous else law
        values[name], clipped = draw(used, n, seed=plan.seed, parameter=parameter, low=low, high=high)
        report[name] = {"mean": float(values[name].mean()), "law_mean": law.mean(), "clipped": clipped}
    if plan.neuron == "LIF":
        del report["tau_syn"]
        into = np.ones(n)
        neuron: LIF | CubaLIF = LIF(tau_mem=values["tau_mem"], v_threshold=values["v_threshold"], reset="subtract")
    else:
        into = values["tau_syn"] / values["tau_mem"]
        neuron = CubaLIF(
            tau_mem=values["tau_mem"],
            tau_syn=values["tau_syn"],
            v_threshold=values["v_threshold"],
            reset="subtract",
        )
    weight, factor = _scale(plan, _weights(plan), into)
    report |= {"synapses": weight.nnz, "density": weight.nnz / (n * (n - 1)), "weight_scale": factor}
    stored: Floats | Sparse = weight
    if n <= DENSE_MAX:
        stored = np.zeros((n, n))
        stored[weight.target, weight.source] = weight.weight
    populations = [Population("pool", n, neuron)]
    projections = []
    inputs = []
    if plan.n_inputs:
        inputs.append(Input("in", plan.n_inputs))
        feed, count = draw_input(n, plan.n_inputs, plan.input_share, plan.input_weight, plan.seed)
        projections.append(Projection("in", "pool", feed))
        report["input_neurons"] = count
    projections.append(Projection("pool", "pool", stored, delay=dt))
    readout = None
    if plan.n_outputs:
        populations.append(Population("out", plan.n_outputs, LI(tau_mem=float(np.mean(values["tau_mem"])))))
        units = (np.arange(plan.n_outputs)[:, None], np.arange(n))
        share = uniform(plan.seed, Stream.POOL_WEIGHT, 0, READOUT, *units)
        projections.append(Projection("pool", "out", (2 * share - 1) / np.sqrt(n)))
        readout = Readout("out", "v", "mean")
    network = Network(tuple(populations), tuple(projections), tuple(inputs), readout, dt, notes={"pool": report})
    return Made(network, report)
