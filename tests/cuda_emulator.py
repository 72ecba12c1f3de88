"""CUDA kernels compiled for the CPU: a device's threads one after the other, with the types Numba gives them there.

Numba's simulator runs a kernel as plain Python, a few thousand lines of it a second, with Python's and NumPy's types.
Inside :func:`compiled` a kernel that the simulator is asked to run is translated instead: ``cuda.grid`` and the like
read a small array, device functions are compiled with it, every index is checked, and the whole is compiled by
``numba.njit``. That is fast enough for proofs of real size, and its numbers have the types of the device: a product of
a float32 and a float64 constant is float64 here and there, float32 in the simulator.

Threads of a kernel without barriers run one after the other; those of a kernel with ``syncthreads`` or shared memory
are threads of the processor that wait for one another, and with ``threadfence``, by which blocks wait for one another,
all blocks run at the same time.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numba
import numpy as np
from numba import njit, types
from numba.cuda.simulator import kernel as simulator
from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray
from numba.extending import intrinsic, overload

from snnsim.kernels import cuda_support
from snnsim.kernels.memory import run_together, wait_for_all

__all__ = ["Seen", "compiled"]

X, BLOCK, WIDTH, GRID, TURN = 0, 3, 6, 9, 12
"""Places in a thread's array: its index within the block, the block's, threads a block, blocks; three numbers each.
Then how often it has waited."""

PARTS = {"threadIdx": X, "blockIdx": BLOCK, "blockDim": WIDTH, "gridDim": GRID}
AXES = {"x": 0, "y": 1, "z": 2}


@intrinsic
def _add_at(typing: Any, array: Any, place: Any, value: Any) -> Any:
    """Add to ``array[place]`` of a flat view, for all threads at once, and return what it was before."""
    kind = array.dtype

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        there = builder.gep(data, [context.cast(builder, arguments[1], signature.args[1], types.intp)])
        number = context.cast(builder, arguments[2], signature.args[2], kind)
        return builder.atomic_rmw("fadd" if isinstance(kind, types.Float) else "add", there, number, "seq_cst")

    return kind(array, place, value), generate


@njit
def _place(array: Any, place: Any) -> Any:
    """Return the place in the flat array of a number or tuple, after looking whether it is inside."""
    array[place]
    flat = 0
    for axis, index in enumerate(place):
        flat = flat * array.shape[axis] + index
    return flat


def _add(array, place, value):  # type: ignore[no-untyped-def]
    """Stand for ``cuda.atomic.add``."""


@overload(_add)
def _add_any(array, place, value):  # type: ignore[no-untyped-def]
    assert array.layout == "C", "atomic.add: expected a contiguous array"
    if isinstance(place, types.BaseTuple):
        return lambda array, place, value: _add_at(array, _place(array, place), value)
    return lambda array, place, value: _add_at(array, _place(array, (place,)), value)


@njit(inline="always")
def _most(array: Any, place: Any, value: Any) -> Any:
    old = array[place]
    array[place] = max(old, value)
    return old


@njit(inline="always")
def _least(array: Any, place: Any, value: Any) -> Any:
    old = array[place]
    array[place] = min(old, value)
    return old


@njit(inline="always")
def _either(array: Any, place: Any, value: Any) -> Any:
    old = array[place]
    array[place] = old | value
    return old


@njit(inline="always")
def _popc(value: Any) -> int:
    word, count = np.uint64(value), 0
    for k in range(64):
        count += np.int64((word >> np.uint64(k)) & np.uint64(1))
    return count


@njit(nogil=True)
def _wait(at: Any, bar: Any) -> None:
    at[TURN] += 1
    wait_for_all(bar, at[WIDTH] * at[WIDTH + 1] * at[WIDTH + 2], at[TURN])


@njit
def _times(a: Any, b: Any) -> Any:
    return a * b


ATOMIC = {"add": "_atomic_add", "max": "_atomic_max", "min": "_atomic_min", "or_": "_atomic_or"}
NAMES = {
    "_atomic_add": _add,
    "_atomic_max": _most,
    "_atomic_min": _least,
    "_atomic_or": _either,
    "_popc": _popc,
    "_wait": _wait,
    "_np": np,
}


class _Translate(ast.NodeTransformer):
    """Give a function the thread's array as its first argument and let ``cuda.*`` read it."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        self.shared: list[tuple[Any, Any]] = []
        self.waits = self.together = False
        self.device: dict[str, Any] = {}

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.decorator_list = []
        node.returns = None
        self.generic_visit(node)
        for item in node.args.args:
            item.annotation = None
        extra = [ast.arg("_at"), ast.arg("_bar")]
        node.args.args = [*extra, *node.args.args]
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        text = ast.unparse(node).split(".")
        if len(text) == 3 and text[0] == "cuda" and text[1] in PARTS:
            return _expression(f"_at[{PARTS[text[1]] + AXES[text[2]]}]")
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        name = ast.unparse(node.func)
        if name == "cuda.grid":
            axes = range(ast.literal_eval(node.args[0]))
            terms = [f"_at[{BLOCK + k}] * _at[{WIDTH + k}] + _at[{k}]" for k in axes]
            return _expression(terms[0] if len(terms) == 1 else f"({', '.join(terms)})")
        if name == "cuda.gridsize":
            assert ast.literal_eval(node.args[0]) == 1
            return _expression(f"_at[{GRID}] * _at[{WIDTH}]")
        if name == "cuda.syncthreads":
            self.waits = True
            return _expression("_wait(_at, _bar)")
        if name in ("cuda.threadfence", "cuda.threadfence_block"):
            self.together |= name == "cuda.threadfence"  # blocks that wait for one another run at the same time
            return ast.Constant(0)
        if name.startswith("cuda.atomic."):
            node.func = ast.Name(ATOMIC[name.rsplit(".", 1)[1]], ast.Load())
            return node
        if name == "cuda.popc":
            node.func = ast.Name("_popc", ast.Load())
            return node
        if name == "cuda.local.array":
            node.func = _expression("_np.empty")
            return node
        if name == "cuda.shared.array":
            self.waits = True
            given = {item.arg: item.value for item in node.keywords}
            shape, dtype = [*node.args, *(given[key] for key in ("shape", "dtype") if key in given)]
            self.shared.append((self._constant(shape), self._constant(dtype)))
            return ast.Name(f"_shared{len(self.shared) - 1}", ast.Load())
        if isinstance(node.func, ast.Name) and isinstance(self.values.get(node.func.id), simulator.FakeCUDAKernel):
            self.device[node.func.id] = self.values[node.func.id]
            node.args = [ast.Name("_at", ast.Load()), ast.Name("_bar", ast.Load()), *node.args]
        assert not name.startswith("cuda."), f"no translation of {name}"
        return node

    def _constant(self, node: ast.AST) -> Any:
        return eval(ast.unparse(node), dict(self.values))


