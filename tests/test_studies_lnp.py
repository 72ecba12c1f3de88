"""The study of Lyapunov noise pruning: the loop against the engine, readouts, pools, budgets, going on, claims."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snnsim.datasets.chaotic import make_series
from snnsim.datasets.sources import make_sources
from snnsim.engines import simulate
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.network import Network
from snnsim.neurons import CubaLIF
from snnsim.studies.lnp import CELLS, Cell, Sizes, budget_of, cell_pool, settings, with_inputs
from snnsim.studies.lnp_page import differences, lnp_page, lnp_text, rows_of, verdict
from snnsim.studies.lnp_run import reproduce_lnp
from snnsim.studies.lnp_tasks import Classes, Prediction, make_task
from snnsim.studies.reservoir import Loop, binned_features, encode, fit_classes, fit_ridge, valid_time

SMALL = Sizes(neurons=40, iterations=1, samples=30, tuning_samples=20, starts=2)


@pytest.fixture(scope="module")
def driven() -> Network:
    return with_inputs(cell_pool(Cell("heterogeneous", "dense"), SMALL, 3), 7, 0.5 / 16, 1.0, 3, bias=0.15)


def events_of(values: np.ndarray, steps: int, levels: int, dt: float) -> Events:
    """The events that a loop gives to its pool."""
    counts = np.repeat(encode(values, levels), steps, axis=0)
    step, unit = np.nonzero(counts)
    often = counts[step, unit]
    times, units = np.repeat(step, often) * dt, np.repeat(unit, often)
    return Events.from_lists([times], [units], n_units=counts.shape[1], duration=len(counts) * dt)


def test_spikes_of_the_loop_are_those_of_the_engine(driven: Network) -> None:
    x = make_series("lorenz63", 150, seed=1).values
    loop = Loop(driven, 10, (0.005, 0.02), 16)
    raster = np.zeros((1500, 40), np.uint8)
    features = loop.features(x, raster)
    result = simulate(driven, events_of(x, 10, 16, driven.dt))
    spikes = result.spikes["pool"]
    expected = np.zeros_like(raster)
    expected[np.rint(spikes.times / driven.dt).astype(int), spikes.units] = 1
    assert raster.sum() > 3000
    assert np.array_equal(raster, expected)
    trace = np.zeros((2, 40))
    for step, row in enumerate(expected):
        trace = np.exp(-driven.dt / np.array([0.005, 0.02]))[:, None] * trace + row
        if step % 10 == 9:
            assert np.allclose(features[step // 10, :80], trace.reshape(-1), rtol=1e-12)
    assert np.array_equal(features[:, 80:83], x)
    assert np.all(features[:, 83] == 1)
    inner = next(item for item in driven.projections if item.source == "pool")
    assert loop.operations == pytest.approx(expected.sum(axis=0) @ inner.out_degree / 1500)
    assert loop.rate == pytest.approx(expected.mean() / driven.dt)


def test_a_closed_loop_feeds_its_predictions_back(driven: Network) -> None:
    x = make_series("lorenz63", 80, seed=2).values
    loop = Loop(driven, 5, (0.01,), 64)
    features = loop.features(x)
    change = np.diff(x, axis=0)
    readout = fit_ridge(features[:-1], change, [1.0])[0]
    predicted = loop.predict(readout, x[:30], 20)
    shown, by_hand = x[:30], []
    for _ in range(20):  # the same, but from the beginning each time
        loop.reset()
        value = shown[-1] + loop.features(shown)[-1] @ readout
        by_hand.append(value)
        shown = np.vstack((shown, value))
    assert np.allclose(predicted, by_hand, rtol=1e-9, atol=1e-9)
    loop.limit = 0.1
    assert not np.allclose(loop.predict(readout, x[:30], 20)[1:], by_hand[1:])


def test_other_networks_are_refused(driven: Network) -> None:
    late = driven.replace(
        projections=tuple(
            type(item)(item.source, item.target, item.weight, 0.003) if item.source == "pool" else item
            for item in driven.projections
        )
    )
    with pytest.raises(InputError, match="expected recurrent delays of one step"):
        Loop(late, 5, (0.01,))
    with pytest.raises(InputError, match=r"expected one input of 2 d \+ 1 channels"):
        Loop(with_inputs(cell_pool(Cell("heterogeneous", "dense"), SMALL, 3), 4, 0.1, 1.0, 3), 5, (0.01,))
    pool = driven.population("pool")
    other = driven.replace(populations=(type(pool)("pool", 40, CubaLIF(tau_mem=0.02, tau_syn=0.005)),))
    with pytest.raises(InputError, match="expected LIF neurons in 'pool'"):
        Loop(other, 5, (0.01,))
    with pytest.raises(InputError, match="ridges: expected positive numbers"):
        fit_ridge(np.eye(2), np.eye(2), [0.0])


def test_ridge_is_the_closed_form_from_either_side() -> None:
    draw = np.random.default_rng(0)
    for n, p in ((30, 8), (8, 30)):
        a, y = draw.normal(size=(n, p)), draw.normal(size=(n, 2))
        expected = np.linalg.inv(a.T @ a + 0.3 * np.eye(p)) @ a.T @ y
        assert np.allclose(fit_ridge(a, y, [0.3])[0], expected)
        twice = np.column_stack((a, a[:, :1]))
        lifted = np.column_stack((np.sqrt(2) * a[:, :1], a[:, 1:]))  # a feature twice is one of root two the size
        assert np.allclose(twice @ fit_ridge(twice, y, [0.3])[0], lifted @ fit_ridge(lifted, y, [0.3])[0])


def test_features_are_means_of_filtered_spikes() -> None:
    events = Events.from_lists([[0.0, 0.003, 0.006], [0.004]], [[0, 1, 0], [1]], n_units=2, duration=0.007)
    found = binned_features(events, 0.001, 3, 0.002).reshape(2, 3, 2)
    decay = np.exp(-0.5)
    for sample in range(2):
        trace, traces = np.zeros(2), []
        for step in range(7):
            here = events[sample]
            spikes = np.bincount(here.units[np.rint(here.times / 0.001) == step], minlength=2)
            trace = decay * trace + spikes
            traces.append(trace)
        for part, (begin, end) in enumerate(((0, 2), (2, 4), (4, 7))):
            assert np.allclose(found[sample, part], np.mean(traces[begin:end], axis=0))


def test_classes_are_found_and_valid_times_end_at_the_first_error() -> None:
    draw = np.random.default_rng(1)
    labels = np.arange(90) % 3
    features = draw.normal(size=(90, 5)) + 4 * np.eye(5)[labels]
    guess = fit_classes(features[:60], labels[:60], features[60:], 3, [1e-3])[0]
    assert np.mean(guess == labels[60:]) > 0.9
    true = np.zeros((6, 1))
    assert valid_time(true, true) == 6
    assert valid_time(true + np.array([[0, 0, 0.6, 0, 0, 0]]).T, true) == 2
    assert valid_time(true + 0.6, true, scale=2.0) == 6
    assert valid_time(np.full((6, 1), np.nan), true) == 0
    assert encode(np.array([[0.24, -3.0]]), 8).tolist() == [[2, 0, 0, 24, 1]]


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_every_pool_is_made_the_same_twice_and_keeps_its_inputs(cell: Cell) -> None:
    budget = (60, 28) if cell.baseline else None
    one, two = (cell_pool(cell, SMALL, 1, budget) for _ in range(2))
    assert one == two
    if not cell.way.startswith("lnp"):
        assert one != cell_pool(cell, SMALL, 2, budget)
    study = one.notes["study"]
    synapses, neurons = budget_of(one)
    dense = budget_of(cell_pool(Cell(cell.kind, "dense"), SMALL, 1))
    assert study["sparsity"]["synapses"] == pytest.approx(1 - synapses / dense[0])
    if cell.way == "dense":
        assert (synapses, neurons) == dense
    elif cell.way == "no recurrence":
        assert (synapses, neurons) == (0, 40)
    elif cell.way not in ("lnp without synapses", "lnp without neurons", "drawn anew"):
        assert study["sparsity"]["synapses"] >= 0.5
        assert study["sparsity"]["neurons"] >= 0.3 - 1e-9
    driven, full = (with_inputs(pool, 3, 0.7, 1.0, 1) for pool in (one, cell_pool(Cell(cell.kind, "dense"), SMALL, 1)))
    feed, whole = (next(np.asarray(p.weight) for p in net.projections if p.source == "in") for net in (driven, full))
    assert np.count_nonzero(feed.any(axis=1)) == 20  # as many neurons get input
    if cell.way != "drawn anew":
        assert np.array_equal(feed, whole[study["kept"]])  # and the same ones, as strongly


def test_bad_cells_and_tasks_are_refused() -> None:
    with pytest.raises(InputError, match="expected heterogeneous or homogeneous and one of dense"):
        Cell("heterogeneous", "luck")
    with pytest.raises(InputError, match="expected the budget of heterogeneous-lnp, got none"):
        cell_pool(Cell("heterogeneous", "magnitude"), SMALL, 0)
    with pytest.raises(InputError, match="is not known"):
        make_task("nothing", SMALL)


CHOSEN = [Cell("homogeneous", way) for way in ("dense", "lnp without timescales", "random")]


def small_tasks() -> list[Prediction | Classes]:
    made = make_sources("rates", n_train=20, n_test=10, n_steps=60, n_units=6)
    assert made.test is not None
    classes = Classes("rates", SMALL, made.train, made.train, made.test, made.test, made.n_classes)
    return [Prediction("mackey-glass", SMALL, 2, 150, 20), classes]


def test_a_study_goes_on_where_it_stopped_and_does_not_depend_on_processes(tmp_path: Path) -> None:
    cells = CHOSEN
    told: list[tuple[int, int]] = []

    def tell(done: int, total: int, what: str) -> None:
        told.append((done, total))

    first = reproduce_lnp(small_tasks(), tmp_path / "a", seeds=2, cells=cells, jobs=2, told=tell)
    assert told[-1] == (27, 27)  # three cells: three pools, tuning and two runs on two tasks each
    path = tmp_path / "a" / "runs.jsonl"
    lines = path.read_text().splitlines()
    assert len(lines) == 18
    path.write_text("\n".join(lines[:9]) + "\n" + lines[9][:40])  # stopped in the middle of a line
    told.clear()
    again = reproduce_lnp(small_tasks(), tmp_path / "a", seeds=2, cells=cells, jobs=1, told=tell)
    records = [line for line in path.read_text().splitlines() if line.endswith("}")]
    assert sorted(records) == sorted(lines)  # what came after the cut line has lines of its own
    assert told[0] == (19, 27)
    assert first == again
    assert json.loads((tmp_path / "a" / "study.json").read_text())["runs"] == again["runs"]
    assert {json.loads(line)["seed"] for line in lines if '"setting": null' in line} == {1000}
    page = (tmp_path / "a" / "report.html").read_text()
    assert "What may be claimed" in page
    with pytest.raises(InputError, match="holds a study of other sizes; choose another --out"):
        reproduce_lnp([Prediction("mackey-glass", SMALL, 3, 150, 20)], tmp_path / "a", seeds=2, cells=cells)
    with pytest.raises(InputError, match="expected at least 2 for an interval"):
        reproduce_lnp(small_tasks(), tmp_path / "b", seeds=1)
    with pytest.raises(InputError, match="homogeneous-random has the budget of homogeneous-lnp-without-timescales"):
        reproduce_lnp(small_tasks(), tmp_path / "b", seeds=2, cells=[cells[0], cells[2]])
    cells = [Cell("heterogeneous", "dense"), Cell("homogeneous", "random")]
    with pytest.raises(InputError, match="homogeneous-random has the budget of homogeneous-lnp-without-timescales"):
        reproduce_lnp(small_tasks(), tmp_path / "b", seeds=2, cells=cells)
    with pytest.raises(InputError, match="expected all of the study's sizes"):
        reproduce_lnp(small_tasks(), tmp_path / "b", seeds=2, sizes=Sizes())


def test_all_cells_have_the_same_settings_and_names_of_their_own() -> None:
    assert len({cell.name for cell in CELLS}) == len(CELLS)
    assert len(settings()) == len(set(settings()))
    assert all(cell.reference in CELLS for cell in CELLS)


def made_result(gain: float, loss: float) -> dict[str, Any]:
    """Three seeds: lnp's valid time is the dense pool's plus ``gain``, its accuracy lower by the share ``loss``."""
    runs = []
    for way in ("dense", "lnp", "magnitude"):
        for seed in range(3):
            sparsity = {"synapses": 0.0 if way == "dense" else 0.6, "neurons": 0.0 if way == "dense" else 0.3}
            base = {"cell": {"kind": "heterogeneous", "way": way}, "seed": seed, "sparsity": sparsity, "rate": 9.0}
            base["operations"] = 100.0 if way == "dense" else 40.0 + seed
            shift = gain if way == "lnp" else 0.0
            runs.append({**base, "task": "lorenz63", "vpt": 2.0 + 0.1 * seed + shift, "rmse": 0.01})
            factor = 1 - loss if way == "lnp" else 1.0
            runs.append({**base, "task": "digits", "accuracy": (0.8 + 0.01 * seed) * factor})
    tasks = [{"name": "lorenz63", "kind": "prediction"}, {"name": "digits", "kind": "classes"}]
    names = {f"{task['name']} heterogeneous-{way}" for task in tasks for way in ("dense", "lnp", "magnitude")}
    chosen = {name: {"scale": 1.0, "gain": 1.0, "ridge": 0.1} for name in names}
    return {"seeds": 3, "tasks": tasks, "runs": runs, "chosen": chosen, "settings": 8}


def test_a_miss_is_a_miss_and_only_what_excludes_zero_is_claimed() -> None:
    found = {(item.what, item.task, item.metric): item.interval for item in differences(made_result(0.3, 0.02))}
    assert found["heterogeneous: lnp, against dense", "lorenz63", "vpt"].low == pytest.approx(0.3)
    assert found["heterogeneous: lnp, against dense", "digits", "accuracy"].mean == pytest.approx(-1.62)
    assert not found["heterogeneous: magnitude, against dense", "lorenz63", "vpt"].excludes_zero
    assert found["heterogeneous: lnp, against magnitude", "lorenz63", "vpt"].excludes_zero
    lines = verdict(made_result(0.3, 0.02))
    assert "removes 60.0 % of the pool's synapses and 30.0 % of its neurons: met" in lines[0]
    assert "target 0 or more: met by the mean, the whole interval does" in lines[1]
    assert "relative change of accuracy -2.00" in lines[2]
    assert "target -1 % or more: missed by the mean, the whole interval misses it" in lines[2]
    assert "missed by the mean" in verdict(made_result(-0.1, 0.0))[1]
    assert "lnp against other ways, heterogeneous: 2 of 3 paired differences are better" in lnp_text(
        made_result(0.3, -0.02)
    )
    row = rows_of(made_result(0.3, 0.02), "lorenz63", "prediction")[1]
    assert row[0] == "heterogeneous, lnp"
    assert row[1].startswith("2.400 (")
    assert row[3:] == ("60.0", "30.0", "0.41")
    page = lnp_page(made_result(0.3, 0.02))
    assert page.count("<svg") == 2


def test_the_command_takes_tasks_and_refuses_what_a_study_has_not(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from snnsim.cli.main import run

    assert run(["reproduce", "lnp", "--epochs", "3", "--out", str(tmp_path / "x")]) == 2
    assert "is a study, which has no --epochs" in capsys.readouterr().err
    assert run(["reproduce", "lnp", "--data", "nothing", "--out", str(tmp_path / "x")]) == 2
    assert "is not known" in capsys.readouterr().err
    assert run(["reproduce", "meta-neuron", "--quick", "--out", str(tmp_path / "x")]) == 2
    assert "reproduce meta-neuron: has no --quick" in capsys.readouterr().err
    assert run(["reproduce", "shd-dcls", "--quick"]) == 2
    assert "--quick is of the studies lnp and hardware" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
