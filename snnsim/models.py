"""Networks that every simulator is measured with, ready to run: CUBA, Brunel, the cortical microcircuit.

Potentials are in millivolts above the resting potential. A model holds what one run needs:

>>> model = brunel(scale=0.02, seed=1)
>>> from snnsim.engines import simulate
>>> result = simulate(model.network, None, n_steps=100, initial=model.initial, stimuli=model.stimuli, seed=1)
>>> sorted(result.spikes)
['exc', 'inh']
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from snnsim.connect import Normal, Options, fixed_indegree, fixed_probability, fixed_total, total_for_probability
from snnsim.errors import InputError
from snnsim.network import Network, Population, Projection
from snnsim.network_checks import check_integer
from snnsim.neurons import LIF, ExpCurrentLIF
from snnsim.stimuli import Poisson, Stimulus

__all__ = ["LAYERS", "RATES", "Model", "brunel", "cuba", "microcircuit"]

MS = 1e-3
DT = 0.1 * MS

LAYERS = ("L23E", "L23I", "L4E", "L4I", "L5E", "L5I", "L6E", "L6I")
"""Populations of the microcircuit, outer layers first."""


@dataclass(frozen=True, eq=False)
class Model:
    """A network and what acts on it.

    Attributes:
        network: The network.
        initial: Values before step 0, for ``simulate(initial=)``.
        stimuli: For ``simulate(stimuli=)``.
    """

    network: Network
    initial: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    stimuli: tuple[Stimulus, ...] = ()


def _check_scale(scale: float, what: str) -> float:
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not 0 < scale <= 1:
        raise InputError(f"{what}: scale: expected a number above 0 and at most 1, got {scale!r}")
    return float(scale)


def cuba(*, seed: int = 1) -> Model:
    """Return benchmark 2 of the simulator review (Vogels and Abbott): 3200 and 800 neurons with exponential currents.

    Every ordered pair is joined with probability 0.02; the leak at -49 mV above the threshold of -50 mV drives it.
    Rest is -49 mV here. Source: Brette et al., Journal of Computational Neuroscience 23, 349 (2007).

    Args:
        seed: Of synapses and initial potentials.
    """
    check_integer(seed, "cuba: seed", 0, 2**32 - 1)
    neuron = ExpCurrentLIF(
        tau_mem=20 * MS, tau_exc=5 * MS, tau_inh=10 * MS, v_threshold=-1.0, v_reset=-11.0, t_ref=5 * MS
    )
    exc, inh = Population("exc", 3200, neuron), Population("inh", 800, neuron)
    projections = [
        fixed_probability(source, target, 0.02, weight=weight, delay=DT, receptor=receptor, autapses=False, seed=seed)
        for source, weight, receptor in ((exc, 1.62, "exc"), (inh, -9.0, "inh"))
        for target in (exc, inh)
    ]
    draw = np.random.default_rng(seed)
    initial = {f"{item.name}.v": draw.uniform(-11.0, -1.0, item.size) for item in (exc, inh)}
    return Model(Network((exc, inh), tuple(projections), (), None, DT), initial)


def brunel(
    *,
    g: float = 5.0,
    eta: float = 2.0,
    delay: float = 1.5 * MS,
    v_reset: float = 10.0,
    scale: float = 1.0,
    seed: int = 1,
) -> Model:
    """Return Brunel's network of 10 000 and 2500 neurons with 1000 and 250 delta synapses each.

    Every neuron also hears 1000 Poisson sources of ``eta`` times 10 Hz, the rate that alone brings it to threshold.
    Regimes: ``g=3, eta=2`` synchronous regular; ``g=6, eta=4`` fast, ``g=4.5, eta=0.9`` slow synchronous irregular;
    ``g=5, eta=2`` asynchronous irregular. Source: Brunel, Journal of Computational Neuroscience 8, 183 (2000).

    Args:
        g: Strength of an inhibitory synapse in excitatory ones.
        eta: External rate in threshold rates.
        delay: Seconds.
        v_reset: mV; 10 in the paper.
        scale: Share of the neurons and of the synapses a neuron; weights grow by 1 / scale, which keeps the mean input.
        seed: Of synapses.

    Raises:
        InputError: ``scale`` is out of range, or the synapses do not fit in memory.
    """
    scale = _check_scale(scale, "brunel")
    check_integer(seed, "brunel: seed", 0, 2**32 - 1)
    neuron = LIF(tau_mem=20 * MS, v_threshold=20.0, v_reset=v_reset, t_ref=2 * MS)
    exc, inh = (Population(name, max(1, round(n * scale)), neuron) for name, n in (("exc", 10_000), ("inh", 2500)))
    weight = 0.1 / scale
    projections = [
        fixed_indegree(source, target, max(1, round(n * scale)), weight=factor * weight, delay=delay, seed=seed)
        for source, n, factor in ((exc, 1000, 1.0), (inh, 250, -g))
        for target in (exc, inh)
    ]
    rate = eta * 20.0 / (0.1 * 20 * MS)  # 1000 sources of eta times the threshold rate
    noise = tuple(Poisson(item.name, rate * scale, weight) for item in (exc, inh))
    return Model(Network((exc, inh), tuple(projections), (), None, DT), {}, noise)


RATES = (0.943, 3.026, 4.368, 5.882, 7.733, 8.664, 1.096, 7.851)
"""Spikes a second of the whole microcircuit in NEST, as its example gives them."""

SIZES = (20683, 5834, 21915, 5479, 4850, 1065, 14395, 2948)
EXTERNAL = (1600, 1500, 2100, 1900, 2000, 1900, 2900, 2100)
V_MEAN = (-68.28, -63.16, -63.33, -63.45, -63.11, -61.66, -66.72, -61.43)
V_SD = (5.36, 4.57, 4.74, 4.94, 4.94, 4.55, 5.46, 4.48)
PROBABILITY = (  # row: target, column: source
    (0.1009, 0.1689, 0.0437, 0.0818, 0.0323, 0.0, 0.0076, 0.0),
    (0.1346, 0.1371, 0.0316, 0.0515, 0.0755, 0.0, 0.0042, 0.0),
    (0.0077, 0.0059, 0.0497, 0.1350, 0.0067, 0.0003, 0.0453, 0.0),
    (0.0691, 0.0029, 0.0794, 0.1597, 0.0033, 0.0, 0.1057, 0.0),
    (0.1004, 0.0622, 0.0505, 0.0057, 0.0831, 0.3726, 0.0204, 0.0),
    (0.0548, 0.0269, 0.0257, 0.0022, 0.0600, 0.3158, 0.0086, 0.0),
    (0.0156, 0.0066, 0.0211, 0.0166, 0.0572, 0.0197, 0.0396, 0.2252),
    (0.0364, 0.0010, 0.0034, 0.0005, 0.0277, 0.0080, 0.0658, 0.1443),
)
BACKGROUND = 8.0  # events a second of an external source


def microcircuit(*, scale: float = 1.0, synapses: float | None = None, seed: int = 1) -> Model:
    """Return the cortical microcircuit of Potjans and Diesmann: 77 169 neurons, 0.3 billion synapses, Poisson drive.

    Four layers of excitatory and inhibitory neurons with exponential currents; weights and delays are normal, redrawn
    while of the wrong sign or shorter than half a step. A reduced network keeps mean and variance of its input by
    weights divided by the square root of ``synapses`` and a constant drive; its correlations, and so its rates, are not
    those of the whole. Source: Potjans and Diesmann, Cerebral Cortex 24, 785 (2014), with NEST's "optimized" initial
    potentials.

    Args:
        scale: Share of the neurons.
        synapses: Share of the synapses a neuron; by default that of the neurons.
        seed: Of synapses and initial potentials.

    Raises:
        InputError: A share is out of range, or the synapses do not fit in memory.
    """
    scale = _check_scale(scale, "microcircuit")
    kept = scale if synapses is None else _check_scale(synapses, "microcircuit: synapses")
    check_integer(seed, "microcircuit: seed", 0, 2**32 - 1)
    tau, tau_syn, _per_pa = 10 * MS, 0.5 * MS, 10.0 / 250.0  # mV of current a pA: tau over 250 pF
    peak = tau * tau_syn / (tau - tau_syn) * math.log(tau / tau_syn)
    rise = tau * tau_syn / (tau - tau_syn) * (math.exp(-peak / tau) - math.exp(-peak / tau_syn)) / tau
    unit = 0.15 / rise  # the current, in mV, whose response has a peak of 0.15 mV: 87.8 pA
    draw = np.random.default_rng(seed)
    full = [Population(name, size, LIF()) for name, size in zip(LAYERS, SIZES, strict=True)]
    totals = [
        [total_for_probability(source, target, p) for source, p in zip(full, row, strict=True)]
        for target, row in zip(full, PROBABILITY, strict=True)
    ]
    populations, initial, stimuli = [], {}, []
    for index, name in enumerate(LAYERS):
        size = round(SIZES[index] * scale)
        mean = sum(totals[index][j] / SIZES[index] * _strength(index, j) * RATES[j] for j in range(8))
        mean += EXTERNAL[index] * BACKGROUND
        lost = tau_syn * (1 - math.sqrt(kept)) * mean * unit  # mV that the weaker mean input lacks
        neuron = ExpCurrentLIF(
            tau_mem=tau, tau_exc=tau_syn, tau_inh=tau_syn, v_threshold=15.0, t_ref=2 * MS, drive=lost / tau
        )
        populations.append(Population(name, size, neuron))
        initial[f"{name}.v"] = draw.normal(V_MEAN[index] + 65.0, V_SD[index], size)
        external = round(EXTERNAL[index] * kept) * BACKGROUND
        stimuli.append(Poisson(name, external, unit / math.sqrt(kept), "exc"))
    projections: list[Projection] = []
    for i, target in enumerate(populations):
        for j, source in enumerate(populations):
            n = round(totals[i][j] * scale * kept)
            if not n:
                continue
            weight = _strength(i, j) * unit / math.sqrt(kept)
            excitatory = j % 2 == 0
            options: Options = {
                "weight": Normal(weight, 0.1 * abs(weight), *((0.0, math.inf) if excitatory else (-math.inf, 0.0))),
                "delay": Normal(1.5 * MS, 0.75 * MS, DT / 2) if excitatory else Normal(0.75 * MS, 0.375 * MS, DT / 2),
                "dt": DT,
                "receptor": "exc" if excitatory else "inh",
                "seed": seed,
            }
            projections.append(fixed_total(source, target, n, **options))
    network = Network(tuple(populations), tuple(projections), (), None, DT)
    return Model(network, initial, tuple(stimuli))


def _strength(target: int, source: int) -> float:
    """Return a mean weight in units of the excitatory one."""
    if source % 2:
        return -4.0
    return 2.0 if (LAYERS[target], LAYERS[source]) == ("L23E", "L4E") else 1.0
