"""Simulations side by side: the same networks, equal counts where they must be, no ratio where the work differs."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snnsim.bench import worker
from snnsim.bench.networks import brunel, build_net, cuba, stream
from snnsim.bench.pairs import Comparison, Side, compare
from snnsim.bench.peers.ours import build, frozen
from snnsim.bench.sim_floor import Limits, measure_limits
from snnsim.bench.sim_scaling import CURVES, format_curve, measure_curve, points_of, tau_for
from snnsim.bench.sim_table import equal_turns, format_simulation, mean_rate, refusal, simulation_to_json
from snnsim.bench.sim_tasks import SIM_TASKS, SimTask, choose_sim_tasks
from snnsim.cli.main import run
from snnsim.engines import simulate
from snnsim.errors import InputError

SMALL = {
    "cuba": replace(SIM_TASKS["cuba"], sizes=(400, 40), n_steps=300, turn=2),
    "brunel": replace(SIM_TASKS["brunel-constant"], sizes=(300, 50), n_steps=300, turn=2),
    "stream": replace(SIM_TASKS["shd-stream"], sizes=(60, 30, 30, 10), n_steps=120, expected=()),
}
LIMITS = Limits(1, 1e9, 1e9, 2, 16)


def facts(spikes: list[int], seconds: float = 1.0, stretches: int = 1) -> dict[str, Any]:
    return {"seconds": seconds, "spikes": spikes, "events": 10 * sum(spikes), "stretches": stretches}


def sides(task: SimTask, ours: list[int], peer: list[int]) -> Comparison[SimTask]:
    made = [
        Side(name, (seconds, seconds), 1 << 20, {}, first=facts(counts), turns=(facts(counts, seconds),) * 2)
        for name, counts, seconds in (("ours", ours, 1.0), ("nest", peer, 3.0))
    ]
    return Comparison(task, tuple(made))


def test_the_fixtures_are_the_published_ones() -> None:
    net = cuba(4000, 80)
    assert net.n_synapses == 320_933
    exc, inh = (rows for _, rows in net.layers[0].rows)
    assert len(exc.target) == 256_799
    assert int(exc.target.sum(dtype=np.int64) + inh.target.sum(dtype=np.int64)) == 641_135_054
    assert net.layers[0].v[:3] - 49 == pytest.approx([-56.48611819, -50.89171947, -57.32549188], abs=1e-8)
    net = stream((700, 256, 256, 20), 1000)
    assert net.input_step is not None
    assert len(net.input_step) == 7729
    weights = [rows.weight for layer in net.layers for _, rows in layer.rows]
    delays = [rows.steps for layer in net.layers for _, rows in layer.rows]
    assert [round(float(np.sum(item)), 6) for item in weights] == [1261.754163, 328.004036, 99.876811]
    assert [int(np.sum(item, dtype=np.int64)) for item in delays] == [2_419_592, 887_131, 69_772]


def test_what_all_sides_build_from_needs_numpy_only() -> None:
    script = "import sys, worker; worker.load('networks.py').cuba(50, 5); print('snnsim' in sys.modules)"
    folder = Path(worker.__file__).parent
    made = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True)
    assert made.stdout.strip() == "False"


@pytest.mark.slow
def test_the_large_fixture_is_the_published_one() -> None:
    net = brunel(12500, 1250)
    assert net.n_synapses == 15_625_000
    degree = net.out_degree(0)
    assert (degree.min(), degree.max()) == (1102, 1397)


def test_cuba_has_the_published_spikes() -> None:
    net = cuba(4000, 80)
    network, events = frozen(net)
    assert events is None
    result = simulate(network, None, n_steps=3000, initial={"n0.v": net.layers[0].v})
    assert len(result.spikes["n0"].times) == 7130


def test_the_stream_has_the_published_spikes_and_events_in_float32() -> None:
    task = SIM_TASKS["shd-stream"]
    made: Any = build(task.to_json(1), build_net)()
    assert tuple(made["spikes"]) == task.expected == (5191, 3995, 1199)
    assert made["events"] == 3_387_420


def test_synaptic_events_are_counted_from_the_senders() -> None:
    task = SMALL["brunel"]
    net = build_net(task.to_json(1))
    network, _ = frozen(net)
    result = simulate(network, None, n_steps=300, initial={"n0.v": net.layers[0].v})
    made: Any = build(task.to_json(1), build_net)()
    assert made["events"] == result.operations.synaptic_operations > 1000
    assert sum(made["spikes"]) == len(result.spikes["n0"].times)


def test_own_weights_and_delays() -> None:
    net = brunel(100, 20, own=True)
    ((_, rows),) = net.layers[0].rows
    assert isinstance(rows.weight, np.ndarray)
    assert isinstance(rows.steps, np.ndarray)
    assert (rows.weight.dtype, rows.steps.dtype, rows.target.dtype) == (np.float32, np.uint8, np.uint16)
    assert (int(rows.steps.min()), int(rows.steps.max())) == (1, 31)
    assert np.all(rows.weight[: rows.indptr[net.n_exc]] > 0)
    assert np.all(rows.weight[rows.indptr[net.n_exc] :] < 0)


@pytest.mark.parametrize("name", SMALL)
def test_nest_has_the_same_counts_in_every_turn(name: str) -> None:
    pytest.importorskip("nest")
    task = replace(SMALL[name], peers=("nest",))
    comparison = compare(task, rounds=2, threads=1)
    ours, nest = comparison.sides
    assert nest.missing == ""
    assert ours.first["spikes"] == nest.first["spikes"]
    assert ours.first["events"] == nest.first["events"] > 0
    assert equal_turns(comparison, nest) == 2
    assert refusal(comparison, nest) == ""
    text = format_simulation(comparison, LIMITS)
    assert text.count("x ours") == 1
    assert "equal counts in 2 of 2 turns" in text
    made = json.loads(json.dumps(simulation_to_json(comparison, LIMITS)))
    assert made["sides"][1]["ratio"] > 0
    assert made["sides"][1]["refused"] == ""


def test_nest_has_the_rate_of_the_noisy_network() -> None:
    pytest.importorskip("nest")
    task = replace(SIM_TASKS["brunel"], sizes=(500, 100), n_steps=1000, turn=4, peers=("nest",))
    comparison = compare(task, rounds=1, threads=1)
    ours, nest = comparison.sides
    assert mean_rate(task, ours) == pytest.approx(mean_rate(task, nest), rel=0.1)
    assert mean_rate(task, ours) > 10


def test_brian2_that_is_missing_is_named(tmp_path: Path) -> None:
    elsewhere = tmp_path / "python"
    elsewhere.write_text(f'#!/bin/sh\nexec {sys.executable} -S -E "$@"\n')  # an interpreter without any library
    elsewhere.chmod(0o755)
    pythons = {"brian2": str(elsewhere), "nest": str(elsewhere)}
    comparison = compare(SMALL["cuba"], rounds=1, threads=1, pythons=pythons)
    assert [side.name for side in comparison.sides] == ["ours", "nest", "brian2"]
    text = format_simulation(comparison)
    assert text.count("not measured: ") == 2
    assert "No module named" in text
    assert simulation_to_json(comparison, None)["sides"][2]["missing"]


def test_without_a_compiler_brian2_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from snnsim.bench.peers import brian2

    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match=r"needs a C\+\+ compiler"):
        brian2.build(SMALL["cuba"].to_json(1), build_net)


def test_no_ratio_where_rates_differ() -> None:
    task = replace(SIM_TASKS["cuba-single"], n_steps=10_000)
    near = sides(task, [1000, 1000], [1000, 950])
    assert refusal(near, near.sides[1]) == ""
    assert "3.00 x ours (3.00-3.00)" in format_simulation(near, LIMITS)
    far = sides(task, [1000, 1000], [1000, 890])
    assert "more than 5% apart" in refusal(far, far.sides[1])
    text = format_simulation(far, LIMITS)
    assert "x ours" not in text
    assert "no ratio: the mean rate is 0.47 /s there and 0.50 /s here" in text
    row = simulation_to_json(far, LIMITS)["sides"][1]
    assert "ratio" not in row
    assert row["refused"]


def test_no_ratio_where_counts_of_an_exact_task_differ() -> None:
    other = sides(SIM_TASKS["cuba"], [1000, 1000], [1000, 999])
    assert refusal(other, other.sides[1]).startswith("the first stretch has 1000 + 999 spikes there and 1000 + 1000")
    assert "no ratio" in format_simulation(other, LIMITS)


def test_no_ratio_where_counts_are_not_the_published_ones() -> None:
    other = sides(SIM_TASKS["shd-stream"], [1, 2, 3], [1, 2, 3])
    sentence = "ours has 1 + 2 + 3 spikes in the first stretch, published are 5191 + 3995 + 1199"
    assert refusal(other, other.sides[0]) == refusal(other, other.sides[1]) == sentence
    assert "x ours" not in format_simulation(other, LIMITS)


@pytest.mark.parametrize("name", ["cuba", "brunel", "stream"])
@pytest.mark.parametrize("threads", [1, 2])
def test_bare_loops_are_measured_with_the_widths_of_the_task(name: str, threads: int) -> None:
    limits = measure_limits(SMALL[name], threads)
    assert min(limits.events, limits.updates) > 0
    assert limits.event_bytes == (7 if name == "stream" else 2)
    assert limits.update_bytes == {"cuba": 80, "brunel": 32, "stream": 16}[name]
    assert limits.seconds(limits.events, limits.updates) == pytest.approx(2.0)
    twice = replace(limits, events=2 * limits.events, updates=limits.updates / 2)
    assert limits.or_better(twice) == twice.or_better(limits) == replace(limits, events=2 * limits.events)


def test_curves() -> None:
    assert tau_for(10.0) == pytest.approx(98 / np.log(3))
    with pytest.raises(InputError, match="expected less than 500 /s"):
        tau_for(500.0)
    assert points_of("neurons", 4000) == [1000, 2000, 4000]
    assert points_of("neurons", 70_000)[-1] == 64_000
    assert points_of("neurons", 10) == [1000]
    assert points_of("threads", 2) == [1, 2]
    assert set(CURVES) == {"neurons", "synapses", "rate", "threads"}
    curve = measure_curve("synapses", largest=50, rounds=1)
    (point,) = curve.to_json()["points"]
    assert point["inputs"] == 50
    assert point["sides"][0]["rate"] == pytest.approx(10, rel=0.3)
    assert point["sides"][0]["nanoseconds_per_neuron_step"] > 0
    assert "M events/s" in format_curve(curve)


def test_a_task_whose_engine_is_not_there_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SIM_TASKS, "cuba-exact", replace(SMALL["cuba"], name="cuba-exact", engine="quantum"))
    assert SMALL["cuba"].unavailable() == ""
    assert run(["bench", "sim", "cuba-exact"]) == 0
    assert "not measured: there is no engine 'quantum' here, only clock" in capsys.readouterr().out


def test_the_command_prints_one_object(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(SIM_TASKS, "cuba", replace(SMALL["cuba"], name="cuba", peers=()))
    assert run(["bench", "sim", "cuba", "--rounds", "1", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    (comparison,) = made["comparisons"]
    assert comparison["exact"]
    assert comparison["limits"]["floor_seconds"] > 0
    assert comparison["sides"][0]["events_per_second"] > 0
    assert made["roofline"]["random_adds"] > 0
    assert run(["bench", "scaling", "neurons", "--largest", "1000", "--rounds", "1", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert [point["neurons"] for point in made["curves"][0]["points"]] == [1000]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["sim", "plain"], "expected one of cuba, "),
        (["sim", "cuba", "--python", "spyx=/tmp"], "expected PEER=PATH"),
        (["sim", "cuba", "--python", f"spyx={sys.executable}"], "expected one of the peers brian2, nest, got 'spyx'"),
        (["scaling", "--largest", "10"], "along what"),
        (["scaling", "rate", "--python", f"nest={sys.executable}"], "expected one of the peers"),
    ],
)
def test_mistakes_are_one_sentence(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", *words]) == 2
    caught = capsys.readouterr()
    assert caught.out == ""
    assert sentence in caught.err
    assert caught.err.strip().count("\n") == 0


def test_tasks_are_chosen_by_name() -> None:
    assert [task.name for task in choose_sim_tasks(["cuba", "brunel"])] == ["cuba", "brunel"]
    assert len(choose_sim_tasks([])) == len(SIM_TASKS)