def _expression(text: str) -> Any:
    return ast.parse(text, mode="eval").body


def _numpy_type(dtype: Any) -> np.dtype[Any]:
    return numba.np.numpy_support.as_dtype(dtype) if isinstance(dtype, types.Type) else np.dtype(dtype)


class _Function:
    """A kernel or device function, translated."""

    def __init__(self, fake: Any) -> None:
        function = fake.fn
        values = dict(function.__globals__)
        if function.__closure__:
            cells = zip(function.__code__.co_freevars, function.__closure__, strict=True)
            values |= {name: cell.cell_contents for name, cell in cells}
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        node = next(item for item in tree.body if isinstance(item, ast.FunctionDef))
        translate = _Translate(values)
        tree.body = [translate.visit(node)]
        self.shared, self.waits, self.together = translate.shared, translate.waits, translate.together
        extra = [ast.arg(f"_shared{k}") for k in range(len(self.shared))]
        node.args.args = [*extra, *node.args.args]
        self.arguments = [item.arg for item in node.args.args]
        for name, inner in translate.device.items():
            part = _translated(inner)
            assert not part.shared, f"{name}: shared memory belongs into the kernel"
            self.waits |= part.waits
            self.together |= part.together
            values[name] = part.compiled
        values |= NAMES
        for name, value in values.items():
            if value is cuda_support.times:
                values[name] = _times
        ast.fix_missing_locations(tree)
        exec(compile(tree, inspect.getsourcefile(function) or "?", "exec"), values)
        self.compiled = njit(nogil=True, error_model="numpy", boundscheck=True)(values[node.name])
        driver = (
            "def drive(_first, _after, _at, _bar, {0}):\n"
            "    for _b in range(_first, _after):\n"
            "        _at[3], _at[4], _at[5] = _b % _at[9], _b // _at[9] % _at[10], _b // (_at[9] * _at[10])\n"
            "        for _t in range(_at[6] * _at[7] * _at[8]):\n"
            "            _at[0], _at[1], _at[2] = _t % _at[6], _t // _at[6] % _at[7], _t // (_at[6] * _at[7])\n"
            "            kernel({1})\n"
        )
        own = [name for name in self.arguments if name not in ("_at", "_bar")]
        scope: dict[str, Any] = {"kernel": self.compiled}
        exec(driver.format(", ".join(own), ", ".join(self.arguments)), scope)
        self.drive = njit(nogil=True)(scope["drive"])

    def run(self, grid: tuple[int, ...], width: tuple[int, ...], arguments: list[Any]) -> None:
        blocks, threads = int(np.prod(grid)), int(np.prod(width))
        at = np.array([0, 0, 0, 0, 0, 0, *width, *grid, 0], np.int64)
        if not self.waits:
            self.drive(0, blocks, at, np.zeros(1, np.int64), *arguments)
            return
        shared = [np.empty(shape, _numpy_type(dtype)) for shape, dtype in self.shared]
        together = blocks if self.together else 1
        bars = [np.zeros(1, np.int64) for _ in range(together)]
        shares = [shared] + [[item.copy() for item in shared] for _ in range(together - 1)]

        def work(number: int) -> None:
            t, first = number % threads, number // threads
            mine = at.copy()
            mine[:3] = t % width[0], t // width[0] % width[1], t // (width[0] * width[1])
            for b in range(first, blocks, together):
                mine[3:6] = b % grid[0], b // grid[0] % grid[1], b // (grid[0] * grid[1])
                self.compiled(*shares[first], mine, bars[first], *arguments)
                _wait(mine, bars[first])  # the next block begins when all of this one are done

        run_together(work, threads * together)


_functions: dict[int, _Function] = {}


def _translated(fake: Any) -> _Function:
    key = id(fake.fn)
    if key not in _functions:
        _functions[key] = _Function(fake)
    return _functions[key]


class Seen(dict[str, set[str]]):
    """Kernels that ran, by name, with the types of their arguments."""


@contextmanager
def compiled() -> Iterator[Seen]:
    """Let kernels that the simulator is asked to run be compiled for the CPU instead."""
    seen = Seen()
    original: Callable[..., Any] = simulator.FakeCUDAKernel.__call__

    def call(self: Any, *arguments: Any) -> Any:
        if self._device:
            return original(self, *arguments)
        plain = [item._ary if isinstance(item, FakeCUDAArray) else item for item in arguments]
        types = ", ".join(str(numba.typeof(item)) for item in plain)
        seen.setdefault(f"{self.fn.__module__}.{self.fn.__qualname__}", set()).add(types)
        grid, width = simulator.normalize_kernel_dimensions(self.grid_dim, self.block_dim)
        _translated(self).run(grid, width, plain)
        return None

    simulator.FakeCUDAKernel.__call__ = call
    try:
        yield seen
    finally:
        simulator.FakeCUDAKernel.__call__ = original
