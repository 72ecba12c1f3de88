"""The file of an integer network: a manifest and the arrays of a sealed file; layout in ``docs/formats.md``."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from snnsim.integer_network import IntegerNetwork, IntegerPopulation, IntegerProjection
from snnsim.network import Input, Readout
from snnsim.sealed import Arrays, SealedReader, list_array, read_sealed, save_sealed

__all__ = ["SCHEMA", "build_integer", "describe", "load_integer", "save_integer"]

SCHEMA = 1
FORMAT = "snnsim integer network"
COLUMNS = ("indptr", "unit", "weight", "delay")


def describe(network: IntegerNetwork) -> tuple[dict[str, Any], Arrays]:
    """Return the manifest of an integer network and the arrays it refers to by number."""
    arrays: Arrays = []
    listed: list[dict[str, Any]] = []
    readout = network.readout
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "schema": SCHEMA,
        "law": network.law,
        "dt": network.dt,
        "inputs": [{"name": item.name, "size": item.size} for item in network.inputs],
        "populations": [
            {
                "name": item.name,
                "size": item.size,
                "kind": item.kind,
                "parameters": {name: list_array(value, arrays, listed) for name, value in item.parameters.items()},
                "scale": list_array(network.scale[item.name], arrays, listed),
                "latency": network.latency[item.name],
            }
            for item in network.populations
        ],
        "projections": [
            {
                "source": item.source,
                "target": item.target,
                **{name: list_array(getattr(item, name), arrays, listed) for name in COLUMNS},
            }
            for item in network.projections
        ],
        "readout": None if readout is None else {item.name: getattr(readout, item.name) for item in fields(readout)},
        "changes": list(network.changes),
        "source": network.source,
        "arrays": listed,
    }
    return manifest, arrays


def save_integer(network: IntegerNetwork, path: str | Path) -> Path:
    """Write ``network`` to ``path`` atomically; equal networks with equal changes give equal bytes."""
    return save_sealed(path, *describe(network))


def load_integer(path: str | Path) -> IntegerNetwork:
    """Read the file of an integer network; every problem is one :class:`SnnsimFileError`."""
    return read_sealed(path, FORMAT, SCHEMA, "IntegerNetwork.save", build_integer)


def build_integer(reader: SealedReader) -> IntegerNetwork:
    """Return the integer network that a manifest and its arrays describe."""
    manifest = reader.manifest
    known = {"format", "schema", "law", "dt", "inputs", "populations", "projections", "readout", "changes", "source"}
    reader.only(manifest, known | {"arrays"}, "")
    inputs: list[Input] = []
    for number, record in enumerate(reader.get(manifest, "inputs", list, "")):
        where = f"inputs[{number}]."
        values = {"name": reader.get(record, "name", str, where), "size": reader.get(record, "size", int, where)}
        reader.only(record, set(values), where)
        inputs.append(reader.build(where, lambda values=values: Input(**values)))  # type: ignore[misc]
    populations: list[IntegerPopulation] = []
    scale: dict[str, Any] = {}
    latency: dict[str, int] = {}
    for number, record in enumerate(reader.get(manifest, "populations", list, "")):
        where = f"populations[{number}]."
        name, size = reader.get(record, "name", str, where), reader.get(record, "size", int, where)
        kind, given = reader.get(record, "kind", str, where), reader.get(record, "parameters", dict, where)
        parameters = {key: reader.array(given[key], f"{where}parameters.{key}.") for key in given}
        scale[name] = reader.array(reader.get(record, "scale", dict, where), f"{where}scale.")
        latency[name] = reader.get(record, "latency", int, where)
        reader.only(record, {"name", "size", "kind", "parameters", "scale", "latency"}, where)
        item = (name, size, kind, parameters)
        populations.append(reader.build(where, lambda item=item: IntegerPopulation(*item)))  # type: ignore[misc]
    projections: list[IntegerProjection] = []
    for number, record in enumerate(reader.get(manifest, "projections", list, "")):
        where = f"projections[{number}]."
        ends = [reader.get(record, name, str, where) for name in ("source", "target")]
        columns = [reader.array(reader.get(record, name, dict, where), f"{where}{name}.") for name in COLUMNS]
        reader.only(record, {"source", "target", *COLUMNS}, where)
        parts = (*ends, *columns)
        projections.append(reader.build(where, lambda parts=parts: IntegerProjection(*parts)))  # type: ignore[misc]
    readout = None
    record = reader.get(manifest, "readout", (dict, type(None)), "")
    if record is not None:
        names = {item.name for item in fields(Readout)}
        reader.only(record, names, "readout.")
        options = {name: reader.get(record, name, (str, int), "readout.") for name in names}
        readout = reader.build("readout", lambda: Readout(**options))
    changes = reader.get(manifest, "changes", list, "")
    if not all(isinstance(item, str) for item in changes):
        raise reader.fail("manifest changes", "expected a list of sentences")
    return IntegerNetwork(
        law=reader.get(manifest, "law", str, ""),
        populations=tuple(populations),
        projections=tuple(projections),
        inputs=tuple(inputs),
        readout=readout,
        dt=reader.get(manifest, "dt", float, ""),
        scale=scale,
        latency=latency,
        changes=tuple(changes),
        source=reader.get(manifest, "source", str, ""),
    )
