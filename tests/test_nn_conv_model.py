"""Convolutional networks from a recipe's table: sizes, state, evaluation step by step, initial rates, refusals."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from snnsim.errors import InputError
from snnsim.export.proof import prove
from snnsim.learning import BPTT, Loss, TensorStream
from snnsim.network import Sparse
from snnsim.nn.context import Context
from snnsim.nn.conv_model import ConvSpikingModel
from snnsim.nn.freeze import ModelJudge, freeze
from snnsim.nn.initialise import initialise_rates
from snnsim.nn.model import build_model
from snnsim.nn.state import detach_state
from snnsim.recipes import recipe_from_dict
from snnsim.recipes.schema import ModelSpec, RateSpec

NEURON = {"tau_mem": 1.1e-3, "tau_law": "euler", "reset": "subtract", "surrogate": {"name": "Triangle"}}
READOUT = {"tau_mem": 1e-3, "tau_law": "euler", "reduce": "mean"}


def spec(preset: str, shape: list[int], conv: dict[str, Any] | None = None, **model: Any) -> ModelSpec:
    table = {"preset": preset, "input": shape, **(conv or {})}
    return ModelSpec.model_validate({"conv": table, "neuron": NEURON, "readout": READOUT, **model})


def build(
    preset: str, shape: list[int], conv: dict[str, Any] | None = None, seed: int = 0, **model: Any
) -> ConvSpikingModel:
    made = build_model(spec(preset, shape, conv, **model), math.prod(shape), 10, 1e-3, seed)
    assert isinstance(made, ConvSpikingModel)
    return made


def frames(steps: int, batch: int, shape: list[int], seed: int = 0) -> Tensor:
    return 2 * torch.randn(steps, batch, math.prod(shape), generator=torch.Generator().manual_seed(seed))


SMALL = [
    ("vgg-small", [1, 8, 8], {}),
    ("vgg-small", [2, 9, 7], {"norm": "weight", "pool": "max"}),
    ("resnet-small", [1, 8, 8], {"norm": "time"}),
    ("resnet-small", [2, 8, 8], {"norm": "weight", "stem": "large"}),
]


def convolutional(n_in: int, n_out: int, kernel: int = 3, bias: bool = False) -> int:
    return n_out * (n_in * kernel * kernel + bias)


def test_vgg11_has_the_published_sizes() -> None:
    model = build("vgg11", [2, 48, 48])
    channels = [2, 64, 128, 256, 256, 512, 512, 512, 512]
    weights = sum(convolutional(a, b) + 2 * b for a, b in itertools.pairwise(channels))
    assert sum(p.numel() for p in model.parameters()) == weights + 512 * 10 + 10 == 9_227_786
    sides = [48, 24, 12, 12, 6, 6, 3, 3]
    assert model.hidden_sizes() == [c * s * s for c, s in zip(channels[1:], sides, strict=True)]


def test_resnet18_has_the_published_sizes() -> None:
    model = build("resnet18", [3, 32, 32])
    total = convolutional(3, 64)
    n_in = 64
    for width in (64, 128, 256, 512):
        total += 2 * n_in + convolutional(n_in, width) + 2 * width + convolutional(width, width)
        total += convolutional(n_in, width, 1) if n_in != width else 0
        total += 2 * (2 * width + convolutional(width, width))
        n_in = width
    assert sum(p.numel() for p in model.parameters()) == total + 2 * 512 + 512 * 10 + 10
    assert len(model.cells()) == 17
    assert model.cells()[-1].shape == (512, 4, 4)


def test_nf_resnet34_has_the_published_sizes() -> None:
    """The usual ResNet-34 has 21.8 million with 17 k of batch norm; gains, biases and skip gains stand in for these."""
    model = build("nf-resnet34", [3, 64, 64])
    convolutions = [convolutional(3, 64, 7, True) + 64]
    n_in = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for number in range(blocks):
            first = n_in if number == 0 else width
            convolutions += [convolutional(first, width, 3, True) + width, convolutional(width, width, 3, True) + width]
            convolutions += [convolutional(first, width, 1, True) + width] if first != width else []
        n_in = width
    assert sum(p.numel() for p in model.parameters()) == sum(convolutions) + 16 + 512 * 10 + 10
    assert len(model.cells()) == 32
    assert model.cells()[-1].shape == (512, 2, 2)
    groups = model.parameter_groups()
    assert sum(len(group) for group in groups.values()) == len(list(model.parameters()))
    assert len(groups["weights"]) == 36 + 1  # convolutions and the readout; gains and biases are not decayed


def test_width_and_stages_scale_a_network() -> None:
    model = build("resnet34", [3, 16, 16], {"width": 0.25, "stages": 2})
    assert model.cells()[0].shape == (16, 16, 16)
    assert model.cells()[-1].shape == (32, 8, 8)
    assert len(model.cells()) == 2 * (3 + 4) + 1


def test_weights_depend_on_the_seed_alone() -> None:
    a, b, c = build("vgg-small", [1, 8, 8]), build("vgg-small", [1, 8, 8]), build("vgg-small", [1, 8, 8], seed=1)
    first = [next(iter(model.parameters())) for model in (a, b, c)]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])


@pytest.mark.parametrize(("preset", "shape", "conv"), SMALL)
def test_evaluation_step_by_step_is_evaluation_of_the_whole(preset: str, shape: list[int], conv: dict) -> None:
    model = build(preset, shape, conv, dropout=0.3)
    torch.nn.init.normal_(model.readout.connection.weight)
    x = frames(7, 4, shape)
    context = Context(sample_id=torch.arange(4))
    initialise_rates(model, x, context, target=0.15)
    with torch.no_grad():
        for _ in range(30):  # moves the running averages
            model(x, None, context)
    model.eval()
    with torch.no_grad():
        whole = model(x, record=True)
        assert all(rate > 0.005 for rate in whole.rates)
        for cuts in (range(1, 7), (3,)):
            state, traces, spikes = None, [], []
            for start, stop in zip((0, *cuts), (*cuts, 7), strict=True):
                part = model(x[start:stop], state, record=True)
                state = part.state
                traces.append(part.trace)
                spikes.append(part.spikes)
            assert torch.equal(torch.cat(traces), whole.trace)
            for layer, full in enumerate(whole.spikes):
                assert torch.equal(torch.cat([part[layer] for part in spikes]), full)
        assert torch.equal(model(x.view(7, 4, *shape)).trace, whole.trace)
    assert whole.rates.tolist() == pytest.approx([float(s.double().mean()) for s in whole.spikes])


def test_training_with_statistics_by_step_is_the_same_step_by_step() -> None:
    """Values, running averages and, with the state's graph kept, gradients."""
    x, context = frames(4, 5, [1, 8, 8]).double(), Context(sample_id=torch.arange(5), seed=3)
    results = []
    for stretches in ([4], [1, 1, 1, 1]):
        model = build("resnet-small", [1, 8, 8], dropout=0.3).double()
        state, traces, start = None, [], 0
        for steps in stretches:
            out = model(x[start : start + steps], state, context)
            state, start = out.state, start + steps
            traces.append(out.trace)
        trace = torch.cat(traces)
        trace.square().sum().backward()
        results.append([trace.detach(), *(p.grad for p in model.parameters()), *model.buffers()])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_detached_state_leaves_the_gradient_of_single_steps() -> None:
    """With the state cut between steps the output is the same and the gradient another."""
    x = frames(4, 3, [1, 8, 8]).double()
    gradients, traces = [], []
    for cut in (False, True):
        model = build("vgg-small", [1, 8, 8], {"norm": "weight"}).double()
        state, parts = None, []
        for step in x:
            out = model(step.unsqueeze(0), state)
            state = detach_state(out.state) if cut else out.state
            parts.append(out.trace)
        traces.append(torch.cat(parts))
        traces[-1].square().sum().backward()
        gradients.append(next(iter(model.parameters())).grad)
    assert torch.equal(traces[0], traces[1])
    assert not torch.allclose(gradients[0], gradients[1], rtol=1e-3)


