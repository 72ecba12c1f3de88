"""Reader of spike files in the layout of the Heidelberg data sets (SHD, SSC).

An HDF5 file with ``spikes/times`` and ``spikes/units`` (variable-length arrays, one a sample), ``labels``, and
optionally ``extra/keys`` (class names), ``extra/speaker``, ``extra/index`` (recording), ``extra/duration``
(seconds) and the root attribute ``n_units``. Plain, or inside ``.gz`` or ``.zip``.

Source of the layout: Cramer, Stradmann, Schemmel and Zenke, "The Heidelberg spiking data sets for the systematic
evaluation of spiking neural networks", IEEE TNNLS, 2020.
"""

from __future__ import annotations

import gzip
import os
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from snnsim.datasets.cache import EventWriter, cache_folder, cached_events, content_digest
from snnsim.datasets.heidelberg_write import write_heidelberg
from snnsim.errors import SnnsimFileError
from snnsim.events import Events, default_duration
from snnsim.guard import run_guarded

__all__ = ["READER_VERSION", "convert_heidelberg", "read_heidelberg", "write_heidelberg"]

READER_VERSION = 1
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
BLOCK = 256  # samples read together
LARGEST_RATIO = 200  # bytes unpacked for one byte packed
LARGEST_UNIT = 1 << 24
LONGEST_SAMPLE = 1e6  # seconds


def read_heidelberg(
    path: str | Path, *, n_units: int | None = None, sort: bool = False, trusted: bool = False
) -> Events:
    """Read one file into Events, through the cache.

    Times become float64 seconds before anything is computed with them (float16 times overflow when they are
    scaled first); float32 times are rounded to 1 microsecond. Equal times are put in order of unit. Numbers of
    classes, units and samples come from the file.

    Args:
        path: ``.h5``, ``.h5.gz`` or ``.zip`` with one ``.h5`` inside.
        n_units: Number of units; default what the file states, else its highest unit plus one.
        sort: Sort samples whose times descend instead of refusing the file.
        trusted: Read in this process instead of the limited worker (files that come with the package).

    Raises:
        SnnsimFileError: The file is missing, damaged, or not in this layout; one sentence says what is wrong.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise SnnsimFileError(path, "", "is not there; is the path right?")
        digest = content_digest(path)
    except OSError as error:
        raise SnnsimFileError(path, "", f"cannot be read ({error.strerror})") from error

    def build(target: Path) -> None:
        with unpacked(path) as plain:
            # the worker may have started in another working folder
            arguments = {"path": os.path.abspath(plain), "shown": str(path), "target": os.path.abspath(target)}
            if trusted:
                convert_heidelberg(**arguments, n_units=n_units, sort=sort)
            else:
                run_guarded(
                    "snnsim.datasets.heidelberg:convert_heidelberg",
                    {**arguments, "n_units": n_units, "sort": sort},
                    path=plain,
                )

    key = {"reader": "heidelberg", "version": READER_VERSION, "sha256": digest, "n_units": n_units, "sort": sort}
    return cached_events(key, build)


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Yield the plain HDF5 file for ``path``: itself, or a temporary one unpacked from ``.gz`` or ``.zip``.

    Raises:
        SnnsimFileError: The archive is damaged, holds something else than one ``.h5`` file, or unpacks to
            more than 200 times its size.
    """
    with open(path, "rb") as stream:
        head = stream.read(8)
    if not head:
        raise SnnsimFileError(path, "", "is empty; get it again")
    if head[:2] != b"\x1f\x8b" and head[:4] != b"PK\x03\x04":
        yield path
        return
    folder = cache_folder() / "unpacked"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(suffix=".h5", dir=folder)
    except OSError as error:
        raise SnnsimFileError(folder, "", f"cannot be written ({error.strerror}); set SNNSIM_CACHE") from error
    try:
        with os.fdopen(handle, "wb") as out:
            _unpack(path, head, out)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _unpack(path: Path, head: bytes, out: IO[bytes]) -> None:
    budget = path.stat().st_size * LARGEST_RATIO + (1 << 20)
    try:
        if head[:2] == b"\x1f\x8b":
            with gzip.open(path, "rb") as stream:
                _copy(path, stream, out, budget)
            return
        with zipfile.ZipFile(path) as archive:
            members = [item for item in archive.infolist() if item.filename.endswith((".h5", ".hdf5"))]
            if len(members) != 1:
                raise SnnsimFileError(path, "", f"expected an archive with one .h5 file, found {len(members)}")
            item = members[0]
            parts = Path(item.filename).parts
            if item.filename.startswith(("/", "\\")) or ".." in parts or stat.S_ISLNK(item.external_attr >> 16):
                raise SnnsimFileError(path, item.filename, "is an unsafe name or a link; the archive is refused")
            with archive.open(item) as stream:
                _copy(path, stream, out, budget)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, ValueError) as error:
        if isinstance(error, SnnsimFileError):
            raise
        raise SnnsimFileError(path, "", f"is a damaged or cut-off archive ({error}); get it again") from error
    except OSError as error:
        if isinstance(error, gzip.BadGzipFile):
            raise SnnsimFileError(path, "", f"is a damaged archive ({error}); get it again") from error
        reason = error.strerror or str(error)
        raise SnnsimFileError(path, "", f"could not be unpacked ({reason}); free space or set SNNSIM_CACHE") from error


