"""The race of the integer engine with Lava: its network, its table, and what it says without Lava."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from snnsim.bench.integer import IntegerRace, chain, format_integer
from snnsim.cli.bench import app
from snnsim.export.lava import write_lava
from snnsim.export.lava_read import read_lava


def test_the_chain_is_one_that_lava_holds(tmp_path: Path) -> None:
    network = chain()
    write_lava(network, tmp_path / "chain.net")
    again = read_lava(tmp_path / "chain.net")
    for one, two in zip(network.projections, again.projections, strict=True):
        for name in ("indptr", "unit", "weight", "delay"):
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    assert max(int(item.delay.max()) for item in network.projections) == 63


def test_ratios_are_medians_of_turns() -> None:
    race = IntegerRace(2, 100, (4.0, 2.0, 3.0), (0.01, 0.02, 0.03), (0.1, 0.1, 0.1), 300, 0, 17, ("lava-nc 0",))
    values = race.to_json()
    assert values["ratio"] == pytest.approx(30)
    assert values["step_ratio"] == pytest.approx(20)
    text = format_integer(race)
    assert "30 x ours (20-40)" in text
    assert "20 x ours (10-30)" in text
    assert "0 of 300 neuron-steps differ" in text


def test_without_lava_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import snnsim.export.oracle as oracle

    missing = oracle.Oracle(
        "lava", "lava_runner.py", ("no_such_module",), "Lava's fixed-point simulator", "make lava-env"
    )
    monkeypatch.setitem(oracle.ORACLES, "lava", missing)
    result = CliRunner().invoke(app, ["integer", "--rounds", "1"])
    assert result.exit_code != 0
    assert "Lava's fixed-point simulator is not installed" in str(result.exception)
