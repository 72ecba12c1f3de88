"""Synapses with delays in plain NumPy: the definition that every delay kernel is compared with.

A delay layer has ``n_delays`` slots, delays 0 .. n_delays - 1 steps. A tap has a weight and a position
``p`` as in the DCLS papers (Khalfaoui-Hassani et al. 2023; Hammouamri et al. 2024): its delay is
``n_delays // 2 - p`` steps. In training each tap is spread over the slots by an interpolation kernel, so
that the position has a gradient; in evaluation the delay is rounded (ties to even in ``p``) and the kernel
is a delta.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["VERSIONS", "WIDTH_OFFSET", "delay_profile", "delayed_sum", "round_delays"]

VERSIONS = ("v0", "v1", "max", "gauss")
"""Interpolation kernels of the DCLS papers: linear, unit triangle, triangle of width sigma, Gaussian."""

WIDTH_OFFSET = {"v0": 0.0, "v1": 0.0, "max": 1.0, "gauss": 0.27}
"""What the published code adds to its stored width SIG: the true width is ``|SIG| + offset``."""

NORMALISATION_GUARD = 1e-7
"""Added to the sum before dividing by it, as in the published code."""

Array = npt.NDArray[np.float64]


def delay_profile(position: npt.ArrayLike, sigma: float, version: str, n_delays: int) -> Array:
    """Return the share of each delay slot in a tap of unit weight.

    With ``u = p + n_delays // 2 - k`` (distance of tap and slot): v0 and v1 ``max(0, 1 - |u|)``, max
    ``max(0, sigma_eff - |u|)``, gauss ``exp(-u^2 / (2 sigma_eff^2))``; all but v0 are divided by
    (sum + 1e-7). ``sigma_eff = |sigma| + WIDTH_OFFSET[version]``.

    Args:
        position: Positions ``p``, any shape.
        sigma: Stored width SIG, steps (ignored by v0 and v1).
        version: One of :data:`VERSIONS`.
        n_delays: Number of delay slots (the papers' dilated kernel size).

    Returns:
        Shares by delay, float64, shape ``(n_delays,) + position.shape``; slot d is the delay of d steps.
    """
    p = np.asarray(position, dtype=np.float64)
    delay = n_delays // 2 - p
    u = np.abs(np.arange(n_delays).reshape((-1,) + (1,) * p.ndim) - delay)
    width = abs(sigma) + WIDTH_OFFSET[version]
    if version == "gauss":
        profile = np.exp(-0.5 * (u / width) ** 2)
    elif version == "max":
        profile = np.maximum(0.0, width - u)
    else:
        profile = np.maximum(0.0, 1.0 - u)
    if version != "v0":
        profile = profile / (profile.sum(axis=0) + NORMALISATION_GUARD)
    return profile


def round_delays(position: npt.ArrayLike, n_delays: int) -> npt.NDArray[np.int64]:
    """Return the delays in steps that evaluation uses: ``n_delays // 2 - rint(p)``, ties to even, within range."""
    delay = n_delays // 2 - np.rint(np.asarray(position, dtype=np.float64))
    steps: npt.NDArray[np.int64] = np.clip(delay, 0, n_delays - 1).astype(np.int64)
    return steps


def delayed_sum(
    spikes: npt.NDArray[np.floating], weight: npt.NDArray[np.floating], delay_steps: npt.NDArray[np.int64]
) -> npt.NDArray[np.floating]:
    """Sum delayed, weighted spikes: ``y[t, b, j] = sum_i,c weight[j, i, c] x[t - delay_steps[j, i, c], b, i]``.

    Added in the canonical order: emission step, then source, then tap, from 0.0.

    Args:
        spikes: Counts, shape (time, batch, n_in).
        weight: Shape (n_out, n_in, taps).
        delay_steps: Steps, shape (n_out, n_in, taps).

    Returns:
        Shape (time, batch, n_out), dtype of ``weight``; arrivals after the last step are lost.
    """
    n_steps, batch, n_in = spikes.shape
    n_out, _, taps = weight.shape
    total = np.zeros((n_steps, batch, n_out), dtype=weight.dtype)
    targets = np.arange(n_out)
    for step in range(n_steps):
        for sample in range(batch):
            for source in range(n_in):
                count = spikes[step, sample, source]
                if count == 0:
                    continue
                for tap in range(taps):
                    arrival = step + delay_steps[:, source, tap]
                    inside = arrival < n_steps
                    total[arrival[inside], sample, targets[inside]] += (
                        weight.dtype.type(count) * weight[inside, source, tap]
                    )
    return total
