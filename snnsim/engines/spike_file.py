"""Spikes of a run as one sealed file, to keep and to compare with; layout in ``docs/formats.md``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.engines import Result
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.grid import time_to_step
from snnsim.sealed import SealedReader, list_array, read_sealed, save_sealed

__all__ = ["Comparison", "StoredSpikes", "compare_spikes", "load_spikes", "save_spikes"]

FORMAT = "snnsim spikes"
SCHEMA = 1
COLUMNS = ("times", "units", "offsets", "labels", "duration", "sample_ids")


@dataclass(frozen=True, eq=False)
class StoredSpikes:
    """What a spike file holds.

    Attributes:
        dt: Time step, seconds.
        n_steps: Steps of each sample, int64 ``(n_samples,)``.
        spikes: Events of each population.
        network: Digest of the network that made them.
    """

    dt: float
    n_steps: npt.NDArray[np.int64]
    spikes: dict[str, Events]
    network: str


@dataclass(frozen=True)
class Comparison:
    """How two runs differ.

    Attributes:
        mismatches: Neuron-steps with a spike on one side only.
        compared: Neuron-steps looked at.
        populations: Mismatches by population.
        first: Sample, step, population and unit of the first mismatch, or None.
    """

    mismatches: int
    compared: int
    populations: dict[str, int]
    first: tuple[int, int, str, int] | None


def save_spikes(result: Result, path: str | Path, *, dt: float, network: str) -> Path:
    """Write the spikes of a run, atomically.

    Args:
        result: The run.
        path: ``.h5`` by convention.
        dt: Its time step, seconds.
        network: Digest of its network.

    Raises:
        SnnsimFileError: The place cannot be written.
    """
    arrays: list[npt.NDArray[Any]] = []
    listed: list[dict[str, Any]] = []
    populations = [
        {
            "name": name,
            "size": events.n_units,
            **{column: list_array(np.asarray(getattr(events, column)), arrays, listed) for column in COLUMNS},
        }
        for name, events in result.spikes.items()
    ]
    manifest = {
        "format": FORMAT,
        "schema": SCHEMA,
        "dt": dt,
        "network": network,
        "n_steps": list_array(result.n_steps, arrays, listed),
        "populations": populations,
        "arrays": listed,
    }
    return save_sealed(path, manifest, arrays)


def load_spikes(path: str | Path) -> StoredSpikes:
    """Read a file that :func:`save_spikes` wrote.

    Raises:
        SnnsimFileError: The file is missing, damaged or something else.
    """
    return read_sealed(path, FORMAT, SCHEMA, "snnsim simulate --out", build_spikes)


def build_spikes(reader: SealedReader) -> StoredSpikes:
    """Return the spikes that a manifest and its arrays describe."""
    reader.only(reader.manifest, {"format", "schema", "dt", "network", "n_steps", "populations", "arrays"}, "")
    dt = float(reader.get(reader.manifest, "dt", float, ""))
    network = reader.get(reader.manifest, "network", str, "")
    n_steps = reader.array(reader.get(reader.manifest, "n_steps", dict, ""), "n_steps.")
    if n_steps.ndim != 1 or n_steps.dtype != np.int64:
        raise reader.fail("n_steps", "expected one integer a sample")
    spikes: dict[str, Events] = {}
    for number, record in enumerate(reader.get(reader.manifest, "populations", list, "")):
        where = f"populations[{number}]."
        name = reader.get(record, "name", str, where)
        size = reader.get(record, "size", int, where)
        columns = {key: reader.array(reader.get(record, key, dict, where), f"{where}{key}.") for key in COLUMNS}
        reader.only(record, {"name", "size", *COLUMNS}, where)
        spikes[name] = reader.build(where, lambda size=size, columns=columns: Events(n_units=size, **columns))  # type: ignore[misc]
        if len(spikes[name]) != n_steps.shape[0]:
            raise reader.fail(f"manifest {where}", f"expected {n_steps.shape[0]} samples, got {len(spikes[name])}")
    return StoredSpikes(dt, n_steps, spikes, network)


def compare_spikes(
    one: dict[str, Events],
    other: dict[str, Events],
    *,
    dt: float,
    n_steps: npt.NDArray[np.int64],
    other_dt: float | None = None,
    other_n_steps: npt.NDArray[np.int64] | None = None,
) -> Comparison:
    """Compare two runs neuron-step by neuron-step.

    Args:
        one: Spikes of each population.
        other: The same of another run.
        dt: Time step of the first, seconds.
        n_steps: Steps of each sample of the first.
        other_dt: Time step of the other; default the same.
        other_n_steps: Steps of each sample of the other; default the same.

    Raises:
        InputError: The runs have different populations, sizes, samples, steps or time steps.
    """
    if set(one) != set(other):
        raise InputError(f"compare: populations {sorted(one)} and {sorted(other)} differ; run the same network")
    if other_dt is not None and other_dt != dt:
        raise InputError(f"compare: time steps of {dt} s and {other_dt} s differ")
    if other_n_steps is not None and not np.array_equal(n_steps, other_n_steps):
        raise InputError(
            f"compare: {n_steps.shape[0]} samples with {int(n_steps.sum())} steps and {other_n_steps.shape[0]} with "
            f"{int(other_n_steps.sum())} differ; run the same events with the same tail steps"
        )
    populations: dict[str, int] = {}
    first: tuple[int, int, str, int] | None = None
    compared = 0
    for name, events in one.items():
        if events.n_units != other[name].n_units:
            raise InputError(f"compare: {name!r} has {events.n_units} and {other[name].n_units} neurons")
        different = np.setxor1d(_keys(events, dt, n_steps), _keys(other[name], dt, n_steps))
        populations[name] = int(different.shape[0])
        compared += int(n_steps.sum()) * events.n_units
        if different.shape[0]:
            at, unit = divmod(int(different[0]), events.n_units)
            starts = np.concatenate((np.zeros(1, np.int64), np.cumsum(n_steps)))
            sample = int(np.searchsorted(starts, at, side="right")) - 1
            found = (sample, at - int(starts[sample]), name, unit)
            first = found if first is None else min(first, found)
    return Comparison(sum(populations.values()), compared, populations, first)


def _keys(events: Events, dt: float, n_steps: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return one number for each spike: its neuron-step among all of all samples."""
    starts = np.concatenate((np.zeros(1, np.int64), np.cumsum(n_steps)))[:-1]
    sample = np.repeat(np.arange(len(events)), np.diff(events.offsets))
    step = time_to_step(events.times, dt)
    if np.any(step >= n_steps[sample]):
        raise InputError("compare: a spike lies beyond the steps of its sample")
    keys: npt.NDArray[np.int64] = (starts[sample] + step) * events.n_units + events.units
    return keys
