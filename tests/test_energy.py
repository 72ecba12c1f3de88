"""Operations, NeuroBench's metrics and energy, against values counted by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from snnsim.cli.main import run as run_command
from snnsim.energy import TABLES, EnergyTable, estimate_energy, neurobench_metrics
from snnsim.engines import simulate
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.metrics import Operations, footprint
from snnsim.network import Input, Network, Population, Projection, Readout
from snnsim.neurons import LI, LIF

DT = 0.01


def network() -> Network:
    """Three channels, two neurons that fire at once at any input, one integrator; two of nine weights are absent."""
    return Network(
        populations=(
            Population("h", 2, LIF.from_step(dt=DT, beta=0.0, v_threshold=0.5)),
            Population("out", 1, LI.from_step(dt=DT, beta=0.5)),
        ),
        projections=(
            Projection("in", "h", np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])),
            Projection("h", "out", np.array([[1.0, 2.0]])),
        ),
        inputs=(Input("in", 3),),
        readout=Readout("out", "v", "last"),
        dt=DT,
    )


def counted(repeat: int = 1) -> Operations:
    """Two samples of four steps: channel 0 in steps 0 and 1, channel 1 in step 1; channel 2 in step 3."""
    times = [np.repeat([0.0, 0.01, 0.01], repeat), [0.03]]
    units = [np.repeat([0, 0, 1], repeat), [2]]
    events = Events.from_lists(times, units, 3, duration=0.04)
    return simulate(network(), events, n_steps=4).operations


def test_operations_by_type_are_those_counted_by_hand() -> None:
    operations = counted()
    # channel 0: 2 synapses twice, channel 1: 1 synapse once, channel 2: none; neuron 0 fires twice, neuron 1 twice
    assert operations.by_source == {"in": 5, "h": 4}
    assert operations.synaptic_operations == 9
    assert operations.spikes == {"in": 4, "h": 4}
    assert operations.active == {"in": 4, "h": 4}
    assert operations.neuron_steps == {"h": 16, "out": 8}
    assert operations.neuron_updates == 24
    assert operations.dense == 8 * (6 + 2)


def test_metrics_have_the_names_and_definitions_of_neurobench() -> None:
    metrics = neurobench_metrics(network(), counted(), accuracy=0.5)
    assert metrics == {
        "Footprint": footprint(network()).bytes,
        "ConnectionSparsity": pytest.approx(3 / 8),
        "ActivationSparsity": 1 - 4 / 16,
        "SynapticOperations": {"Effective_MACs": 0.0, "Effective_ACs": 4.5, "Dense": 32.0},
        "ClassificationAccuracy": 0.5,
    }
    json.dumps(metrics)


def test_an_input_with_coincident_events_multiplies() -> None:
    operations = counted(repeat=2)
    assert (operations.spikes["in"], operations.active["in"]) == (7, 4)
    found = neurobench_metrics(network(), operations)["SynapticOperations"]
    assert found == {"Effective_MACs": 2.5, "Effective_ACs": 2.0, "Dense": 32.0}


@pytest.mark.parametrize(
    ("table", "parts", "dense"),
    [
        ("cmos45-float32", (9 * 0.9, 24 * 4.6, 0.0), 64 * 4.6),
        ("cmos45-int32", (9 * 0.1, 24 * 3.2, 0.0), 64 * 3.2),
        ("loihi", (9 * 23.6, 24 * 81.0, 4 * 1.7), None),
    ],
)
def test_energy_is_the_sum_counted_by_hand(table: str, parts: tuple[float, ...], dense: float | None) -> None:
    found = estimate_energy(network(), counted(), table)
    wanted = [part * 1e-12 / 2 for part in parts]
    assert [found.synapses, found.updates, found.spikes] == pytest.approx(wanted)
    assert found.total == pytest.approx(sum(wanted))
    if dense is None:
        assert (found.dense, found.ratio) == (None, None)
        assert "dense" not in found.sentence()
    else:
        assert found.dense == pytest.approx(dense * 1e-12 / 2)
        assert found.ratio == pytest.approx(found.dense / found.total)
        assert "dense equivalent" in found.sentence()
    assert TABLES[table].source in found.to_dict()["source"]


def test_a_table_of_ones_own_is_used_and_mistakes_are_refused() -> None:
    own = EnergyTable("own", "measured", 1.0, 2.0, 3.0, None, "")
    assert estimate_energy(network(), counted(), own).total == pytest.approx((9 + 48 + 12) * 1e-12 / 2)
    with pytest.raises(InputError, match="accumulate: expected picojoules from 0, got -1"):
        EnergyTable("own", "measured", -1.0, 2.0, 3.0, None, "")
    with pytest.raises(InputError, match="expected one of cmos45-float32, cmos45-int32, loihi, got 'sun'"):
        estimate_energy(network(), counted(), "sun")
    empty = Operations(0, 0, 0, {}, 0)
    with pytest.raises(InputError, match="no sample was run"):
        estimate_energy(network(), empty, "loihi")
    with pytest.raises(InputError, match="no sample was run"):
        neurobench_metrics(network(), empty)


def test_the_command_needs_the_frozen_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["eval", str(tmp_path), "--energy"]) == 2
    assert "--energy: counts the operations of the frozen network; add --engine clock" in capsys.readouterr().err
