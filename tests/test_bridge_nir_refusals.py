"""NIR files that are damaged, hostile or beyond what can be read: one sentence each, in the limited process."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from test_bridge_nir import DT, LIF_VALUES, delta_network, simple_graph

from snnsim.errors import InputError, SnnsimFileError
from snnsim.export.nir import write_nir
from snnsim.export.nir_graph import Graph, write_graph
from snnsim.export.nir_read import read_nir
from snnsim.network import Network, Population
from snnsim.neurons import LIF


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tau": np.full(3, -1.0)}, "tau: expected positive seconds"),
        ({"tau": np.full(3, 1e-4)}, "shorter than dt"),
        ({"tau": np.ones(7)}, r"tau has shape \(7,\)"),
        ({"tau": np.full(3, np.nan)}, "finite numbers"),
        ({"r": np.ones((3, 1))}, "one value a neuron"),
    ],
)
def test_bad_neurons_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_graph(tmp_path / "f.nir", simple_graph(**(LIF_VALUES | change)))
    with pytest.raises((InputError, SnnsimFileError), match=message):
        read_nir(tmp_path / "f.nir", dt=1e-3)


def test_bad_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.nir"
    with pytest.raises(SnnsimFileError, match="no such file"):
        read_nir(path, dt=1e-3)
    path.write_bytes(b"not hdf5 at all")
    with pytest.raises(SnnsimFileError, match="not a readable NIR file"):
        read_nir(path, dt=1e-3)
    with h5py.File(path, "w") as file:
        file["other"] = 1
    with pytest.raises(SnnsimFileError, match="is this a NIR file"):
        read_nir(path, dt=1e-3)
    write_graph(path, simple_graph(**LIF_VALUES))
    with pytest.raises(InputError, match="no time step; pass dt"):
        read_nir(path)
    graph = simple_graph(**LIF_VALUES)
    graph.edges.append(("cells", "nowhere"))
    write_graph(path, graph)
    with pytest.raises(SnnsimFileError, match="names no node 'nowhere'"):
        read_nir(path, dt=1e-3)
    graph = simple_graph(**LIF_VALUES)
    graph.add("c", "Convolver", weight=np.ones((1, 1, 1)))
    graph.connect("in", "c", "cells")
    write_graph(path, graph)
    with pytest.raises(InputError, match=r"node 'c': Convolver nodes cannot be read"):
        read_nir(path, dt=1e-3)
    with h5py.File(path, "a") as file:
        del file["node/nodes/w/weight"]
        file.create_dataset("node/nodes/w/weight", shape=(1 << 20, 1 << 20), dtype="f8", chunks=(64, 64))
    with pytest.raises(SnnsimFileError, match="4 GiB"):
        read_nir(path, dt=1e-3)


def test_the_file_is_never_parsed_in_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_nir(delta_network(), tmp_path / "f.nir")
    monkeypatch.setattr(h5py, "File", None)
    assert read_nir(tmp_path / "f.nir") == read_nir(tmp_path / "f.nir", DT)


def chain(*nodes: tuple[str, dict[str, Any]], size: int = 3) -> Graph:
    graph = Graph()
    names = ["in", *(graph.add("node", kind, **values) for kind, values in nodes), "cells"]
    graph.add("in", "Input", shape=np.array([size]))
    graph.add("cells", "LIF", **LIF_VALUES)
    graph.connect(*names)
    return graph


def test_small_files_that_describe_very_much_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.nir"
    wide = np.ones((900, 900))
    write_graph(path, chain(*[("Linear", {"weight": w}) for w in (wide, wide, wide, wide[:3])], size=900))
    assert path.stat().st_size < 200_000
    with pytest.raises(SnnsimFileError, match=r"asks for more memory|took longer"):
        read_nir(path, dt=1e-3)
    write_graph(path, chain(*[("Scale", {"scale": np.ones(3)})] * 1500))
    with pytest.raises((InputError, SnnsimFileError), match=r"too long to be read|took longer"):
        read_nir(path, dt=1e-3)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        ("Input", {"shape": np.array([1 << 60])}, "expected a whole number from 1 to 2147483647"),
        ("Input", {"shape": np.array([2.5])}, r"expected a whole number from 1 to 2147483647, got 2\.5"),
        ("Delay", {"delay": np.full(3, 1e300)}, "at most 2147483647 steps"),
        ("Delay", {"delay": np.full(3, -0.1)}, "expected non-negative seconds"),
        ("x" * 300, {}, r"node 'node': 'x{40}' nodes cannot be read"),
    ],
)
def test_impossible_nodes_are_refused(kind: str, values: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_graph(tmp_path / "f.nir", chain((kind, values)))
    with pytest.raises(InputError, match=message) as caught:
        read_nir(tmp_path / "f.nir", dt=1e-3)
    assert str(caught.value).startswith(str(tmp_path))


def swap(name: str, value: Any) -> Any:
    def edit(file: Any) -> None:
        del file[name]
        file[name] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (swap("node/nodes/w/weight", h5py.SoftLink("/node/nodes/cells/r")), "is a link to another place"),
        (swap("node/nodes/w", h5py.ExternalLink("/etc/passwd", "/")), "is a link to another place"),
        (swap("node/nodes/w", np.ones(3)), "expected a group, found an array"),
        (swap("node/edges", np.ones((2, 2))), "expected pairs of names"),
        (swap("node/nodes/w/type", np.ones(3)), "expected one string"),
        (lambda file: file.move("node/nodes/w", "node/nodes/" + "w" * 999), "expected at most 200"),
        (lambda file: file.move("node/nodes/w/type", "node/nodes/w/kind"), "missing; is this a NIR file"),
    ],
)
def test_files_of_another_form_are_refused(edit: Any, message: str, tmp_path: Path) -> None:
    write_graph(tmp_path / "f.nir", simple_graph(**LIF_VALUES))
    with h5py.File(tmp_path / "f.nir", "a") as file:
        edit(file)
    with pytest.raises(SnnsimFileError, match=message):
        read_nir(tmp_path / "f.nir", dt=1e-3)


def test_bad_settings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.nir"
    graph = simple_graph(**LIF_VALUES)
    write_graph(path, graph)
    with pytest.raises(InputError, match="expected 'euler' or 'exponential', got 'heun'"):
        read_nir(path, dt=1e-3, discretisation="heun")  # type: ignore[arg-type]
    graph.metadata["discretisation"] = "heun"
    write_graph(path, graph)
    with pytest.raises(InputError, match=r"f\.nir: discretisation: .* got 'heun'"):
        read_nir(path, dt=1e-3)
    with pytest.raises(InputError, match="dt: expected a positive number"):
        read_nir(path, dt=-1.0)


def test_the_judge_refuses_a_damaged_file_in_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("nirtorch")
    from snnsim.export.nir_judge import NirJudge

    path = tmp_path / "n.nir"
    with pytest.raises(SnnsimFileError, match="cannot be read"):
        NirJudge(path)
    path.write_bytes(b"not hdf5 at all")
    with pytest.raises(SnnsimFileError, match="not a readable NIR file"):
        NirJudge(path)
    graph = simple_graph(**LIF_VALUES)
    graph.add("c", "Unheard", weight=np.ones(1))
    write_graph(path, graph)
    with pytest.raises(SnnsimFileError, match="the nir package cannot read it"):
        NirJudge(path)


def test_a_drive_without_an_input_is_refused(tmp_path: Path) -> None:
    network = Network((Population("h", 3, LIF(tau_mem=0.01, drive=200.0)),), (), (), None, 1e-3)
    with pytest.raises(InputError, match="'h': its drive is written as the bias of a map from an input"):
        write_nir(network, tmp_path / "f.nir")
    assert not list(tmp_path.iterdir())
