"""Dense frames (log-mel bands and the like): the second kind of input, beside events.

:class:`Frames` stands wherever training expects samples, because it has their labels, speakers, ids and steps. It has
no events: whatever asks for them (an engine, a raster) gets a sentence that says so, never silence.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from snnsim.datasets.cache import ALIGN, MAGIC, cached_path, read_footer
from snnsim.errors import InputError, SnnsimFileError
from snnsim.events import Events
from snnsim.files import canonical_json, sha256_bytes

__all__ = ["Frames", "cached_frames", "write_frames"]

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


class Frames(Events):
    """Samples of dense frames, all of the same length.

    Attributes:
        values: float32, shape (n_samples, time, unit); may be memory-mapped.
        dt: Seconds between frames.
        repeat: How often the frames are shown, one after the other; ``values`` holds them once.

    The other attributes are those of :class:`~snnsim.events.Events`; ``times`` and ``units`` are refused.
    """

    values: Float32
    dt: float
    repeat: int

    @classmethod
    def build(
        cls,
        values: Float32,
        labels: npt.ArrayLike,
        dt: float,
        *,
        speakers: npt.ArrayLike | None = None,
        class_names: tuple[str, ...] = (),
        sample_ids: npt.ArrayLike | None = None,
        repeat: int = 1,
    ) -> Frames:
        """Build from arrays.

        Args:
            values: float32, shape (n_samples, time, unit).
            labels: Class of each sample.
            dt: Seconds between frames.
            speakers: Speaker of each sample.
            class_names: Name of each class.
            sample_ids: Index of each sample in its data set; default 0, 1, 2, ...
            repeat: How often the frames are shown, one after the other.

        Raises:
            InputError: Shapes that do not fit.
        """
        if values.ndim != 3 or values.dtype != np.float32 or values.shape[2] < 1:
            raise InputError(
                f"Frames: expected float32 of shape (sample, time, unit), got {values.dtype} of shape {values.shape}"
            )
        if repeat < 1:
            raise InputError(f"Frames: expected frames that are shown at least once, got repeat {repeat}")
        n, time, _ = values.shape
        frames = object.__new__(cls)
        columns: dict[str, Int64] = {
            "labels": np.asarray(labels, dtype=np.int64),
            "sample_ids": np.arange(n, dtype=np.int64) if sample_ids is None else np.asarray(sample_ids, np.int64),
        }
        if speakers is not None:
            columns["speakers"] = np.asarray(speakers, dtype=np.int64)
        for name, column in columns.items():
            if column.shape != (n,):
                raise InputError(f"Frames.{name}: expected one entry a sample ({n}), got shape {column.shape}")
        frames._set(
            np.zeros(0),
            np.zeros(0, dtype=np.int32),
            np.zeros(n + 1, dtype=np.int64),
            columns["labels"],
            values.shape[2],
            np.full(n, time * repeat * dt),
            columns.get("speakers"),
            tuple(class_names),
            columns["sample_ids"],
            None,
        )
        view = values.view()
        view.flags.writeable = False
        frames.__dict__.update(values=view, dt=float(dt), repeat=int(repeat))
        return frames

    @property
    def times(self) -> npt.NDArray[np.float64]:
        """Refused: frames have no events."""
        _no_events()

    @property
    def units(self) -> npt.NDArray[np.int32]:
        """Refused: frames have no events."""
        _no_events()

    def __getitem__(self, index: int) -> Frames:
        n = len(self)
        if not -n <= index < n:
            raise IndexError(f"sample {index} of {n}")
        return self.subset([int(index) % n])

    def subset(self, indices: npt.ArrayLike) -> Frames:
        """Return the chosen samples in the given order, with their sample ids."""
        chosen = np.asarray(indices)
        if chosen.dtype == np.bool_:
            chosen = np.flatnonzero(chosen)
        chosen = chosen.astype(np.int64).reshape(-1)
        if chosen.size and not (chosen.min() >= 0 and chosen.max() < len(self)):
            raise InputError(f"Frames.subset: expected indices in [0, {len(self)})")
        return Frames.build(
            self.values[chosen],
            self.labels[chosen],
            self.dt,
            speakers=None if self.speakers is None else self.speakers[chosen],
            class_names=self.class_names,
            sample_ids=self.sample_ids[chosen],
            repeat=self.repeat,
        )

    def repeated(self, steps: int, dt: float) -> Frames:
        """Return still images shown for ``steps`` steps of ``dt`` seconds; they are not copied.

        Raises:
            InputError: A sample has more than one frame.
        """
        if self.values.shape[1] * self.repeat != 1:
            raise InputError(
                f"repeat_steps shows a still image again and again; these samples have {self.values.shape[1]} frames "
                "each; remove it"
            )
        return Frames.build(
            self.values,
            self.labels,
            dt,
            speakers=self.speakers,
            class_names=self.class_names,
            sample_ids=self.sample_ids,
            repeat=steps,
        )

    def widen(self, n_units: int) -> Frames:
        """Return the frames; another number of units is refused."""
        if n_units != self.n_units:
            raise InputError(f"frames have {self.n_units} units; they cannot be given {n_units}")
        return self

    def digest(self) -> str:
        """Return the SHA-256 of everything in here."""
        facts = [self.dt, list(self.values.shape), list(self.class_names), *([self.repeat] if self.repeat > 1 else [])]
        state = hashlib.sha256(canonical_json(facts).encode())
        for array in (self.values, self.labels, self.sample_ids, self.speakers):
            state.update(b"|" if array is None else np.ascontiguousarray(array).data)
        return state.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frames) and self.digest() == other.digest()

    __hash__ = None

    def __repr__(self) -> str:
        n, time, units = self.values.shape
        shown = f" shown {self.repeat} times" if self.repeat > 1 else ""
        return f"Frames({n} samples of {time} frames of {units} units{shown}, dt {self.dt} s, {self.n_classes} classes)"


def _no_events() -> NoReturn:
    raise InputError(
        "these samples are dense frames, not events: they train and are evaluated with --engine torch; for events, "
        "encode the sound with `snnsim data convert FOLDER OUT --audio cochlea`"
    )


def write_frames(
    path: str | Path,
    blocks: Iterable[Float32],
    labels: Int64,
    dt: float,
    *,
    speakers: Int64 | None = None,
    class_names: tuple[str, ...] = (),
) -> None:
    """Write frames as one flat file, block by block (not atomic by itself: pass a path from ``atomic_path``).

    Args:
        path: File to write.
        blocks: float32 arrays of shape (samples, time, unit), in order.
        labels: int64, one a sample.
        dt: Seconds between frames.
        speakers: int64, one a sample.
        class_names: Name of each class.
    """
    path = Path(path)
    state = hashlib.sha256()
    shape: tuple[int, ...] = (0, 0, 0)
    count = 0
    table: dict[str, Any] = {}
    try:
        with open(path, "wb") as out:
            out.write(MAGIC.ljust(ALIGN, b"\0"))
            for block in blocks:
                data = np.ascontiguousarray(block, dtype="<f4")
                out.write(data.data)
                state.update(data.data)
                shape, count = data.shape, count + data.shape[0]
            size = count * int(np.prod(shape[1:]))
            table["values"] = {"dtype": "<f4", "size": size, "place": ALIGN, "sha256": state.hexdigest()}
            columns = {"labels": labels, "speakers": speakers}
            for name, column in columns.items():
                if column is not None:
                    out.write(b"\0" * (-out.tell() % ALIGN))
                    raw = np.ascontiguousarray(column, dtype="<i8").tobytes()
                    place, digest = out.tell(), sha256_bytes(raw)
                    table[name] = {"dtype": "<i8", "size": column.size, "place": place, "sha256": digest}
                    out.write(raw)
            out.write(b"\0" * (-out.tell() % ALIGN))
            footer = {
                "format": 1,
                "kind": "frames",
                "arrays": table,
                "shape": [count, *shape[1:]],
                "dt": dt,
                "class_names": list(class_names),
            }
            text = json.dumps(footer, sort_keys=True).encode()
            out.write(text + struct.pack("<Q", len(text)) + MAGIC)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SnnsimFileError(
            path.parent, "", f"the cache file could not be written ({reason}); free space or set SNNSIM_CACHE"
        ) from error


def read_frames(path: str | Path) -> Frames:
    """Map a flat file of frames into memory.

    Raises:
        SnnsimFileError: Not such a file, or a damaged one.
    """
    footer = read_footer(path, kind="frames")
    try:
        whole = np.memmap(path, dtype=np.uint8, mode="r")
        arrays = {}
        for name, entry in footer["arrays"].items():
            dtype = np.dtype(entry["dtype"])
            arrays[name] = np.asarray(whole[entry["place"] : entry["place"] + entry["size"] * dtype.itemsize]).view(
                dtype
            )
        return Frames.build(
            arrays["values"].reshape(footer["shape"]),
            arrays["labels"],
            float(footer["dt"]),
            speakers=arrays.get("speakers"),
            class_names=tuple(footer["class_names"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SnnsimFileError(path, "", f"is damaged ({type(error).__name__}); delete it, it is made again") from error


def cached_frames(key: dict[str, Any], build: Any) -> Frames:
    """Return the Frames stored under ``key``; see :func:`snnsim.datasets.cache.cached_events`."""
    return read_frames(cached_path(key, build, read_frames))
