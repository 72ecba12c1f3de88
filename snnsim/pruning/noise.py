"""Step I of Lyapunov noise pruning: stochastic pruning of synapses by the covariance of noise at their ends.

``s_ij = |w_ij| (C_ii + C_jj - 2 sign(w_ij) C_ij)``, ``p_ij = min(1, K s_ij)``; a synapse stays with probability p and
is then ``w / p``, so that the mean over draws is the dense network. Source: Moore and Chaudhuri, "Using noise to probe
recurrent neural network structure and prune synapses", NeurIPS 2020; the formula is recalled, not read from the text.
The linearisation from rates, and the weighting by Lyapunov exponents, are reconstructed; see ``docs/pruning.md``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.kernels.lyapunov import noise_counts
from snnsim.kernels.philox import Stream, uniform
from snnsim.network_checks import check_integer
from snnsim.pruning.exponents import Exponents, Probe, pool_exponents, probe_input, run_pool
from snnsim.pruning.pool_arrays import PoolArrays, dense_or_sparse
from snnsim.pruning.spectrum import EdgeCovariance, spectral_abscissa

__all__ = [
    "Keep",
    "Linear",
    "Score",
    "draw_kept",
    "edge_factors",
    "firing_rate",
    "keep_probabilities",
    "leak_compensation",
    "linearise",
    "noise_scores",
]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Score = Literal["noise", "lyapunov_noise", "magnitude", "random"]

MARGIN = 0.1
"""A linearised pool that is not stable is scaled until its abscissa is this share of the mean leak below 0."""


def firing_rate(mean: Floats, sigma: Floats, tau: Floats, threshold: Floats, reset: Floats, t_ref: Floats) -> Floats:
    """Return the rate of a leaky integrate-and-fire neuron under white noise, spikes a second, ``(N,)``.

    ``1 / r = t_ref + tau sqrt(pi) int exp(u**2) (1 + erf u) du`` from ``(reset - mean) / sigma`` to ``(threshold -
    mean) / sigma``: Siegert, Physical Review 81, 617 (1951). The free potential has mean ``mean`` and variance
    ``sigma**2 / 2``.

    Args:
        mean: Dimensionless potential, ``(N,)``.
        sigma: > 0, ``(N,)``.
        tau: Membrane time constant, seconds.
        threshold: Above the reset.
        reset: Potential after a spike.
        t_ref: Refractory time, seconds.
    """
    from scipy.special import erfcx

    low, high = (reset - mean) / sigma, np.minimum((threshold - mean) / sigma, 20.0)
    nodes, weights = np.polynomial.legendre.leggauss(64)
    total = np.zeros_like(mean)
    low = np.minimum(low, high)
    middle = np.clip(0.0, low, high)
    for begin, end in ((low, middle), (middle, high)):
        half = (end - begin) / 2
        u = begin[:, None] + half[:, None] * (1 + nodes)
        total += half * (erfcx(-u) @ weights)
    return np.asarray(1.0 / (t_ref + tau * np.sqrt(np.pi) * total), dtype=np.float64)


@dataclass(frozen=True)
class Linear:
    """A pool linearised around its rates under noise: ``dx/dt = (-D + W_eff) x``, ``D = diag(1 / tau_mem)``.

    ``W_eff = gamma diag(into) W diag(slope)``.

    Attributes:
        leak: D, per second, ``(N,)``.
        slope: ``d rate / d potential`` of every neuron, spikes a second, ``(N,)``.
        into: 1, or with currents ``tau_syn / tau_mem`` of the target, ``(N,)``.
        gamma: Factor that makes the linearised pool stable; 1 if it is.
        abscissa: Spectral abscissa of A, per second.
        rates: Spikes a second in the noise, ``(N,)``.
    """

    leak: Floats
    slope: Floats
    into: Floats
    gamma: float
    abscissa: float
    rates: Floats

    def effective(self, pool: PoolArrays) -> Floats:
        """Return ``gamma into_i w_ij slope_j`` of every edge of a pool, per second, ``(E,)``."""
        scaled: Floats = self.gamma * self.into[pool.target] * pool.weight * self.slope[pool.source]
        return scaled

    def matrix(self, weight: Any) -> Any:
        """Return A for given weights: dense up to 2000 neurons, else sparse, ``(N, N)``."""
        from scipy.sparse import csc_matrix, diags

        scaled = diags(self.gamma * self.into) @ csc_matrix(weight, dtype=np.float64) @ diags(self.slope)
        return dense_or_sparse((scaled - diags(self.leak)).tocsc())

    def of(self, kept: Integers) -> Linear:
        """Return the same for some of the neurons."""
        parts = (self.leak[kept], self.slope[kept], self.into[kept])
        return Linear(*parts, self.gamma, self.abscissa, self.rates[kept])


def linearise(pool: PoolArrays, probe: Probe | None = None, *, seed: int = 0) -> Linear:
    """Linearise an untrained pool around its rates under Poisson noise (reconstructed, see ``docs/pruning.md``).

    The rates r are measured. Mean and variance of the potential of a neuron follow from ``sum_j w_ij r_j``, ``sum_j
    w_ij**2 r_j`` and the noise; the slope is that of :func:`firing_rate` between 0.95 and 1.05 times the mean. If the
    abscissa of ``-D + W_eff`` is above ``-0.1 mean(1 / tau_mem)`` (or half of the least leak, if that is less), all
    effective weights are scaled down by a gamma that makes it so, found by bisection.

    Args:
        pool: The pool.
        probe: Its noise.
        seed: Of the noise.
    """
    used = probe if probe is not None else Probe()
    rate, weight = probe_input(pool, used)
    counts = noise_counts(seed, 0, used.discard + used.n_steps, pool.size, rate * pool.dt)
    rates = run_pool(pool, counts * weight)[used.discard :].mean(axis=0) / pool.dt
    inflow = pool.matrix() @ rates + rate * weight
    power = pool.matrix(pool.weight**2) @ rates + rate * weight**2
    if pool.cuba:
        mean = pool.tau_syn * inflow + pool.drive
        sigma = np.sqrt(pool.tau_syn**2 / (pool.tau_mem + pool.tau_syn) * power)
        into = pool.tau_syn / pool.tau_mem
    else:
        mean, sigma, into = pool.tau_mem * inflow + pool.drive, np.sqrt(pool.tau_mem * power), np.ones(pool.size)
    threshold, amount = pool.numbers[6], pool.numbers[8]
    reset = pool.numbers[7] if pool.reset_zero else threshold - amount
    t_ref: Floats = np.asarray(pool.refractory * pool.dt, dtype=np.float64)
    law: tuple[Floats, ...] = (sigma, pool.tau_mem, threshold, reset, t_ref)
    shift = 0.05 * np.maximum(np.abs(mean), 0.05 * threshold)
    above, below = firing_rate(mean + shift, *law), firing_rate(mean - shift, *law)
    slope: Floats = (above - below) / (2 * shift)
    leak = 1 / pool.tau_mem
    made = Linear(leak, slope, into, 1.0, 0.0, rates)
    weights = pool.matrix()

    def scaled(gamma: float) -> Linear:
        changed = replace(made, gamma=gamma)
        return replace(changed, abscissa=spectral_abscissa(changed.matrix(weights)))

    found = scaled(1.0)
    # where the slowest neuron alone hardly lies below the limit, gamma would vanish: half of its own leak then
    limit = -min(MARGIN * float(leak.mean()), 0.5 * float(leak.min()))
    if found.abscissa <= limit:
        return found
    low, high = 0.0, 1.0
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (middle, high) if scaled(middle).abscissa <= limit else (low, middle)
    return scaled(low)


def noise_scores(
    weight: npt.ArrayLike,
    target: npt.ArrayLike,
    source: npt.ArrayLike,
    variance: npt.ArrayLike,
    covariance: npt.ArrayLike,
) -> Floats:
    """Return ``|w| (C_ii + C_jj - 2 sign(w) C_ij)`` of every edge, ``(E,)``, not negative.

    Args:
        weight: Effective weights, ``(E,)``; weight 0 has score 0.
        target: Row i of every edge.
        source: Column j of every edge.
        variance: ``C_ii``, ``(N,)``.
        covariance: ``C_ij`` of every edge, ``(E,)``.
    """
    w, own = np.asarray(weight, np.float64), np.asarray(variance, np.float64)
    spread = own[np.asarray(target)] + own[np.asarray(source)] - 2 * np.sign(w) * np.asarray(covariance, np.float64)
    return np.asarray(np.abs(w) * np.maximum(spread, 0.0), dtype=np.float64)


def edge_factors(pool: PoolArrays, node: Floats) -> Floats:
    """Return ``h_ij``: the harmonic mean of ``|l|`` over both ends and all their neighbours, ``(E,)`` (reconstructed).

    Args:
        pool: The pool.
        node: Node exponents, ``(N,)``; ``|l|`` is at least 1e-3.
    """
    size = np.maximum(np.abs(node), 1e-3)
    joined = np.eye(pool.size)  # a neuron and its neighbours
    joined[pool.target, pool.source] = joined[pool.source, pool.target] = 1.0
    inverse = 1 / size
    ends = (pool.target, pool.source)
    shared, shared_sum = (joined @ joined)[ends], ((joined * inverse) @ joined)[ends]
    count, total = joined.sum(axis=1), joined @ inverse
    members = count[pool.target] + count[pool.source] - shared
    return np.asarray(members / (total[pool.target] + total[pool.source] - shared_sum), dtype=np.float64)


@dataclass(frozen=True)
class Keep:
    """Probabilities with which edges stay.

    Attributes:
        probability: ``(E,)``.
        k: K of ``p = min(1, K s)``.
        certain: Edges with p = 1.
        floored: Edges that were lifted to ``p_min``.
    """

    probability: Floats
    k: float
    certain: int
    floored: int


def keep_probabilities(scores: npt.ArrayLike, budget: float, *, p_min: float = 0.02) -> Keep:
    """Find K by bisection so that ``sum max(p_min, min(1, K s)) = budget``.

    Args:
        scores: Not negative, ``(E,)``.
        budget: Mean number of edges that stay.
        p_min: Least probability: bounds the factor 1/p.

    Raises:
        InputError: There is no edge, a score is negative, all are zero, or no K meets the budget.

    >>> keep_probabilities([1.0, 1.0, 2.0], 2.0, p_min=0.0).probability.round(9).tolist()
    [0.5, 0.5, 1.0]
    """
    s = np.asarray(scores, dtype=np.float64)
    if s.ndim != 1 or not s.size:
        raise InputError(f"keep_probabilities: expected the scores of at least one edge, got shape {s.shape}")
    if not np.isfinite(s).all() or s.min() < 0 or not s.max() > 0:
        raise InputError("keep_probabilities: expected finite scores, none negative and not all of them 0")
    if not 0 <= p_min <= 1:
        raise InputError(f"keep_probabilities: p_min: expected 0 to 1, got {p_min!r}")
    if budget == s.size:
        return Keep(np.ones(s.size), 1.0 / max(float(s.min()), 1e-300), s.size, 0)
    positive = np.maximum(s, 1e-280 * float(s.max())) * (s > 0)  # so that 1 / s is finite
    most = float(np.sum(np.where(s > 0, 1.0, p_min)))
    if not p_min * s.size <= budget <= most:
        raise InputError(
            f"keep_probabilities: a budget of {budget:g} of {s.size} edges cannot be met: with p_min = {p_min:g} it "
            f"lies between {p_min * s.size:g} and {most:g}; change keep, or lower p_min"
        )
    low, high = 1e-6 / (float(s.max()) * s.size), 1.0 / float(positive[s > 0].min())
    while True:  # scores may differ by hundreds of orders of magnitude: halve the logarithm
        middle = float(np.sqrt(low) * np.sqrt(high))
        if not low < middle < high or high / low < 1 + 1e-14:
            break
        if float(np.maximum(p_min, np.minimum(1.0, middle * positive)).sum()) < budget:
            low = middle
        else:
            high = middle
    p = np.maximum(p_min, np.minimum(1.0, high * positive))
    return Keep(p, high, int(np.sum(p >= 1)), int(np.sum(high * positive < p_min)))


def draw_kept(
    keep: Keep, target: npt.ArrayLike, source: npt.ArrayLike, *, seed: int, attempt: int = 0
) -> npt.NDArray[np.bool_]:
    """Draw which edges stay, independently, ``(E,)``; a pair's number depends on the seed and the pair only.

    Args:
        keep: Probabilities.
        target: Of every edge.
        source: Of every edge.
        seed: Of the draw.
        attempt: Which draw.
    """
    check_integer(seed, "seed", 0, 2**32 - 1)
    share = uniform(seed, Stream.LNP_KEEP, attempt, 0, np.asarray(target), np.asarray(source))
    return np.asarray(share < keep.probability)


def leak_compensation(leak: Floats, target: Integers, before: Floats, after: Floats) -> tuple[Floats, int]:
    """Return ``D_ii + sum_j |w~_ij| - sum_j |w_ij|`` (recalled), and how many were held at a tenth of D.

    It keeps rows dominated by their diagonal as they were; a leak must stay positive, so it is bounded below.

    Args:
        leak: D, per second, ``(N,)``.
        target: Row of every edge.
        before: Effective weights, per second, ``(E,)``.
        after: The same after pruning, ``(E,)``.
    """
    change = np.bincount(target, np.abs(after) - np.abs(before), minlength=leak.shape[0])
    low = 0.1 * leak
    return np.maximum(leak + change, low), int(np.sum(leak + change < low))


def edge_scores(
    pool: PoolArrays,
    score: Score,
    linear: Linear | None,
    covariance: EdgeCovariance | None,
    exponents: Exponents | None = None,
) -> Floats:
    """Return the score of every edge, ``(E,)``.

    Args:
        pool: The pool.
        score: ``noise``, ``lyapunov_noise`` (noise weighted by ``h_ij / mean h``), ``magnitude`` (``|w|``), ``random``.
        linear: Needed for the two noise scores.
        covariance: Needed for the two noise scores.
        exponents: Needed for ``lyapunov_noise``.

    Raises:
        InputError: The score is unknown or what it needs is missing.
    """
    if score not in get_args(Score):
        raise InputError(f"score: expected one of {list(get_args(Score))}, got {score!r}")
    if score == "random":
        return np.ones(pool.n_edges)
    if score == "magnitude":
        return np.abs(pool.weight)
    if linear is None or covariance is None or (score == "lyapunov_noise" and exponents is None):
        raise InputError(f"score {score!r}: expected a linearisation and covariances (and exponents)")
    scores = noise_scores(linear.effective(pool), pool.target, pool.source, covariance.variance, covariance.covariance)
    if exponents is not None and score == "lyapunov_noise":
        factor = edge_factors(pool, exponents.node)
        scores = scores * factor / factor.mean()
    return scores


def lyapunov_exponents_of(pool: PoolArrays, probe: Probe, *, width: float, seed: int) -> Exponents:
    """Return the exponents that weight the scores: all of them, so the pool may have at most 2000 neurons.

    Raises:
        InputError: The pool is larger.
    """
    from snnsim.pruning.spectrum import DENSE_MAX

    if pool.size > DENSE_MAX:
        raise InputError(
            f"score 'lyapunov_noise': expected at most {DENSE_MAX} neurons, got {pool.size}; use score 'noise'"
        )
    return pool_exponents(pool, probe, width=width, seed=seed)
