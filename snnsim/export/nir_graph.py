"""NIR files as plain values: named nodes, edges, metadata, and their HDF5 layout.

The Neuromorphic Intermediate Representation (Pedersen et al., Nature Communications 2024) stores a graph
of computing nodes. This module reads and writes the file; it does not know what a node computes. Our own
writer exists because the library's always stores ``v_reset``, which older readers refuse.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from keyword import iskeyword
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError, SnnsimFileError
from snnsim.files import atomic_path

__all__ = ["NIR_VERSION", "Graph", "Node", "file_errors", "identifier", "nir_limits", "read_graph", "write_graph"]

NIR_VERSION = "1.0.8"
"""Version string written into files: the release of the nir package whose layout this is."""

MAX_BYTES = 4 << 30
"""Largest size, in bytes, that one file may declare for one array and for all of them together."""

COMPRESS_FROM = 4096
"""Arrays with at least this many numbers are stored compressed."""

RESERVED = frozenset(
    {
        *("apply", "buffers", "children", "clear", "compile", "cpu", "cuda", "double", "eval"),
        *("float", "forward", "half", "input", "items", "keys", "modules", "parameters", "pop"),
        *("state", "state_dict", "to", "train", "training", "type", "update", "values"),
    }
)
"""Node names that readers built on torch modules cannot use."""

MAX_NODES = 100_000
MAX_DEPTH = 8
LONGEST_NAME = 200


@dataclass(frozen=True)
class Node:
    """One node: its NIR type, its arrays by field name, and free-form metadata."""

    kind: str
    values: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass
class Graph:
    """Nodes by name in the order of the file, directed edges, metadata. Several edges into a node add up."""

    nodes: dict[str, Node] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, kind: str, metadata: dict[str, Any] | None = None, **values: npt.ArrayLike) -> str:
        """Add a node under ``name`` (a number is appended if the name is taken) and return its name."""
        unique, number = name, 1
        while unique in self.nodes:
            number += 1
            unique = f"{name}_{number}"
        self.nodes[unique] = Node(kind, {key: np.asarray(value) for key, value in values.items()}, metadata or {})
        return unique

    def connect(self, *names: str) -> None:
        """Join the named nodes one after the other."""
        self.edges.extend(pairwise(names))


def identifier(name: str) -> str:
    """Return ``name`` with every character that a Python identifier cannot hold replaced by ``_``.

    >>> identifier("hidden 1->out")
    'hidden_1__out'
    """
    text = "".join(letter if letter.isascii() and (letter.isalnum() or letter == "_") else "_" for letter in name)
    if text in RESERVED or iskeyword(text):
        return f"{text}_"
    return text if text and not text[0].isdigit() else f"n{text}"


def write_graph(path: str | Path, graph: Graph) -> None:
    """Write ``graph`` as a NIR file (HDF5), atomically; nodes keep their order.

    Raises:
        SnnsimFileError: The file cannot be written.
    """
    import h5py

    text = h5py.string_dtype()

    def store(group: Any, name: str, value: Any) -> None:
        if isinstance(value, (dict, list, tuple)):
            value = json.dumps(value, sort_keys=True)
        if isinstance(value, str):
            group.create_dataset(name, data=value, dtype=text)
            return
        array = np.asarray(value)
        if array.size >= COMPRESS_FROM:
            group.create_dataset(name, data=array, compression="gzip", compression_opts=4, shuffle=True)
        else:
            group.create_dataset(name, data=array)

    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        store(file, "version", NIR_VERSION)
        root = file.create_group("node")
        store(root, "type", "NIRGraph")
        edges = np.array(graph.edges, dtype=object).reshape(-1, 2)
        root.create_dataset("edges", data=edges, dtype=text)
        nodes = root.create_group("nodes", track_order=True)
        for name, node in graph.nodes.items():
            group = nodes.create_group(name)
            store(group, "type", node.kind)
            for key, value in node.values.items():
                store(group, key, value)
            _store_metadata(store, group, node.metadata)
        _store_metadata(store, root, graph.metadata)


def _store_metadata(store: Any, group: Any, metadata: dict[str, Any]) -> None:
    if metadata:
        inner = group.create_group("metadata")
        for key, value in metadata.items():
            store(inner, key, value)


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Turn what h5py raises for a damaged file into one sentence."""
    try:
        yield
    except FileNotFoundError as error:
        raise SnnsimFileError(path, "", "no such file; give the path of a .nir file") from error
    except InputError as error:
        raise SnnsimFileError(path, "", str(error)) from error
    except SnnsimFileError:
        raise
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError, UnicodeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SnnsimFileError(path, "", f"is not a readable NIR file (HDF5): {reason}") from error


