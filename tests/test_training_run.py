"""Runs: files, labels, looks at the test set, warnings, thread counts, frozen networks, evaluation, commands."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from snnsim.datasets.dataset import Dataset
from snnsim.datasets.toy import make_toy
from snnsim.errors import InputError, MissingLibraryError, SnnsimError, SnnsimFileError
from snnsim.recipes import Recipe, load_recipe
from snnsim.training import TrainingInterrupted, evaluate, load_run, reproduce, train
from snnsim.training.prepare import prepare
from snnsim.training.trainer import Trainer

SMALL = [
    "model.hidden=[16, 12]",
    "model.connection.max_delay=0.12",
    "train.batch_size=16",
    "train.epochs=6",
    "train.weights.schedule.unit=batch",
]


@pytest.fixture(scope="module")
def toy() -> Dataset:
    return make_toy(n_train=160, n_test=40)


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("shd-dcls", SMALL)


@pytest.fixture(scope="module")
def finished(toy: Dataset, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "first"
    train(recipe, toy, out, seed=1)
    return out


def test_run_folder_holds_everything(finished: Path, recipe: Recipe, toy: Dataset) -> None:
    run = load_run(finished)
    assert run.recipe.to_dict() == recipe.to_dict()
    manifest = run.manifest
    assert (manifest["seed"], manifest["n_train"], manifest["n_valid"], manifest["n_test"]) == (1, 128, 32, 40)
    assert manifest["data_digest"] == toy.digest
    assert {"torch", "numpy", "snnsim", "python"} <= set(manifest["versions"])
    assert "stratified" in manifest["split"]
    for name in ("best.safetensors", "last.safetensors", "best.snn.h5", "last.snn.h5", "result.json", "timing.jsonl"):
        assert (finished / name).stat().st_size > 0
    assert len(run.metrics) == 6
    words = json.dumps(run.metrics)
    assert "seconds" not in words
    assert "time" not in words


def test_results_are_labelled_and_the_test_set_is_used_once(finished: Path) -> None:
    run = load_run(finished)
    assert run.result is not None
    assert set(run.result["results"]) == {"last-epoch", "best-validation"}
    assert run.manifest["test_run_count"] == 1
    lines = run.metrics
    best = run.result["results"]["best-validation"]
    key = max((line["valid_accuracy"], -line["valid_loss"]) for line in lines)
    chosen = next(line for line in lines if (line["valid_accuracy"], -line["valid_loss"]) == key)
    assert best["epoch"] == chosen["epoch"]
    assert not any("test_accuracy" in line for line in lines)


def test_best_test_only_on_request_and_counted(toy: Dataset, recipe: Recipe, tmp_path: Path) -> None:
    result = train(recipe, toy, tmp_path / "run", seed=1, best_test=True)
    tested = [line["test_accuracy"] for line in load_run(tmp_path / "run").metrics]
    assert result.results["best-test"]["test_accuracy"] == max(tested)
    assert result.results["best-test"]["epoch"] == tested.index(max(tested)) + 1
    assert result.test_run_count == 7
    assert result.label == "best-validation"


def test_evaluation_repeats_and_is_counted(toy: Dataset, finished: Path, tmp_path: Path) -> None:
    own = shutil.copytree(finished, tmp_path / "run")  # the shared one keeps its count
    run = load_run(own)
    assert run.result is not None
    before = run.manifest["test_run_count"]
    for which, label in (("best", "best-validation"), ("last", "last-epoch")):
        again = evaluate(run, toy, which=which)  # type: ignore[arg-type]
        assert again.accuracy == run.result["results"][label]["test_accuracy"]
    assert load_run(own).manifest["test_run_count"] == before + 2
    valid = evaluate(run, toy, split="valid")
    assert valid.accuracy == run.result["results"]["best-validation"]["valid_accuracy"]
    assert load_run(own).manifest["test_run_count"] == before + 2


def test_clock_engine_gives_the_scores_of_torch(toy: Dataset, finished: Path) -> None:
    ours = evaluate(finished, toy, engine="torch", split="valid")
    frozen = evaluate(finished, toy, engine="clock", split="valid")
    assert np.array_equal(ours.predictions, frozen.predictions)
    assert np.allclose(ours.logits, frozen.logits, rtol=1e-3, atol=1e-3)
    assert frozen.rates == pytest.approx(ours.rates, rel=1e-6)
    assert frozen.synaptic_operations == pytest.approx(ours.synaptic_operations, rel=1e-6)


def test_evaluation_does_not_depend_on_batches(toy: Dataset, finished: Path) -> None:
    from snnsim.training.evaluation import evaluate_model
    from snnsim.training.prepare import prepare_split

    run = load_run(finished)
    model = run.model()
    events = prepare_split(run.recipe, toy, "test", run.manifest)
    results = []
    for size in (7, 40):
        other = load_recipe("shd-dcls", [*SMALL, f"train.eval_batch_size={size}"])
        results.append(evaluate_model(model, events, other, run.pool))
    assert np.array_equal(results[0].predictions, results[1].predictions)
    assert np.allclose(results[0].logits, results[1].logits, rtol=1e-6)
    assert results[0].spikes == results[1].spikes


def test_counted_padding_gives_every_sample_the_steps_of_the_longest(toy: Dataset) -> None:
    from snnsim.events import replace_fields
    from snnsim.training.prepare import prepare, prepare_split

    uneven = toy.train.duration.copy()
    uneven[:5] *= 1.5
    data = dataclasses.replace(toy, train=replace_fields(toy.train, duration=uneven))
    zero = "data.align=zero"
    counted = prepare(load_recipe("shd-dcls", [*SMALL, zero, "train.padding=counted"]), data, 0)
    masked = prepare(load_recipe("shd-dcls", [*SMALL, zero, "train.padding=masked"]), data, 0)
    longest = int(data.train.n_steps(0.01).max())
    assert counted.least_steps == longest
    assert masked.least_steps == 0
    for part in (counted.train, counted.valid, counted.test):
        assert part is not None
        assert np.all(part.n_steps(0.01) == longest)
    assert masked.test is not None
    assert masked.test.n_steps(0.01).max() < longest
    manifest = {"seed": 0, "n_units": counted.n_units, "least_steps": longest}
    recipe = load_recipe("shd-dcls", [*SMALL, zero, "train.padding=counted"])
    assert np.all(prepare_split(recipe, toy, "test", manifest).n_steps(0.01) == longest)


def test_frozen_network_is_the_stored_model(toy: Dataset, finished: Path) -> None:
    from snnsim.nn.freeze import freeze

    run = load_run(finished)
    assert run.network("last") == freeze(run.model("last"))


@pytest.mark.parametrize(
    "changes",
    [
        [],
        ["model.connection.kind=linear", "train.clip_norm=0.5", "model.neuron.tau_mem=0.1"],
        [
            "model.connection.kind=linear",
            "model.recurrent=true",
            "model.neuron.kind=adlif",
            "model.neuron.tau_law=exact",
        ],
        ["train.padding=masked", "train.loss=per_step", "train.rate.strength=0.1", "train.rate.upper=0.05"],
        ["train.augment.cutmix=0.5", "train.augment.blend=0.5", "train.augment.time_mask=0.3"],
    ],
)
def test_training_gives_the_same_bits_for_any_thread_count(toy: Dataset, changes: list[str]) -> None:
    recipe = load_recipe("shd-dcls", [*SMALL, "train.batch_size=64", *changes])
    before = torch.get_num_threads()
    states = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            trainer = Trainer(recipe, prepare(recipe, toy, 0), 0)
            trainer.begin_epoch()
            for batch in trainer.batches.epoch(0):
                trainer.train_batch(batch)
            states.append(([value.clone() for value in trainer.model.state_dict().values()], trainer.totals))
    finally:
        torch.set_num_threads(before)
    for state, totals in states[1:]:
        assert all(torch.equal(a, b) for a, b in zip(state, states[0][0], strict=True))
        assert totals == states[0][1]


def test_last_epochs_leave_rounded_delays_alone(toy: Dataset, tmp_path: Path) -> None:
    recipe = load_recipe("shd-dcls", [*SMALL, "train.epochs=3", "model.connection.fix_epochs_fraction=0.4"])
    positions, weights = [], []

    def keep(kind: str, facts: dict[str, Any]) -> None:
        if kind == "start":
            positions.append(facts["model"].blocks[0].connection.position)
            weights.append(facts["model"].blocks[0].connection.weight)
        elif kind == "epoch":
            positions.append(positions[0].detach().clone())
            weights.append(weights[0].detach().clone())

    train(recipe, toy, tmp_path / "run", callback=keep)
    assert len(positions) == 4
    assert not torch.equal(positions[2], positions[2].round())
    assert torch.equal(positions[3], positions[2].round())  # rounded at the start of the last epoch, then left
    assert not torch.equal(weights[3], weights[2])


def listen(news: list[tuple[str, dict[str, Any]]]) -> Any:
    return lambda kind, facts: news.append((kind, facts))


@pytest.mark.parametrize(
    ("change", "word", "layer"),
    [
        ("model.neuron.v_threshold=50.0", "silent", "hidden layer 1 of 2"),
        ("model.neuron.v_threshold=0.01", "saturated", "hidden layer 1 of 2"),
    ],
)
def test_dead_and_saturated_layers_are_named_within_ten_steps(
    toy: Dataset, tmp_path: Path, change: str, word: str, layer: str
) -> None:
    news: list[tuple[str, dict[str, Any]]] = []
    changes = [*SMALL, "train.epochs=1", "model.batch_norm=false", change]
    if word == "saturated":
        changes += ["model.neuron.v_reset=-1.0", "model.neuron.v_threshold=-0.5"]
        changes = [c for c in changes if c != change]
        with pytest.raises(InputError, match="v_threshold"):
            load_recipe("shd-dcls", changes)
        changes = [*SMALL, "train.epochs=1", "model.neuron.v_threshold=0.001", "model.neuron.tau_mem=0.0100001"]
    train(load_recipe("shd-dcls", changes), toy, tmp_path / "run", callback=listen(news))
    kinds = [kind for kind, _ in news]
    first = kinds.index("warning")
    text = news[first][1]["text"]
    assert word in text
    assert layer in text
    assert kinds[:first].count("batch") < 10
    assert load_run(tmp_path / "run").metrics[0]["warnings"][0] == text


def test_a_healthy_run_has_no_warnings(finished: Path) -> None:
    assert all(line["warnings"] == [] for line in load_run(finished).metrics)


def test_interrupt_writes_a_checkpoint_and_resume_ends_as_if_nothing_was(
    toy: Dataset, recipe: Recipe, finished: Path, tmp_path: Path
) -> None:
    seen = 0

    def stop(kind: str, facts: dict[str, Any]) -> None:
        nonlocal seen
        seen += kind == "batch"
        if kind == "batch" and seen == 11:
            os.kill(os.getpid(), signal.SIGINT)

    out = tmp_path / "run"
    with pytest.raises(TrainingInterrupted, match="epoch 2 after batch 3"):
        train(recipe, toy, out, seed=1, callback=stop)
    train(recipe, toy, out, seed=1, resume=True)
    for name in ("metrics.jsonl", "last.safetensors", "best.safetensors"):
        assert (out / name).read_bytes() == (finished / name).read_bytes()


def test_no_validation_trains_on_everything(toy: Dataset, tmp_path: Path) -> None:
    recipe = load_recipe("shd-dcls", [*SMALL, "train.epochs=1", "train.validation.how=none"])
    result = train(recipe, toy, tmp_path / "run")
    assert set(result.results) == {"last-epoch"}
    run = load_run(tmp_path / "run")
    assert run.manifest["n_train"] == 160
    assert run.default == "last"
    assert not (tmp_path / "run" / "best.snn.h5").exists()
    with pytest.raises(SnnsimFileError, match="no validation set"):
        run.model("best")


def test_a_diverging_run_is_refused(toy: Dataset, tmp_path: Path) -> None:
    changes = [*SMALL, "train.weights.optimiser=sgd", "train.weights.lr=1e30", "model.batch_norm=false"]
    with pytest.raises(InputError, match=r"the loss is (nan|inf) in epoch 1, batch \d+; try a lower"):
        train(load_recipe("shd-dcls", changes), toy, tmp_path / "run")


def test_folder_in_use_is_refused(toy: Dataset, recipe: Recipe, tmp_path: Path) -> None:
    from snnsim.training.run_folder import RunFolder

    holder = RunFolder(tmp_path / "run")
    holder.lock()
    with pytest.raises(InputError, match="another process is training"):
        train(recipe, toy, tmp_path / "run")
    holder.release()
    with pytest.raises(InputError, match="no test split"):
        train(recipe, Dataset("one", toy.train, None, None, "0" * 64), tmp_path / "run", best_test=True)
    assert not (tmp_path / "run").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("x")
    with pytest.raises(SnnsimFileError, match="not empty"):
        train(recipe, toy, tmp_path / "other")


def test_data_that_do_not_fit_are_refused(toy: Dataset, finished: Path) -> None:
    wide = make_toy(n_groups=12, n_train=20, n_test=20)
    with pytest.raises(InputError, match="has 48 channels, the run was trained on 40"):
        evaluate(finished, wide)
    more = make_toy(n_classes=6, n_train=24, n_test=24)
    with pytest.raises(InputError, match="has 6 classes, the run was trained on 4"):
        evaluate(finished, more)
    with pytest.raises(InputError, match="engine 'quantum' is not known; known: torch, clock"):
        evaluate(finished, toy, engine="quantum")
    with pytest.raises(SnnsimFileError, match="expected a run folder"):
        load_run(finished / "none")


@pytest.mark.parametrize("damage", ["{", "[]", "\x00"])
def test_damaged_run_files_are_one_sentence(finished: Path, tmp_path: Path, damage: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    (run / "manifest.json").write_text(damage)
    with pytest.raises(SnnsimError):
        load_run(run)
    shutil.copy(finished / "manifest.json", run)
    (run / "best.safetensors").write_bytes(b"\xff" * 30)
    with pytest.raises(SnnsimFileError, match="not a whole safetensors file"):
        load_run(run).model()
    shutil.copy(finished / "best.safetensors", run)
    values = json.loads((run / "recipe.json").read_text())
    values["model"]["hidden"] = [16, 13]
    (run / "recipe.json").write_text(json.dumps(values))
    with pytest.raises(SnnsimFileError, match="does not fit the recipe") as caught:
        load_run(run).model()
    assert "\n" not in str(caught.value)


def test_reproduce_gives_mean_and_spread_beside_the_published_number(toy: Dataset, tmp_path: Path) -> None:
    recipe = load_recipe("shd-dcls", [*SMALL, "train.epochs=2"])
    result = reproduce(recipe, toy, tmp_path, seeds=[0, 1])
    assert result.label == "last-epoch"
    assert result.mean == pytest.approx(np.mean(result.accuracies))
    assert result.spread == pytest.approx(abs(result.accuracies[0] - result.accuracies[1]) / np.sqrt(2))
    text = result.text()
    assert "95.07 +- 0.24 % on SHD" in text
    assert "best epoch chosen on the test set" in text
    assert "cannot be compared" in text
    for seed in (0, 1):
        run = load_run(tmp_path / f"refit-seed-{seed}")
        assert run.manifest["n_valid"] == 0
        assert run.manifest["test_run_count"] == 1
    again = reproduce(recipe, toy, tmp_path, seeds=[0, 1])
    assert again == result
    held = reproduce(recipe, toy, tmp_path, seeds=[0], protocol="holdout")
    assert held.label == "best-validation"
    assert held.spread is None


def test_tensorboard_is_optional(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    from snnsim.training.display import TensorBoardLog

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingLibraryError, match=r"snnsim\[log\]"):
        TensorBoardLog(tmp_path)


def test_tensorboard_files_are_written_by_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra log")
    from snnsim.cli.main import run

    out = tmp_path / "run"
    sets = [word for change in SMALL if not change.startswith("train.epochs=") for word in ("--set", change)]
    assert run(["train", "shd-dcls", "--data", "toy", "--out", str(out), "--epochs", "1", "--tensorboard", *sets]) == 0
    assert list((out / "tensorboard").iterdir())


@pytest.mark.parametrize(
    ("option", "key"), [(["--epochs", "1"], "train.epochs"), (["--quantize", "loihi2"], "quantize.profile")]
)
def test_an_option_and_the_same_change_are_refused(
    option: list[str], key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from snnsim.cli.main import run

    out = tmp_path / "run"
    assert run(["train", "shd-dcls", "--data", "toy", "--out", str(out), *option, "--set", f"{key}=2"]) == 2
    assert f"{option[0]}: the same as --set {key}=..., which is given as well" in capsys.readouterr().err
    assert not out.exists()


def test_display_prints_plain_lines_and_a_table() -> None:
    import io

    from rich.console import Console

    from snnsim.training.display import Display

    facts = {
        "epoch": 1,
        "epochs": 2,
        "loss": 0.5,
        "train_accuracy": 0.25,
        "valid_accuracy": None,
        "rates": [0.1, 0.2],
        "mean_delay": 0.012,
        "synaptic_operations": 1234.0,
        "samples_per_second": 99.0,
        "formulations": {"layer1": "dense", "readout": "events"},
    }
    stream = io.StringIO()
    display = Display(stream)
    display("epoch", facts)
    display("warning", {"text": "hidden layer 1 [silent]"})
    assert stream.getvalue().splitlines()[0].startswith("epoch 1/2  loss 0.5000  train % 25.00  valid % -")
    assert "delay ms 12.0" in stream.getvalue()
    display("epoch", facts)  # what has not changed is not said again
    assert stream.getvalue().count("products: layer1 dense, readout events") == 1
    assert "hidden layer 1 [silent]" in stream.getvalue()
    table = io.StringIO()
    Console(file=table, width=80).print(display._table())
    for word in ("loss", "train %", "valid %", "rate a layer", "delay ms", "ops", "0.100 0.200", "left"):
        assert word in table.getvalue()
    quiet = io.StringIO()
    Display(quiet, quiet=True)("epoch", facts)
    assert quiet.getvalue() == ""


def test_commands_print_one_json_object(toy: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from snnsim.cli.main import run

    out = tmp_path / "run"
    sets = [word for change in SMALL if not change.startswith("train.epochs=") for word in ("--set", change)]
    assert run(["train", "shd-dcls", "--data", "toy", "--out", str(out), "--epochs", "1", "--json", *sets]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result["accuracy"] == result["results"]["best-validation"]["test_accuracy"]
    assert result["files"] == [str(out)]
    assert "epoch 1/1" in printed.err
    for engine in ("torch", "clock"):
        assert run(["eval", str(out), "--data", "toy", "--engine", engine, "--split", "valid", "--json"]) == 0
        values = json.loads(capsys.readouterr().out)
        assert (values["engine"], values["n_samples"]) == (engine, 80)
    words = ["eval", str(out), "--data", "toy", "--engine", "clock", "--split", "valid", "--energy"]
    assert run([*words, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    effective = values["neurobench"]["SynapticOperations"]
    assert effective["Effective_ACs"] + effective["Effective_MACs"] == pytest.approx(values["synaptic_operations"])
    assert values["neurobench"]["ClassificationAccuracy"] == values["accuracy"]
    assert values["energy"]["loihi"]["total"] > 0
    assert run(words) == 0
    assert "nJ a sample" in capsys.readouterr().out
    assert run(["eval", str(out), "--data", "toy", "--engine", "qcd"]) == 2
    assert "known: torch, clock" in capsys.readouterr().err
    assert run(["train", "shd-dcls", "--data", "toy", "--out", str(out), "--epochs", "1", *sets]) == 2
    assert "--resume" in capsys.readouterr().err
    assert run(["train", "shd-dcls", "--set", "train.lr=1", "--out", str(tmp_path / "x")]) == 2
    assert not (tmp_path / "x").exists()


def test_dense_frames_train_like_events(tmp_path: Path) -> None:
    from snnsim.datasets.frames import Frames

    generator = np.random.default_rng(0)
    labels = np.arange(60) % 3
    values = generator.random((60, 20, 6), dtype=np.float32)
    for index, label in enumerate(labels):
        values[index, :, 2 * label : 2 * label + 2] += 1.0
    frames = Frames.build(values, labels, 0.01)
    data = Dataset("bands", frames.subset(np.arange(48)), frames.subset(np.arange(48, 60)), None, "0" * 64)
    recipe = load_recipe("gsc-dcls", [*SMALL, "model.hidden=[16, 16]", "train.batch_size=8", "train.epochs=15"])
    result = train(recipe, data, tmp_path / "run")
    assert result.results["last-epoch"]["test_accuracy"] >= 0.9


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["train.learning='sltt'"], "couples the steps"),
        (["train.learning='rtrl'", "train.rule.two_pass=true"], "set model.batch_norm = false"),
        (["train.learning='eventprop'"], "hidden1"),
    ],
    ids=["sltt", "rtrl", "eventprop"],
)
def test_a_rule_that_does_not_fit_is_refused_before_there_is_a_folder(
    toy: Dataset, tmp_path: Path, changes: list[str], words: str
) -> None:
    recipe = load_recipe("shd-dcls", ["model.connection.kind='linear'", "model.hidden=[10]", *changes])
    with pytest.raises(InputError, match=words):
        train(recipe, toy, tmp_path / "run")
    assert not (tmp_path / "run").exists()
