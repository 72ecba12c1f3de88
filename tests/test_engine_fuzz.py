"""Seeded mutants of network and spike files: loaded or refused in one sentence, never a crash, hang or other error.

Half of the proof is the seal, which finds every accidental change. The other half seals the mutant again, as a
hostile writer would, so that the HDF5 library and every check behind the seal are reached.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz_worker import fuzz, mutants
from test_engine_cli import DT, make_events, make_network
from test_engine_network_file import rich_network

from snnsim.engines import simulate
from snnsim.engines.spike_file import load_spikes, save_spikes
from snnsim.network import Network
from snnsim.sealed import BLOCK, SealedReader, read_sealed, seal


def load(path: Path) -> None:
    Network.load(path)


def load_resealed(path: Path) -> None:
    """Seal a mutant again and load it; what loads must be a working network."""
    if path.stat().st_size > BLOCK:
        seal(path, "snnsim network")
    network = Network.load(path)
    network.digest()
    network.order()


def load_unchecked_arrays(path: Path) -> None:
    """Seal the mutant again and read its arrays through the reader, manifest entries included."""
    if path.stat().st_size > BLOCK:
        seal(path, "snnsim network")
    read_sealed(path, "snnsim network", 1, "Network.save", all_arrays)


def all_arrays(reader: SealedReader) -> None:
    for number in range(len(reader.manifest["arrays"])):
        reader.array({"array": number}, "")


def load_resealed_spikes(path: Path) -> None:
    if path.stat().st_size > BLOCK:
        seal(path, "snnsim spikes")
    load_spikes(path)


def network_bytes(folder: Path) -> bytes:
    return rich_network().save(folder / "good.snn.h5").read_bytes()


def spike_bytes(folder: Path) -> bytes:
    result = simulate(make_network(), make_events())
    return save_spikes(result, folder / "good.h5", dt=DT, network="").read_bytes()


LONG = pytest.mark.slow


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=LONG)])
@pytest.mark.parametrize("reader", ["load", "load_resealed", "load_unchecked_arrays"])
def test_mutants_of_a_network_file(reader: str, count: int, tmp_path: Path) -> None:
    original = network_bytes(tmp_path)
    report = fuzz(f"test_engine_fuzz:{reader}", original, tmp_path, suffix=".snn.h5", count=count, seed=count)
    print(f"read {report.read}, refused {report.refused}, slowest {report.slowest:.2f} s, starts {report.starts}")
    report.check()
    if reader == "load":
        same = sum(data == original for _, data in mutants(original, count, count))
        assert report.read == same, "a changed file was accepted"
    else:
        assert report.read > 0, "no mutant reached the end"
    assert len(report.sentences) > 2


@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=LONG)])
def test_mutants_of_a_spike_file(count: int, tmp_path: Path) -> None:
    report = fuzz(
        "test_engine_fuzz:load_resealed_spikes", spike_bytes(tmp_path), tmp_path, suffix=".h5", count=count, seed=count
    )
    report.check()
    assert report.read > 0
