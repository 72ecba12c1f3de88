"""Writer of spike files in the layout of the Heidelberg data sets (SHD, SSC), with everything that layout knows.

``spikes/times`` (seconds, ascending), ``spikes/units`` (uint16), ``labels``, and where they are known ``extra/keys``,
``extra/speaker``, ``extra/index``, ``extra/duration`` and ``extra/meta_info/*``; how the spikes were made is in the
file's attributes. The same content gives the same bytes.
"""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.files import atomic_path

__all__ = ["half_precision", "write_heidelberg", "write_spike_file"]

Clip = tuple[npt.ArrayLike, npt.ArrayLike]

LATEST_HALF = 60_000
"""Last second that float16 is used for; it ends at 65 504."""


def half_precision(
    times: npt.ArrayLike, units: npt.ArrayLike
) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.uint16]]:
    """Round times to float16 and put spikes that have become simultaneous in order of unit.

    The step is 0.49 ms from 0.5 s and 0.98 ms from 1 s.

    Args:
        times: Seconds, ascending, shape (n_spikes,).
        units: Shape (n_spikes,), 0 to 65535.

    >>> half_precision([0.70001, 0.70002], [9, 4])[1].tolist()
    [4, 9]
    """
    seconds = np.asarray(times, dtype=np.float64)
    unit = np.asarray(units)
    if seconds.shape != unit.shape or seconds.ndim != 1:
        raise InputError(f"spikes: expected as many times as units, got shapes {seconds.shape} and {unit.shape}")
    if seconds.size and not (np.isfinite(seconds).all() and seconds.min() >= 0 and seconds.max() <= LATEST_HALF):
        raise InputError("spikes: expected times from 0 to 60000 s; float16 holds no more")
    if unit.size and not (unit.min() >= 0 and unit.max() <= 65_535):
        raise InputError(f"spikes: expected units from 0 to 65535, got {unit.min()} to {unit.max()}")
    rounded = seconds.astype(np.float16)
    order = np.lexsort((unit, rounded))
    return rounded[order], unit[order].astype(np.uint16)


def write_spike_file(
    path: str | Path,
    clips: Iterable[Clip],
    labels: npt.ArrayLike,
    *,
    n_units: int,
    keys: Sequence[str],
    speakers: npt.ArrayLike | None = None,
    recordings: npt.ArrayLike | None = None,
    meta_info: Mapping[str, Sequence[str]] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> int:
    """Write one file, atomically; clips are written as they come, so a large set never lies in memory.

    Args:
        path: ``.h5``, or ``.h5.gz`` for the same file packed.
        clips: Times in seconds, ascending, and units of each clip; as many clips as labels. Times are stored as
            float16.
        labels: Class of each clip, 0 to 65535.
        n_units: Number of units, stored as an attribute.
        keys: Name of each class.
        speakers: Speaker of each clip.
        recordings: Number of each clip among the speaker's recordings of that class.
        meta_info: Lists with one entry a speaker, for example ``gender``.
        attributes: How the file was made; text and numbers as they are, anything else as JSON.

    Returns:
        Number of spikes written.

    Raises:
        InputError: Lengths differ or a value does not fit the layout.
        SnnsimFileError: The file cannot be written.
    """
    classes = _column("labels", labels)
    n = classes.size
    if n and classes.max() >= len(keys):
        raise InputError(f"labels: class {classes.max()} has no name; {len(keys)} names were given")
    columns: dict[str, npt.NDArray[Any]] = {"labels": classes}
    if speakers is not None:
        columns["extra/speaker"] = _column("speakers", speakers, n)
    if recordings is not None:
        columns["extra/index"] = _column("recordings", recordings, n)
    rounded = (half_precision(times, units) for times, units in clips)
    return _write(Path(path), rounded, n, columns, n_units, keys, np.dtype(np.float16), meta_info, attributes)


def write_heidelberg(
    path: str | Path, events: Events, *, time_dtype: Literal["auto", "float16", "float32", "float64"] = "auto"
) -> None:
    """Write Events in this layout, atomically; reading it gives equal Events (sample ids start at 0).

    Args:
        path: ``.h5`` to write, or ``.h5.gz`` for the same file packed.
        events: Samples.
        time_dtype: Type of the stored times; ``auto`` takes float16 where that is exact, else float64.

    Raises:
        InputError: Units above 65535, or times that float16 does not hold.
        SnnsimFileError: The file cannot be written.
    """
    if time_dtype == "auto":
        short = not events.times.size or float(events.times.max()) <= LATEST_HALF
        exact = short and np.array_equal(events.times.astype(np.float16).astype(np.float64), events.times)
        time_dtype = "float16" if exact else "float64"
    kind = np.dtype(time_dtype)

    def clip(i: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint16]]:
        here = slice(int(events.offsets[i]), int(events.offsets[i + 1]))
        if kind == np.float16:
            return half_precision(events.times[here], events.units[here])
        return events.times[here].astype(kind), events.units[here].astype(np.uint16)

    n = len(events)
    columns: dict[str, npt.NDArray[Any]] = {"labels": _narrow(events.labels)}
    if events.speakers is not None:
        columns["extra/speaker"] = _narrow(events.speakers)
    if events.recordings is not None:
        columns["extra/index"] = _narrow(events.recordings)
    columns["extra/duration"] = events.duration
    _write(Path(path), (clip(i) for i in range(n)), n, columns, events.n_units, events.class_names, kind)


