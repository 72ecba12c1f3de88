"""The layout of a SONATA folder: nodes and edges in HDF5, types in CSV, configurations in JSON, spikes, scripts.

Plain values in, files out; what a population computes is not known here. The folder is written under another name and
renamed when it is whole.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.errors import SnnsimFileError

__all__ = ["MAGIC", "Edges", "Folder", "Nodes", "Spikes", "write_folder", "write_spikes"]

MAGIC = 0x0A7A
"""Attribute ``magic`` of every SONATA file."""

VERSION = (0, 1)
ABOUT = "snnsim.json"
SCRIPTS = {"run_nest.py": "sonata_run_nest.py"}
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Nodes:
    """One population of the file.

    Attributes:
        name: Name in the files.
        label: Name in the network.
        size: Nodes.
        model: NEST's model; empty for a virtual population, whose spikes are given.
        dynamics: Parameters of the model in NEST's units, each ``(size,)``.
        attributes: Further numbers of each node, ``(size,)``.
        latency: Steps by which it lives later than in the network.
        spiking: Whether it has a threshold.
    """

    name: str
    label: str
    size: int
    model: str = ""
    dynamics: dict[str, Floats] = field(default_factory=dict)
    attributes: dict[str, Floats] = field(default_factory=dict)
    latency: int = 0
    spiking: bool = True


@dataclass(frozen=True)
class Edges:
    """All synapses from one population to another; delays in ms."""

    source: str
    target: str
    source_id: Integers
    target_id: Integers
    weight: Floats
    delay: Floats


@dataclass(frozen=True)
class Spikes:
    """Spikes of one population: times in ms and nodes."""

    name: str
    times: npt.NDArray[np.floating[Any]]
    nodes: Integers


@dataclass(frozen=True)
class Folder:
    """Everything in a folder; ``step`` in ms, ``about`` goes to ``snnsim.json``."""

    nodes: list[Nodes]
    edges: list[Edges]
    spikes: list[Spikes]
    step: float
    n_steps: int
    about: dict[str, Any]


def write_folder(path: str | Path, content: Folder) -> None:
    """Write a SONATA folder, whole or not at all.

    Raises:
        SnnsimFileError: It cannot be written, or something that is no SONATA folder of snnsim lies there.
    """
    path = Path(path)
    if path.is_symlink() or (
        path.exists() and not (path.is_dir() and ((path / ABOUT).is_file() or not any(path.iterdir())))
    ):
        raise SnnsimFileError(path, "", "something else lies there; choose another place for the SONATA folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    except OSError as error:
        raise SnnsimFileError(path, "", f"cannot be written ({error.strerror}); choose another place") from error
    try:
        new, old = work / "new", work / "old"
        new.mkdir()
        _write(new, content)
        if path.exists():
            os.replace(path, old)
        os.replace(new, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise SnnsimFileError(path, "", f"could not be written ({reason}); nothing was left behind") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _write(folder: Path, content: Folder) -> None:
    for name in ("network", "components", "inputs"):
        (folder / name).mkdir()
    _write_nodes(folder, content.nodes)
    named = _name_edges(content.edges)
    _write_edges(folder, named)
    write_spikes(folder / "inputs" / "spikes.h5", content.spikes)
    circuit = {
        "version": 2,
        "manifest": {"$BASE_DIR": ".", "$NETWORK_DIR": "$BASE_DIR/network"},
        "components": {"point_neuron_models_dir": "$BASE_DIR/components"},
        "networks": {
            "nodes": [
                {
                    "nodes_file": "$NETWORK_DIR/nodes.h5",
                    "node_types_file": "$NETWORK_DIR/node_types.csv",
                    "populations": {
                        item.name: {"type": "point_neuron" if item.model else "virtual"} for item in content.nodes
                    },
                }
            ],
            "edges": [
                {
                    "edges_file": "$NETWORK_DIR/edges.h5",
                    "edge_types_file": "$NETWORK_DIR/edge_types.csv",
                    "populations": {name: {"type": "chemical"} for name in named},
                }
            ],
        },
    }
    simulation = {
        "version": 2,
        "manifest": {"$BASE_DIR": "."},
        "network": "$BASE_DIR/circuit_config.json",
        "run": {"tstart": 0.0, "tstop": content.n_steps * content.step, "dt": content.step, "random_seed": 0},
        "inputs": {
            "spikes": {
                "input_type": "spikes",
                "module": "synapse_replay",
                "spike_file": "$BASE_DIR/inputs/spikes.h5",
                "delay": 0.0,
                "duration": content.n_steps * content.step,
                "node_set": "All",
            }
        },
        "output": {"output_dir": "$BASE_DIR/output", "spikes_file": "spikes.h5"},
    }
    _json(folder / "circuit_config.json", circuit)
    _json(folder / "simulation_config.json", simulation)
    _json(folder / ABOUT, content.about)
    for name, module in SCRIPTS.items():
        shutil.copyfile(Path(__file__).with_name(module), folder / name)


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _table(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write a CSV as SONATA has it: separated by spaces."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=" ", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _mark(file: Any) -> None:
    file.attrs["magic"] = np.uint32(MAGIC)
    file.attrs["version"] = np.array(VERSION, dtype=np.uint32)


def _write_nodes(folder: Path, nodes: list[Nodes]) -> None:
    import h5py

    rows: list[dict[str, Any]] = []
    with h5py.File(folder / "network" / "nodes.h5", "w") as file:
        _mark(file)
        root = file.create_group("nodes", track_order=True)
        for number, item in enumerate(nodes):
            group = root.create_group(item.name)
            group["node_type_id"] = np.full(item.size, number, dtype=np.uint64)
            group["node_id"] = np.arange(item.size, dtype=np.uint64)
            group["node_group_id"] = np.zeros(item.size, dtype=np.uint64)
            group["node_group_index"] = np.arange(item.size, dtype=np.uint64)
            inner = group.create_group("0")
            for key, value in item.attributes.items():
                inner[key] = value
            common: dict[str, float] = {}
            for key, value in item.dynamics.items():
                if np.all(value == value[0]):
                    common[key] = float(value[0])
                else:
                    inner[f"dynamics_params/{key}"] = value
            if item.model:
                _json(folder / "components" / f"{item.name}.json", common)
            rows.append(
                {
                    "node_type_id": number,
                    "pop_name": item.label,
                    "population": item.name,
                    "model_type": "point_neuron" if item.model else "virtual",
                    "model_template": f"nest:{item.model}" if item.model else "NULL",
                    "dynamics_params": f"{item.name}.json" if item.model else "NULL",
                    "latency_steps": item.latency,
                    "spiking": int(item.spiking),
                }
            )
    _table(folder / "network" / "node_types.csv", rows)


def _name_edges(edges: list[Edges]) -> dict[str, Edges]:
    """Return the edge populations by name, each once."""
    named: dict[str, Edges] = {}
    for item in edges:
        name = f"{item.source}__{item.target}"
        while name in named:
            name += "_"
        named[name] = item
    return named


def _write_edges(folder: Path, edges: dict[str, Edges]) -> None:
    import h5py

    rows: list[dict[str, Any]] = []
    with h5py.File(folder / "network" / "edges.h5", "w") as file:
        _mark(file)
        root = file.create_group("edges", track_order=True)
        for number, (name, item) in enumerate(edges.items()):
            count = len(item.weight)
            group = root.create_group(name)
            for key, values, population in (
                ("source_node_id", item.source_id, item.source),
                ("target_node_id", item.target_id, item.target),
            ):
                group[key] = values.astype(np.uint64)
                group[key].attrs["node_population"] = population
            group["edge_type_id"] = np.full(count, number, dtype=np.uint64)
            group["edge_group_id"] = np.zeros(count, dtype=np.uint64)
            group["edge_group_index"] = np.arange(count, dtype=np.uint64)
            group["0/syn_weight"] = item.weight
            group["0/delay"] = item.delay
            rows.append(
                {
                    "edge_type_id": number,
                    "population": name,
                    "source_query": f"population=='{item.source}'",
                    "target_query": f"population=='{item.target}'",
                    "model_template": "static_synapse",
                }
            )
    _table(folder / "network" / "edge_types.csv", rows or [{"edge_type_id": 0, "model_template": "static_synapse"}])


def write_spikes(path: Path, spikes: list[Spikes]) -> None:
    """Write a SONATA file of spikes, sorted by time; times in ms."""
    import h5py

    with h5py.File(path, "w") as file:
        _mark(file)
        for item in spikes:
            order = np.lexsort((item.nodes, item.times))
            group = file.create_group(f"spikes/{item.name}")
            kind = h5py.enum_dtype({"none": 0, "by_id": 1, "by_time": 2}, basetype="u1")
            group.attrs.create("sorting", 2, dtype=kind)
            group["timestamps"] = item.times[order]
            group["timestamps"].attrs["units"] = "ms"
            group["node_ids"] = item.nodes[order].astype(np.uint64)
