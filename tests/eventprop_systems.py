"""Small networks in continuous time for the tests of EventProp."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from snnsim.kernels import event_law as law
from snnsim.kernels.eventprop_layers import Layer
from snnsim.kernels.eventprop_trains import Train, train_of_counts
from snnsim.kernels.reference_eventprop import ReferenceSystem, eventprop_forward_reference

Floats = npt.NDArray[np.float64]
Inputs = list[tuple[float, int, float]]

STOP = 0.08
READOUTS = 2


def laws(size: int, tau_mem: float, tau_syn: float, threshold: float, reset: float) -> Floats:
    rows = np.zeros((size, law.COLUMNS))
    rows[:, law.KIND], rows[:, law.RESET_ZERO] = law.CURRENT, 1.0
    rows[:, law.TAU], rows[:, law.RATE_M], rows[:, law.RATE_E] = tau_mem, 1 / tau_mem, 1 / tau_syn
    near = abs(tau_mem - tau_syn) < 0.1 * max(tau_mem, tau_syn)
    rows[:, law.GAIN_E] = 0.0 if near else tau_syn / (tau_mem - tau_syn)
    rows[:, law.GAP], rows[:, law.RESET] = threshold, reset
    return rows


def single(w: float, tau_mem: float = 20.0, tau_syn: float = 10.0) -> ReferenceSystem:
    """One neuron with one input."""
    one = np.ones(1)
    zero = np.zeros((1, 1))
    return ReferenceSystem(tau_mem * one, tau_syn * one, one, 0 * one, np.array([[w]]), zero, zero, zero)


def recurrent(seed: int = 0, tau_syn: float = 0.005) -> ReferenceSystem:
    """4 inputs, 3 recurrent neurons, 2 readouts; a delay for every synapse."""
    rng = np.random.default_rng(seed)
    n = 3 + READOUTS
    w = np.zeros((n, n))
    w[:3, :3], w[3:, :3] = rng.normal(0, 1.0, (3, 3)), rng.normal(0, 1, (2, 3))
    w_in = np.concatenate([rng.normal(1.6, 1.2, (3, 4)), np.zeros((2, 4))])
    threshold = np.array([1.0, 1.2, 0.9, np.inf, np.inf])
    reset = np.array([0.0, -0.2, 0.1, 0.0, 0.0])
    d_in, d = rng.uniform(0.0, 0.02, (n, 4)), rng.uniform(0.001, 0.02, (n, n))
    return ReferenceSystem(np.full(n, 0.02), np.full(n, tau_syn), threshold, reset, w_in, d_in, w, d)


def some_inputs(seed: int = 0, events: int = 24) -> Inputs:
    rng = np.random.default_rng(seed)
    made = [(float(rng.uniform(0, 0.05)), int(rng.integers(4)), float(rng.integers(1, 3))) for _ in range(events)]
    return sorted(made)


def stack(seed: int, tau_syn: float, one_delay: bool) -> tuple[list[Layer], ReferenceSystem, Train, Inputs]:
    """Two recurrent layers and a readout, as layers and as one population; counts on a grid of 1 ms."""
    rng = np.random.default_rng(seed)
    sizes, layers, total, n_in = (4, 3, READOUTS), [], 4 + 3 + READOUTS, 6
    w_in, d_in, w, d = (np.zeros((total, m)) for m in (n_in, n_in, total, total))
    sources, first = n_in, 0
    for k, size in enumerate(sizes):
        weight = rng.normal(1.2 if k == 0 else 0.9, 1.0, (size, sources))
        delay = np.full((1, 1), 0.002 * k) if one_delay else rng.uniform(0, 0.02, (size, sources))
        loop = rng.normal(0, 0.6, (size, size)) if k < 2 else np.zeros((0, 0))
        loop_delay = np.full((1, 1), 0.001) if one_delay or k == 2 else rng.uniform(0.001, 0.02, (size, size))
        layers.append(Layer(laws(size, 0.02, tau_syn, 1.0 if k < 2 else np.inf, -0.1), weight, delay, loop, loop_delay))
        rows = slice(first, first + size)
        if k == 0:
            w_in[rows], d_in[rows] = weight, delay
        else:
            w[rows, first - sources : first], d[rows, first - sources : first] = weight, delay
        if k < 2:
            w[rows, rows], d[rows, rows] = loop, loop_delay
        first, sources = first + size, size
    threshold = np.array([1.0] * 7 + [np.inf] * READOUTS)
    numbers = (np.full(total, 0.02), np.full(total, tau_syn), threshold, np.full(total, -0.1))
    counts = (rng.random((60, n_in)) < 0.08) * rng.integers(1, 3, (60, n_in))
    train = train_of_counts(counts, 0.001)
    inputs = [(float(t), int(u), float(c)) for t, u, c in zip(train.times, train.units, train.counts, strict=True)]
    return layers, ReferenceSystem(*numbers, w_in, d_in, w, d), train, inputs


def count_of_spikes(system: ReferenceSystem, inputs: Inputs, stop: float) -> list[int]:
    run = eventprop_forward_reference(system, inputs, stop)
    return np.bincount([n for _, n, _ in run.spikes], minlength=system.w.shape[0]).tolist()


def difference(
    system: ReferenceSystem,
    name: str,
    at: tuple[int, int],
    loss: Callable[[ReferenceSystem], float],
    spikes: Callable[[ReferenceSystem], list[int]],
    h: float = 1e-6,
) -> float | None:
    """Return the central difference by one parameter; None if spikes come or go."""
    values = []
    for sign in (1, -1):
        array = getattr(system, name).copy()
        array[at] += sign * h
        moved = replace(system, **{name: array})
        if spikes(moved) != spikes(system):
            return None
        values.append(loss(moved))
    return (values[0] - values[1]) / (2 * h)
