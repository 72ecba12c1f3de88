"""The tables of a SONATA folder as plain values: configuration, nodes, edges, types; see ``sonata_folder`` for ours.

Paths of a configuration may use its manifest; whatever they say, only files inside the folder are opened. Links inside
the HDF5 files are not followed, and arrays must lie in the file.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError, SnnsimFileError
from snnsim.export.sonata_folder import ABOUT, MAGIC, Edges, Nodes

__all__ = ["SonataTables", "TableReader"]

MAX_TEXT = 64 << 20
"""Largest JSON or CSV file, bytes."""

MAX_BYTES = 4 << 30
"""Largest size that the arrays of a folder may declare together, bytes."""

MAX_POPULATIONS = 10_000
MAX_NODES = 20_000_000
MAX_LATENCY = 1_000_000
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class SonataTables:
    """What a folder holds: populations, edges, the step in ms, and ``snnsim.json`` if there is one."""

    nodes: list[Nodes]
    edges: list[Edges]
    step: float
    about: dict[str, Any]


@contextmanager
def _one_sentence(shown: str) -> Iterator[None]:
    """Turn what the libraries raise for damaged files into one sentence."""
    try:
        yield
    except InputError as error:
        raise error if str(error).startswith(shown) else SnnsimFileError(shown, "", str(error)) from error
    except SnnsimFileError:
        raise
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError, OverflowError, csv.Error) as error:
        reason = " ".join(str(error).split())[:200]
        raise SnnsimFileError(shown, "", f"is not a readable SONATA folder: {reason}") from error


class TableReader:
    """Reads a folder.

    Args:
        folder: The folder.
        shown: The name to use in messages.
    """

    def __init__(self, folder: Path, shown: str) -> None:
        self.folder, self.shown = folder.resolve(), shown
        self.bytes = 0

    def read(self, edges: bool = True) -> SonataTables:
        """Read all tables, or those of the nodes alone.

        Raises:
            SnnsimFileError: A file is missing, damaged, or lies outside the folder.
        """
        with _one_sentence(self.shown):
            simulation = self.config("simulation_config.json")
            circuit = self.config("circuit_config.json")
            about = self.json(self.folder / ABOUT) if (self.folder / ABOUT).is_file() else {}
            run = self.object(simulation, "run", "simulation_config.json")
            step = run.get("dt")
            if isinstance(step, bool) or not isinstance(step, (int, float)) or not 0 < step < 1e9:
                raise self.fail("simulation_config.json: run/dt", f"expected milliseconds, got {str(step)[:40]!r}")
            networks = self.object(circuit, "networks", "circuit_config.json")
            models = self.object(circuit, "components", "circuit_config.json").get(
                "point_neuron_models_dir", "components"
            )
            nodes: list[Nodes] = []
            for entry in self.entries(networks, "nodes"):
                nodes += self.nodes(self.inside(entry.get("nodes_file")), entry, self.inside(models))
            for kind, found in (("name", [item.name for item in nodes]), ("label", [item.label for item in nodes])):
                if len(set(found)) != len(found):
                    raise self.fail("nodes", f"two populations have the same {kind}")
            tables = SonataTables(nodes, [], float(step), about)
            if edges:
                for entry in self.entries(networks, "edges"):
                    tables.edges.extend(self.edges(self.inside(entry.get("edges_file")), entry, nodes))
            return tables

    def fail(self, item: Any, reason: str) -> SnnsimFileError:
        """Return the error that names this folder and the item."""
        return SnnsimFileError(self.shown, " ".join(str(item)[:160].split()), reason)

    # -- configurations and types ----------------------------------------------------------------------

    def inside(self, place: Any) -> Path:
        """Return a path that a configuration gives, which must lie in the folder."""
        if not isinstance(place, str) or not place or len(place) > 4096 or "\0" in place:
            raise self.fail("configuration", f"expected a path, got {str(place)[:40]!r}")
        path = (self.folder / place).resolve()
        if not path.is_relative_to(self.folder):
            raise self.fail(place, "lies outside the folder; copy it into the folder")
        return path

    def text(self, path: Path) -> str:
        """Return a text file of reasonable size."""
        name = path.relative_to(self.folder)
        if not path.resolve().is_relative_to(self.folder):
            raise self.fail(name, "lies outside the folder; copy it into the folder")
        if not path.is_file():
            raise self.fail(name, "no such file; is this a SONATA folder?")
        if path.stat().st_size > MAX_TEXT:
            raise self.fail(name, f"is larger than {MAX_TEXT >> 20} MiB; refused")
        return path.read_text(encoding="utf-8")

    def json(self, path: Path) -> dict[str, Any]:
        """Return a JSON object."""
        name = path.name
        try:
            value = json.loads(self.text(path))
        except (ValueError, RecursionError) as error:
            raise self.fail(name, f"is not readable JSON ({str(error)[:80]})") from error
        if not isinstance(value, dict):
            raise self.fail(name, f"expected a JSON object, got {type(value).__name__}")
        return value

    def config(self, name: str) -> dict[str, Any]:
        """Return a configuration with the names of its manifest replaced."""
        value = self.json(self.folder / name)
        manifest = {str(key): str(text) for key, text in self.object(value, "manifest", name, {}).items()}
        if len(manifest) > 100:
            raise self.fail(name, "a manifest with more than 100 names; refused")

        def put(item: Any, depth: int = 0) -> Any:
            if depth > 50:
                raise self.fail(name, "is nested deeper than 50 levels; refused")
            if isinstance(item, dict):
                return {key: put(inner, depth + 1) for key, inner in item.items()}
            if isinstance(item, list):
                return [put(inner, depth + 1) for inner in item]
            if not isinstance(item, str) or "$" not in item:
                return item
            for _ in range(10):
                for key in sorted(manifest, key=len, reverse=True):
                    for form in (key, "${" + key.removeprefix("$") + "}"):
                        item = item.replace(form, manifest[key]) if form.startswith("$") else item
                if "$" not in item or len(item) > 4096:
                    break
            return item

        return {key: put(item) for key, item in value.items() if key != "manifest"}

    def object(
        self, value: dict[str, Any], key: str, where: str, default: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return an object inside a JSON object."""
        found = value.get(key, default)
        if not isinstance(found, dict):
            raise self.fail(f"{where}: {key}", "expected an object; is it complete?")
        return found

    def entries(self, networks: dict[str, Any], key: str) -> list[dict[str, Any]]:
        """Return the list of files of nodes or edges."""
        found = networks.get(key, [])
        if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
            raise self.fail(f"circuit_config.json: networks/{key}", "expected a list of objects")
        return found

    def types(self, place: Any, key: str) -> dict[int, dict[str, str]]:
        """Return the rows of a CSV of types by their number; none if the configuration names no file."""
        if place is None or place == "":
            return {}
        rows: dict[int, dict[str, str]] = {}
        for row in csv.DictReader(self.text(self.inside(place)).splitlines(), delimiter=" "):
            if None in row or None in row.values():
                raise self.fail(place, "has a row with another number of columns than its head")
            number = row.get(key, "")
            if not number.isdecimal() or len(number) > 19:
                raise self.fail(place, f"{key}: expected a whole number, got {number[:40]!r}")
            rows[int(number)] = {name: value for name, value in row.items() if value != "NULL"}
        return rows

    # -- HDF5 ------------------------------------------------------------------------------------------

    @contextmanager
    def open(self, path: Path, root: str) -> Iterator[Any]:
        """Open a SONATA file and yield its top group."""
        import h5py

        name = path.relative_to(self.folder)
        if not path.is_file():
            raise self.fail(name, "no such file; is this a SONATA folder?")
        with h5py.File(path, "r") as file:
            if "magic" in file.attrs and int(np.asarray(file.attrs["magic"]).reshape(-1)[0]) != MAGIC:
                raise self.fail(name, f"magic: expected {MAGIC}; is this a SONATA file?")
            group = self.child(file, root)
            if not isinstance(group, h5py.Group) or len(group) > MAX_POPULATIONS:
                raise self.fail(f"{name}: /{root}", f"expected a group of at most {MAX_POPULATIONS} populations")
            yield group

    def child(self, group: Any, name: str) -> Any:
        """Return what a group holds under a name; links are not followed."""
        import h5py

        place = f"{group.name}/{name}"
        if not isinstance(group, h5py.Group):
            raise self.fail(place, "expected a group around it, found an array")
        link = group.get(name, getlink=True)
        if link is None:
            raise self.fail(place, "is missing")
        if not isinstance(link, h5py.HardLink):
            raise self.fail(place, "is a link to another place; expected the data themselves")
        return group[name]

    def array(self, group: Any, name: str, size: int | None = None, whole: bool = False) -> Array:
        """Return an array of one dimension with finite numbers, float64 or int64."""
        import h5py

        data = self.child(group, name)
        place = f"{group.name}/{name}"
        if not isinstance(data, h5py.Dataset) or data.shape is None or len(data.shape) != 1:
            raise self.fail(place, "expected a list of numbers")
        if data.dtype.kind not in ("iu" if whole else "iuf"):
            raise self.fail(place, f"expected {'whole numbers' if whole else 'numbers'}, got {data.dtype}")
        if size is not None and data.shape[0] != size:
            raise self.fail(place, f"has {data.shape[0]} values, expected {size}")
        if data.is_virtual or data.external:
            raise self.fail(place, "lies in another file; copy it into this one")
        self.bytes += data.shape[0] * max(8, data.dtype.itemsize)
        if self.bytes > MAX_BYTES:
            raise self.fail(place, f"the folder declares more than {MAX_BYTES >> 30} GiB of arrays; refused")
        values = np.asarray(data[()])
        if whole:
            if values.size and (values.min() < 0 or values.max() >= 2**62):
                raise self.fail(place, "expected whole numbers from 0")
            return values.astype(np.int64)
        result: Array = values.astype(np.float64)
        if not np.all(np.isfinite(result)):
            raise self.fail(place, "expected finite numbers, got nan or infinity")
        return result

    # -- nodes -----------------------------------------------------------------------------------------

    def nodes(self, path: Path, entry: dict[str, Any], models: Path) -> list[Nodes]:
        """Return the populations of one file."""
        types = self.types(entry.get("node_types_file"), "node_type_id")
        result = []
        with self.open(path, "nodes") as root:
            for name in root:
                group = self.child(root, name)
                number = self.array(group, "node_type_id", whole=True)
                if not 0 < number.size <= MAX_NODES:
                    raise self.fail(group.name, f"has {number.size} nodes; expected 1 to {MAX_NODES}")
                kinds = np.unique(number)
                if kinds.size != 1:
                    raise self.fail(group.name, f"mixes {kinds.size} types of nodes; expected one type a population")
                if int(kinds[0]) not in types:
                    raise self.fail(group.name, f"its type {kinds[0]} is in no CSV of node types")
                if "node_id" in group and not np.array_equal(
                    self.array(group, "node_id", number.size, whole=True), np.arange(number.size)
                ):
                    raise self.fail(group.name, "node_id: expected 0, 1, 2, ... in order")
                result.append(self.population(name, group, types[int(kinds[0])], number.size, models))
        return result

    def population(self, name: str, group: Any, row: dict[str, str], size: int, models: Path) -> Nodes:
        """Return one population, its parameters gathered from the JSON, the CSV and the HDF5 group."""
        label = row.get("pop_name") or name
        if row.get("model_type") == "virtual":
            return Nodes(name, label, size)
        model = row.get("model_template", "")
        if row.get("model_type") not in ("point_neuron", "point_process") or not model.startswith("nest:"):
            raise self.fail(group.name, f"expected a point neuron of NEST, got {row.get('model_type')} {model[:60]}")
        dynamics: dict[str, Array] = {}
        if row.get("dynamics_params"):
            file = self.inside(str(models / row["dynamics_params"]))
            for key, value in self.json(file).items():
                if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e308:
                    raise self.fail(f"{file.name}: {key}", f"expected a finite number, got {str(value)[:40]!r}")
                dynamics[key] = np.full(size, float(value))
        attributes: dict[str, Array] = {}
        inner = self.child(group, "0") if "0" in group else {}
        for key in inner:
            if key == "dynamics_params":
                own = self.child(inner, key)
                for parameter in own:
                    dynamics[parameter] = self.array(own, parameter, size)
            elif key in ("beta", "alpha", "kappa", "drive_step", "drive_syn_step", "drive_syn_to_v", "i_start"):
                attributes[key] = self.array(inner, key, size)
        late = row.get("latency_steps", "0")
        if not late.isdecimal() or len(late) > 9 or int(late) > MAX_LATENCY:
            raise self.fail(group.name, f"latency_steps: expected 0 to {MAX_LATENCY}, got {late[:40]!r}")
        spiking = row.get("spiking", "1") != "0"
        return Nodes(name, label, size, model.removeprefix("nest:"), dynamics, attributes, int(late), spiking)

    # -- edges -----------------------------------------------------------------------------------------

    def edges(self, path: Path, entry: dict[str, Any], nodes: list[Nodes]) -> Iterator[Edges]:
        """Yield the edges of one file; weights and delays of the synapses, else those of their types."""
        types = self.types(entry.get("edge_types_file"), "edge_type_id")
        sizes = {item.name: item.size for item in nodes}
        with self.open(path, "edges") as root:
            for name in root:
                group = self.child(root, name)
                ends: list[Array] = []
                names: list[str] = []
                for key in ("source_node_id", "target_node_id"):
                    ids = self.array(group, key, None if not ends else ends[0].size, whole=True)
                    told = group[key].attrs.get("node_population", "")
                    population = told.decode("utf8", "replace") if isinstance(told, bytes) else str(told)
                    if population not in sizes:
                        raise self.fail(
                            f"{group.name}/{key}", f"node_population {population[:60]!r} is not in the folder"
                        )
                    if ids.size and ids.max() >= sizes[population]:
                        raise self.fail(
                            f"{group.name}/{key}", f"expected nodes below {sizes[population]}, got {ids.max()}"
                        )
                    ends.append(ids)
                    names.append(population)
                count = ends[0].size
                inner = self.child(group, "0") if "0" in group else {}
                values = []
                for key in ("syn_weight", "delay"):
                    if key in inner:
                        values.append(self.array(inner, key, count))
                    else:
                        values.append(self.by_type(group, types, key, count))
                if values[1].size and values[1].min() < 0:
                    raise self.fail(group.name, f"delay: expected milliseconds from 0, got {values[1].min()}")
                yield Edges(names[0], names[1], ends[0], ends[1], values[0], values[1])

    def by_type(self, group: Any, types: dict[int, dict[str, str]], key: str, count: int) -> Array:
        """Return a number of every edge from the CSV of its type."""
        number = self.array(group, "edge_type_id", count, whole=True)
        kinds, place = np.unique(number, return_inverse=True)
        found = []
        for kind in kinds:
            text = types.get(int(kind), {}).get(key, "")
            try:
                found.append(float(text))
            except ValueError:
                raise self.fail(group.name, f"gives no {key}, and edge type {kind} gives {text[:40]!r}") from None
        values = np.array(found, dtype=np.float64)
        if not np.all(np.isfinite(values)):
            raise self.fail(group.name, f"{key}: expected finite numbers")
        return values[place.reshape(-1)] if count else np.zeros(0)
