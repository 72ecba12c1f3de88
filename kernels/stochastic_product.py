"""Random synapses in training: sums of randomly released spikes, and their gradients, drawn again instead of kept.

Numbers are those of :mod:`snnsim.kernels.stochastic`, tap k of a connection being projection ``number + k``. Work is
done for inputs that are not zero. The forward sum and the gradient of the inputs are shared out by samples, the
gradients of weights and synapses by targets; each number is computed by one thread in one order, so the bits depend
on neither the threads nor, in the forward sum, the batch. Twin: :func:`snnsim.kernels.reference_stochastic.drawn_sum`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from snnsim.kernels.exponential import like
from snnsim.kernels.stochastic import RELEASE, draw_row, pair_of

__all__ = ["TARGETS", "drawn_forward", "drawn_input_gradient", "drawn_weight_gradient"]

TARGETS = 32
"""Targets in a piece of work of the gradients: whole cache lines."""


@njit(cache=True, nogil=True)
def drawn_forward(  # type: ignore[no-untyped-def]
    spikes, weight, delay, delayed, release, low, span, seed, number, samples, first_step, total, start, stop
):
    """Sum in the order emission step, tap, source for the samples ``start:stop``.

    Args:
        spikes: Counts, shape (time, batch, n_in).
        weight: Same type, shape (taps, n_in, n_out).
        delay: Steps, int32, same shape.
        delayed: Whether any delay is not 0.
        release: Probability of a release by target, float64, shape (n_out,), like the following.
        low: Lowest amplitude.
        span: Highest amplitude less the lowest.
        seed: Seed of the run.
        number: Place of the first tap's projection.
        samples: Ids, int64, shape (batch,).
        first_step: Number of the first step.
        total: Filled, shape (time, batch, n_out).
        start: First sample.
        stop: One past the last.
    """
    n_steps, _, n_in = spikes.shape
    taps, _, n_out = weight.shape
    for b in range(start, stop):
        total[:, b, :] = 0
        for step in range(n_steps):
            for tap in range(taps):
                stream = RELEASE | (number + tap) << 8
                for i in range(n_in):
                    count = spikes[step, b, i]
                    if count == 0:
                        continue
                    if not delayed:
                        for j in range(n_out):
                            u, other = pair_of(seed, stream, samples[b], first_step + step, j, i)
                            term = count * weight[tap, i, j]
                            term = term * like(low[j] + span[j] * other, term)
                            total[step, b, j] += term if u < release[j] else like(0.0, term)
                        continue
                    for j in range(n_out):
                        arrival = step + delay[tap, i, j]
                        if arrival < n_steps:
                            u, other = pair_of(seed, stream, samples[b], first_step + step, j, i)
                            if u < release[j]:
                                term = count * weight[tap, i, j]
                                total[arrival, b, j] += term * like(low[j] + span[j] * other, term)


@njit(cache=True, nogil=True)
def drawn_weight_gradient(  # type: ignore[no-untyped-def]
    spikes,
    weight,
    delay,
    delayed,
    release,
    low,
    span,
    seed,
    number,
    samples,
    first_step,
    upstream,
    score,
    dlog,
    dweight,
    dlaw,
    start,
    stop,
):
    """Add up the gradients of weights, releases and amplitudes of the targets ``start:stop``.

    A release has no derivative: its probability gets that of the mean, ``upstream c w E[q]``, with ``score`` nothing in
    its place; and that of the logarithm of the probability of what was drawn, ``dlog (phi - s) / (s (1 - s))``.

    Args:
        spikes: As in :func:`drawn_forward`, like the others that are there.
        weight: Shape (taps, n_in, n_out).
        delay: Same shape.
        delayed: Whether any delay is not 0.
        release: Shape (n_out,).
        low: Shape (n_out,).
        span: Shape (n_out,).
        seed: Seed.
        number: Place of the first projection.
        samples: Ids.
        first_step: Number of the first step.
        upstream: Gradient of the sums, shape (time, batch, n_out).
        score: Whether to leave the derivative of the mean out.
        dlog: Gradient of the logarithm, float64, shape (batch,).
        dweight: Filled, shape (taps, n_in, n_out).
        dlaw: Filled with the gradients of release, low and span, float64, shape (3, n_out).
        start: First target.
        stop: One past the last.
    """
    n_steps, batch, n_in = spikes.shape
    taps = weight.shape[0]
    dweight[:, :, start:stop] = 0
    dlaw[:, start:stop] = 0
    size = stop - start
    mean, log, kept, others = np.zeros(size), np.zeros(size), np.empty(size), np.empty(size)
    for n in range(size):
        s = release[start + n]
        mean[n] = 0.0 if score else low[start + n] + 0.5 * span[start + n]
        log[n] = 1.0 / (s * (1.0 - s)) if 0.0 < s < 1.0 else 0.0
    for b in range(batch):
        for step in range(n_steps):
            for tap in range(taps):
                stream = RELEASE | (number + tap) << 8
                for i in range(n_in):
                    count = spikes[step, b, i]
                    if count == 0:
                        continue
                    draw_row(release, seed, stream, samples[b], first_step + step, i, start, stop, kept, others)
                    for n in range(size):  # no branch: what does not count is multiplied by 0
                        j = start + n
                        arrival = step + delay[tap, i, j] if delayed else step
                        there = 1.0 if arrival < n_steps else 0.0
                        arrival = min(arrival, n_steps - 1) if delayed else step
                        phi, other = there * kept[n], others[n]
                        flow = upstream[arrival, b, j] * count
                        full = np.float64(flow) * np.float64(weight[tap, i, j])
                        dlaw[0, j] += there * (full * mean[n]) + dlog[b] * ((phi - there * release[j]) * log[n])
                        dweight[tap, i, j] += flow * like(phi * (low[j] + span[j] * other), flow)
                        dlaw[1, j] += full * phi
                        dlaw[2, j] += full * phi * other


@njit(cache=True, nogil=True)
def drawn_input_gradient(  # type: ignore[no-untyped-def]
    spikes,
    weight,
    delay,
    delayed,
    release,
    low,
    span,
    seed,
    number,
    samples,
    first_step,
    upstream,
    dspikes,
    start,
    stop,
):
    """Compute the gradients of the inputs of the samples ``start:stop``.

    Where an input is not zero its synapses count as they were drawn; where it is zero nothing was drawn and they count
    as their mean, which is the expectation over what would have been drawn there.

    Args:
        spikes: As in :func:`drawn_weight_gradient`, like the others.
        weight: Shape (taps, n_in, n_out).
        delay: Same shape.
        delayed: Whether any delay is not 0. If none is, the gradients of inputs that are zero are left as they are: a
            product of matrices has put them there.
        release: Shape (n_out,).
        low: Shape (n_out,).
        span: Shape (n_out,).
        seed: Seed.
        number: Place of the first projection.
        samples: Ids.
        first_step: Number of the first step.
        upstream: Shape (time, batch, n_out).
        dspikes: Filled, shape (time, batch, n_in).
        start: First sample.
        stop: One past the last.
    """
    n_steps, _, n_in = spikes.shape
    taps, _, n_out = weight.shape
    terms, kept, others = np.empty(n_out, weight.dtype), np.empty(n_out), np.empty(n_out)
    for b in range(start, stop):
        for step in range(n_steps):
            for i in range(n_in):
                drawn = spikes[step, b, i] != 0
                if not drawn and not delayed:
                    continue
                total = weight.dtype.type(0)
                for tap in range(taps):
                    stream = RELEASE | (number + tap) << 8
                    if drawn:
                        draw_row(release, seed, stream, samples[b], first_step + step, i, 0, n_out, kept, others)
                    for j in range(n_out):
                        arrival = step + delay[tap, i, j] if delayed else step
                        there = 1.0 if arrival < n_steps else 0.0
                        arrival = min(arrival, n_steps - 1) if delayed else step
                        flow = upstream[arrival, b, j] * weight[tap, i, j]
                        if drawn:
                            terms[j] = flow * like(there * kept[j] * (low[j] + span[j] * others[j]), flow)
                        else:
                            terms[j] = flow * like(there * release[j] * (low[j] + 0.5 * span[j]), flow)
                    for j in range(n_out):
                        total += terms[j]
                dspikes[step, b, i] = total
