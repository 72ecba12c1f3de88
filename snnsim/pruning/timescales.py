"""Step IV of Lyapunov noise pruning: other time constants for a pruned pool, without any label.

The paper re-optimises the neurons' time constants by Bayesian optimisation; the objective here is reconstructed, see
``docs/pruning.md``. Time constants are quantiles of a gamma distribution at fixed uniform numbers, so that the
objective moves smoothly with the distribution's parameters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.grid import decay, kappa
from snnsim.network_checks import check_integer
from snnsim.pruning.bayes import Search, minimise
from snnsim.pruning.exponents import Exponents, Probe, pool_exponents, probe_input
from snnsim.pruning.laws import Gamma, draw
from snnsim.pruning.pool_arrays import PoolArrays

__all__ = ["Found", "TimescaleSearch", "objective", "optimise_timescales"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TimescaleSearch:
    """How time constants are searched.

    ``J = |L_1 - target| + spread * sum_q |Q_q(pruned) - Q_q(dense)| + rate_weight * max(0, rate - rate_max)`` with
    exponents in units of the dense pool's inverse mean time constant and Q the quantiles of their leading part.

    Attributes:
        initial: Random points.
        iterations: Points by expected improvement.
        synapses: Search the distribution of ``tau_syn`` too (CubaLIF).
        gain: Search a factor on all recurrent weights too, 0.5 to 2.
        target: Wanted leading exponent, in units of the inverse mean time constant: slightly negative.
        spread: Weight of the quantiles.
        quantiles: How many.
        rate_max: Mean rate, spikes a second, above which J rises; None: twice that of the dense pool.
        rate_weight: mu, per spike a second.
        leading: Share of the exponents that are computed.
        tau_max: Greatest time constant, seconds; the least is ``2 dt``.
    """

    initial: int = 8
    iterations: int = 30
    synapses: bool = False
    gain: bool = False
    target: float = -0.05
    spread: float = 0.5
    quantiles: int = 5
    rate_max: float | None = None
    rate_weight: float = 0.1
    leading: float = 0.25
    tau_max: float = 0.2

    def __post_init__(self) -> None:
        check_integer(self.initial, "timescales: initial", 1)
        check_integer(self.iterations, "timescales: iterations", 0)
        check_integer(self.quantiles, "timescales: quantiles", 1)
        if not 0 < self.leading <= 1:
            raise InputError(f"timescales: leading: expected a share above 0 and at most 1, got {self.leading!r}")
        if not all(math.isfinite(value) for value in (self.target, self.spread, self.rate_weight, self.tau_max)):
            raise InputError("timescales: expected finite numbers")
        if self.rate_max is not None and not self.rate_max > 0:
            raise InputError(f"timescales: rate_max: expected spikes a second or None, got {self.rate_max!r}")


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        tau_mem: Seconds, ``(N,)``.
        tau_syn: Seconds, ``(N,)``, or None.
        gain: Factor on the recurrent weights.
        report: Parameters, objective before and after, what was clipped; JSON values.
        search: All points and values: ``ln k, ln theta`` (of ``tau_mem``, then ``tau_syn``), ``ln gain``.
    """

    tau_mem: Floats
    tau_syn: Floats | None
    gain: float
    report: dict[str, Any]
    search: Search


def with_time_constants(pool: PoolArrays, tau_mem: Floats, tau_syn: Floats | None, gain: float) -> PoolArrays:
    """Return a pool with other time constants and scaled weights; drives per second stay.

    Args:
        pool: The pool.
        tau_mem: Seconds, ``(N,)``.
        tau_syn: Seconds, ``(N,)``; None: as they are.
        gain: Factor on all weights.
    """
    numbers = pool.numbers.copy()
    synaptic = pool.tau_syn if tau_syn is None else tau_syn
    beta = decay(tau_mem, pool.dt)
    if pool.cuba:
        alpha = decay(synaptic, pool.dt)
        ratio = kappa(tau_mem, synaptic, pool.dt)
        old = pool.numbers
        drive_syn = old[4] / (pool.tau_syn * (1 - old[2]))
        numbers[2], numbers[3] = alpha, ratio
        numbers[4] = drive_syn * synaptic * (1 - alpha)
        numbers[5] = drive_syn * synaptic * (1 - beta - ratio)
    drive = pool.numbers[1] / (pool.tau_mem * (1 - pool.numbers[0]))
    numbers[0], numbers[1] = beta, drive * tau_mem * (1 - beta)
    return replace(pool, numbers=numbers, tau_mem=tau_mem, tau_syn=synaptic, weight=gain * pool.weight)


