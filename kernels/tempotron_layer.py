"""Tempotron learning of neurons on a time grid: where the potential without reset peaks, and its derivatives there.

Gutig and Sompolinsky 2006 with the exponential kernel of a LIF with delta synapses in place of their double
exponential, and with synapses that may release at random; ``kernels/reference_tempotron_layer.py`` is the definition.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from snnsim.kernels.stdp import add_passed_on, certain
from snnsim.kernels.stochastic import RELEASE, draw_row

__all__ = ["peak_gradient", "peaks"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@njit(cache=True, nogil=True)
def peaks(begin, source, count, weight, layer, seed, sample, v_max, k_max):  # type: ignore[no-untyped-def]
    """Find the highest potential of each neuron in a sample that it passes without reset, and its first step.

    Steps before the first event do not count: a neuron that is only inhibited would peak there and never learn.

    ``v[k] = (beta v[k - 1] + drive) + arrivals``, from rest, with the draws of :func:`snnsim.kernels.stdp.stdp_sample`.

    Args:
        begin: First entry of each step, int64 (step + 1,).
        source: Sources that are active, ascending in a step, int64.
        count: Their coincident events, float64.
        weight: (source, neuron).
        layer: :class:`snnsim.kernels.stdp.LayerNumbers`.
        seed: Of the release.
        sample: Id of the sample.
        v_max: (neuron,), filled; minus infinity where there is no event.
        k_max: Steps, int64 (neuron,), filled; -1 where there is none.
    """
    n = weight.shape[1]
    v, total, kept, others = np.zeros(n), np.zeros(n), np.empty(n), np.empty(n)
    sure = certain(layer)
    v_max[:] = -np.inf
    k_max[:] = -1
    for k in range(begin.shape[0] - 1):
        total[:] = 0.0
        for e in range(begin[k], begin[k + 1]):
            s = source[e]
            if sure:
                for j in range(n):
                    total[j] += (count[e] * weight[s, j]) * layer.low
            else:
                add_passed_on(weight[s], count[e], s, layer, seed, sample, k, kept, others, total)
        for j in range(n):
            v[j] = (layer.beta[j] * v[j] + layer.drive[j]) + total[j]
            if begin[k + 1] > 0 and v[j] > v_max[j]:
                v_max[j], k_max[j] = v[j], k


@njit(cache=True, nogil=True)
def peak_gradient(begin, source, count, weight, layer, seed, sample, k_max, sign, by_weight, by_beta, by_release):  # type: ignore[no-untyped-def]
    """Write the derivatives of each neuron's potential in step ``k_max``, times ``sign``; 0 where that is 0.

    ``dv/dw = sum beta^(k_max - k) phi q c`` over the arrivals up to ``k_max``, ``dv/dbeta = sum (k_max - k)
    beta^(k_max - k - 1) (drive + arrivals[k])``, and ``dv/drelease`` of the mean over release,
    ``sum beta^(k_max - k) (phi q c w) / release``.

    Args:
        begin: As in :func:`peaks`, like the following.
        source: Sources.
        count: Coincident events.
        weight: (source, neuron).
        layer: Numbers of the neurons.
        seed: Of the release.
        sample: Id of the sample.
        k_max: Steps.
        sign: float64 (neuron,).
        by_weight: (source, neuron), filled.
        by_beta: (neuron,), filled.
        by_release: (neuron,), filled.
    """
    n = weight.shape[1]
    by_weight[:] = 0.0
    by_beta[:] = 0.0
    by_release[:] = 0.0
    total, fade, before = np.zeros(n), np.zeros(n), np.zeros(n)
    kept, others = np.empty(n), np.empty(n)
    last, start, stop = -1, n, 0  # the last step and the neurons that count
    for j in range(n):
        if sign[j] != 0.0:
            last, start, stop = max(last, k_max[j]), min(start, j), j + 1
    sure = certain(layer)
    for k in range(last, -1, -1):  # fade is beta^(k_max - k), before the power below that
        for j in range(n):
            total[j] = 0.0
            if k == k_max[j]:
                fade[j], before[j] = 1.0, 0.0
            elif k < k_max[j]:
                before[j], fade[j] = fade[j], fade[j] * layer.beta[j]
        for e in range(begin[k], begin[k + 1]):
            s = source[e]
            if not sure:
                draw_row(layer.release, seed, RELEASE, sample, k, s, start, stop, kept, others)
            for j in range(start, stop):
                if sign[j] == 0.0 or fade[j] + before[j] == 0.0:
                    continue
                passed = count[e] * layer.low
                if not sure:
                    m = j - start
                    passed = kept[m] * (count[e] * (layer.low + (layer.high - layer.low) * others[m]))
                by_weight[s, j] += sign[j] * fade[j] * passed
                total[j] += passed * weight[s, j]
        for j in range(n):
            if sign[j] != 0.0 and k <= k_max[j]:
                by_beta[j] += sign[j] * ((k_max[j] - k) * before[j]) * (layer.drive[j] + total[j])
                by_release[j] += sign[j] * fade[j] * total[j] / layer.release[j]
