"""What simulate refuses, and with which words."""

import numpy as np
import pytest
from test_engine_clock import DT
from test_engine_simulate import busy

from snnsim.engines import ENGINES, grid_inputs, simulate
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.machine import usable_cores
from snnsim.network import Input, Network, Population, Projection
from snnsim.neurons import LI, LIF


def _call(**options):
    network, events = busy()
    return simulate(network, options.pop("events", events), **options)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"engine": "warp"}, "engine: expected one of \\['clock', 'cuda', 'event', 'event-grid', 'reference'"),
        ({"dtype": "float16"}, "expected 'float64' or 'float32'"),
        ({"threads": 0}, "threads: expected a positive integer"),
        ({"batch": 1.5}, "batch: expected a positive integer"),
        ({"tail_steps": -1}, "tail_steps: expected a non-negative"),
        ({"n_steps": -1}, "n_steps: expected non-negative"),
        ({"n_steps": [1, 2]}, "expected an integer or one a sample"),
        ({"n_steps": 1.5}, "n_steps: expected an integer"),
        ({"record": "a"}, "expected 'population.variable'"),
        ({"record": "z.v"}, "no population 'z'"),
        ({"record": "out.i"}, "LI has the variables v, not 'i'"),
        ({"record": "a.w"}, "CubaLIF has the variables v, i, not 'w'"),
        ({"events": None}, "expected Events for the inputs \\['in'\\], got \\[\\]"),
        ({"events": {"in": 3}}, "expected Events, got int"),
        ({"events": Events.from_lists([[]], [[]], 5, duration=0.1)}, "has 6 units, its events have 5"),
        ({"dt": -1}, "dt: expected a positive"),
    ],
)
def test_refusals(options, match):
    with pytest.raises(InputError, match=match):
        _call(**options)


def test_refusals_of_states_and_missing_steps():
    network, events = busy()
    state = simulate(network, events).state
    with pytest.raises(InputError, match="another network, dtype or engine"):
        simulate(network, events, state=state, dtype="float32")
    with pytest.raises(InputError, match="holds 7 samples, the events 2"):
        simulate(network, events.subset([0, 1]), state=state)
    alone_net = Network((Population("n", 1, LIF()),), (), (), None, DT)
    with pytest.raises(InputError, match="the number of steps must be given"):
        simulate(alone_net, None)
    with pytest.raises(InputError, match="no readout"):
        _ = simulate(alone_net, None, n_steps=1).predictions
    two = network.replace(inputs=(Input("in", 6), Input("other", 2)))
    with pytest.raises(InputError, match="pass a dict"):
        simulate(two, events)
    other = Events.from_lists([[]], [[]], 2, duration=0.1)
    with pytest.raises(InputError, match="different numbers of samples \\[1, 7\\]"):
        simulate(two, {"in": events, "other": other})
    with pytest.raises(InputError, match="cannot go on"):
        ENGINES["reference"]().prepare(network, "float64", 1).run(grid_inputs(network, events), state=state)


def test_absurd_delays_are_refused_before_memory_is_taken():
    network = Network(
        (Population("n", 100, LI()),),
        (Projection("in", "n", np.ones((100, 1)), 1000.0),),
        (Input("in", 1),),
        None,
        1e-6,
    )
    with pytest.raises(InputError, match="GiB a sample"):
        simulate(network, Events.from_lists([[0.0]], [[0]], 1, duration=1e-5))


def test_threads_available():
    assert usable_cores() >= 1
