"""What the arrays of :class:`~snnsim.events.Events` must be: types, ranges, and the canonical order of events."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError

__all__ = ["check_order", "checked_vector", "sort_events", "whole_number"]

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]

CHUNK = 1 << 22  # events looked at together in checks: bounds the memory of temporary arrays


def sort_events(times: Float64, units: Int32) -> tuple[Float64, Int32]:
    """Return the events of one sample in canonical order: ascending time, equal times ascending unit."""
    if times.size > 1:
        step = np.diff(times)
        if np.any(step < 0) or np.any((step == 0) & (units[1:] < units[:-1])):
            order = np.lexsort((units, times))
            return times[order], units[order]
    return times, units


def whole_number(name: str, value: Any) -> int:
    """Return ``value`` as an int, or refuse it under the name of its field."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InputError(f"Events.{name}: expected a whole number, got {value!r}")
    return int(value)


def checked_vector(name: str, value: Any, dtype: Any, size: int | None = None) -> npt.NDArray[Any]:
    """Check that ``value`` is a one-dimensional array of numbers and convert it without loss."""
    array = value if isinstance(value, np.ndarray) else np.asarray(value)
    if array.size == 0 and array.ndim == 1:
        array = array.astype(dtype)
    if array.ndim != 1 or array.dtype.kind not in ("iuf" if dtype == np.float64 else "iu"):
        kind = "numbers" if dtype == np.float64 else "integers"
        raise InputError(
            f"Events.{name}: expected a one-dimensional array of {kind}, got {array.dtype}, shape {array.shape}"
        )
    if size is not None and array.size != size:
        raise InputError(f"Events.{name}: expected one entry a sample ({size}), got {array.size}")
    if array.dtype == np.float32:  # float32 seconds are rounded to 1 microsecond, see grid.time_to_step
        array = np.round(array.astype(np.float64), 6)
    if array.dtype != dtype:
        if dtype == np.int32 and array.size and (array.min() < 0 or array.max() > np.iinfo(np.int32).max):
            raise InputError(f"Events.{name}: expected units in [0, n_units), got {array.min()}..{array.max()}")
        array = array.astype(dtype)
    return array


def check_order(times: Float64, units: Int32, offsets: Int64, n_units: int) -> None:
    """Check finite, non-negative, ascending times and units in range, in blocks of bounded memory."""
    for start in range(0, times.size, CHUNK):
        stop = min(start + CHUNK + 1, times.size)  # one event more: the step over the block border counts
        t, u = times[start:stop], units[start:stop]
        good = np.isfinite(t) & (t >= 0) & (u >= 0) & (u < n_units)
        if not good.all():
            bad = int(np.flatnonzero(~good)[0])
            raise InputError(
                f"Events: {_sample_of(offsets, start + bad)} has time {t[bad]} s and "
                f"unit {u[bad]}; expected finite times >= 0 and units in [0, {n_units})"
            )
        step = np.diff(t)
        wrong = (step < 0) | ((step == 0) & (u[1:] < u[:-1]))
        if wrong.any():
            first = np.flatnonzero(wrong) + start + 1  # index of the event that comes too early
            inside = first[~np.isin(first, offsets)]
            if inside.size:
                raise InputError(
                    f"Events: in {_sample_of(offsets, int(inside[0]))} the times descend, or equal times are not "
                    f"in order of unit; sort them first (Events.from_lists(..., sort=True))"
                )


def _sample_of(offsets: Int64, event: int) -> str:
    sample = int(np.searchsorted(offsets, event, side="right")) - 1
    return f"sample {sample} (event {event - int(offsets[sample])} of it)"