def _copy(path: Path, stream: IO[bytes] | gzip.GzipFile, out: IO[bytes], budget: int) -> None:
    written = 0
    while block := stream.read(1 << 20):
        written += len(block)
        if written > budget:
            raise SnnsimFileError(path, "", f"unpacks to more than {LARGEST_RATIO} times its size; it is refused")
        out.write(block)


def convert_heidelberg(path: str, shown: str, target: str, n_units: int | None = None, sort: bool = False) -> None:
    """Read a plain HDF5 file and write it as a flat file (see :mod:`snnsim.datasets.cache`).

    Args:
        path: The HDF5 file.
        shown: The name to use in messages (the archive it came from).
        target: Flat file to write.
        n_units: See :func:`read_heidelberg`.
        sort: See :func:`read_heidelberg`.

    Raises:
        SnnsimFileError: Every way in which the file can be wrong.
    """
    import h5py

    size = Path(path).stat().st_size
    with open(path, "rb") as stream:
        head = stream.read(len(HDF5_MAGIC))
    if head != HDF5_MAGIC:
        raise SnnsimFileError(shown, "", "is not an HDF5 file (wrong first bytes); expected the layout of SHD")
    try:
        with h5py.File(path, "r", rdcc_nbytes=1 << 20) as file, EventWriter(target) as writer:
            _convert(file, shown, size, writer, n_units, sort)
    except (SnnsimFileError, MemoryError):
        raise
    except Exception as error:  # h5py raises KeyError, OSError, RuntimeError, ValueError, TypeError, ... on damage
        text = " ".join(str(error).split())[:160]
        raise SnnsimFileError(shown, "", f"is damaged: the HDF5 library says: {text}; get it again") from error