def test_bptt_fills_every_gradient_and_penalises_rates() -> None:
    for preset, shape, conv in SMALL:
        model = build(preset, shape, conv)
        torch.nn.init.normal_(model.readout.connection.weight)
        loss = Loss(torch.arange(4), "per_step", mse_share=0.05, rate=RateSpec(strength=1.0, upper=0.05))
        outcome = BPTT().gradients(model, TensorStream(frames(3, 4, shape)), loss)
        assert all(p.grad is not None for p in model.parameters())
        assert outcome.rates.shape == (len(model.cells()),)


def test_stretches_that_run_again_give_the_same_gradient_and_are_refused_with_batch_norm() -> None:
    x, loss = frames(6, 3, [1, 8, 8]).double(), Loss(torch.arange(3), "per_step")
    gradients = []
    for steps in (None, 2):
        model = build("vgg-small", [1, 8, 8], {"norm": "weight"}).double()
        BPTT(steps).gradients(model, TensorStream(x), loss)
        gradients.append([p.grad for p in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    with pytest.raises(InputError, match="without batch norm"):
        BPTT(2).gradients(build("vgg-small", [1, 8, 8]).double(), TensorStream(x), loss)


@pytest.mark.parametrize(("preset", "shape", "conv"), SMALL)
def test_initial_rate_is_reached_and_nothing_else_changes(preset: str, shape: list[int], conv: dict) -> None:
    model = build(preset, shape, conv, dropout=0.5)
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    x = 0.3 * frames(4, 8, shape)
    found = initialise_rates(model, x, Context(sample_id=torch.arange(8)), target=0.2, tolerance=0.2)
    assert all(torch.equal(buffers[name], value) for name, value in model.named_buffers())
    assert all(module.training for module in model.modules())
    for module in model.modules():
        if type(module).__name__ == "SequenceDropout":
            module.eval()
    rates = model(x).rates
    assert rates.tolist() == pytest.approx([rate.after for rate in found])
    assert len(found) == len(model.cells())
    assert all(0.2 / 1.2 <= rate.after <= 0.2 * 1.2 for rate in found)
    assert any(rate.factor != 1.0 for rate in found)


def test_fresh_networks_without_normalisation_fire_in_every_layer_once_scaled() -> None:
    model = build("nf-resnet34", [3, 32, 32], {"width": 0.25})
    x = frames(2, 2, [3, 32, 32])
    initialise_rates(model, x, target=0.15)
    assert all(0.03 < rate < 0.5 for rate in model(x).rates.tolist())


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"conv": {"preset": "vgg12", "input": [1, 8, 8]}}, "model.conv.preset: expected 'vgg11'"),
        ({"conv": {"preset": "vgg11", "input": [8, 8]}}, "model.conv.input: .* at least 3 items"),
        ({"conv": {"preset": "vgg11", "input": [0, 8, 8]}}, "positive channels, height and width"),
        ({"conv": {"preset": "vgg-small", "input": [1, 8, 8], "stages": 3}}, "'vgg-small' has 2 stages, got 3"),
        ({"conv": {"preset": "nf-resnet34", "input": [1, 8, 8], "norm": "step"}}, "'nf-resnet34' has norm 'weight'"),
        ({"conv": {"preset": "resnet18", "input": [1, 8, 8], "pool": "max"}}, "pool belongs to VGG networks"),
        ({"conv": {"preset": "vgg11", "input": [1, 8, 8], "stem": "small"}}, "stem belongs to residual networks"),
        ({"conv": {"preset": "vgg11", "input": [1, 8, 8]}, "hidden": [10]}, "'hidden' says nothing about"),
        ({"conv": {"preset": "vgg11", "input": [1, 8, 8]}, "residual": True}, "'residual' says nothing about"),
        ({"conv": {"preset": "vgg11", "input": [1, 8, 8]}, "batch_norm": False}, "'batch_norm' says nothing about"),
        (
            {"conv": {"preset": "vgg11", "input": [1, 8, 8]}, "readout": {"connection": "delayed"}},
            "the readout of a convolutional network has no delays",
        ),
        ({}, r"expected hidden layers \(hidden = \[128, 128\]\) or a table \[model.conv\] or \[model.pool\]"),
    ],
)
def test_tables_that_do_not_fit_are_refused(table: dict[str, Any], message: str) -> None:
    whole = {"name": "x", "summary": "x", "model": table, "train": {"epochs": 1, "batch_size": 1}}
    with pytest.raises(InputError, match=message) as caught:
        recipe_from_dict(whole)
    assert "\n" not in str(caught.value)


