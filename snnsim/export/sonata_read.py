"""Read a SONATA folder as a network: the tables of nodes and edges, the parameters of NEST's models.

A folder of snnsim holds the exact decays and drives beside NEST's parameters; they are used if they agree. A folder of
somebody else is read as far as it says enough: virtual populations and point neurons ``nest:iaf_psc_delta`` and
``nest:iaf_psc_exp`` with all their parameters given, ``syn_weight`` and ``delay`` in the edges or in their types. A
parameter that is left to NEST's defaults is refused by name, because the defaults are biology's (a threshold of
-55 mV, 2 ms of refractoriness).

Folders come from anywhere. All of this happens in the limited process of :mod:`snnsim.guard`, nothing outside the
folder is opened, and what comes back are plain arrays.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError, SnnsimFileError
from snnsim.export.sonata_folder import Edges, Nodes
from snnsim.export.sonata_tables import SonataTables, TableReader
from snnsim.grid import check_dt, kappa
from snnsim.guard import Parcel, run_guarded
from snnsim.network import Input, Network, Population, Projection, Readout, Sparse
from snnsim.network_file import describe, rebuild
from snnsim.neurons import LI, LIF, CubaLI, CubaLIF, Neuron

__all__ = ["import_sonata", "list_populations", "read_sonata", "read_tables"]

Floats = npt.NDArray[np.float64]

NEVER = 1e299
"""A threshold from here on, mV, is none."""

LONGEST = 1e290
"""A time constant from here on, ms, is no leak."""

CLOSE = 1e-9
"""Exact numbers beside NEST's parameters are used if they agree this well."""

NEEDED = {
    "iaf_psc_delta": ("tau_m", "C_m", "E_L", "V_th", "V_reset", "t_ref", "I_e"),
    "iaf_psc_exp": ("tau_m", "C_m", "E_L", "V_th", "V_reset", "t_ref", "I_e", "tau_syn_ex", "tau_syn_in"),
}


def read_sonata(path: str | Path, dt: float | None = None) -> Network:
    """Read a SONATA folder.

    Args:
        path: The folder with ``circuit_config.json``.
        dt: Time step in seconds; default: that of the folder's ``snnsim.json`` or of its simulation.

    Returns:
        A network; a population that lives later in NEST by its latency is moved back, and delays with it.

    Raises:
        SnnsimFileError: A file is missing, damaged, or lies outside the folder.
        InputError: It does not say enough, or says what no population of ours computes.
    """
    path = Path(path)
    parcel = run_guarded(
        f"{__name__}:import_sonata",
        {"path": os.path.abspath(path), "shown": str(path), "dt": None if dt is None else check_dt(dt)},
        path=path,
        limits=lambda _: _limits(path),
    )
    return rebuild(path, parcel.value, parcel.arrays)


def read_tables(path: str | Path) -> SonataTables:
    """Read what the populations of a folder are, without its edges (in the limited process).

    Raises:
        SnnsimFileError: See :func:`read_sonata`.
        InputError: See :func:`read_sonata`.
    """
    path = Path(path)
    value = run_guarded(
        f"{__name__}:list_populations",
        {"path": os.path.abspath(path), "shown": str(path)},
        path=path,
        limits=lambda _: _limits(path),
    )
    nodes = [Nodes(name, label, size, model, spiking=spiking) for name, label, size, model, spiking in value["nodes"]]
    return SonataTables(nodes, [], value["step"], {})


def _limits(path: Path) -> tuple[float, int]:
    """Return the CPU seconds and bytes of memory for a folder: by the size of the files in it."""
    size = sum(file.stat().st_size for file in path.glob("**/*.*") if file.is_file()) if path.is_dir() else 0
    return 1.0 + size / (4 << 20), (1 << 30) + 16 * size


def list_populations(path: str, shown: str) -> dict[str, Any]:
    """List the populations of a folder (runs in the limited process; see :func:`read_tables`)."""
    tables = TableReader(Path(path), shown).read(edges=False)
    nodes = [(item.name, item.label, item.size, item.model, item.spiking) for item in tables.nodes]
    return {"step": tables.step, "nodes": nodes}


