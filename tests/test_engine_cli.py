"""`snnsim simulate` and `snnsim inspect`: what they print, compare, write and refuse."""

import json

import numpy as np
import pytest

from snnsim.cli.main import run
from snnsim.cli.output import KEYS
from snnsim.datasets.heidelberg import write_heidelberg
from snnsim.engines import simulate
from snnsim.engines.spike_file import compare_spikes, load_spikes, save_spikes
from snnsim.errors import InputError, SnnsimFileError
from snnsim.events import Events
from snnsim.network import Input, Network, Population, Projection, Readout, Sparse
from snnsim.neurons import LI, LIF
from snnsim.sealed import list_array, save_sealed

DT = 0.002


def make_events(n_samples=6, n_units=8):
    rng = np.random.default_rng(0)
    times = [np.sort(rng.integers(0, 50, 60)) * DT for _ in range(n_samples)]
    units = [rng.integers(0, n_units, 60) for _ in range(n_samples)]
    return Events.from_lists(times, units, n_units, np.arange(n_samples) % 2, 0.1, class_names=("no", "yes"))


def make_network(n_units=8, **changes):
    rng = np.random.default_rng(1)
    sparse = Sparse.from_triples([0, 1, 1, 4], [0, 1, 0, 1], [0.5, 0.25, -1, 1], (2, 5))
    parts = {
        "populations": (
            Population("hidden", 5, LIF.from_step(dt=DT, beta=0.8, drive_step=rng.uniform(0, 0.05, 5), strict=True)),
            Population("out", 2, LI(tau_mem=0.01), 1, 60),
        ),
        "projections": (
            Projection("in", "hidden", rng.normal(0.3, 0.5, (5, n_units)), rng.integers(0, 5, (5, n_units)) * DT),
            Projection("hidden", "out", sparse, DT),
        ),
        "inputs": (Input("in", n_units),),
        "readout": Readout("out", skip_steps=2),
        "dt": DT,
        "notes": {"frozen": ["first sentence", "second sentence"], "tail_steps": 4},
    }
    return Network(**{**parts, **changes})


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setenv("SNNSIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    make_network().save("net.snn.h5")
    write_heidelberg("set.h5", make_events())
    return tmp_path


def call(capsys, *words):
    status = run([str(word) for word in words])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_simulate_prints_what_the_python_call_gives(files, capsys):
    status, out, _ = call(capsys, "simulate", "net.snn.h5", "--events", "set.h5", "--json")
    assert status == 0
    values = json.loads(out)
    assert list(values)[: len(KEYS)] == list(KEYS)
    result = simulate(make_network(), make_events(), tail_steps=4)
    assert values["accuracy"] == float(np.mean(result.predictions == make_events().labels))
    assert values["n_samples"] == 6
    assert values["engine"] == "clock"
    assert values["spikes"] == result.operations.spikes["hidden"] / 6
    assert values["synaptic_operations"] == result.operations.synaptic_operations / 6
    assert values["steps"] == 6 * 54
    assert values["mismatches"] is None
    status, text, _ = call(capsys, "simulate", "net.snn.h5", "--events", "set.h5")
    assert status == 0
    assert f"accuracy: {100 * values['accuracy']:.2f} %" in text
    assert "hidden" in text
    assert "synaptic operations a sample" in text


def test_simulate_compares_with_another_engine(files, capsys):
    words = ["simulate", "net.snn.h5", "--events", "set.h5", "--compare", "reference", "--samples", 2, "--json"]
    status, out, _ = call(capsys, *words)
    values = json.loads(out)
    assert status == 0
    assert (values["mismatches"], values["compared"]) == (0, 2 * 54 * 5)
    assert values["first_mismatch"] is None


def test_simulate_compares_with_a_file_and_names_the_first_difference(files, capsys):
    words = ["simulate", "net.snn.h5", "--events", "set.h5"]
    assert call(capsys, *words, "--out", "spikes.h5")[0] == 0
    assert call(capsys, *words, "--compare", "spikes.h5")[0] == 0
    network = make_network()
    first = network.projections[0]
    delay = first.delay.copy()
    delay[1, 1] += DT
    changed = network.replace(projections=(Projection("in", "hidden", first.weight, delay), network.projections[1]))
    changed.save("changed.snn.h5")
    status, out, _ = call(capsys, "simulate", "changed.snn.h5", *words[2:], "--compare", "spikes.h5")
    assert status == 1
    assert "neuron-steps differ" in out
    assert "'hidden' neuron 1" in out


def test_simulate_pools_channels_and_aligns(files, capsys):
    make_network(n_units=4).save("pooled.snn.h5")
    status, out, _ = call(capsys, "simulate", "pooled.snn.h5", "--events", "set.h5", "--json")
    assert status == 0
    assert json.loads(out)["input_events"] == 60
    words = ["simulate", "net.snn.h5", "--events", "set.h5", "--align", "first-spike", "--tail-steps", 0, "--json"]
    assert json.loads(call(capsys, *words)[1])["steps"] < 6 * 50


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nothing.snn.h5"], "nothing.snn.h5: cannot be read"),
        (["set.h5"], "is not a snnsim network file"),
        (["."], "expected a run folder"),
        (["net.snn.h5", "--engine", "warp"], "--engine: expected one of clock"),
        (["net.snn.h5", "--compare", "warp"], "--compare: expected one of clock"),
        (["net.snn.h5", "--compare", "set.h5"], "is not a snnsim spikes file"),
        (["net.snn.h5", "--split", "valid"], "has no valid part, only train"),
        (["net.snn.h5", "--samples", "0"], "Invalid value for '--samples'"),
        (["wide.snn.h5"], "has 8 channels, the network 30"),
        (["two.snn.h5"], "the network has 2 inputs"),
    ],
)
def test_mistakes_are_one_sentence_and_status_2(files, capsys, words, sentence):
    make_network(n_units=30).save("wide.snn.h5")
    make_network(inputs=(Input("in", 8), Input("more", 1))).save("two.snn.h5")
    status, out, err = call(capsys, "simulate", *words, "--events", "set.h5")
    assert status == 2
    assert sentence in err
    assert out == ""
    assert "Traceback" not in err


