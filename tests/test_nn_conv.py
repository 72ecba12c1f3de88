"""Layers on feature maps: against torch's own functions, per step, with masks, and for any number of threads."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from snnsim.errors import InputError
from snnsim.nn.cells import Cell, Chain, ResidualBlock, ScaledResidualBlock
from snnsim.nn.context import Context
from snnsim.nn.conv import Conv2d, GlobalAverage, Pool2d, StandardisedConv2d
from snnsim.nn.dropout import SequenceDropout
from snnsim.nn.map_norm import BatchNormMaps
from snnsim.nn.map_synapses import mean_fan_out
from snnsim.nn.maps import to_maps, to_units
from snnsim.nn.neurons import LIF
from snnsim.nn.state import detach_state

F64 = torch.float64


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def test_units_and_maps_are_views_of_each_other() -> None:
    units = numbers(3, 2, 4 * 5 * 6)
    maps = to_maps(units, (6, 4, 5))
    assert maps.shape == (3, 2, 6, 4, 5)
    assert maps[1, 1, 2, 3, 4] == units[1, 1, (3 * 5 + 4) * 6 + 2]
    assert to_units(maps).data_ptr() == units.data_ptr()
    assert torch.equal(to_units(maps), units)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, None), (3, 2, 1), (1, 2, 0), (5, 1, 0), (7, 2, 3)])
@pytest.mark.parametrize("batch", [1, 40])
def test_convolution_is_torchs_at_every_step(kernel: int, stride: int, padding: int | None, batch: int) -> None:
    layer = Conv2d(3, 4, kernel, stride=stride, padding=padding, bias=True).double()
    torch.nn.init.normal_(layer.bias)
    x = numbers(2, batch, 3, 9, 8).requires_grad_()
    y, state = layer(x)
    assert state is None
    pad = kernel // 2 if padding is None else padding
    by_step = torch.stack([functional.conv2d(step, layer.weight, layer.bias, stride, pad) for step in x])
    torch.testing.assert_close(y, by_step, rtol=0, atol=1e-12)
    assert tuple(y.shape[2:]) == layer.out_shape((3, 9, 8))
    up = numbers(*y.shape, seed=1)
    parameters = [x, layer.weight, layer.bias]
    for ours, torchs in zip(
        torch.autograd.grad(y, parameters, up), torch.autograd.grad(by_step, parameters, up), strict=True
    ):
        torch.testing.assert_close(ours, torchs, rtol=1e-12, atol=1e-11)


def test_standardised_weights_follow_their_formula_and_give_unit_variance() -> None:
    layer = StandardisedConv2d(8, 16, 3, generator=torch.Generator().manual_seed(0)).double()
    torch.nn.init.uniform_(layer.gain, 0.5, 2.0)
    w = layer.weight.detach()
    mean, var = w.mean(dim=(1, 2, 3), keepdim=True), w.var(dim=(1, 2, 3), keepdim=True)
    expected = (w - mean) / torch.sqrt(var * 72 + 1e-4) * layer.gain.detach().view(-1, 1, 1, 1)
    torch.testing.assert_close(layer.kernel_weight().detach(), expected, rtol=1e-12, atol=1e-14)
    torch.nn.init.ones_(layer.gain)
    y = layer(numbers(2, 8, 8, 20, 20))[0].detach()[..., 1:-1, 1:-1]
    assert float(y.var()) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(("batch", "channels", "side"), [(1, 1, 6), (1, 3, 6), (2, 1, 1), (1, 1, 1)])
def test_layers_take_maps_whose_order_in_memory_is_not_unique(batch: int, channels: int, side: int) -> None:
    """With one sample, channel or pixel both orders look alike, and torch chooses the other one."""
    shape = (4, side, side)
    body = Chain([Conv2d(channels, 4, bias=True), cell(shape), Conv2d(4, 4), cell(shape), GlobalAverage()]).double()
    x = numbers(3, batch, channels, side, side)
    y, _ = body(x)
    assert y.shape == (3, batch, 4, 1, 1)
    y.square().sum().backward()
    both, _ = body.eval()(torch.cat([x, numbers(3, 2, channels, side, side, seed=1)], dim=1))
    torch.testing.assert_close(both[:, :batch], body(x)[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["average", "max"])
def test_pooling_is_torchs(kind: str) -> None:
    x = numbers(2, 3, 4, 7, 6)
    torchs = functional.avg_pool2d if kind == "average" else functional.max_pool2d
    for pool, arguments in ((Pool2d(kind), (2, 2, 0)), (Pool2d(kind, 3, stride=2, padding=1), (3, 2, 1))):
        y, _ = pool(x)
        assert torch.equal(y, torch.stack([torchs(step, *arguments) for step in x]))
        assert tuple(y.shape[2:]) == pool.out_shape((4, 7, 6))
    assert torch.equal(GlobalAverage()(x)[0].squeeze(-1).squeeze(-1), x.mean(dim=(3, 4)))


def test_batch_norm_by_step_is_torchs_called_at_every_step() -> None:
    x = numbers(5, 3, 4, 6, 7).requires_grad_()
    ours = BatchNormMaps(4, over="step").double()
    torchs = torch.nn.BatchNorm2d(4).double()
    for norm in (ours, torchs):
        torch.nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(2))
        torch.nn.init.normal_(norm.bias, generator=torch.Generator().manual_seed(3))
    y, z = ours(x)[0], torch.stack([torchs(step) for step in x])
    torch.testing.assert_close(y, z, rtol=0, atol=1e-12)
    up = numbers(*y.shape, seed=1)
    for a, b in zip(
        torch.autograd.grad(y, [x, ours.weight, ours.bias], up),
        torch.autograd.grad(z, [x, torchs.weight, torchs.bias], up),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(ours, name), getattr(torchs, name), rtol=1e-12, atol=1e-13)
    assert int(ours.num_batches_tracked) == 5
    ours.eval()
    torchs.eval()
    torch.testing.assert_close(ours(x)[0], torch.stack([torchs(step) for step in x]), rtol=0, atol=1e-12)


def test_batch_norm_over_time_is_torchs_over_all_steps() -> None:
    x = numbers(5, 3, 4, 6, 7)
    ours, torchs = BatchNormMaps(4, over="time").double(), torch.nn.BatchNorm2d(4).double()
    torch.testing.assert_close(ours(x)[0].flatten(0, 1), torchs(x.flatten(0, 1)), rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.running_var, torchs.running_var, rtol=1e-12, atol=0)
    assert not torch.allclose(ours(x)[0], BatchNormMaps(4, over="step").double()(x)[0], atol=1e-3)


@pytest.mark.parametrize("over", ["step", "time"])
def test_batch_norm_leaves_out_what_is_padded(over: str) -> None:
    """The statistics of a padded batch are those of its valid steps, whatever stands in the padding."""
    x = numbers(3, 2, 4, 5, 5)
    mask = torch.tensor([[True, True], [True, False], [False, False]])
    other = x.clone()
    other[~mask] = 1e3
    results = []
    for values in (x, other):
        norm = BatchNormMaps(4, over=over).double()
        results.append((norm(values, None, Context(mask=mask))[0][mask], norm.running_mean, norm.running_var))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)
    first = BatchNormMaps(4, over=over).double()
    first(x[:2], None, Context(mask=mask[:2]))
    assert torch.equal(first.running_mean, results[0][1])


def lif(shape: tuple[int, int, int]) -> LIF:
    return LIF(shape[0] * shape[1] * shape[2], dt=1e-3, beta=0.5, reset="subtract", detach_reset=False)


def cell(shape: tuple[int, int, int], **options: object) -> Cell:
    return Cell(shape, lif(shape), norm=BatchNormMaps(shape[0]), **options)


def test_dropout_of_a_cell_has_one_mask_for_all_stretches_of_a_sequence() -> None:
    layer = cell((3, 4, 4), dropout=SequenceDropout(0.5)).double()
    x, context = numbers(6, 5, 3, 4, 4) * 2, Context(sample_id=torch.arange(5))
    whole, _ = layer(x, None, context)
    state, parts = None, []
    for step in range(6):
        part, state = layer(x[step : step + 1], state, context)
        parts.append(part)
    assert torch.equal(whole, torch.cat(parts))
    assert set(whole.unique().tolist()) == {0.0, 2.0}
    ever = (whole > 0).any(dim=0)
    assert 0.2 < float(ever.double().mean()) < 0.6


def residual(scaled: bool) -> ResidualBlock | ScaledResidualBlock:
    kind = StandardisedConv2d if scaled else Conv2d
    first, second = (3, 6, 6), (5, 3, 3)
    layers = (
        Cell(first, lif(first), norm=None if scaled else BatchNormMaps(3), gain=2.74 if scaled else 1.0),
        kind(3, 5, 3, stride=2),
        Cell(second, lif(second), norm=None if scaled else BatchNormMaps(5), gain=2.74 if scaled else 1.0),
        kind(5, 5),
        kind(3, 5, 1, stride=2),
    )
    return ScaledResidualBlock(*layers, alpha=0.2, beta=1.5) if scaled else ResidualBlock(*layers)


@pytest.mark.parametrize("scaled", [False, True])
def test_residual_block_is_the_sum_that_it_states(scaled: bool) -> None:
    torch.manual_seed(0)
    block = residual(scaled).double()
    if isinstance(block, ScaledResidualBlock):
        block.skip_gain.data.fill_(0.7)
    x = numbers(4, 3, 3, 6, 6) * 2
    y, _ = block(x)
    spikes, _ = block.first(x / 1.5 if scaled else x)
    inner, _ = block.second(block.conv1(spikes)[0])
    branch, shortcut = block.conv2(inner)[0], block.shortcut(spikes)[0]
    assert spikes.count_nonzero() > 0
    assert inner.count_nonzero() > 0
    torch.testing.assert_close(y, branch * (0.7 * 0.2 if scaled else 1.0) + shortcut, rtol=0, atol=1e-12)
    assert tuple(y.shape[2:]) == block.out_shape((3, 6, 6))


def test_identity_shortcut_adds_spikes_or_in_scaled_blocks_the_input() -> None:
    shape = (3, 5, 5)
    x = numbers(4, 2, *shape) * 2
    plain = ResidualBlock(cell(shape), Conv2d(3, 3), cell(shape), Conv2d(3, 3)).double()
    torch.nn.init.zeros_(plain.conv2.weight)
    y, _ = plain(x)
    assert set(y.unique().tolist()) == {0.0, 1.0}
    scaled = ScaledResidualBlock(cell(shape), StandardisedConv2d(3, 3), cell(shape), StandardisedConv2d(3, 3)).double()
    assert torch.equal(scaled(x)[0], x)  # the learned factor of the branch starts at 0


@pytest.mark.parametrize("scaled", [False, True])
def test_fused_gradients_are_those_of_the_step_by_step_reference(scaled: bool) -> None:
    torch.manual_seed(1)
    block = residual(scaled).double()
    if isinstance(block, ScaledResidualBlock):
        block.skip_gain.data.fill_(0.7)
    x = (numbers(5, 3, 3, 6, 6) * 2).requires_grad_()
    parameters = [x, *block.parameters()]
    up = numbers(5, 3, 5, 3, 3, seed=3)

    def gradients() -> list[Tensor]:
        y, _ = block(x)
        return [y.detach(), *torch.autograd.grad(y, parameters, up)]

    fused = gradients()
    for part in (block.first, block.second):
        neuron = part.neuron
        part.neuron.forward = lambda current, state=None, context=None, n=neuron: n.reference_forward(current, state)
    reference = gradients()
    for a, b in zip(fused, reference, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)
    assert all(float(g.abs().sum()) > 0 for g in fused)


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_gradients_have_the_same_bits_for_any_number_of_threads(dtype: torch.dtype) -> None:
    x = numbers(4, 20, 3, 6, 6).to(dtype) * 2  # 80 images: more than one group of a weight gradient
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            torch.manual_seed(1)
            block = residual(True).to(dtype)
            block.skip_gain.data.fill_(0.7)
            block(x)[0].square().sum().backward()
            results.append([p.grad for p in block.parameters()])
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_mean_fan_out_counts_synapses() -> None:
    """Against the columns of the layers' matrices: what one value of the input reaches."""
    conv, pool, after = Conv2d(2, 3, 3, stride=2), Pool2d("average", 2), Conv2d(3, 4, 3)
    shape = conv.out_shape((2, 8, 8))
    body = Chain([conv, cell(shape), pool, after, cell(after.out_shape(pool.out_shape(shape)))])

    def reached(layers: list, shape: tuple[int, int, int]) -> float:
        total = 0
        for unit in range(shape[0] * shape[1] * shape[2]):
            x = torch.zeros(1, 1, *shape)
            x.view(-1)[unit] = 1.0
            for layer in layers:
                torch.nn.init.ones_(layer.weight) if isinstance(layer, Conv2d) else None
                x, _ = layer(x)
            total += int(x.count_nonzero())
        return total / (shape[0] * shape[1] * shape[2])

    expected = [reached([conv], (2, 8, 8)), reached([pool, after], shape), 10.0]
    assert mean_fan_out(body, (2, 8, 8), 10) == pytest.approx(expected)


