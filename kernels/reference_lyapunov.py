"""The plain definitions of a pool's tangent map and of betweenness: dense matrices and a textbook loop."""

from __future__ import annotations

import heapq
import math
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["advance_pool", "betweenness", "triangle"]

Floats = npt.NDArray[np.float64]


def triangle(x: Floats, width: Floats) -> Floats:
    """Return ``max(0, 1 - |x| / width) / width``, the slope that stands for that of a spike."""
    return np.asarray(np.maximum(0.0, 1.0 - np.abs(x) / width) / width)


def advance_pool(
    numbers: Floats,
    refractory: npt.NDArray[np.int64],
    zero: bool,
    cuba: bool,
    weight: Floats,
    external: Floats,
    width: Floats,
    q: Floats,
) -> tuple[npt.NDArray[np.uint8], Floats]:
    """Run a pool from rest and return its spikes ``(n_steps, N)`` and the tangents that ``q`` becomes.

    The Jacobian of every step is built as a matrix: see :func:`snnsim.kernels.lyapunov.advance_pool`, whose
    arguments these are, ``weight`` dense ``(N, N)``.
    """
    beta, drive, alpha, kappa, drive_i, drive_iv, theta, v_reset, amount = numbers
    n = beta.shape[0]
    v, current, pending = np.zeros(n), np.zeros(n), np.zeros(n)
    left = np.zeros(n, np.int64)
    spikes = np.zeros(external.shape, np.uint8)
    q = q.copy()
    for step, outside in enumerate(external):
        if cuba:
            moving = beta * v + kappa * current + drive + drive_iv
            current = alpha * current + drive_i
        else:
            moving = (beta * v + drive) + (pending + outside)
        held = left > 0
        left = left - held
        fired = (moving >= theta) & ~held
        g = np.where(held, 0.0, triangle(moving - theta, width))
        if zero:
            slope = (1.0 - fired) - (moving - v_reset) * g
            after = np.where(fired, v_reset, moving)
        else:
            slope = 1.0 - amount * g
            after = moving - amount * fired
        slope = np.where(held, 1.0, slope)
        v = np.where(held, v, after)
        left = np.where(fired, refractory, left)
        spikes[step] = fired
        pending = weight @ fired.astype(np.float64)
        if cuba:
            current = current + pending + outside
        skipped = left > 0
        own = np.diag(np.where(skipped, slope, beta * slope))
        across = weight * g
        if cuba:
            gain = np.where(skipped, 0.0, kappa)[:, None]
            jacobian = np.block([[own + gain * across, gain * np.diag(alpha)], [across, np.diag(alpha)]])
        else:
            jacobian = own + np.where(skipped, 0.0, 1.0)[:, None] * across
        q = jacobian @ q
    return spikes, q


def betweenness(length: Floats) -> Floats:
    """Return the normalised betweenness centrality of a directed graph, ``(N,)``.

    ``C_B(u) = sum over s != u != t of sigma_st(u) / sigma_st / ((N - 1) (N - 2))``, by Brandes' accumulation.

    Args:
        length: ``length[target, source]``, infinite where there is no edge.
    """
    n = length.shape[0]
    centrality = np.zeros(n)
    for source in range(n):
        distance: list[float] = [math.inf] * n
        paths = [0.0] * n
        distance[source], paths[source] = 0.0, 1.0
        heap: list[Any] = [(0.0, source)]
        order: list[int] = []
        settled = [False] * n
        while heap:
            _, j = heapq.heappop(heap)
            if settled[j]:
                continue
            settled[j] = True
            order.append(j)
            for i in range(n):
                reach = distance[j] + length[i, j]
                if i == j or not math.isfinite(reach):
                    continue
                if reach < distance[i]:
                    distance[i], paths[i] = reach, paths[j]
                    heapq.heappush(heap, (reach, i))
                elif reach == distance[i]:
                    paths[i] += paths[j]
        share = [0.0] * n
        for j in reversed(order):
            for i in range(n):
                if i != j and math.isfinite(length[i, j]) and distance[j] + length[i, j] == distance[i]:
                    share[j] += paths[j] / paths[i] * (1.0 + share[i])
            if j != source:
                centrality[j] += share[j]
    return centrality / ((n - 1) * (n - 2)) if n > 2 else centrality
