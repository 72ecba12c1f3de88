"""The spiking model: building from a recipe, streaming, masks, groups and reductions."""

from __future__ import annotations

import pytest
import torch

from snnsim.errors import InputError
from snnsim.nn.context import Context
from snnsim.nn.delays import DelayedLinear, Linear
from snnsim.nn.model import Block, ReadoutBlock, SpikingModel, build_model
from snnsim.nn.neurons import LI, LIF
from snnsim.nn.readouts import REDUCTIONS, reduce_trace
from snnsim.recipes import load_recipe
from snnsim.recipes.schema import ModelSpec

DT = 0.01


def small_model(seed: int = 0, **changes) -> SpikingModel:
    table = {
        "hidden": [12, 12],
        "neuron": {"tau_mem": 0.02},
        "connection": {"max_delay": 0.05},
        "readout": {"tau_mem": 0.02},
        **changes,
    }
    return build_model(ModelSpec.model_validate(table), 8, 5, DT, seed)


def counts(n_steps: int = 40, batch: int = 3, units: int = 8) -> torch.Tensor:
    return torch.poisson(torch.full((n_steps, batch, units), 0.5), generator=torch.Generator().manual_seed(1))


# parameters of the published rows: weights, positions and batch norm
PUBLISHED = [
    ("shd-dcls", 140, 20, {}, 214_016),
    ("ssc-dcls", 140, 35, {"hidden": [512] * 3, "taps": 1}, 1_230_848),
    ("ssc-dcls", 140, 35, {"hidden": [512] * 3, "taps": 2}, 2_458_624),
    ("ssc-dcls", 140, 35, {"hidden": [512] * 2, "taps": 1}, 705_536),
    ("ssc-dcls", 140, 35, {"hidden": [512] * 2, "taps": 2}, 1_409_024),
    ("gsc-dcls", 140, 35, {"hidden": [512] * 3, "taps": 2}, 2_458_624),
]


@pytest.mark.parametrize(("name", "n_inputs", "n_classes", "changes", "expected"), PUBLISHED)
def test_published_parameter_counts(name, n_inputs, n_classes, changes, expected):
    spec = load_recipe(name).model
    if "hidden" in changes:
        connection = spec.connection.model_copy(update={"taps": changes["taps"]})
        spec = spec.model_copy(update={"hidden": changes["hidden"], "connection": connection})
    model = build_model(spec, n_inputs, n_classes, DT)
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_same_seed_same_network_other_seed_other_network():
    first, same, other = small_model(0), small_model(0), small_model(1)
    for name, value in first.state_dict().items():
        assert torch.equal(value, same.state_dict()[name])
    assert not torch.equal(first.blocks[0].connection.weight, other.blocks[0].connection.weight)


def test_shapes_and_records():
    model = small_model().eval()
    with torch.no_grad():
        plain = model(counts())
        recorded = model(counts(), record=True)
    assert plain.logits.shape == (3, 5)
    assert plain.trace.shape == (40, 3, 5)
    assert plain.rates.shape == (2,)
    assert plain.spikes == []
    assert [s.shape for s in recorded.spikes] == [(40, 3, 12)] * 2
    assert recorded.spikes[0].mean().item() == pytest.approx(plain.rates[0].item())
    assert model.n_inputs == 8
    assert model.n_classes == 5


@pytest.mark.parametrize("kind", ["delayed", "linear"])
def test_a_stream_cut_in_two_equals_one_run(kind):
    model = small_model(connection={"kind": kind, "max_delay": 0.05}).double().eval()
    x = counts().double()
    with torch.no_grad():
        whole = model(x, record=True)
        first = model(x[:17], record=True)
        second = model(x[17:], first.state, record=True)
    torch.testing.assert_close(torch.cat([first.trace, second.trace]), whole.trace, rtol=1e-12, atol=1e-12)
    for layer in range(2):
        assert torch.equal(torch.cat([first.spikes[layer], second.spikes[layer]]), whole.spikes[layer])


