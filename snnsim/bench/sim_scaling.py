"""Curves of simulation speed along the number of neurons, their inputs, their rate and the threads.

All points are random networks with delta synapses, one delay of 1.5 ms and no noise. A constant drive to 25 mV brings
the neurons over the threshold of 20 mV, and the time constant of the membrane sets how often: cost per event and per
neuron-step can be told apart. Excitation and inhibition are weak and cancel, so the rate hardly depends on them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from snnsim.bench.pairs import Comparison, Side, compare
from snnsim.bench.sim_table import events_per_second, mean_rate, refusal
from snnsim.bench.sim_tasks import SimTask
from snnsim.errors import InputError
from snnsim.machine import usable_cores

__all__ = ["CURVES", "Curve", "Point", "format_curve", "measure_curve", "tau_for"]

CURVES = {
    "neurons": ((1000, 2000, 4000, 8000, 16000, 32000), "neurons, 100 inputs each, 10 /s"),
    "synapses": ((50, 100, 200, 400, 800, 1600), "inputs of each of 4000 neurons, 10 /s"),
    "rate": ((1, 2, 5, 10, 20, 50, 100), "spikes a second of each of 4000 neurons with 200 inputs"),
    "threads": ((1, 2, 4, 8, 16, 32, 64), "threads, 16 000 neurons, 200 inputs each, 10 /s"),
}
"""Points of each curve and what is counted; ``--largest`` goes on beyond the last one by doubling."""

STEPS = 1000
DRIVE, V_THRESHOLD, V_RESET, T_REF = 25.0, 20.0, 10.0, 2.0


def tau_for(rate: float) -> float:
    """Return the time constant of the membrane for a rate (per second) of a neuron without synapses, ms.

    ``1 / rate = t_ref + tau log((drive - v_reset) / (drive - v_threshold))``.

    >>> round(tau_for(10.0), 2)
    89.2

    Raises:
        InputError: The refractory time does not allow this rate.
    """
    gap = 1000 / rate - T_REF
    if gap <= 0:
        raise InputError(f"rate: expected less than {1000 / T_REF:g} /s, the refractory time's limit, got {rate:g}")
    return gap / math.log((DRIVE - V_RESET) / (DRIVE - V_THRESHOLD))


@dataclass(frozen=True)
class Point:
    """One network of a curve.

    Attributes:
        value: Where on the curve.
        threads: Threads of every side.
        comparison: What was measured.
    """

    value: float
    threads: int
    comparison: Comparison[SimTask]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        task = self.comparison.task
        sides = []
        for side in self.comparison.sides:
            row: dict[str, Any] = {"side": side.name, "missing": side.missing}
            if not side.missing:
                row |= {
                    "rate": mean_rate(task, side),
                    "events_per_second": events_per_second(side),
                    "nanoseconds_per_neuron_step": _per_neuron_step(task, side),
                    "memory": side.memory_rise,
                    "refused": refusal(self.comparison, side),
                }
            sides.append(row)
        neurons, inputs = task.sizes
        return {"value": self.value, "threads": self.threads, "neurons": neurons, "inputs": inputs, "sides": sides}


@dataclass(frozen=True)
class Curve:
    """All points of a curve."""

    name: str
    points: tuple[Point, ...]

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"along": self.name, "points": [point.to_json() for point in self.points]}


def _per_neuron_step(task: SimTask, side: Side) -> float:
    return side.median / (task.n_steps * task.n_neurons) * 1e9


def points_of(name: str, largest: float | None) -> list[float]:
    """Return the values of a curve up to the largest one."""
    values: list[float] = list(CURVES[name][0])
    if name == "threads":
        largest = largest or usable_cores()
    if largest is None:
        return values
    while values[-1] * 2 <= largest:
        values.append(values[-1] * 2)
    return [value for value in values if value <= largest] or values[:1]


def measure_curve(
    name: str,
    *,
    largest: float | None = None,
    rounds: int = 3,
    threads: int = 1,
    peers: bool = False,
    pythons: Mapping[str, str] | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Curve:
    """Measure a curve on this package, and on NEST in turn.

    Args:
        name: Of :data:`CURVES`.
        largest: Last value.
        rounds: Turns of every side.
        threads: Threads of every side, unless they are what grows.
        peers: Whether NEST is measured too.
        pythons: Interpreters of sides that live elsewhere.
        tell: Told what is being done.

    Raises:
        InputError: Our own side fails, or a rate is above what the refractory time allows.
    """
    points = []
    for value in points_of(name, largest):
        sizes = {"neurons": (int(value), 100), "synapses": (4000, int(value)), "rate": (4000, 200)}
        task = SimTask(
            name=f"{name}-{value:g}",
            summary="",
            net="brunel",
            sizes=sizes.get(name, (16000, 200)),
            n_steps=STEPS,
            turn=2,
            exact=False,
            dtype="float32",
            g=4.0,
            drive=DRIVE,
            tau=tau_for(value if name == "rate" else 10.0),
            strength=0.05,
            lowest=V_RESET,
            peers=("nest",) if peers else (),
        )
        count = int(value) if name == "threads" else threads
        points.append(Point(value, count, compare(task, rounds=rounds, threads=count, pythons=pythons, tell=tell)))
    return Curve(name, tuple(points))


def format_curve(curve: Curve) -> str:
    """Return a curve as a small table of text."""
    lines = [f"{curve.name}: {CURVES[curve.name][1]}"]
    for point in curve.points:
        task, ours = point.comparison.task, point.comparison.sides[0]
        for side in point.comparison.sides:
            head = f"  {point.value:>8g}  {side.name:<6}"
            if side.missing:
                lines.append(f"{head} not measured: {side.missing}")
                continue
            text = f"{head} {events_per_second(side) / 1e6:8.1f} M events/s  {_per_neuron_step(task, side):8.2f} ns a "
            text += f"neuron-step  {mean_rate(task, side):6.1f} /s  {side.memory_rise / 2**20:6.0f} MiB"
            if side is not ours:
                refused = refusal(point.comparison, side)
                ratios = point.comparison.ratios(side)
                text += f"   no ratio: {refused}" if refused else f"   {statistics.median(ratios):.1f} x ours"
            lines.append(text)
    return "\n".join(lines)
