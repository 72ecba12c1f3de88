"""Random input for a proof: at a rate at which every layer is active, and as many samples as a proof needs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.export.outcome import MIN_NEURON_STEPS, MIN_SPIKES

__all__ = ["MAX_SAMPLES", "choose_rate", "draw_counts", "samples_needed", "with_reserve"]

RATES = (0.005, 0.01, 0.02, 0.04, 0.07, 0.12, 0.2, 0.3, 0.45)
"""Events a channel and step that are tried."""

ACTIVE_ENOUGH = 0.03
"""Share of neuron-steps with a spike, and distance to half of them, that a layer needs for a rate to be taken."""

MAX_SAMPLES = 5_000
RESERVE = 1.15

Array = npt.NDArray[Any]


def choose_rate(look: Callable[[float], tuple[list[float], float]]) -> tuple[float, float]:
    """Return the lowest rate at which every layer is active enough, else the best one.

    Args:
        look: Gives the activity of every layer at a rate, as a share of its neuron-steps, and the spikes a sample or a
            step of the layer that has fewest.

    Returns:
        The rate, and the spikes that ``look`` counted at it.
    """
    best, rate, least = -1.0, RATES[0], 0.0
    for candidate in RATES:
        active, fewest = look(candidate)
        score = min(min(value, 0.5 - value) for value in active)
        if score > best:
            best, rate, least = score, candidate, fewest
        if score >= ACTIVE_ENOUGH:
            break
    return rate, least


def draw_counts(
    rate: float, seed: int, samples: int, n_steps: int, tail: int, size: int, dtype: type[np.generic]
) -> Array:
    """Draw counts, shape (time, batch, unit), with ``tail`` empty steps at the end.

    Every channel has an event in a step with a probability of its own (half to one and a half times the rate), now and
    then two.
    """
    rng = np.random.default_rng([seed, int(rate * 1e6)])
    probability = rate * rng.uniform(0.5, 1.5, (samples, size))
    numbers = rng.random((n_steps, samples, size), dtype=np.float32)
    counts = np.zeros((n_steps + tail, samples, size), dtype)
    counts[:n_steps] += numbers < probability
    counts[:n_steps] += numbers < probability / 16
    return counts


def with_reserve(least: float) -> int:
    """Return how many samples or steps give enough spikes, if each gives so many in the laziest layer."""
    return math.ceil(RESERVE * MIN_SPIKES / least) if least > 0 else 0


def samples_needed(wish: int, neurons: int, n_steps: int, least: float) -> int:
    """Return the samples of a proof that counts, at least ``wish`` and at most :data:`MAX_SAMPLES`."""
    needed = max(wish, -(-MIN_NEURON_STEPS // (neurons * n_steps)), with_reserve(least))
    return min(needed, MAX_SAMPLES)