def test_inspect_shows_every_part_of_a_network(files, capsys):
    status, out, _ = call(capsys, "inspect", "net.snn.h5")
    assert status == 0
    for text in (
        "input       in  8 units",
        "population  hidden  5 LIF",
        "v > 1",
        "steps 1 to 59",
        "projection  in->hidden  dense 5 x 8, 40 synapses",
        "one a synapse",
        "sparse 2 x 5, 4 synapses",
        "readout     sum_softmax of out.v, first 2 steps left out",
        "7 neurons, 44 synapses",
        "note        frozen: second sentence",
        "note        tail_steps: 4",
    ):
        assert text in out
    status, out, _ = call(capsys, "inspect", "net.snn.h5", "--json")
    values = json.loads(out)
    assert values["digest"] == make_network().digest()
    assert values["footprint"]["synapses"] == 44
    assert values["projections"][1]["delay_steps_max"] == 1
    assert values["populations"][0]["neuron"] == "LIF"


def test_inspect_of_data_is_data_info(files, capsys):
    assert call(capsys, "inspect", "set.h5")[1] == call(capsys, "data", "info", "set.h5")[1]


def test_inspect_refuses_what_is_not_there(files, capsys):
    for name in ("nothing.snn.h5", "nothing/at/all", "junk.snn.h5"):
        (files / "junk.snn.h5").write_bytes(b"junk")
        status, out, err = call(capsys, "inspect", name)
        assert (status, out) == (2, "")
        assert name in err


def test_spike_files_come_back_equal(files):
    result = simulate(make_network(), make_events())
    path = save_spikes(result, "out.h5", dt=DT, network=make_network().digest())
    stored = load_spikes(path)
    assert stored.dt == DT
    assert stored.network == make_network().digest()
    assert stored.n_steps.tolist() == result.n_steps.tolist()
    assert stored.spikes["hidden"].times.tobytes() == result.spikes["hidden"].times.tobytes()
    again = save_spikes(result, "again.h5", dt=DT, network=make_network().digest())
    assert again.read_bytes() == path.read_bytes()


