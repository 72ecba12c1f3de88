"""Where two features meet: masks and random synapses, conductances in recipes, inhibition in networks, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from snnsim.complexity import lz76
from snnsim.complexity_classifier import LZClassifier, lz_features
from snnsim.datasets.toy import make_toy
from snnsim.engines import simulate
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.kernels.spike_bits import pack_spikes
from snnsim.learning.stdp import STDP, Chance, Reward, Teacher
from snnsim.learning.stdp_layer import STDPLayer
from snnsim.learning.tempotron_layer import TempotronLayer
from snnsim.neurons import LIF
from snnsim.neurons_stochastic import optimal_failure
from snnsim.nn.context import Context
from snnsim.nn.freeze import freeze
from snnsim.nn.model import build_model
from snnsim.nn.products import product
from snnsim.nn.thaw import thaw
from snnsim.recipes import load_recipe
from snnsim.training import evaluate, load_run, train

PLAIN = ["model.hidden=[12]", "model.connection.kind=linear", "model.batch_norm=false", "train.epochs=1"]


def events(n: int = 6, label: int | None = None) -> Events:
    rng = np.random.default_rng(0)
    times = [np.sort(rng.integers(0, 40, 30)) * 0.001 for _ in range(n)]
    labels = [k % 2 if label is None else label for k in range(n)]
    return Events.from_lists(times, [rng.integers(0, 8, 30) for _ in range(n)], 8, labels, 0.05)


def test_conductances_train_from_a_recipe_and_freeze(tmp_path: Path) -> None:
    changes = [*PLAIN, "model.neuron.kind=liquid", "model.neuron.tau_law=exact", "model.neuron.v_threshold=0.5"]
    changes += ["model.neuron.learn=['tau_mem', 'e_exc']", "model.neuron.learn_per=neuron", "train.batch_size=16"]
    recipe = load_recipe("shd-dcls", changes)
    data = make_toy(n_train=48, n_test=16)
    result = train(recipe, data, tmp_path / "run")
    run = load_run(tmp_path / "run")
    seen = evaluate(run, data, which="last", engine="clock").accuracy
    assert seen == result.results["last-epoch"]["test_accuracy"]
    assert {(item.quantity, item.count) for item in run.moved("last") if item.layer == "layer1"} >= {
        ("tau_mem", 12),
        ("e_exc", 12),
    }
    with pytest.raises(InputError, match="expected at least one layer besides the readout"):
        train(load_recipe("shd-dcls", [*changes, "prune.method=random", "prune.keep=0.5"]), data, tmp_path / "other")


@pytest.mark.parametrize("kind", ["meta", "levy-baxter"])
def test_masks_of_random_synapses_stop_gradients_and_come_back(kind: str) -> None:
    changes = [*PLAIN, f"model.neuron.kind={kind}", "model.neuron.release=0.7"]
    if kind == "levy-baxter":
        changes += ["model.neuron.tau_law=exact", "model.neuron.tau_mem=0.02"]
    spec = load_recipe("meta-study", changes).model
    model = build_model(spec, 8, 3, 0.001, 0)
    generator = torch.Generator().manual_seed(0)
    layer = model.blocks[0].connection
    with torch.no_grad():
        layer.weight.normal_(0.6, 1.0, generator=generator)
    mask = torch.rand(12, 8, generator=generator) < 0.5
    layer.set_mask(mask)
    x = (torch.rand(30, 4, 8, generator=generator) < 0.3).float()
    model.double().train()
    output = model(x.double(), None, Context(None, torch.arange(4), 0, 0))
    output.logits.square().sum().backward()
    gradient = layer.weight.grad
    assert torch.all(gradient[~mask] == 0)
    assert torch.any(gradient[mask] != 0)
    model.eval()
    network = freeze(model)
    again = thaw(network).double().eval()
    assert torch.equal(again.blocks[0].connection.mask, mask)
    context = Context(None, torch.arange(4), 0, 0)
    assert torch.equal(model(x.double(), None, context).logits, again(x.double(), None, context).logits)


def test_what_grows_must_learn() -> None:
    changes = ["model.connection.learn_weight=false", "prune.keep=0.5"]
    for method in ("rigl", "deep-r"):
        with pytest.raises(InputError, match="start at 0 and have to learn"):
            load_recipe("shd-lif", [*changes, f"prune.method={method}"])
    load_recipe("shd-lif", [*changes, "prune.method=random"])


def test_inhibition_and_random_synapses_are_no_network() -> None:
    rule = STDP(a_plus=0.0, a_minus=0.0)
    with pytest.raises(InputError, match="lateral synapses would release at random too"):
        STDPLayer(8, 3, rule, chance=Chance(release=0.5), inhibition=0.4).network()
    layer = STDPLayer(8, 3, rule, neuron=LIF(v_threshold=0.5), chance=Chance(temperature=0.1), inhibition=0.4)
    spikes = simulate(layer.network(), events(), seed=0).spikes["stdp"]
    assert np.array_equal(layer.spikes(events()).times, spikes.times)
    assert spikes.n_events > 20


def test_rewards_labels_and_counts_are_checked() -> None:
    rule = STDP(a_plus=0.01, a_minus=0.01)
    rewarded = STDPLayer(8, 3, rule, reward=Reward())
    for bad in (float("nan"), None):
        with pytest.raises(InputError, match="reward: expected a finite number"):
            rewarded.fit(events(), reward=lambda label, counts, bad=bad: bad)
    taught = STDPLayer(8, 4, rule, teacher=Teacher(n_classes=2, current=0.1))
    for score in (taught.score, TempotronLayer(8, 2, 2).score, LZClassifier("rate").fit(events()).score):
        with pytest.raises(InputError, match="label"):
            score(events(label=-1))
    with pytest.raises(InputError, match="teacher: expected Teacher, got int"):
        STDPLayer(8, 4, rule, teacher=3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="expected labelled samples, got none"):
        taught.assign(events(0))
    for fit in (taught.fit, TempotronLayer(8, 2, 2).fit):
        with pytest.raises(InputError, match=r"epochs: expected a whole number of at least 1, got 1\.5"):
            fit(events(), 1.5)  # type: ignore[operator]
    silent = Events.from_lists([[], []], [[], []], 8, [0, 1], 0.05)
    assert TempotronLayer(8, 2, 2).fit(silent).tolist() == [0.5]  # each neuron misses its own sample


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: lz_features(np.full((4, 2, 3), np.nan)), "finite and not negative"),
        (lambda: lz_features(-np.ones((4, 2, 3))), "finite and not negative"),
        (lambda: lz_features(np.ones((4, 2, 3)), 2.7), "expected a whole number"),
        (lambda: lz_features(np.ones((4, 2, 3)), [1, 2, 3]), "one a sample"),
        (lambda: lz76([[0, 1], 3]), "symbols: expected"),  # type: ignore[list-item]
        (lambda: lz76([0, 1], alphabet="a"), "alphabet: expected a whole number"),  # type: ignore[arg-type]
        (lambda: LZClassifier(penalty=float("inf")), "penalty: expected a positive number"),
        (lambda: optimal_failure(-1), "entropies of an event within"),
        (lambda: product(torch.ones(3, 2), torch.ones(4, 5)), "product: expected matrices"),
        (lambda: product(torch.ones(3, 2), torch.ones(2, 5).double()), "of one dtype"),
    ],
)
def test_small_refusals(call: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        call()


def test_small_edges() -> None:
    assert lz76([[], [1, 0]]).tolist() == [0, 2]
    for n in (3, 67):
        x = np.zeros(n)
        x[-1] = np.inf
        assert pack_spikes(x, np.inf, 1) is None


def test_no_more_types_than_neurons() -> None:
    spec = load_recipe("meta-study", [*PLAIN, "model.neuron.kind=meta-dynamic", "model.neuron.types=99"]).model
    with pytest.raises(InputError, match=r"types: expected at most one a neuron of the layer \(12\), got 99"):
        build_model(spec, 8, 3, 0.001)
