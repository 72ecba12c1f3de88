"""The study of Lyapunov noise pruning: which pools are compared, how each is made, and with what settings.

An untrained pool is pruned once, without data; the same pruned pool then serves every task, each with a readout of its
own. The comparison is the one that the paper's reviewers asked for (Chakraborty, Kang, Kumar and Mukhopadhyay, ICLR
2024, and its public reviews): every step on and off, other scores, usual baselines at the same budget of synapses and
neurons, heterogeneous and homogeneous pools. What is reconstructed stands in ``docs/pruning.md``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.kernels.philox import Stream, uniform
from snnsim.network import Input, Network, Projection
from snnsim.pruning.lnp import STEPS, prune_lnp
from snnsim.pruning.pool_baselines import HOW, prune_pool
from snnsim.pruning.pools import PoolPlan, make_pool
from snnsim.pruning.result import PruneResult, sparsity
from snnsim.pruning.timescales import TimescaleSearch

__all__ = [
    "CELLS",
    "QUICK",
    "Cell",
    "Kind",
    "Setting",
    "Sizes",
    "budget_of",
    "cell_pool",
    "plan_of",
    "settings",
    "with_inputs",
]

Kind = Literal["heterogeneous", "homogeneous"]
Floats = npt.NDArray[np.float64]

WAYS = (
    *("dense", "no recurrence", "lnp", "lnp, lyapunov_noise", "lnp, magnitude", "lnp, random"),
    *("lnp without synapses", "lnp without neurons", "lnp without delocalise", "lnp without timescales"),
    *(*HOW, "drawn anew"),
)
"""All ways to a pool. ``lnp`` has score ``noise`` and all four steps; ``lnp, SCORE`` another score; ``lnp without
STEP`` leaves one out. ``activity`` to ``neurons`` are those of :func:`snnsim.pruning.pool_baselines.prune_pool`,
``drawn anew`` is a fresh random pool of as many neurons and, on average, as many synapses; ``no recurrence`` is the
dense pool without synapses."""

ALIKE = ("dense", "lnp without timescales", "activity", "magnitude", "random")
"""Ways of the homogeneous control, which has no step IV: that step would make it heterogeneous."""


@dataclass(frozen=True)
class Cell:
    """One combination.

    Attributes:
        kind: Whether time constants differ from neuron to neuron or all have their mean.
        way: One of :data:`WAYS`.
    """

    kind: Kind
    way: str

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind) or self.way not in WAYS:
            raise InputError(
                f"cell: expected {' or '.join(get_args(Kind))} and one of {', '.join(WAYS)}, got {self.kind!r} and "
                f"{self.way!r}"
            )

    @property
    def name(self) -> str:
        """Short name, also that of files."""
        return f"{self.kind}-{self.way}".replace(", ", "-").replace(" ", "-")

    @property
    def reference(self) -> Cell:
        """The pruned pool whose budget a baseline gets."""
        return Cell(self.kind, "lnp" if self.kind == "heterogeneous" else "lnp without timescales")

    @property
    def baseline(self) -> bool:
        """Whether it needs the budget of :attr:`reference`."""
        return self.way in (*HOW, "drawn anew")


CELLS: tuple[Cell, ...] = (
    *(Cell("heterogeneous", way) for way in WAYS),
    *(Cell("homogeneous", way) for way in ALIKE),
)


@dataclass(frozen=True)
class Sizes:
    """How large the study is.

    Attributes:
        neurons: Of the dense pool.
        keep: Share of the synapses that step I keeps on average.
        keep_neurons: Share of the neurons that is kept.
        iterations: Chosen points of the search of time constants, after 8 random ones.
        samples: Most samples of each part of a classification; 0: all.
        tuning_samples: Most samples to fit, and half as many to choose by, while settings are chosen.
        starts: Closed-loop starts of each chaotic series and seed.
        tuning_seeds: Pools on which settings are chosen.
    """

    neurons: int = 200
    keep: float = 0.75
    keep_neurons: float = 0.7
    iterations: int = 10
    samples: int = 0
    tuning_samples: int = 240
    starts: int = 30
    tuning_seeds: int = 1


QUICK = Sizes(neurons=80, iterations=2, samples=120, tuning_samples=60, starts=6, tuning_seeds=1)
"""A trial of the machinery in minutes: pools too small and samples too few for any claim."""


@dataclass(frozen=True)
class Setting:
    """What is chosen for every cell and task on pools and data that are not tested.

    Attributes:
        scale: Factor on the input weights.
        gain: Factor on the recurrent weights after pruning.
        ridge: Of the readout.
    """

    scale: float
    gain: float
    ridge: float


SCALES, GAINS, RIDGES = (0.4, 1.0), (0.5, 1.0), (0.1, 1.0)


def settings() -> list[Setting]:
    """Return what every cell may choose from: the same 8 for all, for every task."""
    return [Setting(scale, gain, ridge) for scale in SCALES for gain in GAINS for ridge in RIDGES]


def plan_of(kind: Kind, sizes: Sizes, seed: int) -> PoolPlan:
    """Return the plan of a dense pool: half of the neurons get input, half are inhibitory, spectral radius 1."""
    return PoolPlan(
        size=sizes.neurons,
        n_inputs=1,
        homogeneous=kind == "homogeneous",
        excitatory=0.5,
        inhibition=1.0,
        input_share=0.5,
        probability=0.1,
        radius=1.0,
        seed=seed,
    )


def budget_of(network: Network) -> tuple[int, int]:
    """Return the recurrent synapses and the neurons of a pool."""
    inside = [item.n_synapses for item in network.projections if item.source == item.target == "pool"]
    return sum(inside), network.population("pool").size


def cell_pool(cell: Cell, sizes: Sizes, seed: int, budget: tuple[int, int] | None = None) -> Network:
    """Make a cell's pool: population ``pool``, input ``in`` of one channel that marks who gets input.

    ``notes["study"]`` holds the old numbers of its neurons, and sparsity and report of the pruning.

    Args:
        cell: Which.
        sizes: Of the study.
        seed: Of the pool and of what is drawn while pruning.
        budget: Synapses and neurons that a baseline is left with (see :attr:`Cell.reference`).

    Raises:
        InputError: A baseline without a budget.
    """
    plan = plan_of(cell.kind, sizes, seed)
    dense = make_pool(plan).network
    kept = np.arange(sizes.neurons)
    report: dict[str, Any] = {}
    if cell.way == "dense":
        network = dense
    elif cell.way == "no recurrence":
        network = dense.with_weights({1: np.zeros((sizes.neurons, sizes.neurons))})
    elif cell.baseline:
        if budget is None:
            raise InputError(f"cell {cell.name}: expected the budget of {cell.reference.name}, got none")
        network, kept, report = _baseline(cell, dense, plan, budget, seed)
    else:
        made = _lnp(cell, dense, sizes, seed)
        network, kept, report = made.network, made.kept, made.report
    share = sparsity(dense, network, "pool")["pool"]
    study = {"cell": cell.name, "seed": seed, "kept": kept.tolist(), "sparsity": share, "report": report}
    return network.replace(notes={"study": study})


def _baseline(
    cell: Cell, dense: Network, plan: PoolPlan, budget: tuple[int, int], seed: int
) -> tuple[Network, npt.NDArray[np.int64], dict[str, Any]]:
    synapses, neurons = budget
    edges, n = budget_of(dense)
    if cell.way != "drawn anew":
        how: Any = cell.way
        made = prune_pool(dense, "pool", how, synapses=synapses / edges, neurons=neurons / n, seed=seed)
        return made.network, made.kept, made.report
    share = round(plan.input_share * n) / neurons  # as many neurons get input
    probability = synapses / (neurons * (neurons - 1))
    fresh = replace(plan, size=neurons, input_share=share, probability=probability, seed=seed + 2**20)
    network = make_pool(fresh).network
    return network, np.arange(neurons), {"method": cell.way}


def _lnp(cell: Cell, dense: Network, sizes: Sizes, seed: int) -> PruneResult:
    left_out = cell.way.partition("without ")[2]
    score: Any = cell.way.partition(", ")[2] or "noise"
    return prune_lnp(
        dense,
        "pool",
        keep=sizes.keep,
        keep_neurons=sizes.keep_neurons,
        score=score,
        steps=[step for step in STEPS if step != left_out],
        seed=seed,
        timescales=TimescaleSearch(iterations=sizes.iterations),
    )


def with_inputs(network: Network, channels: int, scale: float, gain: float, seed: int, *, bias: float = 0.0) -> Network:
    """Give a cell's pool the inputs of a task; who gets them, and how strongly, does not depend on the pruning.

    Weights are uniform from ``-scale`` to ``scale`` (uniform numbers by the neuron's old number). With a bias the
    channels are pairs of opposite sign (see :func:`snnsim.studies.reservoir.encode`) and one more, whose weights are
    uniform from 0 to ``2 bias``.

    Args:
        network: Of :func:`cell_pool`.
        channels: Input channels; with a bias an odd number.
        scale: Largest weight.
        gain: Factor on the recurrent weights.
        seed: Of the weights.
        bias: Mean weight of the last channel.
    """
    kept = np.asarray(network.notes["study"]["kept"], np.int64)
    fed, inner = (next(item for item in network.projections if item.source == name) for name in ("in", "pool"))
    reached = np.zeros(kept.shape[0], np.bool_)
    reached[fed.synapses(network.dt).target] = True
    pairs = channels // 2 if bias > 0 else channels
    drawn = 2 * uniform(seed, Stream.POOL_WEIGHT, 10, 0, kept[:, None], np.arange(pairs)) - 1
    weight = np.zeros((kept.shape[0], channels))
    if bias > 0:
        weight[:, 0:-1:2], weight[:, 1:-1:2] = scale * drawn, -scale * drawn
        weight[:, -1] = 2 * bias * uniform(seed, Stream.POOL_WEIGHT, 11, 0, kept)
    else:
        weight[:] = scale * drawn
    weight[~reached] = 0.0
    dense = inner.weight if isinstance(inner.weight, np.ndarray) else None
    if dense is None:
        raise InputError(f"pool of {kept.shape[0]} neurons: expected dense weights; the study takes up to 2000 neurons")
    projections = (Projection("in", "pool", weight), replace(inner, weight=gain * dense))
    return network.replace(inputs=(Input("in", channels),), projections=projections)
