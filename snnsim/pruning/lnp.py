"""Lyapunov noise pruning of a recurrent pool: synapses, neurons, new synapses, time constants; once, without labels.

Order and purpose of the four steps are those of Chakraborty, Kang, Kumar and Mukhopadhyay, "Sparse spiking neural
network: exploiting heterogeneity in timescales for pruning recurrent SNN", ICLR 2024. Their text was not at hand: what
is certain, recalled and reconstructed stands in ``docs/pruning.md``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.network import Network
from snnsim.network_checks import check_integer
from snnsim.pruning.betweenness import betweenness, choose_removed
from snnsim.pruning.delocalise import delocalise
from snnsim.pruning.exponents import Probe, probe_input
from snnsim.pruning.noise import (
    Linear,
    Score,
    draw_kept,
    edge_scores,
    keep_probabilities,
    leak_compensation,
    linearise,
    lyapunov_exponents_of,
)
from snnsim.pruning.pool_arrays import (
    PoolArrays,
    add_synapses,
    edge_matrix,
    keep_neurons,
    pool_arrays,
    scale_synapses,
    with_taus,
)
from snnsim.pruning.result import PruneResult, check_paths, sparsity
from snnsim.pruning.spectrum import edge_covariance, leading_modes, spectral_abscissa
from snnsim.pruning.timescales import TimescaleSearch, optimise_timescales

__all__ = ["STEPS", "Step", "prune_lnp"]

Floats = npt.NDArray[np.float64]
Step = Literal["synapses", "neurons", "delocalise", "timescales"]

STEPS: tuple[Step, ...] = ("synapses", "neurons", "delocalise", "timescales")


@dataclass
class _Work:
    """A pruning under way: the network, its pool, and which of the first neurons are left."""

    network: Network
    pool: PoolArrays
    linear: Linear
    kept: npt.NDArray[np.int64]
    report: dict[str, Any]

    def abscissa(self) -> float:
        return spectral_abscissa(self.linear.matrix(self.pool.matrix()))

    def update(self, network: Network) -> None:
        self.network = network
        self.pool = pool_arrays(network, self.pool.name)

    def stabilise(self, step: str) -> None:
        """Scale the pool's weights down if the step has made the linearised pool unstable, and say so."""
        found = self.abscissa()
        factor = 1.0
        if not found < 0:
            low, high = 0.0, 1.0
            weight = self.pool.matrix()
            while high - low > 1e-3:
                middle = (low + high) / 2
                inside = spectral_abscissa(self.linear.matrix(middle * weight)) < 0
                low, high = (middle, high) if inside else (low, middle)
            factor = 0.99 * low
            self.update(scale_synapses(self.network, self.pool.name, factor * _ones(self.pool)))
            found = self.abscissa()
        self.report[step] |= {"abscissa": found, "stabilised": factor}


def _ones(pool: PoolArrays) -> Any:
    return (abs(pool.matrix()) > 0).astype(np.float64)


