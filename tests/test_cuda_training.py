"""Training and evaluation on a device: in Numba's simulator, and on a pretended device that refuses mixed tensors."""

from __future__ import annotations

import importlib.util
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from device_check import DeviceTensor, Watch, pretended_device

from snnsim.cli.main import run as cli
from snnsim.datasets.dataset import Dataset
from snnsim.datasets.toy import make_toy
from snnsim.errors import InputError
from snnsim.kernels.cuda_support import SIMULATED
from snnsim.nn.cuda import on_cuda
from snnsim.recipes import Recipe, load_recipe
from snnsim.training import TrainingInterrupted, evaluate, load_run, train
from snnsim.training.checkpoint import load_tensors
from snnsim.training.distributed import process_group, take_own_gpu
from snnsim.training.prepare import prepare
from snnsim.training.trainer import Trainer

pytestmark = pytest.mark.skipif(not SIMULATED, reason="needs NUMBA_ENABLE_CUDASIM=1")

PARTS = ("cuda_neurons", "cuda_frequency")
needs_parts = pytest.mark.skipif(
    any(importlib.util.find_spec(f"snnsim.nn.{part}") is None for part in PARTS),
    reason="needs neurons and connections that know devices",
)

SMALL = ["data.dt=0.02", "model.tail_steps=0", "train.batch_size=8", "train.epochs=1", "model.neuron.tau_law=exact"]
SMALL += ["model.readout.tau_law=exact"]
DELAYS = [*SMALL, "model.hidden=[5]", "model.connection.max_delay=0.08", "train.weights.schedule.unit=batch"]
PLAIN = [*SMALL, "model.hidden=[6]", "model.batch_norm=false", "model.dropout=0.0", "model.initial_rate=none"]
PER_STEP = ["train.loss=per_step"]


@pytest.fixture(scope="module")
def toy() -> Dataset:
    return make_toy(n_classes=2, n_groups=4, channels_per_group=2, n_train=20, n_test=6)


def same_tensors(a: Path, b: Path, tolerance: float = 0.0) -> None:
    ours, theirs = load_tensors(a), load_tensors(b)
    assert set(ours) == set(theirs)
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=tolerance, atol=tolerance, msg=name)


