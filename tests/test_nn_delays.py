"""Delay layers: kernel values, gradients, rounding, and the two domains against the NumPy definition."""

from __future__ import annotations

import copy
import importlib.util
import math

import numpy as np
import pytest
import torch

from snnsim.errors import InputError
from snnsim.kernels import delays as fast
from snnsim.kernels import reference_delays as reference
from snnsim.nn.delays import DelayedLinear, Linear, delay_kernel
from snnsim.nn.frequency import frequency_delay

DTYPE = torch.float64


def kernel_of(position: float, sigma: float, version: str, n_delays: int) -> torch.Tensor:
    """Kernel of one synapse in the papers' slot order (slot k is the delay n_delays - 1 - k)."""
    p = torch.full((1, 1, 1), position, dtype=DTYPE)
    w = torch.ones(1, 1, 1, dtype=DTYPE)
    return delay_kernel(w, p, torch.tensor(sigma, dtype=DTYPE), version, n_delays)[:, 0, 0].flip(0)


PUBLISHED = [
    # computed once with the dcls package, L = 5, unit weight
    (0.3, 0.0, "v0", [0, 0, 0.7, 0.3, 0]),
    (0.3, 0.0, "v1", [0, 0, 0.7, 0.3, 0]),
    (0.3, 0.0, "max", [0, 0, 0.7, 0.3, 0]),
    (0.0, 0.23, "gauss", [2.64e-4, 0.106451, 0.786571, 0.106451, 2.64e-4]),
    (0.3, 0.23, "gauss", [2.0e-5, 0.027287, 0.669425, 0.300792, 0.002475]),
    (-2.0, 0.23, "gauss", [0.880537, 0.119168, 2.95e-4, 0, 0]),
]


@pytest.mark.parametrize(("position", "sigma", "version", "expected"), PUBLISHED)
def test_kernel_equals_published_values(position, sigma, version, expected):
    assert kernel_of(position, sigma, version, 5).tolist() == pytest.approx(expected, abs=6e-7)


def test_wide_kernel_equals_published_values():
    kernel = kernel_of(0.0, 12.0, "gauss", 25)
    assert kernel[12].item() == pytest.approx(0.0469979, abs=5e-8)
    assert kernel[0].item() == pytest.approx(0.0291329, abs=5e-8)


def test_position_gradient_equals_published_values():
    p = torch.full((1, 1, 1), 0.3, dtype=DTYPE, requires_grad=True)
    w = torch.ones(1, 1, 1, dtype=DTYPE)
    kernel = delay_kernel(w, p, torch.tensor(0.23, dtype=DTYPE), "gauss", 5)[:, 0, 0].flip(0)
    slopes = [torch.autograd.grad(value, p, retain_graph=True)[0].item() for value in kernel]
    assert slopes == pytest.approx([-1.86e-4, -0.139538, -0.745511, 0.868188, 0.017047], abs=2e-6)
    assert sum(slopes) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("version", reference.VERSIONS)
@pytest.mark.parametrize("n_delays", [4, 5, 25])
@pytest.mark.parametrize("sigma", [0.0, 0.23, 1.7])
def test_kernel_equals_reference_and_sums_to_the_weight(version, n_delays, sigma):
    high = n_delays // 2
    low = high - (n_delays - 1)
    position = np.linspace(low, high, 31).reshape(31, 1, 1)
    weight = torch.linspace(-2, 2, 31, dtype=DTYPE).reshape(31, 1, 1)
    kernel = delay_kernel(weight, torch.from_numpy(position), torch.tensor(sigma, dtype=DTYPE), version, n_delays)
    expected = reference.delay_profile(position, sigma, version, n_delays)[..., 0] * weight[..., 0].numpy()
    np.testing.assert_allclose(kernel.numpy(), expected, rtol=1e-12, atol=1e-14)
    tolerance = 1e-12 if version == "v0" else 2e-6
    np.testing.assert_allclose(kernel.sum(0).numpy(), weight[..., 0].numpy(), rtol=tolerance, atol=1e-12)


@pytest.mark.parametrize("version", reference.VERSIONS)
@pytest.mark.parametrize("shape", [(3, 4, 2), (1, 4, 2), (3, 1, 2)])
def test_kernel_gradients_pass_gradcheck(version, shape):
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(3, 4, 2, dtype=DTYPE, generator=generator, requires_grad=True)
    position = (torch.rand(*shape, dtype=DTYPE, generator=generator) * 4 - 2) * 0.97 + 0.013
    position.requires_grad_()
    sigma = torch.tensor(0.61, dtype=DTYPE, requires_grad=version in ("max", "gauss"))
    assert torch.autograd.gradcheck(
        lambda w, p, s: delay_kernel(w, p, s, version, 5), (weight, position, sigma), atol=1e-7
    )


