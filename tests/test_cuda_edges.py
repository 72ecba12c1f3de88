"""What a device would have got wrong without a word: hooks, threads of the backward pass, tensors of inference."""

import json
import threading

import pytest
import torch
from torch import nn

from snnsim.cli.main import run
from snnsim.nn.cuda import use_device
from snnsim.nn.cuda_spikes import spike_value
from snnsim.nn.delays import DelayedLinear, Linear
from snnsim.nn.model import Block, ReadoutBlock, SpikingModel
from snnsim.nn.neurons import LI, LIF
from snnsim.nn.precision import products

DT = 0.01


def model() -> SpikingModel:
    torch.manual_seed(0)
    blocks = [Block(Linear(4, 5), LIF(5, dt=DT)), Block(Linear(5, 5), LIF(5, dt=DT))]
    return SpikingModel(blocks, ReadoutBlock(Linear(5, 3), LI(3, dt=DT)), dt=DT)


def gradients(net: SpikingModel, x: torch.Tensor, **options: object) -> list[torch.Tensor]:
    net.zero_grad()
    nn.functional.cross_entropy(net(x, **options).logits, torch.tensor([0, 2])).backward()
    return [parameter.grad.clone() for parameter in net.parameters() if parameter.grad is not None]


def test_a_hook_that_changes_spikes_is_seen():
    x = 3 * torch.rand(6, 2, 4)
    found = []
    for device in ("cpu", "cuda"):
        with use_device(device):
            net = model().train()
            net.blocks[0].register_forward_hook(lambda _, __, out: (out[0] * torch.arange(1.0, 6.0), *out[1:]))
            found.append(gradients(net, x))
    for here, there in zip(*found, strict=True):
        torch.testing.assert_close(here, there, rtol=1e-5, atol=1e-6)


def test_a_spiking_block_is_marked_only_without_hooks():
    x = 3 * torch.rand(6, 2, 4)
    with use_device("cuda"):
        block = Block(Linear(4, 5), LIF(5, dt=DT)).train()
        net = SpikingModel([block], ReadoutBlock(Linear(5, 3), LI(3, dt=DT)), dt=DT).train()
        seen = []
        net.readout.connection.register_forward_pre_hook(lambda _, given: seen.append(spike_value(given[0])))
        net(x)
        block.neuron.register_forward_hook(lambda *_: None)
        net(x)
    assert seen == [1.0, None]


def test_bf16_stays_when_stretches_run_again_in_another_thread():
    x, found = 3 * torch.rand(8, 2, 4), []
    for aside in (False, True):
        net = model().train()
        with products("bf16"):
            loss = nn.functional.cross_entropy(net(x, checkpoint_steps=4).logits, torch.tensor([0, 2]))
            if aside:
                thread = threading.Thread(target=loss.backward)
                thread.start()
                thread.join()
            else:
                loss.backward()
        found.append([parameter.grad for parameter in net.parameters() if parameter.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_neurons_are_made_and_used_in_inference_mode():
    with torch.inference_mode():
        neurons = LIF(3, dt=DT)
        assert neurons(torch.ones(4, 2, 3))[0].shape == (4, 2, 3)
    assert neurons(torch.ones(4, 2, 3))[0].shape == (4, 2, 3)


def test_other_devices_take_plain_torch():
    layer = Linear(4, 5).to("meta").train()
    assert layer(torch.empty(3, 2, 4, device="meta"))[0].shape == (3, 2, 5)


def test_an_empty_batch_passes_delays():
    with use_device("cuda"):
        layer = DelayedLinear(4, 5, max_delay_steps=3).train()
        y = layer(torch.zeros(6, 0, 4, requires_grad=True))[0]
        y.sum().backward()
    assert y.shape == (6, 0, 5)
    assert float(layer.weight.grad.abs().sum()) == 0


def test_a_stream_runs_on_the_clock_engine_alone(capsys: pytest.CaptureFixture[str]):
    for engine in ("cuda", "event"):
        assert run(["simulate", "no.h5", "--stream", "-", "--engine", engine]) == 2
        assert f"--stream runs along on engine clock; leave --engine {engine} out" in capsys.readouterr().err
    assert run(["simulate", "no.h5", "--stream", "-", "--engine", "none"]) == 2
    assert "--engine: expected one of" in capsys.readouterr().err


def test_a_refused_device_is_no_look_at_the_test_set(tmp_path, monkeypatch, capsys):
    from snnsim.datasets import open_dataset
    from snnsim.kernels import cuda_support
    from snnsim.recipes import load_recipe
    from snnsim.training import train

    out = tmp_path / "run"
    changes = ["model.hidden=[4]", "train.epochs=1", "train.batch_size=40"]
    train(load_recipe("shd-lif", changes), open_dataset("toy"), out)
    before = json.loads((out / "manifest.json").read_text())["test_run_count"]
    monkeypatch.setattr(cuda_support, "SIMULATED", False)
    monkeypatch.setattr(cuda_support, "why_not", lambda: "there is none")
    for words in (
        ["eval", str(out), "--data", "toy", "--engine", "cuda"],
        ["eval", str(out), "--data", "toy", "--device", "cuda"],
        ["simulate", str(out), "--events", "toy", "--engine", "cuda"],
        ["simulate", str(out), "--events", "toy", "--compare", "cuda"],
    ):
        assert run(words) == 2
        assert "'cuda': there is none" in capsys.readouterr().err
    assert json.loads((out / "manifest.json").read_text())["test_run_count"] == before