def test_commands_train_and_evaluate_on_a_device(
    toy: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("snnsim.datasets.open_dataset", lambda name: toy)
    out = tmp_path / "run"
    changes = [part for change in DELAYS for part in ("--set", change)]
    assert cli(["train", "shd-dcls", *changes, "--out", str(out), "--device", "cuda", "--quiet", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert load_run(out).manifest["devices"] == [{"device": "cuda", "gpu": "simulator"}]
    assert "device" not in json.dumps(load_run(out).recipe.to_dict())
    found = []
    for device in ("cuda", "cpu"):
        assert cli(["eval", str(out), "--device", device, "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0]["accuracy"] == found[1]["accuracy"] == result["accuracy"]
    assert found[0]["loss"] == pytest.approx(found[1]["loss"], rel=1e-5)


@pytest.fixture(scope="module")
def straight(toy: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("device") / "straight"
    train(load_recipe("shd-dcls", DELAYS), toy, out, device="cuda")
    return out


def stop_after(n: int) -> Any:
    def callback(kind: str, facts: dict[str, Any]) -> None:
        if kind == "batch" and facts["batch"] == n:
            signal.raise_signal(signal.SIGINT)

    return callback


def test_resumed_equals_uninterrupted(toy: Dataset, straight: Path, tmp_path: Path) -> None:
    recipe, out, said = load_recipe("shd-dcls", DELAYS), tmp_path / "run", []
    with pytest.raises(TrainingInterrupted):
        train(recipe, toy, out, device="cuda", callback=stop_after(1))
    stored = next((out / "checkpoints").glob("*.safetensors"))
    assert all(value.device.type == "cpu" for value in load_tensors(stored).values())
    train(recipe, toy, out, device="cuda", resume=True, callback=lambda kind, facts: said.append(kind))
    assert "warning" not in said
    for name in ("last.safetensors", "best.safetensors", "last.snn.h5", "metrics.jsonl"):
        assert (out / name).read_bytes() == (straight / name).read_bytes(), name


def test_a_run_may_go_on_elsewhere_and_says_so(toy: Dataset, straight: Path, tmp_path: Path) -> None:
    recipe, out, said = load_recipe("shd-dcls", DELAYS), tmp_path / "run", []
    with pytest.raises(TrainingInterrupted):
        train(recipe, toy, out, device="cuda", callback=stop_after(1))

    def listen(kind: str, facts: dict[str, Any]) -> None:
        said.append(facts.get("text", ""))

    train(recipe, toy, out, resume=True, callback=listen)
    assert "this run was trained on simulator so far; on cpu it goes on within rounding, not in the same bits" in said
    assert load_run(out).manifest["devices"][1] == {"device": "cpu", "gpu": None}
    same_tensors(out / "last.safetensors", straight / "last.safetensors", 1e-4)


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        (["train.learning=ottt", *PER_STEP], {}, "train.learning 'ottt' runs on the CPU only; train on the CPU, or"),
        (["train.learning=rtrl", *PER_STEP], {}, "train.learning 'rtrl' runs on the CPU only"),
        (["train.learning=e-prop", *PER_STEP], {}, "train.learning 'e-prop' runs on the CPU only"),
        ([], {"cuda_graph": True}, "cuda_graph: Numba's simulator has no graphs"),
        ([], {"cuda_graph": True, "device": "cpu"}, "cuda_graph: the CPU has no graphs"),
        ([], {"device": "tpu"}, "device: expected 'cpu' or 'cuda', got 'tpu'"),
    ],
)
def test_what_a_device_cannot_do_is_refused_first(
    toy: Dataset, tmp_path: Path, changes: list[str], options: dict[str, Any], message: str
) -> None:
    recipe = load_recipe("shd-lif", [*PLAIN, *changes])
    with pytest.raises(InputError, match=message):
        train(recipe, toy, tmp_path / "run", **{"device": "cuda", **options})
    assert not (tmp_path / "run").exists()


def test_ridge_and_eventprop_stay_on_the_cpu(toy: Dataset, tmp_path: Path, straight: Path) -> None:
    for name in ("hrsnn-reservoir", "shd-eventprop"):
        with pytest.raises(InputError, match="runs on the CPU only"):
            train(load_recipe(name), toy, tmp_path / "run", device="cuda")
    with pytest.raises(InputError, match="says where engine 'torch' runs, got engine 'clock'"):
        evaluate(straight, toy, engine="clock", device="cuda")
    assert not (tmp_path / "run").exists()


def test_without_a_device_the_commands_say_one_sentence(
    toy: Dataset, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = "no NVIDIA driver was found (libcuda); install one, or use the CPU"
    monkeypatch.setattr("snnsim.kernels.cuda_support.why_not", lambda: sentence)
    monkeypatch.setattr("snnsim.datasets.open_dataset", lambda name: pytest.fail("data opened before the device"))
    for command in (["train", "shd-lif", "--out", str(tmp_path / "run")], ["eval", str(straight)]):
        assert cli([*command, "--device", "cuda"]) == 2
        assert sentence in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_every_process_takes_the_gpu_of_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr("numba.cuda.select_device", taken.append)
    take_own_gpu()
    for name, value in (("WORLD_SIZE", "3"), ("RANK", "1"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    take_own_gpu()
    assert taken == [1, 1]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(InputError, match="process 2 of this machine has no GPU of its own, it has 2"):
        take_own_gpu()


def test_processes_with_devices_talk_through_both_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr("torch.distributed.init_process_group", asked.append)
    monkeypatch.setattr("torch.distributed.destroy_process_group", lambda: None)
    monkeypatch.setattr("torch.distributed.get_rank", lambda: 0)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    for device in ("cpu", "cuda"):
        with process_group(device):
            pass
    assert asked == ["gloo", "cpu:gloo,cuda:nccl"]


WAYS: dict[str, tuple[str, list[str]]] = {
    "plain": ("shd-lif", PLAIN),
    "mean": ("shd-lif", [*PLAIN, "model.readout.reduce=mean", "train.clip_norm=0.1"]),
    "max": ("shd-lif", [*PLAIN, "model.readout.reduce=max", "train.padding=counted"]),
    "last": ("shd-lif", [*PLAIN, "model.readout.reduce=last", "train.rate.strength=0.1", "train.rate.lower=0.2"]),
    "per-step": ("shd-lif", [*PLAIN, *PER_STEP, "train.mse_share=0.2", "train.mse_target=one-hot"]),
    "checkpoints": ("shd-lif", [*PLAIN, "train.checkpoint_steps=7", "train.weights.optimiser=sgd"]),
    "initial rate": ("shd-lif", [*PLAIN, "model.initial_rate=0.1", "train.gradient_cosine=true"]),
    "cutmix": ("shd-lif", [*PLAIN, "train.augment.cutmix=1.0", "train.label_smoothing=0.1"]),
    "sltt": ("shd-lif", [*PLAIN, *PER_STEP, "train.learning=sltt"]),
    "sltt twice": ("shd-lif", [*PLAIN, "train.learning=sltt", "train.rule.two_pass=true", "train.rate.strength=0.1"]),
    "learned": ("shd-lif", [*PLAIN, "model.neuron.learn=['tau_mem','v_threshold']", "model.neuron.learn_per=neuron"]),
    "bf16": ("shd-lif", [*PLAIN, "train.precision=bf16"]),
    "magnitude": ("shd-lif", [*PLAIN, "train.epochs=2", "prune.method=magnitude", "prune.keep=0.5", "prune.start=1"]),
    "snip": ("shd-lif", [*PLAIN, "prune.method=snip", "prune.keep=0.5"]),
    "deep-r": ("shd-lif", [*PLAIN, "prune.method=deep-r", "prune.keep=0.5"]),
    "quantised": (
        "shd-lif",
        [*PLAIN, "train.epochs=2", "quantize.profile=loihi2", "quantize.start=0.5", "model.neuron.reset=zero"],
    ),
    "recurrent": ("shd-lif", [*PLAIN, "model.recurrent=true"]),
    "adlif": ("shd-lif", [*PLAIN, "model.neuron.kind=adlif"]),
    "norm": ("shd-lif", [*SMALL, "model.hidden=[6]", "model.dropout=0.3", "model.initial_rate=none"]),
    "norm sltt": (
        "shd-lif",
        [*SMALL, *PER_STEP, "model.hidden=[6]", "model.dropout=0.3", "model.initial_rate=none", "train.learning=sltt"],
    ),
    "delays": ("shd-dcls", DELAYS),
}


def weights_after(name: str, toy: Dataset, device: str, tmp_path: Path) -> tuple[dict[str, torch.Tensor], Any]:
    recipe, changes = WAYS[name]
    out = tmp_path / device
    train(load_recipe(recipe, changes), toy, out, device=device)
    return load_tensors(out / "last.safetensors"), load_run(out)


@needs_parts
@pytest.mark.parametrize("name", WAYS)
def test_every_way_of_training_stays_on_the_device(name: str, toy: Dataset, tmp_path: Path) -> None:
    expected, on_cpu = weights_after(name, toy, "cpu", tmp_path)
    with pretended_device():
        found, there = weights_after(name, toy, "cuda", tmp_path)
        result = evaluate(there, toy, device="cuda")
    assert there.manifest["devices"] == [{"device": "cuda", "gpu": "pretended"}]
    assert set(found) == set(expected)
    for key, value in found.items():
        assert type(value) is torch.Tensor
        torch.testing.assert_close(value, expected[key], rtol=1e-3, atol=1e-3, msg=key)
    assert result.loss == pytest.approx(evaluate(on_cpu, toy).loss, rel=1e-2)


def trainer_there(recipe: Recipe, toy: Dataset) -> Trainer:
    return Trainer(recipe, prepare(recipe, toy, 0), 0, device=torch.device("cuda", 0))


def steps_watched(name: str, toy: Dataset) -> tuple[Trainer, Watch]:
    recipe, changes = WAYS[name]
    with pretended_device() as watch:
        trainer = trainer_there(load_recipe(recipe, changes), toy)
        assert all(isinstance(value, DeviceTensor) for value in trainer.model.state_dict().values())
        assert all(on_cuda(value) for value in trainer.model.parameters())
        trainer.begin_epoch()
        for batch in trainer.batches.epoch(0):
            trainer.train_batch(batch)
            if trainer.step == 1:  # what a layer wants to know of itself is asked once
                watch.waits.clear()
        return trainer, watch


@needs_parts
@pytest.mark.parametrize("name", ["plain", "mean", "per-step", "cutmix", "norm", "delays", "bf16"])
def test_a_step_waits_for_the_device_once(name: str, toy: Dataset) -> None:
    trainer, watch = steps_watched(name, toy)
    assert dict(watch.waits) == {"training/trainer.py:forward_backward": trainer.step - 1}


@needs_parts
def test_predictions_of_both_sides_agree(toy: Dataset, straight: Path) -> None:
    here = evaluate(straight, toy, split="train")
    with pretended_device():
        there = evaluate(straight, toy, split="train", device="cuda")
    assert np.array_equal(here.predictions, there.predictions)
    np.testing.assert_allclose(here.logits, there.logits, rtol=1e-4, atol=1e-4)
    assert here.rates == pytest.approx(there.rates)
