"""What a projection that is built by rule needs: its options, its storage, its weights and delays."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any, Literal, TypedDict

import numpy as np
import numpy.typing as npt

from snnsim.connect_values import Distribution
from snnsim.errors import InputError
from snnsim.grid import check_dt, delay_to_steps
from snnsim.kernels import connect as kernels
from snnsim.kernels.lanes import run_ranges
from snnsim.kernels.random_laws import NONE
from snnsim.machine import available_memory, usable_cores
from snnsim.network import Input, Population, Projection, Sparse, Steps
from snnsim.network_checks import MAX_UNITS, check_integer

__all__ = ["Group", "Options", "Plan", "WeightType", "check_size", "projection_key"]

DRAWN = 2**15  # synapses whose numbers are drawn together, in float64, before they are stored
MAX_STEPS = 65535

WeightType = Literal["float16", "float32", "float64"]
Group = Population | Input


class Options(TypedDict, total=False):
    """What every way of connecting takes as keyword arguments; ``weight`` must be given.

    Attributes:
        weight: A number that all synapses share (no array is made), a distribution, or, where the synapses are
            listed, an array with one a synapse.
        delay: Seconds: a number, a distribution, or an array like ``weight``. Drawn delays are rounded to steps
            of ``dt`` and stored as uint8 or uint16. Default 0.
        seed: 0 to 2**32 - 1. Default 0.
        receptor: See :class:`snnsim.network.Projection`.
        dtype: Of drawn or given weights: "float32" (default), "float16" or "float64".
        dt: Time step of the network, seconds; needed for drawn delays.
        min_delay_steps: The least that drawn delays are rounded to. Default 1.
        key: Tells projections of one seed apart, 0 to 2**32 - 1. Default: a hash of ``source->target`` and the
            receptor, so two projections between the same two populations need two seeds or two keys.
        threads: Threads that build; changes no bit. Default: all cores.
    """

    weight: float | Distribution | npt.ArrayLike
    delay: float | Distribution | npt.ArrayLike
    seed: int
    receptor: str
    dtype: WeightType
    dt: float | None
    min_delay_steps: int
    key: int | None
    threads: int | None


def projection_key(source: str, target: str, receptor: str = "") -> int:
    """Return 32 bits of the SHA-256 of ``source->target|receptor``: the default key of a projection.

    >>> projection_key("E", "I") == projection_key("E", "I"), projection_key("E", "I") == projection_key("I", "E")
    (True, False)
    """
    digest = hashlib.sha256(f"{source}->{target}|{receptor}".encode()).digest()
    return int.from_bytes(digest[:4], "little")


class Plan:
    """One projection to be built: its checked options, and the storage of its synapses.

    Args:
        source: Where the synapses begin.
        target: Where they end.
        options: See :class:`Options`.
        listed: Whether weights and delays may be arrays.

    Raises:
        InputError: An option is not what :class:`Options` says.
    """

    def __init__(self, source: Group, target: Group, options: Options, listed: bool = False) -> None:
        for end, item in (("source", source), ("target", target)):
            if not isinstance(item, (Population, Input)):
                raise InputError(f"connect: {end}: expected a Population or an Input, got {type(item).__name__}")
        self.source, self.target = source, target
        self.what = f"projection '{source.name}->{target.name}'"
        unknown = sorted(set(options) - set(Options.__annotations__))
        if unknown:
            raise InputError(f"{self.what}: no option {unknown[0]!r}; it takes {sorted(Options.__annotations__)}")
        if "weight" not in options:
            raise InputError(f"{self.what}: weight: expected a number or a distribution such as Normal(0.1, 0.01)")
        self.receptor = options.get("receptor", "")
        self.seed = check_integer(options.get("seed", 0), f"{self.what}: seed", 0, 2**32 - 1)
        key = options.get("key")
        if key is None:
            key = projection_key(source.name, target.name, self.receptor)
        self.key = check_integer(key, f"{self.what}: key", 0, 2**32 - 1)
        self.dtype = options.get("dtype", "float32")
        if self.dtype not in ("float16", "float32", "float64"):
            raise InputError(f"{self.what}: dtype: expected float16, float32 or float64, got {self.dtype!r}")
        dt = options.get("dt")
        self.dt = None if dt is None else check_dt(dt)
        self.min_steps = check_integer(options.get("min_delay_steps", 1), f"{self.what}: min_delay_steps", 0, MAX_STEPS)
        self.threads = check_integer(options.get("threads") or usable_cores(), f"{self.what}: threads", 1, 4096)
        self.weight = self._given(options["weight"], "weight", listed)
        self.delay = self._given(options.get("delay", 0.0), "delay", listed)
        if isinstance(self.delay, float) and self.delay < 0:
            raise InputError(f"{self.what}: delay: expected non-negative seconds, got {self.delay}")
        if isinstance(self.delay, Distribution):
            self._check_drawn_delay(self.delay)

    @property
    def own(self) -> bool:
        """Whether source and target are one group."""
        return self.source.name == self.target.name

    @property
    def target_kind(self) -> npt.DTypeLike:
        """uint16 where it can name every target, else int32."""
        return np.uint16 if self.target.size <= 2**16 else np.int32

    def _given(self, value: Any, what: str, listed: bool) -> float | Distribution | npt.NDArray[Any]:
        if isinstance(value, Distribution):
            return value
        array = np.asarray(value)
        if array.dtype.kind not in "iuf" or array.ndim > 1 or (array.ndim and not listed):
            expected = "a number, a distribution or one number a synapse" if listed else "a number or a distribution"
            got = f"{array.dtype} {array.shape}" if array.ndim else repr(value)
            raise InputError(f"{self.what}: {what}: expected {expected}, got {got}")
        if array.ndim:
            return array
        number = float(array)
        if not math.isfinite(number):
            raise InputError(f"{self.what}: {what}: expected a finite number, got {number}")
        return number

    def _check_drawn_delay(self, delay: Distribution) -> None:
        if self.dt is None:
            raise InputError(f"{self.what}: delay: drawn delays are stored as steps; give dt, the network's time step")
        if delay.least() < 0:
            raise InputError(
                f"{self.what}: delay: {type(delay).__name__} may be negative; set low, "
                f"for example low={self.dt / 2} for half a step"
            )

    def reserve(self, nnz: int, scratch: int = 0) -> None:
        """Refuse ``nnz`` synapses that would not fit in memory, before anything of their size is made.

        Args:
            nnz: Synapses to be stored.
            scratch: Bytes a synapse that building takes on top.

        Raises:
            InputError: With what is needed, what there is and what to try.
        """
        size = np.dtype(self.target_kind).itemsize
        size += 0 if isinstance(self.weight, float) else np.dtype(self.dtype).itemsize
        if not isinstance(self.delay, float):
            size += 1 if isinstance(self.delay, Distribution) else 8
        size += scratch
        needed = nnz * size + 8 * (self.source.size + 1)
        free = available_memory()
        if free is not None and needed > free:
            raise InputError(
                f"{self.what}: {nnz} synapses of {size} bytes need {needed / 2**30:.1f} GiB and "
                f"{free / 2**30:.1f} GiB of memory are available; share one weight, use dtype='float16' "
                "or make fewer synapses"
            )

    def run(self, kernel: Callable[..., Any], arguments: tuple[Any, ...], n: int, block: int) -> None:
        """Run a kernel over blocks of ``n`` rows."""
        run_ranges(kernel, arguments, n, self.threads, block)

    def rows(self, degree: npt.NDArray[np.int64] | int) -> npt.NDArray[np.int64]:
        """Return where rows begin, int64 ``(n_source + 1,)``, from the number of synapses of each."""
        indptr = np.zeros(self.source.size + 1, np.int64)
        np.cumsum(np.broadcast_to(degree, self.source.size), out=indptr[1:])
        return indptr

    def finish(self, indptr: npt.NDArray[np.int64], target: npt.NDArray[Any]) -> Projection:
        """Draw weights and delays of the placed synapses and return the projection; arrays are not copied."""
        weight, delay = self._drawn(indptr, target.shape[0])
        for array in (indptr, target, weight, delay.values if isinstance(delay, Steps) else delay):
            if isinstance(array, np.ndarray):
                array.setflags(write=False)
        sparse = Sparse(indptr, target, weight, (self.target.size, self.source.size))
        return Projection(self.source.name, self.target.name, sparse, delay, self.receptor)

    def listed(
        self, indptr: npt.NDArray[np.int64], target: npt.NDArray[Any], order: npt.NDArray[Any] | None
    ) -> Projection:
        """As :meth:`finish`, with given arrays brought into ``order`` (None: as they are) first."""
        for name in ("weight", "delay"):
            value = getattr(self, name)
            if isinstance(value, np.ndarray):
                if value.shape != target.shape:
                    raise InputError(f"{self.what}: {name}: expected {target.shape[0]} numbers, got {value.shape[0]}")
                setattr(self, name, value if order is None else value[order])
        return self.finish(indptr, target)

    def _drawn(self, indptr: npt.NDArray[np.int64], nnz: int) -> tuple[Any, Any]:
        weight: Any = self.weight
        delay: Any = self.delay
        if isinstance(weight, np.ndarray):
            with np.errstate(over="ignore"):
                weight = weight.astype(self.dtype)
        if isinstance(delay, np.ndarray):
            delay = delay.astype(np.float64)
            if self.dt is not None:
                delay = Steps(delay_to_steps(delay, self.dt), self.dt)
        if not isinstance(weight, Distribution) and not isinstance(delay, Distribution):
            return weight, delay
        stored = np.empty(nnz, self.dtype) if isinstance(weight, Distribution) else None
        if not isinstance(delay, Distribution):
            self._fill(indptr, stored, None)
            return stored, delay
        assert self.dt is not None
        for kind in (np.uint8, np.uint16):  # whether one byte is enough is known only when all are drawn
            steps = np.empty(nnz, kind)
            longest = self._fill(indptr, stored, steps)
            if longest <= np.iinfo(kind).max:
                return (weight if stored is None else stored), Steps(_frozen(steps), self.dt)
        raise InputError(
            f"{self.what}: delay: {longest:.0f} steps of {self.dt} s were drawn and {MAX_STEPS} can be stored; "
            "set high, or use a larger dt"
        )

    def _fill(
        self, indptr: npt.NDArray[np.int64], weight: npt.NDArray[Any] | None, steps: npt.NDArray[Any] | None
    ) -> float:
        """Draw what has an array; return the longest delay in steps (which may not have fitted)."""
        dt = self.dt or 1.0
        laws = [
            np.array(value.law() if array is not None and isinstance(value, Distribution) else [NONE] + 5 * [0.0])
            for value, array in ((self.weight, weight), (self.delay, steps))
        ]
        longest = [0.0]

        def fill(start: int, stop: int) -> None:
            for begin in range(start, stop, DRAWN):
                end = min(begin + DRAWN, stop)
                drawn = [np.empty(0 if array is None else end - begin) for array in (weight, steps)]
                kernels.draw_values(self.seed, self.key, indptr, *laws, begin, *drawn)
                if weight is not None:
                    with np.errstate(over="ignore"):  # infinity is refused, with its place, by Sparse
                        weight[begin:end] = drawn[0]
                if steps is not None:
                    whole = np.maximum(np.rint(drawn[1] / dt), self.min_steps)
                    longest.append(float(whole.max()))
                    steps[begin:end] = np.minimum(whole, np.iinfo(steps.dtype).max)

        nnz = int(indptr[-1])
        if nnz:
            self.run(fill, (), nnz, DRAWN)
        return max(longest)


def _frozen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array.setflags(write=False)
    return array


def check_size(plan: Plan, n: int, limit: int, distinct: bool, ends: str) -> None:
    """Refuse ``n`` draws among ``limit`` candidates that cannot be made."""
    if n and limit < 1:
        raise InputError(f"{plan.what}: there is no {ends} to draw from; allow autapses or make none")
    if distinct and n > limit:
        raise InputError(f"{plan.what}: n: {n} different {ends}s of {limit}; make fewer or allow multapses")
    if n > MAX_UNITS:
        raise InputError(f"{plan.what}: n: expected at most {MAX_UNITS}, got {n}")
