"""Plugin of pytest: write down which CUDA kernels the simulator ran, and with which types.

    SNNSIM_PTX_RECORD=kernels.json python -m pytest -n0 -p tests.ptx_record tests/test_cuda_support.py

Numba's simulator runs kernels as plain Python, so nothing there shows whether the compiler for devices accepts them.
The file that is written tells :mod:`tests.ptx_check` what to compile. Only kernels of ``snnsim.kernels`` count.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

RECORD = "SNNSIM_PTX_RECORD"
ROOM = "snnsim.kernels."

_seen: dict[tuple[str, str, tuple[str, ...]], int] = {}


def type_of(value: Any) -> str:
    """Return the type that Numba gives an argument of a kernel on a device, as text that ``ptx_check`` reads."""
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return f"({' '.join(type_of(item) for item in value)})"
    if isinstance(value, (bool, np.bool_)):
        return "boolean"
    if isinstance(value, int):
        return "int64"
    if isinstance(value, float):
        return "float64"
    if isinstance(value, np.generic):
        return str(value.dtype)
    array = getattr(value, "_ary", value)
    if not isinstance(array, np.ndarray):
        raise TypeError(f"a kernel was given {type(value).__name__}, which no device takes")
    layout = "C" if array.flags.c_contiguous else "A"
    return f"{'boolean' if array.dtype == bool else array.dtype}[{array.ndim}{layout}]"


def note(fn: Any, arguments: tuple[Any, ...], threads: int) -> None:
    """Write down one start of a kernel with blocks of some threads."""
    if fn.__module__.startswith(ROOM):
        key = (fn.__module__, fn.__qualname__, tuple(type_of(value) for value in arguments))
        _seen[key] = max(threads, _seen.get(key, 0))


def pytest_configure() -> None:
    """Have every start of a kernel noted."""
    os.environ["NUMBA_ENABLE_CUDASIM"] = "1"
    from numba.cuda.simulator.kernel import FakeCUDAKernel

    run = FakeCUDAKernel.__call__

    def noted(self: Any, *arguments: Any) -> Any:
        if not self._device:
            note(self.fn, arguments, int(np.prod(self.block_dim)))
        return run(self, *arguments)

    FakeCUDAKernel.__call__ = noted


def pytest_unconfigure() -> None:
    """Write the file."""
    made = [
        {"module": module, "kernel": name, "types": types, "threads": threads}
        for (module, name, types), threads in sorted(_seen.items())
    ]
    Path(os.environ[RECORD]).write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
