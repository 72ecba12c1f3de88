"""Sources of spike trains with known statistics: Poisson, Bernoulli, two-state Markov, gamma renewal.

Every number is Philox4x32-10 keyed by (sample, step or draw, unit), so a sample does not depend on how many are made.
:func:`make_sources` makes labelled sets: classes of equal rate that differ in structure, or that differ in rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.datasets.dataset import Dataset
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.files import canonical_json, sha256_bytes
from snnsim.grid import check_dt
from snnsim.kernels.philox import Stream, uniform

__all__ = ["SETS", "Bernoulli", "GammaRenewal", "Markov", "Poisson", "Source", "draw", "make_sources"]

Float64 = npt.NDArray[np.float64]
Binary = npt.NDArray[np.bool_]


def _entropy(p: float) -> float:
    """Return ``-p log2 p - (1-p) log2 (1-p)``, bits."""
    return 0.0 if p in (0.0, 1.0) else -p * math.log2(p) - (1 - p) * math.log2(1 - p)


def _probability(owner: str, name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise InputError(f"{owner}.{name}: expected a probability in [0, 1], got {value}")


@dataclass(frozen=True)
class Bernoulli:
    """A spike in each step with probability p, independent of all others; entropy rate H2(p) bits a step."""

    p: float

    def __post_init__(self) -> None:
        _probability("Bernoulli", "p", self.p)

    def density(self, dt: float) -> float:
        """Return the mean number of spikes a step."""
        return self.p

    @property
    def entropy_rate(self) -> float:
        """Bits a step."""
        return _entropy(self.p)

    def steps(self, seed: int, sample: int, n_steps: int, n_units: int, dt: float) -> Binary:
        """Return spikes, shape (n_steps, n_units)."""
        return _uniform_steps(seed, sample, n_steps, n_units) < self.p


@dataclass(frozen=True)
class Markov:
    """A chain of two states: silent to spike with probability alpha, spike to silent with beta; begins stationary.

    Density ``alpha / (alpha + beta)``, entropy rate ``(beta H2(alpha) + alpha H2(beta)) / (alpha + beta)`` bits a step.
    """

    alpha: float
    beta: float

    def __post_init__(self) -> None:
        _probability("Markov", "alpha", self.alpha)
        _probability("Markov", "beta", self.beta)
        if self.alpha + self.beta == 0:
            raise InputError("Markov: expected alpha + beta above 0; a chain that never changes has no mean")

    def density(self, dt: float) -> float:
        """Return the mean number of spikes a step."""
        return self.alpha / (self.alpha + self.beta)

    @property
    def entropy_rate(self) -> float:
        """Bits a step."""
        mixed = self.beta * _entropy(self.alpha) + self.alpha * _entropy(self.beta)
        return mixed / (self.alpha + self.beta)

    def steps(self, seed: int, sample: int, n_steps: int, n_units: int, dt: float) -> Binary:
        """Return spikes, shape (n_steps, n_units)."""
        u = _uniform_steps(seed, sample, n_steps, n_units)
        low, high = min(self.alpha, 1 - self.beta), max(self.alpha, 1 - self.beta)
        # below low a spike and from high on none, whatever came before; between, the state stays, or changes each step
        told = (u < low) | (u >= high)
        told[0] = True
        spikes = u < low
        spikes[0] = u[0] < self.density(dt)
        step = np.arange(n_steps)[:, None]
        last = np.maximum.accumulate(np.where(told, step, 0), axis=0)
        out = np.take_along_axis(spikes, last, axis=0)
        if self.alpha > 1 - self.beta:
            out ^= ((step - last) & 1).astype(np.bool_)
        return out


@dataclass(frozen=True)
class Poisson:
    """A Poisson process seen on a grid: a spike in a step with probability ``1 - exp(-rate dt)``.

    Attributes:
        rate: Hz; or a function of times in seconds, an array, that returns Hz: the step from t has
            ``1 - exp(-rate(t + dt / 2) dt)``.
        dead_time: Seconds after a spike without another, rounded to steps; the rate is that outside of them. With a
            constant rate the train begins stationary, with a function outside a dead time.

    With a constant rate, ``p = 1 - exp(-rate dt)`` and d dead steps, the density is ``p / (1 + d p)`` a step.
    """

    rate: float | Callable[[Float64], npt.ArrayLike]
    dead_time: float = 0.0

    def __post_init__(self) -> None:
        if not callable(self.rate) and not (math.isfinite(self.rate) and self.rate >= 0):
            raise InputError(f"Poisson.rate: expected a finite number of Hz, at least 0, got {self.rate}")
        if not (math.isfinite(self.dead_time) and self.dead_time >= 0):
            raise InputError(f"Poisson.dead_time: expected finite seconds, at least 0, got {self.dead_time}")

    def chances(self, n_steps: int, dt: float) -> Float64:
        """Return the probability of a spike outside dead time in each step, shape (n_steps,)."""
        times: Float64 = np.asarray((np.arange(n_steps) + 0.5) * dt, dtype=np.float64)
        rates = np.asarray(self.rate(times) if callable(self.rate) else self.rate, dtype=np.float64)
        rates = np.broadcast_to(rates, (n_steps,))
        if n_steps and not (np.isfinite(rates).all() and rates.min() >= 0):
            raise InputError("Poisson.rate: expected the function to return finite Hz, at least 0")
        return np.asarray(-np.expm1(-rates * dt))

    def density(self, dt: float) -> float:
        """Return the mean number of spikes a step of a constant rate."""
        if callable(self.rate):
            raise InputError("Poisson.density: expected a constant rate; a function has a density for each step")
        p = -math.expm1(-self.rate * dt)
        return p / (1 + round(self.dead_time / dt) * p)

    def steps(self, seed: int, sample: int, n_steps: int, n_units: int, dt: float) -> Binary:
        """Return spikes, shape (n_steps, n_units)."""
        out = _uniform_steps(seed, sample, n_steps, n_units) < self.chances(n_steps, dt)[:, None]
        dead = round(self.dead_time / dt)
        if dead == 0:
            return out
        left = np.zeros(n_units, dtype=np.int64)
        if not callable(self.rate) and self.rate > 0:  # each of the dead steps is as likely as a spike
            begin = uniform(seed, Stream.SOURCE, sample, 0, np.arange(n_units), 1) / self.density(dt)
            left = np.where(begin < dead, np.floor(begin).astype(np.int64) + 1, 0)
        for k in range(n_steps):
            out[k] &= left == 0
            left = np.where(out[k], dead, np.maximum(left - 1, 0))
        return out


@dataclass(frozen=True)
class GammaRenewal:
    """Independent intervals with a gamma law: mean ``1 / rate`` seconds, coefficient of variation ``shape ** -0.5``.

    Begins in equilibrium (the first interval is drawn by its length, and begins at a uniform place of it); times lie in
    continuous time, not on a grid.
    """

    rate: float
    shape: float = 4.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise InputError(f"GammaRenewal.rate: expected a finite number of Hz above 0, got {self.rate}")
        if not (math.isfinite(self.shape) and self.shape >= 0.05):
            raise InputError(f"GammaRenewal.shape: expected at least 0.05, got {self.shape}")

    def density(self, dt: float) -> float:
        """Return the mean number of spikes a step."""
        return self.rate * dt

    def trains(self, seed: int, sample: int, duration: float, n_units: int) -> list[Float64]:
        """Return the times of each unit, seconds, ascending in [0, duration)."""
        from scipy.special import gammaincinv

        scale = 1 / (self.rate * self.shape)
        found = []
        for unit in range(n_units):
            u = uniform(seed, Stream.SOURCE, sample, 0, unit, np.arange(2, 4))
            end = float(u[1] * gammaincinv(self.shape + 1, u[0]) * scale)
            parts, draws = [np.array([end])], 0
            while end < duration:
                block = np.arange(draws, draws + 16 + int(duration * self.rate))
                intervals = gammaincinv(self.shape, uniform(seed, Stream.SOURCE, sample, block, unit, 4)) * scale
                parts.append(end + np.cumsum(intervals))
                end, draws = float(parts[-1][-1]), int(block[-1]) + 1
            times = np.concatenate(parts)
            found.append(times[times < duration])
        return found


Source = Bernoulli | Markov | Poisson | GammaRenewal


def _uniform_steps(seed: int, sample: int, n_steps: int, n_units: int) -> Float64:
    return uniform(seed, Stream.SOURCE, sample, np.arange(n_steps)[:, None], np.arange(n_units)[None, :], 0)


def draw(
    sources: Source | Sequence[Source],
    n_samples: int,
    *,
    n_steps: int = 1000,
    n_units: int = 1,
    dt: float = 0.001,
    seed: int = 0,
    first_sample: int = 0,
    class_names: Sequence[str] = (),
) -> Events:
    """Draw samples of sources; sample i is of class ``i % len(sources)``.

    Args:
        sources: One source or one a class; all units of a sample are independent trains of it.
        n_samples: Samples.
        n_steps: Steps of every sample; the duration is ``n_steps dt``.
        n_units: Units.
        dt: Step in seconds; spikes of all sources but :class:`GammaRenewal` lie on it.
        seed: Seed.
        first_sample: Number of the first sample: samples with other numbers are independent of these.
        class_names: Name of each class.

    Returns:
        Events with labels and sample ids from ``first_sample`` on.

    Raises:
        InputError: A number out of range.

    >>> draw(Bernoulli(0.5), 3, n_steps=10).labels.tolist()
    [0, 0, 0]
    """
    kinds = list(sources) if isinstance(sources, Sequence) else [sources]
    check_dt(dt)
    for name, value, low in (
        ("sources", len(kinds), 1),
        ("n_samples", n_samples, 0),
        ("n_steps", n_steps, 1),
        ("n_units", n_units, 1),
        ("first_sample", first_sample, 0),
    ):
        if value < low:
            raise InputError(f"{name}: expected at least {low}, got {value}")
    times: list[Float64] = []
    units: list[npt.NDArray[np.int32]] = []
    labels = np.arange(n_samples, dtype=np.int64) % len(kinds)
    for i in range(n_samples):
        source = kinds[int(labels[i])]
        if isinstance(source, GammaRenewal):
            trains = source.trains(seed, first_sample + i, n_steps * dt * (1 - 1e-9), n_units)
            times.append(np.concatenate(trains))
            units.append(np.repeat(np.arange(n_units, dtype=np.int32), [train.size for train in trains]))
        else:
            steps, unit = np.nonzero(source.steps(seed, first_sample + i, n_steps, n_units, dt))
            times.append(np.asarray(steps * dt, dtype=np.float64))
            units.append(unit.astype(np.int32))
    ids = first_sample + np.arange(n_samples, dtype=np.int64)
    return Events.from_lists(
        times, units, n_units, labels, n_steps * dt, class_names=class_names, sample_ids=ids, sort=True
    )


def _by_density(density: float, dt: float) -> dict[str, Source]:
    """Return sources that all have this density: a Poisson process, a chain with bursts, regular intervals."""
    memory = 0.2  # alpha + beta
    return {
        "poisson": Poisson(-math.log1p(-density) / dt),
        "markov": Markov(memory * density, memory * (1 - density)),
        "gamma": GammaRenewal(density / dt, 4.0),
    }


SETS: dict[str, tuple[str, Callable[[float], dict[str, Source]]]] = {
    "markov-bernoulli": (
        "Markov(.05, .05) and Bernoulli(.5): equal rates, entropy rates .286 and 1",
        lambda dt: {"markov": Markov(0.05, 0.05), "bernoulli": Bernoulli(0.5)},
    ),
    "markov-markov": (
        "Markov(.02, .18) and Markov(.08, .72): a tenth of all steps, other memory",
        lambda dt: {"bursting": Markov(0.02, 0.18), "scattered": Markov(0.08, 0.72)},
    ),
    "structure": (
        "Poisson, Markov and gamma intervals: a spike in 20 steps each",
        lambda dt: _by_density(0.05, dt),
    ),
    "rates": ("Poisson of 20 and of 30 Hz", lambda dt: {"20 Hz": Poisson(20.0), "30 Hz": Poisson(30.0)}),
}
"""What each labelled set holds, and its sources by class for a step dt."""


def make_sources(
    kind: str = "markov-bernoulli",
    *,
    n_train: int = 400,
    n_test: int = 400,
    n_steps: int = 1000,
    n_units: int = 1,
    dt: float = 0.001,
    seed: int = 0,
) -> Dataset:
    """Make a labelled set of :data:`SETS`, classes in turn; training and test samples have disjoint numbers.

    Raises:
        InputError: An unknown set or a number out of range.
    """
    if kind not in SETS:
        raise InputError(f"set of sources {kind!r} is not known; known sets: {', '.join(SETS)}")
    if not 1 <= n_train <= 1 << 24 or n_test < 1:
        raise InputError(
            f"expected 1 to {1 << 24} training samples and at least 1 test sample, got {n_train}, {n_test}"
        )
    by_class = SETS[kind][1](check_dt(dt))
    parameters: dict[str, Any] = {
        "kind": kind,
        "n_train": n_train,
        "n_test": n_test,
        "n_steps": n_steps,
        "n_units": n_units,
        "dt": dt,
        "seed": seed,
        "version": 1,
    }

    def part(first: int, count: int) -> Events:
        return draw(
            list(by_class.values()),
            count,
            n_steps=n_steps,
            n_units=n_units,
            dt=dt,
            seed=seed,
            first_sample=first,
            class_names=tuple(by_class),
        )

    return Dataset(
        name=kind,
        train=part(0, n_train),
        test=part(1 << 24, n_test),
        valid=None,
        digest=sha256_bytes(canonical_json(parameters).encode()),
        source="snnsim.datasets.sources.make_sources",
        notes={"parameters": parameters, "sources": {name: repr(source) for name, source in by_class.items()}},
    )
