"""Sealed HDF5 files, and the network file as one of them; layout in ``docs/formats.md``.

A sealed file starts with a user block of 512 bytes that holds the format, the schema version and the SHA-256 of all
that follows. A damaged file is found there, before the HDF5 library sees it. Inside are a JSON manifest and
plain contiguous arrays, each with its own SHA-256.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError, SnnsimFileError
from snnsim.files import atomic_path, canonical_json, sha256_bytes
from snnsim.network import Input, Network, Population, Projection, Readout, Sparse
from snnsim.neurons import NEURONS, Neuron

if TYPE_CHECKING:
    import h5py

__all__ = [
    "SCHEMA",
    "SealedReader",
    "describe",
    "list_array",
    "load_network",
    "open_sealed",
    "save_network",
    "save_sealed",
    "seal",
]

SCHEMA = 1
FORMAT = "snnsim network"
BLOCK = 512
MAX_MANIFEST = 64 * 2**20
DTYPES = {"<f8": np.dtype("<f8"), "<i8": np.dtype("<i8"), "<i4": np.dtype("<i4")}
Arrays = list[npt.NDArray[Any]]


def describe(network: Network) -> tuple[dict[str, Any], Arrays]:
    """Return the manifest of a network and the arrays it refers to by number."""
    arrays: Arrays = []
    listed: list[dict[str, Any]] = []

    def put(value: Any) -> Any:
        return list_array(value, arrays, listed) if isinstance(value, np.ndarray) else value

    def neuron(record: Neuron) -> dict[str, Any]:
        return {"kind": record.kind, "parameters": {name: put(value) for name, value in record.parameters().items()}}

    def weight(value: npt.NDArray[np.float64] | Sparse) -> dict[str, Any]:
        if isinstance(value, Sparse):
            parts = {name: put(getattr(value, name)) for name in ("indptr", "target", "weight")}
            return {"sparse": {**parts, "shape": list(value.shape)}}
        return {"dense": put(value)}

    readout = network.readout
    manifest = {
        "format": FORMAT,
        "schema": SCHEMA,
        "dt": network.dt,
        "inputs": [{"name": item.name, "size": item.size} for item in network.inputs],
        "populations": [
            {
                "name": item.name,
                "size": item.size,
                "start_step": item.start_step,
                "stop_step": item.stop_step,
                "neuron": neuron(item.neuron),
            }
            for item in network.populations
        ],
        "projections": [
            {
                "source": item.source,
                "target": item.target,
                "weight": weight(item.weight),
                "delay": put(item.delay),
            }
            for item in network.projections
        ],
        "readout": None if readout is None else {item.name: getattr(readout, item.name) for item in fields(readout)},
        "notes": network.notes,
        "arrays": listed,
    }
    return manifest, arrays


def _hash_after_block(path: Path) -> str:
    total = sha256()
    with open(path, "rb") as stream:
        stream.seek(BLOCK)
        while chunk := stream.read(2**20):
            total.update(chunk)
    return total.hexdigest()


def seal(path: str | Path, form: str = FORMAT, schema: int = SCHEMA) -> None:
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


def save_network(network: Network, path: str | Path) -> Path:
    """Write ``network`` to ``path`` atomically; equal networks with equal notes give equal bytes."""
    return save_sealed(path, *describe(network))


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
def open_sealed(path: str | Path, form: str, schema: int, writer: str) -> Iterator[SealedReader]:
    """Open a sealed file; every problem in the block is one :class:`SnnsimFileError`.

    Args:
        path: The file.
        form: What its first bytes and its manifest must say.
        schema: Newest known schema version.
        writer: What writes such files, for messages.
    """
    path = Path(path)
    _check_seal(path, form, schema, writer)
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:
            reader = SealedReader(path, file)
            reader.manifest = reader.text()
            if reader.manifest.get("format") != form or reader.manifest.get("schema") != schema:
                raise reader.fail("manifest", f"expected format {form!r} in schema {schema}")
            yield reader
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        if isinstance(error, SnnsimFileError):
            raise
        if isinstance(error, InputError):
            raise SnnsimFileError(path, "content", str(error)) from error
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise SnnsimFileError(path, "", f"HDF5 cannot read it ({reason}); save it again") from error
    except (MemoryError, RecursionError, OverflowError) as error:
        raise SnnsimFileError(path, "", f"declares more than can be read ({type(error).__name__})") from error


def load_network(path: str | Path) -> Network:
    """Read a network file; every problem is one :class:`SnnsimFileError`."""
    with open_sealed(path, FORMAT, SCHEMA, "Network.save") as reader:
        return _NetworkReader(reader).network()


class SealedReader:
    """One open sealed file: its manifest, and arrays checked against it."""

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path = path
        self.file = file
        self.bytes = path.stat().st_size
        self.arrays: dict[int, npt.NDArray[Any]] = {}
        self.manifest: dict[str, Any] = {}

    def fail(self, item: str, reason: str) -> SnnsimFileError:
        """Return the error that names this file and the item."""
        return SnnsimFileError(self.path, item, reason)

    def dataset(self, name: str) -> h5py.Dataset:
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
        if size > self.bytes or (size and parent.id.get_storage_size() != size):
            raise self.fail(name, f"declares {size} bytes, the whole file has {self.bytes}")
        return parent

    def text(self) -> dict[str, Any]:
        """Read the manifest."""
        data = self.dataset("manifest")
        if data.dtype != np.uint8 or data.ndim != 1 or data.shape[0] > MAX_MANIFEST:
            raise self.fail("manifest", f"expected at most {MAX_MANIFEST} bytes, got {data.dtype} {data.shape}")

        def refuse(name: str) -> Any:
            raise ValueError(f"{name} is not JSON")

        try:
            value = json.loads(bytes(data[()]).decode(), parse_constant=refuse)
        except (ValueError, RecursionError) as error:
            raise self.fail("manifest", f"is not readable JSON ({error})") from error
        if not isinstance(value, dict):
            raise self.fail("manifest", f"expected a JSON object, got {type(value).__name__}")
        return value

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
        """Return the array that ``{"array": number}`` refers to, read-only, checked against its entry."""
        number = self.get(reference, "array", int, where)
        listed = self.get(self.manifest, "arrays", list, "")
        if not 0 <= number < len(listed):
            raise self.fail(f"manifest {where}array", f"expected 0 to {len(listed) - 1}, got {number}")
        if number not in self.arrays:
            item = f"arrays/{number}"
            entry = listed[number]
            dtype = self.get(entry, "dtype", str, f"{item} ")
            shape = tuple(self.get(entry, "shape", list, f"{item} "))
            checksum = self.get(entry, "sha256", str, f"{item} ")
            data = self.dataset(item)
            if dtype not in DTYPES or data.dtype != DTYPES[dtype]:
                raise self.fail(item, f"expected {dtype} of {sorted(DTYPES)}, got {data.dtype.str}")
            if data.shape != shape:
                raise self.fail(item, f"expected shape {shape}, got {data.shape}")
            value = np.ascontiguousarray(data[()])
            if sha256_bytes(value.tobytes()) != checksum:
                raise self.fail(item, "sha256 mismatch: the array changed after it was written; save it again")
            value = value.astype(value.dtype.newbyteorder("="), copy=False)
            value.setflags(write=False)
            self.arrays[number] = value
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


class _NetworkReader:
    """The network in an open file."""

    def __init__(self, reader: SealedReader) -> None:
        self.manifest = reader.manifest
        self.fail = reader.fail
        self.get = reader.get
        self.only = reader.only
        self.array = reader.array
        self.number_or_array = reader.number_or_array
        self.build = reader.build

    def neuron(self, record: Any, where: str) -> Neuron:
        kind = self.get(record, "kind", str, where)
        if kind not in NEURONS:
            raise self.fail(f"manifest {where}kind", f"expected one of {sorted(NEURONS)}, got {kind[:40]!r}")
        values = self.get(record, "parameters", dict, where)
        self.only(record, {"kind", "parameters"}, where)
        known = {item.name: item for item in fields(NEURONS[kind])}
        self.only(values, set(known), f"{where}parameters.")
        missing = sorted(set(known) - set(values))
        if missing:
            raise self.fail(f"manifest {where}parameters.{missing[0]}", "is missing")
        parameters: dict[str, Any] = {}
        for name in values:
            inner = f"{where}parameters."
            if name == "strict":
                parameters[name] = self.get(values, name, bool, inner)
            elif name == "reset":
                parameters[name] = self.get(values, name, str, inner)
            elif values[name] is None and known[name].default is None:
                parameters[name] = None
            else:
                parameters[name] = self.number_or_array(values, name, inner)
        neuron: Neuron = self.build(where, lambda: NEURONS[kind](**parameters))
        return neuron

    def population(self, record: Any, where: str) -> Population:
        name = self.get(record, "name", str, where)
        size = self.get(record, "size", int, where)
        start = self.get(record, "start_step", int, where)
        stop = self.get(record, "stop_step", (int, type(None)), where)
        neuron = self.neuron(self.get(record, "neuron", dict, where), f"{where}neuron.")
        self.only(record, {"name", "size", "start_step", "stop_step", "neuron"}, where)
        population: Population = self.build(where, lambda: Population(name, size, neuron, start, stop))
        return population

    def projection(self, record: Any, where: str) -> Projection:
        source = self.get(record, "source", str, where)
        target = self.get(record, "target", str, where)
        stored = self.get(record, "weight", dict, where)
        delay = self.number_or_array(record, "delay", where)
        self.only(record, {"source", "target", "weight", "delay"}, where)
        self.only(stored, {"dense"} if "dense" in stored else {"sparse"}, f"{where}weight.")
        weight: Any
        if "dense" in stored:
            weight = self.array(stored["dense"], f"{where}weight.dense.")
        else:
            sparse = self.get(stored, "sparse", dict, f"{where}weight.")
            inner = f"{where}weight.sparse."
            parts = {name: self.array(sparse.get(name), f"{inner}{name}.") for name in ("indptr", "target", "weight")}
            shape = self.get(sparse, "shape", list, inner)
            weight = self.build(where, lambda: Sparse(**parts, shape=tuple(shape)))
        projection: Projection = self.build(where, lambda: Projection(source, target, weight, delay))
        return projection

    def readout(self, record: Any) -> Readout | None:
        if record is None:
            return None
        known = {item.name for item in fields(Readout)}
        self.only(record, known, "readout.")
        values = {name: self.get(record, name, (str, int), "readout.") for name in known}
        readout: Readout = self.build("readout", lambda: Readout(**values))
        return readout

    def network(self) -> Network:
        manifest = self.manifest
        self.only(
            manifest,
            {"format", "schema", "dt", "inputs", "populations", "projections", "readout", "notes", "arrays"},
            "",
        )
        inputs = []
        for number, record in enumerate(self.get(manifest, "inputs", list, "")):
            where = f"inputs[{number}]."
            name, size = self.get(record, "name", str, where), self.get(record, "size", int, where)
            self.only(record, {"name", "size"}, where)
            inputs.append(self.build(where, lambda name=name, size=size: Input(name, size)))  # type: ignore[misc]
        populations = self.get(manifest, "populations", list, "")
        projections = self.get(manifest, "projections", list, "")
        return Network(
            populations=tuple(self.population(item, f"populations[{k}].") for k, item in enumerate(populations)),
            projections=tuple(self.projection(item, f"projections[{k}].") for k, item in enumerate(projections)),
            inputs=tuple(inputs),
            readout=self.readout(self.get(manifest, "readout", (dict, type(None)), "")),
            dt=self.get(manifest, "dt", float, ""),
            notes=self.get(manifest, "notes", dict, ""),
        )
