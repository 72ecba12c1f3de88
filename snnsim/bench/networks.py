"""Networks that every simulator of a comparison builds from the same numbers; imports NumPy only.

Sides run by path, each in an interpreter of its own, so they load this file by path too. Whatever is random here comes
from ``numpy.random.default_rng`` with a fixed seed, and the published sums of the fixtures are checked in the tests.
Potentials are millivolts from rest, times milliseconds, delays whole steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Layer", "Net", "Rows", "build_net"]

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """Synapses of one kind as rows by source.

    Attributes:
        indptr: First synapse of each source, int64 ``(n_source + 1,)``.
        target: uint16, or int32 where there are more than 65 536 targets; ascending within a row; ``(n,)``.
        weight: A number for all, or one a synapse, ``(n,)``; millivolts.
        steps: Delay in steps, a number for all, or uint8 ``(n,)``.
        receptor: ``"exc"``, ``"inh"`` or ``""`` for delta synapses.
        n_target: Neurons of the target.
    """

    indptr: Integers
    target: npt.NDArray[Any]
    weight: float | npt.NDArray[Any]
    steps: int | npt.NDArray[np.uint8]
    receptor: str
    n_target: int

    @property
    def degree(self) -> Integers:
        """Synapses of every source, int64 ``(n_source,)``."""
        return np.diff(self.indptr)

    @property
    def source(self) -> npt.NDArray[np.int32]:
        """Source of every synapse, int32 ``(n,)``."""
        return np.repeat(np.arange(len(self.indptr) - 1, dtype=np.int32), self.degree)


@dataclass(frozen=True)
class Layer:
    """Neurons of one kind: where they stand, how they move, what reaches them.

    Attributes:
        size: Neurons.
        v: Potentials before the first step, float64 ``(size,)``.
        rows: What comes in, as ``(place of the source, synapses)``: the layers count from 0, -1 is the input.
    """

    size: int
    v: npt.NDArray[np.float64]
    rows: tuple[tuple[int, Rows], ...]


@dataclass(frozen=True)
class Net:
    """A network of a comparison.

    Attributes:
        dt: Step, ms.
        layers: Neurons; all of a network are of the same kind.
        n_exc: The first of a single layer's neurons, those that excite.
        tau_mem: ms.
        tau_exc: Time constant of excitatory currents, ms; 0: delta synapses.
        tau_inh: Of inhibitory ones.
        v_threshold: mV from rest.
        v_reset: mV from rest.
        t_ref: Refractory time, ms.
        drive: Where the constant drive alone brings the membrane, mV from rest.
        noise_rate: Poisson events a second and neuron.
        noise_weight: mV each.
        inputs: Input units; 0: none.
        input_step: Step of every input event, int64, ascending.
        input_unit: Its unit.
    """

    dt: float
    layers: tuple[Layer, ...]
    n_exc: int
    tau_mem: float
    v_threshold: float
    v_reset: float
    tau_exc: float = 0.0
    tau_inh: float = 0.0
    t_ref: float = 0.0
    drive: float = 0.0
    noise_rate: float = 0.0
    noise_weight: float = 0.0
    inputs: int = 0
    input_step: Integers | None = None
    input_unit: Integers | None = None

    @property
    def n_neurons(self) -> int:
        """Neurons of all layers."""
        return sum(layer.size for layer in self.layers)

    @property
    def n_synapses(self) -> int:
        """Synapses of all layers."""
        return sum(len(rows.target) for layer in self.layers for _, rows in layer.rows)

    def out_degree(self, place: int) -> Integers:
        """Return the synapses that a neuron of a layer (-1: an input) has in all, int64 ``(size,)``."""
        degrees = [rows.degree for layer in self.layers for source, rows in layer.rows if source == place]
        size = self.inputs if place < 0 else self.layers[place].size
        return np.sum(degrees, axis=0, dtype=np.int64) if degrees else np.zeros(size, np.int64)

    def input_events(self) -> int:
        """Return the synaptic events of the input events."""
        return 0 if self.input_unit is None else int(self.out_degree(-1)[self.input_unit].sum())


def _target(values: npt.NDArray[Any], n: int) -> npt.NDArray[Any]:
    return values.astype(np.uint16 if n <= 2**16 else np.int32)


def cuba(size: int, inputs: int, steps: int = 1) -> Net:
    """Return the current-based network of Vogels and Abbott as Brette et al. (2007) and Brian2 define it.

    With 4000 neurons and 80 inputs on average it is the fixture of 320 933 synapses.

    Args:
        size: Neurons, four fifths of them excitatory.
        inputs: Synapses a neuron receives on average.
        steps: Delay.
    """
    draw = np.random.default_rng(1)
    n_exc = size * 4 // 5
    rows = []
    for unit in range(size):
        row = draw.random(size) < inputs / size
        row[unit] = False
        rows.append(np.flatnonzero(row))
    v = draw.uniform(-60, -50, size) + 49.0
    indptr = np.concatenate(([0], np.cumsum([len(row) for row in rows])))
    target = _target(np.concatenate(rows), size)
    synapses = _two_kinds(indptr, target, size, n_exc, (1.62, -9.0), steps, ("exc", "inh"))
    return Net(0.1, (Layer(size, v, synapses),), n_exc, 20.0, -1.0, -11.0, 5.0, 10.0, 5.0)


def _two_kinds(
    indptr: Integers,
    target: npt.NDArray[Any],
    size: int,
    n_exc: int,
    weights: tuple[float, float],
    steps: int,
    receptors: tuple[str, str],
) -> tuple[tuple[int, Rows], ...]:
    """Split rows by the kind of their source; each kind shares one weight."""
    middle = int(indptr[n_exc])
    exc = Rows(np.minimum(indptr, middle), target[:middle], weights[0], steps, receptors[0], size)
    inh = Rows(np.maximum(indptr, middle) - middle, target[middle:], weights[1], steps, receptors[1], size)
    return (0, exc), (0, inh)


def brunel(
    size: int,
    inputs: int,
    *,
    steps: int = 15,
    g: float = 5.0,
    own: bool = False,
    noise: bool = True,
    drive: float = 0.0,
    tau: float = 20.0,
    strength: float = 1.0,
    lowest: float = 0.0,
) -> Net:
    """Return Brunel's network (2000): delta synapses of 0.1 mV and 1.5 ms, 80 % of the inputs excitatory.

    Args:
        size: Neurons, 12 500 in the paper.
        inputs: Synapses a neuron receives, 1250 in the paper; fewer are stronger, so that their sum stays.
        steps: Delay.
        g: Inhibition over excitation.
        own: Whether every synapse has its own weight (10 % spread) and its own delay of 1 to 31 steps.
        noise: Whether every neuron gets the Poisson events of the paper at twice the threshold rate; they start from
            potential 0, otherwise from uniform ones below threshold.
        drive: Where the constant drive brings the membrane, mV.
        tau: Time constant of the membrane, ms.
        strength: Factor of all recurrent weights.
        lowest: Lowest potential at the start without noise, mV.
    """
    draw = np.random.default_rng(1)
    n_exc, exc = size * 4 // 5, inputs * 4 // 5
    source = np.empty((size, inputs), np.int32)
    source[:, :exc] = draw.integers(0, n_exc, (size, exc), np.int32)
    source[:, exc:] = draw.integers(n_exc, size, (size, inputs - exc), np.int32)
    flat = _target(source.reshape(-1), size)
    order = np.argsort(flat, kind="stable")
    indptr = np.concatenate(([0], np.cumsum(np.bincount(flat, minlength=size))))
    target = _target(order // inputs, size)
    del order, source
    j = 0.1 * 1000 / exc * strength
    if own:
        first = np.random.default_rng(2)
        sign = np.repeat(np.where(np.arange(size) < n_exc, j, -g * j), np.diff(indptr)).astype(np.float32)
        weight = sign * (1 + 0.1 * first.standard_normal(len(target), np.float32))
        delays = first.integers(1, 32, len(target), np.uint8)
        synapses: tuple[tuple[int, Rows], ...] = ((0, Rows(indptr, target, weight, delays, "", size)),)
    else:
        synapses = _two_kinds(indptr, target, size, n_exc, (j, -g * j), steps, ("", ""))
    v = np.zeros(size) if noise else np.random.default_rng(2).uniform(lowest, 20, size)
    rate = 20_000.0 if noise else 0.0
    layers = (Layer(size, v, synapses),)
    return Net(0.1, layers, n_exc, tau, 20.0, 10.0, t_ref=2.0, drive=drive, noise_rate=rate, noise_weight=0.1)


def stream(sizes: tuple[int, ...], n_steps: int) -> Net:
    """Return a dense feed-forward network with a delay of 1 to 26 steps of 1 ms a synapse, and one sample of events.

    With sizes 700-256-256-20 and 1000 steps it is the fixture of 7729 input events.
    """
    draw = np.random.default_rng(3)
    moments = ((0.007, 0.042), (0.005, 0.08), (0.02, 0.09))
    pairs = list(pairwise(sizes))
    weights = [draw.normal(mean, sd, pair) for (mean, sd), pair in zip(moments, pairs, strict=True)]
    delays = [draw.integers(1, 27, pair) for pair in pairs]
    share = draw.gamma(0.5, 1, sizes[0])
    count = 8 * n_steps
    unit = draw.choice(sizes[0], count, p=share / share.sum())
    step = np.clip(draw.normal(0.4 * n_steps, 0.22 * n_steps, count), 1, 0.94 * n_steps).astype(np.int64)
    step, unit = np.unique(np.stack([step, unit]), axis=1)
    layers = []
    for place, (n_source, n_target) in enumerate(pairs):
        rows = Rows(
            np.arange(n_source + 1, dtype=np.int64) * n_target,
            np.tile(np.arange(n_target, dtype=np.uint16), n_source),
            np.round(weights[place], 6).reshape(-1),
            delays[place].reshape(-1).astype(np.uint8),
            "",
            n_target,
        )
        layers.append(Layer(n_target, np.zeros(n_target), ((place - 1, rows),)))
    return Net(1.0, tuple(layers), 0, 10.0, 1.0, 0.0, inputs=sizes[0], input_step=step, input_unit=unit)


def build_net(task: dict[str, Any]) -> Net:
    """Return the network of a task, see :class:`snnsim.bench.sim_tasks.SimTask`."""
    if task["net"] == "stream":
        return stream(tuple(task["sizes"]), task["n_steps"])
    size, inputs = task["sizes"]
    if task["net"] == "cuba":
        return cuba(size, inputs, task["steps"])
    names = ("steps", "g", "own", "noise", "drive", "tau", "strength", "lowest")
    return brunel(size, inputs, **{name: task[name] for name in names})
