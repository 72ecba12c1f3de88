"""Sealed HDF5 files: a checksum in front, a JSON manifest and plain arrays inside; layout in ``docs/formats.md``.

A sealed file starts with a user block of 512 bytes that holds the format, the schema version and the SHA-256 of all
that follows. A damaged file is found there, before the HDF5 library sees it. Inside are a JSON manifest and
plain contiguous arrays, each with its own SHA-256. A seal says nothing about who wrote the file, so the HDF5 part is
parsed in the limited process of :mod:`snnsim.guard` only.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError, SnnsimFileError
from snnsim.files import atomic_path, canonical_json
from snnsim.guard import Parcel, run_guarded

__all__ = ["BLOCK", "SealedReader", "list_array", "one_sentence", "read_sealed", "save_sealed", "seal", "unpack_sealed"]

BLOCK = 512
"""Bytes in front of the HDF5 part."""

MAX_MANIFEST = 64 * 2**20
DTYPES = {kind: np.dtype(kind) for kind in ("<f8", "<f4", "<f2", "<i8", "<i4", "<u2", "|u1")}
Arrays = list[npt.NDArray[Any]]
T = TypeVar("T")


def _hash_after_block(path: Path) -> str:
    total = sha256()
    with open(path, "rb") as stream:
        stream.seek(BLOCK)
        while chunk := stream.read(2**20):
            total.update(chunk)
    return total.hexdigest()


def seal(path: str | Path, form: str, schema: int = 1) -> None:
    """Write the user block of a file whose HDF5 part is complete."""
    path = Path(path)
    text = f"{form} {schema} sha256 {_hash_after_block(path)}\n".encode()
    with open(path, "r+b") as stream:
        stream.write(text.ljust(BLOCK, b"\0"))


def list_array(array: npt.NDArray[Any], arrays: Arrays, listed: list[dict[str, Any]]) -> dict[str, int]:
    """Append an array and its entry in the manifest; return the reference to it."""
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    checksum = sha256(array.data if array.size else b"").hexdigest()
    arrays.append(array)
    listed.append({"dtype": array.dtype.str, "shape": list(array.shape), "sha256": checksum})
    return {"array": len(arrays) - 1}


def save_sealed(path: str | Path, manifest: dict[str, Any], arrays: Arrays) -> Path:
    """Write a manifest (with ``format`` and ``schema``) and its arrays, atomically."""
    import h5py

    text = np.frombuffer(canonical_json(manifest).encode(), dtype=np.uint8)
    with atomic_path(path) as temporary:
        with h5py.File(temporary, "w", userblock_size=BLOCK, track_order=False) as file:
            file.create_dataset("manifest", data=text)
            group = file.create_group("arrays")
            for number, array in enumerate(arrays):
                group.create_dataset(str(number), data=array)
        seal(temporary, manifest["format"], manifest["schema"])
    return Path(path)


def _check_seal(path: Path, form: str, known: int, writer: str) -> None:
    try:
        with open(path, "rb") as stream:
            block = stream.read(BLOCK)
    except OSError as error:
        raise SnnsimFileError(path, "", f"cannot be read ({error.strerror})") from error
    if not block.startswith(form.encode()):
        raise SnnsimFileError(path, "", f"is not a {form} file; expected one written by {writer}")
    match = re.match(form.encode() + rb" (\d{1,9}) sha256 ([0-9a-f]{64})\n\0*\Z", block)
    if match is None or len(block) < BLOCK:
        raise SnnsimFileError(path, "", "its first 512 bytes are damaged; copy or save it again")
    schema = int(match[1])
    if schema > known:
        raise SnnsimFileError(
            path, "", f"is written in schema {schema} and this snnsim reads up to {known}; install a newer snnsim"
        )
    if schema < 1:
        raise SnnsimFileError(path, "", f"names schema {schema}, which never existed")
    if _hash_after_block(path) != match[2].decode():
        raise SnnsimFileError(
            path, "", "sha256 mismatch: its content changed after it was written; copy or save it again"
        )


@contextmanager
def one_sentence(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file causes into one :class:`SnnsimFileError`."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        if isinstance(error, SnnsimFileError):
            raise
        if isinstance(error, InputError):
            raise SnnsimFileError(path, "content", str(error)) from error
        if isinstance(error, RecursionError):
            raise SnnsimFileError(path, "", "is nested deeper than can be read") from error
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise SnnsimFileError(path, "", f"HDF5 cannot read it ({reason}); save it again") from error
    except (MemoryError, OverflowError) as error:
        raise SnnsimFileError(path, "", f"declares more than can be read ({type(error).__name__})") from error


def read_sealed(path: str | Path, form: str, schema: int, writer: str, build: Callable[[SealedReader], T]) -> T:
    """Read a sealed file and return what ``build`` makes of it; every problem is one :class:`SnnsimFileError`.

    The seal is checked here. The HDF5 part is parsed, and ``build`` tried, in the limited process of
    :mod:`snnsim.guard`; what passed there is built again here, from plain arrays.

    Args:
        path: The file.
        form: What its first bytes and its manifest must say.
        schema: Newest known schema version.
        writer: What writes such files, for messages.
        build: A function of a module (the other process must find it by name) that checks and uses a reader.
    """
    path = Path(path)
    _check_seal(path, form, schema, writer)
    parcel = run_guarded(
        f"{__name__}:unpack_sealed",
        {
            "path": os.path.abspath(path),
            "shown": str(path),
            "form": form,
            "schema": schema,
            "build": f"{build.__module__}:{build.__qualname__}",
        },
        path=path,
        imports=[build.__module__],
    )
    manifest, *arrays = parcel.arrays
    with one_sentence(path):
        return build(SealedReader(path, _manifest(path, manifest, form, schema), arrays))


def unpack_sealed(path: str, shown: str, form: str, schema: int, build: str) -> Parcel:
    """Read the HDF5 part of a sealed file and try what will be built of it (runs in the limited process).

    Args:
        path: The file.
        shown: The name to use in messages.
        form: See :func:`read_sealed`.
        schema: See :func:`read_sealed`.
        build: The function, as ``"module:function"``.

    Returns:
        The bytes of the manifest, uint8, and after them the arrays in the order of their numbers.
    """
    import h5py

    module, _, name = build.partition(":")
    with one_sentence(Path(shown)):
        with h5py.File(path, "r", locking=False) as file:
            content = _Content(Path(shown), file, os.path.getsize(path))
            data = content.manifest()
            manifest = _manifest(content.path, data, form, schema)
            arrays = content.arrays(manifest)
        getattr(import_module(module), name)(SealedReader(content.path, manifest, arrays))
    return Parcel(None, [data, *arrays])


def _manifest(path: Path, data: npt.NDArray[Any], form: str, schema: int) -> dict[str, Any]:
    """Parse the bytes of a manifest."""

    def refuse(name: str) -> Any:
        raise ValueError(f"{name} is not JSON")

    try:
        value = json.loads(data.tobytes().decode(), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise SnnsimFileError(path, "manifest", f"is not readable JSON ({error})") from error
    if not isinstance(value, dict):
        raise SnnsimFileError(path, "manifest", f"expected a JSON object, got {type(value).__name__}")
    if value.get("format") != form or value.get("schema") != schema:
        raise SnnsimFileError(path, "manifest", f"expected format {form!r} in schema {schema}")
    return value


class _Content:
    """The HDF5 part of an open sealed file of ``size`` bytes."""

    def __init__(self, path: Path, file: Any, size: int) -> None:
        self.path = path
        self.file = file
        self.size = size

    def fail(self, item: str, reason: str) -> SnnsimFileError:
        return SnnsimFileError(self.path, item, reason)

    def dataset(self, name: str) -> Any:
        """Return a plain data set of this file, whose bytes all lie in it."""
        import h5py

        parent: Any = self.file
        for part in name.split("/"):
            link = parent.get(part, getlink=True) if isinstance(parent, h5py.Group) else None
            if link is None:
                raise self.fail(name, "is missing")
            if not isinstance(link, h5py.HardLink):
                raise self.fail(name, "is a link to another place; expected the data themselves")
            parent = parent[part]
        if not isinstance(parent, h5py.Dataset) or parent.shape is None:
            raise self.fail(name, "expected a data set")
        if parent.dtype.kind not in "iuf":
            raise self.fail(name, f"expected plain numbers, got {parent.dtype}")
        if parent.chunks is not None or parent.is_virtual or parent.external:
            raise self.fail(name, "expected a contiguous data set inside the file")
        size = int(np.prod([int(length) for length in parent.shape], dtype=object)) * parent.dtype.itemsize
        if size > self.size or (size and parent.id.get_storage_size() != size):
            raise self.fail(name, f"declares {size} bytes, the whole file has {self.size}")
        return parent

    def manifest(self) -> npt.NDArray[Any]:
        data = self.dataset("manifest")
        if data.dtype != np.uint8 or data.ndim != 1 or data.shape[0] > MAX_MANIFEST:
            raise self.fail("manifest", f"expected at most {MAX_MANIFEST} bytes, got {data.dtype} {data.shape}")
        return np.asarray(data[()])

    def arrays(self, manifest: dict[str, Any]) -> Arrays:
        """Read all arrays, each checked against its entry in the manifest."""
        reader = SealedReader(self.path, manifest, [])
        found: Arrays = []
        total = 0
        for number, entry in enumerate(reader.get(manifest, "arrays", list, "")):
            item = f"arrays/{number}"
            dtype = reader.get(entry, "dtype", str, f"{item} ")
            shape = tuple(reader.get(entry, "shape", list, f"{item} "))
            checksum = reader.get(entry, "sha256", str, f"{item} ")
            data = self.dataset(item)
            if dtype not in DTYPES or data.dtype != DTYPES[dtype]:
                raise self.fail(item, f"expected {dtype} of {sorted(DTYPES)}, got {data.dtype.str}")
            if data.shape != shape:
                raise self.fail(item, f"expected shape {shape}, got {data.shape}")
            total += data.nbytes
            if total > self.size:
                raise self.fail(
                    item, f"the arrays overlap: together they declare more than the file's {self.size} bytes"
                )
            value = np.ascontiguousarray(data[()])
            if sha256(value.data if value.size else b"").hexdigest() != checksum:
                raise self.fail(item, "sha256 mismatch: the array changed after it was written; save it again")
            native: npt.NDArray[Any] = value.astype(value.dtype.newbyteorder("="), copy=False)
            native.setflags(write=False)  # so that a network takes it without a copy
            found.append(native.reshape(data.shape))
        return found


class SealedReader:
    """The content of a sealed file: its manifest, with the checks it needs, and its arrays.

    Args:
        path: The file, for messages.
        manifest: The JSON object.
        arrays: The arrays by number; they become read-only.
    """

    def __init__(self, path: Path, manifest: dict[str, Any], arrays: Arrays) -> None:
        self.path = path
        self.manifest = manifest
        self.arrays = arrays
        for array in arrays:
            array.setflags(write=False)

    def fail(self, item: str, reason: str) -> SnnsimFileError:
        """Return the error that names this file and the item."""
        return SnnsimFileError(self.path, item, reason)

    def get(self, record: Any, key: str, kind: type | tuple[type, ...], where: str) -> Any:
        """Return ``record[key]`` after checking its JSON type (an integer is accepted as a number)."""
        if not isinstance(record, dict):
            raise self.fail(f"manifest {where}", f"expected an object, got {type(record).__name__}")
        if key not in record:
            raise self.fail(f"manifest {where}{key}", "is missing")
        value = record[key]
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if float in kinds:
            kinds = (*kinds, int)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            expected = " or ".join(sorted({item.__name__ for item in kinds}))
            raise self.fail(f"manifest {where}{key}", f"expected {expected}, got {type(value).__name__}")
        return value

    def only(self, record: dict[str, Any], known: set[str], where: str) -> None:
        """Refuse keys that are not known."""
        unknown = sorted(set(record) - known)
        if unknown:
            raise self.fail(f"manifest {where}{unknown[0]}", "is not known in this schema")

    def array(self, reference: Any, where: str) -> npt.NDArray[Any]:
        """Return the array that ``{"array": number}`` refers to, read-only."""
        number: int = self.get(reference, "array", int, where)
        if not 0 <= number < len(self.arrays):
            raise self.fail(f"manifest {where}array", f"expected 0 to {len(self.arrays) - 1}, got {number}")
        return self.arrays[number]

    def number_or_array(self, record: Any, key: str, where: str) -> Any:
        """Return ``record[key]``, a number or a reference to an array."""
        value = self.get(record, key, (float, dict), where)
        return self.array(value, f"{where}{key}.") if isinstance(value, dict) else float(value)

    def build(self, where: str, make: Callable[[], Any]) -> Any:
        """Run a constructor; what it refuses is the file's fault."""
        try:
            return make()
        except InputError as error:
            raise self.fail(f"manifest {where}", str(error)) from error
