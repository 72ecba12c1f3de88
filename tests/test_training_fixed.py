"""Training on the grid of ``fixed8``: the quantiser finds the trained integers, and bits make room where needed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snnsim.datasets import open_dataset
from snnsim.errors import InputError
from snnsim.network import Network
from snnsim.quantize import quantize
from snnsim.recipes import apply_changes, recipe_from_dict
from snnsim.training import load_run, train

SPEC: dict[str, Any] = {
    "name": "tiny",
    "summary": "x",
    "data": {"dt": 0.005, "channels": None, "align": "zero"},
    "model": {"hidden": [12, 12], "connection": {"max_delay": 0.04}, "neuron": {"tau_mem": 0.02}},
    "train": {"epochs": 2, "batch_size": 20, "weights": {"lr": 0.01}, "positions": {"lr": 0.01}},
}
CURRENT = ["model.neuron.kind=cubalif", "model.neuron.tau_syn=0.01", "model.readout.reduce=mean"]


def trained(changes: list[str], folder: Path) -> tuple[Network, Network]:
    """Train from scratch, then on the grid; return both frozen networks."""
    data = open_dataset("toy")
    train(recipe_from_dict(apply_changes(SPEC, changes)), data, folder / "first")
    fine = [*changes, 'quantize.profile="fixed8"', "quantize.samples=16", "train.epochs=1"]
    train(recipe_from_dict(apply_changes(SPEC, fine)), data, folder / "fine", start=load_run(folder / "first"))
    return load_run(folder / "first").network("last"), load_run(folder / "fine").network("last")


@pytest.mark.parametrize("changes", [[], CURRENT], ids=["lif", "cubalif"])
def test_the_trained_integers_are_those_of_the_quantiser(changes: list[str], tmp_path: Path) -> None:
    first, network = trained(changes, tmp_path)
    integer, report = quantize(network, "fixed8")
    note = network.notes["quantize"]
    for layer in report.layers:
        assert layer.weight_error < 1e-6
        assert layer.saturated == 0
        assert layer.bias_error < 1e-6
        assert np.abs(layer.beta_error).max() < 1e-12
        assert layer.unit is not None
        np.testing.assert_allclose(layer.unit, note["units"][layer.population])
        bits = np.log2(np.asarray(note["scales"][layer.population]) / integer.scale[layer.population])
        assert np.array_equal(bits, np.full(bits.shape, bits[0]))  # fewer fractional bits, or the same
        assert bits[0] >= 0
    assert any("trained for" in item for item in report.changes)
    before = quantize(first, "fixed8")[1]
    assert min(layer.weight_error for layer in before.layers) > 1e-4  # without training the grid is missed


def test_notes_without_units_are_refused(tmp_path: Path) -> None:
    _, network = trained([], tmp_path)
    note = {key: value for key, value in network.notes["quantize"].items() if key != "units"}
    old = network.replace(notes={**network.notes, "quantize": note})
    with pytest.raises(InputError, match="do not say what an integer weight of population 'hidden1' is worth"):
        quantize(old, "fixed8")
    note["units"] = {"hidden1": [1.0]}
    broken = network.replace(notes={**network.notes, "quantize": note})
    with pytest.raises(InputError, match="expected 12 positive units, got 1"):
        quantize(broken, "fixed8")


def test_a_stored_recipe_takes_a_table_that_it_has_not() -> None:
    assert apply_changes({"quantize": None}, ["quantize.profile=fixed8"]) == {"quantize": {"profile": "fixed8"}}