def objective(found: Exponents, dense: Exponents, unit: float, options: TimescaleSearch) -> float:
    """Return J of exponents beside those of the dense pool; see :class:`TimescaleSearch`.

    Args:
        found: Of the pruned pool.
        dense: Of the dense pool, with the same share of exponents.
        unit: Mean time constant of the dense pool, seconds.
        options: Weights and targets.
    """
    shares = (np.arange(options.quantiles) + 0.5) / options.quantiles
    gap = np.abs(np.quantile(found.spectrum * unit, shares) - np.quantile(dense.spectrum * unit, shares)).sum()
    most = options.rate_max if options.rate_max is not None else 2 * float(dense.rates.mean())
    excess = max(0.0, float(found.rates.mean()) - most)
    leading = abs(float(found.spectrum[0]) * unit - options.target)
    return leading + options.spread * float(gap) + options.rate_weight * excess


def optimise_timescales(
    pool: PoolArrays,
    dense: PoolArrays,
    options: TimescaleSearch | None = None,
    *,
    probe: Probe | None = None,
    width: float = 1.0,
    seed: int = 0,
) -> Found:
    """Search the distributions of time constants for a pruned pool, or find that those it has are the best.

    The noise is that of the dense pool, the same events for every point. The pool as it is counts as a point.

    Args:
        pool: The pruned pool.
        dense: The pool before pruning.
        options: The search.
        probe: Noise.
        width: Half width of the surrogate triangle, in thresholds.
        seed: Of noise, quantiles and search.

    Raises:
        InputError: A search of synapses for neurons without currents.
    """
    used = options if options is not None else TimescaleSearch()
    noise = probe if probe is not None else Probe()
    if used.synapses and not pool.cuba:
        raise InputError("timescales: synapses: expected CubaLIF neurons, LIF has no synaptic time constant")
    rate, weight = probe_input(dense, noise)
    noise = replace(noise, rate=rate, weight=weight)
    unit = float(dense.tau_mem.mean())

    def measure(item: PoolArrays) -> Exponents:
        states = item.size * (2 if item.cuba else 1)
        count = max(1, math.ceil(used.leading * states))
        return pool_exponents(item, noise, count=count, width=width, every=10, seed=seed)

    wanted = measure(dense)
    before = objective(measure(pool), wanted, unit, used)

    def build(point: Floats) -> tuple[Floats, Floats | None, float, dict[str, float]]:
        bounds = {"low": 2 * pool.dt, "high": used.tau_max}
        law = Gamma(math.exp(point[0]), math.exp(point[1]))
        tau_mem, clipped = draw(law, pool.size, seed=seed, parameter=10, **bounds)
        notes = {"k": law.shape, "theta": law.scale, "clipped": clipped}
        tau_syn = None
        if used.synapses:
            law = Gamma(math.exp(point[2]), math.exp(point[3]))
            tau_syn, clipped = draw(law, pool.size, seed=seed, parameter=11, **bounds)
            notes |= {"k_syn": law.shape, "theta_syn": law.scale, "clipped_syn": clipped}
        gain = math.exp(point[-1]) if used.gain else 1.0
        return tau_mem, tau_syn, gain, notes | {"gain": gain}

    def value(point: Floats) -> float:
        tau_mem, tau_syn, gain, _ = build(point)
        return objective(measure(with_time_constants(pool, tau_mem, tau_syn, gain)), wanted, unit, used)

    low, high, start = [], [], []
    for taus in (dense.tau_mem, dense.tau_syn) if used.synapses else (dense.tau_mem,):
        mean, variance = float(taus.mean()), float(taus.var())
        shape = float(np.clip(mean**2 / variance, 1.0, 20.0)) if variance > 0 else 20.0
        low += [0.0, math.log(mean / 40)]
        high += [math.log(20.0), math.log(3 * mean)]
        start += [math.log(shape), math.log(mean / shape)]
    if used.gain:
        low, high, start = [*low, -math.log(2.0)], [*high, math.log(2.0)], [*start, 0.0]
    sizes = {"initial": used.initial, "iterations": used.iterations}
    search = minimise(value, low, high, **sizes, seed=seed, start=start)
    report: dict[str, Any] = {
        "objective_before": before,
        "objective_after": min(before, search.value),
        "evaluations": len(search.values) + 2,
        "rate": rate,
        "surrogate_width": width,
        "changed": bool(search.value < before),
    }
    if not search.value < before:
        return Found(pool.tau_mem, None, 1.0, report, search)
    tau_mem, tau_syn, gain, notes = build(search.best)
    return Found(tau_mem, tau_syn, gain, report | notes, search)
