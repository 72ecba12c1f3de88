"""Backward pass of :mod:`snnsim.kernels.cuda_neurons`.

From the last stretch of :data:`~snnsim.kernels.cuda_neurons.STRETCH` steps to the first, a thread runs its neuron
again from the kept state, leaves the membranes in shared memory, each thread in a column of its own, and walks back
through them. Read are the layer's current and the gradient of its spikes, written is the gradient of the current.

Gradients of parameters, and the sums that batch norm needs, are summed over time inside a thread and over the batch in
a fixed order by the caller. The equations are those of :mod:`snnsim.kernels.norm_neurons` and, with refractory periods,
of :mod:`snnsim.kernels.neurons`, ``neurons_cuba`` and ``neurons_adaptive``. Results agree within rounding: sums over
time run by stretches here.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import cuda

from snnsim.kernels.cuda_made import kernel_by_name, named_kernel
from snnsim.kernels.cuda_neurons import STRETCH, THREADS, float_type, step_function
from snnsim.kernels.cuda_support import times
from snnsim.kernels.cuda_surrogates import surrogate_function
from snnsim.kernels.dynamics import ADAPTIVE, CUBA

__all__ = ["AHEAD", "backward_kernel"]

AHEAD = 8
"""Steps that are read at once: with more of them the registers suffice for too few threads."""


@cache
def backward_kernel(
    dtype: str,
    kind: int,
    reset_zero: bool,
    fires: bool,
    normed: bool,
    thinned: bool,
    waits: bool,
    detach_reset: bool,
    carry: bool,
    learns: bool,
    code: int,
) -> Any:
    """Return the kernel that backpropagates through neurons of one sort.

    It must be started with blocks of :data:`~snnsim.kernels.cuda_neurons.THREADS` threads.

    Args:
        dtype: ``"float32"`` or ``"float64"``.
        kind: Kind of neuron, see :mod:`snnsim.kernels.dynamics`.
        reset_zero: Kind of reset.
        fires: Whether spikes came out, or the membrane.
        normed: Whether currents were normalised.
        thinned: Whether spikes were multiplied by factors.
        waits: Whether a neuron may have been refractory.
        detach_reset: Whether the reset passes no gradient to the spike.
        carry: Whether a LIF membrane passes gradient from a step to the one before.
        learns: Whether gradients of the parameters are wanted.
        code: Code of the surrogate.
    """
    number = float_type(dtype)
    step = step_function(dtype, kind, reset_zero, fires)
    derivative = surrogate_function(code)
    recomputes = fires or learns
    deep = kind == ADAPTIVE or (learns and kind == CUBA)
    first_room = STRETCH * THREADS if recomputes else 1
    second_room = STRETCH * THREADS if deep else 1

    def neurons_backward(  # type: ignore[no-untyped-def]
        n_steps, y, affine, neuron, steps, numbers, factors, kept_v, kept_w, kept_wait, up, grad_v, grad_w, out, sums,
        by_lane,
    ):  # fmt: skip
        """Backpropagate; what a kernel was not made for is not touched, and may be empty.

        Args:
            n_steps: Steps.
            y: As in the forward pass, like the following.
            affine: Mean, scale and shift.
            neuron: Parameters.
            steps: Steps skipped after a spike.
            numbers: Coefficients of the surrogate, shape (6,).
            factors: Dropout's factors.
            kept_v: Kept membranes.
            kept_w: Kept second states.
            kept_wait: Kept counters.
            up: Gradient of what came out, shape (time, batch, unit), flat.
            grad_v: Gradient of the last membrane, shape (batch, unit), flat; overwritten by that of the first.
            grad_w: Gradient of the last second state, likewise.
            out: Output, gradient of the normalised current, shape (time, batch, unit), flat.
            sums: Output, sums over time of ``out`` and of ``out * (y - mean)``, float64, shape (2, batch, unit), flat.
            by_lane: Output, gradients of the parameters, shape (9, batch, unit), flat; 0 for an adaptation's gain.
        """
        lane = cuda.grid(1)
        lanes = grad_v.shape[0]
        if lane >= lanes:
            return
        me = cuda.threadIdx.x
        membranes = cuda.shared.array(first_room, number)
        seconds = cuda.shared.array(second_room, number)
        ahead = cuda.local.array(AHEAD, number)
        above = cuda.local.array(AHEAD, number)
        units = neuron.shape[1]
        unit = lane % units
        one, zero = number(1), number(0)
        beta, threshold, low, amount = neuron[0, unit], neuron[1, unit], neuron[2, unit], neuron[3, unit]
        decay, gain, by_v = neuron[4, unit], neuron[5, unit], neuron[6, unit]
        by_spike, on_level = neuron[7, unit], neuron[8, unit]
        mean, scale, shift = zero, one, zero
        if normed:
            mean, scale, shift = affine[0, unit], affine[1, unit], affine[2, unit]
        factor = one
        if thinned:
            factor = factors[lane]
        pause = 0
        if waits:
            pause = steps[unit]
        c0, c1, c2, c3, c4 = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]
        d = grad_v[lane] if carry else zero
        c = zero
        if kind != 0:
            c = grad_w[lane]
        total, product = np.float64(0.0), np.float64(0.0)
        g_beta, g_level, g_after, g_decay, g_gain = zero, zero, zero, zero, zero
        g_by_v, g_by_spike, g_on_level = zero, zero, zero
        stride = np.uint64(lanes)
        stretches = (n_steps + STRETCH - 1) // STRETCH
        for back in range(stretches):
            stretch = stretches - 1 - back
            start = stretch * STRETCH
            n = min(STRETCH, n_steps - start)
            begin = np.uint64(start) * stride + np.uint64(lane)
            kept = np.uint64(stretch) * stride + np.uint64(lane)
            spiked, active = 0, 0  # one bit a step
            entered = zero
            if recomputes:
                entered = kept_v[kept]
                state = entered
                second = zero
                if kind != 0:
                    second = kept_w[kept]
                waiting = 0
                if waits:
                    waiting = kept_wait[kept]
                for first in range(0, n, AHEAD):
                    for k in range(AHEAD):
                        if first + k < n:
                            ahead[k] = y[begin + np.uint64(first + k) * stride]
                    for k in range(AHEAD):
                        i = first + k
                        if i < n:
                            x = ahead[k]
                            if normed:
                                x = times(x - mean, scale) + shift
                            free = True
                            if waits:
                                free = waiting <= 0
                            if deep:
                                seconds[i * THREADS + me] = second
                            h, state, second, fired = step(
                                beta, threshold, low, amount, decay, gain, by_v, by_spike, on_level, x, state, second,
                                free,
                            )  # fmt: skip
                            membranes[i * THREADS + me] = h
                            if fired:
                                spiked |= 1 << i
                            if waits:
                                if free:
                                    active |= 1 << i
                                waiting = pause if fired else max(waiting - 1, 0)
            part, part_product = zero, zero
            for first in range(0, n, AHEAD):
                for k in range(AHEAD):
                    i = n - 1 - first - k
                    if i >= 0:
                        above[k] = up[begin + np.uint64(i) * stride]
                        if normed:
                            ahead[k] = y[begin + np.uint64(i) * stride]
                for k in range(AHEAD):
                    i = n - 1 - first - k
                    if i >= 0:
                        e = above[k]
                        h, w_before = zero, zero
                        if recomputes:
                            h = membranes[i * THREADS + me]
                        if deep:
                            w_before = seconds[i * THREADS + me]
                        fired = (spiked >> i) & 1 != 0
                        free = True
                        if waits:
                            free = (active >> i) & 1 != 0
                        if thinned:
                            e = e * factor
                        if learns and kind != 0:
                            g_decay += c * w_before
                        if kind == ADAPTIVE:
                            if learns:
                                after = h
                                if fired:
                                    after = low if reset_zero else h - amount
                                g_by_v += c * after
                                if fired:
                                    g_by_spike += c
                            d = d + by_v * c
                            e = e + by_spike * c
                        dh = d
                        if fires:
                            if not detach_reset:
                                if reset_zero:
                                    e = e + d * (low - h)
                                else:
                                    e = e - d * amount
                            level = threshold
                            if kind == ADAPTIVE:
                                level = threshold + times(on_level, w_before)
                            e = e * derivative(one, c0, c1, c2, c3, c4, h - level)
                            if not free:
                                e = zero
                            if reset_zero and fired:
                                dh = zero
                        dh = dh + e
                        charged = dh if free else zero
                        if learns:
                            before = entered
                            if i > 0:
                                before = membranes[(i - 1) * THREADS + me]
                                if (spiked >> (i - 1)) & 1 != 0:
                                    before = low if reset_zero else before - amount
                            g_beta += charged * before
                            g_level -= e
                            if fired:
                                g_after += d
                            if kind == CUBA:
                                g_gain += charged * w_before
                            elif kind == ADAPTIVE:
                                g_on_level -= e * w_before
                        reached = charged
                        if kind == CUBA:
                            reached = c
                            c = decay * c + gain * charged
                        elif kind == ADAPTIVE:
                            c = decay * c - (gain * charged + on_level * e)
                        out[begin + np.uint64(i) * stride] = reached
                        d = beta * dh if free else dh
                        if not carry:
                            d = zero
                        if normed:
                            part += reached
                            part_product += reached * (ahead[k] - mean)
            total += np.float64(part)
            product += np.float64(part_product)
        grad_v[lane] = d
        if kind != 0:
            grad_w[lane] = c
        if normed:
            sums[lane] = total
            sums[lanes + lane] = product
        if learns:
            by_lane[lane] = g_beta
            by_lane[lanes + lane] = g_level
            by_lane[2 * lanes + lane] = g_after if reset_zero else zero
            by_lane[3 * lanes + lane] = zero if reset_zero else -g_after
            by_lane[4 * lanes + lane] = g_decay
            by_lane[5 * lanes + lane] = g_gain
            by_lane[6 * lanes + lane] = g_by_v
            by_lane[7 * lanes + lane] = g_by_spike
            by_lane[8 * lanes + lane] = g_on_level

    return named_kernel(
        neurons_backward, dtype, kind, reset_zero, fires, normed, thinned, waits, detach_reset, carry, learns, code
    )


def __getattr__(name: str) -> Any:
    return kernel_by_name(name, {"neurons_backward": backward_kernel})
