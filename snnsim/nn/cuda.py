"""Tensors and streams of torch as CUDA kernels take them, without a copy.

On a device a tensor is handed to a kernel through ``__cuda_array_interface__`` and the kernel runs on torch's current
stream: no copy, no synchronisation. Under Numba's simulator (``NUMBA_ENABLE_CUDASIM=1``) tensors stay on the CPU, and
inside :func:`simulated_device` they go through the same functions and the same kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch import Tensor

from snnsim.device import Device, check_device, simulated
from snnsim.errors import InputError

__all__ = [
    "as_cuda",
    "asked_once",
    "check_torch_device",
    "current_stream",
    "full_precision",
    "on_cuda",
    "on_host",
    "simulated_device",
    "use_device",
]

Answer = TypeVar("Answer")

_simulates: ContextVar[bool] = ContextVar("snnsim_simulates_cuda", default=False)


def on_cuda(x: Tensor) -> bool:
    """Return whether a tensor is worked on by CUDA kernels: it lies on a device, or the simulator stands for one."""
    return x.is_cuda or (_simulates.get() and x.device.type == "cpu")


def on_host(x: Tensor) -> bool:
    """Return whether a tensor is worked on by the CPU's kernels: not on a device of any kind, and none is stood for."""
    return x.device.type == "cpu" and not on_cuda(x)


@contextmanager
def simulated_device() -> Iterator[None]:
    """Let Numba's simulator stand for a CUDA device within the block: tensors on the CPU take the device's ways.

    Raises:
        InputError: Numba was not started with its simulator.
    """
    if not simulated():
        raise InputError(
            "simulated device: expected NUMBA_ENABLE_CUDASIM=1 in the environment before Numba is imported"
        )
    token = _simulates.set(True)
    try:
        yield
    finally:
        _simulates.reset(token)


def check_torch_device(device: str, what: str = "device") -> Device:
    """Return a device that torch can use, or Numba's simulator stands for.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
        what: How the caller calls it, for messages.

    Raises:
        InputError: The device is not to be had, or torch was built without CUDA.
    """
    chosen = check_device(device, what)
    if chosen == "cpu" or simulated():
        return chosen
    if torch.version.cuda is None:
        raise InputError(
            f"{what} 'cuda': torch {torch.__version__} was built without CUDA; install a build with it from "
            "pytorch.org, or use the CPU"
        )
    if not torch.cuda.is_available():
        raise InputError(f"{what} 'cuda': torch {torch.__version__} finds no usable GPU; see `snnsim doctor`")
    return chosen


@contextmanager
def use_device(device: str, what: str = "device") -> Iterator[torch.device]:
    """Yield the torch device by that name; under Numba's simulator ``"cuda"`` is the CPU that stands for one.

    Float32 products stay float32 on the device: tf32, which keeps 10 bits of a factor, is switched off in the block.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
        what: How the caller calls it, for messages.

    Raises:
        InputError: The device is not to be had, or torch was built without CUDA.
    """
    if check_torch_device(device, what) == "cpu":
        yield torch.device("cpu")
        return
    if simulated():
        with simulated_device():
            yield torch.device("cpu")
        return
    with full_precision():
        yield torch.device("cuda", torch.cuda.current_device())


@contextmanager
def full_precision() -> Iterator[None]:
    """Switch tf32 off within the block, in products and in convolutions (where torch has it on by default)."""
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions


def as_cuda(x: Tensor) -> Any:
    """See a contiguous tensor as an array that CUDA kernels take; it shares the tensor's memory.

    bool tensors are seen as uint8.

    Raises:
        InputError: The tensor is not contiguous.
    """
    if not x.is_contiguous():
        raise InputError(f"as_cuda: expected a contiguous tensor, got strides {x.stride()} for {tuple(x.shape)}")
    x = x.detach()
    if x.dtype == torch.bool:
        x = x.view(torch.uint8)
    if x.is_cuda:
        from numba import cuda

        return cuda.as_cuda_array(x, sync=False)
    from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

    return FakeCUDAArray(x.numpy())


def current_stream(x: Tensor) -> Any:
    """Return torch's current stream of the tensor's device as kernels take it; 0 in the simulator."""
    if not x.is_cuda:
        return 0
    from numba import cuda

    return cuda.external_stream(torch.cuda.current_stream(x.device).cuda_stream)


def asked_once(owner: Any, name: str, x: Tensor, question: Callable[[Tensor], Answer]) -> Answer:
    """Return ``question(x)``; asked again only when ``x`` is another tensor or was written to.

    A question about a tensor on a device waits for the device.

    Args:
        owner: What remembers the answer.
        name: Under which name.
        x: Tensor that seldom changes.
        question: Function of it.
    """
    if x.is_inference():  # such a tensor does not say when it was written to
        return question(x)
    known = owner.__dict__.get(name)
    if known is None or known[0] is not x or known[1] != x._version:
        known = owner.__dict__[name] = (x, x._version, question(x))
    answer: Answer = known[2]
    return answer
