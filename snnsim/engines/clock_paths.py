"""Projections as the clock kernel walks along them: rows of synapses, in the narrowest types it reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.engines.stochastic import Releases
from snnsim.errors import InputError
from snnsim.kernels import clock_rows, stochastic
from snnsim.network import Projection, Sparse

__all__ = ["DrawnPath", "Path", "path_table", "paths_of"]

UNIFORM_DENSITY = 0.5  # share of existing weights from which a row is added as a whole
Array = npt.NDArray[Any]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Path:
    """A projection, or its synapses with or without delay, as rows.

    Attributes:
        source: Place of the source, see :class:`snnsim.kernels.clock_tables.Plan`.
        owner: Place of the target population.
        port: Place of the receptor.
        now: Whether the synapses have delay 0.
        indptr: int64 ``(n_source + 1,)``; of a dense path, None.
        target: uint16 or int32, ascending in each row; None for a dense path.
        weight: One number a synapse, or one of all synapses in the dtype of the run, shape ``()``.
        delay: uint8 or uint16, one a synapse, or None.
        row_delay: int64 ``(n_source,)``, -1 where a row is left out.
        shortest: The shortest delay in steps.
        longest: The longest one.
    """

    source: int
    owner: int
    port: int
    now: bool
    indptr: Integers | None
    target: Array | None
    weight: Array
    delay: Array | None
    row_delay: Integers
    shortest: int
    longest: int


@dataclass(frozen=True, eq=False)
class DrawnPath(Path):
    """A path whose synapses release at random: int32 targets, weights in the dtype of the run and uint16 delays.

    Attributes:
        draws: What is drawn for them.
        words: Word of each synapse, uint32.
    """

    draws: Releases
    words: Array

    def address(self, seed: int) -> tuple[Array, list[Array]]:
        """Return what the kernel looks up for this path, and the arrays whose addresses that holds."""
        draws = self.draws
        parts = [self.words, draws.release, draws.low, draws.span]
        stream = stochastic.stream_of(stochastic.RELEASE, draws.number)
        return np.array([*(part.ctypes.data for part in parts), seed, stream], np.int64), parts


def _narrow(values: Array, most: int) -> Array:
    """Return whole numbers up to ``most`` in the narrowest type the kernel reads."""
    return values.astype(np.uint8 if most < 2**8 else np.uint16)


def _copied(projection: Projection, dt: float, kind: np.dtype[Any], ends: dict[str, int]) -> list[Path]:
    """Return the synapses without and with delay as paths, each copied in the order the kernel needs."""
    size, n_source = projection.shape
    synapses = projection.synapses(dt)
    source = np.repeat(np.arange(n_source, dtype=np.int64), np.diff(synapses.indptr))
    paths = []
    for now in (True, False):
        mine = np.flatnonzero((synapses.delay_steps == 0) == now)
        if not mine.size:
            continue
        mine = mine[np.lexsort((synapses.target[mine], source[mine]))]
        delays = synapses.delay_steps[mine]
        longest = int(delays.max())
        if longest >= 2**16:
            raise InputError(
                f"projection {projection.name!r}: engine 'clock': a synapse's own delay of {longest} steps; expected "
                f"at most {2**16 - 1}; use one delay a source, or a larger dt"
            )
        indptr = np.concatenate(([0], np.cumsum(np.bincount(source[mine], minlength=n_source)))).astype(np.int64)
        paths.append(
            Path(
                **ends,
                now=now,
                indptr=indptr,
                target=synapses.target[mine].astype(np.uint16 if size <= 2**16 else np.int32),
                weight=synapses.weight[mine].astype(kind),
                delay=None if now else _narrow(delays, longest),
                row_delay=np.zeros(n_source, np.int64),
                shortest=int(delays.min()),
                longest=longest,
            )
        )
    return paths


def _drawn(projection: Projection, dt: float, kind: np.dtype[Any], ends: dict[str, int], draws: Releases) -> list[Path]:
    """Return synapses that release at random as paths: each with its target, weight, delay and word."""
    synapses = projection.synapses(dt)
    n_source = projection.shape[1]
    source = np.repeat(np.arange(n_source, dtype=np.int64), np.diff(synapses.indptr))
    if synapses.delay_steps.max(initial=0) >= 2**16:
        raise InputError(
            f"projection {projection.name!r}: engine 'clock': a random synapse's delay of "
            f"{synapses.delay_steps.max()} steps; expected at most {2**16 - 1}; use a larger dt"
        )
    paths: list[Path] = []
    for now in (True, False):
        mine = np.flatnonzero((synapses.delay_steps == 0) == now)
        if not mine.size:
            continue
        mine = mine[np.lexsort((synapses.target[mine], source[mine]))]
        delays = synapses.delay_steps[mine]
        indptr = np.concatenate(([0], np.cumsum(np.bincount(source[mine], minlength=n_source)))).astype(np.int64)
        paths.append(
            DrawnPath(
                **ends,
                now=now,
                indptr=indptr,
                target=synapses.target[mine].astype(np.int32),
                weight=synapses.weight[mine].astype(kind),
                delay=delays.astype(np.uint16),
                row_delay=np.zeros(n_source, np.int64),
                shortest=int(delays.min()),
                longest=int(delays.max()),
                draws=draws,
                words=draws.word[mine].astype(np.uint32),
            )
        )
    return paths


def _by_rows(
    weight: Array,
    indptr: Integers | None,
    target: Array | None,
    delays: Integers,
    some: npt.NDArray[np.bool_],
    ends: dict[str, int],
) -> list[Path]:
    """Return the rows without and with delay as paths over the same arrays; ``some``: which rows have synapses.

    A row without synapses is on no path: its delay would not be seen by :meth:`snnsim.network.Network.order`.
    """
    paths = []
    for now in (True, False):
        mine = ((delays == 0) == now) & some
        if mine.any():
            paths.append(
                Path(
                    **ends,
                    now=now,
                    indptr=indptr,
                    target=target,
                    weight=weight,
                    delay=None,
                    row_delay=np.where(mine, delays, -1),
                    shortest=int(delays[mine].min()),
                    longest=int(delays[mine].max()),
                )
            )
    return paths


def _whole(weight: Array, steps: Array, kind: np.dtype[Any], ends: dict[str, int]) -> Path:
    """Return a dense projection whose synapses have delays of their own; a weight of 0 adds 0, which changes no bit."""
    longest = int(steps.max())
    return Path(
        **ends,
        now=False,
        indptr=None,
        target=None,
        weight=np.ascontiguousarray(weight.T.astype(kind)).reshape(-1),
        delay=np.ascontiguousarray(_narrow(steps, longest).T).reshape(-1),
        row_delay=np.zeros(weight.shape[1], np.int64),
        shortest=int(steps.min()),
        longest=longest,
    )


def paths_of(
    projection: Projection, dt: float, kind: np.dtype[Any], ends: dict[str, int], draws: Releases | None
) -> list[Path]:
    """Return a projection as paths.

    Args:
        projection: The projection.
        dt: Time step, seconds.
        kind: Type of the run.
        ends: ``source``, ``owner`` and ``port`` of the paths.
        draws: What is drawn for its synapses, None if they release always.

    Raises:
        InputError: A delay is too long.
    """
    weight, n_source = projection.weight, projection.shape[1]
    if not projection.n_synapses:
        return []
    if draws is not None:
        return _drawn(projection, dt, kind, ends, draws)
    shape = projection.delay_shape
    by_row = not shape or (len(shape) == 2 and shape[0] == 1)
    if not isinstance(weight, Sparse):
        dense = projection.n_synapses >= UNIFORM_DENSITY * weight.size
        if dense and not by_row:
            steps = np.broadcast_to(projection.delay_steps(dt), weight.shape)
            if steps.min() > 0 and steps.max() < 2**16:
                return [_whole(weight, steps, kind, ends)]
        if dense and by_row:
            delays = np.broadcast_to(projection.delay_steps(dt), (1, n_source))[0].astype(np.int64)
            rows = np.ascontiguousarray(weight.T.astype(kind)).reshape(-1)
            return _by_rows(rows, None, None, delays, projection.out_degree > 0, ends)
        return _copied(projection, dt, kind, ends)
    if not weight.sorted:
        return _copied(projection, dt, kind, ends)
    numbers = np.asarray(weight.weight)
    numbers = numbers if numbers.ndim else numbers.astype(kind)
    if by_row:
        delays = np.broadcast_to(projection.delay_steps(dt), (1, n_source))[0].astype(np.int64)
        return _by_rows(numbers, weight.indptr, weight.target, delays, projection.out_degree > 0, ends)
    steps = projection.delay_steps(dt)
    if not projection.delay_each or not steps.min() or steps.max() >= 2**16:
        return _copied(projection, dt, kind, ends)
    longest = int(steps.max())
    return [
        Path(
            **ends,
            now=False,
            indptr=weight.indptr,
            target=weight.target,
            weight=numbers,
            delay=steps if steps.dtype in (np.uint8, np.uint16) else _narrow(steps, longest),
            row_delay=np.zeros(n_source, np.int64),
            shortest=int(steps.min()),
            longest=longest,
        )
    ]


def path_table(paths: list[Path]) -> Integers:
    """Return the table of paths without the shares of the threads."""
    table = np.zeros((len(paths), clock_rows.PATH_COLUMNS), np.int64)
    for row, path in zip(table, paths, strict=True):
        row[clock_rows.SOURCE], row[clock_rows.OWNER], row[clock_rows.PORT] = path.source, path.owner, path.port
        row[clock_rows.NOW] = path.now
        row[clock_rows.N_SOURCE] = path.row_delay.shape[0]
        row[clock_rows.WEIGHT] = path.weight.ctypes.data
        row[clock_rows.WEIGHT_KIND] = clock_rows.WEIGHTS[path.weight.dtype.name if path.weight.ndim else "shared"]
        if path.target is None:
            row[clock_rows.TARGET_KIND] = clock_rows.DENSE
        else:
            row[clock_rows.N_SYNAPSES] = path.target.shape[0]
            row[clock_rows.TARGET_KIND] = clock_rows.TARGETS[path.target.dtype.name]
            row[clock_rows.TARGET] = path.target.ctypes.data
        if path.delay is not None:
            row[clock_rows.DELAY_KIND] = clock_rows.DELAYS[path.delay.dtype.name]
            row[clock_rows.DELAY] = path.delay.ctypes.data
        row[clock_rows.SHORTEST], row[clock_rows.LONGEST] = path.shortest, path.longest
        row[clock_rows.ROW_DELAY] = path.row_delay.ctypes.data
    return table
