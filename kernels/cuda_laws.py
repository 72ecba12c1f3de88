"""The laws of neurons on the device: a thread takes one neuron of one sample through a window of steps.

The operations and their order are those of :mod:`snnsim.kernels.clock_laws`, products rounded by themselves, so the
bits are the same. A window is no longer than the shortest delay between the neurons that a launch moves on: within it
no neuron can feel another's spike.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import cuda

from snnsim.kernels import clock_tables as tables
from snnsim.kernels.clock_laws import ADAPTIVE, CURRENT, MEMBRANE, TWO_CURRENTS
from snnsim.kernels.cuda_support import times
from snnsim.kernels.cuda_trains import place

__all__ = ["FACTS", "LAW_NUMBERS", "NOISE_COLUMNS", "advance", "advance_item", "receive", "receive_item"]

FLAGS_OF, REFRACTORY_OF, START_OF, STOP_OF, PORT_OF, SECOND_PORT_OF, LAW_OF, FACTS = range(8)
"""Rows of the table of whole numbers a neuron: flags as in :mod:`snnsim.kernels.clock_tables`; refractory steps; first
step; first step after the last; its ports; law."""

LAW_NUMBERS = tables.CALM
"""Rows of the table of numbers a neuron: the first of :data:`snnsim.kernels.clock_tables.NUMBERS`."""

NOISE_LOW, NOISE_HIGH, NOISE_RECEPTOR, NOISE_FIRST, WEIGHT_FIRST, WEIGHT_STEP, NOISE_COLUMNS = range(7)
"""Columns of the table of Poisson stimuli: first neuron; one past the last; receptor; where counts begin; where weights
begin, and 0 if there is one for all."""

RESET_ZERO, STRICT, LATE = tables.RESET_ZERO, tables.STRICT, tables.LATE
BETA, DRIVE, ALPHA, KAPPA = tables.BETA, tables.DRIVE, tables.ALPHA, tables.KAPPA
ALPHA_INH, KAPPA_INH, SYN_STEP, SYN_TO_V = tables.ALPHA_INH, tables.KAPPA_INH, tables.SYN_STEP, tables.SYN_TO_V
THRESHOLD, V_RESET, AMOUNT = tables.THRESHOLD, tables.V_RESET, tables.AMOUNT
ADAPT_DECAY, ADAPT_V = tables.ADAPT_DECAY, tables.ADAPT_V
ADAPT_SPIKE, ADAPT_THRESHOLD = tables.ADAPT_SPIKE, tables.ADAPT_THRESHOLD


@cuda.jit(device=True)
def _arrived(
    total: Any,
    receptor: Any,
    noise: Any,
    n_noise: Any,
    counts: Any,
    noise_weights: Any,
    n: Any,
    b: Any,
    row: Any,
    samples: Any,
    fast: Any,
) -> Any:
    """Return the arrivals of a neuron's receptor with its Poisson events, the last terms of the sum."""
    for number in range(n_noise):
        at = number * NOISE_COLUMNS
        low, high = noise[at + NOISE_LOW], noise[at + NOISE_HIGH]
        if low <= n and n < high and noise[at + NOISE_RECEPTOR] == receptor:
            size, unit = high - low, n - low
            count = counts[noise[at + NOISE_FIRST] + row * size * samples + place(unit, b, size, samples, fast)]
            weight = noise_weights[noise[at + WEIGHT_FIRST] + unit * noise[at + WEIGHT_STEP]]
            total = total + times(noise_weights.dtype.type(count), weight)
    return total


