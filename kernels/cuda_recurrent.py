"""Recurrent neurons with one common delay on a device: all time steps in one kernel, forward and backward.

A block takes one sample, a thread one unit. Forward, the units that fired ``delay`` steps ago are listed in order in
shared memory and every thread adds their weights onto its current: the operations of
:mod:`snnsim.kernels.recurrent`, bit for bit. Backward, gradients are dense: every thread meets its column of the
weights at every step. A layer wider than :data:`MOST` units does not fit.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import cuda

from snnsim.kernels.cuda_made import kernel_by_name, named_kernel
from snnsim.kernels.cuda_neurons import float_type, step_function
from snnsim.kernels.cuda_support import times
from snnsim.kernels.cuda_surrogates import surrogate_function
from snnsim.kernels.dynamics import ADAPTIVE, CUBA

__all__ = ["MOST", "recurrent_backward_kernel", "recurrent_forward_kernel"]

MOST = {"float32": 1024, "float64": 512}
"""Most units of a layer: the registers of a block of as many threads fit a multiprocessor."""

_ROOM = 1024

_BITS = 32
_WORDS = _ROOM // _BITS


@cache
def recurrent_forward_kernel(dtype: str, kind: int, reset_zero: bool, deep: bool) -> Any:
    """Return the kernel that takes recurrent neurons from the zero state through time; a block a sample.

    Args:
        dtype: ``"float32"`` or ``"float64"``.
        kind: Kind of neuron, see :mod:`snnsim.kernels.dynamics`.
        reset_zero: Kind of reset.
        deep: Whether the second state is kept.
    """
    number = float_type(dtype)
    step = step_function(dtype, kind, reset_zero, True)

    def recurrent_forward(n_steps, delay, current, weight, neuron, membrane, second, spikes, v, w):  # type: ignore[no-untyped-def]
        """Advance neurons; arguments as of :func:`snnsim.kernels.recurrent.recurrent_forward`, flat.

        Args:
            n_steps: Steps.
            delay: Steps from a spike to its arrival, at least 1.
            current: Input, shape (time, batch, unit), flat.
            weight: Shape (source, target), flat.
            neuron: Parameters, shape (9, unit).
            membrane: Output, membrane before the reset, like ``current``.
            second: Output, second state before the step, likewise; empty unless ``deep``.
            spikes: Output, likewise.
            v: Output, last membrane, shape (batch, unit), flat.
            w: Output, last second state, likewise.
        """
        unit = cuda.threadIdx.x
        units = neuron.shape[1]
        lanes = v.shape[0]
        lane = cuda.blockIdx.x * units + unit
        flags = cuda.shared.array(_ROOM, np.uint8)
        words = cuda.shared.array(_WORDS, np.int64)
        sources = cuda.shared.array(_ROOM, np.int32)
        beta, threshold, low, amount = neuron[0, unit], neuron[1, unit], neuron[2, unit], neuron[3, unit]
        decay, gain, by_v = neuron[4, unit], neuron[5, unit], neuron[6, unit]
        by_spike, on_level = neuron[7, unit], neuron[8, unit]
        n_words = (units + _BITS - 1) // _BITS
        state, more = number(0), number(0)
        stride = np.uint64(lanes)
        here = np.uint64(lane)
        for t in range(n_steps):
            x = current[here]
            fires = False
            if t >= delay:
                fires = spikes[here - np.uint64(delay) * stride] != number(0)
            flags[unit] = 1 if fires else 0
            cuda.syncthreads()
            if unit < n_words:
                word = 0
                for k in range(min(_BITS, units - unit * _BITS)):
                    if flags[unit * _BITS + k] != 0:
                        word |= 1 << k
                words[unit] = word
            cuda.syncthreads()
            rank, n = 0, 0
            for k in range(n_words):
                if k == unit // _BITS:
                    rank = n + cuda.popc(words[k] & ((1 << (unit % _BITS)) - 1))
                n += cuda.popc(words[k])
            if fires:
                sources[rank] = unit
            cuda.syncthreads()
            k = 0
            while k + 4 <= n:
                a = weight[sources[k] * units + unit]
                b = weight[sources[k + 1] * units + unit]
                c = weight[sources[k + 2] * units + unit]
                d = weight[sources[k + 3] * units + unit]
                x = (((x + a) + b) + c) + d
                k += 4
            while k < n:
                x = x + weight[sources[k] * units + unit]
                k += 1
            if deep:
                second[here] = more
            h, state, more, fired = step(
                beta, threshold, low, amount, decay, gain, by_v, by_spike, on_level, x, state, more, True
            )
            membrane[here] = h
            spikes[here] = number(1) if fired else number(0)
            here += stride
        v[lane] = state
        w[lane] = more

    return named_kernel(recurrent_forward, dtype, kind, reset_zero, deep)


@cache
def recurrent_backward_kernel(
    dtype: str, kind: int, reset_zero: bool, detach_reset: bool, learns: bool, code: int
) -> Any:
    """Return the kernel that backpropagates through recurrent neurons; a block a sample.

    Args:
        dtype: ``"float32"`` or ``"float64"``.
        kind: Kind of neuron, see :mod:`snnsim.kernels.dynamics`.
        reset_zero: Kind of reset.
        detach_reset: Whether the reset passes no gradient to the spike.
        learns: Whether gradients of the parameters are wanted.
        code: Code of the surrogate.
    """
    number = float_type(dtype)
    derivative = surrogate_function(code)
    deep = kind == ADAPTIVE or (learns and kind == CUBA)

    def recurrent_backward(  # type: ignore[no-untyped-def]
        n_steps, delay, membrane, second, weight, neuron, numbers, up, grad_v, grad_w, out, by_lane
    ):
        """Backpropagate.

        Args:
            n_steps: Steps.
            delay: As in the forward pass, like the following.
            membrane: Membrane before the reset, shape (time, batch, unit), flat.
            second: Second state before the step.
            weight: Shape (target, source), flat.
            neuron: Parameters.
            numbers: Coefficients of the surrogate, shape (6,).
            up: Gradient of the spikes from outside, like ``membrane``.
            grad_v: Gradient of the last membrane, shape (batch, unit), flat.
            grad_w: Gradient of the last second state, likewise.
            out: Output, gradient of the current, like ``membrane``.
            by_lane: Output, gradients of the parameters, shape (9, batch, unit), flat; empty unless ``learns``.
        """
        unit = cuda.threadIdx.x
        units = neuron.shape[1]
        lanes = grad_v.shape[0]
        lane = cuda.blockIdx.x * units + unit
        later = cuda.shared.array(_ROOM, number)
        one, zero = number(1), number(0)
        beta, threshold, low, amount = neuron[0, unit], neuron[1, unit], neuron[2, unit], neuron[3, unit]
        decay, gain, by_v = neuron[4, unit], neuron[5, unit], neuron[6, unit]
        by_spike, on_level = neuron[7, unit], neuron[8, unit]
        c0, c1, c2, c3, c4 = numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]
        d, c = grad_v[lane], grad_w[lane]
        g_beta, g_level, g_after, g_decay, g_gain = zero, zero, zero, zero, zero
        g_by_v, g_by_spike, g_on_level = zero, zero, zero
        stride = np.uint64(lanes)
        for back in range(n_steps):
            t = n_steps - 1 - back
            here = np.uint64(t) * stride + np.uint64(lane)
            h = membrane[here]
            e = up[here]
            arrives = t + delay < n_steps
            if arrives:
                later[unit] = out[here + np.uint64(delay) * stride]
            cuda.syncthreads()
            if arrives:
                reached = zero
                for target in range(units):
                    reached += weight[target * units + unit] * later[target]
                e = e + reached
            cuda.syncthreads()
            before_w, level = zero, threshold
            if deep:
                before_w = second[here]
            if kind == ADAPTIVE:
                level = threshold + times(on_level, before_w)
            fired = h >= level
            if learns and kind != 0:
                g_decay += c * before_w
            if kind == ADAPTIVE:
                if learns:
                    after = h
                    if fired:
                        after = low if reset_zero else h - amount
                        g_by_spike += c
                    g_by_v += c * after
                d = d + by_v * c
                e = e + by_spike * c
            if not detach_reset:
                if reset_zero:
                    e = e + d * (low - h)
                else:
                    e = e - d * amount
            e = e * derivative(one, c0, c1, c2, c3, c4, h - level)
            dh = zero if reset_zero and fired else d
            dh = dh + e
            if learns:
                before = zero
                if t > 0:
                    before = membrane[here - stride]
                    level_before = threshold
                    if kind == ADAPTIVE:
                        level_before = threshold + times(on_level, second[here - stride])
                    if before >= level_before:
                        before = low if reset_zero else before - amount
                g_beta += dh * before
                g_level -= e
                if fired:
                    g_after += d
                if kind == CUBA:
                    g_gain += dh * before_w
                elif kind == ADAPTIVE:
                    g_on_level -= e * before_w
            if kind == CUBA:
                out[here] = c
                c = decay * c + gain * dh
            else:
                out[here] = dh
                if kind == ADAPTIVE:
                    c = decay * c - (gain * dh + on_level * e)
            d = beta * dh
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

    return named_kernel(recurrent_backward, dtype, kind, reset_zero, detach_reset, learns, code)


def __getattr__(name: str) -> Any:
    return kernel_by_name(
        name, {"recurrent_forward": recurrent_forward_kernel, "recurrent_backward": recurrent_backward_kernel}
    )
