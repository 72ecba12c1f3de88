"""Event-camera recordings: N-MNIST ``.bin``, DVS128 Gesture ``.aedat`` (AEDAT 3.1), and plain ``.npz`` / ``.csv``.

A pixel's unit is ``(polarity * height + y) * width + x``. Times count from the start of the recording (or of the
trial), in seconds.

Sources: Orchard, Jayawant, Cohen and Thakor, "Converting static image datasets to spiking neuromorphic datasets
using saccades", 2015 (``.bin``); the AEDAT 3.1 description of iniVation; Amir et al., "A low power, fully event-based
gesture recognition system", 2017 (trial lists and label files).
"""

from __future__ import annotations

import csv
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.datasets.cache import cached_events, content_digest, write_flat
from snnsim.datasets.dataset import Dataset
from snnsim.errors import InputError, SnnsimFileError
from snnsim.events import Events
from snnsim.files import canonical_json, sha256_bytes

__all__ = [
    "PixelEvents",
    "Sensor",
    "open_dvs_gesture",
    "open_event_folder",
    "pixels_to_unit",
    "read_aedat",
    "read_event_file",
    "read_nmnist",
    "write_nmnist",
]

Int64 = npt.NDArray[np.int64]
LARGEST = 1 << 31  # bytes of one recording
NMNIST_OVERFLOW = 1 << 13  # microseconds that an overflow marker adds


@dataclass(frozen=True)
class Sensor:
    """The size of an event camera.

    Attributes:
        width: Pixels in a row.
        height: Rows.
        polarities: 2 where events say whether the pixel grew brighter or darker, else 1.
    """

    width: int
    height: int
    polarities: int = 2

    @property
    def n_units(self) -> int:
        """Number of units: one a pixel and polarity."""
        return self.width * self.height * self.polarities


NMNIST = Sensor(34, 34)
DVS128 = Sensor(128, 128)


@dataclass(frozen=True)
class PixelEvents:
    """The events of one recording, int64, shape (n_events,) each: ``t`` in microseconds, pixel ``x``, ``y``, ``p``."""

    t: Int64
    x: Int64
    y: Int64
    p: Int64


def pixels_to_unit(events: PixelEvents, sensor: Sensor, path: str | Path = "events") -> Int64:
    """Return the unit of each event.

    Raises:
        SnnsimFileError: An event lies outside the sensor.
    """
    for name, values, top in (
        ("x", events.x, sensor.width),
        ("y", events.y, sensor.height),
        ("p", events.p, sensor.polarities),
    ):
        if values.size and not (values.min() >= 0 and values.max() < top):
            bad = values.min() if values.min() < 0 else values.max()
            raise SnnsimFileError(path, name, f"has the value {bad}; expected 0 to {top - 1} for this sensor")
    return (events.p * sensor.height + events.y) * sensor.width + events.x