def prune_lnp(
    network: Network,
    population: str,
    *,
    keep: float = 0.5,
    keep_neurons: float = 0.7,
    score: Score = "noise",
    steps: Sequence[Step] = STEPS,
    seed: int = 0,
    probe: Probe | None = None,
    sigma: float = 1.0,
    p_min: float = 0.02,
    compensate_leak: bool = False,
    protect_inputs: bool = True,
    protected: Sequence[int] = (),
    participation: float = 1.5,
    added_share: float = 0.02,
    surrogate_width: float = 1.0,
    timescales: TimescaleSearch | None = None,
) -> PruneResult:
    """Prune a recurrent pool of LIF or CubaLIF neurons once, without data or labels.

    Args:
        network: The network; it is not changed.
        population: Name of the pool.
        keep: Share of the recurrent synapses that step I keeps on average.
        keep_neurons: Share of the neurons that step II keeps.
        score: What the probability of a synapse to stay follows: ``noise``, ``lyapunov_noise``, ``magnitude``,
            ``random``.
        steps: Which of :data:`STEPS` are done, always in their order.
        seed: Of everything drawn, below 2**32.
        probe: Poisson noise that the untrained pool is measured in.
        sigma: Strength of the white noise of the linearised pool; it scales all scores alike.
        p_min: Least probability of a synapse to stay.
        compensate_leak: Change the leaks so that rows stay as dominated by them as they were.
        protect_inputs: Neurons with synapses from an input or from another population stay.
        protected: Numbers of further neurons that stay, such as those a trained readout needs.
        participation: c: synapses are added while the mean participation exceeds ``c 3 / N``.
        added_share: Most synapses to add, as a share of those removed.
        surrogate_width: Half width of the triangle in the Jacobians, in thresholds.
        timescales: The search of step IV.

    Returns:
        The pruned network, the synapses and neurons that are left, and a report of every step.

    Raises:
        InputError: An argument is out of range, a budget cannot be met, or the pool would lose its way from the
            inputs or to its readers.
    """
    _check(keep, keep_neurons, steps, p_min, added_share)
    seed = check_integer(seed, "prune_lnp: seed", 0, 2**32 - 1)
    used = probe if probe is not None else Probe()
    first = pool_arrays(network, population)
    rate, weight = probe_input(first, used)
    used = replace(used, rate=rate, weight=weight)
    linear = linearise(first, used, seed=seed)
    report: dict[str, Any] = {
        "method": "lnp",
        "population": population,
        "seed": seed,
        "score": score,
        "steps": [name for name in STEPS if name in steps],
        "probe": asdict(used),
        "linearisation": {
            "rate": float(linear.rates.mean()),
            "slope": float(linear.slope.mean()),
            "gamma": linear.gamma,
            "abscissa": linear.abscissa,
        },
        "spectrum_before": _modes(linear, first),
    }
    work = _Work(network, first, linear, np.arange(first.size), report)
    if "synapses" in steps:
        _prune_synapses(work, keep, score, seed, used, sigma, p_min, compensate_leak, surrogate_width)
    if "neurons" in steps:
        _prune_neurons(work, keep_neurons, protect_inputs, protected)
    if "delocalise" in steps:
        _delocalise(work, first.n_edges, participation, added_share, seed)
    if "timescales" in steps:
        _timescales(work, first, timescales, used, surrogate_width, seed)
    report["spectrum_after"] = _modes(work.linear, work.pool)
    check_paths(network, work.network, population)
    report["sparsity"] = sparsity(network, work.network, population)
    mask = edge_matrix(first.size, work.kept[work.pool.target], work.kept[work.pool.source], np.ones(work.pool.n_edges))
    notes = {**work.network.notes, "pruned": {key: report[key] for key in ("method", "population", "seed", "sparsity")}}
    return PruneResult(work.network.replace(notes=notes), (mask > 0).tocsc(), work.kept, report)


def _check(keep: float, keep_neurons: float, steps: Sequence[str], p_min: float, added_share: float) -> None:
    for name, value in (("keep", keep), ("keep_neurons", keep_neurons)):
        if not (math.isfinite(value) and 0 < value <= 1):
            raise InputError(f"prune_lnp: {name}: expected a share above 0 and at most 1, got {value!r}")
    for name, value in (("p_min", p_min), ("added_share", added_share)):
        if not (math.isfinite(value) and 0 <= value <= 1):
            raise InputError(f"prune_lnp: {name}: expected a share from 0 to 1, got {value!r}")
    unknown = [name for name in steps if name not in get_args(Step)]
    if isinstance(steps, str) or unknown or not steps:
        raise InputError(f"prune_lnp: steps: expected some of {list(STEPS)}, got {steps!r}")


def _modes(linear: Linear, pool: PoolArrays) -> dict[str, Any]:
    """Return the leading eigenvalues of the linearised pool: real and imaginary parts, per second."""
    values, _ = leading_modes(linear.matrix(pool.matrix()), min(10, max(1, pool.size - 2)))
    return {"real": values.real.tolist(), "imaginary": values.imag.tolist()}


