"""What must not be loaded is not loaded: checked in fresh processes, by module name and not by clock."""

import json
import subprocess
import sys

import pytest

NO_TORCH = [
    "snnsim",
    "snnsim.neurons",
    "snnsim.events",
    "snnsim.guard",
    "snnsim.sealed",
    "snnsim.network",
    "snnsim.network_file",
    "snnsim.connect",
    "snnsim.kernels",
    "snnsim.engines",
    "snnsim.engines.integer",
    "snnsim.integer_network",
    "snnsim.limits",
    "snnsim.quantize",
    "snnsim.quantize_calibration",
    "snnsim.export",
    "snnsim.export.nir",
    "snnsim.export.proof",
    "snnsim.export.sonata",
    "snnsim.learning",
    "snnsim.learning.spikeprop",
    "snnsim.learning.stdp_layer",
    "snnsim.learning.tempotron",
    "snnsim.energy",
    "snnsim.metrics",
    "snnsim.datasets",
    "snnsim.plots",
    "snnsim.pruning.lnp",
    "snnsim.pruning.pools",
    "snnsim.report",
]

BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torchvision", "torchaudio"):
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Block())
"""

SPIKINGJELLY = """
from spikingjelly.activation_based import base, functional, layer, neuron, surrogate
import snnsim.nn.spikingjelly
node = neuron.LIFNode(tau=2.0, surrogate_function=surrogate.ATan(), step_mode="m")
assert type(node).__name__ == "LIFNode"
"""


def loaded_after(code: str) -> set[str]:
    """Run code in a fresh interpreter and return the names of the modules it loaded."""
    script = code + "\nimport sys, json; print(json.dumps(sorted(sys.modules)), file=sys.__stderr__)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.strip().splitlines()[-1]))


@pytest.mark.parametrize("name", NO_TORCH)
def test_import_does_not_load_torch(name: str) -> None:
    loaded = loaded_after(f"import {name}")
    assert name in loaded
    assert "torch" not in loaded
    assert "matplotlib" not in loaded


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["doctor"], ["doctor", "--json"]])
def test_start_up_loads_nothing_heavy(words: list[str]) -> None:
    loaded = loaded_after(f"from snnsim.cli.main import run; assert run({words!r}) == 0")
    assert not {"torch", "numpy", "numba", "scipy", "h5py", "matplotlib"} & loaded


def test_everything_used_of_spikingjelly_imports_without_torchvision_and_torchaudio() -> None:
    loaded = loaded_after(BLOCK + SPIKINGJELLY)
    assert "spikingjelly" in loaded
    assert not {"torchvision", "torchaudio"} & loaded
