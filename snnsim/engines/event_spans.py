"""Populations that start late or stop early in continuous time: a run in stretches in which nothing starts or stops.

Step k of a grid stands for the time after ``(k - 1) dt`` up to ``k dt``. So a population with a ``start_step`` s is at
rest up to and with ``(s - 1) dt``, as every population is at ``-dt``, and one with a ``stop_step`` e is held after
``(e - 1) dt``. A neuron that is at rest or held is refractory without end, of a law that never fires and never decays;
arrivals do not change it. A run in parts has the bits of the whole, so stretches change nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.kernels import event as kernel
from snnsim.kernels import event_law as law
from snnsim.kernels import event_neuron as neuron
from snnsim.network import Population

__all__ = ["Span", "find_spans", "run_stretches", "still_laws"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Pending = tuple[npt.NDArray[Any], ...]
Advance = Callable[[kernel.Inputs, neuron.Grid, npt.NDArray[np.int32], float, float], neuron.Spikes]


@dataclass(frozen=True)
class Span:
    """When some neurons run: ``neurons`` are updated at times ``t`` with ``start <= t < stop``.

    Attributes:
        neurons: In the order of stages.
        start: First float time, seconds; the instant before it is ``rest``.
        stop: First float time without them; infinity without a ``stop_step``.
        rest: Time at which they are at rest; minus infinity if they run from the beginning.
        last: Last instant, whose state is held.
    """

    neurons: slice
    start: float
    stop: float
    rest: float
    last: float


def find_spans(populations: tuple[Population, ...], offset: Integers, dt: float) -> tuple[Span, ...]:
    """Return the spans of the populations that do not run all the time."""
    spans = []
    for item, at in zip(populations, offset.tolist(), strict=True):
        if not item.start_step and item.stop_step is None:
            continue
        rest = (item.start_step - 1) * dt if item.start_step else -np.inf
        last = np.inf if item.stop_step is None else (item.stop_step - 1) * dt
        start = float(np.nextafter(rest, np.inf)) if item.start_step else -np.inf
        spans.append(Span(slice(at, at + item.size), start, float(np.nextafter(last, np.inf)), rest, last))
    return tuple(spans)


def still_laws(laws: Floats) -> Floats:
    """Return for each law the one of a neuron that stays as it is; its numbers are counted from the same values."""
    still = np.zeros_like(laws)
    still[:, [law.VINF, law.STEADY, law.TAU, law.RATE_M]] = laws[:, [law.VINF, law.STEADY, law.TAU, law.RATE_M]]
    still[:, law.KIND], still[:, law.GAP] = law.LEAK, np.inf
    return still


def _at(time: float, cells: neuron.Cells, rows: slice) -> Floats:
    """Return y and the currents of some neurons at a time, without changing them, ``(3, neurons)``."""
    many, size = rows.stop - rows.start, cells.state.shape[0]
    column = np.full((3, size), -1, np.int32)
    column[:, rows] = np.arange(3 * many).reshape(3, many)
    grid = neuron.Grid(time, 1, np.zeros(size, np.int64), column, np.zeros((1, 3 * many)))
    for n in range(rows.start, rows.stop):
        neuron.fill(n, np.inf, cells, grid)
    found = grid.values.reshape(3, many)
    numbers = cells.laws[cells.law[rows]]
    ends: Floats = np.stack((numbers[:, law.VINF], numbers[:, law.STEADY], np.zeros(many)))
    return found - ends


def _start(span: Span, laws: Floats, of: npt.NDArray[np.int32], neurons: Floats) -> None:
    """Let neurons begin as they are."""
    rows = span.neurons
    neurons[rows, neuron.TIME], neurons[rows, neuron.HELD] = span.rest, -np.inf
    check = np.zeros(rows.stop - rows.start)
    kernel.begin_checks(neuron.Cells(laws, of[rows], neurons[rows], check, neuron.least_checks(check)))
    neurons[rows, neuron.CHECK] = check


def _hold(rows: slice, neurons: Floats) -> None:
    """Let neurons stay as they are."""
    neurons[rows, neuron.HELD] = neurons[rows, neuron.CHECK] = np.inf
    neurons[rows, neuron.EXACT] = 0.0


def run_stretches(
    spans: tuple[Span, ...],
    laws: Floats,
    of: npt.NDArray[np.int32],
    inputs: kernel.Inputs,
    neurons: Floats,
    grid: neuron.Grid,
    begin: float,
    stop: float,
    advance: Advance,
) -> neuron.Spikes:
    """Run from ``begin`` to ``stop``, from one start or stop to the next.

    Args:
        spans: When neurons run.
        laws: Laws, and after them as many of neurons that stay as they are.
        of: Row of its law for each running neuron.
        inputs: Events.
        neurons: Changed in place.
        grid: Filled in place.
        begin: Seconds.
        stop: Seconds.
        advance: Runs one stretch: its events, its rows of the grid, laws, begin and end.

    Returns:
        All spikes.
    """
    inner = {edge for span in spans for edge in (span.start, span.stop) if begin < edge < stop}
    edges = [begin, *sorted(inner), stop]
    instants = (grid.first + np.arange(grid.values.shape[0])) * grid.dt
    parts: list[neuron.Spikes] = []
    for span in spans:
        if span.start > begin:
            _hold(span.neurons, neurons)
    for a, b in pairwise(edges):
        now = of.copy()
        for span in spans:
            if not span.start <= a < span.stop:
                now[span.neurons] += laws.shape[0] // 2
            elif span.start == a:
                _start(span, laws, of, neurons)
        part = slice(*np.searchsorted(inputs.time, (a, b)).tolist())
        given = kernel.Inputs(inputs.time[part], inputs.group[part], inputs.unit[part], inputs.times_over[part])
        rows = int(np.searchsorted(instants, b))
        parts.append(advance(given, grid._replace(values=grid.values[:rows]), now, a, b))
        for span in spans:
            if a < span.stop <= b < np.inf and span.start < b:
                cells = neuron.Cells(laws, now, neurons, np.zeros(neurons.shape[0]), np.zeros(0))
                y, first_current, second = _at(span.last, cells, span.neurons)
                neurons[span.neurons, neuron.Y] = y
                neurons[span.neurons, neuron.FIRST], neurons[span.neurons, neuron.SECOND] = first_current, second
                _hold(span.neurons, neurons)
    meta = np.sum([part.meta for part in parts], axis=0)
    counts = [int(part.meta[neuron.N_SPIKES]) for part in parts]
    when = np.concatenate([part.time[:n] for part, n in zip(parts, counts, strict=True)])
    who = np.concatenate([part.neuron[:n] for part, n in zip(parts, counts, strict=True)])
    return neuron.Spikes(when, who, meta)