def nir_limits(size: int) -> tuple[float, int]:
    """Return the CPU seconds and the bytes of memory allowed for reading a NIR file of ``size`` bytes.

    Delay lines hold mostly zeros and are stored compressed: their arrays take a hundred times the file's size.
    """
    return 0.75 + size / (1 << 20), (2 << 30) + 64 * size


def read_graph(path: str | Path, shown: str | Path | None = None) -> Graph:
    """Read a NIR file; nested graphs are joined into one, their nodes named ``outer/inner``.

    This opens the file with the HDF5 library. :func:`snnsim.export.nir_read.read_nir`, which takes files from
    anywhere, calls it in the limited process of :mod:`snnsim.guard`.

    Args:
        path: The file.
        shown: The name to use in messages; default ``path``.

    Raises:
        SnnsimFileError: Not a NIR file, damaged, or declaring more data than 4 GiB.
    """
    import h5py

    opened, path = path, Path(path if shown is None else shown)
    with file_errors(path), h5py.File(opened, "r") as file:
        if not isinstance(file.get("node"), h5py.Group):
            raise SnnsimFileError(path, "/node", "expected the group of a NIR graph; is this a NIR file?")
        graph = Graph()
        reader = _Reader(path, h5py)
        root = reader.child(file, "node")
        kind = reader.text(root, "type")
        if kind != "NIRGraph":
            graph.nodes["node"] = reader.node(root, kind)
            return graph
        reader.graph(root, "", graph, 0)
        graph.metadata = reader.metadata(root)
    _check_edges(path, graph)
    return graph


def _check_edges(path: Path, graph: Graph) -> None:
    for edge in graph.edges:
        for name in edge:
            if name not in graph.nodes:
                source, target = (end[:80] for end in edge)
                raise SnnsimFileError(path, "edges", f"edge {source!r} -> {target!r} names no node {name[:80]!r}")


