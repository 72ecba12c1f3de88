"""`snnsim doctor` and the GPU: the sentence of ``--device cuda``, at once, without Numba and torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from snnsim.cli import doctor, doctor_gpu
from snnsim.cli.doctor_gpu import Gpu, find_gpu
from snnsim.cli.main import run
from snnsim.device import NO_DRIVER
from snnsim.kernels import cuda_support

QUICK = """
import sys
from snnsim.cli import doctor_gpu
doctor_gpu.has_driver = lambda: False
print(doctor_gpu.find_gpu().problem)
print(sorted({"torch", "numba"} & set(sys.modules)))
"""
SENTENCE = "from snnsim.device import cuda_problem; print(cuda_problem())"


def python(code: str) -> list[str]:
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "0"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_without_a_driver_nothing_is_imported() -> None:
    assert python(QUICK) == [NO_DRIVER, "[]"]


@pytest.mark.skipif(doctor_gpu.has_driver(), reason="this machine has a driver")
def test_kernels_say_the_same_sentence() -> None:
    assert python(SENTENCE) == [NO_DRIVER]


def test_no_driver_is_a_note_and_no_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor_gpu, "has_driver", lambda: False)
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "0")
    assert run(["doctor"]) == 0
    out = capsys.readouterr().out
    assert f"  gpu       none: {NO_DRIVER}" in out
    assert "note: --device cuda: no NVIDIA driver was found (libcuda)\n    fix: install one, or use the CPU" in out
    assert run(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gpu"]["problem"] == NO_DRIVER


def a_gpu(monkeypatch: pytest.MonkeyPatch, problem: str | None, built: str | None) -> Gpu:
    """Return what is found on a machine with a device."""
    from numba import cuda

    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "0")
    context = SimpleNamespace(get_memory_info=lambda: SimpleNamespace(total=80 << 30))
    parts: dict[Any, dict[str, Any]] = {
        doctor_gpu: {"has_driver": lambda: True, "torch_cuda": lambda: built},
        cuda_support: {"SIMULATED": False, "why_not": lambda: problem},
        cuda: {"get_current_device": lambda: SimpleNamespace(name=b"A GPU"), "current_context": lambda: context},
    }
    for owner, new in parts.items():
        for name, value in new.items():
            monkeypatch.setattr(owner, name, value, raising=False)
    library = SimpleNamespace(driver=SimpleNamespace(get_version=lambda: (13, 0)))
    monkeypatch.setitem(sys.modules, "numba.cuda.cudadrv.driver", library)
    return find_gpu()


def test_a_device_is_named_with_both_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    found = a_gpu(monkeypatch, None, "13.0")
    assert found == Gpu(None, "A GPU", 80.0, "13.0", "13.0")
    assert found.line() == "A GPU, 80.0 GiB memory, driver for CUDA 13.0, torch for CUDA 13.0"
    assert not any("--device" in item["what"] for item in doctor.diagnose()["problems"])


@pytest.mark.parametrize(
    ("problem", "built", "what", "fix"),
    [
        (None, None, "torch was built without CUDA", "install a build with it from pytorch.org, or train on the CPU"),
        (
            "the GPU has compute capability 6.1, expected 7.0 or newer; use the CPU",
            "13.0",
            "the GPU has",
            "use the CPU",
        ),
    ],
)
def test_a_device_that_cannot_be_used_is_a_warning(
    problem: str | None, built: str | None, what: str, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = a_gpu(monkeypatch, problem, built)
    assert "; not usable: " in found.line()
    noted = [item for item in doctor.diagnose()["problems"] if item["what"].startswith("--device cuda: ")]
    assert [item["level"] for item in noted] == ["warning"]
    assert what in noted[0]["what"]
    assert noted[0]["fix"] == fix


def test_the_simulator_is_not_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_gpu, "has_driver", lambda: False)
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1")
    assert "kernels run in Numba's simulator" in str(find_gpu().problem)


def test_the_version_of_torch_is_read_from_its_file() -> None:
    import torch

    assert doctor_gpu.torch_cuda() == torch.version.cuda
