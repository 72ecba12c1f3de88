"""What every CUDA kernel stands on: is there a device, how kernels are launched, products that are rounded.

Kernels are written for ``numba.cuda``, the one built into Numba and the one of the package ``numba-cuda`` alike, and
use only what Numba's simulator (environment variable ``NUMBA_ENABLE_CUDASIM=1``, set before Numba is imported) knows as
well: there a kernel is plain Python on NumPy arrays, one thread of Python per thread of the device.

The compiler for devices fuses ``a * b + c`` into one operation with one rounding unless it is told not to, and Numba
has no option for that. :func:`times` is a product that is rounded by itself: with it a kernel computes the bits of the
CPU's kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import config, cuda, types

__all__ = ["SIMULATED", "blocks_of", "device_array", "launch", "threads_per_block", "times", "why_not"]

SIMULATED = bool(config.ENABLE_CUDASIM)
"""Whether kernels run in Numba's simulator."""

OLDEST_DRIVER = 12
"""Oldest major version of CUDA that a driver must support."""

OLDEST_DEVICE = (7, 0)
"""Oldest compute capability: the oldest that CUDA 12 and 13 both compile for."""

if not SIMULATED:
    config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # a grid is as large as its work, and some work is small

_WIDE = 256
_SIMULATED_WIDE = 4


def times(a: Any, b: Any) -> Any:
    """Return ``a b`` rounded to the type of its factors, float32 or float64; never fused with an addition."""
    return a * b


if not SIMULATED:
    try:
        from numba.cuda.extending import overload

        _for_device: dict[str, Any] = {}
    except ImportError:  # the one built into Numba
        from numba.extending import overload

        _for_device = {"target": "cuda"}

    @overload(times, **_for_device)
    def _times(a, b):  # type: ignore[no-untyped-def]
        from numba.cuda import libdevice

        if a == types.float64 and b == types.float64:
            return lambda a, b: libdevice.dmul_rn(a, b)
        if a == types.float32 and b == types.float32:
            return lambda a, b: libdevice.fmul_rn(a, b)
        return None  # factors of different types: a mistake of the kernel


def threads_per_block() -> int:
    """Return the threads of a block where a kernel has no reason for another number; in the simulator few."""
    return _SIMULATED_WIDE if SIMULATED else _WIDE


def blocks_of(n: int, width: int) -> int:
    """Return the blocks of ``width`` threads that hold ``n`` threads, at least one."""
    return max(1, -(-n // width))


def launch(kernel: Any, n: int, arguments: Sequence[Any], stream: Any = 0, width: int | None = None) -> None:
    """Start a kernel with one thread an item.

    Args:
        kernel: What ``cuda.jit`` made; it must leave threads beyond ``n`` alone.
        n: Items; none starts nothing.
        arguments: Of the kernel.
        stream: Stream to start it on.
        width: Threads a block; default :func:`threads_per_block`.
    """
    if n <= 0:
        return
    width = width or threads_per_block()
    kernel[blocks_of(n, width), width, stream](*arguments)


def device_array(values: Any, stream: Any = 0) -> Any:
    """Return a copy of a NumPy array on the device."""
    return cuda.to_device(np.ascontiguousarray(values), stream=stream)


def why_not() -> str | None:
    """Return why no CUDA kernel can run here, in one sentence with what to do; None if they can, or are simulated."""
    if SIMULATED:
        return None
    from numba.cuda.cudadrv import driver, nvvm
    from numba.cuda.cudadrv.error import CudaSupportError, NvvmSupportError

    if not driver.driver.is_available:
        reason = str(driver.driver.initialization_error or "")
        if "cannot be found" in reason or "libcuda" in reason:
            return "no NVIDIA driver was found (libcuda); install one, or use the CPU"
        first = next((line.strip() for line in reason.splitlines() if line.strip()), "no reason given")
        return f"the NVIDIA driver could not be started ({first}); check it with nvidia-smi, or use the CPU"
    try:
        version = tuple(int(part) for part in driver.driver.get_version())
        if version < (OLDEST_DRIVER, 0):
            return (
                f"the NVIDIA driver supports CUDA {version[0]}.{version[1]}, expected {OLDEST_DRIVER}.0 or newer; "
                "update the driver"
            )
        if not len(cuda.gpus):
            return "the NVIDIA driver finds no GPU; check CUDA_VISIBLE_DEVICES, or use the CPU"
        device = cuda.get_current_device()
    except (CudaSupportError, driver.CudaAPIError) as error:
        first = str(error).strip().splitlines()[0]
        return f"the GPU could not be used ({first}); check it with nvidia-smi, or use the CPU"
    if device.compute_capability < OLDEST_DEVICE:
        have, want = (".".join(map(str, pair)) for pair in (device.compute_capability, OLDEST_DEVICE))
        return f"the GPU has compute capability {have}, expected {want} or newer; use the CPU"
    try:
        nvvm.NVVM()
    except (NvvmSupportError, OSError):
        return "the compiler for CUDA kernels (NVVM) was not found; install it with: pip install 'snnsim[cuda]'"
    return None
