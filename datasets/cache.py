"""The event cache: flat files that are mapped into memory, named by what they hold.

A source (HDF5, archive, folder of recordings) is read once and written as one flat file. Its name is a hash of
the source's bytes and of the reader's options, so a changed source is another file and an old one is never
wrong. The file is written under a temporary name and renamed when it is complete.

Layout of a flat file (little endian; the full description is in ``docs/data.md``)::

    magic "SNNEVT1\\n" and 56 zero bytes
    arrays, each beginning at a multiple of 64 bytes
    footer: JSON with name, dtype, size, place and sha256 of every array, and the metadata
    length of the footer (uint64), magic again
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from snnsim.errors import SnnsimFileError
from snnsim.events import Events
from snnsim.files import atomic_path, cache_folder, canonical_json, sha256_bytes, sha256_file, write_json

__all__ = ["EventWriter", "cache_folder", "cached_events", "cached_path", "content_digest", "read_flat", "write_flat"]

MAGIC = b"SNNEVT1\n"
ALIGN = 64
FORMAT = 1
LARGEST_FOOTER = 1 << 24
DTYPES = {
    "times": "<f8",
    "units": "<i4",
    "offsets": "<i8",
    "labels": "<i8",
    "duration": "<f8",
    "speakers": "<i8",
    "sample_ids": "<i8",
    "recordings": "<i8",
    "values": "<f4",
}
REQUIRED = {
    "events": {"times", "units", "offsets", "labels", "duration", "sample_ids"},
    "frames": {"values", "labels"},
}


def content_digest(path: str | Path) -> str:
    """Return the SHA-256 of a file, remembered as long as the file is not touched.

    Size, times and inode of files seen before are kept beside the cache, so that opening a large data set again
    does not read it. A file changed in the last two seconds is always read: its time stamp proves nothing.
    """
    path = Path(path)
    state = path.stat()
    stamp = [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino, state.st_dev]
    note = cache_folder() / "seen" / f"{sha256_bytes(os.fsencode(path.resolve()))}.json"
    try:
        known = json.loads(note.read_text(encoding="utf-8"))
        if known["stamp"] == stamp and len(known["sha256"]) == 64:
            return str(known["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    digest = sha256_file(path)
    if time.time() - max(state.st_mtime, state.st_ctime) > 2.0:
        write_json(note, {"path": str(path.resolve()), "sha256": digest, "stamp": stamp})
    return digest


def cached_events(key: dict[str, Any], build: Callable[[Path], None]) -> Events:
    """Return the Events stored under ``key``; build the flat file first if it is not there.

    Args:
        key: What the file is made of: digest of the source, reader and its version, options (JSON values).
        build: Writes the flat file to the path it is given; called only when needed.

    Raises:
        SnnsimFileError: From ``build``, or the cache cannot be written; nothing half-written is left.
    """
    return read_flat(cached_path(key, build, read_flat))


def cached_path(key: dict[str, Any], build: Callable[[Path], None], read: Callable[[Path], Any]) -> Path:
    """Return the flat file of ``key``, made by ``build`` if it is missing or ``read`` finds it damaged."""
    name = sha256_bytes(canonical_json({"format": FORMAT, **key}).encode())
    path = cache_folder() / "events" / f"{name}.snnev"
    if path.exists():
        with contextlib.suppress(SnnsimFileError):  # a damaged cache file is not a damaged source: it is made again
            read(path)
            return path
    with atomic_path(path) as temporary:
        build(temporary)
        read(temporary)
    return path


class EventWriter:
    """Writes a flat file sample block by sample block, in constant memory.

    Used as a context manager; :meth:`finish` completes the file. Nothing of it is readable before.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._hashes = {"times": hashlib.sha256(), "units": hashlib.sha256()}
        self.n_events = 0
        self._side_path = self.path.with_name(self.path.name + ".units")
        self._main: BinaryIO | None = None
        self._side: BinaryIO | None = None

    def __enter__(self) -> EventWriter:
        try:
            self._main = open(self.path, "wb")
            self._side = open(self._side_path, "w+b")
            self._main.write(MAGIC.ljust(ALIGN, b"\0"))
        except OSError as error:
            self.__exit__()
            raise self._failed(error) from error
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self._main, self._side):
            if stream is not None:
                # a full disk shows once more when the buffer is flushed; it was reported already
                with contextlib.suppress(OSError):
                    stream.close()
        self._side_path.unlink(missing_ok=True)

    def _failed(self, error: OSError) -> SnnsimFileError:
        reason = error.strerror or str(error)
        return SnnsimFileError(
            self.path.parent, "", f"the cache file could not be written ({reason}); free space or set SNNSIM_CACHE"
        )

    def append(self, times: npt.NDArray[np.float64], units: npt.NDArray[np.int32]) -> None:
        """Add the events of one or more samples.

        Args:
            times: Seconds, float64, shape (n,).
            units: int32, shape (n,).
        """
        assert self._main is not None
        assert self._side is not None
        t = np.ascontiguousarray(times, dtype="<f8")
        u = np.ascontiguousarray(units, dtype="<i4")
        try:
            self._main.write(t.data)
            self._side.write(u.data)
        except OSError as error:
            raise self._failed(error) from error
        self._hashes["times"].update(t.data)
        self._hashes["units"].update(u.data)
        self.n_events += t.size

    def finish(
        self,
        *,
        offsets: npt.NDArray[np.int64],
        labels: npt.NDArray[np.int64],
        n_units: int,
        duration: npt.NDArray[np.float64],
        sample_ids: npt.NDArray[np.int64],
        speakers: npt.NDArray[np.int64] | None = None,
        recordings: npt.NDArray[np.int64] | None = None,
        class_names: tuple[str, ...] = (),
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Write the arrays of one entry a sample and the footer; the arguments are those of Events."""
        assert self._main is not None
        assert self._side is not None
        out = self._main
        table: dict[str, Any] = {}
        small = {
            "offsets": offsets,
            "labels": labels,
            "duration": duration,
            "sample_ids": sample_ids,
            "speakers": speakers,
            "recordings": recordings,
        }
        try:
            table["times"] = self._entry("times", self.n_events, ALIGN, self._hashes["times"].hexdigest())
            place = self._pad(out)
            self._side.seek(0)
            shutil.copyfileobj(self._side, out, 1 << 20)
            table["units"] = self._entry("units", self.n_events, place, self._hashes["units"].hexdigest())
            for name, array in small.items():
                if array is None:
                    continue
                data = np.ascontiguousarray(array, dtype=DTYPES[name])
                place = self._pad(out)
                out.write(data.data)
                table[name] = self._entry(name, data.size, place, sha256_bytes(data.tobytes()))
            footer = {
                "format": FORMAT,
                "arrays": table,
                "n_units": int(n_units),
                "class_names": list(class_names),
                "metadata": metadata or {},
            }
            text = canonical_json(footer).encode()
            self._pad(out)
            out.write(text + struct.pack("<Q", len(text)) + MAGIC)
            out.flush()
        except OSError as error:
            raise self._failed(error) from error

    @staticmethod
    def _entry(name: str, size: int, place: int, digest: str) -> dict[str, Any]:
        return {"dtype": DTYPES[name], "size": int(size), "place": int(place), "sha256": digest}

    @staticmethod
    def _pad(stream: BinaryIO) -> int:
        place = stream.tell()
        stream.write(b"\0" * (-place % ALIGN))
        return stream.tell()


def write_flat(path: str | Path, events: Events, metadata: dict[str, Any] | None = None) -> None:
    """Write Events as a flat file (not atomic by itself: pass a path from ``atomic_path``)."""
    with EventWriter(path) as writer:
        block = 1 << 22
        for start in range(0, events.n_events, block):
            writer.append(events.times[start : start + block], events.units[start : start + block])
        writer.finish(
            offsets=events.offsets,
            labels=events.labels,
            n_units=events.n_units,
            duration=events.duration,
            sample_ids=events.sample_ids,
            speakers=events.speakers,
            recordings=events.recordings,
            class_names=events.class_names,
            metadata=metadata,
        )


def read_footer(path: str | Path, kind: str = "events") -> dict[str, Any]:
    """Return the footer of a flat file of ``kind`` after checking that the file is whole.

    Raises:
        SnnsimFileError: Not a flat file, or a damaged one.
    """
    path = Path(path)
    try:
        with open(path, "rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            if size < ALIGN + 16:
                raise SnnsimFileError(path, "", f"is too short for an event file ({size} bytes)")
            stream.seek(0)
            head = stream.read(len(MAGIC))
            stream.seek(size - 16)
            length, tail = struct.unpack("<Q8s", stream.read(16))
            if head != MAGIC or tail != MAGIC or length > min(LARGEST_FOOTER, size - ALIGN - 16):
                raise SnnsimFileError(path, "", "is not an event file of this version, or was cut off")
            stream.seek(size - 16 - length)
            footer = json.loads(stream.read(length))
        for name, entry in footer["arrays"].items():
            stop = entry["place"] + entry["size"] * np.dtype(DTYPES[name]).itemsize
            if entry["dtype"] != DTYPES[name] or entry["place"] % ALIGN or not 0 <= stop <= size - 16 - length:
                raise SnnsimFileError(path, name, "does not lie inside the file")
        missing = REQUIRED[kind] - footer["arrays"].keys()
        if missing or footer["format"] != FORMAT:
            raise SnnsimFileError(path, "", f"lacks {', '.join(sorted(missing)) or 'a known format version'}")
    except OSError as error:
        raise SnnsimFileError(path, "", f"cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, SnnsimFileError):
            raise
        raise SnnsimFileError(path, "footer", f"is damaged ({type(error).__name__})") from error
    return dict(footer)


def read_flat(path: str | Path, *, verify: bool = False) -> Events:
    """Map a flat file into memory as Events.

    Args:
        path: The file.
        verify: Compare the SHA-256 of every array (reads the whole file).

    Raises:
        SnnsimFileError: Not a flat file, or a damaged one.
    """
    footer = read_footer(path)
    arrays: dict[str, Any] = dict.fromkeys(DTYPES.keys() - {"values"})
    try:
        whole = np.memmap(path, dtype=np.uint8, mode="r")
        for name, entry in footer["arrays"].items():
            dtype = np.dtype(DTYPES[name])
            part = np.asarray(whole[entry["place"] : entry["place"] + entry["size"] * dtype.itemsize])
            if verify and sha256_bytes(part.tobytes()) != entry["sha256"]:
                raise SnnsimFileError(path, name, "does not match its checksum; delete the file, it is made again")
            arrays[name] = part.view(dtype)
        offsets, n = arrays["offsets"], arrays["labels"].size
        sound = offsets.size == n + 1 and offsets[0] == 0 and offsets[-1] == arrays["times"].size
        same = all(array is None or array.size == n for name, array in arrays.items() if name in _PER_SAMPLE)
        if not (
            sound and same and arrays["units"].size == arrays["times"].size and bool(np.all(np.diff(offsets) >= 0))
        ):
            raise SnnsimFileError(path, "offsets", "do not fit the other arrays; delete the file, it is made again")
        return Events._trusted(n_units=int(footer["n_units"]), class_names=tuple(footer["class_names"]), **arrays)
    except OSError as error:
        raise SnnsimFileError(path, "", f"cannot be mapped into memory ({error.strerror})") from error
    except (ValueError, TypeError, IndexError, KeyError) as error:
        if isinstance(error, SnnsimFileError):
            raise
        raise SnnsimFileError(path, "", f"is damaged ({type(error).__name__})") from error


_PER_SAMPLE = ("labels", "duration", "speakers", "sample_ids", "recordings")
