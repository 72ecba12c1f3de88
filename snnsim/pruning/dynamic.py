"""Sparse from the first step to the last: synapses are dropped and grown while a network learns, their number fixed.

RigL (Evci et al. 2020) drops the smallest weights now and then and grows where the gradient is largest. DEEP R (Bellec
et al. 2018) drops a synapse when its weight would change its sign and grows as many others at random.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.kernels.philox import Stream, normal
from snnsim.pruning.masks import Mask, random_scores

__all__ = ["deep_r_update", "rigl_fraction", "rigl_update"]

Floats = npt.NDArray[np.floating[Any]]

NOISE_STEP = 1 << 30
"""Added to the step of DEEP R's noise, so that it never shares numbers with the choice of what grows."""


def rigl_fraction(step: int, end: int, fraction: float) -> float:
    """Return the share of synapses replaced at a step: ``fraction / 2 (1 + cos(pi step / end))``, 0 from ``end`` on.

    >>> rigl_fraction(0, 100, 0.3), rigl_fraction(50, 100, 0.3), rigl_fraction(100, 100, 0.3)
    (0.3, 0.15, 0.0)
    """
    return round(fraction / 2 * (1 + math.cos(math.pi * step / end)), 12) if step < end else 0.0


def rigl_update(weight: Floats, gradient: Floats, mask: Mask, fraction: float) -> Mask:
    """Return the mask after dropping the smallest weights and growing where the gradient is largest.

    As many are grown as are dropped, ``floor(fraction * existing)``; one that was just dropped may grow again.

    Args:
        weight: Weights, 0 where there is no synapse.
        gradient: Gradient of the loss by all of them, missing ones too.
        mask: Which exist.
        fraction: Share of the existing ones to replace.
    """
    flat, exists = np.abs(weight).reshape(-1), mask.reshape(-1)
    number = min(int(fraction * np.count_nonzero(exists)), int(np.count_nonzero(~exists)))
    after = exists.copy()
    after[np.argsort(np.where(exists, flat, np.inf), kind="stable")[:number]] = False
    slope = np.where(after, -np.inf, np.abs(gradient).reshape(-1))
    after[np.argsort(-slope, kind="stable")[:number]] = True
    return np.ascontiguousarray(after.reshape(mask.shape))


def deep_r_update(
    weight: Floats,
    sign: Floats,
    mask: Mask,
    *,
    lr: float,
    l1: float,
    temperature: float,
    seed: int,
    layer: int,
    step: int,
) -> tuple[Floats, Mask]:
    """Return weights and mask after DEEP R's part of a step, which follows the optimiser's.

    Every pair of neurons has a fixed sign s; an existing synapse has ``w = s theta``. Here ``theta`` moves by
    ``-lr l1 + sqrt(2 lr temperature) noise``; those that are then negative end, and as many missing ones, chosen at
    random, begin at 0 (Bellec et al. 2018, algorithm 1; they use plain gradient descent before it).

    Args:
        weight: Weights after the optimiser's step, 0 where there is no synapse.
        sign: 1 or -1 for every pair.
        mask: Which exist.
        lr: Learning rate.
        l1: Strength of the pull to 0.
        temperature: Strength of the noise.
        seed: Seed of the run.
        layer: Place of the layer.
        step: Step of the run.
    """
    theta = weight * sign
    theta = theta - lr * l1
    if temperature > 0:
        places = np.arange(weight.size, dtype=np.int64)
        noise = normal(seed, int(Stream.PRUNING), layer, NOISE_STEP + step, places // 2**31, places % 2**31)
        theta = theta + math.sqrt(2 * lr * temperature) * np.asarray(noise).reshape(weight.shape).astype(weight.dtype)
    stays = mask & (theta >= 0)
    ended = int(np.count_nonzero(mask & ~stays))
    begun = np.zeros(mask.shape, bool)
    if ended:
        score = np.where(stays, np.inf, random_scores(weight.shape, seed, layer, step)).reshape(-1)
        grown = np.argsort(score, kind="stable")[:ended]
        begun.reshape(-1)[grown] = True
    after = np.where(stays, theta * sign, 0).astype(weight.dtype)
    return after, stays | begun
