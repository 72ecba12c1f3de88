"""Pools as recipes: masks that last, every way of training, the chain to the engines, what is refused."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from snnsim.datasets.dataset import Dataset
from snnsim.datasets.toy import make_toy
from snnsim.engines import simulate
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.learning import Loss, Ridge, TensorStream
from snnsim.learning.ridge import readout_features
from snnsim.nn.context import Context
from snnsim.nn.model import SpikingModel, build_model
from snnsim.pruning.lnp import prune_lnp
from snnsim.pruning.pools import PoolPlan, make_pool
from snnsim.recipes import Recipe, list_recipes, load_recipe, recipe_from_dict
from snnsim.training import load_run, train
from snnsim.training.pool import STEP, learn_by_stdp, stdp_network
from snnsim.training.prepare import pool_units, prepare
from snnsim.training.trainer import Trainer

SMALL = {"size": 60, "density": 0.2, "radius": 0.8}


@pytest.fixture(scope="module")
def toy() -> Dataset:
    return make_toy()


def recipe(pool: dict[str, Any] | None = None, **train: Any) -> Recipe:
    model: dict[str, Any] = {"batch_norm": False, "initial_rate": 0.1, "readout": {"reduce": "mean", "tau_mem": 0.05}}
    rest = {key: train.pop(key) for key in ("prune", "neuron") if key in train}
    if "neuron" in rest:
        model["neuron"] = rest.pop("neuron")
    model["pool"] = {**SMALL, **(pool or {})}
    table = {"epochs": 2, "batch_size": 64, "weights": {"lr": 0.003}, **train}
    return recipe_from_dict({"name": "pool", "summary": "", "model": model, "train": table, **rest})


def masks(model: SpikingModel) -> tuple[torch.Tensor, torch.Tensor]:
    block: Any = model.blocks[0]
    return block.connection.mask, block.neuron.mask


def test_the_model_is_the_pool() -> None:
    plan = PoolPlan(size=60, probability=0.2, radius=0.8, n_inputs=7, dt=0.01, seed=3)
    network = make_pool(plan).network
    model = build_model(recipe().model, 7, 4, 0.01, seed=3)
    block: Any = model.layers()[0]
    assert np.array_equal(block.neuron.weight.detach().numpy(), network.projections[1].weight.astype(np.float32))
    assert np.array_equal(block.neuron.mask.numpy(), network.projections[1].weight != 0)
    assert np.array_equal(block.connection.weight.detach().numpy(), network.projections[0].weight.astype(np.float32))
    beta = network.population("pool").neuron.step(60, 0.01).beta
    assert np.array_equal(block.neuron.neuron.beta().numpy(), beta)
    fixed = build_model(recipe({"seed": 3}).model, 7, 4, 0.01, seed=9)
    assert torch.equal(masks(fixed)[1], block.neuron.mask)
    control = build_model(recipe({"homogeneous": True}).model, 7, 4, 0.01, seed=3)
    assert torch.equal(masks(control)[1], block.neuron.mask)
    assert np.unique(control.layers()[0].neuron.neuron.beta().numpy()).size == 1


@pytest.mark.parametrize(
    ("kind", "table"),
    [
        ("lif", {}),
        ("lif", {"learning": "sltt", "loss": "per_step"}),
        ("lif", {"learning": "e-prop", "loss": "per_step"}),
        ("cubalif", {}),
    ],
)
def test_synapses_learn_and_missing_ones_stay_missing(
    toy: Dataset, tmp_path: Path, kind: str, table: dict[str, Any]
) -> None:
    neuron = {"kind": kind, "learn": ["tau_mem"]} if "learning" not in table else {"kind": kind}
    result = train(recipe(neuron=neuron, epochs=1, **table), toy, tmp_path / "run")
    run = load_run(result.path)
    before, after = run.model("initial"), run.model("last")
    assert isinstance(before, SpikingModel)
    assert isinstance(after, SpikingModel)
    for index, (mask, same) in enumerate(zip(masks(before), masks(after), strict=True)):
        assert torch.equal(mask, same)
        block: list[Any] = [model.blocks[0] for model in (before, after)]
        old, new = (b.neuron.weight if index else b.connection.weight for b in block)
        assert not new[~mask].any()
        assert (new != old)[mask].float().mean() > 0.3
    taus = [model.blocks[0].neuron.neuron.learned_values().get("tau_mem") for model in (before, after)]  # type: ignore[union-attr]
    assert taus[0] is None or bool((taus[0] != taus[1]).any())


def test_a_reservoir_keeps_its_pool_and_learns_its_readout(toy: Dataset, tmp_path: Path) -> None:
    result = train(recipe({"learn": []}, epochs=4, weights={"lr": 0.03}), toy, tmp_path / "run")
    run = load_run(result.path)
    assert all(item.layer == "readout" for item in run.moved("last") if item.mean_change > 0)
    old, new = run.model("initial").state_dict(), run.model("last").state_dict()
    assert [k for k in old if not torch.equal(old[k], new[k])] == [
        "readout.connection.weight",
        "readout.connection.bias",
    ]
    assert run.metrics[-1]["loss"] < run.metrics[0]["loss"]


def test_ridge_is_the_closed_form(toy: Dataset, tmp_path: Path) -> None:
    spec = recipe({"learn": []}, epochs=1, learning="ridge", rule={"ridge": 0.01})
    run = load_run(train(spec, toy, tmp_path / "run").path)
    model = run.model("last")
    assert isinstance(model, SpikingModel)
    data = prepare(spec, toy, 0)
    trainer = Trainer(spec, data, 0)
    rows, wanted = [], []
    for batch in trainer.batches.epoch(0):
        context = Context(torch.from_numpy(batch.mask), torch.from_numpy(batch.sample_id))
        rows.append(readout_features(model, torch.from_numpy(batch.x), context)[0])
        wanted.append(np.eye(data.n_classes)[batch.labels])
    h, y = np.concatenate(rows), np.concatenate(wanted)
    gram = h.T @ h
    n = gram.shape[0] - 1
    gram[np.arange(n), np.arange(n)] += 0.01 * np.diag(h.T @ h)[:n].mean()
    solution = np.linalg.solve(gram, h.T @ y)
    weight = model.readout.connection.weight.detach().numpy()
    assert np.allclose(weight, solution[:n].T, rtol=1e-4, atol=1e-6)
    assert np.allclose(model.readout.connection.bias.detach().numpy(), solution[n], rtol=1e-4, atol=1e-6)
    scores = model(torch.from_numpy(batch.x), None, context).logits.detach().numpy()
    assert np.allclose(scores, rows[-1] @ solution, atol=1e-5)
    assert run.metrics[0]["valid_accuracy"] > 0.6  # four classes


@pytest.mark.parametrize(("reduce", "neuron"), [("mean", "li"), ("last", "li"), ("mean", "cubali")])
def test_scores_are_linear_in_the_features(reduce: str, neuron: str) -> None:
    spec = recipe_from_dict(
        {
            "name": "a",
            "summary": "",
            "model": {
                "pool": SMALL,
                "batch_norm": False,
                "readout": {"reduce": reduce, "neuron": neuron, "skip_steps": 2},
            },
            "train": {"epochs": 1, "batch_size": 2},
        }
    )
    model = build_model(spec.model, 5, 3, 0.01, 0).double().eval()
    assert isinstance(model, SpikingModel)
    torch.nn.init.normal_(model.readout.connection.bias)  # type: ignore[arg-type]
    x = torch.from_numpy(np.random.default_rng(0).poisson(0.6, (30, 4, 5)).astype(np.float64))
    mask = torch.arange(30).unsqueeze(1) < torch.tensor([30, 22, 17, 9])
    context = Context(mask, torch.arange(4))
    features, _ = readout_features(model, x, context)
    w = np.column_stack([model.readout.connection.weight.detach(), model.readout.connection.bias.detach()])  # type: ignore[union-attr]
    assert np.abs(features).max() > 0
    assert np.allclose(features @ w.T, model(x, None, context).logits.detach().numpy(), atol=1e-12)


def test_a_pass_that_was_stopped_goes_on_with_its_sums() -> None:
    model = build_model(recipe({"learn": []}).model, 5, 3, 0.01, 0)
    streams = [
        TensorStream(torch.from_numpy(np.random.default_rng(k).poisson(1.0, (20, 30, 5)).astype(np.float32)))
        for k in range(2)
    ]
    loss = Loss(torch.arange(30) % 3)
    whole, first, second = Ridge(), Ridge(), Ridge()
    for stream in streams:
        whole.gradients(model, stream, loss)
    first.gradients(model, streams[0], loss)
    second.restore(first.state())
    second.gradients(model, streams[1], loss)
    assert second.state() == whole.state()
    with pytest.raises(InputError, match="at least one batch"):
        Ridge().solve(model)  # type: ignore[arg-type]


def test_stdp_runs_on_the_grid_and_changes_excitatory_synapses_only(toy: Dataset) -> None:
    spec = recipe({"learn": []}, epochs=1, learning="ridge", stdp={"a_plus": 0.01, "a_minus": 0.012})
    data = prepare(spec, toy, 0)
    trainer = Trainer(recipe({"learn": []}, epochs=1, learning="ridge"), data, 0)
    trainer.initialise()
    model = trainer.model
    assert isinstance(model, SpikingModel)
    network = stdp_network(model)
    few = pool_units(data.train.subset(np.arange(3)), data.pool)
    on_grid = [np.floor(np.asarray(few[i].times) / 0.01 + 1e-6) * STEP for i in range(3)]
    events = Events.from_lists(on_grid, [few[i].units for i in range(3)], few.n_units, duration=0.2, sort=True)
    exact, grid = (simulate(network, events, engine=name, threads=1).spikes["pool"] for name in ("event", "clock"))
    assert exact.n_events > 50
    assert np.array_equal(exact.units, grid.units)
    assert np.array_equal(exact.times, grid.times)

    block: Any = model.blocks[0]
    before, mask = block.neuron.weight.detach().clone(), block.neuron.mask.clone()
    facts = learn_by_stdp(model, data.train.subset(np.arange(40)), spec, data.pool)
    after = block.neuron.weight.detach()
    assert facts.synapses == int((before > 0).sum())
    assert facts.change > 0.01
    assert torch.equal(after[before <= 0], before[before <= 0])
    assert torch.equal(after != 0, mask) or not after[~mask].any()
    excitatory = torch.where(before > 0, after, 0.0).sum(dim=1)
    assert torch.allclose(excitatory, before.clamp(min=0).sum(dim=1), rtol=1e-4)


def test_a_run_with_stdp_starts_from_what_it_learned(tmp_path: Path) -> None:
    toy = make_toy(n_train=80, n_test=20)
    table = {"epochs": 1, "learning": "ridge"}
    with_it = train(recipe({"learn": []}, **table, stdp={"a_plus": 0.01}), toy, tmp_path / "a")
    again = train(recipe({"learn": []}, **table, stdp={"a_plus": 0.01}), toy, tmp_path / "b")
    without = train(recipe({"learn": []}, **table), toy, tmp_path / "c")
    runs = [load_run(item.path) for item in (with_it, again, without)]
    loops = [run.model("initial").blocks[0].neuron.weight.detach() for run in runs]  # type: ignore[union-attr]
    assert torch.equal(loops[0], loops[1])
    assert not torch.equal(loops[0], loops[2])
    assert runs[0].manifest["stdp"]["change"] > 0
    assert runs[2].manifest["stdp"] is None
    onward = load_run(
        train(recipe({"learn": []}, **table, stdp={"a_plus": 0.01}), toy, tmp_path / "d", start=runs[0]).path
    )
    assert torch.equal(onward.model("initial").blocks[0].neuron.weight.detach(), loops[0])  # type: ignore[union-attr]
    with pytest.raises(InputError, match="does not learn by STDP again"):
        train(recipe({"learn": []}, **table, stdp={"a_plus": 0.01}), toy, tmp_path / "e", start=runs[2])


def test_from_a_pruned_file_to_equal_spikes_of_both_engines(toy: Dataset, tmp_path: Path) -> None:
    pool = make_pool(PoolPlan(size=60, probability=0.2, radius=0.8, n_outputs=2, dt=0.01, seed=1)).network
    pruned = prune_lnp(pool, "pool", keep=0.5, keep_neurons=0.7, seed=1).network
    path = tmp_path / "pruned.snn.h5"
    pruned.save(path)
    spec = recipe_from_dict(
        {
            **recipe().to_dict(),
            "model": {
                "pool": {"file": str(path), "input_share": 0.5},
                "batch_norm": False,
                "initial_rate": 0.1,
                "readout": {"reduce": "mean"},
            },
            "prune": {"method": "magnitude", "keep": 0.7, "layers": ["layer1 recurrence"]},
        }
    )
    folder = train(spec, toy, tmp_path / "run").path
    path.unlink()  # the run keeps the pool that it began with
    shutil.move(folder, tmp_path / "moved")
    run = load_run(tmp_path / "moved")
    model = run.model("last")
    assert isinstance(model, SpikingModel)
    n = pruned.population("pool").size
    assert model.hidden_sizes() == [n]
    loop = next(item for item in pruned.projections if item.source == item.target)
    had = np.count_nonzero(loop.weight if not hasattr(loop.weight, "target") else loop.weight.weight)
    assert int(masks(model)[1].sum()) == round(0.7 * had)
    network = run.network("last")
    data = prepare(spec, toy, 0)
    events = pool_units(data.train.subset(np.arange(20)), data.pool)
    clock = simulate(network, events, engine="clock")
    grid = simulate(network, events, engine="event", resolution=network.dt)
    a, b = clock.spikes["hidden1"], grid.spikes["hidden1"]
    assert a.n_events > 100
    assert np.array_equal(a.units, b.units)
    assert np.array_equal(a.times, b.times)
    assert clock.logits is not None
    assert grid.logits is not None
    assert np.array_equal(clock.logits, grid.logits)


def test_a_dense_pool_is_not_sparse_for_the_model() -> None:
    model = build_model(recipe({"density": 1.0, "input_share": 1.0}).model, 5, 3, 0.01, 0)
    assert isinstance(model, SpikingModel)
    assert masks(model)[0] is None
    assert int(masks(model)[1].sum()) == 60 * 59  # no synapse of a neuron to itself


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"model": {"pool": {"tau_mem": {"law": "gamma", "shape": 3.0}}}},
            "'gamma' is missing: expected shape and scale",
        ),
        ({"model": {"pool": {"tau_mem": {"law": "constant", "value": 1.0, "sigma": 2.0}}}}, "has no 'sigma'"),
        ({"model": {"pool": {}, "hidden": [3]}}, "'hidden' says nothing about a pool"),
        ({"model": {"pool": {}, "neuron": {"tau_mem": 0.1}}}, r"described by \[model.pool\]"),
        ({"model": {"pool": {}, "neuron": {"kind": "adlif"}}}, "kind 'lif' or 'cubalif', got 'adlif'"),
        ({"model": {"pool": {"rewire": 0.5}}}, "'rewire' belongs to structure 'small-world'"),
        ({"model": {"pool": {"file": "a.snn.h5", "size": 30}}}, "'size' draws a pool, but the pool comes from"),
        ({"model": {"pool": {"learn": []}, "batch_norm": True}}, "set batch_norm = false"),
        ({"train": {"learning": "ridge", "epochs": 2}}, "after one pass; set 1, got 2"),
        ({"train": {"learning": "ridge", "epochs": 1}}, "set learn = "),
        ({"model": {"hidden": [8]}, "train": {"stdp": {}}}, r"add a table \[model.pool\]"),
        (
            {"model": {"pool": {"learn": []}, "readout": {"reduce": "max"}}, "train": {"learning": "ridge"}},
            "'mean' or 'last'",
        ),
    ],
)
def test_what_a_recipe_cannot_say(change: dict[str, Any], sentence: str) -> None:
    values: dict[str, Any] = {"name": "a", "summary": "", "model": {"pool": {}}, "train": {}}
    values |= {"model": {"batch_norm": False, "readout": {"reduce": "mean"}, **change.get("model", {"pool": {}})}}
    values["train"] = {"epochs": 1, "batch_size": 4, **change.get("train", {})}
    with pytest.raises(InputError, match=sentence):
        recipe_from_dict(values)


def test_pools_that_cannot_work_are_refused_with_the_remedy(toy: Dataset, tmp_path: Path) -> None:
    data = prepare(recipe(), toy, 0)

    def refuse(spec: Recipe, sentence: str) -> None:
        with pytest.raises(InputError, match=sentence):
            Trainer(spec, data, 0).initialise()

    loud = {"input_weight": 50.0, "radius": 30.0, "excitatory": 1.0}
    values = recipe(loud).to_dict()
    values["model"].pop("initial_rate")
    refuse(recipe_from_dict(values), "drives itself; lower pool.radius")
    values["model"]["pool"] |= {"input_weight": 1e-9, "radius": 0.1}
    refuse(recipe_from_dict(values), "too few to read; raise pool.input_weight")
    refuse(recipe({"density": 1e-6}), "no synapse among 60 neurons .* raise it")
    refuse(
        recipe(
            {"learn": [], "excitatory": 1.0}, stdp={"a_plus": 3.0, "a_minus": 0.0, "w_max": 1e6, "normalise": False}
        ),
        "lower stdp.a_plus",
    )
    refuse(recipe({"excitatory": 0.0}, stdp={}), "no excitatory synapse")
    refuse(recipe({"tau_max": 0.01}), "at least two steps of 0.01 s")

    path = tmp_path / "pool.snn.h5"
    make_pool(PoolPlan(size=20, probability=0.3, dt=0.001)).network.save(path)
    of_file: dict[str, Any] = {"name": "a", "summary": "", "train": {"epochs": 1, "batch_size": 4}}
    of_file["model"] = {"pool": {"file": str(path)}, "batch_norm": False, "readout": {"reduce": "mean"}}
    refuse(recipe_from_dict(of_file), "made for steps of 0.001 s, the recipe has data.dt = 0.01")
    make_pool(PoolPlan(size=20, probability=0.3, dt=0.01, n_inputs=3)).network.save(path)
    refuse(recipe_from_dict(of_file), "its input has 3 channels, the data have")
    network = make_pool(PoolPlan(size=20, probability=0.3, dt=0.01)).network
    network.with_weights({0: np.zeros((20, 20))}).save(path)
    refuse(recipe_from_dict(of_file), "has no synapse left; keep more of them")


def test_a_budget_that_cuts_off_a_class_is_refused(toy: Dataset) -> None:
    spec = recipe(prune={"method": "magnitude", "keep": 0.01, "layers": ["layer1", "readout"]})
    trainer = Trainer(spec, prepare(spec, toy, 0), 0)
    trainer.initialise()
    trainer.begin_epoch()
    with pytest.raises(InputError, match=r"without a path from the input; raise prune\.keep"):
        trainer.prune()


def test_a_rule_that_cannot_learn_a_pool_says_so(toy: Dataset) -> None:
    for table, kind, sentence in (
        ({"learning": "ottt", "loss": "per_step"}, "lif", "expected no recurrent connection"),
        ({"learning": "sltt", "loss": "per_step"}, "cubalif", "has CubaLIF neurons"),
    ):
        spec = recipe(neuron={"kind": kind}, **table)
        trainer = Trainer(spec, prepare(spec, toy, 0), 0)
        with pytest.raises(InputError, match=sentence):
            trainer.check_rule()


@pytest.mark.parametrize("name", [name for name in list_recipes() if load_recipe(name).model.pool is not None])
def test_recipes_of_pools_learn_the_toy(name: str, toy: Dataset, tmp_path: Path) -> None:
    few = [] if load_recipe(name).train.learning == "ridge" else ["train.epochs=8"]
    spec = load_recipe(name, ["model.pool.size=80", "data.dt=0.01", "data.align=first-spike", *few])
    accuracy = train(spec, toy, tmp_path / "run").results["best-validation"]["valid_accuracy"]
    assert accuracy > 0.7  # 0.25 by chance; without delays what distinguishes the classes is hard


@pytest.mark.parametrize("method", ["activity", "neurons"])
def test_neurons_without_input_synapses_can_stay_when_neurons_are_pruned(toy: Dataset, method: str) -> None:
    made = recipe({"input_share": 0.3}, prune={"method": method, "keep": 0.8})
    trainer = Trainer(made, prepare(made, toy, 0), 0)
    fed = masks(trainer.model)[0].any(dim=1)  # type: ignore[arg-type]
    assert int(fed.sum()) == 18
    trainer.initialise()
    trainer.begin_epoch()
    assert trainer.prune()
    feed, loop = masks(trainer.model)  # type: ignore[arg-type]
    assert int((feed.any(dim=1) | loop.any(dim=1) | loop.any(dim=0)).sum()) == 48


def test_densities_of_a_pool_count_the_synapses_that_it_began_with(toy: Dataset) -> None:
    made = recipe(prune={"method": "magnitude", "keep": 0.5, "distribution": "erdos-renyi"})
    trainer = Trainer(made, prepare(made, toy, 0), 0)
    before = trainer.pruner.whole if trainer.pruner is not None else {}
    trainer.begin_epoch()
    assert trainer.prune()
    block: Any = trainer.model.layers()[0]
    left = int(block.connection.mask.sum()) + int(block.neuron.mask.sum())
    assert left == round(0.5 * sum(int(mask.sum()) for mask in before.values()))


@pytest.mark.parametrize("method", ["rigl", "deep-r", "snip"])
def test_methods_that_follow_gradients_refuse_synapses_that_are_not_trained(toy: Dataset, method: str) -> None:
    made = recipe({"learn": ["input"]}, prune={"method": method, "keep": 0.5})
    with pytest.raises(InputError, match="layer1 recurrence are not trained"):
        Trainer(made, prepare(made, toy, 0), 0)


def test_pools_beyond_what_numbers_or_memory_hold_are_refused() -> None:
    for pool, words in (
        ({"size": 10**8}, "at most 10000 neurons"),
        ({"inhibition": 1e300, "radius": 0.0}, "beyond float32"),
        ({"tau_mem": {"law": "log-normal", "median": 0.02, "sigma": 500.0}, "homogeneous": True}, "float64 holds"),
    ):
        with pytest.raises(InputError, match=words):
            build_model(recipe(pool).model, 7, 4, 0.01)


@pytest.mark.parametrize(("change", "name"), [({"drive": 50.0}, "drive"), ({"start_step": 3}, "start_step")])
def test_a_pool_from_a_file_loses_nothing_unsaid(change: dict[str, Any], name: str, tmp_path: Path) -> None:
    made = make_pool(PoolPlan(size=20, n_inputs=7, probability=0.3, dt=0.01)).network
    pool = made.populations[0]
    new = replace(pool, neuron=replace(pool.neuron, **change)) if "drive" in change else replace(pool, **change)
    path = made.replace(populations=(new,)).save(tmp_path / "pool.snn.h5")
    table = recipe_from_dict(
        {
            "name": "pool",
            "summary": "",
            "model": {"batch_norm": False, "pool": {"file": str(path)}},
            "train": {"epochs": 1, "batch_size": 8},
        }
    )
    with pytest.raises(InputError, match=f"population 'pool' has '{name}', which a trained pool has not"):
        build_model(table.model, 7, 4, 0.01)


def test_keys_that_draw_an_input_are_refused_beside_a_file_that_has_one(tmp_path: Path) -> None:
    for n_inputs in (7, 0):
        path = make_pool(PoolPlan(size=20, n_inputs=n_inputs, probability=0.3, dt=0.01)).network.save(
            tmp_path / f"{n_inputs}.snn.h5"
        )
        for key, value in (("input_share", 0.9), ("input_weight", 0.3), ("seed", 5)):
            model = {"batch_norm": False, "pool": {"file": str(path), key: value}}
            train = {"epochs": 1, "batch_size": 8}
            spec = recipe_from_dict({"name": "pool", "summary": "", "model": model, "train": train}).model
            if n_inputs:
                with pytest.raises(InputError, match=f"model.pool.{key}: draws synapses from the input"):
                    build_model(spec, 7, 4, 0.01)
            else:
                build_model(spec, 7, 4, 0.01)