class _Reader:
    """Reads groups of one open file and keeps count of the bytes it has declared."""

    def __init__(self, path: Path, h5py: Any) -> None:
        self.path = path
        self.h5py = h5py
        self.bytes = 0
        self.nodes = 0

    def fail(self, item: Any, reason: str) -> SnnsimFileError:
        return SnnsimFileError(self.path, " ".join(str(item)[:160].split()), reason)

    def child(self, group: Any, name: str) -> Any:
        """Return what a group holds under a name; links are not followed."""
        if not isinstance(group, self.h5py.Group):
            raise self.fail(group.name, "expected a group, found an array")
        place = f"{group.name}/{name}"
        link = group.get(name, getlink=True)
        if link is None:
            raise self.fail(place, "missing; is this a NIR file?")
        if not isinstance(link, self.h5py.HardLink):
            raise self.fail(place, "is a link to another place; expected the data themselves")
        return group[name]

    def array(self, dataset: Any) -> npt.NDArray[Any]:
        if not isinstance(dataset, self.h5py.Dataset):
            raise self.fail(dataset.name, "expected an array, found a group")
        size = int(np.prod(dataset.shape, dtype=np.float64)) * max(1, dataset.dtype.itemsize) if dataset.shape else 64
        self.bytes += size
        if self.bytes > MAX_BYTES:
            raise self.fail(dataset.name, f"the file declares more than {MAX_BYTES >> 30} GiB of arrays; refused")
        if dataset.is_virtual or dataset.external:
            raise self.fail(dataset.name, "array lies in another file; copy it into this one")
        return np.asarray(dataset[()])

    def text(self, group: Any, name: str) -> str:
        item = self.child(group, name)
        if not isinstance(item, self.h5py.Dataset) or item.size != 1:
            raise self.fail(f"{group.name}/{name}", "expected one string")
        value = self.array(item).reshape(-1)[0]
        if isinstance(value, bytes):
            return value.decode("utf8")
        if isinstance(value, str):
            return value
        raise self.fail(f"{group.name}/{name}", f"expected a string, got {type(value).__name__}")

    def metadata(self, group: Any) -> dict[str, Any]:
        result: dict[str, Any] = {}
        inner = self.child(group, "metadata") if "metadata" in group else None
        if isinstance(inner, self.h5py.Group):
            for key in inner:
                item = self.child(inner, key)
                if isinstance(item, self.h5py.Dataset):
                    value: Any = self.array(item)
                    value = value[()] if value.ndim == 0 else value
                    result[key] = value.decode("utf8") if isinstance(value, bytes) else value
        return result

    def node(self, group: Any, kind: str) -> Node:
        values: dict[str, npt.NDArray[Any]] = {}
        for key in group:
            if key in ("type", "metadata"):
                continue
            item = self.child(group, key)
            array = self.array(item)
            if array.dtype.kind in "fiub":
                if array.dtype.kind == "f" and not np.all(np.isfinite(array)):
                    raise self.fail(item.name, "expected finite numbers, got nan or infinity")
                values[key] = array
            else:
                values[key] = np.asarray(self.text(group, key))
        return Node(kind, values, self.metadata(group))

    def graph(self, group: Any, prefix: str, graph: Graph, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise self.fail(group.name, f"graphs nested deeper than {MAX_DEPTH}; flatten them")
        if "nodes" not in group or "edges" not in group:
            raise self.fail(group.name, "a NIR graph needs the groups 'nodes' and 'edges'")
        nested: dict[str, tuple[list[str], list[str]]] = {}
        nodes = self.child(group, "nodes")
        for name in nodes if isinstance(nodes, self.h5py.Group) else ():
            item = self.child(nodes, name)
            self.nodes += 1
            if self.nodes > MAX_NODES:
                raise self.fail(item.name, f"more than {MAX_NODES} nodes; refused")
            if len(name) > LONGEST_NAME:
                raise self.fail(item.name, f"the name has {len(name)} characters; expected at most {LONGEST_NAME}")
            kind = self.text(item, "type")
            full = prefix + name
            if kind == "NIRGraph":
                before = len(graph.nodes)
                self.graph(item, f"{full}/", graph, depth + 1)
                inner = list(graph.nodes)[before:]
                own = [key for key in inner if "/" not in key[len(full) + 1 :]]
                nested[full] = (
                    [key for key in own if graph.nodes[key].kind == "Input"],
                    [key for key in own if graph.nodes[key].kind == "Output"],
                )
                for key in inner:
                    old = graph.nodes[key]
                    if old.kind in ("Input", "Output") and key in own:
                        graph.nodes[key] = Node("Identity", old.values, old.metadata)
            else:
                graph.nodes[full] = self.node(item, kind)
        edges = self.array(self.child(group, "edges"))
        if edges.size and (edges.ndim != 2 or edges.shape[1] != 2 or edges.dtype.kind not in "OSU"):
            raise self.fail(f"{group.name}/edges", "expected pairs of names")
        for row in edges if edges.size else []:
            source, target = (part.decode("utf8") if isinstance(part, bytes) else str(part) for part in row)
            sources = nested[prefix + source][1] if prefix + source in nested else [prefix + source]
            targets = nested[prefix + target][0] if prefix + target in nested else [prefix + target]
            if len(sources) != 1 or len(targets) != 1:
                raise self.fail(f"{group.name}/edges", "a nested graph must have one input and one output to be joined")
            graph.edges.append((sources[0], targets[0]))