def test_padding_with_a_mask_changes_nothing_in_evaluation():
    model = small_model().eval()
    x = counts(batch=2)
    mask = torch.ones(40, 2, dtype=torch.bool)
    padded = torch.cat([x, torch.zeros(15, 2, 8)])
    longer = torch.cat([mask, torch.zeros(15, 2, dtype=torch.bool)])
    with torch.no_grad():
        short = model(x, context=Context(mask=mask))
        long = model(padded, context=Context(mask=longer))
    torch.testing.assert_close(short.logits, long.logits)
    torch.testing.assert_close(short.rates, long.rates)


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_reductions_equal_their_definition_sample_by_sample(reduce):
    generator = torch.Generator().manual_seed(0)
    trace = torch.randn(20, 4, 3, generator=generator)
    lengths = [20, 7, 12, 5]
    mask = torch.arange(20).unsqueeze(1) < torch.tensor(lengths)
    result = reduce_trace(trace, reduce, mask=mask, skip_steps=4)
    for sample, length in enumerate(lengths):
        own = trace[4:length, sample]
        expected = {
            "sum_softmax": own.softmax(1).sum(0),
            "mean": own.mean(0),
            "max": own.amax(0),
            "last": own[-1],
        }[reduce]
        torch.testing.assert_close(result[sample], expected)


def test_reduction_needs_a_step():
    with pytest.raises(InputError, match="skip_steps is 9, but the sample has only 5 steps"):
        reduce_trace(torch.zeros(5, 1, 2), "mean", skip_steps=9)


def test_parameter_groups_hold_every_parameter_once():
    model = small_model(neuron={"tau_mem": 0.02, "learn": ["tau_mem", "v_threshold"]})
    groups = model.parameter_groups()
    listed = [id(p) for group in groups.values() for p in group]
    assert sorted(listed) == sorted(id(p) for p in model.parameters())
    assert {name: len(group) for name, group in groups.items()} == {
        "weights": 3,
        "norm": 4,
        "positions": 3,
        "neuron": 4,
    }


def test_clamp_and_sigma_reach_every_delay_layer():
    model = small_model()
    with torch.no_grad():
        for layer in model.delay_layers():
            layer.position.fill_(99.0)
    model.clamp_()
    model.set_sigma(0.7)
    for layer in model.delay_layers():
        assert layer.position.max().item() == layer.position_limits[1]
        assert layer.sigma.item() == pytest.approx(0.7)
    assert model.mean_delay() == 0.0


def test_residual_adds_the_block_input():
    torch.manual_seed(0)
    block = Block(Linear(6, 6), LIF(6, dt=DT), residual=True)
    x = counts(units=6)
    y, spikes, _ = block(x)
    torch.testing.assert_close(y, spikes + x)
    with pytest.raises(InputError, match="cannot add its input"):
        Block(Linear(6, 5), LIF(5, dt=DT), residual=True)


def test_sizes_that_do_not_fit_are_named():
    readout = ReadoutBlock(Linear(7, 2), LI(2, dt=DT))
    with pytest.raises(InputError, match="the readout expects 7 inputs, got 6 neurons"):
        SpikingModel([Block(DelayedLinear(4, 6, max_delay_steps=3), LIF(6, dt=DT))], readout, dt=DT)


def test_tail_steps_let_late_spikes_arrive():
    model = small_model()
    assert model.tail_steps == 3 * 2  # three delayed layers of five slots


@pytest.mark.parametrize("recurrent", [False, True])
@pytest.mark.parametrize("stretch", [1, 7, 20, 100])
def test_checkpoints_change_no_gradient(stretch: int, recurrent: bool) -> None:
    recipe = load_recipe(
        "shd-lif", ["model.batch_norm=false", f"model.recurrent={str(recurrent).lower()}", "model.hidden=[9,8]"]
    )
    generator = torch.Generator().manual_seed(0)
    x = torch.poisson(torch.full((20, 4, 6), 0.6), generator=generator).double() * 3
    mask = torch.ones(20, 4, dtype=torch.bool)
    mask[12:, 1] = False
    context = Context(mask, torch.arange(4))
    results = []
    for steps in (None, stretch):
        model = build_model(recipe.model, 6, 3, recipe.data.dt).double().train()
        output = model(x, None, context, checkpoint_steps=steps)
        output.logits.square().sum().backward()
        results.append((output, [p.grad for p in model.parameters()]))
    (whole, wanted), (parts, got) = results
    assert whole.rates.min() > 0
    torch.testing.assert_close(parts.trace, whole.trace, rtol=1e-12, atol=1e-12)
    assert torch.equal(parts.rates, whole.rates)
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_checkpoints_need_independent_stretches() -> None:
    for recipe in (load_recipe("shd-dcls", ["model.batch_norm=false", "model.hidden=[4]"]), load_recipe("shd-lif")):
        model = build_model(recipe.model, 6, 3, recipe.data.dt).train()
        with pytest.raises(InputError, match="without delays and without batch norm"):
            model(torch.zeros(5, 2, 6), None, Context(None, torch.arange(2)), checkpoint_steps=2)