def _write(
    path: Path,
    clips: Iterable[tuple[npt.NDArray[Any], npt.NDArray[np.uint16]]],
    n: int,
    columns: Mapping[str, npt.NDArray[Any]],
    n_units: int,
    keys: Sequence[str],
    kind: np.dtype[Any],
    meta_info: Mapping[str, Sequence[str]] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> int:
    """Write one file; ``clips`` are times of type ``kind`` and units as they are stored."""
    import h5py

    if n_units > 1 << 16:
        raise InputError(f"this layout stores units in 16 bits; {n_units} units do not fit")
    packed = path.suffix == ".gz"
    late: list[npt.NDArray[np.uint16]] = []  # equal kinds of numbers in one place pack 8 % better
    spikes = 0
    with atomic_path(path) as temporary:
        with h5py.File(temporary, "w") as file:
            file.attrs["n_units"] = int(n_units)
            for name, value in (attributes or {}).items():
                file.attrs[name] = value if isinstance(value, str | int | float) else json.dumps(value, sort_keys=True)
            all_times = file.create_dataset("spikes/times", (n,), dtype=h5py.vlen_dtype(kind))
            all_units = file.create_dataset("spikes/units", (n,), dtype=h5py.vlen_dtype(np.dtype(np.uint16)))
            written = 0
            for time, unit in clips:
                if written == n:
                    raise InputError(f"clips: expected one a label ({n}), got more")
                if unit.size and unit.max() >= n_units:
                    raise InputError(f"clip {written}: unit {unit.max()} is not below n_units, {n_units}")
                all_times[written] = time
                if packed:
                    late.append(unit)
                else:
                    all_units[written] = unit
                written += 1
                spikes += unit.size
            if written != n:
                raise InputError(f"clips: expected one a label ({n}), got {written}")
            for i, unit in enumerate(late):
                all_units[i] = unit
            for name, column in columns.items():
                file[name] = column
            if keys:
                file["extra/keys"] = np.array([key.encode("utf-8") for key in keys], dtype="S")
            for name, entries in (meta_info or {}).items():
                file[f"extra/meta_info/{name}"] = np.array([entry.encode("utf-8") for entry in entries], dtype="S")
        if packed:
            _pack(temporary)
    return spikes


def _column(name: str, values: npt.ArrayLike, n: int | None = None) -> npt.NDArray[np.uint16]:
    column = np.asarray(values)
    n = column.size if n is None else n
    if column.shape != (n,):
        raise InputError(f"{name}: expected one value a clip, shape ({n},), got {column.shape}")
    if n and not (column.dtype.kind in "iu" and column.min() >= 0 and column.max() <= 65_535):
        raise InputError(f"{name}: expected whole numbers from 0 to 65535")
    return column.astype(np.uint16)


def _narrow(column: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Return whole numbers as the 16 bits of this layout, or as they are where they do not fit (-1: no label)."""
    fits = not column.size or (int(column.min()) >= 0 and int(column.max()) <= 65_535)
    return column.astype(np.uint16) if fits else column


def _pack(path: Path) -> None:
    """Replace a file by its gzip, without name and time in it."""
    packed = path.with_name(path.name + ".gz")
    try:
        with (
            open(path, "rb") as source,
            open(packed, "wb") as raw,
            gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=raw, mtime=0) as target,
        ):
            shutil.copyfileobj(source, target, 1 << 20)
        packed.replace(path)
    finally:
        packed.unlink(missing_ok=True)
