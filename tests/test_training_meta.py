"""Recipes with neurons that draw random numbers: training, evaluation on engines, and what they refuse."""

from pathlib import Path

import numpy as np
import pytest

from snnsim.datasets.dataset import Dataset
from snnsim.datasets.frames import Frames
from snnsim.datasets.toy import make_toy
from snnsim.engines import simulate
from snnsim.errors import InputError
from snnsim.network import Network
from snnsim.recipes import load_recipe
from snnsim.training import evaluate, load_run, train

META = [
    *("model.neuron.kind=meta", "model.neuron.tau_law=exact", "model.neuron.release=0.8"),
    *("model.neuron.amplitude=0.3", "model.neuron.temperature=0.2", "model.connection.kind=linear"),
    'model.neuron.learn=["tau_mem", "v_threshold", "v_reset", "release", "amplitude", "temperature", "drive_step"]',
]
SMALL = ["model.hidden=[24]", "train.epochs=2", "model.dropout=0.0"]


@pytest.fixture(scope="module")
def toy() -> Dataset:
    return make_toy()


def test_the_recipe_learns_images_and_its_numbers_move(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(160) % 4
    values = 0.2 * rng.random((160, 64), dtype=np.float32)
    for image, label in zip(values, labels, strict=True):
        image[16 * label : 16 * label + 8] += 0.6
    frames = Frames.build(values.reshape(160, 1, 64), labels, 1e-3)
    bars = Dataset("bars", frames.subset(np.arange(120)), frames.subset(np.arange(120, 160)), None, "0" * 64)
    changes = ["train.epochs=6", "train.batch_size=16", "model.hidden=[16]"]
    result = train(load_recipe("digits-meta", changes), bars, tmp_path / "run")
    accuracy = result.results["last-epoch"]["valid_accuracy"]
    assert accuracy is not None
    assert accuracy >= 0.9
    record = load_run(tmp_path / "run").network("last").population("hidden1").neuron
    assert record.kind == "MetaNeuron"
    for name, start in (("release", 0.8), ("amplitude", 0.3), ("temperature", 0.2)):
        assert np.all(getattr(record, name) != start), name
        assert np.std(getattr(record, name)) > 0, name


@pytest.mark.parametrize("kind", ["meta", "levy-baxter"])
def test_a_run_is_evaluated_with_the_same_draws_by_torch_and_by_the_clock_engine(
    kind: str, toy: Dataset, tmp_path: Path
) -> None:
    changes = META if kind == "meta" else ["model.neuron.kind=levy-baxter", "model.connection.kind=linear"]
    if kind == "levy-baxter":
        changes += ["model.neuron.tau_mem=0.02", "model.neuron.tau_law=exact", "model.neuron.release=0.9"]
        changes += ['model.neuron.learn=["release", "v_threshold"]']
    train(load_recipe("spoken-digits", [*changes, *SMALL]), toy, tmp_path / "run")
    torch_result = evaluate(tmp_path / "run", toy, split="test")
    clock = evaluate(tmp_path / "run", toy, split="test", engine="clock")
    assert torch_result.spikes > 1000
    assert abs(clock.spikes - torch_result.spikes) <= 0.001 * torch_result.spikes  # float32 beside float64
    assert np.mean(clock.predictions != torch_result.predictions) <= 0.01
    network = Network.load(tmp_path / "run" / "last.snn.h5")
    events = toy.test.subset(np.arange(4))
    one, two = (simulate(network, events, seed=seed).spikes["hidden1"].n_events for seed in (0, 1))
    assert one != two


def test_learned_delays_train_in_mean_mode_and_are_refused_with_draws(toy: Dataset, tmp_path: Path) -> None:
    changes = [*META, *SMALL, "train.epochs=1", "model.connection.kind=delayed"]
    changes[changes.index("model.connection.kind=linear")] = "model.neuron.mode=mean"
    train(load_recipe("spoken-digits", changes), toy, tmp_path / "run")
    network = Network.load(tmp_path / "run" / "last.snn.h5")
    assert network.population("hidden1").neuron.mode == "mean"
    assert network.max_delay_steps() > 0
    spikes = [simulate(network, toy.test.subset(np.arange(4)), seed=seed).spikes["hidden1"] for seed in (0, 1)]
    assert np.array_equal(spikes[0].times, spikes[1].times)
    with pytest.raises(InputError, match="positions of learned delays have no gradient"):
        train(load_recipe("spoken-digits", [*changes, "model.neuron.mode=stochastic"]), toy, tmp_path / "other")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (["model.neuron.kind=lif", "model.neuron.release=0.5"], "'lif' has no"),
        (["model.neuron.kind=lif", 'model.neuron.learn=["temperature"]'], "'lif' has no"),
        (["model.neuron.kind=levy-baxter", "model.neuron.tau_mem=0.01"], "'levy-baxter' has no"),
        (["model.neuron.kind=levy-baxter", 'model.neuron.learn=["tau_mem"]'], "'levy-baxter' has no"),
        (["model.recurrent=true"], "no random synapses for 'recurrent'"),
        (["model.residual=true"], "no random synapses for 'residual'"),
        (["model.neuron.release=0.0"], "release"),
        (["model.neuron.mode=median"], "mode"),
    ],
)
def test_recipes_refuse_what_neurons_cannot_do(changes: list[str], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        load_recipe("digits-meta", changes)
