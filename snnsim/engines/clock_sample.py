"""One sample of the clock engine: its state before the run and after it, and what all samples of a run share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.engines import Dtype, SampleState
from snnsim.engines.clock_plan import Layout
from snnsim.engines.initial import rest_values
from snnsim.kernels import clock_tables
from snnsim.kernels.clock_results import pending_sums
from snnsim.kernels.clock_sleep import SLEEPERS
from snnsim.network import Network

__all__ = ["Common", "end_state", "make_common", "new_sample"]

Integers = npt.NDArray[np.int64]

LINE = 64  # bytes of a cache line


@dataclass(frozen=True, eq=False)
class Common:
    """What all samples of a run share.

    Attributes:
        plan: The network as the kernel reads it.
        threads: Threads that work on one sample.
        dtype: Of the run.
        ring_length: Numbers in all rings.
        slots: Slots of all rings if neurons may sleep, else 0.
        rest: Values of a sample that begins at rest, ``(most variables * N,)``.
        first_block: As in :class:`snnsim.kernels.clock_tables.Sample`.
        blocks: Blocks of neurons that may sleep.
        trace: Name of the trace that the readout needs, if it is one of values.
        columns: Per recorded number its neuron, variable and place, by the thread that owns the neuron, int64
            ``(., 3)``.
        edge: First column of each thread, int64 ``(threads + 1,)``.
        where: Columns of each recorded name.
        owned: Neurons of each thread, int64 ``(threads,)``.
    """

    plan: clock_tables.Plan
    threads: int
    dtype: Dtype
    ring_length: int
    slots: int
    rest: npt.NDArray[Any]
    first_block: Integers
    blocks: int
    trace: str | None
    columns: Integers
    edge: Integers
    where: dict[str, slice]
    owned: Integers


def make_common(
    network: Network, layout: Layout, plan: clock_tables.Plan, threads: int, dtype: Dtype, record: tuple[str, ...]
) -> Common:
    """Return what the samples of a run on so many threads each share."""
    readout = network.readout
    trace = f"{readout.population}.v" if readout is not None and readout.variable == "v" else None
    columns, edge, where = _columns(network, plan, threads, record if trace is None else (*record, trace))
    owned = np.diff(plan.own_edge, axis=1)
    blocks = -(-owned.T // SLEEPERS)
    return Common(
        plan=plan,
        threads=threads,
        dtype=dtype,
        ring_length=layout.ring_length,
        slots=layout.slots,
        rest=rest_values(network, dtype).reshape(-1),
        first_block=(np.cumsum(blocks) - blocks.reshape(-1)).reshape(blocks.shape),
        blocks=int(blocks.sum()),
        trace=trace,
        columns=columns,
        edge=edge,
        where=where,
        owned=owned.sum(axis=0),
    )


def _columns(
    network: Network, plan: clock_tables.Plan, threads: int, record: tuple[str, ...]
) -> tuple[Integers, Integers, dict[str, slice]]:
    place = {item.name: p for p, item in enumerate(network.populations)}
    parts = [np.zeros((0, 4), np.int64)]
    where: dict[str, slice] = {}
    begin = 0
    for name in record:
        if name in where:
            continue
        population, _, variable = name.rpartition(".")
        p = place[population]
        item = network.populations[p]
        units = np.arange(item.size)
        parts.append(
            np.stack(
                (
                    plan.populations[p, clock_tables.OFFSET] + units,
                    np.full(item.size, item.neuron.variables.index(variable)),
                    begin + units,
                    np.searchsorted(plan.own_edge[p], units, side="right") - 1,
                ),
                axis=1,
            )
        )
        where[name] = slice(begin, begin + item.size)
        begin += item.size
    table = np.concatenate(parts)
    owner = np.minimum(table[:, 3], threads - 1)
    order = np.argsort(owner, kind="stable")
    edge = np.searchsorted(owner[order], np.arange(threads + 1)).astype(np.int64)
    return np.ascontiguousarray(table[order, :3]), edge, where


def new_sample(common: Common, state: SampleState | None) -> clock_tables.Sample:
    """Return the state of a sample at rest, or where an earlier run left it."""
    plan, threads = common.plan, common.threads
    n_populations, n = plan.own_edge.shape[0], int(common.owned.sum())
    values = _aligned(common.rest.shape[0], common.dtype)
    values[:] = common.rest if state is None else state.values.reshape(-1)
    since = np.empty(common.blocks, np.int64)
    since.fill(-1)
    whole = np.zeros((3, n), np.int64)
    sample = clock_tables.Sample(
        values=values,
        release=whole[0],
        held=whole[1],
        until=whole[2],
        kept=np.zeros(n, common.dtype),
        n_held=np.zeros((threads, n_populations), np.int64),
        ring=_aligned(common.ring_length, common.dtype),
        head=np.zeros((threads, plan.ports.shape[0]), np.int64),
        since=since,
        first_block=common.first_block,
        dirty=np.zeros((threads, common.slots), np.uint8),
        moved=np.zeros((threads, 8), np.int64),
    )
    if state is None:
        return sample
    sample.ring[state.pending_place] = state.pending_value
    sample.release[:] = state.step + state.left
    for p in range(n_populations):
        for t in range(threads):
            low, high = plan.populations[p, clock_tables.OFFSET] + plan.own_edge[p, t : t + 2]
            busy = low + np.flatnonzero(state.left[low:high])
            sample.held[low : low + busy.size] = busy
            sample.until[low : low + busy.size] = sample.release[busy]
            sample.kept[low : low + busy.size] = sample.values[busy]
            sample.n_held[t, p] = busy.size
    return sample


def end_state(common: Common, sample: clock_tables.Sample, step: int, readout: Any) -> SampleState:
    """Return where a sample stands after ``step`` steps in all."""
    place, value = pending_sums(sample.ring, common.plan.ports, sample.head[0])
    return SampleState(
        step=step,
        values=sample.values.reshape(-1, int(common.owned.sum())),
        left=np.maximum(sample.release - step, 0),
        pending_place=place,
        pending_value=value,
        readout=readout,
    )


def _aligned(n: int, dtype: Dtype) -> npt.NDArray[Any]:
    """Return ``n`` zeros that begin on a cache line: a vector that lies across two lines costs twice."""
    size = np.dtype(dtype).itemsize
    raw = np.zeros(n * size + LINE, np.uint8)
    first = -raw.ctypes.data % LINE
    return raw[first : first + n * size].view(dtype)