def test_detach_state_keeps_values_and_kinds_and_cuts_the_graph() -> None:
    layer = cell((3, 4, 4)).double()
    x = (numbers(2, 1, 3, 4, 4) * 2).requires_grad_()
    _, state = layer(x)
    cut = detach_state({"cell": [state, None, 3]})
    assert state[0].v.requires_grad
    assert type(cut["cell"][0][0]) is type(state[0])
    assert not cut["cell"][0][0].v.requires_grad
    assert torch.equal(cut["cell"][0][0].v, state[0].v)
    assert cut["cell"][1:] == [None, 3]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Conv2d(0, 3), "channels, kernel and stride >= 1"),
        (lambda: Conv2d(3, 3, 3, padding=3), "a padding below the kernel"),
        (lambda: StandardisedConv2d(1, 3, 1), "one weight a channel has no variance"),
        (lambda: Pool2d("median"), "kind 'average' or 'max'"),
        (lambda: BatchNormMaps(3, over="batch"), "'step' or 'time', got 'batch'"),
        (lambda: Conv2d(3, 4).out_shape((2, 8, 8)), "expected maps with 3 channels, got 2"),
        (lambda: Pool2d().out_shape((2, 1, 1)), "a kernel of 2 does not fit maps of 1 pixels; use fewer stages"),
        (lambda: Conv2d(3, 4)(torch.zeros(2, 1, 27)), r"\(time, batch, 3, height, width\), got \(2, 1, 27\)"),
        (lambda: Cell((3, 4, 4), lif((3, 4, 5))), "maps of 3 x 4 x 4 need 48 neurons, got 60"),
        (lambda: Cell((3, 4, 4), lif((3, 4, 4)), norm=BatchNormMaps(4)), "a batch norm of 3 channels, got 4"),
        (lambda: cell((3, 4, 4))(torch.zeros(1, 1, 3, 5, 4)), r"expected maps of shape \(3, 4, 4\)"),
        (
            lambda: ResidualBlock(cell((3, 4, 4)), Conv2d(3, 5), cell((5, 4, 4)), Conv2d(5, 5)),
            r"cannot add a branch of \(5, 4, 4\) to a shortcut of \(3, 4, 4\)",
        ),
        (
            lambda: ResidualBlock(cell((3, 4, 4)), Conv2d(3, 5), cell((4, 4, 4)), Conv2d(5, 5)),
            r"expects maps of \(4, 4, 4\), the first convolution gives \(5, 4, 4\)",
        ),
        (
            lambda: BatchNormMaps(3)(torch.zeros(2, 1, 3, 4, 4), None, Context(mask=torch.ones(3, 1).bool())),
            r"a mask of shape \(2, 1\), got \(3, 1\)",
        ),
    ],
)
def test_bad_layers_are_refused_in_one_sentence(make: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