@cuda.jit(device=True)
def advance_item(
    i: Any,
    values: Any,
    release: Any,
    arrivals: Any,
    trains: Any,
    numbers: Any,
    facts: Any,
    noise: Any,
    n_noise: Any,
    counts: Any,
    noise_weights: Any,
    record: Any,
    columns: Any,
    n_columns: Any,
    first_step: Any,
    n_steps: Any,
    begun: Any,
    low: Any,
    high: Any,
    begin: Any,
    end: Any,
    reach: Any,
    n_neurons: Any,
    n_units: Any,
    n_ports: Any,
    samples: Any,
    fast: Any,
) -> None:
    """Move the ``i``-th neuron and sample of :func:`advance` on."""
    if i >= (high - low) * samples:
        return
    if fast:
        b, n = i % samples, low + i // samples
    else:
        n, b = low + i % (high - low), i // (high - low)
    law, flags = facts[LAW_OF * n_neurons + n], facts[n]
    refractory, start = facts[REFRACTORY_OF * n_neurons + n], facts[START_OF * n_neurons + n]
    stop, port = facts[STOP_OF * n_neurons + n], facts[PORT_OF * n_neurons + n]
    second_port = facts[SECOND_PORT_OF * n_neurons + n]
    late = flags & LATE != 0
    zero = numbers.dtype.type(0)
    one = n_neurons * samples
    cell = place(n, b, n_neurons, samples, fast)
    v, x, y, free = values[cell], zero, zero, release[cell]
    beta, drive, theta = numbers[n], numbers[DRIVE * n_neurons + n], numbers[THRESHOLD * n_neurons + n]
    alpha, kappa, alpha_inh, kappa_inh, syn_step, to_v = zero, zero, zero, zero, zero, zero
    decay, from_v, from_spike, raises = zero, zero, zero, zero
    if law != MEMBRANE:
        x = values[one + cell]
    if law in (CURRENT, TWO_CURRENTS):
        alpha, kappa = numbers[ALPHA * n_neurons + n], numbers[KAPPA * n_neurons + n]
    if law == CURRENT:
        syn_step, to_v = numbers[SYN_STEP * n_neurons + n], numbers[SYN_TO_V * n_neurons + n]
    elif law == TWO_CURRENTS:
        y = values[2 * one + cell]
        alpha_inh, kappa_inh = numbers[ALPHA_INH * n_neurons + n], numbers[KAPPA_INH * n_neurons + n]
    elif law == ADAPTIVE:
        decay, from_v = numbers[ADAPT_DECAY * n_neurons + n], numbers[ADAPT_V * n_neurons + n]
        from_spike, raises = numbers[ADAPT_SPIKE * n_neurons + n], numbers[ADAPT_THRESHOLD * n_neurons + n]
    for row in range(begin, end):
        fired = False
        step = first_step[b] + begun + row
        if begun + row < n_steps[b] and start <= step and step < stop:
            came, also = zero, zero
            if not late:
                sums = row * n_ports * samples
                came = numbers.dtype.type(arrivals[sums + place(port, b, n_ports, samples, fast)])
                came = _arrived(came, 0, noise, n_noise, counts, noise_weights, n, b, row, samples, fast)
                if law == TWO_CURRENTS:
                    also = numbers.dtype.type(arrivals[sums + place(second_port, b, n_ports, samples, fast)])
                    also = _arrived(also, 1, noise, n_noise, counts, noise_weights, n, b, row, samples, fast)
            ready = free <= step
            new, level = v, theta
            if law == MEMBRANE:
                new = (times(beta, v) + drive) + came
            elif law == CURRENT:
                new = ((times(beta, v) + times(kappa, x)) + drive) + to_v
                x = times(alpha, x) + syn_step
                if not late:
                    x = x + came
            elif law == TWO_CURRENTS:
                new = ((times(beta, v) + times(kappa, x)) + times(kappa_inh, y)) + drive
                x, y = times(alpha, x), times(alpha_inh, y)
                if not late:
                    x, y = x + came, y + also
            else:
                new = (times(beta, v) + drive) + came
                if raises > 0:
                    level = level + times(raises, x)
                else:
                    new = new - x
            if ready:
                v = new
                if law == ADAPTIVE and flags & STRICT != 0:
                    fired = v > level
                else:
                    fired = v >= level
                if fired:
                    if flags & RESET_ZERO != 0:
                        v = numbers[V_RESET * n_neurons + n]
                    else:
                        v = v - numbers[AMOUNT * n_neurons + n]
                    free = step + 1 + refractory
            if law == ADAPTIVE:
                x = times(decay, x) + times(from_v, v)
                if fired:
                    x = x + from_spike
        out = (reach + row) * n_units * samples + place(n, b, n_units, samples, fast)
        if fired:
            trains[out] = 1
        else:
            trains[out] = 0
        if n_columns > 0:
            for variable in range(3):
                column = np.int64(columns[variable * n_neurons + n])
                if column >= 0:
                    shown = v
                    if variable == 1:
                        shown = x
                    elif variable == 2:
                        shown = y
                    record[row * n_columns * samples + place(column, b, n_columns, samples, fast)] = shown
    values[cell] = v
    release[cell] = free
    if law != MEMBRANE:
        values[one + cell] = x
    if law == TWO_CURRENTS:
        values[2 * one + cell] = y


