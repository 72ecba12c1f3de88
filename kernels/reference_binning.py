"""Plain NumPy definition of the kernels in ``binning``."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["bin_samples"]


def bin_samples(
    times: npt.NDArray[np.float64],
    units: npt.NDArray[np.int32],
    starts: npt.NDArray[np.int64],
    stops: npt.NDArray[np.int64],
    n_steps: npt.NDArray[np.int64],
    dt: float,
    pooled: npt.NDArray[np.int32],
    out: npt.NDArray[Any],
) -> int:
    """Fill ``out`` with the counts of a batch of samples; arguments and result as in ``binning.bin_samples``."""
    out[:] = 0
    lost = 0
    for b in range(starts.size):
        part = slice(int(starts[b]), int(stops[b]))
        ratio = times[part] / dt
        nearest = np.rint(ratio)
        step = np.where(np.abs(ratio - nearest) < 1e-6, nearest, np.floor(ratio)).astype(np.int64)
        unit = units[part]
        inside = (step >= 0) & (step < n_steps[b]) & (unit >= 0) & (unit < pooled.size)
        np.add.at(out, (step[inside], b, pooled[unit[inside]]), 1)
        lost += int(np.count_nonzero(~inside))
    return lost
