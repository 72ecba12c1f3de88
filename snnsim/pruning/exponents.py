"""Lyapunov exponents: of linear maps, of chaotic flows, and of spiking pools through surrogate Jacobians.

Spikes are discontinuous. Here, as in training by surrogate gradients, the slope of a spike is a triangle of unit area,
so the exponents of a pool **depend on its half width**, which every result therefore names.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.kernels import lyapunov as kernels
from snnsim.network_checks import check_integer
from snnsim.pruning.pool_arrays import PoolArrays

__all__ = ["Exponents", "Probe", "flow_exponents", "linear_exponents", "pool_exponents", "probe_input", "run_pool"]

Floats = npt.NDArray[np.float64]

TINY = 1e-300


@dataclass(frozen=True)
class Probe:
    """Poisson noise that an untrained pool is driven with: every neuron gets its own events, its inputs are silent.

    Attributes:
        n_steps: Steps that are measured.
        discard: Steps before them.
        rate: Events a second a neuron; None: so many that the mean potential of a neuron without recurrence, of mean
            time constant, is 0.9 of the mean threshold.
        weight: Of one event; None: a fifth of the mean threshold (CubaLIF: what moves the membrane by that, in all).
    """

    n_steps: int = 1000
    discard: int = 200
    rate: float | None = None
    weight: float | None = None

    def __post_init__(self) -> None:
        check_integer(self.n_steps, "probe: n_steps", 1)
        check_integer(self.discard, "probe: discard", 0)
        for name in ("rate", "weight"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InputError(f"probe: {name}: expected a positive number or None, got {value!r}")


def probe_input(pool: PoolArrays, probe: Probe) -> tuple[float, float]:
    """Return rate (events a second) and weight of the probe's noise for a pool.

    Raises:
        InputError: More than 50 events a step on average.
    """
    threshold, tau = float(pool.numbers[6].mean()), float(pool.tau_mem.mean())
    gain = float(pool.tau_syn.mean()) / tau if pool.cuba else 1.0
    weight = probe.weight if probe.weight is not None else 0.2 * threshold / gain
    rate = probe.rate if probe.rate is not None else 0.9 * threshold / (abs(weight) * gain * tau)
    if rate * pool.dt > 50:
        raise InputError(f"probe: expected at most 50 events a step, got {rate * pool.dt:.3g}; use a greater weight")
    return rate, weight


def _noise(pool: PoolArrays, probe: Probe, seed: int) -> Floats:
    rate, weight = probe_input(pool, probe)
    n_steps = probe.discard + probe.n_steps
    counts = kernels.noise_counts(seed, 0, n_steps, pool.size, rate * pool.dt)
    return np.asarray(counts * weight, dtype=np.float64)


class _Run:
    """State of a pool that is advanced piece by piece."""

    def __init__(self, pool: PoolArrays, width: float) -> None:
        self.pool = pool
        self.width = np.ascontiguousarray(width * pool.numbers[6])
        self.v, self.current, self.pending = np.zeros(pool.size), np.zeros(pool.size), np.zeros(pool.size)
        self.left = np.zeros(pool.size, np.int64)

    def advance(self, external: Floats, q: Floats) -> npt.NDArray[np.uint8]:
        """Advance by the steps of ``external``; ``q`` changes in place."""
        pool = self.pool
        spikes = np.zeros(external.shape, np.uint8)
        laws = (pool.numbers, pool.refractory, pool.reset_zero, pool.cuba, pool.indptr, pool.target, pool.weight)
        state = (self.v, self.current, self.left, self.pending)
        kernels.advance_pool(*laws, external, self.width, *state, q, spikes)
        return spikes


def run_pool(pool: PoolArrays, external: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Run a pool from rest on given arrivals and return its spikes, uint8 ``(n_steps, N)``.

    Recurrent delays are taken as one step (delta synapses) or none (currents): the spikes are those of the engines
    where the network has these delays.

    Args:
        pool: The pool.
        external: What arrives at every neuron in every step, ``(n_steps, N)``.

    Raises:
        InputError: The shape is another one.
    """
    arrivals = np.ascontiguousarray(external, dtype=np.float64)
    if arrivals.ndim != 2 or arrivals.shape[1] != pool.size:
        raise InputError(f"run_pool: external: expected (n_steps, {pool.size}), got {arrivals.shape}")
    return _Run(pool, 1.0).advance(arrivals, np.zeros((pool.size, 0)))


@dataclass(frozen=True)
class Exponents:
    """Lyapunov exponents of a pool under noise.

    Attributes:
        spectrum: Per second, falling, ``(m,)``.
        node: One a neuron: exponents weighted by its share in their directions, per second, ``(N,)``.
        rates: Spikes a second, ``(N,)``.
        width: Half width of the triangle in thresholds.
        floored: Directions that a singular Jacobian sent to 0; their logarithm was bounded.
    """

    spectrum: Floats
    node: Floats
    rates: Floats
    width: float
    floored: int


