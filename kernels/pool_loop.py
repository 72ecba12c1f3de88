"""A recurrent pool of LIF neurons step by step, driven by graded events, its filtered spikes read out and fed back.

One call runs a stretch of symbols of several pool steps each. The law and the order of sums are those of the clock
engine (``docs/model.md``), so the spikes are its spikes, bit for bit.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = ["fill_parts", "run_pool"]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@njit(cache=True, nogil=True)
def run_pool(
    numbers: Floats,
    indptr: Integers,
    target: Integers,
    weight: Floats,
    feed: Floats,
    counts: Integers,
    steps: int,
    decay: Floats,
    v: Floats,
    pending: Floats,
    trace: Floats,
    fired: Integers,
    readout: Floats,
    value: Floats,
    levels: float,
    limit: float,
    features: Floats,
    outputs: Floats,
    raster: npt.NDArray[np.uint8],
) -> None:
    """Run ``len(features)`` symbols; v, pending, trace, fired and value change in place.

    In each step ``v <- (beta v + drive_step) + (recurrent arrivals + input arrivals)``, spike where ``v >= threshold``,
    then ``v <- v - amount``; ``trace <- decay trace + s``. Symbol k gives channel c ``counts[k, c]`` coincident events
    in each of its steps. After the last row of ``counts`` the loop is closed: the counts are those of ``value``,
    positive parts on even channels and negative parts on odd ones, ``rint(levels |value|)``. After a symbol
    ``value <- value + readout (features, value, 1)`` if there is a readout; without it the loop must not be closed.

    Args:
        numbers: Rows beta, drive_step, threshold, reset amount; ``(4, N)``.
        indptr: Rows of the recurrent synapses by source, ``(N + 1,)``.
        target: Their targets; all have a delay of one step.
        weight: Their weights.
        feed: Input weights by channel, ``(channels, N)``.
        counts: Events of a step, ``(forced symbols, channels)``.
        steps: Pool steps of a symbol.
        decay: Of each filter a step, ``(F,)``.
        v: Membranes, ``(N,)``.
        pending: What the spikes of the last step bring, ``(N,)``.
        trace: Filtered spikes, ``(F, N)``.
        fired: Spikes so far, ``(N,)``.
        readout: ``(d, F N + d + 1)``, or ``(0, 0)``.
        value: What is predicted, ``(d,)``; while the loop is open the caller's ``outputs`` rows are forced instead.
        levels: Events of a value of 1.
        limit: Values are held within this size before they are fed back.
        features: Filled with the traces at the end of each symbol, ``(symbols, F N)``; or ``(symbols, 0)``.
        outputs: In open symbols the true values at their beginning, read; in closed ones filled with the predictions
            at their beginning; ``(symbols, d)``.
        raster: Filled with spikes, ``(symbols steps, N)``; or ``(0, 0)``.
    """
    n = v.shape[0]
    filters = decay.shape[0]
    arrivals = np.zeros(n)
    d = readout.shape[0]
    channels = feed.shape[0]
    now = np.zeros(channels, np.int64)
    for symbol in range(features.shape[0]):
        if symbol < counts.shape[0]:
            for c in range(channels):
                now[c] = counts[symbol, c]
            for k in range(d):
                value[k] = outputs[symbol, k]
        else:
            for k in range(d):
                x = min(max(value[k], -limit), limit)
                now[2 * k] = np.int64(np.rint(levels * x)) if x > 0 else 0
                now[2 * k + 1] = np.int64(np.rint(-levels * x)) if x < 0 else 0
                outputs[symbol, k] = value[k]
        for step in range(steps):
            for j in range(n):
                arrivals[j] = pending[j]
                pending[j] = 0.0
            for c in range(channels):
                if now[c] > 0:
                    events = float(now[c])
                    for j in range(n):
                        arrivals[j] += events * feed[c, j]
            for f in range(filters):
                for j in range(n):
                    trace[f, j] *= decay[f]
            for j in range(n):
                moved = (numbers[0, j] * v[j] + numbers[1, j]) + arrivals[j]
                if moved >= numbers[2, j]:
                    moved -= numbers[3, j]
                    fired[j] += 1
                    for f in range(filters):
                        trace[f, j] += 1.0
                    for e in range(indptr[j], indptr[j + 1]):
                        pending[target[e]] += weight[e]
                    if raster.shape[0]:
                        raster[symbol * steps + step, j] = 1
                v[j] = moved
        if features.shape[1]:
            for f in range(filters):
                for j in range(n):
                    features[symbol, f * n + j] = trace[f, j]
        if d:
            for k in range(d):
                now_sum = readout[k, filters * n + d]
                for f in range(filters):
                    for j in range(n):
                        now_sum += readout[k, f * n + j] * trace[f, j]
                for other in range(d):
                    now_sum += readout[k, filters * n + other] * value[other]
                arrivals[k] = now_sum
            for k in range(d):
                value[k] += arrivals[k]


@njit(cache=True, nogil=True)
def fill_parts(
    steps: Integers, units: Integers, offsets: Integers, lengths: Integers, parts: int, decay: float, out: Floats
) -> None:
    """Fill means of exponentially filtered spikes over equal parts of samples.

    ``trace <- decay trace + s`` each step; its mean over steps ``[n p // parts, n (p + 1) // parts)`` of part p by
    the closed form of a geometric sum, spike by spike.

    Args:
        steps: Step of each spike, ascending within a sample.
        units: Its unit.
        offsets: First spike of each sample, ``(samples + 1,)``.
        lengths: Steps of each sample.
        parts: Parts.
        decay: Of the trace a step, in (0, 1).
        out: Filled, ``(samples, parts, units)``.
    """
    n_units = out.shape[2]
    for sample in range(lengths.shape[0]):
        n = lengths[sample]
        trace = np.zeros(n_units)
        at = offsets[sample]
        for part in range(parts):
            begin, end = n * part // parts, n * (part + 1) // parts
            total = np.zeros(n_units)
            fading = decay ** (end - begin)
            for unit in range(n_units):
                total[unit] = trace[unit] * decay * (1.0 - fading) / (1.0 - decay)
                trace[unit] *= fading
            while at < offsets[sample + 1] and steps[at] < end:
                left = decay ** (end - steps[at])
                total[units[at]] += (1.0 - left) / (1.0 - decay)
                trace[units[at]] += left / decay
                at += 1
            for unit in range(n_units):
                out[sample, part, unit] = total[unit] / max(1, end - begin)