def _prune_synapses(
    work: _Work,
    keep: float,
    score: Score,
    seed: int,
    probe: Probe,
    sigma: float,
    p_min: float,
    compensate: bool,
    width: float,
) -> None:
    """Step I."""
    pool, linear = work.pool, work.linear
    made: dict[str, Any] = {"edges": pool.n_edges}
    covariance = exponents = None
    if score in ("noise", "lyapunov_noise"):
        matrix = linear.matrix(pool.matrix())
        covariance = edge_covariance(matrix, pool.target, pool.source, sigma=sigma, seed=seed)
        made["covariance"] = {
            "method": covariance.method,
            "shrinkage": covariance.shrinkage,
            "error": covariance.error,
        }
    if score == "lyapunov_noise":
        exponents = lyapunov_exponents_of(pool, probe, width=width, seed=seed)
        made["exponents"] = {
            "leading": float(exponents.spectrum[0]),
            "surrogate_width": exponents.width,
            "floored": exponents.floored,
        }
    scores = edge_scores(pool, score, linear, covariance, exponents)
    budget = round(keep * pool.n_edges)
    probability = keep_probabilities(scores, budget, p_min=p_min)
    stays = draw_kept(probability, pool.target, pool.source, seed=seed)
    if not stays.any():
        raise InputError(f"prune_lnp: keep = {keep:g} leaves no synapse of {pool.n_edges}; raise it")
    factor = np.where(stays, 1.0 / probability.probability, 0.0)
    made |= {
        "budget": budget,
        "kept": int(stays.sum()),
        "k": probability.k,
        "certain": probability.certain,
        "floored": probability.floored,
        "largest_factor": float(factor.max()),
    }
    network = scale_synapses(work.network, pool.name, pool.matrix(factor))
    if compensate:
        before = linear.effective(pool)
        leak, bounded = leak_compensation(linear.leak, pool.target, before, before * factor)
        network = with_taus(network, pool.name, 1.0 / leak)
        work.linear = replace(linear, leak=leak)
        made["leak"] = {"mean": float(leak.mean()), "bounded": bounded}
    work.report["synapses"] = made
    work.update(network)
    work.stabilise("synapses")


def _prune_neurons(work: _Work, share: float, protect_inputs: bool, protected: Sequence[int]) -> None:
    """Step II."""
    pool, network = work.pool, work.network
    safe = np.zeros(pool.size, np.bool_)
    for unit in protected:
        safe[check_integer(unit, "prune_lnp: protected", 0, pool.size - 1)] = True
    if protect_inputs:
        for item in network.projections:
            if item.target == pool.name and item.source != pool.name:
                safe[item.synapses(network.dt).target] = True
    if network.readout is not None and network.readout.population == pool.name:
        safe[:] = True
    weight = pool.matrix()
    centrality = betweenness(weight)
    count = pool.size - max(1, round(share * pool.size))
    removal = choose_removed(weight, centrality, count, protected=safe)
    work.report["neurons"] = {
        "neurons": pool.size,
        "removed": removal.removed.tolist(),
        "kept": int(removal.kept.shape[0]),
        "protected": removal.protected,
        "components": removal.components,
        "spared": removal.spared,
        "betweenness": {"mean": float(centrality.mean()), "largest": float(centrality.max())},
    }
    work.linear = work.linear.of(removal.kept)
    work.kept = work.kept[removal.kept]
    work.update(keep_neurons(network, pool.name, removal.kept))
    work.stabilise("neurons")


def _delocalise(work: _Work, edges: int, factor: float, share: float, seed: int) -> None:
    """Step III."""
    budget = int(share * (edges - work.pool.n_edges))
    weight = work.pool.matrix()
    added = delocalise(weight, work.linear.matrix, budget, factor=factor, seed=seed, labels=work.kept)
    work.report["delocalise"] = {
        "budget": budget,
        "added": int(added.source.shape[0]),
        "rejected": added.rejected,
        "participation_before": added.participation_before,
        "participation_after": added.participation_after,
        "limit": added.limit,
        "modes": added.modes,
    }
    work.update(add_synapses(work.network, work.pool.name, added.source, added.target, added.weight))
    work.stabilise("delocalise")


def _timescales(
    work: _Work, dense: PoolArrays, options: TimescaleSearch | None, probe: Probe, width: float, seed: int
) -> None:
    """Step IV."""
    name = work.pool.name
    with_taus(work.network, name, work.pool.tau_mem)  # refused before the search, not after it
    found = optimise_timescales(work.pool, dense, options, probe=probe, width=width, seed=seed)
    work.report["timescales"] = found.report
    if found.report["changed"]:
        network = with_taus(work.network, name, found.tau_mem, found.tau_syn)
        if found.gain != 1.0:
            network = scale_synapses(network, name, found.gain * _ones(work.pool))
        into = found.tau_syn / found.tau_mem if found.tau_syn is not None else work.linear.into
        if work.pool.cuba and found.tau_syn is None:
            into = work.pool.tau_syn / found.tau_mem
        work.linear = replace(work.linear, leak=1.0 / found.tau_mem, into=into)
        work.update(network)
    work.stabilise("timescales")
