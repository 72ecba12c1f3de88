"""A layer with few synapses beside the same layer computed densely: where it pays, and what a training step gains."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snnsim.nn.delays import Formulation, Linear
from snnsim.nn.memory import keep_freed_memory
from snnsim.nn.model import Block
from snnsim.nn.neurons import LIF
from snnsim.nn.products import row_product
from snnsim.nn.sparse import SynapseOrder, sparse_row_product

__all__ = [
    "SparseEven",
    "SparseStep",
    "format_sparse_evens",
    "format_sparse_steps",
    "in_turn",
    "measure_sparse_evens",
    "measure_sparse_steps",
    "on_threads",
]

SIZES = ((256, 256), (700, 256), (512, 512), (1024, 1024))
"""Sources and targets."""

ROWS = 12800
"""Steps times samples."""

EVEN_DENSITIES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
ROUNDS = 7

STEP_DENSITIES = (0.02, 0.05, 0.1, 0.2)
UNITS = 512
BATCH = 128
RATE = 0.1
"""Spikes an input and step."""


@dataclass(frozen=True)
class SparseEven:
    """Times of the products of one pair of layers.

    Attributes:
        n_in: Sources.
        n_out: Targets.
        ratios: By density of the mask, time along the synapses over time of the dense product; product, gradient of the
            input and of the weights together.
    """

    n_in: int
    n_out: int
    ratios: tuple[float, ...]

    @property
    def density(self) -> float:
        """Return the density at which both take equally long, between the measured ones in a straight line."""
        return float(np.interp(1.0, np.maximum.accumulate(self.ratios), EVEN_DENSITIES))

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**asdict(self), "densities": EVEN_DENSITIES, "break_even": self.density}


def measure_sparse_evens(
    threads: int, sizes: Sequence[tuple[int, int]] = SIZES, rows: int = ROWS, rounds: int = ROUNDS
) -> list[SparseEven]:
    """Time products and both gradients over random masks, dense and along the synapses in turn.

    Args:
        threads: Threads.
        sizes: Sources and targets of every pair.
        rows: Steps times samples.
        rounds: Measurements of each; the median counts.
    """
    generator = torch.Generator().manual_seed(0)
    done = []
    with on_threads(threads):
        for n_in, n_out in sizes:
            x = (torch.rand(rows, n_in, generator=generator) < RATE).float().requires_grad_()
            upstream = torch.randn(rows, n_out, generator=generator)
            ratios = []
            for density in EVEN_DENSITIES:
                mask = torch.rand(n_out, n_in, generator=generator) < density
                weight = (torch.randn(n_out, n_in, generator=generator) * mask).requires_grad_()
                order = SynapseOrder.of(mask.numpy())
                ways: list[Callable[[], Tensor]] = [
                    lambda x=x, weight=weight: row_product(x, weight),  # type: ignore[misc]
                    lambda x=x, weight=weight, order=order: sparse_row_product(x, weight, order),  # type: ignore[misc]
                ]

                def work(way: Callable[[], Tensor], inputs: Any = (x, weight), up: Tensor = upstream) -> None:
                    torch.autograd.grad(way(), inputs, up)

                dense, sparse = (statistics.median(times) for times in in_turn(ways, work, rounds))
                ratios.append(sparse / dense)
            done.append(SparseEven(n_in, n_out, tuple(ratios)))
    return done


def format_sparse_evens(rows: Sequence[SparseEven]) -> str:
    """Return a table: time along the synapses as a multiple of the dense one, by density, and where they are equal."""
    lines = ["sparse / dense  " + "  ".join(f"{density:>5.0%}" for density in EVEN_DENSITIES) + "   equal at"]
    for row in rows:
        times = "  ".join(f"{ratio:5.2f}" for ratio in row.ratios)
        lines.append(f"{row.n_in:>5} -> {row.n_out:<6} {times}   {row.density:6.1%}")
    return "\n".join(lines)


@dataclass(frozen=True)
class SparseStep:
    """A training step of one Linear and LIF layer, forward and backward, gradients of input and weights.

    Attributes:
        density: Share of synapses that the mask left.
        seconds: Median seconds by way of computing: ``dense``, ``events``, ``sparse``.
        ratios: Time of the dense step over that of the sparse one, round by round.
        difference: Largest relative difference of a gradient between them, in the norm.
        operations: Multiply-additions of the sparse products.
        bytes: Least bytes to and from memory: input, spikes and current written once, and in the backward pass
            current, upstream gradient and the gradient of the input.
    """

    density: float
    seconds: dict[str, float]
    ratios: tuple[float, ...]
    difference: float
    operations: float
    bytes: float

    @property
    def ratio(self) -> float:
        """Return the median ratio."""
        return statistics.median(self.ratios)

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**asdict(self), "ratio": self.ratio}


def measure_sparse_steps(
    threads: int,
    n_steps: int,
    *,
    units: int = UNITS,
    batch: int = BATCH,
    densities: Sequence[float] = STEP_DENSITIES,
    rounds: int = ROUNDS,
) -> list[SparseStep]:
    """Time steps of a layer of ``units`` sources and targets: dense, by events and along the synapses, in turn.

    Args:
        threads: Threads.
        n_steps: Time steps.
        units: Sources and targets.
        batch: Samples.
        densities: Shares of synapses that masks leave.
        rounds: Measurements of each.
    """
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(n_steps, batch, units, generator=generator) < RATE).float().requires_grad_()
    upstream = torch.randn(n_steps, batch, units, generator=generator)
    done = []
    with on_threads(threads):
        for density in densities:
            connection = Linear(units, units)
            connection.weight.data = torch.randn(units, units, generator=generator) * (0.05 / density) ** 0.5
            connection.set_mask(torch.rand(units, units, generator=generator) < density)
            block = Block(connection, LIF(units, dt=0.001, tau_mem=0.02)).train()
            grads: dict[str, list[Tensor]] = {}

            def work(
                way: Formulation, block: Block = block, connection: Linear = connection, grads: Any = grads
            ) -> None:
                connection.formulation = way
                y, _, _ = block.run_fused(x)
                grads[way] = list(torch.autograd.grad(y, (x, connection.weight), upstream))

            ways: list[Formulation] = ["dense", "events", "sparse"]
            times = in_turn(ways, work, rounds)
            worst = max(
                float((a.double() - b.double()).norm() / b.double().norm())
                for a, b in zip(grads["sparse"], grads["dense"], strict=True)
            )
            numbers = float(n_steps * batch * units)
            done.append(
                SparseStep(
                    density,
                    {way: statistics.median(seconds) for way, seconds in zip(ways, times, strict=True)},
                    tuple(a / b for a, b in zip(times[0], times[2], strict=True)),
                    worst,
                    float(sum(connection.order.operations(n_steps * batch))),
                    6 * 4 * numbers,
                )
            )
    return done


def format_sparse_steps(rows: Sequence[SparseStep], n_steps: int) -> str:
    """Return a table of steps with their floor."""
    lines = [f"Linear({UNITS}, {UNITS}) and LIF, batch {BATCH}, T = {n_steps}, forward and backward, ms a step"]
    lines.append(f"{'density':>8} {'dense':>8} {'events':>8} {'sparse':>8}   dense / sparse        operations   bytes")
    for row in rows:
        ms = " ".join(f"{row.seconds[way] * 1e3:8.1f}" for way in ("dense", "events", "sparse"))
        spread = f"{row.ratio:.2f} ({min(row.ratios):.2f}-{max(row.ratios):.2f})"
        lines.append(f"{row.density:>8.0%} {ms}   {spread:<20} {row.operations:9.2e}  {row.bytes:.2e}")
    lines.append(f"largest difference of a gradient: {max(row.difference for row in rows):.1e} of its norm")
    return "\n".join(lines)


def in_turn(ways: Sequence[Any], work: Callable[[Any], None], rounds: int) -> list[list[float]]:
    """Time every way once a round, after one round to warm up; on one thread by processor time."""
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    times: list[list[float]] = [[] for _ in ways]
    for turn in range(rounds + 1):
        for way, seconds in zip(ways, times, strict=True):
            begin = clock()
            work(way)
            if turn:
                seconds.append(clock() - begin)
    return times


@contextmanager
def on_threads(threads: int) -> Iterator[None]:
    """Compute on so many threads within."""
    before = torch.get_num_threads()
    keep_freed_memory()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
