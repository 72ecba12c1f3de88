"""The event engine on the grid: every spike of the clock engine on a frozen delay network, in a proof that counts."""

import numpy as np
import pytest
from test_bridge_proof import delay_model

from snnsim.engines import simulate
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.export.proof import MIN_NEURON_STEPS, MIN_SPIKES
from snnsim.network import Input, Network, Population, Projection
from snnsim.neurons import LIF
from snnsim.nn.freeze import freeze

DT = 0.01


def frozen(hidden: int = 128) -> Network:
    return freeze(delay_model(20, hidden))


def inputs(n_samples: int, rate: float, n_steps: int = 100) -> Events:
    draw = np.random.default_rng(5)
    times, units = [], []
    for _ in range(n_samples):
        step, unit = np.nonzero(draw.random((n_steps, 20)) < rate)
        times.append(step * DT)
        units.append(unit)
    return Events.from_lists(times, units, n_units=20, duration=n_steps * DT)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_no_spike_differs_on_a_frozen_delay_network(dtype: str) -> None:
    network, events = frozen(), inputs(200, 0.3)
    assert {item.neuron.step(item.size, DT).drive_step.std() > 0 for item in network.populations[:2]} == {True}
    clock = simulate(network, events, tail_steps=12, dtype=dtype)  # type: ignore[arg-type]
    grid = simulate(network, events, tail_steps=12, engine="event", resolution=DT, dtype=dtype)  # type: ignore[arg-type]
    assert clock.operations.neuron_updates > MIN_NEURON_STEPS
    for name, spikes in clock.spikes.items():
        assert len(spikes.times) > MIN_SPIKES
        assert grid.spikes[name] == spikes
    assert clock.logits is not None
    assert grid.logits is not None
    assert grid.logits.tobytes() == clock.logits.tobytes()
    assert grid.engine == "event-grid"


@pytest.mark.parametrize("change", ["weight", "delay", "reset"])
def test_the_proof_notices_one_wrong_number(change: str) -> None:
    network, events = frozen(32), inputs(20, 0.3)
    right = simulate(network, events, engine="event", resolution=DT)
    projections, populations = list(network.projections), list(network.populations)
    first = projections[0]
    weight, delay = np.array(first.weight), np.broadcast_to(np.array(first.delay), first.shape).copy()
    place = np.unravel_index(np.argmax(np.abs(weight)), weight.shape)
    if change == "weight":
        weight[place] *= -1
    elif change == "delay":
        delay[place] += 3 * DT
    else:
        item = populations[0]
        populations[0] = Population(item.name, item.size, item.neuron.replace(v_reset=-0.3))
    projections[0] = Projection(first.source, first.target, weight, delay)
    wrong = network.replace(projections=tuple(projections), populations=tuple(populations))
    assert simulate(wrong, events).spikes != right.spikes


def test_only_who_hears_something_is_moved() -> None:
    """One spike reaches one neuron: its block of 64 is moved on then, and everybody once at the beginning."""
    n = 1000
    weight = np.zeros((n, 1))
    weight[130] = 0.5
    neuron = LIF(tau_mem=0.02)
    network = Network(
        (Population("n", n, neuron),), (Projection("in", "n", weight, 0.003),), (Input("in", 1),), None, 0.001
    )
    events = Events.from_lists([[0.1, 0.2]], [[0, 0]], 1, duration=3.0)
    result = simulate(network, events, engine="event", resolution=0.001)
    assert result.notes["moved"] == n + 2 * 64
    assert result.operations == simulate(network, events).operations


def test_another_resolution_is_refused() -> None:
    network = frozen(8)
    with pytest.raises(InputError, match=r"resolution: expected None .continuous time. or the network's dt = 0\.01 s"):
        simulate(network, inputs(1, 0.1), engine="event", resolution=0.001)
    with pytest.raises(InputError, match="resolution: expected None with engine 'clock'"):
        simulate(network, inputs(1, 0.1), resolution=DT)
