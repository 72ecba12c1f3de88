"""Where arrays are computed: the CPU or a CUDA device, and one sentence where that is not possible."""

from __future__ import annotations

from typing import Literal, cast, get_args

from snnsim.errors import InputError

__all__ = ["NO_DRIVER", "Device", "check_device", "cuda_problem", "simulated"]

Device = Literal["cpu", "cuda"]

NO_DRIVER = "no NVIDIA driver was found (libcuda); install one, or use the CPU"
"""What :func:`cuda_problem` says where there is no driver; here too, for those who cannot wait for Numba."""


def cuda_problem() -> str | None:
    """Return why no CUDA kernel can run here, in one sentence; None if they can, or run in Numba's simulator."""
    from snnsim.kernels.cuda_support import why_not

    return why_not()


def simulated() -> bool:
    """Return whether Numba's simulator stands for a CUDA device."""
    from snnsim.kernels import cuda_support

    return cuda_support.SIMULATED


def check_device(device: str, what: str = "device") -> Device:
    """Return a device that can be used.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
        what: How the caller calls it, for the message.

    Raises:
        InputError: Unknown, or not to be had here.
    """
    if device not in get_args(Device):
        raise InputError(f"{what}: expected 'cpu' or 'cuda', got {device!r}")
    if device == "cuda" and (problem := cuda_problem()) is not None:
        raise InputError(f"{what} 'cuda': {problem}")
    return cast(Device, device)
