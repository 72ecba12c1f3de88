"""Seeded mutants of SONATA folders: read or refused in one sentence, never a crash, a hang or another exception."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from fuzz_worker import fuzz_files, mutants
from test_bridge_fuzz import change, check
from test_bridge_sonata import currents

from snnsim.export.sonata import write_sonata
from snnsim.export.sonata_read import read_sonata

FILES = (
    *("network/nodes.h5", "network/edges.h5", "network/node_types.csv", "network/edge_types.csv"),
    *("circuit_config.json", "simulation_config.json", "snnsim.json", "components/second.json"),
)


def read_folder(path: Path) -> None:
    """Put one changed file (its name in the first line) into a folder and read that; it must work if it is read."""
    name, _, data = path.read_bytes().partition(b"\n")
    folder = path.parent / "changed.sonata"
    shutil.copytree(path.parent / "good.sonata", folder, dirs_exist_ok=True)
    (folder / name.decode()).write_bytes(data)
    network = read_sonata(folder)
    network.digest()
    network.order()


def changed_bytes(folder: Path, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield folders in which the bytes of one file are changed, ``count`` for each file."""
    for number, file in enumerate(FILES):
        original = (folder / "good.sonata" / file).read_bytes()
        for name, data in mutants(original, count, seed + number):
            yield f"{file}-{name}", f"{file}\n".encode() + data


def hostile(folder: Path, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield folders with well-formed files that hold values nobody meant."""
    rng = np.random.default_rng(seed)
    numbers = [0, -1, 1, 2**31, 2**62, -(2**63), 1e-320, 1e308, -1e308, np.nan, np.inf, 0.5]
    words = ["", "sound", "second", "nest:iaf_psc_exp", "../up", "/abs", "$BASE_DIR", "\u00e9" * 300, "NULL", "1e400"]
    path = folder / "hostile.h5"
    for i in range(count):
        file = FILES[i % len(FILES)]
        original = (folder / "good.sonata" / file).read_bytes()
        if file.endswith(".h5"):
            path.write_bytes(original)
            with h5py.File(path, "r+") as opened:
                names: list[str] = []
                opened.visititems(lambda name, item: names.append(name))  # noqa: B023
                change(opened, names[int(rng.integers(len(names)))], names, rng, numbers, words)
            data = path.read_bytes()
        elif file.endswith(".csv"):
            rows = [line.split(" ") for line in original.decode().splitlines()]
            row = rows[int(rng.integers(len(rows)))]
            row[int(rng.integers(len(row)))] = str(rng.choice([*words, *map(str, numbers)]))
            data = "\n".join(" ".join(row) for row in rows).encode()
        else:
            value = json.loads(original)
            places: list[tuple[Any, Any]] = []
            collect(value, places)
            holder, key = places[int(rng.integers(len(places)))]
            other: list[Any] = [*words, *numbers, None, True, [], {}, [[]], {"a": {}}]
            holder[key] = other[int(rng.integers(len(other)))]
            data = json.dumps(value).encode()
        yield f"hostile-{file}-{seed}-{i}", f"{file}\n".encode() + data


def collect(value: Any, places: list[tuple[Any, Any]]) -> None:
    """List every place of a JSON value."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        places.append((value, key))
        if isinstance(inner, (dict, list)):
            collect(inner, places)


LONG = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_sonata(currents(), tmp_path / "good.sonata")
    return tmp_path


@pytest.mark.parametrize("count", [15, pytest.param(425, marks=LONG)])
def test_mutants_of_a_sonata_folder(count: int, folder: Path) -> None:
    check(fuzz_files(f"{__name__}:read_folder", changed_bytes(folder, count, count), folder, suffix=".bin"))


@pytest.mark.parametrize("count", [80, pytest.param(1600, marks=LONG)])
def test_well_formed_folders_with_hostile_values(count: int, folder: Path) -> None:
    check(fuzz_files(f"{__name__}:read_folder", hostile(folder, count, count), folder, suffix=".bin"))
