"""Seeded mutants of NIR files: read or refused in one sentence, never a crash, a hang or another exception."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from fuzz_worker import FuzzReport, fuzz, fuzz_files
from test_bridge_nir import DT, current_network, delta_network

from snnsim.export import nir_graph, nir_judge
from snnsim.export.nir import write_nir
from snnsim.export.nir_graph import Graph, write_graph
from snnsim.export.nir_read import read_nir


def read_own(path: Path) -> None:
    """Read a mutant of a file of ours; what is read must be a working network."""
    network = read_nir(path)
    network.digest()
    network.order()


def read_foreign(path: Path) -> None:
    """Read a mutant as a file of another program, with the other rule."""
    read_nir(path, DT, discretisation="exponential").digest()


def read_by_judge(path: Path) -> None:
    """Read a mutant with the nir package, as the independent loader of a proof does."""
    nir_judge.read_by_nir(path)


def read_by_convention(path: Path) -> None:
    """Read a mutant as a file of snnTorch, with maps."""
    read_nir(path, convention="snntorch").digest()


def map_bytes(folder: Path) -> bytes:
    """A file of another program: a convolution, a pool, a flattening, single precision."""
    graph, ones = Graph(), np.ones((3, 4, 4), np.float32)
    weight = np.random.default_rng(0).normal(size=(3, 2, 3, 3)).astype(np.float32)
    two = np.array([2, 2])
    graph.add("in", "Input", shape=np.array([2, 8, 8]))
    convolution = {"stride": two, "padding": two // 2, "dilation": two // 2, "groups": np.array(1)}
    graph.add("conv", "Conv2d", weight=weight, bias=np.zeros(3), input_shape=np.array([8, 8]), **convolution)
    graph.add("a", "LIF", tau=ones * 5e-4, r=ones * 5, v_leak=ones * 0, v_threshold=ones)
    graph.add("pool", "AvgPool2d", kernel_size=two, stride=two, padding=two * 0)
    graph.add("flat", "Flatten", input_type=np.array([3, 2, 2]), start_dim=np.array(0), end_dim=np.array(-1))
    graph.add("w", "Affine", weight=np.ones((5, 12), np.float32), bias=np.zeros(5, np.float32))
    five = np.ones(5, np.float32)
    graph.add("b", "CubaLIF", tau_mem=five * 4e-4, tau_syn=five * 3e-4, r=five * 4, w_in=five * 3, v_threshold=five)
    graph.add("out", "Output", shape=np.array([5]))
    graph.connect("in", "conv", "a", "pool", "flat", "w", "b", "out")
    write_graph(folder / "good.nir", graph)
    return (folder / "good.nir").read_bytes()


def plain_bytes(folder: Path) -> bytes:
    """A file with every form of delay; nothing in it is compressed."""
    write_nir(current_network(), folder / "good.nir")
    return (folder / "good.nir").read_bytes()


def packed_bytes(folder: Path) -> bytes:
    """A file whose arrays are compressed, but for the smallest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nir_graph, "COMPRESS_FROM", 200)
        write_nir(delta_network(), folder / "good.nir")
    with h5py.File(folder / "good.nir") as file:
        packed: list[str] = []
        file.visititems(lambda name, item: packed.append(name) if getattr(item, "compression", None) else None)
    assert len(packed) > 5
    return (folder / "good.nir").read_bytes()


