"""Binning kernels: events of many samples into one dense array of counts. Twin: ``reference_binning``."""

from __future__ import annotations

import numpy as np
from numba import njit

__all__ = ["bin_samples"]


@njit(cache=True, nogil=True)
def bin_samples(times, units, starts, stops, n_steps, dt, pooled, out):  # type: ignore[no-untyped-def]
    """Fill ``out`` with the counts of a batch of samples.

    ``out[k, b, pooled[unit]]`` counts the events of sample ``b`` with ``k = time_to_step(time, dt)``: the nearest
    grid point if within 1e-6 steps of it, else the step before (as in ``snnsim.grid``, same bits).

    Args:
        times: Seconds, float64, shape (n_events,), all samples.
        units: int32, shape (n_events,).
        starts: First event of each sample, int64, shape (batch,).
        stops: One past the last event of each sample, int64, shape (batch,).
        n_steps: Steps of each sample, int64, shape (batch,), at most ``out.shape[0]``.
        dt: Width of a bin, seconds.
        pooled: Column of each unit, int32, shape (n_units,), in [0, out.shape[2]).
        out: float32, shape (time, batch, column), C-contiguous; overwritten.

    Returns:
        Number of events outside their sample's steps (or of a unit outside ``pooled``), which are not counted.
    """
    out[:] = 0.0
    lost = 0
    n_units = pooled.shape[0]
    width = out.shape[2]
    flat = out.reshape(-1)
    for b in range(starts.shape[0]):
        steps = n_steps[b]
        low, high = 1.0, 0.0  # times strictly between these belong to the step of the last event
        base = 0
        for e in range(starts[b], stops[b]):
            time = times[e]
            unit = units[e]
            if not low < time < high:
                ratio = time / dt
                nearest = np.rint(ratio)
                k = np.int64(nearest) if abs(ratio - nearest) < 1e-6 else np.int64(np.floor(ratio))
                if not 0 <= k < steps:
                    lost += 1
                    continue
                # A hundred-thousandth of a step inside its borders, a step cannot be mistaken (below 1e9 steps).
                low, high = ((k + 1e-5) * dt, (k + 1 - 1e-5) * dt) if k < 1000000000 else (1.0, 0.0)
                base = (k * out.shape[1] + b) * width
            if 0 <= unit < n_units:
                flat[base + pooled[unit]] += np.float32(1.0)
            else:
                lost += 1
    return lost
