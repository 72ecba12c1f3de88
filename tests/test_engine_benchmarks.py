"""Benchmark networks of the literature whose spikes other simulators gave."""

import itertools

import numpy as np
import pytest

from snnsim.engines import simulate
from snnsim.events import Events
from snnsim.network import Input, Network, Population, Projection
from snnsim.neurons import LIF

SIZES = (700, 256, 256, 20)
STEPS = 1000
MS = 0.001


def shd_style() -> tuple[Network, Events]:
    """A dense feed-forward network with a delay of 1 to 26 ms a synapse, and its 7729 input spikes."""
    rng = np.random.default_rng(3)
    moments = ((0.007, 0.042), (0.005, 0.08), (0.02, 0.09))
    pairs = list(itertools.pairwise(SIZES))
    weights = [rng.normal(mean, sd, pair) for (mean, sd), pair in zip(moments, pairs, strict=True)]
    delays = [rng.integers(1, 27, pair) for pair in pairs]
    share = rng.gamma(0.5, 1, SIZES[0])
    channel = rng.choice(SIZES[0], 8000, p=share / share.sum())
    step = np.clip(rng.normal(400, 220, 8000), 1, 940).astype(int)
    step, channel = np.unique(np.stack([step, channel]), axis=1)
    names = ("in", "a", "b", "c")
    neuron = LIF(tau_mem=10 * MS)
    network = Network(
        tuple(Population(name, size, neuron) for name, size in zip(names[1:], SIZES[1:], strict=True)),
        tuple(
            Projection(names[k], names[k + 1], np.round(weights[k], 6).T, MS * delays[k].T.astype(float))
            for k in range(3)
        ),
        (Input("in", SIZES[0]),),
        None,
        MS,
    )
    events = Events.from_lists([step * MS], [channel], n_units=SIZES[0], duration=STEPS * MS)
    return network, events


@pytest.mark.parametrize("threads", [1, 2])
def test_shd_style_network_has_the_spikes_of_nest_and_brian2(threads: int) -> None:
    network, events = shd_style()
    assert len(events.times) == 7729
    assert [round(float(np.sum(item.weight)), 6) for item in network.projections] == [
        1261.754163,
        328.004036,
        99.876811,
    ]
    result = simulate(network, events, threads=threads)
    assert [len(result.spikes[name].times) for name in ("a", "b", "c")] == [5191, 3995, 1199]
