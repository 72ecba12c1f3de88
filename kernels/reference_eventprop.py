"""EventProp, the plain definition: exact gradients of spiking neurons in continuous time. One event at a time. Slow.

Any network is one population here: readouts are neurons that never fire, layers are blocks of the matrix of
synapses. ``docs/eventprop.md`` gives the equations; ``kernels/eventprop.py`` is compared with this file.

Wunderlich & Pehle 2021, "Event-based backpropagation can compute exact gradients for spiking neural networks";
delays as in Meszaros, Knight & Nowotny 2025, "Efficient event-based delay learning in spiking neural networks".
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

__all__ = [
    "ReferenceGradients",
    "ReferenceRun",
    "ReferenceSystem",
    "eventprop_backward_reference",
    "eventprop_forward_reference",
    "first_spike_loss",
    "weighted_means",
]

Floats = npt.NDArray[np.float64]

FAR = 60.0  # longest time constants after which nothing that decays is left


@dataclass(frozen=True)
class ReferenceSystem:
    """Neurons ``tau_mem dv/dt = -v + i``, ``tau_syn di/dt = -i``; a weight of exactly 0 is no synapse.

    Attributes:
        tau_mem: Seconds, shape (n,).
        tau_syn: Seconds, shape (n,).
        v_threshold: Infinite for readouts, shape (n,).
        v_reset: Value after a spike, shape (n,).
        w_in: Weights from the inputs, shape (n, inputs).
        d_in: Their delays, seconds.
        w: Weights among the neurons ``[target, source]``, shape (n, n).
        d: Their delays, seconds.
    """

    tau_mem: Floats
    tau_syn: Floats
    v_threshold: Floats
    v_reset: Floats
    w_in: Floats
    d_in: Floats
    w: Floats
    d: Floats


@dataclass
class ReferenceRun:
    """What a forward pass leaves.

    Attributes:
        inputs: Time, unit and number of coincident events, as given.
        stop: End, seconds.
        spikes: Time, neuron and its current at that time, in order of time.
        history: ``("spike", k)``, or ``("input", e, target)`` and ``("synapse", k, target)`` for the arrival of input
            event e or spike k, with the time in front; in the order in which they happened.
    """

    inputs: list[tuple[float, int, float]]
    stop: float
    spikes: list[tuple[float, int, float]] = field(default_factory=list)
    history: list[tuple[float, str, int, int]] = field(default_factory=list)


@dataclass
class ReferenceGradients:
    """Derivatives of the loss.

    Attributes:
        w_in: By weights from the inputs.
        d_in: By their delays, per second.
        w: By weights among the neurons.
        d: By their delays, per second.
        time: By the time of every input event, per second.
        clipped: Spikes whose factor ``1 / (i - v_threshold)`` was cut.
    """

    w_in: Floats
    d_in: Floats
    w: Floats
    d: Floats
    time: Floats
    clipped: int


def gain(t: float, tau_mem: float, tau_syn: float) -> float:
    """Return K(t), what a current of 1 at 0 has brought the membrane to; no trouble at equal time constants."""
    x = t * (1.0 / tau_syn - 1.0 / tau_mem)
    ratio = 1.0 if x == 0.0 else -math.expm1(-x) / x
    if abs(x) > 1.0:
        ratio = (1.0 - math.exp(-x)) / x if x > 0 else ratio
    return t / tau_mem * math.exp(-t / tau_mem) * ratio


def _crossing(v: float, i: float, tau_mem: float, tau_syn: float, threshold: float) -> float:
    """Return the time until v rises to the threshold without arrivals; infinity if it never does."""

    def at(t: float) -> float:
        return v * math.exp(-t / tau_mem) + i * gain(t, tau_mem, tau_syn)

    def rises(t: float) -> bool:
        return i * math.exp(-t / tau_syn) > at(t)

    if i <= threshold or v >= threshold or not rises(0.0):
        return math.inf
    peak = _bisect(rises, 0.0, FAR * max(tau_mem, tau_syn))
    return _bisect(lambda t: at(t) < threshold, 0.0, peak) if at(peak) >= threshold else math.inf


def _bisect(before: object, low: float, high: float) -> float:
    """Return the first float at which ``before`` is no longer true."""
    while True:
        middle = 0.5 * (low + high)
        if not low < middle < high:
            return high
        if before(middle):  # type: ignore[operator]
            low = middle
        else:
            high = middle


def eventprop_forward_reference(
    system: ReferenceSystem, inputs: Sequence[tuple[float, int, float]], stop: float
) -> ReferenceRun:
    """Run from silence at time 0 until ``stop``; what would arrive or fire at ``stop`` or later does not happen.

    Events at one instant happen in this order: crossings by neuron, then arrivals by target, input events before
    spikes, both in their order.

    Args:
        system: Neurons and synapses.
        inputs: Time in seconds (0 or later), unit and number of coincident events.
        stop: Seconds.
    """
    n = system.w.shape[0]
    run = ReferenceRun(list(inputs), stop)
    v, i, last = [0.0] * n, [0.0] * n, [0.0] * n
    cross = [math.inf] * n
    queue: list[tuple[float, int, int, int, float]] = []  # time, target, kind (0 input, 1 spike), index, jump

    def move(m: int, time: float) -> None:
        t = time - last[m]
        v[m] = v[m] * math.exp(-t / system.tau_mem[m]) + i[m] * gain(t, system.tau_mem[m], system.tau_syn[m])
        i[m] *= math.exp(-t / system.tau_syn[m])
        last[m] = time

    def look(m: int) -> None:
        wait = _crossing(v[m], i[m], system.tau_mem[m], system.tau_syn[m], system.v_threshold[m])
        cross[m] = last[m] + wait

    for e, (time, unit, count) in enumerate(inputs):
        for m in np.flatnonzero(system.w_in[:, unit]).tolist():
            arrival = time + system.d_in[m, unit]
            heapq.heappush(queue, (arrival, m, 0, e, count * system.w_in[m, unit]))
    while True:
        first = min(cross, default=math.inf)
        arrival = queue[0][0] if queue else math.inf
        if min(first, arrival) >= stop:
            return run
        if first <= arrival:
            m = cross.index(first)
            move(m, first)
            run.history.append((first, "spike", len(run.spikes), m))
            for target in np.flatnonzero(system.w[:, m]).tolist():
                key = (first + system.d[target, m], target, 1, len(run.spikes), system.w[target, m])
                heapq.heappush(queue, key)
            run.spikes.append((first, m, i[m]))
            v[m] = system.v_reset[m]
            look(m)
            continue
        time, m, kind, index, jump = heapq.heappop(queue)
        move(m, time)
        i[m] += jump
        run.history.append((time, "synapse" if kind else "input", index, m))
        look(m)


def weighted_means(system: ReferenceSystem, run: ReferenceRun, *, rate: float = 0.0, begin: float = 0.0) -> Floats:
    """Return ``1 / (stop - begin)`` times the integral of ``e^(-rate (t - begin)) v`` from ``begin`` to ``stop``.

    Summed in closed form over the stretches between events, for all neurons, spiking ones too.
    """
    n = system.w.shape[0]
    total = np.zeros(n)
    v, i, last = np.zeros(n), np.zeros(n), 0.0
    jumps: list[tuple[float, str, int, int]] = [*run.history, (begin, "begin", -1, -1), (run.stop, "end", -1, -1)]
    for time, kind, index, m in sorted(jumps, key=lambda jump: jump[0]):
        t = time - last
        for k in range(n):
            tau_mem, tau_syn = system.tau_mem[k], system.tau_syn[k]
            if last >= begin:
                q_m, q_s = rate + 1.0 / tau_mem, rate + 1.0 / tau_syn
                by_v = -math.expm1(-q_m * t) / q_m
                x = (q_s - q_m) * t
                ratio = 1.0 if x == 0.0 else -math.expm1(-x) / x
                by_i = (-math.expm1(-q_m * t) - q_m * t * math.exp(-q_m * t) * ratio) / (q_m * q_s) / tau_mem
                total[k] += math.exp(-rate * (last - begin)) * (v[k] * by_v + i[k] * by_i)
            v[k] = v[k] * math.exp(-t / tau_mem) + i[k] * gain(t, tau_mem, tau_syn)
            i[k] *= math.exp(-t / tau_syn)
        last = time
        if kind == "spike":
            v[m] = system.v_reset[m]
        elif kind == "input":
            i[m] += run.inputs[index][2] * system.w_in[m, run.inputs[index][1]]
        elif kind == "synapse":
            i[m] += system.w[m, run.spikes[index][1]]
    return total / (run.stop - begin)


def eventprop_backward_reference(
    system: ReferenceSystem,
    run: ReferenceRun,
    *,
    mean: Floats | None = None,
    rate: float = 0.0,
    begin: float = 0.0,
    samples: Sequence[tuple[float, int, float]] = (),
    spike: Floats | None = None,
    push: Floats | None = None,
    clip: float = 1e3,
) -> ReferenceGradients:
    """Run the adjoint equations from ``stop`` to 0 and collect the derivatives.

    Args:
        system: Neurons and synapses.
        run: Forward pass.
        mean: Derivative of the loss by :func:`weighted_means`, shape (n,); 0 at spiking neurons.
        rate: Of these means.
        begin: Of these means.
        samples: Time, neuron and derivative of the loss by v of that neuron at that time (what arrives at that time
            has arrived; readouts only).
        spike: Derivative of the loss by the time of every spike, shape (spikes,).
        push: Added to lambda_v at every spike (regularisation), shape (spikes,).
        clip: Largest factor ``1 / (i - v_threshold)`` at a spike.
    """
    n = system.w.shape[0]
    mean = np.zeros(n) if mean is None else mean
    source = np.zeros(len(run.spikes)) if spike is None else spike.copy()  # what a spike's time is worth
    w_in, d_in, w, d = (np.zeros_like(a) for a in (system.w_in, system.d_in, system.w, system.d))
    result = ReferenceGradients(w_in, d_in, w, d, np.zeros(len(run.inputs)), 0)
    lambda_v, lambda_i, last = np.zeros(n), np.zeros(n), run.stop
    # going back: samples of an instant come before what happens at it
    order = [(time, 0, k, kind, index, m) for k, (time, kind, index, m) in enumerate(run.history)]
    order += [(time, 1, k, "sample", k, m) for k, (time, m, _) in enumerate(samples)]
    order.append((begin, 2, 0, "begin", 0, 0))
    for time, _, _, kind, index, m in sorted(order, reverse=True):
        t = last - time
        for k in range(n):
            tau_mem, tau_syn = system.tau_mem[k], system.tau_syn[k]
            a, b = math.exp(-t / tau_mem), math.exp(-t / tau_syn)
            away = lambda_v[k]
            if mean[k] and last > begin:  # a source -mean e^(-rate (t - begin)) / (stop - begin), its own answer first
                here = -mean[k] * math.exp(-rate * (last - begin)) / (run.stop - begin) / (1.0 + rate * tau_mem)
                grown = math.exp(rate * t)
                away -= here
                by_i = here / (1.0 + rate * tau_syn)
                lambda_i[k] = by_i * grown + (lambda_i[k] - by_i) * b
                lambda_v[k] = here * grown
            else:
                lambda_i[k] *= b
                lambda_v[k] = 0.0
            lambda_i[k] += away * tau_mem / tau_syn * gain(t, tau_mem, tau_syn)
            lambda_v[k] += away * a
        last = time
        if kind == "sample":
            lambda_v[m] -= samples[index][2] / system.tau_mem[m]
        elif kind == "input":
            _, unit, count = run.inputs[index]
            worth = system.w_in[m, unit] * (lambda_v[m] - lambda_i[m])
            result.w_in[m, unit] -= system.tau_syn[m] * count * lambda_i[m]
            result.d_in[m, unit] += count * worth
            result.time[index] += count * worth
        elif kind == "synapse":
            unit = run.spikes[index][1]
            worth = system.w[m, unit] * (lambda_v[m] - lambda_i[m])
            result.w[m, unit] -= system.tau_syn[m] * lambda_i[m]
            result.d[m, unit] += worth
            source[index] += worth
        elif kind == "spike":
            slope = run.spikes[index][2] - system.v_threshold[m]
            factor = min(1.0 / slope if slope > 0.0 else math.inf, clip)
            result.clipped += int(not slope * clip >= 1.0)
            fall = system.v_threshold[m] - system.v_reset[m]
            lambda_v[m] += factor * (fall * lambda_v[m] + source[index])
            if push is not None:
                lambda_v[m] += push[index]
    return result


def first_spike_loss(
    first: Floats, target: int, *, tau: float, late: float = 0.0, scale: float = 1.0
) -> tuple[float, Floats]:
    """Return the cross-entropy of first spike times and its derivative by them.

    ``-log softmax(-first / tau)[target] + late (e^(first[target] / scale) - 1)`` (Wunderlich & Pehle 2021). A class
    without a spike has an infinite time: it takes no part, and has no derivative; if the target has none, the loss is
    infinite.

    Args:
        first: Times of the first spikes, seconds, shape (classes,).
        target: Right class.
        tau: Seconds.
        late: Weight of the penalty on a late spike of the right class.
        scale: Its time scale, seconds.
    """
    if not math.isfinite(first[target]):
        return math.inf, np.zeros_like(first)
    score = np.where(np.isfinite(first), -(first - first[target]) / tau, -math.inf)
    p = np.exp(score - score.max())
    p /= p.sum()
    derivative = -p / tau
    derivative[target] += 1.0 / tau
    growth = math.exp(first[target] / scale)
    derivative[target] += late * growth / scale
    return -math.log(p[target]) + late * (growth - 1.0), derivative