def import_sonata(path: str, shown: str, dt: float | None) -> Parcel:
    """Read a folder and describe the network (runs in the limited process; see :func:`read_sonata`).

    Args:
        path: The folder.
        shown: The name to use in messages.
        dt: Time step in seconds, or None.

    Returns:
        The manifest and the arrays of :func:`snnsim.network_file.describe`.
    """
    tables = TableReader(Path(path), shown).read()
    try:
        with np.errstate(all="ignore"):
            return Parcel(*describe(_Importer(shown, tables, dt).network()))
    except InputError as error:
        raise error if str(error).startswith(shown) else InputError(f"{shown}: {error}") from error


@dataclass
class _Read:
    """A population read from the tables; ``gain`` divides the weights into it."""

    population: Population
    gain: Floats


class _Importer:
    def __init__(self, shown: str, tables: SonataTables, dt: float | None) -> None:
        self.shown, self.tables, self.step = shown, tables, tables.step
        stored = tables.about.get("dt", tables.step / 1000)
        if dt is None and (isinstance(stored, bool) or not isinstance(stored, (int, float))):
            raise SnnsimFileError(shown, "snnsim.json: dt", f"expected a number, got {str(stored)[:40]!r}")
        self.dt = check_dt(float(stored) if dt is None else dt)
        self.labels = {item.name: item.label for item in tables.nodes}

    def fail(self, name: str, text: str) -> InputError:
        return InputError(f"{self.shown}: population {name[:80]!r}: {text}")

    def network(self) -> Network:
        inputs = [Input(item.label, item.size) for item in self.tables.nodes if not item.model]
        read = {item.name: self.population(item) for item in self.tables.nodes if item.model}
        projections = [self.projection(edges, read) for edges in self.tables.edges]
        return Network(
            populations=tuple(item.population for item in read.values()),
            projections=tuple(projections),
            inputs=tuple(inputs),
            readout=self.readout(),
            dt=self.dt,
            notes=self.notes(),
        )

    def notes(self) -> dict[str, Any]:
        kept = self.tables.about.get("notes", {})
        if not isinstance(kept, dict):
            raise SnnsimFileError(self.shown, "snnsim.json: notes", "expected an object")
        steps = {key: kept[key] for key in ("tail_steps", "n_steps") if type(kept.get(key)) is int and kept[key] >= 0}
        return {"imported": "SONATA", **steps}

    def readout(self) -> Readout | None:
        told = self.tables.about.get("readout")
        if told is None:
            return None
        if not isinstance(told, dict) or str(told.get("population")) not in self.labels:
            raise SnnsimFileError(self.shown, "snnsim.json: readout", "names no population of the folder")
        return Readout(
            self.labels[str(told["population"])],
            told.get("variable", "v"),
            told.get("reduce", "sum_softmax"),
            told.get("skip_steps", 0),
        )

    # -- populations -----------------------------------------------------------------------------------

    def population(self, item: Nodes) -> _Read:
        if item.model not in NEEDED:
            raise self.fail(item.name, f"model {item.model[:80]!r}; expected one of {', '.join(NEEDED)}")
        missing = [key for key in NEEDED[item.model] if key not in item.dynamics]
        if missing:
            raise self.fail(item.name, f"does not give {missing[0]}, and NEST's default is not assumed; write it out")
        p = item.dynamics
        for key in ("tau_m", "C_m"):
            if not np.all(p[key] > 0):
                raise self.fail(item.name, f"{key}: expected positive numbers, got {p[key].min()}")
        spiking = bool(np.any(p["V_th"] < NEVER))
        if spiking and not np.all(p["V_th"] < NEVER):
            raise self.fail(item.name, "some of its neurons have a threshold and some have none; split it")
        current = item.model == "iaf_psc_exp"
        beta = self.exact(item, "beta", np.where(p["tau_m"] >= LONGEST, 1.0, np.exp(-self.step / p["tau_m"])))
        reach = np.where(p["tau_m"] >= LONGEST, 0.0, p["tau_m"] / p["C_m"] * (1 - beta))
        drive = p["I_e"] * reach
        values: dict[str, Any] = {"dt": self.dt, "beta": beta}
        gain = np.ones(item.size)
        if current:
            extra = self.current(item, beta, drive)
            gain = extra.pop("gain")
            values |= extra
        else:
            values["drive_step"] = self.exact(item, "drive_step", drive)
        if spiking:
            refractory = p["t_ref"] / self.step
            if not np.all(np.abs(refractory - np.rint(refractory)) < 1e-6):
                raise self.fail(item.name, "t_ref is not a whole number of steps")
            values |= {
                "v_threshold": p["V_th"] - p["E_L"],
                "v_reset": p["V_reset"] - p["E_L"],
                "t_ref": np.rint(refractory) * self.dt,
            }
        kind: type[Neuron] = (CubaLIF if current else LIF) if spiking else (CubaLI if current else LI)
        record: Neuron = kind.from_step(**values)  # type: ignore[attr-defined]
        return _Read(Population(item.label, item.size, record), gain)

    def current(self, item: Nodes, beta: Floats, drive: Floats) -> dict[str, Any]:
        """Return the numbers per step of a current neuron, and the gain on weights into it."""
        p = item.dynamics
        if not np.array_equal(p["tau_syn_ex"], p["tau_syn_in"]):
            raise self.fail(item.name, "tau_syn_ex and tau_syn_in differ; a CubaLIF population has one")
        if not np.all((p["tau_syn_ex"] > 0) & (p["tau_syn_ex"] < LONGEST) & (p["tau_m"] < LONGEST)):
            raise self.fail(item.name, "expected time constants that are positive and finite")
        alpha = self.exact(item, "alpha", np.exp(-self.step / p["tau_syn_ex"]))
        natural = kappa(p["tau_m"], p["tau_syn_ex"], self.step) * np.ones(item.size)
        own = item.attributes.get("kappa", natural)
        gain = np.where(np.abs(own / natural - 1) < 1e-12, 1.0, own / natural) * p["C_m"] / p["tau_m"]
        values = {"alpha": alpha, "kappa": own, "gain": gain}
        names = ("drive_step", "drive_syn_step", "drive_syn_to_v")
        told = [item.attributes.get(key) for key in names]
        if all(value is not None for value in told):
            first, second, third = (np.asarray(value) for value in told)
            wanted = first + third + own * second / (1 - alpha)
            start = item.attributes.get("i_start", np.zeros(item.size))
            scale = np.abs(first) + np.abs(third) + np.abs(own * second / (1 - alpha)) + 1e-300
            held = np.all(np.abs(wanted - drive) <= CLOSE * scale)
            if held and np.allclose(start, -second / (1 - alpha) * gain, rtol=CLOSE, atol=1e-300):
                return values | dict(zip(names, (first, second, third), strict=True))
            raise self.fail(item.name, "its drives per step do not agree with I_e and i_start; was the file changed?")
        if "i_start" in item.attributes:
            raise self.fail(item.name, "has i_start without the drives per step that it belongs to")
        return values | {"drive_step": drive}

    def exact(self, item: Nodes, key: str, derived: Floats) -> Floats:
        """Return the exact numbers beside NEST's parameters, or those derived from these."""
        own = item.attributes.get(key)
        if own is None:
            return derived
        if not np.all(np.abs(own - derived) <= CLOSE * np.maximum(np.abs(derived), 1e-9)):
            raise self.fail(item.name, f"{key} does not agree with NEST's parameters; was the file changed?")
        return own

    # -- edges -----------------------------------------------------------------------------------------

    def projection(self, edges: Edges, read: dict[str, _Read]) -> Projection:
        what = f"{self.shown}: edges from {edges.source[:80]!r} to {edges.target[:80]!r}"
        latency = {item.name: item.latency for item in self.tables.nodes}
        sizes = {item.name: item.size for item in self.tables.nodes}
        if edges.target not in read:
            raise InputError(f"{what}: the target is a virtual population, which takes no spikes")
        steps = edges.delay / self.step
        if not np.all(np.abs(steps - np.rint(steps)) < 1e-6 * np.maximum(1, steps)):
            raise InputError(f"{what}: a delay is not a whole number of steps of {self.step} ms")
        whole = np.rint(steps).astype(np.int64) - latency[edges.target] + latency[edges.source]
        if np.any(whole < 0):
            raise InputError(f"{what}: a delay is shorter than the latencies of the populations allow")
        weight = edges.weight / read[edges.target].gain[edges.target_id]
        order = np.argsort(edges.source_id, kind="stable")
        shape = (sizes[edges.target], sizes[edges.source])
        sparse = Sparse.from_triples(edges.source_id[order], edges.target_id[order], weight[order], shape)
        delay = np.asarray(whole[order] * self.dt, dtype=np.float64)
        return Projection(self.labels[edges.source], self.labels[edges.target], sparse, delay)