@pytest.mark.skipif(importlib.util.find_spec("DCLS") is None, reason="the dcls package is not installed")
@pytest.mark.parametrize(
    ("version", "sigma"), [("v0", 0.0), ("v1", 0.0), ("max", 0.4), ("gauss", 0.23), ("gauss", 3.0)]
)
def test_layer_equals_the_dcls_package_in_value_and_gradient(version, sigma):
    from DCLS.construct.modules import Dcls1d

    n_in, n_out, taps, length, n_steps = 5, 4, 2, 7, 20
    peer = Dcls1d(n_in, n_out, kernel_count=taps, dilated_kernel_size=length, bias=False, version=version).double()
    layer = DelayedLinear(n_in, n_out, max_delay_steps=length - 1, taps=taps, version=version, sigma=sigma).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        layer.sigma.fill_(sigma)
        layer.position.uniform_(-2.9, 2.9, generator=generator)
        peer.weight.copy_(layer.weight)
        peer.P.copy_(layer.position.unsqueeze(0))
        if hasattr(peer, "SIG") and peer.SIG is not None and version in ("max", "gauss"):
            peer.SIG.fill_(sigma)
    x = torch.rand(n_steps, 3, n_in, dtype=DTYPE, generator=generator)
    ours, _ = layer.train()(x)
    theirs = peer(torch.nn.functional.pad(x.permute(1, 2, 0), (length - 1, 0))).permute(2, 0, 1)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)
    upstream = torch.rand(ours.shape, dtype=DTYPE, generator=generator)
    ours.backward(upstream)
    theirs.backward(upstream)
    torch.testing.assert_close(layer.weight.grad, peer.weight.grad, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(layer.position.grad, peer.P.grad[0], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(("n_steps", "n_delays"), [(1, 1), (1, 5), (6, 1), (20, 7), (21, 8)])
def test_frequency_domain_equals_the_causal_sum(n_steps, n_delays):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n_steps, 3, 5, dtype=DTYPE, generator=generator)
    kernel = torch.randn(n_delays, 4, 5, dtype=DTYPE, generator=generator)
    expected = torch.zeros(n_steps, 3, 4, dtype=DTYPE)
    for delay in range(min(n_delays, n_steps)):
        expected[delay:] += x[: n_steps - delay] @ kernel[delay].T
    torch.testing.assert_close(frequency_delay(x, kernel), expected, rtol=1e-12, atol=1e-12)
    single = frequency_delay(x.float(), kernel.float())
    assert (single - expected).abs().max() <= 2e-6 * expected.abs().max()


def test_frequency_domain_gradients_pass_gradcheck():
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(9, 2, 3, dtype=DTYPE, generator=generator, requires_grad=True)
    kernel = torch.randn(4, 2, 3, dtype=DTYPE, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: frequency_delay(a, b).sin(), (x, kernel))


def test_two_graphs_at_once_do_not_share_buffers():
    generator = torch.Generator().manual_seed(5)
    kernel = torch.randn(3, 4, 4, dtype=DTYPE, generator=generator, requires_grad=True)
    inputs = [torch.randn(8, 2, 4, dtype=DTYPE, generator=generator) for _ in range(3)]
    separate = []
    for x in inputs:
        (gradient,) = torch.autograd.grad(frequency_delay(x, kernel).square().sum(), kernel)
        separate.append(gradient)
    total = sum(frequency_delay(x, kernel).square().sum() for x in inputs)
    (together,) = torch.autograd.grad(total, kernel)
    torch.testing.assert_close(together, separate[0] + separate[1] + separate[2])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("taps", [1, 3])
def test_evaluation_kernel_equals_reference_to_the_bit(dtype, taps):
    layer = DelayedLinear(6, 5, max_delay_steps=8, taps=taps, generator=torch.Generator().manual_seed(0)).to(dtype)
    x = torch.poisson(torch.full((30, 4, 6), 0.4), generator=torch.Generator().manual_seed(1)).to(dtype)
    with torch.no_grad():
        y, _ = layer.eval()(x)
    expected = reference.delayed_sum(x.numpy(), layer.weight.detach().numpy(), layer.delay_steps().numpy())
    assert np.array_equal(y.numpy(), expected)
    layer.eval()
    graph, _ = layer(x)
    torch.testing.assert_close(graph.detach(), y, rtol=1e-5, atol=1e-5)


def test_evaluation_bits_do_not_depend_on_the_batch():
    layer = DelayedLinear(6, 5, max_delay_steps=8).eval()
    plain = Linear(6, 5).eval()
    x = torch.poisson(torch.full((30, 7, 6), 0.4), generator=torch.Generator().manual_seed(1))
    for connection in (layer, plain):
        with torch.no_grad():
            together = connection(x)[0]
            apart = torch.cat([connection(x[:, i : i + 1])[0] for i in range(7)], dim=1)
        assert torch.equal(together, apart)


def test_numba_kernel_accepts_packed_taps():
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(4, 3, 2))
    steps = rng.integers(0, 6, size=(4, 3, 2))
    spikes = (rng.random((12, 2, 3)) < 0.3).astype(np.float64)
    packed, packed_steps = fast.pack_taps(weight, steps)
    assert np.array_equal(fast.delayed_sum(spikes, packed, packed_steps), reference.delayed_sum(spikes, weight, steps))