def _bytes(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise SnnsimFileError(path, "", f"is larger than {LARGEST >> 30} GiB; split the recording")
        if size == 0:
            raise SnnsimFileError(path, "", "is empty; get it again")
        return path.read_bytes()
    except OSError as error:
        raise SnnsimFileError(path, "", f"cannot be read ({error.strerror}); is the path right?") from error


def read_nmnist(path: str | Path) -> PixelEvents:
    """Read one N-MNIST recording: 5 bytes an event (x, y, polarity bit and 23 bits of microseconds, big-endian).

    A row of 240 marks an overflow of the clock: 2^13 microseconds are added to everything after it.

    Raises:
        SnnsimFileError: Not a whole number of events.
    """
    path = Path(path)
    data = _bytes(path)
    if len(data) % 5:
        raise SnnsimFileError(
            path, "", f"expected 5 bytes an event, got {len(data)} bytes; it was cut off or is no .bin"
        )
    raw = np.frombuffer(data, dtype=np.uint8).reshape(-1, 5).astype(np.int64)
    time = ((raw[:, 2] & 127) << 16) | (raw[:, 3] << 8) | raw[:, 4]
    marker = raw[:, 1] == 240
    time = time + np.cumsum(marker) * NMNIST_OVERFLOW
    keep = ~marker
    return PixelEvents(time[keep], raw[keep, 0], raw[keep, 1], raw[keep, 2] >> 7)


def write_nmnist(path: str | Path, events: PixelEvents) -> None:
    """Write one recording as :func:`read_nmnist` reads it.

    Args:
        path: File to write.
        events: Times below 2^23 microseconds, ascending; x below 256, y below 240, p 0 or 1.

    Raises:
        InputError: A value that the format does not hold.
        SnnsimFileError: The file cannot be written.
    """
    for name, values, top in (("t", events.t, 1 << 23), ("x", events.x, 256), ("y", events.y, 240), ("p", events.p, 2)):
        if values.size and not (values.min() >= 0 and values.max() < top):
            bad = values.min() if values.min() < 0 else values.max()
            raise InputError(f"write_nmnist: {name}: expected whole numbers from 0 to {top - 1}, got {bad}")
    if np.any(np.diff(events.t) < 0):
        raise InputError("write_nmnist: t: expected ascending times, got a descent")
    columns = (events.x, events.y, (events.p << 7) | (events.t >> 16), (events.t >> 8) & 255, events.t & 255)
    try:
        Path(path).write_bytes(np.stack(columns, axis=1).astype(np.uint8).tobytes())
    except OSError as error:
        raise SnnsimFileError(path, "", f"cannot be written ({error.strerror})") from error


def read_aedat(path: str | Path) -> PixelEvents:
    """Read the polarity events of an AEDAT 3.1 file; other packets are passed over, invalid events left out.

    Raises:
        SnnsimFileError: Another version, or a packet that does not fit.
    """
    path = Path(path)
    data = _bytes(path)
    if not data.startswith(b"#!AER-DAT3."):
        raise SnnsimFileError(path, "", "is not an AEDAT 3 file (first line); expected #!AER-DAT3.1")
    mark = b"#!END-HEADER\r\n"
    place = data.find(mark)
    if place < 0:
        raise SnnsimFileError(path, "header", "has no end; expected a line #!END-HEADER")
    place += len(mark)
    parts: list[npt.NDArray[Any]] = []
    high: list[Int64] = []
    while place < len(data):
        if place + 28 > len(data):
            raise SnnsimFileError(path, f"byte {place}", "ends inside a packet header; it was cut off")
        kind, _, size, _, overflow, _, number, _ = struct.unpack_from("<HHIIIIII", data, place)
        place += 28
        if place + size * number > len(data):
            raise SnnsimFileError(path, f"byte {place}", f"declares {number} events of {size} bytes; it was cut off")
        if kind == 1:
            if size != 8:
                raise SnnsimFileError(path, f"byte {place}", f"has polarity events of {size} bytes; expected 8")
            part = np.frombuffer(data, dtype="<u4", count=2 * number, offset=place).reshape(-1, 2)
            valid = (part[:, 0] & 1) == 1
            parts.append(part[valid])
            high.append(np.full(int(valid.sum()), int(overflow) << 31, dtype=np.int64))
        place += size * number
    words = np.concatenate([*parts, np.zeros((0, 2), "<u4")]).astype(np.int64)
    time = words[:, 1] + np.concatenate([*high, np.zeros(0, np.int64)])
    return PixelEvents(time, (words[:, 0] >> 17) & 0x7FFF, (words[:, 0] >> 2) & 0x7FFF, (words[:, 0] >> 1) & 1)


def read_event_file(path: str | Path) -> PixelEvents:
    """Read one recording; the ending says how: ``.bin``, ``.aedat``, ``.npz`` or ``.csv``.

    ``.npz`` holds arrays ``t`` and ``x``, optionally ``y`` and ``p``; ``.csv`` has a first line with these names. Times
    that are whole numbers are microseconds, others are seconds.

    Raises:
        SnnsimFileError: Another ending, or a damaged file.
    """
    path = Path(path)
    readers: dict[str, Callable[[Path], PixelEvents]] = {
        ".bin": read_nmnist,
        ".aedat": read_aedat,
        ".npz": _read_npz,
        ".csv": _read_csv,
    }
    if path.suffix not in readers:
        raise SnnsimFileError(path, "", f"ends in {path.suffix!r}; known event files: {', '.join(readers)}")
    return readers[path.suffix](path)


def _read_npz(path: Path) -> PixelEvents:
    _bytes(path)
    columns: dict[str, npt.NDArray[Any]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for item in archive.infolist():
                name = item.filename.removesuffix(".npy")
                if name not in ("t", "x", "y", "p") or name == item.filename:
                    continue
                with archive.open(item) as stream:
                    version = np.lib.format.read_magic(stream)
                    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                    shape, _, dtype = read[version](stream)
                    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
                    if dtype.kind not in "iuf" or len(shape) != 1 or size > LARGEST or size > item.file_size:
                        raise SnnsimFileError(path, name, f"expected one row of numbers, got {dtype} of shape {shape}")
                    columns[name] = np.frombuffer(stream.read(size), dtype=dtype)
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, RuntimeError, NotImplementedError) as error:
        if isinstance(error, SnnsimFileError):
            raise
        raise SnnsimFileError(path, "", f"is not a sound .npz file ({type(error).__name__}); get it again") from error
    return _columns(path, columns)


def _read_csv(path: Path) -> PixelEvents:
    try:
        lines = _bytes(path).decode("utf-8").splitlines()
        rows = list(csv.reader(lines))
    except (UnicodeDecodeError, csv.Error) as error:
        raise SnnsimFileError(path, "", f"is not a text of comma-separated values ({error})") from error
    if not rows:
        raise SnnsimFileError(path, "", "holds no lines; expected a first line t,x,y,p")
    names = [name.strip() for name in rows[0]]
    columns: dict[str, npt.NDArray[Any]] = {}
    for j, name in enumerate(names):
        texts = [row[j].strip() if j < len(row) else "" for row in rows[1:]]
        whole = all(re.fullmatch(r"[+-]?\d{1,18}", text) for text in texts)
        try:
            columns[name] = np.array(texts, dtype=np.int64 if whole else np.float64)
        except ValueError as error:
            raise SnnsimFileError(path, name, f"expected numbers ({error})") from error
    return _columns(path, columns)


def _columns(path: Path, columns: dict[str, npt.NDArray[Any]]) -> PixelEvents:
    if not {"t", "x"} <= set(columns):
        raise SnnsimFileError(path, "", f"expected columns t and x (and y, p), got {', '.join(columns) or 'none'}")
    n = columns["t"].size
    found: dict[str, Int64] = {}
    for name in ("t", "x", "y", "p"):
        values = columns.get(name, np.zeros(n, dtype=np.int64))
        if values.size != n:
            raise SnnsimFileError(path, name, f"expected {n} values as in t, got {values.size}")
        if values.dtype.kind == "f":
            wide = values.astype(np.float64) * (1e6 if name == "t" else 1.0)
            if not np.isfinite(wide).all() or np.any(np.abs(wide) > 1e15):
                raise SnnsimFileError(path, name, "has a value that is not a number of sensible size")
            if name != "t" and np.any(wide != np.rint(wide)):
                raise SnnsimFileError(path, name, "expected whole numbers")
            values = np.rint(wide)
        found[name] = values.astype(np.int64)
    return PixelEvents(found["t"], found["x"], found["y"], found["p"])


def _to_events(
    recordings: Iterator[tuple[str | Path, PixelEvents, int, int]], sensor: Sensor, names: tuple[str, ...], sort: bool
) -> Events:
    """Join (path, events, label, speaker) of many recordings; speaker -1 means unknown."""
    times, units, labels, speakers = [], [], [], []
    for path, events, label, speaker in recordings:
        t = events.t - (events.t.min() if events.t.size else 0)
        if not sort and np.any(np.diff(events.t) < 0):
            raise SnnsimFileError(
                path, "t", "has times that descend; expected ascending times (`snnsim data convert --sort` sorts them)"
            )
        times.append(t / 1e6)
        units.append(pixels_to_unit(events, sensor, path))
        labels.append(label)
        speakers.append(speaker)
    return Events.from_lists(
        times,
        units,
        sensor.n_units,
        np.array(labels, dtype=np.int64),
        speakers=None if -1 in speakers else np.array(speakers, dtype=np.int64),
        class_names=names,
        sort=True,
    )


def open_event_folder(folder: str | Path, *, sensor: Sensor | None = None, sort: bool = False) -> Dataset:
    """Open a folder ``Train/<class>/*`` and ``Test/<class>/*`` (any case; ``valid`` too) of event files.

    This is the layout of N-MNIST. Classes are the folder names in order. The cache is keyed by names, sizes and time
    stamps of the files, not by their content (there are tens of thousands).

    Args:
        folder: The folder.
        sensor: Size of the camera; default N-MNIST's for ``.bin``, DVS128 for ``.aedat``, else the largest pixel.
        sort: Sort recordings whose times descend instead of refusing them.

    Raises:
        SnnsimFileError: No such folders or files, or a damaged file.
    """
    folder = Path(folder)
    try:
        parts = {item.name.lower(): item for item in folder.iterdir() if item.is_dir()}
    except OSError as error:
        raise SnnsimFileError(folder, "", f"cannot be listed ({error.strerror})") from error
    parts = {name: parts[name] for name in ("train", "test", "valid") if name in parts}
    if "train" not in parts:
        raise SnnsimFileError(folder, "", "has no folder Train/<class>/ with event files")
    files = {name: sorted(path for path in part.glob("*/*") if path.is_file()) for name, part in parts.items()}
    if not files["train"]:
        raise SnnsimFileError(parts["train"], "", "holds no files like <class>/recording.bin")
    classes = tuple(sorted({path.parent.name for part in files.values() for path in part}))
    chosen = sensor if sensor is not None else _sensor_of(files)
    stamps = {
        name: [[str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns] for path in part]
        for name, part in files.items()
    }
    digest = sha256_bytes(canonical_json(stamps).encode())

    def part_of(name: str) -> Events:
        def recordings() -> Iterator[tuple[Path, PixelEvents, int, int]]:
            for path in files[name]:
                yield path, read_event_file(path), classes.index(path.parent.name), -1

        def build(target: Path) -> None:
            write_flat(target, _to_events(recordings(), chosen, classes, sort))

        size = [chosen.width, chosen.height, chosen.polarities]
        key = {"reader": "event-folder", "version": 1, "files": stamps[name], "sensor": size, "sort": sort}
        return cached_events({**key, "classes": list(classes)}, build)

    loaded = {name: part_of(name) for name in files if files[name]}
    return Dataset(
        name=folder.name,
        train=loaded["train"],
        test=loaded.get("test"),
        valid=loaded.get("valid"),
        digest=digest,
        source=str(folder),
        notes={"sensor": [chosen.width, chosen.height, chosen.polarities]},
    )


def _sensor_of(files: dict[str, list[Path]]) -> Sensor:
    every = [path for part in files.values() for path in part]
    endings = {path.suffix for path in every}
    if endings == {".bin"}:
        return NMNIST
    if endings == {".aedat"}:
        return DVS128
    width, height, polarities = 1, 1, 1
    for path in every:
        events = read_event_file(path)
        if events.t.size:
            width = max(width, int(events.x.max()) + 1)
            height = max(height, int(events.y.max()) + 1)
            polarities = max(polarities, int(events.p.max()) + 1)
    if width * height * polarities > 1 << 24:
        raise InputError(
            f"the largest pixel asks for a camera of {width} x {height}; state the sensor if that is right"
        )
    return Sensor(width, height, polarities)


def open_dvs_gesture(folder: str | Path) -> Dataset:
    """Open the DVS128 Gesture folder: ``trials_to_train.txt``, ``trials_to_test.txt``, ``.aedat`` and label files.

    Each line of ``*_labels.csv`` (class from 1, first and last microsecond) is one sample; the speaker is the user.

    Raises:
        SnnsimFileError: A file is missing or damaged.
    """
    folder = Path(folder)
    names = {"train": "trials_to_train.txt", "test": "trials_to_test.txt"}
    trials: dict[str, list[Path]] = {}
    for part, name in names.items():
        lines = _bytes(folder / name).decode("utf-8", "replace").split()
        trials[part] = [folder / line for line in lines if line.endswith(".aedat")]
    every = [path for part in trials.values() for path in part]
    if any(path.name != str(path.relative_to(folder)) for path in every):
        raise SnnsimFileError(folder, "", "has a trial list with a path outside the folder; it is refused")
    tables = {path: _gesture_table(path.with_name(f"{path.stem}_labels.csv")) for path in every}
    n_classes = max((label for table in tables.values() for label, _, _ in table), default=-1) + 1
    classes = tuple(f"gesture-{i + 1}" for i in range(n_classes))

    def part_of(part: str) -> Events:
        def recordings() -> Iterator[tuple[Path, PixelEvents, int, int]]:
            for path in trials[part]:
                whole = read_aedat(path)
                user = re.match(r"user(\d+)", path.name)
                for label, start, stop in tables[path]:
                    inside = (whole.t >= start) & (whole.t < stop)
                    one = PixelEvents(whole.t[inside], whole.x[inside], whole.y[inside], whole.p[inside])
                    yield path, one, label, int(user.group(1)) if user else -1

        def build(target: Path) -> None:
            write_flat(target, _to_events(recordings(), DVS128, classes, sort=False))

        digests = [content_digest(path) for path in trials[part]] + [list(map(list, tables[p])) for p in trials[part]]
        return cached_events({"reader": "dvs-gesture", "version": 1, "files": digests, "classes": n_classes}, build)

    try:
        train, test = part_of("train"), part_of("test")
    except OSError as error:
        raise SnnsimFileError(folder, "", f"lacks a listed recording ({error.strerror})") from error
    return Dataset(
        "dvs-gesture", train, test, None, sha256_bytes((train.digest() + test.digest()).encode()), str(folder)
    )


def _gesture_table(path: Path) -> list[tuple[int, int, int]]:
    lines = _bytes(path).decode("utf-8", "replace").split()
    try:
        rows = [tuple(int(value) for value in line.split(",")) for line in lines[1:]]
    except ValueError as error:
        raise SnnsimFileError(path, "", "expected lines of class,start,end in whole numbers") from error
    if any(len(row) != 3 or not 1 <= row[0] <= 1000 or row[1] > row[2] for row in rows):
        raise SnnsimFileError(path, "", "expected lines of class,start,end with classes from 1")
    return [(row[0] - 1, row[1], row[2]) for row in rows]
