"""Samples of a tonic data set as Events. tonic is an optional library (GPL-3.0) and imported only here, when used."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from snnsim.errors import InputError, MissingLibraryError, SnnsimFileError
from snnsim.events import Events

__all__ = ["from_tonic", "open_tonic"]


def from_tonic(samples: Any, *, indices: Sequence[int] | None = None, class_names: Sequence[str] = ()) -> Events:
    """Convert a tonic data set (or anything that yields ``(events, target)`` and has ``sensor_size``).

    The unit of an event is ``(p * height + y) * width + x``; a field that the events lack counts as 0. Times are
    microseconds from tonic's zero. The data set must have no transform.

    Args:
        samples: The data set: indexable, with ``sensor_size = (width, height, polarities)``.
        indices: Samples to take; default all.
        class_names: Names of the classes.

    Raises:
        InputError: Not such a data set, or events outside the sensor.
    """
    size = getattr(samples, "sensor_size", None)
    if size is None or len(size) != 3:
        raise InputError(f"expected a tonic data set with sensor_size (width, height, polarities), got {size!r}")
    width, height, polarities = (int(value) for value in size)
    chosen = range(len(samples)) if indices is None else indices
    times, units, labels = [], [], []
    for i in chosen:
        events, target = samples[i]
        names = getattr(getattr(events, "dtype", None), "names", None) or ()
        if not {"t", "x"} <= set(names):
            raise InputError(f"sample {i}: expected events with fields t and x, got {names}; remove the transform")
        column = {name: np.asarray(events[name]).astype(np.int64) for name in ("t", "x", "y", "p") if name in names}
        zero = np.zeros(column["t"].size, dtype=np.int64)
        y, p = column.get("y", zero), column.get("p", zero)
        if polarities == 1:
            p = zero  # files without polarity are given a constant one
        for name, values, top in (("x", column["x"], width), ("y", y, height), ("p", p, polarities)):
            if values.size and not (values.min() >= 0 and values.max() < top):
                raise InputError(f"sample {i}: {name} reaches {values.max()}; expected 0 to {top - 1}")
        if not np.ndim(target) == 0 or not isinstance(target, int | np.integer):
            raise InputError(f"sample {i}: expected a class number as target, got {target!r}")
        times.append(column["t"] / 1e6)
        units.append((p * height + y) * width + column["x"])
        labels.append(int(target))
    n_units = width * height * polarities
    return Events.from_lists(
        times, units, n_units, np.array(labels, dtype=np.int64), class_names=tuple(class_names), sort=True
    )


def open_tonic(name: str, folder: str | Path, **options: Any) -> Events:
    """Open (tonic downloads it if needed) a data set of tonic by its class name, for example ``"NMNIST"``.

    Args:
        name: Class in ``tonic.datasets``.
        folder: Where tonic keeps it.
        options: Passed to tonic, for example ``train=False``.

    Raises:
        MissingLibraryError: tonic is not installed.
        InputError: tonic has no such data set.
        SnnsimFileError: tonic could not get or read it.
    """
    try:
        import tonic.datasets
    except ImportError as error:
        raise MissingLibraryError("tonic", "data", f"tonic's data set {name}") from error
    kind = getattr(tonic.datasets, name, None)
    if not isinstance(kind, type):
        known = sorted(item for item in dir(tonic.datasets) if item[0].isupper())
        raise InputError(f"tonic has no data set {name!r}; known: {', '.join(known)}")
    try:
        samples = kind(str(folder), **options)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise SnnsimFileError(folder, name, f"tonic could not open it: {error}") from error
    return from_tonic(samples, class_names=[str(item) for item in getattr(samples, "classes", ())])
