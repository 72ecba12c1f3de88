"""Benchmark networks: their sizes, weights and rates."""

import numpy as np
import pytest

from snnsim.engines import simulate
from snnsim.errors import InputError
from snnsim.metrics import footprint, mean_rates
from snnsim.models import LAYERS, brunel, cuba, microcircuit


def run(model, n_steps, **options):
    return simulate(
        model.network, None, n_steps=n_steps, initial=model.initial, stimuli=model.stimuli, seed=1, **options
    )


def test_cuba_has_the_published_sizes_and_fires_as_published():
    model = cuba(seed=1)
    sizes = [item.size for item in model.network.populations]
    assert sizes == [3200, 800]
    assert abs(sum(item.n_synapses for item in model.network.projections) - 320_000) < 2500
    found = mean_rates(run(model, 5000).spikes, 0.1)
    assert all(4.5 < rate < 7.5 for rate in found.values())


@pytest.mark.parametrize(("g", "eta", "low", "high"), [(5.0, 2.0, 34.0, 41.0), (4.5, 0.9, 3.0, 9.0)])
def test_brunel_regimes(g, eta, low, high):
    model = brunel(g=g, eta=eta, seed=1)
    degree = [item.n_synapses // item.shape[0] for item in model.network.projections]
    assert degree == [1000, 1000, 250, 250]
    assert footprint(model.network).bytes < 2.1 * 15_625_000
    found = mean_rates(run(model, 4000, dtype="float32").spikes, 0.2)
    assert all(low < rate < high for rate in found.values())


def test_a_reduced_microcircuit_fires_as_in_nest():
    """Rates of NEST at a tenth of the neurons and of the synapses a neuron, two seeds."""
    nest = {
        **{"L23E": (0.434, 0.381), "L23I": (2.02, 2.03), "L4E": (4.03, 3.92), "L4I": (4.93, 4.93)},
        **{"L5E": (6.31, 6.76), "L5I": (7.83, 7.65), "L6E": (0.81, 0.86), "L6I": (6.98, 6.97)},
    }
    model = microcircuit(scale=0.1, seed=3)
    assert sum(item.size for item in model.network.populations) == 7717
    assert abs(sum(item.n_synapses for item in model.network.projections) - 2_988_810) < 50
    found = mean_rates(run(model, 25_000, dtype="float32").spikes, 0.5)
    for name in LAYERS:
        assert min(nest[name]) * 0.9 < found[name] < max(nest[name]) * 1.1, name


def test_the_weights_of_the_microcircuit_are_the_published_ones():
    network = microcircuit(scale=0.05, synapses=1.0, seed=2).network
    by_name = {(item.source, item.target): item for item in network.projections}
    unit = 87.80849 * 10.0 / 250.0
    assert abs(np.mean(by_name["L4E", "L4E"].weight.weight) - unit) < 0.01 * unit
    assert abs(np.mean(by_name["L4E", "L23E"].weight.weight) - 2 * unit) < 0.01 * unit
    assert abs(np.mean(by_name["L4I", "L4E"].weight.weight) + 4 * unit) < 0.04 * unit
    assert by_name["L4E", "L4E"].weight.weight.min() >= 0
    assert by_name["L4E", "L4E"].delay.values.min() == 1


@pytest.mark.parametrize("make", [brunel, microcircuit])
def test_a_wrong_scale_is_refused(make):
    for scale in (0, 1.5, "half", True):
        with pytest.raises(InputError, match="scale: expected a number above 0 and at most 1"):
            make(scale=scale)