def test_recipes_with_convolutions_survive_json() -> None:
    table = {"conv": {"preset": "vgg11", "input": [1, 8, 8], "width": 0.5}}
    whole = {"name": "x", "summary": "x", "model": table, "train": {"epochs": 1, "batch_size": 1}}
    recipe = recipe_from_dict(whole)
    assert recipe_from_dict(recipe.to_dict()) == recipe


def test_bad_input_and_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="maps of 1 x 8 x 8 have 64 values a step, the data have 70"):
        build_model(spec("vgg-small", [1, 8, 8]), 70, 10, 1e-3)
    with pytest.raises(InputError, match="a kernel of 2 does not fit maps of 1 pixels; use fewer stages"):
        build("vgg11", [1, 8, 8])
    model = build("vgg-small", [1, 8, 8])
    with pytest.raises(InputError, match=r"\(time, batch, 64\) or \(time, batch, 1, 8, 8\), got \(2, 1, 63\)"):
        model(torch.zeros(2, 1, 63))
    with pytest.raises(InputError, match=r"freeze: body.layers.2: Pool2d of kind 'max' is not linear .* 'average'"):
        freeze(build("vgg-small", [1, 8, 8], {"pool": "max"}))
    with pytest.raises(InputError, match=r"freeze: the network would have 6.6e\+08 synapses, and at most 1e\+08"):
        freeze(build("vgg11", [2, 48, 48]))