def _convert(file: Any, shown: str, size: int, writer: EventWriter, n_units: int | None, sort: bool) -> None:
    times = _ragged(file, shown, "spikes/times", "f", "floating-point seconds")
    units = _ragged(file, shown, "spikes/units", "ui", "whole numbers")
    n = int(times.shape[0])
    if n == 0:
        raise SnnsimFileError(shown, "spikes/times", "holds no samples; expected at least one")
    if n > size // 8:  # each sample takes 16 bytes in each of two arrays, before compression
        raise SnnsimFileError(shown, "spikes/times", f"declares {n} samples, more than {size} bytes can hold")
    if int(units.shape[0]) != n:
        raise SnnsimFileError(shown, "spikes/units", f"expected {n} samples as in spikes/times, got {units.shape[0]}")
    labels = _column(file, shown, "labels", n, required=True)
    assert labels is not None
    names = _names(file, shown)
    if labels.size and (labels.min() < -1 or labels.max() >= (len(names) or 1 << 31)):
        raise SnnsimFileError(
            shown, "labels", f"label {labels.min() if labels.min() < -1 else labels.max()} has no class in extra/keys"
        )
    duration = _seconds(file, shown, n)
    declared = n_units if n_units is not None else _declared_units(file, shown)
    offsets = np.zeros(n + 1, dtype=np.int64)
    last = np.zeros(n)
    used = np.zeros(0, dtype=np.bool_)
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        t_parts, u_parts = times[start:stop], units[start:stop]
        for i in range(stop - start):
            t, u = np.asarray(t_parts[i]), np.asarray(u_parts[i])
            where = f"sample {start + i}"
            if t.ndim != 1 or t.size != u.size:
                raise SnnsimFileError(shown, where, f"has {t.size} times but {u.size} units")
            t_parts[i], u_parts[i] = _clean(t, u, shown, where, declared, sort)
            offsets[start + i + 1] = offsets[start + i] + t.size
            last[start + i] = t_parts[i][-1] if t.size else 0.0
        if offsets[stop] * 2 > size:  # an event takes at least a byte of time and a byte of unit
            raise SnnsimFileError(shown, "spikes/times", f"declares more events than {size} bytes can hold")
        block_units = np.concatenate(list(u_parts))
        used = _mark(used, block_units)
        writer.append(np.concatenate(list(t_parts)), block_units)
    found = used.size if declared is None else declared
    if declared is None:
        _check_gap(used, shown)
    if duration is None:
        duration = default_duration(last)
    elif np.any(duration < last):
        bad = int(np.flatnonzero(duration < last)[0])
        raise SnnsimFileError(shown, f"sample {bad}", f"ends at {duration[bad]} s but has an event at {last[bad]} s")
    writer.finish(
        offsets=offsets,
        labels=labels,
        n_units=max(found, 1),
        duration=duration,
        sample_ids=np.arange(n, dtype=np.int64),
        speakers=_column(file, shown, "extra/speaker", n),
        recordings=_column(file, shown, "extra/index", n),
        class_names=names,
        metadata={"units_declared": declared is not None},
    )


def _clean(
    t: npt.NDArray[Any], u: npt.NDArray[Any], shown: str, where: str, declared: int | None, sort: bool
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int32]]:
    """Check one sample and return it as float64 seconds and int32 units in canonical order."""
    if t.size == 0:
        return np.zeros(0), np.zeros(0, dtype=np.int32)
    narrow = t.dtype == np.float16
    times = t.astype(np.float64) + 0.0  # a negative zero becomes zero
    if t.dtype == np.float32:
        times = np.round(times, 6)
    low, high = times.min(), times.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise SnnsimFileError(shown, where, "has a time that is not a finite number; expected seconds")
    if low < 0 or high > LONGEST_SAMPLE:
        bad = low if low < 0 else high
        raise SnnsimFileError(shown, where, f"has an event at {bad} s; expected seconds from 0 to {LONGEST_SAMPLE:g}")
    u_low, u_high = int(u.min()), int(u.max())
    limit = LARGEST_UNIT if declared is None else declared
    if u_low < 0 or u_high >= limit:
        bad_unit = u_low if u_low < 0 else u_high
        raise SnnsimFileError(shown, where, f"has an event of unit {bad_unit}; expected units in [0, {limit})")
    step = np.diff(times)
    if not sort and step.size and step.min() < 0:
        raise SnnsimFileError(
            shown, where, "has times that descend; expected ascending times (`snnsim data convert --sort` sorts them)"
        )
    if narrow and u_high < 1 << 16:  # float16 and unit in one integer, which sorts several times faster
        bits = np.ascontiguousarray(times.astype(np.float16)).view(np.uint16).astype(np.uint32)
        key = np.sort((bits << np.uint32(16)) | u.astype(np.uint32))
        units = (key & np.uint32(0xFFFF)).astype(np.int32)
        return (key >> np.uint32(16)).astype(np.uint16).view(np.float16).astype(np.float64), units
    units = u.astype(np.int32)
    if np.any((step < 0) | ((step == 0) & (np.diff(units) < 0))):
        order = np.lexsort((units, times))
        return times[order], units[order]
    return times, units


def _item(file: Any, shown: str, name: str) -> Any:
    import h5py

    item = file.get(name)
    if item is None:
        return None
    if not isinstance(item, h5py.Dataset):
        raise SnnsimFileError(shown, name, "is not a data set; expected the layout of SHD")
    if item.is_virtual or item.external:
        raise SnnsimFileError(shown, name, "points to other files, which is refused")
    return item


