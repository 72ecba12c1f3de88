"""The least time of a task on a device: bytes over measured bandwidth and operations over a measured product rate.

A task is a row of phases that cannot overlap because each needs the whole result of the one before. A phase takes at
least the longer of its bytes and its operations, so the floor of a task is the sum over its phases. What is counted
is our formulation in float32, every array read or written once a phase:

- a dense product of ``S`` rows (steps times samples): ``2 S n m`` operations, ``4 (S n + S m + n m)`` bytes; a
  training step has it once forward, once for the weights, and once for the inputs of every layer but the first;
- neurons forward: read a current, write a spike, 8 bytes a neuron-step; backward: read the current again, read the
  gradient of the spike, write that of the current, 12 bytes; the membrane of every 32nd step is written and read;
- batch norm: its statistics read the current once more, 4 bytes; backward it reads two arrays and writes one, 12
  bytes;
- a delay layer in the frequency domain, ``F = (T + K - 1) // 2 + 1`` complex frequencies: transforms read ``4 S n``
  bytes and write ``8 F B n``, or the other way round; a complex product counts as three real ones, ``6 F B n m``
  operations;
- one-tap delays in evaluation: ``2 S n m`` operations, 8 bytes a synapse (weight and delay).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from snnsim.bench.cuda_tasks import CudaTask

__all__ = ["Ceilings", "Phase", "floors", "least_seconds", "neuron_bytes"]

CHECKPOINT = 32
"""Steps between membranes that are kept for the backward pass."""


@dataclass(frozen=True)
class Ceilings:
    """What a device can do at best, measured.

    Attributes:
        copy_bytes: Bytes read and written a second in a large copy.
        operations: Multiplications and additions a second in a large float32 product without tf32.
    """

    copy_bytes: float
    operations: float


@dataclass(frozen=True)
class Phase:
    """Operations and bytes that one phase cannot do without."""

    operations: float
    bytes: float

    def seconds(self, ceilings: Ceilings) -> float:
        """Return the least seconds."""
        return max(self.operations / ceilings.operations, self.bytes / ceilings.copy_bytes)


def least_seconds(phases: Iterable[Phase], ceilings: Ceilings) -> float:
    """Return the least seconds of phases one after the other."""
    return sum(phase.seconds(ceilings) for phase in phases)


def neuron_bytes(neuron_steps: float, backward: bool) -> float:
    """Return the bytes that LIF neurons move in float32."""
    return neuron_steps * ((12.0 if backward else 8.0) + 4.0 / CHECKPOINT)


def floors(task: CudaTask) -> dict[str, list[Phase]]:
    """Return the phases of every part of a task that is timed; of what has no floor here, nothing."""
    rows = float(task.n_steps * task.batch)
    if task.kind == "kernel":
        size = rows * task.sizes[0]
        return {
            "forward": [Phase(0, neuron_bytes(size, False))],
            "backward": [Phase(0, neuron_bytes(size, True))],
        }
    if task.kind == "linear":
        n, m = task.sizes
        return {
            "forward": [_product(rows, n, m), Phase(0, neuron_bytes(rows * m, False))],
            "backward": [Phase(0, neuron_bytes(rows * m, True)), _product(rows, n, m)],
        }
    if task.kind == "plain":
        return {"step": _plain(task, rows)}
    if task.kind == "delay":
        return {"step": _one_tap(task) if task.what == "evaluate" else _delay(task)}
    return {}


def _product(rows: float, n: int, m: int) -> Phase:
    return Phase(2.0 * rows * n * m, 4.0 * (rows * n + rows * m + n * m))


def _plain(task: CudaTask, rows: float) -> list[Phase]:
    phases = []
    last = len(task.sizes) - 2
    for index, (n, m) in enumerate(pairwise(task.sizes)):
        phases += [_product(rows, n, m)] * (2 if index == 0 else 3)
        phases += _neurons(rows * m, index == last)
    return phases


def _neurons(size: float, readout: bool) -> list[Phase]:
    """Return neurons forward and backward; a readout's integrators read and write one number a step both ways."""
    if readout:
        return [Phase(0, 8.0 * size), Phase(0, 8.0 * size)]
    return [Phase(0, neuron_bytes(size, False)), Phase(0, neuron_bytes(size, True))]


def _steps(task: CudaTask) -> int:
    """Return the steps of a delay network: late spikes need more than the sample has."""
    return task.n_steps + (len(task.sizes) - 1) * ((task.n_delays - 1) // 2)


def _delay(task: CudaTask) -> list[Phase]:
    steps, batch = _steps(task), float(task.batch)
    rows, frequencies = steps * batch, float((steps + task.n_delays - 1) // 2 + 1)
    phases = []
    last = len(task.sizes) - 2
    for index, (n, m) in enumerate(pairwise(task.sizes)):
        there = Phase(0, 4.0 * rows * n + 8.0 * frequencies * batch * n)
        back = Phase(0, 4.0 * rows * m + 8.0 * frequencies * batch * m)
        product = Phase(6.0 * frequencies * batch * n * m, 8.0 * frequencies * (batch * n + batch * m + float(n) * m))
        phases += [there, product, back, back, product]  # forward, then the gradient of the kernel
        if index:
            phases += [product, there]
        phases += _neurons(rows * m, index == last)
        if index != last:
            phases += [Phase(0, 4.0 * rows * m), Phase(0, 12.0 * rows * m)]
    return phases


def _one_tap(task: CudaTask) -> list[Phase]:
    rows = float(_steps(task) * task.batch)
    phases = []
    for n, m in pairwise(task.sizes):
        phases.append(Phase(2.0 * rows * n * m * task.taps, 4.0 * rows * (n + m) + 8.0 * n * m * task.taps))
        phases.append(Phase(0, 8.0 * rows * m))
    return phases