def trained(preset: str, shape: list[int], conv: dict[str, Any]) -> ConvSpikingModel:
    """A small network whose biases, gains and running averages are not those of a fresh one."""
    model = build(preset, shape, {"width": 0.25, **conv}, dropout=0.2)
    generator = torch.Generator().manual_seed(5)
    torch.nn.init.normal_(model.readout.connection.weight, generator=generator)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.2, generator=generator)
        elif name.endswith("skip_gain"):
            torch.nn.init.constant_(parameter, 0.8)
    x = (torch.rand(20, 8, math.prod(shape), generator=generator) < 0.2).float()
    context = Context(sample_id=torch.arange(8))
    initialise_rates(model, x, context, target=0.15)
    with torch.no_grad():
        for _ in range(20):
            model(x, None, context)
    return model.eval()


FROZEN = [
    ("vgg-small", [2, 10, 8], {}),
    ("resnet-small", [2, 8, 8], {"norm": "time"}),
    ("resnet-small", [2, 8, 8], {"norm": "weight", "stem": "large"}),
]


@pytest.mark.parametrize(("preset", "shape", "conv"), FROZEN)
def test_a_frozen_network_has_the_spikes_of_the_model(preset: str, shape: list[int], conv: dict[str, Any]) -> None:
    model = trained(preset, shape, conv)
    network = freeze(model)
    assert [population.size for population in network.populations] == [*model.hidden_sizes(), 10]
    proof = prove(network, ModelJudge(model), n_samples=20, n_steps=20)
    assert all(layer.mismatches == 0 and (layer.spikes > 1000 or layer.size == 10) for layer in proof.layers)
    assert all(mutation.mismatches > 0 for mutation in proof.mutations)
    assert proof.layers[-1].trace_error < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "shape", "conv"), FROZEN)
def test_a_million_neuron_steps_of_a_frozen_network_agree(preset: str, shape: list[int], conv: dict[str, Any]) -> None:
    model = trained(preset, shape, conv)
    proof = prove(freeze(model), ModelJudge(model), n_samples=200, n_steps=100)
    assert sum(layer.compared for layer in proof.layers) > 1_000_000
    assert all(layer.mismatches == 0 and (layer.spikes > 10_000 or layer.size == 10) for layer in proof.layers)
    assert all(mutation.mismatches > 0 for mutation in proof.mutations)


def test_the_synapses_of_a_frozen_network_are_those_that_fan_out_counts() -> None:
    model = trained("vgg-small", [2, 10, 8], {})
    network = freeze(model)
    numbers = dict.fromkeys(["input", *(population.name for population in network.populations)], 0)
    for projection in network.projections:
        weight = projection.weight
        numbers[projection.source] += weight.nnz if isinstance(weight, Sparse) else np.count_nonzero(weight)
    sizes = [model.n_inputs, *model.hidden_sizes()]
    counted = [fan * size for fan, size in zip(model.fan_out(), sizes, strict=True)]
    assert counted == pytest.approx([numbers[name] for name in ("input", "hidden1", "hidden2", "hidden3")])
