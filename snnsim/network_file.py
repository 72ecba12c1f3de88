"""The network file: a network as the manifest and the arrays of a sealed file; layout in ``docs/formats.md``."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.network import Input, Network, Population, Projection, Readout, Sparse, Steps
from snnsim.neurons import NEURONS, Neuron
from snnsim.sealed import Arrays, SealedReader, list_array, one_sentence, read_sealed, save_sealed

__all__ = ["SCHEMA", "build_network", "describe", "load_network", "rebuild", "save_network"]

SCHEMA = 1
FORMAT = "snnsim network"


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

    def delay(value: float | npt.NDArray[np.float64] | Steps) -> Any:
        return {"steps": put(value.values), "dt": value.dt} if isinstance(value, Steps) else put(value)

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
                "delay": delay(item.delay),
                **({"receptor": item.receptor} if item.receptor else {}),
            }
            for item in network.projections
        ],
        "readout": None if readout is None else {item.name: getattr(readout, item.name) for item in fields(readout)},
        "notes": network.notes,
        "arrays": listed,
    }
    return manifest, arrays


def save_network(network: Network, path: str | Path) -> Path:
    """Write ``network`` to ``path`` atomically; equal networks with equal notes give equal bytes."""
    return save_sealed(path, *describe(network))


def load_network(path: str | Path) -> Network:
    """Read a network file; every problem is one :class:`SnnsimFileError`."""
    return read_sealed(path, FORMAT, SCHEMA, "Network.save", build_network)


def rebuild(path: str | Path, manifest: dict[str, Any], arrays: Arrays) -> Network:
    """Return the network that :func:`describe` took apart; ``path`` is for messages."""
    with one_sentence(Path(path)):
        return build_network(SealedReader(Path(path), manifest, arrays))


def build_network(reader: SealedReader) -> Network:
    """Return the network that a manifest and its arrays describe."""
    return _NetworkReader(reader).network()


class _NetworkReader:
    """The network in a manifest and its arrays."""

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
        missing = sorted(set(known) - set(values) - {"solver", "substeps"})  # younger than the format: by default
        if missing:
            raise self.fail(f"manifest {where}parameters.{missing[0]}", "is missing")
        parameters: dict[str, Any] = {}
        for name in values:
            inner = f"{where}parameters."
            if name == "strict":
                parameters[name] = self.get(values, name, bool, inner)
            elif name == "substeps":
                parameters[name] = self.get(values, name, int, inner)
            elif name in ("reset", "mode", "solver"):
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

    def delay(self, record: Any, where: str) -> Any:
        stored = record.get("delay")
        if not isinstance(stored, dict) or "steps" not in stored:
            return self.number_or_array(record, "delay", where)
        inner = f"{where}delay."
        self.only(stored, {"steps", "dt"}, inner)
        values, dt = self.array(stored["steps"], f"{inner}steps."), self.get(stored, "dt", float, inner)
        return self.build(inner, lambda: Steps(values, dt))

    def projection(self, record: Any, where: str) -> Projection:
        source = self.get(record, "source", str, where)
        target = self.get(record, "target", str, where)
        stored = self.get(record, "weight", dict, where)
        delay = self.delay(record, where)
        receptor = self.get(record, "receptor", str, where) if "receptor" in record else ""
        self.only(record, {"source", "target", "weight", "delay", "receptor"}, where)
        self.only(stored, {"dense"} if "dense" in stored else {"sparse"}, f"{where}weight.")
        weight: Any
        if "dense" in stored:
            weight = self.array(stored["dense"], f"{where}weight.dense.")
        else:
            sparse = self.get(stored, "sparse", dict, f"{where}weight.")
            inner = f"{where}weight.sparse."
            parts: dict[str, Any] = {
                name: self.array(sparse.get(name), f"{inner}{name}.") for name in ("indptr", "target")
            }
            parts["weight"] = self.number_or_array(sparse, "weight", inner)
            shape = self.get(sparse, "shape", list, inner)
            weight = self.build(where, lambda: Sparse(**parts, shape=tuple(shape)))
        projection: Projection = self.build(where, lambda: Projection(source, target, weight, delay, receptor))
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