def pool_exponents(
    pool: PoolArrays,
    probe: Probe | None = None,
    *,
    count: int | None = None,
    width: float = 1.0,
    every: int = 5,
    seed: int = 0,
    external: npt.ArrayLike | None = None,
) -> Exponents:
    """Return the leading Lyapunov exponents of a pool under noise, by QR of products of surrogate Jacobians.

    ``J = diag(beta) (I - theta G) + W G`` with ``G = diag(g(v - theta))`` (subtracting reset), ``Q R = J Q``,
    ``Lambda_k = sum ln |R_kk| / (n_steps dt)``; node exponents ``l_i = sum_k Lambda_k <Q_ik**2>``. With currents the
    state is membranes and currents, and a neuron has both shares.

    Args:
        pool: The pool.
        probe: Its noise; default :class:`Probe`.
        count: How many exponents; default all (N, or 2 N with currents).
        width: Half width of the triangle, in thresholds.
        every: Steps between two QR decompositions.
        seed: Of the noise.
        external: Arrivals instead of the probe's noise, ``(discard + n_steps, N)``.

    Raises:
        InputError: An argument is out of range.
    """
    used = probe if probe is not None else Probe()
    size = pool.size * (2 if pool.cuba else 1)
    m = size if count is None else check_integer(count, "pool_exponents: count", 1, size)
    every = check_integer(every, "pool_exponents: every", 1)
    if not (math.isfinite(width) and width > 0):
        raise InputError(f"pool_exponents: width: expected a positive number of thresholds, got {width!r}")
    arrivals = _noise(pool, used, seed) if external is None else np.ascontiguousarray(external, dtype=np.float64)
    if arrivals.shape != (used.discard + used.n_steps, pool.size):
        expected = (used.discard + used.n_steps, pool.size)
        raise InputError(f"pool_exponents: external: expected shape {expected}, got {arrivals.shape}")
    run = _Run(pool, width)
    q = np.ascontiguousarray(np.linalg.qr(_start(size, m))[0])
    total, share = np.zeros(m), np.zeros((pool.size, m))
    spikes = np.zeros(pool.size)
    floored = pieces = 0
    edges = [*range(0, used.discard, every), *range(used.discard, arrivals.shape[0], every), arrivals.shape[0]]
    for begin, end in pairwise(edges):
        fired = run.advance(arrivals[begin:end], q)
        orthogonal, r = np.linalg.qr(q)
        q = np.ascontiguousarray(orthogonal)
        if begin < used.discard:
            continue
        size_of = np.abs(np.diagonal(r))
        floored += int(np.sum(size_of < TINY))
        total += np.log(np.maximum(size_of, TINY))
        square = q**2
        share += square[: pool.size] + square[pool.size :] if pool.cuba else square
        spikes += fired.sum(axis=0)
        pieces += 1
    span = used.n_steps * pool.dt
    spectrum = total / span
    order = np.argsort(-spectrum, kind="stable")
    return Exponents(spectrum[order], share @ spectrum / pieces, spikes / span, float(width), floored)


def _start(size: int, m: int) -> Floats:
    """Return fixed directions to begin with: the unit vectors, a little of all others mixed in."""
    mixed: Floats = np.eye(size, m) + 0.01 * np.cos(np.arange(size)[:, None] * (1.0 + np.arange(m)))
    return mixed


def linear_exponents(matrix: npt.ArrayLike, *, n_steps: int = 2000) -> Floats:
    """Return the Lyapunov exponents of ``x <- M x`` per step, by QR: the logarithms of the eigenvalues' sizes.

    Args:
        matrix: M, ``(n, n)``, not singular.
        n_steps: Steps; the first tenth is not averaged.

    Raises:
        InputError: M is not square, or singular.
    """
    m = np.asarray(matrix, dtype=np.float64)
    if m.ndim != 2 or m.shape[0] != m.shape[1] or not np.isfinite(m).all():
        raise InputError(f"linear_exponents: expected a finite square matrix, got shape {m.shape}")
    n_steps = check_integer(n_steps, "linear_exponents: n_steps", 10)
    q, total = np.eye(m.shape[0]), np.zeros(m.shape[0])
    first = n_steps // 10
    for step in range(n_steps):
        q, r = np.linalg.qr(m @ q)
        size = np.abs(np.diagonal(r))
        if not np.all(size > 0):
            raise InputError("linear_exponents: the matrix is singular: an exponent is minus infinity")
        if step >= first:
            total += np.log(size)
    return np.sort(total / (n_steps - first))[::-1]


FLOWS: dict[str, tuple[int, tuple[float, float, float], tuple[float, float, float]]] = {
    "lorenz63": (kernels.LORENZ, (10.0, 28.0, 8.0 / 3.0), (1.0, 1.0, 20.0)),
    "roessler": (kernels.ROESSLER, (0.2, 0.2, 5.7), (1.0, 1.0, 0.0)),
}


def flow_exponents(
    name: Literal["lorenz63", "roessler"],
    *,
    parameters: tuple[float, float, float] | None = None,
    dt: float = 0.01,
    n_steps: int = 100_000,
    discard: int = 5_000,
) -> Floats:
    """Return the three Lyapunov exponents of a chaotic flow, per unit of its own time, falling.

    Fourth-order Runge-Kutta of the flow and its tangents. Lorenz-63 (sigma 10, rho 28, beta 8/3) has about 0.906, 0
    and a sum of -13.667; Roessler (a = b = 0.2, c = 5.7) has about 0.071 and 0.

    Args:
        name: The flow.
        parameters: Three numbers instead of the usual ones.
        dt: Step.
        n_steps: Steps that are averaged.
        discard: Steps before them.

    Raises:
        InputError: The name is unknown, or the step is so long that the flow diverges.
    """
    if name not in FLOWS:
        raise InputError(f"flow_exponents: expected one of {sorted(FLOWS)}, got {name!r}")
    kind, usual, start = FLOWS[name]
    used = np.asarray(usual if parameters is None else parameters, dtype=np.float64)
    if used.shape != (3,):
        raise InputError(f"flow_exponents: parameters: expected three numbers, got shape {used.shape}")
    n_steps = check_integer(n_steps, "flow_exponents: n_steps", 1)
    discard = check_integer(discard, "flow_exponents: discard", 0)
    found: Any = kernels.flow_exponents(kind, used, np.array(start), float(dt), n_steps, discard)
    if not np.isfinite(found).all():
        raise InputError(f"flow_exponents: {name} diverges with dt = {dt}; use a shorter step")
    return np.sort(found)[::-1]
