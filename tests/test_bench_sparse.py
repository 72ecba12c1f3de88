"""The measurement of sparse layers: tables, break-evens, the command."""

import json

import pytest
from typer.testing import CliRunner

from snnsim.bench.sparse import (
    EVEN_DENSITIES,
    SparseEven,
    format_sparse_evens,
    format_sparse_steps,
    measure_sparse_evens,
    measure_sparse_steps,
)
from snnsim.bench.sparse_layers import LAYER_WAYS, format_layer_steps, measure_layer_steps
from snnsim.cli.bench import app
from snnsim.errors import InputError


def test_where_masks_and_dense_products_take_equally_long() -> None:
    assert SparseEven(1, 1, (0.1, 0.2, 0.4, 0.8, 1.2, 1.5, 2.0)).density == pytest.approx(0.35)
    assert SparseEven(1, 1, (0.1,) * len(EVEN_DENSITIES)).density == EVEN_DENSITIES[-1]
    (row,) = measure_sparse_evens(1, [(40, 30)], rows=50, rounds=1)
    assert len(row.ratios) == len(EVEN_DENSITIES)
    assert min(row.ratios) > 0
    assert "40 -> 30" in format_sparse_evens([row])
    assert json.loads(json.dumps(row.to_json()))["n_out"] == 30


def test_steps_of_a_layer_agree_and_say_what_they_must_do() -> None:
    (row,) = measure_sparse_steps(1, 6, units=64, batch=8, densities=[0.25], rounds=2)
    assert set(row.seconds) == {"dense", "events", "sparse"}
    assert len(row.ratios) == 2
    assert 0 < row.difference < 1e-6
    assert row.operations == pytest.approx(3 * 0.25 * 64 * 64 * 48, rel=0.1)
    assert row.bytes == 6 * 4 * 6 * 8 * 64
    text = format_sparse_steps([row], 6)
    assert "25%" in text
    assert "largest difference of a gradient" in text


def test_the_command_measures_steps() -> None:
    result = CliRunner().invoke(app, ["sparse", "--steps", "2", "--rounds", "1", "--threads", "1", "--json"])
    assert result.exit_code == 0, result.output
    values = json.loads(result.stdout.splitlines()[-1])
    assert [row["density"] for row in values["steps"]] == [0.02, 0.05, 0.1, 0.2]
    assert values["n_steps"] == 2


@pytest.mark.parametrize("layer", ["delay", "recurrent"])
def test_steps_of_delay_and_recurrent_layers_agree(layer: str) -> None:
    (row,) = measure_layer_steps(layer, 1, 20, units=48, batch=6, densities=[0.25], rounds=2)
    assert tuple(row.seconds) == LAYER_WAYS[layer]
    assert len(row.ratios) == 2
    assert 0 < row.difference < 1e-6
    text = format_layer_steps([row], 20)
    assert f"{layer} layer" in text
    assert "25%" in text
    assert json.loads(json.dumps(row.to_json()))["ratio"] > 0
    with pytest.raises(InputError, match="expected a layer linear, delay, recurrent, got 'conv'"):
        measure_layer_steps("conv", 1, 2)