def _ragged(file: Any, shown: str, name: str, kinds: str, wanted: str) -> Any:
    import h5py

    item = _item(file, shown, name)
    if item is None:
        raise SnnsimFileError(
            shown, name, "is missing; expected the layout of SHD (spikes/times, spikes/units, labels)"
        )
    inner = h5py.check_vlen_dtype(item.dtype)
    if inner is None or not isinstance(inner, np.dtype) or inner.kind not in kinds or len(item.shape) != 1:
        raise SnnsimFileError(
            shown, name, f"expected one array of {wanted} a sample, got {inner or item.dtype} of shape {item.shape}"
        )
    return item


def _column(file: Any, shown: str, name: str, n: int, required: bool = False) -> npt.NDArray[np.int64] | None:
    """Read one whole number a sample; None where the file has none."""
    item = _item(file, shown, name)
    if item is None:
        if required:
            raise SnnsimFileError(shown, name, "is missing; expected one class number a sample")
        return None
    if item.dtype.kind not in "ui" or item.shape != (n,):
        raise SnnsimFileError(
            shown, name, f"expected {n} whole numbers, one a sample, got {item.dtype} of shape {item.shape}"
        )
    values = item[:]
    if values.dtype == np.uint64 and values.size and values.max() > np.iinfo(np.int64).max:
        raise SnnsimFileError(shown, name, f"has the value {values.max()}, which no label or index is")
    return np.asarray(values.astype(np.int64))


def _seconds(file: Any, shown: str, n: int) -> npt.NDArray[np.float64] | None:
    item = _item(file, shown, "extra/duration")
    if item is None:
        return None
    if item.dtype.kind != "f" or item.shape != (n,):
        raise SnnsimFileError(
            shown, "extra/duration", f"expected {n} numbers of seconds, got {item.dtype} of shape {item.shape}"
        )
    values = item[:].astype(np.float64)
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > LONGEST_SAMPLE:
        raise SnnsimFileError(shown, "extra/duration", f"expected seconds from 0 to {LONGEST_SAMPLE:g}")
    return np.asarray(values)


def _names(file: Any, shown: str) -> tuple[str, ...]:
    item = _item(file, shown, "extra/keys")
    if item is None:
        return ()
    if item.dtype.kind not in "SO" or len(item.shape) != 1 or item.shape[0] > 1 << 16 or item.dtype.itemsize > 4096:
        raise SnnsimFileError(shown, "extra/keys", f"expected class names, got {item.dtype} of shape {item.shape}")
    names = []
    for value in item[:]:
        if not isinstance(value, bytes | str):
            raise SnnsimFileError(shown, "extra/keys", f"expected class names, got {type(value).__name__}")
        names.append(value.decode("utf-8", "replace") if isinstance(value, bytes) else value)
    return tuple(names)


def _declared_units(file: Any, shown: str) -> int | None:
    if "n_units" not in file.attrs:
        return None
    value = file.attrs["n_units"]
    if not isinstance(value, int | np.integer) or not 0 < int(value) <= LARGEST_UNIT:
        raise SnnsimFileError(shown, "n_units", f"expected a whole number from 1 to {LARGEST_UNIT}, got {value!r}")
    return int(value)


def _mark(used: npt.NDArray[np.bool_], units: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """Note which units occur; the array ends at the highest."""
    if units.size == 0:
        return used
    top = int(units.max()) + 1
    if top > used.size:
        used = np.concatenate([used, np.zeros(top - used.size, dtype=np.bool_)])
    used[units] = True
    return used


def _check_gap(used: npt.NDArray[np.bool_], shown: str) -> None:
    """Refuse a lone unit far above the others: a damaged number would otherwise widen the whole network.

    Where the file does not state its number of units, the highest unit decides. A well-filled range (64 units or
    more) followed by a gap of more than 30 % of the whole is taken as damage.
    """
    where = np.flatnonzero(used)
    if where.size < 64:
        return
    gaps = np.diff(where)
    widest = int(np.argmax(gaps))
    if gaps[widest] > max(64, 0.3 * used.size):
        raise SnnsimFileError(
            shown,
            "spikes/units",
            f"has unit {int(where[widest + 1])} although the units below end at {int(where[widest])}; if that is "
            f"right, state n_units",
        )