def _manifest(**changes):
    arrays, listed = [], []
    columns = {
        "times": np.array([0.0]),
        "units": np.array([0], np.int32),
        "offsets": np.array([0, 1]),
        "labels": np.array([-1]),
        "duration": np.array([0.1]),
        "sample_ids": np.array([0]),
    }
    record = {"name": "n", "size": 1, **{key: list_array(value, arrays, listed) for key, value in columns.items()}}
    manifest = {
        "format": "snnsim spikes",
        "schema": 1,
        "dt": 0.1,
        "network": "",
        "n_steps": list_array(np.array([1]), arrays, listed),
        "populations": [record],
        "arrays": listed,
    }
    record.update(changes.pop("record", {}))
    return {**manifest, **changes}, arrays


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"record": {"size": 0}}, "n_units: expected 1"),
        ({"record": {"size": "1"}}, "size: expected int, got str"),
        ({"record": {"times": 3}}, "times: expected dict"),
        ({"record": {"times": {"array": 2}}}, "Events"),
        ({"record": {"extra": 3}}, "extra: is not known"),
        ({"n_steps": {"array": 0}}, "expected one integer a sample"),
        ({"n_steps": {"array": 2}}, "expected 2 samples, got 1"),
        ({"dt": "x"}, "dt: expected"),
        ({"populations": [3]}, "expected an object"),
    ],
)
def test_bad_spike_files(tmp_path, changes, match):
    path = save_sealed(tmp_path / "bad.h5", *_manifest(**changes))
    with pytest.raises(SnnsimFileError, match=match):
        load_spikes(path)


def test_spikes_of_different_runs_are_not_compared():
    one = simulate(make_network(), make_events())
    steps = {"dt": DT, "n_steps": one.n_steps}
    with pytest.raises(InputError, match="populations"):
        compare_spikes(one.spikes, {}, **steps)
    with pytest.raises(InputError, match="time steps of"):
        compare_spikes(one.spikes, one.spikes, **steps, other_dt=0.001)
    with pytest.raises(InputError, match="same tail steps"):
        compare_spikes(one.spikes, one.spikes, **steps, other_n_steps=one.n_steps + 1)
    with pytest.raises(InputError, match="5 and 4 neurons"):
        compare_spikes(one.spikes, {"hidden": Events.from_lists([[]], [[]], 4)}, **steps)
    with pytest.raises(InputError, match="beyond the steps"):
        compare_spikes(one.spikes, one.spikes, dt=DT, n_steps=one.n_steps // 2)


def test_a_run_folder_is_simulated_as_it_was_evaluated(files, capsys):
    from snnsim.datasets import open_dataset
    from snnsim.recipes import load_recipe
    from snnsim.training import evaluate, load_run, train

    small = ["model.hidden=[8, 8]", "model.connection.max_delay=0.12", "train.epochs=1"]
    small += ["train.batch_size=64", "train.weights.schedule.unit=batch"]
    train(load_recipe("shd-dcls", small), open_dataset("toy"), "first", seed=1)
    before = load_run("first").manifest["test_run_count"]
    status, out, _ = call(capsys, "simulate", "first", "--events", "toy", "--json")
    values = json.loads(out)
    assert status == 0
    expected = evaluate(load_run("first"), open_dataset("toy"), engine="clock")
    assert values["accuracy"] == expected.accuracy
    assert values["synaptic_operations"] == expected.synaptic_operations
    assert load_run("first").manifest["test_run_count"] == before + 2
    status, _, err = call(capsys, "simulate", "first", "--events", "toy", "--align", "zero")
    assert (status, "recipe says" in err) == (2, True)
    status, out, _ = call(capsys, "inspect", "first")
    assert status == 0
    assert "seed 1, data 'toy'" in out
    assert "finished" in out