@cuda.jit
def advance(
    values: Any,
    release: Any,
    arrivals: Any,
    trains: Any,
    numbers: Any,
    facts: Any,
    noise: Any,
    n_noise: Any,
    counts: Any,
    noise_weights: Any,
    record: Any,
    columns: Any,
    n_columns: Any,
    first_step: Any,
    n_steps: Any,
    begun: Any,
    low: Any,
    high: Any,
    begin: Any,
    end: Any,
    reach: Any,
    n_neurons: Any,
    n_units: Any,
    n_ports: Any,
    samples: Any,
    fast: Any,
) -> None:
    """Move neurons on through some rows: arrivals, threshold, reset, refractoriness; a thread a neuron and sample.

    Args:
        values: Variable r of every neuron and sample, ``(3 * n_neurons * samples,)``, changed in place.
        release: Step from which each is not refractory, int64, changed in place.
        arrivals: Rows of ``n_ports`` sums.
        trains: Rows of ``n_units`` units, neurons first; filled with 0 and 1 from row ``reach + begin`` on.
        numbers: Numbers per step, ``(LAW_NUMBERS * n_neurons,)``, in the dtype of the run.
        facts: Whole numbers, int64 ``(FACTS * n_neurons,)``.
        noise: Poisson stimuli, int64 ``(n_noise * NOISE_COLUMNS,)``.
        n_noise: How many.
        counts: Their counts, uint8.
        noise_weights: Their weights, in the dtype of the run.
        record: Filled with recorded variables, rows of ``n_columns`` columns, in the dtype of the run.
        columns: Column of each variable and neuron or -1, int32 ``(3 * n_neurons,)``.
        n_columns: Columns; 0 records nothing.
        first_step: Step of the run's first row, int64 ``(samples,)``.
        n_steps: Steps of each sample in this run, int64 ``(samples,)``.
        begun: Steps of this run done before row 0.
        low: First neuron.
        high: One past the last.
        begin: First row.
        end: One past the last.
        reach: Row of the trains that belongs to row 0.
        n_neurons: Neurons.
        n_units: Neurons and input units.
        n_ports: Ports.
        samples: Samples.
        fast: See :func:`snnsim.kernels.cuda_trains.place`.
    """
    advance_item(
        cuda.grid(1),
        values,
        release,
        arrivals,
        trains,
        numbers,
        facts,
        noise,
        n_noise,
        counts,
        noise_weights,
        record,
        columns,
        n_columns,
        first_step,
        n_steps,
        begun,
        low,
        high,
        begin,
        end,
        reach,
        n_neurons,
        n_units,
        n_ports,
        samples,
        fast,
    )


@cuda.jit(device=True)
def receive_item(
    i: Any,
    values: Any,
    arrivals: Any,
    facts: Any,
    noise: Any,
    n_noise: Any,
    counts: Any,
    noise_weights: Any,
    record: Any,
    columns: Any,
    n_columns: Any,
    first_step: Any,
    n_steps: Any,
    begun: Any,
    low: Any,
    high: Any,
    row: Any,
    n_neurons: Any,
    n_ports: Any,
    samples: Any,
    fast: Any,
) -> None:
    """Add what arrived to the ``i``-th neuron and sample of :func:`receive`."""
    if i >= (high - low) * samples:
        return
    if fast:
        b, n = i % samples, low + i // samples
    else:
        n, b = low + i % (high - low), i // (high - low)
    step = first_step[b] + begun + row
    started = facts[START_OF * n_neurons + n] <= step and step < facts[STOP_OF * n_neurons + n]
    if facts[n] & LATE == 0 or begun + row >= n_steps[b] or not started:
        return
    receptors = 1
    if facts[LAW_OF * n_neurons + n] == TWO_CURRENTS:
        receptors = 2
    for receptor in range(receptors):
        port = facts[(PORT_OF + receptor) * n_neurons + n]
        came = values.dtype.type(arrivals[row * n_ports * samples + place(port, b, n_ports, samples, fast)])
        came = _arrived(came, receptor, noise, n_noise, counts, noise_weights, n, b, row, samples, fast)
        cell = (1 + receptor) * n_neurons * samples + place(n, b, n_neurons, samples, fast)
        values[cell] = values[cell] + came
        if n_columns > 0:
            column = np.int64(columns[(1 + receptor) * n_neurons + n])
            if column >= 0:
                record[row * n_columns * samples + place(column, b, n_columns, samples, fast)] = values[cell]


@cuda.jit
def receive(
    values: Any,
    arrivals: Any,
    facts: Any,
    noise: Any,
    n_noise: Any,
    counts: Any,
    noise_weights: Any,
    record: Any,
    columns: Any,
    n_columns: Any,
    first_step: Any,
    n_steps: Any,
    begun: Any,
    low: Any,
    high: Any,
    row: Any,
    n_neurons: Any,
    n_ports: Any,
    samples: Any,
    fast: Any,
) -> None:
    """Add what arrived in one row to the currents of late neurons, after all have fired; a thread a neuron and sample.

    Args as for :func:`advance`; others than late neurons are left alone.
    """
    receive_item(
        cuda.grid(1),
        values,
        arrivals,
        facts,
        noise,
        n_noise,
        counts,
        noise_weights,
        record,
        columns,
        n_columns,
        first_step,
        n_steps,
        begun,
        low,
        high,
        row,
        n_neurons,
        n_ports,
        samples,
        fast,
    )
