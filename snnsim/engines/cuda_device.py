"""A network on the device: its tables and synapses, uploaded once and shared by all batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.engines.cuda_plan import CudaPlan
from snnsim.engines.cuda_synapses import Gathered, Scattered
from snnsim.errors import InputError
from snnsim.kernels.cuda_scatter import half_scales
from snnsim.kernels.cuda_support import SIMULATED, device_array

__all__ = ["DeviceNetwork", "bytes_of", "check_memory", "free_memory", "upload"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class DeviceNetwork:
    """What kernels read of a network.

    Attributes:
        numbers: Numbers per step of every neuron, flat; its drives are written anew for every run.
        facts: Whole numbers of every neuron, flat.
        gathered: Arguments of the kernels that gather: first, length, source, weight, delay.
        scattered: Arguments of the kernel that scatters, from ``rows`` to ``halved``.
        unit_row: First row of each unit.
        longest: The longest delay of the synapses that are gathered.
        gathers: Whether synapses are gathered.
        scatters: Whether synapses are scattered.
        most_rows: Most rows of one unit.
    """

    numbers: Any
    facts: Any
    gathered: tuple[Any, ...]
    scattered: tuple[Any, ...]
    unit_row: Any
    longest: int
    gathers: bool
    scatters: bool
    most_rows: int


def free_memory() -> float:
    """Return the free bytes on the device; infinity in the simulator."""
    from numba import cuda

    context = cuda.current_context()
    if not SIMULATED:
        context.memory_manager.deallocations.clear()  # what was given up and not given back
    return float(context.get_memory_info()[0])


def check_memory(needed: float, free: float, what: str, try_this: str) -> None:
    """Refuse what does not fit on the device.

    Raises:
        InputError: With both sizes and what to try.
    """
    if needed > free:
        raise InputError(
            f"engine 'cuda': {what} need {needed / 2**30:.2f} GiB on the device, {free / 2**30:.2f} GiB are free; "
            f"{try_this}"
        )


def _pieces(parts: Sequence[Array], kind: Any) -> Any:
    """Return arrays one after the other on the device, without putting them together here first."""
    from numba import cuda

    n = sum(part.size for part in parts)
    joined = cuda.device_array(max(n, 1), kind)
    begin = 0
    for part in parts:
        if part.size:
            joined[begin : begin + part.size].copy_to_device(np.ascontiguousarray(part.astype(kind, copy=False)))
        begin += part.size
    return joined


def _widest(parts: Sequence[Array], least: str) -> np.dtype[Any]:
    return np.result_type(*parts) if parts else np.dtype(least)


def bytes_of(plan: CudaPlan, gather: Gathered | None, scatter: Scattered | None) -> int:
    """Return the bytes that a network takes on the device."""
    total = plan.numbers.nbytes + plan.facts.nbytes + 8 * plan.n_units
    if gather is not None:
        total += sum(part.nbytes for part in (gather.first, gather.length, gather.source, gather.weight, gather.delay))
    if scatter is not None:
        total += scatter.rows.nbytes + scatter.grids.nbytes
        for parts, least in ((scatter.targets, "uint16"), (scatter.weights, "float32"), (scatter.delays, "uint8")):
            total += sum(part.size for part in parts) * _widest(parts, least).itemsize
    return total


def upload(plan: CudaPlan, gather: Gathered | None, scatter: Scattered | None) -> DeviceNetwork:
    """Copy a network to the device.

    Raises:
        InputError: It does not fit.
    """
    advice = "use narrower weights (float16 or float32), or engine='clock'"
    check_memory(bytes_of(plan, gather, scatter), free_memory(), "neurons and synapses", advice)
    kind = plan.numbers.dtype
    if gather is None:
        nothing = np.zeros(1, np.int32)
        length = np.zeros(plan.n_ports, np.int32)
        weight, delay = nothing.astype(kind), nothing.astype(np.uint8)
        arrays: tuple[Array, ...] = (nothing.astype(np.int64), length, nothing, weight, delay)
    else:
        arrays = (gather.first, gather.length, gather.source, gather.weight, gather.delay)
    unit_row = np.zeros(plan.n_units + 1, np.int64) if scatter is None else scatter.unit_row
    targets, weights, delays = ([], [], []) if scatter is None else (scatter.targets, scatter.weights, scatter.delays)
    kinds = [_widest(part, least) for part, least in ((targets, "uint16"), (weights, "float32"), (delays, "uint8"))]
    halved = kinds[1] == np.float16
    halves = [part.view(np.uint16) for part in weights] if halved else []
    scattered = (
        device_array(np.zeros(1, np.int64) if scatter is None else scatter.rows.reshape(-1)),
        device_array(np.zeros(1) if scatter is None else scatter.grids.reshape(-1)),
        _pieces(targets, kinds[0]),
        _pieces([] if halved else weights, np.float32 if halved else kinds[1]),
        _pieces(halves, np.uint16),
        device_array(half_scales()),
        _pieces(delays, kinds[2]),
        halved,
    )
    return DeviceNetwork(
        numbers=device_array(plan.numbers.reshape(-1)),
        facts=device_array(plan.facts.reshape(-1)),
        gathered=tuple(device_array(part) for part in arrays),
        scattered=scattered,
        unit_row=device_array(unit_row),
        longest=0 if gather is None else gather.longest,
        gathers=gather is not None,
        scatters=scatter is not None,
        most_rows=0 if scatter is None else scatter.most_rows,
    )
