"""Delayed sums of spikes with one delay a tap, event by event (Numba).

Used where delays are whole steps: evaluation of delay layers. Only the bins that hold spikes are visited,
in the canonical order (emission step, source, tap), so the result has the same bits for any number of
threads and any split of the batch. Twin: :func:`snnsim.kernels.reference_delays.delayed_sum`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from snnsim.kernels.lanes import run_ranges

__all__ = ["delayed_sum", "pack_taps"]


def pack_taps(
    weight: npt.NDArray[np.floating], delay_steps: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.int32]]:
    """Return weights and delays ordered by source, as :func:`delayed_sum` wants them: shape (n_in, taps, n_out)."""
    return (
        np.ascontiguousarray(weight.transpose(1, 2, 0)),
        np.ascontiguousarray(delay_steps.transpose(1, 2, 0).astype(np.int32)),
    )


@njit(cache=True, nogil=True)
def _scatter(spikes, weight, delay_steps, total, start, stop):  # type: ignore[no-untyped-def]
    n_steps, _, n_in = spikes.shape
    taps = weight.shape[1]
    n_out = weight.shape[2]
    longest = 0
    for source in range(n_in):
        for tap in range(taps):
            for target in range(n_out):
                longest = max(longest, delay_steps[source, tap, target])
    for sample in range(start, stop):
        arrivals = np.zeros((n_steps + longest, n_out), dtype=total.dtype)
        for step in range(n_steps):
            for source in range(n_in):
                count = spikes[step, sample, source]
                if count != 0:
                    for tap in range(taps):
                        for target in range(n_out):
                            arrivals[step + delay_steps[source, tap, target], target] += (
                                count * weight[source, tap, target]
                            )
        for step in range(n_steps):
            for target in range(n_out):
                total[step, sample, target] = arrivals[step, target]


def delayed_sum(
    spikes: npt.NDArray[np.floating],
    weight: npt.NDArray[np.floating],
    delay_steps: npt.NDArray[np.int32],
    threads: int = 1,
) -> npt.NDArray[np.floating]:
    """Sum delayed, weighted spikes; see the twin in ``reference_delays`` for the equation and the order.

    Args:
        spikes: Counts, float32 or float64, shape (time, batch, n_in).
        weight: Same dtype, shape (n_in, taps, n_out), from :func:`pack_taps`.
        delay_steps: int32, same shape as ``weight``, non-negative.
        threads: Threads; the result does not depend on them.

    Returns:
        Shape (time, batch, n_out).
    """
    total = np.empty((spikes.shape[0], spikes.shape[1], weight.shape[2]), dtype=weight.dtype)
    run_ranges(_scatter, (spikes, weight, delay_steps, total), spikes.shape[1], threads, 1)
    return total
