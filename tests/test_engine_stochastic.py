"""Neurons that draw random numbers: the clock engine against the definition, and what needs no draws against LIF."""

import numpy as np
import pytest

from snnsim.engines import simulate
from snnsim.engines.clock import ClockRunner
from snnsim.engines.clock_plan import make_layout
from snnsim.engines.stochastic import synapse_words
from snnsim.errors import InputError
from snnsim.events import Events, replace_fields
from snnsim.kernels.philox import Stream, philox4x32, uniform
from snnsim.kernels.reference_stochastic import (
    firing_probability,
    release_numbers,
)
from snnsim.kernels.reference_stochastic import (
    synapse_words as reference_words,
)
from snnsim.network import Input, Network, Population, Projection, Readout, Sparse
from snnsim.neurons import LI, LIF, LevyBaxter, MetaNeuron
from snnsim.neurons_stochastic import binary_entropy, mutual_information, optimal_failure
from snnsim.plasticity import PairSTDP
from snnsim.stimuli import Current, Poisson

DT = 2.0**-10
SIZES = {"in": 6, "a": 20, "b": 18}


def make_meta(rng, size, own=True, **changes):
    def draw(low, high):
        return rng.uniform(low, high, size) if own else (low + high) / 2

    values = {
        "tau_mem": draw(0.005, 0.02),
        "v_threshold": draw(0.8, 1.2),
        "v_reset": draw(-0.2, 0.2),
        "drive": draw(0, 40),
        "t_ref": (rng.integers(0, 3, size) if own else 1) * DT,
        "release": draw(0.3, 1.0),
        "amplitude": draw(0.0, 1.0),
        "temperature": draw(0.05, 0.3) * (rng.random(size) < 0.7 if own else 1),
    }
    return MetaNeuron(**(values | changes))


def make_network(rng, first, second, low=1):
    """Two populations with dense and sparse projections in both directions, parallel synapses and own delays."""
    projections = [Projection("in", "a", rng.normal(0.3, 0.4, (20, 6)), delay=0.0)]
    projections.append(Projection("a", "b", rng.normal(0.2, 0.4, (18, 20)), delay=rng.integers(low, 4, (1, 20)) * DT))
    projections.append(Projection("in", "a", rng.normal(0.1, 0.3, (20, 6)), rng.integers(low, 3, (20, 6)) * DT))
    source, target = rng.integers(0, 18, 90), rng.integers(0, 20, 90)
    source[:6], target[:6] = 3, 5
    sparse = Sparse.from_triples(source, target, rng.normal(0.1, 0.5, 90), (20, 18))
    projections.append(Projection("b", "a", sparse, rng.integers(1, 5, 90) * DT))
    return Network(
        (Population("a", 20, first), Population("b", 18, second), Population("out", 3, LI(0.01))),
        (*projections, Projection("b", "out", rng.normal(0, 1, (3, 18)))),
        (Input("in", 6),),
        Readout("out", "v", "mean"),
        DT,
    )


def trains(rng, n=3, steps=40, ids=(7, 2, 11)):
    times, units = [], []
    for _ in range(n):
        count = 160
        times.append(np.sort(rng.integers(0, steps, count)) * DT)
        units.append(rng.integers(0, 6, count))
    events = Events.from_lists(times, units, 6, duration=steps * DT, sort=True)
    return replace_fields(events, sample_ids=np.array(ids[:n], np.int64))


def same(one, two):
    for name in one.spikes:
        assert np.array_equal(one.spikes[name].times, two.spikes[name].times), name
        assert np.array_equal(one.spikes[name].units, two.spikes[name].units), name
    for name, traces in one.records.items():
        for a, b in zip(traces, two.records[name], strict=True):
            assert np.array_equal(a, b), name


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_clock_engine_is_the_definition(dtype, own, reset):
    rng = np.random.default_rng(3)
    second = LevyBaxter(v_threshold=0.4, release=0.7, drive=20.0)
    network = make_network(rng, make_meta(rng, 20, own, reset=reset), second)
    events = trains(rng)
    stimuli = (Poisson("a", 200.0, 0.2), Current("a", 10.0, 0.005))
    options = {"record": ("a.v", "b.v"), "dtype": dtype, "seed": 5, "stimuli": stimuli}
    ours = simulate(network, events, engine="clock", threads=1, **options)
    defined = simulate(network, events, engine="reference", **options)
    assert ours.spikes["a"].n_events > 100 and ours.spikes["b"].n_events > 100
    same(ours, defined)
    assert np.array_equal(ours.logits, defined.logits)
