"""Networks of neurons with currents and one delay a row: their form in scaled coordinates, and a run of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from snnsim.kernels import event as kernel
from snnsim.kernels import event_law as law
from snnsim.kernels import event_neuron as neuron
from snnsim.kernels import event_rows as rows
from snnsim.kernels import event_scaled as scaled

__all__ = ["RowForm", "row_form", "run_rows", "scaled_neurons"]

EPOCH = 8.0  # shortest time constants in an epoch: numbers are scaled by at most e^8
SPANS = (np.inf, 1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125, 0.015625)  # of the bound, in membrane time constants
SAFE = 1.0 + 1e-9  # by which responses are overestimated: room for the rounding of sums of weights
LEAST_EPOCH = 1e-3  # of dt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RowForm:
    """What a run in scaled coordinates needs beside the plan.

    Attributes:
        bounds: Spans of the bound, :mod:`snnsim.kernels.event_scaled`, ``(laws, spans, BOUND_COLUMNS)``.
        length: Of an epoch, seconds.
    """

    bounds: Floats
    length: float


def row_form(
    plan: kernel.Plan, laws: Floats, of: npt.NDArray[np.int32], second: npt.NDArray[np.bool_], dt: float
) -> RowForm | None:
    """Return the form of a network, None if it has none.

    Args:
        plan: The network.
        laws: Numbers of the neurons.
        of: Row of ``laws`` of each neuron.
        second: Which neurons have a second current.
        dt: Step.
    """
    used = np.diff(plan.row_start) > 0
    each = laws[of]
    if (
        plan.window == 0
        or np.any(plan.row_own[used] >= 0)
        or np.any(laws[:, law.KIND] != law.CURRENT)
        or np.any(laws[:, law.GAIN_E] == 0.0)
        or np.any(each[second, law.GAIN_I] == 0.0)
    ):
        return None
    for group in np.unique(plan.group):
        members = each[plan.group == group][:, [law.RATE_M, law.RATE_E, law.RATE_I]]
        if np.any(members != members[0]):
            return None
    rates = np.maximum(each[:, law.RATE_M], each[:, law.RATE_E])
    rates[second] = np.maximum(rates[second], each[second, law.RATE_I])
    length = EPOCH / float(rates.max())
    if length < LEAST_EPOCH * dt:
        return None
    return RowForm(_bounds(laws), length)


def _bounds(laws: Floats) -> Floats:
    m, gain = laws[:, law.RATE_M], (laws[:, law.GAIN_E], laws[:, law.GAIN_I])
    bounds = np.zeros((len(laws), len(SPANS), scaled.BOUND_COLUMNS))
    for k, share in enumerate(SPANS):
        span = share / m
        bounds[:, k, scaled.SPAN] = span
        bounds[:, k, scaled.TYPICAL] = min(share, 1.0) / m
        bounds[:, k, scaled.LEFT_M] = np.exp(-span * m)
        largest = np.zeros(len(laws))
        for s, (rate, left, peak) in enumerate(
            ((law.RATE_E, scaled.LEFT_E, scaled.PEAK_E), (law.RATE_I, scaled.LEFT_I, scaled.PEAK_I))
        ):
            r = laws[:, rate]
            apart = np.where(gain[s] == 0.0, 1.0, r - m)
            at = np.minimum(span, np.log(np.where(gain[s] == 0.0, 1.0, r / m)) / apart)
            bounds[:, k, left] = np.exp(-span * r)
            bounds[:, k, peak] = gain[s] * (np.exp(-at * m) - np.exp(-at * r)) * SAFE
            largest = np.maximum(largest, bounds[:, k, peak])
        bounds[:, k, scaled.PER_PEAK] = 1.0 / (largest * SAFE)
    return bounds


def scaled_neurons(
    plan: kernel.Plan, form: RowForm, neurons: Floats, laws: Floats, of: npt.NDArray[np.int32]
) -> Floats:
    """Return neurons in their zero state, rows of :mod:`snnsim.kernels.event_neuron`, in scaled coordinates."""
    y, first, second = neurons[:, neuron.Y], neurons[:, neuron.FIRST], neurons[:, neuron.SECOND]
    made = np.zeros((neurons.shape[0], scaled.HOT + scaled.COLD))
    made[:, scaled.TIME] = neurons[:, neuron.TIME]
    made[:, scaled.Z] = y + laws[of, law.GAIN_E] * first + laws[of, law.GAIN_I] * second
    made[:, scaled.FIRST], made[:, scaled.SECOND] = first, second
    made[:, scaled.HOT + scaled.HELD] = made[:, scaled.HOT + scaled.LAST] = -np.inf
    cells = _cells(plan, form, laws, of, made, plan.origin)
    scaled.begin(cells)
    made[:, : scaled.HOT], made[:, scaled.HOT :] = cells.hot, cells.cold
    return made


def _cells(
    plan: kernel.Plan, form: RowForm, laws: Floats, of: npt.NDArray[np.int32], neurons: Floats, begin: float
) -> scaled.Scaled:
    hot, cold = neuron.new_state(neurons.shape[0]), np.ascontiguousarray(neurons[:, scaled.HOT :])
    hot[:] = neurons[:, : scaled.HOT]
    check = hot[:, scaled.UNTIL].copy()
    return scaled.Scaled(
        *(laws, of, hot, cold, form.bounds, check, neuron.least_checks(check)),
        *(np.array([0.0, 0.0, begin]), plan.origin, form.length),
    )


def run_rows(
    plan: kernel.Plan,
    form: RowForm,
    laws: Floats,
    of: npt.NDArray[np.int32],
    slots: int,
    waiting: tuple[npt.NDArray[Any], ...],
    inputs: kernel.Inputs,
    neurons: Floats,
    grid: neuron.Grid,
    counts: npt.NDArray[np.int64],
    begin: float,
    stop: float,
    refuse: Callable[[int], NoReturn],
) -> tuple[neuron.Spikes, tuple[npt.NDArray[Any], ...]]:
    """Run one sample; ``neurons`` are changed in place; return spikes and the rows on their way."""
    cells = _cells(plan, form, laws, of, neurons, begin)
    many = waiting[0].shape[0] if waiting else 0
    rooms, spikes = rows.new_waiting(slots * (plan.stage_start.shape[0] - 1), 1024 + many), neuron.new_spikes()
    if waiting:
        rows.load_rows(plan, rooms, *waiting)
    cursor = kernel.new_cursor(begin, plan)
    while True:
        status = rows.run_rows(plan, inputs, cells, rooms, spikes, grid, cursor, counts, stop)
        if status == neuron.ROOM:
            spikes = neuron.grown_spikes(spikes)
        elif status == rows.ROOM_FOR_ROWS:
            rooms = rows.grown_waiting(rooms, plan.out.shape[0])
        elif status == neuron.TOO_FAST:
            exact = (cells.hot[:, scaled.MODE] == scaled.EXACT) & (cells.check <= cells.cold[:, scaled.LAST])
            refuse(int(np.flatnonzero(exact)[0]))
        else:
            neurons[:, : scaled.HOT], neurons[:, scaled.HOT :] = cells.hot, cells.cold
            return spikes, rows.drain_rows(rooms)
