"""A device that is not there: tensors that say they lie on a GPU and refuse what a GPU would refuse.

Inside :func:`pretended_device` torch believes in one CUDA device. A tensor on it is a :class:`DeviceTensor` around a
tensor of the CPU: every operation is computed, so values, gradients and whole training runs are real, and

* an operation on tensors of both sides is an error, as on a GPU; numbers without dimensions, copies from one side to
  the other and indices on the CPU are allowed, as there;
* ``numpy()`` and ``torch.from_numpy`` meet no tensor of the device;
* what waits for the device is counted, with where it was asked for: ``item()``, ``float()``, ``bool()``, ``cpu()``,
  ``nonzero()`` and the like;
* kernels of ``numba.cuda`` run in Numba's simulator on the tensors' numbers.

It finds mistakes about devices on any machine. It does not find races between streams, nor what a kernel does wrong
on a real device only.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
import torch._dynamo  # now: on its first use it looks at what torch.cuda holds
from numba import cuda
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

import snnsim
from snnsim.kernels import cuda_support

__all__ = ["DeviceMismatchError", "DeviceTensor", "Watch", "pretended_device"]

DEVICE = torch.device("cuda", 0)
aten = torch.ops.aten

COPIES = {aten.copy_.default, aten._to_copy.default, aten.set_.source_Tensor}
"""Operations that may have tensors of both sides."""

INDEXED = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}
"""Operations whose indices may lie on the CPU; torch uploads them."""

WAITING = {
    aten._local_scalar_dense.default,
    aten.item.default,
    aten.is_nonzero.default,
    aten.equal.default,
    aten.nonzero.default,
    aten._unique2.default,
    aten.masked_select.default,
}
"""Operations whose result must be known before the program goes on."""


class DeviceMismatchError(RuntimeError):
    """What a GPU would have answered with an error."""


@dataclass
class Watch:
    """What a block did to the pretended device.

    Attributes:
        waits: How often each place of the package made the program wait for the device.
        uploads: How often tensors went to the device, by place.
    """

    waits: Counter[str] = field(default_factory=Counter)
    uploads: Counter[str] = field(default_factory=Counter)


_watch: list[Watch] = []


def _place() -> str:
    """Return the innermost line of the package that is being executed."""
    root = str(snnsim.__path__[0])
    for frame in reversed(traceback.extract_stack()):
        if "snnsim" in frame.filename and "device_check" not in frame.filename and "/tests/" not in frame.filename:
            return f"{frame.filename.removeprefix(root).lstrip('/')}:{frame.name}"
    return "outside"


class DeviceTensor(torch.Tensor):
    """A tensor that says it lies on a CUDA device; ``inner`` holds its numbers on the CPU."""

    inner: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> DeviceTensor:
        # torch's engine sends the backward pass of a CUDA tensor to a thread of that device, of which there is none:
        # inside, the tensor is one without memory, and only says that it is on the device
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device="meta",
        )

    def __init__(self, inner: torch.Tensor) -> None:
        self.inner = inner

    @property
    def device(self) -> torch.device:
        return DEVICE

    @property
    def is_cuda(self) -> bool:
        return True

    @property
    def is_meta(self) -> bool:
        return False

    @property
    def is_cpu(self) -> bool:
        return False

    def get_device(self) -> int:
        return 0

    def cpu(self, *arguments: Any, **options: Any) -> torch.Tensor:
        return self.to("cpu")

    def pin_memory(self, *arguments: Any) -> torch.Tensor:
        raise DeviceMismatchError("cannot pin a tensor of the device: only memory of the CPU can be pinned")

    def numpy(self, *arguments: Any, **options: Any) -> Any:
        raise DeviceMismatchError("numpy() of a tensor on cuda:0; use cpu() first")

    def __array__(self, *arguments: Any, **options: Any) -> Any:
        raise DeviceMismatchError("a tensor on cuda:0 cannot become a NumPy array; use cpu() first")

    def new_tensor(self, data: Any, dtype: torch.dtype | None = None, **options: Any) -> torch.Tensor:
        return _tensor(data, dtype=dtype or self.dtype, device=options.pop("device", DEVICE), **options)

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self) -> str:
        return f"DeviceTensor({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _check(func: Any, args: Any, kwargs: Any) -> None:
    """Refuse tensors of both sides in one operation."""
    if func in COPIES:
        return
    given = (args[0], *args[2:]) if func in INDEXED else args
    found = list(_tensors([given, kwargs]))
    if any(isinstance(item, DeviceTensor) for item in found):
        stray = [item for item in found if not isinstance(item, DeviceTensor) and item.dim() > 0]
        if stray:
            raise DeviceMismatchError(
                f"{func}: a tensor of the CPU, shape {tuple(stray[0].shape)}, meets one on cuda:0, in {_place()}"
            )
    if func in INDEXED and isinstance(args[0], DeviceTensor):
        for item in _tensors(list(args[1])):
            if not isinstance(item, DeviceTensor):
                _note("uploads")
    elif func in INDEXED and any(isinstance(item, DeviceTensor) for item in _tensors(list(args[1]))):
        raise DeviceMismatchError(f"{func}: indices on cuda:0 for a tensor of the CPU, in {_place()}")


def _note(what: str) -> None:
    for watch in _watch:
        getattr(watch, what)[_place()] += 1


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    """Do an operation on the numbers inside; results lie where the operation puts them."""
    _check(func, args, kwargs)
    wished = kwargs.get("device")
    if wished is not None and torch.device(wished).type == "meta":  # torch itself asks for memory beside the tensor
        wished, kwargs = DEVICE, {**kwargs, "device": DEVICE}
    sources = list(_tensors([args, kwargs]))
    here = any(isinstance(item, DeviceTensor) for item in sources)
    if func is aten._to_copy.default:
        if here and wished is not None and wished.type == "cpu":
            _note("waits")
        elif not here and wished is not None and wished.type == "cuda":
            _note("uploads")
    elif func is aten.copy_.default and isinstance(args[0], DeviceTensor) != isinstance(args[1], DeviceTensor):
        _note("uploads" if isinstance(args[0], DeviceTensor) else "waits")
    elif here and (func in WAITING or _masked(func, args)):
        _note("waits")
    there = here if wished is None else wished.type == "cuda"
    if func is aten.copy_.default:
        there = isinstance(args[0], DeviceTensor)
    if wished is not None and wished.type == "cuda":
        kwargs = {**kwargs, "device": torch.device("cpu")}
    known = {id(item.inner): item for item in sources if isinstance(item, DeviceTensor)}
    plain = {id(item): item for item in sources}
    kwargs = {name: value for name, value in kwargs.items() if name != "pin_memory" or value is not None}
    if func is aten.mm.dtype:  # factors of bfloat16, sums of float32: products of the factors are exact in float32
        result = torch.mm(_open(args[0]).float(), _open(args[1]).float())
    else:
        result = func(*tree_map(_open, args), **tree_map(_open, kwargs))

    def close(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or id(value) in plain:
            return value
        if id(value) in known:
            return known[id(value)]
        return DeviceTensor(value) if there else value

    return tree_map(close, result)


def _masked(func: Any, args: Any) -> bool:
    """Return whether an index is a mask: how many entries it has must be known."""
    return func is aten.index.Tensor and any(
        item is not None and item.dtype in (torch.bool, torch.uint8) for item in args[1]
    )


def _open(value: Any) -> Any:
    return value.inner if isinstance(value, DeviceTensor) else value


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Stream:
    cuda_stream = 0


def _as_cuda_array(x: Any, sync: bool = True) -> Any:
    from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

    if not isinstance(x, DeviceTensor):
        raise DeviceMismatchError(f"a kernel for devices got a tensor of the CPU, shape {tuple(x.shape)}")
    return FakeCUDAArray(x.detach().inner.numpy())


_make, _see = torch.tensor, torch.as_tensor


def _tensor(data: Any, *, device: Any = None, **options: Any) -> torch.Tensor:
    """Do what torch.tensor does: it makes the tensor on the CPU and sends it, past every mode."""
    made = _make(data, **options)
    return made if device is None else made.to(device)


def _as_tensor(data: Any, dtype: torch.dtype | None = None, device: Any = None) -> torch.Tensor:
    if isinstance(data, torch.Tensor):
        return data.to(device=data.device if device is None else device, dtype=dtype or data.dtype)
    made = _see(data, dtype=dtype)
    return made if device is None else made.to(device)


def _nothing(*_: Any) -> None:
    return


@contextmanager
def pretended_device() -> Iterator[Watch]:
    """Let torch believe in one CUDA device inside the block; kernels run in Numba's simulator."""
    watch = Watch()
    there: dict[Any, dict[str, Any]] = {
        torch.cuda: {
            "_lazy_init": _nothing,
            "is_available": lambda: True,
            "device_count": lambda: 1,
            "current_device": lambda: 0,
            "set_device": _nothing,
            "synchronize": _nothing,
            "current_stream": lambda *_: _Stream(),
            "mem_get_info": lambda *_: (1 << 33, 1 << 34),
            "get_device_name": lambda *_: "pretended",
        },
        torch: {"tensor": _tensor, "as_tensor": _as_tensor},
        torch.Tensor: {"pin_memory": lambda self: self},
        torch.version: {"cuda": "13.0"},
        cuda: {"as_cuda_array": _as_cuda_array, "external_stream": lambda pointer: pointer},
        cuda_support: {"SIMULATED": False, "why_not": lambda: None, "_WIDE": 4},
    }
    patches = [
        mock.patch.object(owner, name, value, create=True)
        for owner, new in there.items()
        for name, value in new.items()
    ]
    for patch in patches:
        patch.start()
    _watch.append(watch)
    try:
        with _Mode():
            yield watch
    finally:
        _watch.remove(watch)
        for patch in reversed(patches):
            patch.stop()