def hostile(folder: Path, count: int, seed: int, content: Any = plain_bytes) -> Iterator[tuple[str, bytes]]:
    """Yield well-formed files with one or two values that nobody meant: extreme, of another type, shape or place."""
    rng = np.random.default_rng(seed)
    original = content(folder)
    path = folder / "hostile.nir"
    numbers = [0, -1, 1, 2**31, 2**62, -(2**63), 1e-320, 1e308, -1e308, np.nan, np.inf, 0.5]
    words = ["", "NIRGraph", "Linear", "Input", "Output", "LIF", "Conv2d", "\u00e9" * 300, "in/out", "1e-3"]
    for i in range(count):
        path.write_bytes(original)
        with h5py.File(path, "r+") as file:
            names: list[str] = []
            file["node"].visititems(lambda name, item: names.append(f"node/{name}"))  # noqa: B023
            for _ in range(int(rng.integers(1, 3))):
                name = names[int(rng.integers(len(names)))]
                if reachable(file, name):
                    change(file, name, names, rng, numbers, words)
        yield f"hostile-{seed}-{i}", path.read_bytes()


def reachable(file: Any, name: str) -> bool:
    try:
        return name in file
    except RuntimeError:  # a link that leads to itself
        return False


def change(
    file: Any, name: str, names: list[str], rng: np.random.Generator, numbers: list[Any], words: list[str]
) -> None:
    old = file[name][()] if isinstance(file[name], h5py.Dataset) else None
    value: Any = numbers[int(rng.integers(len(numbers)))]
    kind = ("fill", "one", "word", "number", "shape", "long", "huge", "link", "group", "gone")[int(rng.integers(10))]
    is_numbers = isinstance(old, np.ndarray) and old.dtype.kind in "if" and old.size > 0
    del file[name]
    with np.errstate(all="ignore"):
        if kind == "fill" and is_numbers:
            file[name] = np.full_like(old, 0, dtype=np.float64) + value
        elif kind == "one" and is_numbers:
            new = np.array(old, dtype=np.float64)
            new.reshape(-1)[int(rng.integers(new.size))] = value
            file[name] = new
        elif kind == "word":
            file[name] = words[int(rng.integers(len(words)))]
        elif kind == "number":
            file[name] = np.float64(value)
        elif kind == "shape" and is_numbers:
            file[name] = np.zeros(tuple(rng.integers(0, 4, int(rng.integers(0, 4)))))
        elif kind == "long":
            file[name] = np.array([2**40, 3], dtype=np.int64)
        elif kind == "huge":
            shape = (1 << int(rng.integers(8, 20)), 1 << int(rng.integers(0, 14)))
            file.create_dataset(name, shape, dtype="f8", chunks=(64, 1), fillvalue=1.0)
        elif kind == "link":
            file[name] = file.get(names[int(rng.integers(len(names)))]) or h5py.SoftLink("/node/nodes")
        elif kind == "group":
            file.create_group(name)


LONG = pytest.mark.slow


def check(report: FuzzReport) -> None:
    print(f"read {report.read}, refused {report.refused}, slowest {report.slowest:.2f} s, starts {report.starts}")
    report.check()
    assert report.starts == 1
    assert report.read > 0
    assert len(report.sentences) > 5


@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=LONG)])
@pytest.mark.parametrize("content", [plain_bytes, packed_bytes])
@pytest.mark.parametrize("reader", ["read_own", "read_foreign", "read_by_judge"])
def test_mutants_of_a_nir_file(reader: str, content: Any, count: int, tmp_path: Path) -> None:
    check(fuzz(f"{__name__}:{reader}", content(tmp_path), tmp_path, suffix=".nir", count=count, seed=count))


@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=LONG)])
def test_well_formed_files_with_hostile_values(count: int, tmp_path: Path) -> None:
    check(fuzz_files(f"{__name__}:read_own", hostile(tmp_path, count, count), tmp_path, suffix=".nir"))


@pytest.mark.parametrize("count", [14, pytest.param(1000, marks=LONG)])
def test_mutants_of_a_file_with_maps(count: int, tmp_path: Path) -> None:
    reader = f"{__name__}:read_by_convention"
    check(fuzz(reader, map_bytes(tmp_path), tmp_path, suffix=".nir", count=count, seed=count))
    check(fuzz_files(reader, hostile(tmp_path, count, count, map_bytes), tmp_path, suffix=".nir"))
