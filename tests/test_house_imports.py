"""Imports go one way: read from the syntax trees, so that an import inside a function counts too."""

import ast
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GROUND = {"errors", "files", "guard", "sealed", "grid", "machine"}

# room -> the rooms it may import (besides itself and the ground); docs/architecture.md draws the same table.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "files": set(),
    "guard": set(),
    "sealed": set(),
    "grid": set(),
    "machine": set(),
    "kernels": set(),
    "device": {"kernels"},
    "neurons": set(),
    "events": set(),
    "network": {"neurons"},
    "integer_network": {"network"},
    "stimuli": {"network"},
    "plasticity": {"network"},
    "connect": {"network", "kernels"},
    "models": {"connect", "network", "neurons", "stimuli"},
    "metrics": {"network", "events"},
    "plots": {"network", "events"},
    "engines": {"network", "neurons", "events", "kernels", "metrics", "stimuli", "plasticity", "integer_network"}
    | {"device"},
    "limits": set(),
    "quantize": {"limits", "integer_network", "network", "neurons", "events", "engines", "kernels"},
    "pruning": {"network", "neurons", "kernels"},
    "export": {
        *("network", "neurons", "events", "engines", "metrics", "limits", "quantize", "integer_network", "kernels"),
    },
    "datasets": {"events", "kernels"},
    "complexity": {"events", "kernels"},
    "recipes": set(),
    "nn": {"kernels", "neurons", "network", "recipes", "pruning", "device"},
    "learning": {"nn", "kernels", "network", "neurons", "events"},
    "training": {
        *("learning", "nn", "recipes", "datasets", "metrics", "engines", "network", "neurons", "events"),
        *("pruning", "plasticity", "limits", "quantize", "device"),
    },
    "report": {"plots", "metrics", "export", "engines", "network", "events"},
    "studies": {
        *("training", "learning", "complexity", "datasets", "engines", "neurons", "network"),
        *("events", "recipes", "metrics", "plots", "report", "pruning", "kernels"),
        *("export", "limits", "quantize", "integer_network"),
    },
    "bench": {
        *("kernels", "network", "neurons", "events", "stimuli", "engines"),
        *("datasets", "nn", "learning", "recipes", "training", "export", "integer_network", "device", "models"),
    },
    "cli": {
        *("bench", "studies"),
        *("training", "recipes", "report", "plots", "export", "datasets", "engines"),
        *("metrics", "network", "events", "nn", "pruning", "limits", "quantize", "integer_network"),
        "device",
    },
}
SAME_ROOM = {
    "__main__": "cli",
    "html_page": "report",
    "energy": "metrics",
    "neuron_base": "neurons",
    "neurons_recovery": "neurons",
    "neurons_meta_dynamic": "neurons",
    "neurons_synaptic": "neurons",
    "neurons_stochastic": "neurons",
    "target_check": "quantize",
    "quantize_delays": "quantize",
    "quantize_weights": "quantize",
    "quantize_report": "quantize",
    "quantize_calibration": "quantize",
    "quantize_loihi": "quantize",
    "quantize_fixed": "quantize",
    "quantize_xylo": "quantize",
    "integer_laws": "integer_network",
    "integer_file": "integer_network",  # saving and loading, imported when used
    "network_file": "network",  # saving and loading, imported when used
    "network_checks": "network",
    "network_sparse": "network",
    "network_synapses": "network",
    "events_checks": "events",
    "complexity_classifier": "complexity",
    "connect_values": "connect",
    "connect_plan": "connect",
    "connect_space": "connect",
}
NUMPY_ONLY = {"errors", "files", "guard", "sealed", "grid", "machine", "neurons", "events", "network"} | {
    "integer_network"
}
HDF5_FILES = {"guard.py", "sealed.py"}  # imported when a file is read or written
THIRD_PARTY = {"kernels": {"numpy", "numba", "llvmlite"}}  # llvmlite is the half of Numba that writes instructions
TORCH_ROOMS = {"nn", "learning", "training", "bench", "studies"}
TORCH_FILES = {
    "nir_judge.py",
    "nir_peers.py",
    "nir_worker.py",
}  # runs other people's programs, imported when a file is checked
LOCAL_RULES = {  # learning rules on spikes alone
    ROOT / "snnsim" / "learning" / f"{name}.py"
    for name in ("local", "spikeprop", "stdp", "stdp_layer", "tempotron", "tempotron_layer")
}
NEVER = {"pickle", "torchvision", "torchaudio", "kernels", "datasets", "dill", "joblib", "cloudpickle"}


def sources() -> list[Path]:
    tops = (ROOT / "snnsim", ROOT / "kernels", ROOT / "datasets")
    return sorted(path for top in tops for path in top.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    name = ".".join(parts if parts[0] == "snnsim" else ("snnsim", *parts))
    return name.removesuffix(".__init__")


def room_of(module: str) -> str | None:
    """Room of a module of the package: its second name; None for the package's own face."""
    parts = module.split(".")
    return SAME_ROOM.get(parts[1], parts[1]) if len(parts) > 1 else None


def imports(path: Path) -> set[str]:
    """Full names of the modules that a file imports, those for type checking only left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()

    def walk(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for child in node.orelse:
                walk(child)
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the full name"
            if node.module == "snnsim":
                found.update(f"snnsim.{alias.name}" for alias in node.names)
            else:
                found.add(node.module or "")
        for child in ast.iter_child_nodes(node):
            walk(child)

    walk(tree)
    return found


FILES = sources()
IDS = [str(path.relative_to(ROOT)) for path in FILES]


def test_the_table_has_a_row_for_every_room_and_no_circle() -> None:
    rooms = {room for path in FILES if (room := room_of(module_name(path)))}
    rooms -= {"__init__", "kernels", "datasets"}
    assert rooms <= set(MAY_IMPORT)
    list(TopologicalSorter(MAY_IMPORT).static_order())  # raises CycleError


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_imports_go_one_way(path: Path) -> None:
    room = room_of(module_name(path))
    if room is None:
        return
    used = {room_of(name) for name in imports(path) if name.split(".")[0] == "snnsim"} - {None, room, "__version__"}
    allowed = MAY_IMPORT[room] | GROUND
    assert used <= allowed, f"{room} imports {sorted(used - allowed)}"


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_libraries_stay_in_their_rooms(path: Path) -> None:
    room = room_of(module_name(path)) or "face"
    outside = {name.split(".")[0] for name in imports(path)} - {"snnsim"}
    assert not outside & NEVER
    foreign = outside - set(sys.stdlib_module_names)
    if room in NUMPY_ONLY:
        assert foreign <= ({"numpy", "h5py"} if path.name in HDF5_FILES else {"numpy"})
    if room in THIRD_PARTY:
        assert foreign <= THIRD_PARTY[room]
    if path in LOCAL_RULES:
        assert not foreign & {"torch"}
        assert not {room_of(name) for name in imports(path) if name.startswith("snnsim")} & {"nn", "training"}
    if room not in TORCH_ROOMS | {"cli"} and path.name not in TORCH_FILES:
        assert "torch" not in foreign


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name == "cli"], ids=lambda path: path.name)
def test_a_command_module_imports_heavy_things_only_when_it_runs(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    heads = {alias.name for node in top if isinstance(node, ast.Import) for alias in node.names}
    heads |= {node.module or "" for node in top if isinstance(node, ast.ImportFrom)}
    assert not {head.split(".")[0] for head in heads} & {"torch", "numba", "matplotlib", "scipy"}
    assert not {head for head in heads if head.startswith(("snnsim.nn", "snnsim.training", "snnsim.engines"))}
