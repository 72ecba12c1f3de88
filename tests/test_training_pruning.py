"""Pruning in training runs: budgets, schedules, seeds, resume, rewinding, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from snnsim.datasets.dataset import Dataset
from snnsim.datasets.toy import make_toy
from snnsim.errors import InputError
from snnsim.network import Network, Sparse
from snnsim.nn.formulation import maskable_layers
from snnsim.nn.masks import revealed
from snnsim.recipes import load_recipe
from snnsim.training import TrainingInterrupted, load_run, train
from snnsim.training.checkpoint import load_tensors
from snnsim.training.prepare import prepare
from snnsim.training.trainer import Trainer

LIF = ["model.hidden=[16, 12]", "train.batch_size=16", "train.epochs=4", "data.channels=20", "model.dropout=0.1"]


@pytest.fixture(scope="module")
def toy() -> Dataset:
    return make_toy(n_train=96, n_test=16)


def trainer_of(toy: Dataset, *prune: str, recipe: str = "shd-lif", changes: list[str] | None = None) -> Trainer:
    loaded = load_recipe(recipe, [*LIF, *(changes or []), *(f"prune.{item}" for item in prune)])
    trainer = Trainer(loaded, prepare(loaded, toy, 0), 0)
    if trainer.pruner is not None:
        trainer.pruner.initial = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.begin_epoch()
    trainer.prune()
    return trainer


def kept(trainer: Trainer) -> dict[str, int]:
    found = {}
    for name, module in maskable_layers(trainer.model).items():
        found[name] = module.weight.numel() if module.mask is None else int(module.mask.sum())
    return found


@pytest.mark.parametrize("method", ["magnitude", "random", "snip", "synflow", "rigl", "deep-r"])
def test_the_budget_is_exact_and_the_readout_whole_unless_named(toy: Dataset, method: str) -> None:
    trainer = trainer_of(toy, f"method={method}", "keep=0.3")
    sizes = {name: module.weight.numel() for name, module in maskable_layers(trainer.model).items()}
    wanted = {name: round(0.3 * size) for name, size in sizes.items() if name != "readout"}
    assert kept(trainer) == {**wanted, "readout": sizes["readout"]}
    for module in maskable_layers(trainer.model).values():
        if module.mask is not None:
            assert not module.weight[~module.mask].any()
    for batch in trainer.batches.epoch(0):
        trainer.train_batch(batch)
    assert kept(trainer) == {**wanted, "readout": sizes["readout"]}


def test_one_budget_for_all_layers(toy: Dataset) -> None:
    trainer = trainer_of(toy, "method=magnitude", "keep=0.3", "scope=global", "layers=['layer2','readout']")
    count, sizes = kept(trainer), {name: m.weight.numel() for name, m in maskable_layers(trainer.model).items()}
    assert count["layer1"] == sizes["layer1"]
    total = sizes["layer2"] + sizes["readout"]
    assert count["layer2"] + count["readout"] == round(0.3 * total)
    assert count["layer2"] != round(0.3 * sizes["layer2"])
    layers = maskable_layers(trainer.model)
    weights = torch.cat([layers[name].weight.detach().abs().reshape(-1) for name in ("layer2", "readout")])
    assert trainer.pruner is not None
    before = torch.cat(
        [trainer.pruner.initial[trainer.pruner.parameters[name]].abs().reshape(-1) for name in ("layer2", "readout")]
    )
    assert float(before[weights == 0].max()) <= float(before[weights > 0].min())


@pytest.mark.parametrize("method", ["random", "rigl", "deep-r"])
def test_the_same_seed_gives_the_same_mask(toy: Dataset, method: str) -> None:
    masks = []
    for _ in range(2):
        trainer = trainer_of(toy, f"method={method}", "keep=0.3")
        masks.append([m.mask for m in maskable_layers(trainer.model).values() if m.mask is not None])
    assert len(masks[0]) == 2
    assert all(torch.equal(a, b) for a, b in zip(*masks, strict=True))


def test_rigl_moves_synapses_and_grows_where_the_gradient_is_largest(toy: Dataset) -> None:
    trainer = trainer_of(toy, "method=rigl", "keep=0.2", "interval=2", "fraction=0.4", "stop=1.0")
    layer = maskable_layers(trainer.model)["layer2"]
    start, batches = kept(trainer), list(trainer.batches.epoch(0))
    assert layer.mask is not None
    trainer.train_batch(batches[0])
    trainer.train_batch(batches[1])
    old, weight = layer.mask.clone(), layer.weight.detach().clone()
    with revealed(trainer.model):
        trainer.forward_backward(batches[2])
    assert layer.weight.grad is not None
    gradient = layer.weight.grad.clone()
    trainer.train_batch(batches[2])  # step 2: no learning, but other synapses
    assert kept(trainer) == start
    assert not torch.equal(old, layer.mask)
    grown = layer.mask & ~old
    assert torch.equal(layer.weight[layer.mask & old], weight[layer.mask & old])
    assert not layer.weight[grown].any()
    never = ~layer.mask & ~old
    assert float(gradient[grown].abs().min()) >= float(gradient[never].abs().max()) > 0
    gone = old & ~layer.mask
    assert float(weight[gone].abs().max()) <= float(weight[old & layer.mask].abs().median())
    trainer.train_batch(batches[3])
    assert layer.weight[grown].any()


def test_deep_r_keeps_signs_and_the_budget(toy: Dataset) -> None:
    trainer = trainer_of(
        toy, "method=deep-r", "keep=0.2", "temperature=1e-4", "l1=0.5", changes=["train.weights.lr=0.02"]
    )
    start, changed = kept(trainer), 0
    assert trainer.pruner is not None
    for epoch in range(2):
        for batch in trainer.batches.epoch(epoch):
            before = [m.mask.clone() for m in trainer.pruner.layers.values() if m.mask is not None]
            trainer.train_batch(batch)
            after = [m.mask for m in trainer.pruner.layers.values() if m.mask is not None]
            changed += sum(int((a != b).sum()) for a, b in zip(before, after, strict=True))
            assert kept(trainer) == start
    assert changed > 10
    for name, module in trainer.pruner.layers.items():
        sign = trainer.pruner.initial[trainer.pruner.parameters[name]].sign()
        assert float((module.weight.detach() * sign).min()) >= 0


def test_snip_scores_are_gradient_times_weight(toy: Dataset) -> None:
    from snnsim.training.pruning_scores import snip_scores

    trainer = trainer_of(toy, "method=snip", "keep=1.0")
    batch = next(trainer.batches.epoch(0))
    buffers = {name: value.clone() for name, value in trainer.model.named_buffers()}
    scores = snip_scores(trainer)
    assert all(torch.equal(buffers[name], value) for name, value in trainer.model.named_buffers())
    trainer.forward_backward(batch)
    for name, module in maskable_layers(trainer.model).items():
        assert module.weight.grad is not None
        wanted = (module.weight.grad * module.weight.detach()).abs().numpy()
        np.testing.assert_array_equal(scores[name], wanted)
        assert scores[name].max() > 0


def test_quiet_or_small_neurons_lose_all_their_synapses(toy: Dataset) -> None:
    from snnsim.training.pruning_scores import neuron_rates

    for method in ("activity", "neurons"):
        trainer = trainer_of(toy, f"method={method}", "keep=0.5", changes=["model.recurrent=true"])
        layers = maskable_layers(trainer.model)
        masks = {name: module.mask for name, module in layers.items()}
        assert all(mask is not None for mask in masks.values())
        for name, after, size in (("layer1", "layer2", 16), ("layer2", "readout", 12)):
            into, out, loop = masks[name], masks[after], masks[f"{name} recurrence"]
            assert into is not None
            assert out is not None
            assert loop is not None
            alive = into.any(dim=1)
            assert int(alive.sum()) == size // 2
            assert torch.equal(out.any(dim=0), alive)
            assert torch.equal(loop, alive[:, None] & alive[None, :])
        if method == "activity":
            fresh = trainer_of(toy, f"method={method}", "keep=1.0", changes=["model.recurrent=true"])
            rates = neuron_rates(fresh)
            alive = masks["layer1"].any(dim=1).numpy()  # type: ignore[union-attr]
            assert rates[0][alive].min() >= rates[0][~alive].max()
            assert rates[0].max() > rates[0].min()


def test_delayed_taps_go_one_by_one_or_with_their_synapse(toy: Dataset) -> None:
    delayed = ["model.connection.max_delay=0.1", "model.connection.taps=3", "model.hidden=[16, 12]"]
    single = trainer_of(toy, "method=magnitude", "keep=0.25", recipe="shd-dcls", changes=delayed)
    whole = trainer_of(toy, "method=magnitude", "keep=0.25", "unit=synapse", recipe="shd-dcls", changes=delayed)
    for trainer, lonely in ((single, True), (whole, False)):
        mask = maskable_layers(trainer.model)["layer2"].mask
        assert mask is not None
        taps = mask.sum(dim=2)
        assert bool(((taps > 0) & (taps < 3)).any()) == lonely
    mask, one = (maskable_layers(t.model)["layer2"].mask for t in (whole, single))
    assert mask is not None
    assert one is not None
    assert int(mask[:, :, 0].sum()) == round(0.25 * 16 * 12)
    assert int(one.sum()) == round(0.25 * 16 * 12 * 3)
    assert whole.pruner is not None
    before = whole.pruner.initial["blocks.1.connection.weight"].abs().sum(dim=2)
    assert float(before[mask[:, :, 0]].min()) >= float(before[~mask[:, :, 0]].max())


def run(toy: Dataset, out: Path, *prune: str, **options: Any) -> Path:
    loaded = load_recipe("shd-lif", [*LIF, *(f"prune.{item}" for item in prune)])
    train(loaded, toy, out, seed=0, **options)
    return out


def test_a_run_in_rounds_writes_densities_masks_and_a_sparse_network(toy: Dataset, tmp_path: Path) -> None:
    out = run(toy, tmp_path / "a", "method=magnitude", "keep=0.25", "rounds=2", "start=1", "every=1")
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [round(line["density"]["layer2"], 2) for line in lines] == [1.0, 0.5, 0.25, 0.25]
    assert {line["density"]["readout"] for line in lines} == {1.0}
    for name in ("last", "best"):
        tensors = load_tensors(out / f"{name}.safetensors")
        mask = tensors["blocks.0.connection.mask"]
        assert mask.dtype == torch.bool
        assert int(mask.sum()) == round(0.25 * mask.numel())
        network = Network.load(out / f"{name}.snn.h5")
        weight = network.projections[0].weight
        assert isinstance(weight, Sparse)
        assert weight.nnz == int(mask.sum())
    model = load_run(out).model("best")
    assert maskable_layers(model)["layer1"].density == pytest.approx(0.25, abs=0.01)
    assert json.loads((out / "result.json").read_text())["results"]["best-validation"]["epoch"] >= 3


@pytest.mark.parametrize(
    "prune",
    [
        ("method=magnitude", "keep=0.2", "rounds=2", "start=1", "rewind=true"),
        ("method=rigl", "keep=0.2", "interval=2"),
        ("method=deep-r", "keep=0.2", "temperature=1e-4"),
        ("method=snip", "keep=0.1"),
    ],
    ids=lambda items: items[0],
)
def test_a_resumed_run_ends_in_the_same_bytes(toy: Dataset, tmp_path: Path, prune: tuple[str, ...]) -> None:
    straight = run(toy, tmp_path / "straight", *prune)
    for stop in (3, 5, 11):
        seen = 0

        def interrupt(kind: str, facts: dict[str, Any], stop: int = stop) -> None:
            nonlocal seen
            seen += kind == "batch"
            if kind == "batch" and seen == stop:
                raise TrainingInterrupted("planned")

        out = tmp_path / f"stopped{stop}"
        with pytest.raises(TrainingInterrupted):
            run(toy, out, *prune, callback=interrupt, checkpoint_seconds=0.0)
        run(toy, out, *prune, resume=True)
        for name in ("metrics.jsonl", "initial.safetensors", "last.safetensors", "best.safetensors", "last.snn.h5"):
            assert (out / name).read_bytes() == (straight / name).read_bytes(), (stop, name)


def test_rewinding_goes_back_to_the_initial_weights(toy: Dataset) -> None:
    trainer = trainer_of(toy, "method=magnitude", "keep=0.3", "start=1", "rewind=true")
    for batch in trainer.batches.epoch(0):
        trainer.train_batch(batch)
    trainer.end_epoch()
    trained = maskable_layers(trainer.model)["layer2"].weight.detach().clone()
    assert trainer.prune()
    layer = maskable_layers(trainer.model)["layer2"]
    assert trainer.pruner is not None
    first = trainer.pruner.initial["blocks.1.connection.weight"]
    assert layer.mask is not None
    assert torch.equal(layer.weight[layer.mask], first[layer.mask])
    assert not torch.equal(trained[layer.mask], first[layer.mask])
    assert float(trained.abs()[layer.mask].min()) >= float(trained.abs()[~layer.mask].max())
    assert all(not group.optimiser.state for group in trainer.optimisers)


def test_what_is_refused(toy: Dataset) -> None:
    with pytest.raises(InputError, match=r"leaves class \d+ .*without a path from the input; raise prune.keep"):
        trainer_of(toy, "method=random", "keep=0.03", "layers=['readout']")
    with pytest.raises(InputError, match="expected some of layer1, layer2, readout, got 'hidden1'"):
        trainer_of(toy, "method=magnitude", "keep=0.5", "layers=['hidden1']")
    with pytest.raises(InputError, match="method 'random' has no 'rounds'; it takes keep, layers"):
        load_recipe("shd-lif", [*LIF, "prune.method=random", "prune.keep=0.5", "prune.rounds=3"])
    with pytest.raises(InputError, match="its last round comes at the beginning of epoch 5"):
        load_recipe("shd-lif", [*LIF, "prune.method=magnitude", "prune.keep=0.5", "prune.start=5"])
    with pytest.raises(InputError, match="prunes hidden layers such as layer1, got 'readout'"):
        trainer_of(toy, "method=neurons", "keep=0.5", "layers=['readout']")
    with pytest.raises(InputError, match=r"prune.keep: .*greater than 0"):
        load_recipe("shd-lif", [*LIF, "prune.method=magnitude", "prune.keep=0.0"])
    with pytest.raises(InputError, match="layers whose synapses have weights of their own"):
        load_recipe("nmnist-vgg", ["prune.method=magnitude", "prune.keep=0.5"])


@pytest.mark.parametrize("method", ["deep-r", "snip"])
def test_a_range_test_runs_with_the_masks_and_leaves_none(toy: Dataset, method: str) -> None:
    from snnsim.training.lr_range import lr_range_test

    loaded = load_recipe("shd-lif", [*LIF, f"prune.method={method}", "prune.keep=0.1"])
    trainer = Trainer(loaded, prepare(loaded, toy, 0), 0)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    formulations = dict(trainer.formulations)
    result = lr_range_test(trainer, steps=6)
    assert len(result.table) > 0
    after = trainer.model.state_dict()
    assert set(after) == set(before)
    assert all(torch.equal(before[name], value) for name, value in after.items())
    assert trainer.formulations == formulations
