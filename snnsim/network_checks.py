"""Checks of the fields of a network: names, whole numbers, arrays. Each refuses with one sentence."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError

__all__ = ["MAX_UNITS", "check_finite", "check_integer", "check_name", "frozen_array"]

MAX_UNITS = 2**31 - 1


def check_name(value: object, what: str) -> str:
    """Return a name, or refuse what could not stand in ``source->target`` or in a file."""
    if not isinstance(value, str):
        raise InputError(f"{what} name: expected text, got {type(value).__name__}")
    if not value or len(value) > 200 or not value.isprintable() or "->" in value or "/" in value:
        raise InputError(
            f"{what} name {value[:40]!r}: expected 1 to 200 printable characters without '->' and '/', "
            "because projections and files are named with them"
        )
    return value


def check_integer(value: object, what: str, low: int, high: int = 2**63 - 1) -> int:
    """Return a whole number from ``low`` to ``high``."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise InputError(f"{what}: expected an integer, got {value!r}")
    if not low <= int(value) <= high:
        raise InputError(f"{what}: expected {low} to {high}, got {int(value)}")
    return int(value)


def frozen_array(value: Any, dtype: Any, what: str) -> npt.NDArray[Any]:
    """Return a read-only copy, C order; an array that nobody can write to is taken as it is."""
    if isinstance(value, np.ndarray):
        array = value
    else:
        try:
            array = np.asarray(value)
        except (TypeError, ValueError) as error:
            raise InputError(f"{what}: expected an array of numbers, got {type(value).__name__}") from error
    kinds = "iuf" if np.dtype(dtype).kind == "f" else "iu"
    if array.dtype.kind not in kinds:
        raise InputError(f"{what}: expected {np.dtype(dtype)} numbers, got {array.dtype}")
    frozen = array.dtype == dtype and array.flags.c_contiguous and not array.flags.writeable
    if frozen and (array.base is None or (isinstance(array.base, np.ndarray) and not array.base.flags.writeable)):
        return array
    if kinds == "iu" and array.size:
        limits = np.iinfo(dtype)
        if int(array.min()) < limits.min or int(array.max()) > limits.max:
            raise InputError(f"{what}: values do not fit {np.dtype(dtype)}")
    copy = np.array(array, dtype=dtype, order="C")
    copy.setflags(write=False)
    return copy


def check_finite(array: npt.NDArray[Any], what: str) -> None:
    """Refuse NaN and infinity, and say where they are; looks at a piece at a time."""
    flat = array.reshape(-1)  # a view: arrays of a network are contiguous
    for start in range(0, flat.shape[0], 2**17):
        finite = np.isfinite(flat[start : start + 2**17])
        if not finite.all():
            place = [int(part) for part in np.unravel_index(start + int(np.argmin(finite)), array.shape)]
            raise InputError(f"{what}: expected finite numbers, got {array[tuple(place)]} at {place}")
