"""Events: the flat, ragged spike store, and its binning on a time grid.

All samples of a data set lie one after the other in two arrays (times, units); ``offsets`` says where each
sample begins. The arrays may be memory-mapped, so a data set larger than memory costs only the pages that
are read, and taking one sample is a slice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.events_checks import check_order, checked_vector, sort_events, whole_number
from snnsim.files import canonical_json
from snnsim.grid import GRID_TOLERANCE, check_dt, time_to_step

__all__ = ["Events", "bin_events", "default_duration", "sort_events"]

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Events:
    """Spike trains of many samples, flat.

    Sample ``i`` owns ``times[offsets[i]:offsets[i + 1]]`` and the same slice of ``units``. Times ascend
    within a sample; equal times ascend by unit; several equal events are allowed and count several times.

    Attributes:
        times: Seconds since the start of the sample, float64, shape (n_events,), finite, >= 0.
        units: Unit of each event, int32, shape (n_events,), in [0, n_units).
        offsets: int64, shape (n_samples + 1,), from 0 to n_events.
        labels: Class of each sample, int64, shape (n_samples,); -1 means none.
        n_units: Number of units (input channels or neurons).
        duration: Length of each sample in seconds, float64, shape (n_samples,). An event at or after it
            lies outside the sample (see :func:`bin_events`).
        speakers: Speaker of each sample, int64, shape (n_samples,), or None where unknown.
        class_names: Name of each class, or empty.
        sample_ids: Index of each sample in the data set it came from, int64, shape (n_samples,); kept by
            :meth:`subset`, so that everything random about a sample follows the sample.
        recordings: Recording index of each sample in its source, int64, or None where unknown.

    Raises:
        InputError: An array has the wrong shape, type, order or range.

    >>> events = Events.from_lists([[0.01, 0.02], [0.0]], [[3, 1], [2]], n_units=4, labels=[0, 1])
    >>> len(events), events.n_events, events[1].units.tolist()
    (2, 3, [2])
    """

    times: Float64
    units: Int32
    offsets: Int64
    labels: Int64
    n_units: int
    duration: Float64
    speakers: Int64 | None = None
    class_names: tuple[str, ...] = ()
    sample_ids: Int64 = field(default=None)  # type: ignore[arg-type]  # filled in __post_init__
    recordings: Int64 | None = None

    def __post_init__(self) -> None:
        n_units = whole_number("n_units", self.n_units)
        if not 0 < n_units <= np.iinfo(np.int32).max:
            raise InputError(f"Events.n_units: expected 1 to 2147483647, got {n_units}")
        times = checked_vector("times", self.times, np.float64)
        units = checked_vector("units", self.units, np.int32)
        offsets = checked_vector("offsets", self.offsets, np.int64)
        if offsets.size < 1 or offsets[0] != 0 or offsets[-1] != times.size or np.any(np.diff(offsets) < 0):
            raise InputError(f"Events.offsets: expected numbers ascending from 0 to the number of events, {times.size}")
        n = offsets.size - 1
        if units.size != times.size:
            raise InputError(f"Events.units: expected one unit an event ({times.size}), got {units.size}")
        check_order(times, units, offsets, n_units)
        labels = checked_vector("labels", self.labels, np.int64, n)
        if labels.size and labels.min() < -1:
            raise InputError(f"Events.labels: expected classes >= 0, or -1 for none, got {labels.min()}")
        names = tuple(str(name) for name in self.class_names)
        if names and labels.size and labels.max() >= len(names):
            raise InputError(f"Events.labels: label {labels.max()} has no name: class_names has {len(names)} entries")
        duration = checked_vector("duration", self.duration, np.float64, n)
        if duration.size and not (np.isfinite(duration).all() and duration.min() >= 0):
            raise InputError("Events.duration: expected finite seconds >= 0")
        ids = np.arange(n, dtype=np.int64) if self.sample_ids is None else self.sample_ids
        sample_ids = checked_vector("sample_ids", ids, np.int64, n)
        speakers = None if self.speakers is None else checked_vector("speakers", self.speakers, np.int64, n)
        recordings = None if self.recordings is None else checked_vector("recordings", self.recordings, np.int64, n)
        values = (times, units, offsets, labels, n_units, duration, speakers, names, sample_ids, recordings)
        self._set(*values)

    def _set(
        self,
        times: Float64,
        units: Int32,
        offsets: Int64,
        labels: Int64,
        n_units: int,
        duration: Float64,
        speakers: Int64 | None,
        class_names: tuple[str, ...],
        sample_ids: Int64,
        recordings: Int64 | None,
    ) -> None:
        arrays: dict[str, Any] = {
            "times": times,
            "units": units,
            "offsets": offsets,
            "labels": labels,
            "duration": duration,
            "speakers": speakers,
            "sample_ids": sample_ids,
            "recordings": recordings,
        }
        for name, array in arrays.items():
            if array is not None and array.flags.writeable:
                arrays[name] = array.view()
                arrays[name].flags.writeable = False
        # the instance is frozen: its dictionary is filled once, here
        self.__dict__.update(arrays, n_units=n_units, class_names=class_names)

    @classmethod
    def _trusted(
        cls,
        times: Float64,
        units: Int32,
        offsets: Int64,
        labels: Int64,
        n_units: int,
        duration: Float64,
        speakers: Int64 | None = None,
        class_names: tuple[str, ...] = (),
        sample_ids: Int64 | None = None,
        recordings: Int64 | None = None,
    ) -> Events:
        """Build without checks, from arrays that were checked before (cache files, slices of Events)."""
        events = object.__new__(cls)
        ids = np.arange(offsets.size - 1, dtype=np.int64) if sample_ids is None else sample_ids
        events._set(times, units, offsets, labels, n_units, duration, speakers, class_names, ids, recordings)
        return events

    @classmethod
    def from_lists(
        cls,
        times: Sequence[npt.ArrayLike],
        units: Sequence[npt.ArrayLike],
        n_units: int,
        labels: npt.ArrayLike | None = None,
        duration: npt.ArrayLike | None = None,
        *,
        speakers: npt.ArrayLike | None = None,
        class_names: Sequence[str] = (),
        sample_ids: npt.ArrayLike | None = None,
        recordings: npt.ArrayLike | None = None,
        sort: bool = False,
    ) -> Events:
        """Build from one array of times and one of units a sample.

        Events of equal time are put in order of unit. Descending times are refused unless ``sort=True``.

        Args:
            times: One array of seconds a sample.
            units: One array of unit indices a sample, each as long as its times.
            n_units: Number of units.
            labels: Class of each sample; default -1 (none).
            duration: Seconds of each sample, or one number for all; default :func:`default_duration`.
            speakers: Speaker of each sample.
            class_names: Name of each class.
            sample_ids: Index of each sample in its data set; default 0, 1, 2, ...
            recordings: Recording index of each sample.
            sort: Sort descending times instead of refusing them.
        """
        if len(times) != len(units):
            raise InputError(f"Events.from_lists: got {len(times)} arrays of times but {len(units)} of units")
        n = len(times)
        time_parts: list[Float64] = []
        unit_parts: list[Int32] = []
        for i, (time, unit) in enumerate(zip(times, units, strict=True)):
            t = checked_vector(f"times[{i}]", time, np.float64)
            u = checked_vector(f"units[{i}]", unit, np.int32)
            if t.size != u.size:
                raise InputError(f"Events.from_lists: sample {i} has {t.size} times but {u.size} units")
            if not sort and t.size > 1 and np.any(t[1:] < t[:-1]):
                raise InputError(f"Events.from_lists: the times of sample {i} descend; pass sort=True to sort them")
            t, u = sort_events(t, u)
            time_parts.append(t)
            unit_parts.append(u)
        offsets = np.zeros(n + 1, dtype=np.int64)
        np.cumsum([part.size for part in time_parts], out=offsets[1:])
        if duration is None:
            lengths = default_duration([part[-1] if part.size else 0.0 for part in time_parts])
        else:
            lengths = np.broadcast_to(np.asarray(duration, dtype=np.float64), (n,)).copy()
        return cls(
            times=np.concatenate([*time_parts, np.zeros(0)]),
            units=np.concatenate([*unit_parts, np.zeros(0, np.int32)]),
            offsets=offsets,
            labels=np.full(n, -1, dtype=np.int64) if labels is None else np.asarray(labels),
            n_units=n_units,
            duration=lengths,
            speakers=None if speakers is None else np.asarray(speakers),
            class_names=tuple(class_names),
            sample_ids=np.arange(n, dtype=np.int64) if sample_ids is None else np.asarray(sample_ids),
            recordings=None if recordings is None else np.asarray(recordings),
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Events], *, renumber: bool = True) -> Events:
        """Join samples of several Events; ``renumber`` gives them new sample ids 0, 1, 2, ...

        Raises:
            InputError: The parts have different unit counts or class names, or there is no part.
        """
        if not parts:
            raise InputError("Events.concatenate: expected at least one Events, got none")
        first = parts[0]
        for part in parts[1:]:
            if part.n_units != first.n_units or part.class_names != first.class_names:
                raise InputError(
                    f"Events.concatenate: parts must agree in units and class names; got {first.n_units} and "
                    f"{part.n_units} units; widen() makes unit counts equal"
                )
        counts = np.concatenate([np.diff(part.offsets) for part in parts])
        speakers = [part.speakers for part in parts if part.speakers is not None]
        recordings = [part.recordings for part in parts if part.recordings is not None]
        return cls._trusted(
            times=np.concatenate([part.times for part in parts]),
            units=np.concatenate([part.units for part in parts]),
            offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)]),
            labels=np.concatenate([part.labels for part in parts]),
            n_units=first.n_units,
            duration=np.concatenate([part.duration for part in parts]),
            speakers=np.concatenate(speakers) if len(speakers) == len(parts) else None,
            class_names=first.class_names,
            sample_ids=None if renumber else np.concatenate([part.sample_ids for part in parts]),
            recordings=np.concatenate(recordings) if len(recordings) == len(parts) else None,
        )

    def __len__(self) -> int:
        return self.offsets.size - 1

    @property
    def n_samples(self) -> int:
        """Number of samples."""
        return self.offsets.size - 1

    @property
    def n_events(self) -> int:
        """Number of events in all samples together."""
        return self.times.size

    @property
    def n_classes(self) -> int:
        """Number of classes: the class names if there are any, else the highest label plus one."""
        if self.class_names:
            return len(self.class_names)
        return int(self.labels.max()) + 1 if self.labels.size else 0

    @property
    def counts(self) -> Int64:
        """Number of events of each sample, int64, shape (n_samples,)."""
        return np.diff(self.offsets)

    def __getitem__(self, index: int) -> Events:
        """Return one sample as Events (a view; nothing is copied)."""
        n = self.offsets.size - 1
        if not -n <= index < n:
            raise IndexError(f"sample {index} of {n}")
        i = int(index) % n
        a, b = int(self.offsets[i]), int(self.offsets[i + 1])
        one = slice(i, i + 1)
        return Events._trusted(
            self.times[a:b],
            self.units[a:b],
            np.array([0, b - a], dtype=np.int64),
            self.labels[one],
            self.n_units,
            self.duration[one],
            None if self.speakers is None else self.speakers[one],
            self.class_names,
            self.sample_ids[one],
            None if self.recordings is None else self.recordings[one],
        )

    def __iter__(self) -> Iterator[Events]:
        return (self[i] for i in range(len(self)))

    def subset(self, indices: npt.ArrayLike) -> Events:
        """Return the chosen samples in the given order, with their sample ids.

        Args:
            indices: Positions, int, or a boolean mask of shape (n_samples,).

        Raises:
            InputError: An index is out of range.
        """
        chosen = np.asarray(indices)
        if chosen.dtype == np.bool_:
            if chosen.shape != (len(self),):
                raise InputError(f"Events.subset: expected a mask of {len(self)} entries, got shape {chosen.shape}")
            chosen = np.flatnonzero(chosen)
        chosen = chosen.astype(np.int64).reshape(-1)
        if chosen.size and not (chosen.min() >= 0 and chosen.max() < len(self)):
            raise InputError(f"Events.subset: expected indices in [0, {len(self)}), got {chosen.min()}..{chosen.max()}")
        counts = self.counts[chosen]
        offsets = np.zeros(chosen.size + 1, dtype=np.int64)
        np.cumsum(counts, out=offsets[1:])
        times = np.empty(int(offsets[-1]), dtype=np.float64)
        units = np.empty(int(offsets[-1]), dtype=np.int32)
        for j, i in enumerate(chosen):
            a, b = self.offsets[i], self.offsets[i + 1]
            times[offsets[j] : offsets[j + 1]] = self.times[a:b]
            units[offsets[j] : offsets[j + 1]] = self.units[a:b]
        return Events._trusted(
            times,
            units,
            offsets,
            self.labels[chosen],
            self.n_units,
            self.duration[chosen],
            None if self.speakers is None else self.speakers[chosen],
            self.class_names,
            self.sample_ids[chosen],
            None if self.recordings is None else self.recordings[chosen],
        )

    def widen(self, n_units: int) -> Events:
        """Return the same events with more units (a file whose last channels never fire looks too narrow)."""
        if n_units < self.n_units:
            raise InputError(f"Events.widen: has {self.n_units} units already; cannot make {n_units} of them")
        return replace_fields(self, n_units=int(n_units))

    def n_steps(self, dt: float) -> Int64:
        """Return the number of steps of each sample: steps ``k`` with ``k * dt < duration``.

        Returns:
            int64, shape (n_samples,): ``rint(duration / dt)`` if within 1e-6 of it, else the ceiling.
        """
        ratio = np.asarray(self.duration) / check_dt(dt)
        nearest = np.rint(ratio)
        return np.where(np.abs(ratio - nearest) < GRID_TOLERANCE, nearest, np.ceil(ratio)).astype(np.int64)

    def digest(self) -> str:
        """Return the SHA-256 of everything in here: equal Events have equal digests."""
        state = hashlib.sha256()
        header = {"n_units": self.n_units, "class_names": list(self.class_names), "schema": 1}
        state.update(canonical_json(header).encode())
        for name in (
            "times",
            "units",
            "offsets",
            "labels",
            "duration",
            "speakers",
            "sample_ids",
            "recordings",
        ):
            array = getattr(self, name)
            state.update(f"|{name}:{'none' if array is None else array.size}|".encode())
            if array is not None:
                state.update(np.ascontiguousarray(array).data)
        return state.hexdigest()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Events):
            return NotImplemented
        if self.n_units != other.n_units or self.class_names != other.class_names:
            return False
        for name in (
            "offsets",
            "units",
            "times",
            "labels",
            "duration",
            "speakers",
            "sample_ids",
            "recordings",
        ):
            a, b = getattr(self, name), getattr(other, name)
            if (a is None) != (b is None) or (a is not None and not np.array_equal(a, b)):
                return False
        return True

    __hash__ = None  # type: ignore[assignment]  # arrays inside: compare, or use digest()

    def __repr__(self) -> str:
        return f"Events({len(self)} samples, {self.n_events} events, {self.n_units} units, {self.n_classes} classes)"


def replace_fields(events: Events, **changes: Any) -> Events:
    """Return ``events`` with some fields replaced, without the event-by-event checks (lengths must agree)."""
    names = Events.__dataclass_fields__
    return Events._trusted(**{name: changes.get(name, getattr(events, name)) for name in names})


def default_duration(last: npt.ArrayLike) -> Float64:
    """Return the duration of samples that do not state one: the first whole millisecond after the last event.

    Args:
        last: Time of the last event of each sample in seconds (0 for an empty sample), shape (n_samples,).

    Returns:
        Seconds, float64, later than the last event by at least a microsecond, so that the event lies
        inside on any grid.

    >>> default_duration([0.0, 0.0304, 0.05]).tolist()
    [0.001, 0.031, 0.051]
    """
    times = np.asarray(last, dtype=np.float64)
    return np.asarray((np.floor(times * 1e3 + 1e-3) + 1.0) / 1e3)


def bin_events(
    events: Events,
    dt: float,
    n_steps: int | npt.ArrayLike | None = None,
    pool: int = 1,
    out: npt.NDArray[np.float32] | None = None,
    outside: Literal["refuse", "drop"] = "refuse",
) -> npt.NDArray[np.float32]:
    """Count the events of each sample in bins of time and of neighbouring units.

    ``counts[k, b, j]`` is the number of events of sample ``b`` with ``time_to_step(time, dt) == k`` and
    ``unit // pool == j``.

    Args:
        events: Samples; the batch is all of them.
        dt: Width of a time bin in seconds.
        n_steps: Steps of every sample, or one number a sample; default ``events.n_steps(dt)``.
        pool: Neighbouring units summed into one.
        out: Array to fill, float32, shape (time, batch, unit), at least as many steps as needed; default a new
            one.
        outside: What to do with events at or after their sample's last step.

    Returns:
        Counts, float32, shape (time, batch, ceil(n_units / pool)); time is the largest ``n_steps``, or
        that of ``out``; steps after a sample's own are zero.

    Raises:
        InputError: An event lies outside its sample's steps and ``outside="refuse"``; or a wrong argument.

    >>> events = Events.from_lists([[0.001, 0.012, 0.0125]], [[0, 5, 4]], n_units=6)
    >>> bin_events(events, 0.01, pool=2)[:, 0].tolist()
    [[1.0, 0.0, 0.0], [0.0, 0.0, 2.0]]
    """
    check_dt(dt)
    if pool < 1:
        raise InputError(f"pool: expected at least 1 unit, got {pool}")
    n = len(events)
    steps = events.n_steps(dt) if n_steps is None else np.broadcast_to(np.asarray(n_steps, dtype=np.int64), (n,))
    width = -(-events.n_units // pool)
    longest = int(steps.max()) if n else 0
    if out is None:
        out = np.zeros((longest, n, width), dtype=np.float32)
    elif out.dtype != np.float32 or out.shape[1:] != (n, width) or out.shape[0] < longest:
        raise InputError(
            f"out: expected float32, shape (>= {longest}, {n}, {width}), got {out.dtype}, shape {out.shape}"
        )
    else:
        out[:] = 0.0
    lost = 0
    for b in range(n):
        a, e = int(events.offsets[b]), int(events.offsets[b + 1])
        k = time_to_step(events.times[a:e], dt)
        inside = k < steps[b]
        lost += k.size - int(np.count_nonzero(inside))
        flat = k[inside] * width + events.units[a:e][inside] // pool
        size = int(steps[b]) * width
        out[: int(steps[b]), b] = np.bincount(flat, minlength=size)[:size].reshape(-1, width)
    if lost and outside == "refuse":
        raise InputError(outside_message(lost))
    return out


def outside_message(lost: int) -> str:
    """Return the sentence for events that lie after the last step of their sample."""
    return (
        f"{lost} event(s) lie at or after the last step of their sample: raise n_steps or the duration, or drop "
        f"them on purpose with outside='drop'"
    )
