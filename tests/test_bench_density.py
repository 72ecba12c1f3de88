"""The measurement of pruned networks in the engines, and that they have the spikes of the masked dense network."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from snnsim.bench.density import DensityCurve, DensityPoint, Kind, format_density, make_pruned, measure_density
from snnsim.bench.resident import prepared, random_events
from snnsim.cli.bench import app
from snnsim.errors import InputError
from snnsim.network import Network, Projection, Sparse


def masked_dense(network: Network) -> Network:
    """Return a network of dense matrices in which missing synapses have weight 0."""
    projections = []
    for item in network.projections:
        if not isinstance(item.weight, Sparse):
            projections.append(item)
            continue
        s = item.synapses(network.dt)
        source = np.repeat(np.arange(item.shape[1]), np.diff(s.indptr))
        weight, delay = np.zeros(item.shape), np.zeros(item.shape)
        weight[s.target, source], delay[s.target, source] = s.weight, s.delay_steps * network.dt
        projections.append(Projection(item.source, item.target, weight, delay if delay.any() else 0.0))
    return network.replace(projections=tuple(projections))


@pytest.mark.parametrize("kind", ["lif", "cuba", "delays"])
@pytest.mark.parametrize("engine", ["clock", "event-grid", "event"])
def test_a_pruned_network_has_the_spikes_of_the_masked_dense_one(kind: Kind, engine: str) -> None:
    network = make_pruned(kind, 0.1, 48, weight=3.0 if kind == "cuba" else 0.8)
    silent = make_pruned(kind, 0.0, 48)
    found = {}
    for name, item in {"pruned": network, "dense": masked_dense(network), "none": silent}.items():
        runner, inputs = prepared(item, engine, 120)
        found[name] = runner.run(inputs).spikes
    for layer in ("hidden1", "hidden2"):
        np.testing.assert_array_equal(found["pruned"][layer].times, found["dense"][layer].times)
        np.testing.assert_array_equal(found["pruned"][layer].units, found["dense"][layer].units)
        assert found["pruned"][layer].times.shape[0] > 50
        assert not np.array_equal(found["pruned"][layer].times, found["none"][layer].times)  # synapses matter


def test_masks_change_no_spike_of_the_measured_networks_and_all_that_exists_is_counted() -> None:
    (curve,) = measure_density(["lif"], ["clock"], units=32, steps=40, rounds=2, memory=False)
    whole, full, half, *_, none = curve.points
    assert whole.density == -1
    assert whole.synapses == full.synapses == 2 * 32 * 32
    assert none.synapses == 0
    assert half.synapses == pytest.approx(1024, rel=0.1)
    assert half.network_bytes - none.network_bytes == pytest.approx(full.network_bytes / 2, rel=0.1)
    assert full.events > half.events > none.events
    assert "no mask" in format_density([curve])
    with pytest.raises(InputError, match="densities: expected 1 among them"):
        measure_density(["lif"], densities=(0.5,), units=8, steps=4)
    with pytest.raises(InputError, match="engines: expected some of clock, event-grid, event, got 'cuda'"):
        measure_density(["lif"], ["cuda"], units=8, steps=4)


def test_shares_a_synapse_are_those_of_what_goes_beyond_the_network_without_any() -> None:
    points = [
        DensityPoint(1.0, 100, 1000, (1.2, 1.1), 1000, 2100),
        DensityPoint(0.5, 50, 500, (0.7, 0.6), 500, 1100),
        DensityPoint(0.0, 0, 0, (0.1, 0.2), 0, 100),
    ]
    curve = DensityCurve("lif", "clock", tuple(points))
    assert curve.ratios(points[1]) == pytest.approx({"time": 1.0, "network": 1.0, "resident": 1.0})
    assert curve.synaptic(points[0]) == pytest.approx(1.0)


def test_the_command_measures() -> None:
    size = ["--units", "16", "--steps", "10", "--rounds", "1", "--no-memory", "--json"]
    result = CliRunner().invoke(app, ["density", "lif", "--engine", "clock", *size])
    assert result.exit_code == 0, result.output
    (curve,) = json.loads(result.stdout.splitlines()[-1])["curves"]
    assert [item["density"] for item in curve["points"]] == [-1.0, 1.0, 0.5, 0.25, 0.1, 0.05, 0.0]
    wrong = CliRunner().invoke(app, ["density", "izhikevich"])
    assert isinstance(wrong.exception, InputError)
    assert random_events(3, 2000, 0.001).n_units == 3


@pytest.mark.slow
def test_memory_follows_the_synapses() -> None:
    (curve,) = measure_density(["delays"], ["clock"], units=512, steps=10, rounds=1, densities=(1.0, 0.25))
    _, full, quarter, none = curve.points
    assert full.resident_bytes > quarter.resident_bytes > none.resident_bytes
    assert 0.8 < curve.ratios(quarter)["resident"] < 1.2
