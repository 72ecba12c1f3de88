"""What `snnsim doctor` says about the GPU, at once: nothing is imported where there is no driver."""

from __future__ import annotations

import ctypes
import os
import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import util
from pathlib import Path
from typing import Any

from snnsim.device import NO_DRIVER, cuda_problem

__all__ = ["Gpu", "find_gpu"]

DRIVERS = ("libcuda.so.1", "libcuda.so", "nvcuda.dll")


@dataclass(frozen=True)
class Gpu:
    """The device that ``--device cuda`` would take.

    Attributes:
        problem: Why it cannot be used, one sentence with what to do, or None.
        name: Name of the device, or None.
        memory_gib: Its memory, or None.
        driver_cuda: Newest version of CUDA that the driver supports, or None.
        torch_cuda: Version of CUDA that torch was built with, or None.
    """

    problem: str | None
    name: str | None = None
    memory_gib: float | None = None
    driver_cuda: str | None = None
    torch_cuda: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)

    def line(self) -> str:
        """Return one line for people."""
        if self.name is None:
            return f"none: {self.problem}"
        facts = f"{self.name}, {self.memory_gib} GiB memory, driver for CUDA {self.driver_cuda}"
        built = "torch without CUDA" if self.torch_cuda is None else f"torch for CUDA {self.torch_cuda}"
        return f"{facts}, {built}" + ("" if self.problem is None else f"; not usable: {self.problem}")


def has_driver() -> bool:
    """Return whether the library of an NVIDIA driver can be loaded."""
    for name in (os.environ.get("NUMBA_CUDA_DRIVER"), *DRIVERS):
        if name:
            with suppress(OSError):
                ctypes.CDLL(name)
                return True
    return False


def torch_cuda() -> str | None:
    """Return the version of CUDA that the installed torch was built with, without importing it."""
    found = util.find_spec("torch")
    if found is None or found.origin is None:
        return None
    try:
        text = (Path(found.origin).parent / "version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    match = re.search(r"^cuda\s*(?::[^=]*)?=\s*['\"]([\d.]+)['\"]", text, re.MULTILINE)
    return None if match is None else match.group(1)


def find_gpu() -> Gpu:
    """Return the device that ``--device cuda`` would take, or why there is none."""
    built = torch_cuda()
    if os.environ.get("NUMBA_ENABLE_CUDASIM", "0").strip() not in ("", "0"):
        return Gpu("NUMBA_ENABLE_CUDASIM is set, so kernels run in Numba's simulator; unset it", torch_cuda=built)
    if not has_driver():
        return Gpu(NO_DRIVER, torch_cuda=built)
    from numba import cuda

    problem = cuda_problem()
    name = memory = driver = None
    with suppress(Exception):  # a driver that is broken in its own way: the sentence above says what is known
        from numba.cuda.cudadrv.driver import driver as library

        driver = ".".join(map(str, library.get_version()))
        device = cuda.get_current_device()
        name = device.name.decode() if isinstance(device.name, bytes) else str(device.name)
        memory = round(cuda.current_context().get_memory_info().total / 2**30, 1)
    if problem is None and built is None:
        problem = (
            "torch was built without CUDA, so training cannot use it (engine 'cuda' can); install a build with it from "
            "pytorch.org, or train on the CPU"
        )
    return Gpu(problem, name, memory, driver, built)
