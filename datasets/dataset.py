"""Data sets: opening them by name or path, and putting samples on a common time axis."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError, SnnsimFileError
from snnsim.events import Events, replace_fields
from snnsim.files import cache_folder, canonical_json, sha256_bytes
from snnsim.grid import GRID_TOLERANCE, check_dt

__all__ = ["Dataset", "frame", "list_datasets", "open_dataset"]

SUFFIXES = (".h5", ".h5.gz", ".h5.zip", ".zip")  # the first that exists is taken
SPLITS = ("train", "test", "valid")
BUILTIN = Path(__file__).parent / "builtin"
LARGE = 1 << 26  # events whose times (512 MiB) are kept in a file instead of in memory
BLOCK_EVENTS = 1 << 22
NAMES = ("spoken-digits", "digits", "sequential-digits", "sequential-digits-pixels", "toy")


@dataclass(frozen=True)
class Dataset:
    """A data set: up to three groups of samples that share units and classes.

    Attributes:
        name: Short name.
        train: Training samples.
        test: Test samples, or None.
        valid: Official validation samples, or None (see :func:`snnsim.datasets.splits.split_validation`).
        digest: SHA-256 over the content of all files (or of the generator's parameters).
        source: Where it came from: a path, or what made it.
        notes: Facts about the data, JSON values.
    """

    name: str
    train: Events
    test: Events | None
    valid: Events | None
    digest: str
    source: str = ""
    notes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for split in (self.test, self.valid):
            if split is not None and split.n_units != self.train.n_units:
                raise InputError(
                    f"data set {self.name!r}: expected {self.train.n_units} units in every part, got {split.n_units}"
                )

    @property
    def n_units(self) -> int:
        """Number of input channels."""
        return self.train.n_units

    @property
    def n_classes(self) -> int:
        """Number of classes in all parts."""
        return max(part.n_classes for part in self.parts.values())

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, or empty."""
        return self.train.class_names

    @property
    def parts(self) -> dict[str, Events]:
        """The parts that exist, by name: train, valid, test."""
        named = {"train": self.train, "valid": self.valid, "test": self.test}
        return {name: part for name, part in named.items() if part is not None}

    @property
    def unseen_speakers(self) -> tuple[int, ...]:
        """Speakers that occur in the test part and not in the training part."""
        if self.test is None or self.test.speakers is None or self.train.speakers is None:
            return ()
        return tuple(int(s) for s in np.setdiff1d(self.test.speakers, self.train.speakers))


def list_datasets() -> tuple[str, ...]:
    """Return the names that :func:`open_dataset` knows besides paths."""
    return NAMES


def open_dataset(path_or_name: str | Path, *, n_units: int | None = None, sort: bool = False) -> Dataset:
    """Open a data set.

    Args:
        path_or_name: A folder with one ``*_train.h5`` and one ``*_test.h5`` (optionally ``*_valid.h5``; each may be
            ``.h5.gz`` or ``.zip``), one such file (training part only), a folder of Speech Commands (log-mel frames),
            of DVS128 Gesture or of N-MNIST (``Train/<class>/*``), or a name: ``"spoken-digits"`` (the set that comes
            with the package), ``"digits"`` (images of 8 x 8 pixels; extra "vision"), ``"sequential-digits"`` (the same
            images row by row, as events), ``"sequential-digits-pixels"`` (pixel by pixel) or ``"toy"``.
        n_units: Number of input channels; default what the files state, else their highest unit plus one.
        sort: Sort samples whose times descend instead of refusing the file.

    Raises:
        SnnsimFileError: A file is missing, damaged or in another layout.
        InputError: Neither a path nor a known name.
    """
    text = str(path_or_name)
    if text == "toy":
        from snnsim.datasets.toy import make_toy

        return make_toy()
    if text == "digits":
        from snnsim.datasets.digits import open_digits

        return open_digits()
    if text in ("sequential-digits", "sequential-digits-pixels"):
        from snnsim.datasets.sequential_digits import open_sequential_digits

        return open_sequential_digits("rows" if text == "sequential-digits" else "pixels")
    if text == "spoken-digits":
        return _open_files("spoken-digits", BUILTIN, _find(BUILTIN), n_units, sort, trusted=True)
    path = Path(path_or_name)
    if path.is_dir():
        other = _open_other_folder(path, sort)
        if other is not None:
            return other
        files = _find(path)
        stem = re.sub(r"_train(\.h5)?(\.gz|\.zip)?$", "", files["train"].name)
        return _open_files(stem, path, files, n_units, sort)
    if path.exists():
        return _open_files(re.sub(r"(\.h5)?(\.gz|\.zip)?$", "", path.name), path, {"train": path}, n_units, sort)
    if path.suffix in (".h5", ".gz", ".zip") or len(path.parts) > 1:
        raise SnnsimFileError(path, "", "is not there; is the path right?")
    raise InputError(f"data set {text!r} is not known; known names: {', '.join(NAMES)}; or give a folder or a file")


def _open_other_folder(path: Path, sort: bool) -> Dataset | None:
    """Open a folder that is no set of files in SHD's layout; None if it looks like one."""
    from snnsim.datasets.event_files import open_dvs_gesture, open_event_folder
    from snnsim.datasets.speech_commands import is_speech_commands, open_speech_commands

    if is_speech_commands(path):
        return open_speech_commands(path)
    if (path / "trials_to_train.txt").is_file():
        return open_dvs_gesture(path)
    if (path / "Train").is_dir() or (path / "train").is_dir():
        return open_event_folder(path, sort=sort)
    return None


def _find(folder: Path) -> dict[str, Path]:
    """Return the file of each part in a folder; the training part is required."""
    found: dict[str, Path] = {}
    try:
        names = sorted(item.name for item in folder.iterdir() if item.is_file() and not item.name.startswith("."))
    except OSError as error:
        raise SnnsimFileError(folder, "", f"cannot be listed ({error.strerror})") from error
    for split in SPLITS:
        for suffix in SUFFIXES:
            files = [name for name in names if name.endswith(f"_{split}{suffix}")]
            if len(files) > 1:
                raise SnnsimFileError(
                    folder,
                    "",
                    f"has {len(files)} files named *_{split}{suffix} ({', '.join(files)}); keep one set a folder",
                )
            if files:
                found[split] = folder / files[0]
                break
    if "train" not in found:
        raise SnnsimFileError(
            folder, "", "has no file named *_train.h5 (or .h5.gz, .zip); expected *_train.h5 and *_test.h5"
        )
    return found


def _open_files(
    name: str, source: Path, files: dict[str, Path], n_units: int | None, sort: bool, trusted: bool = False
) -> Dataset:
    from snnsim.datasets.cache import content_digest
    from snnsim.datasets.heidelberg import read_heidelberg

    parts = {split: read_heidelberg(file, n_units=n_units, sort=sort, trusted=trusted) for split, file in files.items()}
    train = parts["train"]
    width = max(part.n_units for part in parts.values())
    for split, part in parts.items():
        if n_units is None and part.n_units > train.n_units * 1.05 + 1:
            raise SnnsimFileError(
                files[split],
                "spikes/units",
                f"reaches unit {part.n_units - 1}, but the training file only {train.n_units - 1}; do they belong "
                f"together? If so, state n_units",
            )
        if part.class_names != train.class_names:
            raise SnnsimFileError(files[split], "extra/keys", "names other classes than the training file")
        parts[split] = part.widen(width)
    digests = {split: content_digest(file) for split, file in files.items()}
    return Dataset(
        name=name,
        train=parts["train"],
        test=parts.get("test"),
        valid=parts.get("valid"),
        digest=sha256_bytes(canonical_json({"files": digests, "n_units": n_units, "sort": sort}).encode()),
        source=str(source),
        notes={"files": {split: file.name for split, file in files.items()}, "sha256": digests},
    )


def frame(
    events: Events,
    align: Literal["first-spike", "zero"] = "first-spike",
    *,
    dt: float,
    repeat_steps: int | None = None,
) -> Events:
    """Put every sample on its own frame grid.

    ``first-spike`` is the framing of the delay papers: time counts from a sample's first event, and the sample has
    ``ceil((t_last - t_first) / dt)`` steps, at least one. Where the last events lie exactly on the end of the last
    step they are counted in that step, as there. ``zero`` keeps the times; the sample's duration is rounded up to
    whole steps.

    Args:
        events: Samples.
        align: Where time starts.
        dt: Step in seconds.
        repeat_steps: Steps for which an image (:class:`~snnsim.datasets.frames.Frames` of one frame) is shown.

    Returns:
        Events whose ``n_steps(dt)`` is the number of frames; nothing is dropped.

    Source: Hammouamri, Khalfaoui-Hassani and Masquelier, 2024 (SHD preprocessing).

    >>> e = Events.from_lists([[0.2, 0.213, 0.225]], [[0, 1, 2]], n_units=3)
    >>> f = frame(e, dt=0.01)
    >>> f.n_steps(0.01).tolist(), [round(float(t), 6) for t in f.times]
    ([3], [0.0, 0.013, 0.025])
    """
    check_dt(dt)
    from snnsim.datasets.frames import Frames

    if isinstance(events, Frames):  # they lie on their grid already
        return events if repeat_steps is None else events.repeated(repeat_steps, dt)
    if repeat_steps is not None:
        raise InputError("repeat_steps shows a still image again and again; these samples are events; remove it")
    if align == "zero":
        return replace_fields(events, duration=events.n_steps(dt) * dt)
    if align != "first-spike":
        raise InputError(f"align: expected 'first-spike' or 'zero', got {align!r}")
    filled = events.counts > 0
    first = np.zeros(len(events))
    last = np.zeros(len(events))
    first[filled] = events.times[events.offsets[:-1][filled]]
    last[filled] = events.times[events.offsets[1:][filled] - 1]
    ratio = (last - first) / dt
    nearest = np.rint(ratio)
    steps = np.where(np.abs(ratio - nearest) < GRID_TOLERANCE, nearest, np.ceil(ratio))
    steps = np.maximum(steps, 1.0)
    times = _large_array(events.n_events)
    start = 0
    while start < len(events):  # blocks of samples, so that temporary arrays stay small
        stop = int(np.searchsorted(events.offsets, events.offsets[start] + BLOCK_EVENTS, side="right")) - 1
        stop = min(max(stop, start + 1), len(events))
        a, b = int(events.offsets[start]), int(events.offsets[stop])
        counts = np.diff(events.offsets[start : stop + 1])
        block = events.times[a:b] - np.repeat(first[start:stop], counts)
        edge = block >= np.repeat((steps[start:stop] - GRID_TOLERANCE) * dt, counts)
        block[edge] = np.repeat((steps[start:stop] - 0.5) * dt, counts)[edge]  # the last frame takes what is on its end
        times[a:b] = block
        start = stop
    return replace_fields(events, times=times, duration=steps * dt)


def _large_array(size: int) -> npt.NDArray[np.float64]:
    """Return an array for ``size`` times; a large one lies in a nameless file, so that memory is not needed for all.

    Raises:
        SnnsimFileError: There is no room on the disk for a large one.
    """
    if size < LARGE:
        return np.empty(size)
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as stream:  # goes when the last view of the array goes
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(stream.fileno(), 0, 8 * size)  # a full disk must show here, not while writing
            return np.memmap(
                stream, dtype=np.float64, mode="r+" if hasattr(os, "posix_fallocate") else "w+", shape=(size,)
            )
    except OSError as error:
        raise SnnsimFileError(
            folder,
            "",
            f"has no room for {8 * size / 1e9:.1f} GB of times ({error.strerror}); free space or set SNNSIM_CACHE",
        ) from error