@pytest.mark.parametrize("n_delays", [5, 6, 25])
def test_integer_positions_shift_by_their_delay(n_delays):
    layer = DelayedLinear(1, n_delays, max_delay_steps=n_delays - 1, version="v0").double()
    low, high = layer.position_limits
    with torch.no_grad():
        layer.position[:, 0, 0] = torch.arange(low, high + 1)
        layer.weight.fill_(1.0)
    x = torch.zeros(2 * n_delays, 1, 1, dtype=DTYPE)
    x[1] = 1.0
    for mode in (True, False):
        with torch.no_grad():
            y, _ = layer.train(mode)(x)
        expected = n_delays // 2 - torch.arange(low, high + 1) + 1
        assert torch.equal(y[:, 0].argmax(0), expected)
        assert y[:, 0].max(0).values.tolist() == pytest.approx([1.0] * n_delays)


@pytest.mark.parametrize("training", [True, False])
def test_a_layer_is_causal(training):
    layer = DelayedLinear(3, 4, max_delay_steps=6).train(training)
    x = torch.rand(25, 2, 3, generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[12:] = 0.0
    with torch.no_grad():
        difference = (layer(x)[0] - layer(changed)[0])[:12].abs().max()
    assert difference <= (1e-5 if training else 0.0)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("cut", [1, 3, 10, 24])
def test_a_stream_cut_in_two_equals_one_run(training, cut):
    layer = DelayedLinear(3, 4, max_delay_steps=6).double().train(training)
    x = torch.poisson(torch.full((25, 2, 3), 0.5), generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        whole, _ = layer(x)
        first, state = layer(x[:cut])
        second, _ = layer(x[cut:], state)
    torch.testing.assert_close(torch.cat([first, second]), whole, rtol=1e-12, atol=1e-12)


def test_evaluation_has_no_side_effects():
    layer = DelayedLinear(3, 4, max_delay_steps=6)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    generator_state = torch.get_rng_state()
    with torch.no_grad():
        layer.eval()(torch.rand(10, 2, 3))
    layer.train()
    torch.manual_seed(0)
    torch.set_rng_state(generator_state)
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())
    assert layer.version == "gauss"


def test_rounding_is_half_to_even_and_within_range():
    layer = DelayedLinear(1, 5, max_delay_steps=4)
    with torch.no_grad():
        layer.position[:, 0, 0] = torch.tensor([-2.0, -0.5, 0.5, 1.5, 2.0])
    assert layer.delay_steps()[:, 0, 0].tolist() == [4, 2, 2, 0, 0]
    assert reference.round_delays([-2.0, -0.5, 0.5, 1.5, 2.0], 5).tolist() == [4, 2, 2, 0, 0]


def test_delays_learn_towards_a_target():
    """One input spike, one target time: the position moves until the delay is right."""
    layer = DelayedLinear(1, 1, max_delay_steps=24, sigma=3.0).double()
    target = 17
    with torch.no_grad():
        layer.position.fill_(12 - 12.0)
        layer.weight.fill_(1.0)
    x = torch.zeros(40, 1, 1, dtype=DTYPE)
    x[5] = 1.0
    wanted = reference.delay_profile(np.array([12.0 - target]), 3.0, "gauss", 25)[:, 0]
    goal = torch.zeros(40, dtype=DTYPE)
    goal[5:30] = torch.from_numpy(wanted)
    optimiser = torch.optim.Adam([layer.position], lr=0.1)
    first = None
    for _ in range(150):
        optimiser.zero_grad()
        loss = (layer.train()(x)[0][:, 0, 0] - goal).square().sum()
        loss.backward()
        if first is None:
            first = layer.position.grad.item()
        optimiser.step()
        layer.clamp_()
    assert first > 0  # a longer delay is a lower position
    assert abs(12 - layer.position.item() - target) < 0.5


def test_fixed_delays_do_not_learn_and_stay_whole():
    layer = DelayedLinear(3, 4, max_delay_steps=6, learn_delay=False)
    assert torch.equal(layer.position, layer.position.round())
    assert not layer.position.requires_grad
    x = torch.rand(12, 2, 3)
    with torch.no_grad():
        torch.testing.assert_close(layer.train()(x)[0], layer.eval()(x)[0], rtol=1e-5, atol=1e-5)


def test_initial_positions_follow_the_published_range():
    layer = DelayedLinear(200, 200, max_delay_steps=24, generator=torch.Generator().manual_seed(0))
    share = (layer.position == -12).double().mean().item()
    assert share == pytest.approx(1 / 25, abs=0.005)  # U(-13, 12) clamped piles up at the longest delay
    assert layer.position.max() <= 12
    assert layer.sigma.item() == 12.0
    assert "sigma" not in dict(layer.named_parameters())
    bound = math.sqrt(6 / 200)
    assert layer.weight.abs().max().item() <= bound


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_delay_steps": 0}, "use Linear without delays"),
        ({"max_delay_steps": 3, "taps": 0}, "taps: expected at least 1"),
        ({"max_delay_steps": 3, "version": "v9"}, "version: expected one of v0"),
        ({"max_delay_steps": 3, "per": "neuron"}, "per: expected 'synapse'"),
        ({"max_delay_steps": 3, "init": "gauss"}, "init: expected 'uniform'"),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(arguments, message):
    with pytest.raises(InputError, match=message):
        DelayedLinear(3, 4, **arguments)


def test_wrong_input_shape_names_the_expected_one():
    with pytest.raises(InputError, match=r"expected input \(time, batch, 3\), got shape \(5, 2, 4\)"):
        DelayedLinear(3, 4, max_delay_steps=3)(torch.zeros(5, 2, 4))


@pytest.mark.parametrize("per", ["synapse", "axon", "dendrite"])
def test_fixed_delays_train_with_the_kernel_of_evaluation(per):
    generator = torch.Generator().manual_seed(3)
    layer = DelayedLinear(5, 4, max_delay_steps=8, taps=2, per=per, generator=generator)
    x = (torch.rand(30, 2, 5, generator=generator) < 0.3).to(torch.float32)
    layer.eval()
    with torch.no_grad():
        expected, _ = layer(x)
    steps = layer.delay_steps()
    layer.train()
    assert not torch.allclose(layer(x)[0], expected, atol=1e-2)
    layer.fix_delays()
    assert torch.equal(layer.delay_steps(), steps)
    y, _ = layer(x)
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5)
    y.square().sum().backward()
    assert layer.position.grad is None
    assert bool((layer.weight.grad != 0).all())


@pytest.mark.parametrize(
    ("n_in", "n_out", "delays", "sigma"), [(140, 256, 25, 12.0), (256, 256, 25, 0.23), (256, 20, 25, 12.0)]
)
def test_float32_agrees_with_float64_at_the_width_of_published_networks(n_in, n_out, delays, sigma):
    generator = torch.Generator().manual_seed(0)
    layer = DelayedLinear(n_in, n_out, max_delay_steps=delays - 1, sigma=sigma, generator=generator).train()
    wide = copy.deepcopy(layer).double()
    x = (torch.rand(136, 64, n_in, generator=generator) < 0.1).float() / 0.6
    upstream = torch.randn(136, 64, n_out, generator=generator)
    results = []
    for module, kind in ((layer, torch.float32), (wide, torch.float64)):
        leaf = x.to(kind, copy=True).requires_grad_()
        y, _ = module(leaf)
        y.backward(upstream.to(kind))
        results.append((y.detach(), leaf.grad, module.weight.grad, module.position.grad))
    for got, wanted in zip(*results, strict=True):
        assert float((got.double() - wanted).norm() / wanted.norm()) <= 1e-6
