"""Kernels of connections at the sizes of networks: compiled for the CPU with a device's types."""

import numpy as np
import pytest
import torch
from cuda_emulator import compiled
from test_cuda_dropout import drawn_counts

from snnsim.kernels.cuda_support import SIMULATED
from snnsim.kernels.delays import delayed_sum, pack_taps
from snnsim.kernels.poisson import poisson_counts
from snnsim.kernels.spike_bits import pack_spikes
from snnsim.nn.context import Context
from snnsim.nn.cuda import simulated_device
from snnsim.nn.cuda_delays import device_delayed_sum
from snnsim.nn.cuda_spikes import keep_spikes, mark_spikes, restore_spikes
from snnsim.nn.delays import DelayedLinear
from snnsim.nn.dropout import SequenceDropout

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not SIMULATED, reason="needs NUMBA_ENABLE_CUDASIM=1")]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", ["spikes", "counts"])
def test_evaluation_of_a_delay_layer(dtype, kind):
    """1 M sums of a layer of 140 to 128 neurons with two taps of up to 25 steps: the bits of the CPU."""
    rng = np.random.default_rng(0)
    x = (rng.random((136, 64, 140)) < 0.1).astype(dtype)
    if kind == "counts":
        x *= rng.integers(1, 4, x.shape)
    weight = rng.normal(size=(128, 140, 2)).astype(dtype)
    delay = rng.integers(0, 26, weight.shape)
    packed, steps = pack_taps(weight, delay)
    expected = delayed_sum(x, packed, steps)
    with simulated_device(), compiled() as seen:
        found = device_delayed_sum(torch.from_numpy(x), torch.from_numpy(weight), torch.from_numpy(delay), 25)
    assert {name.rsplit(".", 1)[1] for name in seen} == {"pack_time", "delayed_bits", "delayed_numbers"}
    assert found.numpy().tobytes() == expected.tobytes()
    delay[5, 7, 0] = (delay[5, 7, 0] + 1) % 26  # one delay of 35 840 is another
    with simulated_device(), compiled():
        found = device_delayed_sum(torch.from_numpy(x), torch.from_numpy(weight), torch.from_numpy(delay), 25)
    assert not np.array_equal(found.numpy(), expected)


def test_bits_and_masks():
    x = (torch.rand(100, 64, 257) < 0.1).float() * 1.25
    layer = SequenceDropout(0.4, layer=1)
    context = Context(sample_id=torch.arange(64) * 1000, seed=5, epoch=3)
    with simulated_device(), compiled():
        words, form = keep_spikes(x, 1.25)
        back = restore_spikes(words, form)
        factors = layer.factors(context, x)
    assert np.array_equal(words.numpy().view(np.uint64), pack_spikes(x.numpy().reshape(-1), 1.25, 1))
    assert torch.equal(back, x)
    assert torch.equal(factors, layer.factors(context, x))


def test_poisson_counts():
    means = np.array([0.01, 0.3, 4.0])
    row = np.random.default_rng(1).integers(0, 3, 300)
    with compiled():
        counts = drawn_counts(40, means, row)
    assert np.array_equal(counts, poisson_counts(6, 43, 5, 40, 2, 300, means[row]))


@pytest.mark.parametrize("version", ["gauss", "max", "v1", "v0"])
def test_training_of_a_delay_layer(version):
    """Outputs and gradients of a layer of 256 to 256 neurons in float32 against the CPU in float64."""
    layer = DelayedLinear(256, 256, max_delay_steps=24, version=version, sigma=3.0)
    x = (torch.rand(136, 16, 256) < 0.1).float()
    up = torch.randn(136, 16, 256)
    results = []
    for dtype, on_device in ((torch.float64, False), (torch.float32, True)):
        copy = DelayedLinear(256, 256, max_delay_steps=24, version=version, sigma=3.0).to(dtype)
        copy.load_state_dict(layer.state_dict())
        source = x.to(dtype).requires_grad_()
        if on_device:
            with simulated_device(), compiled() as seen:
                y, _ = copy(mark_spikes(source * 1.0, 1.0))
                y.backward(up)
            assert {name.rsplit(".", 1)[1] for name in seen} == {
                *("profile_forward", "profile_backward", "pack_spikes", "unpack_spikes")
            }
        else:
            y, _ = copy(source)
            y.backward(up.double())
        results.append([y.detach(), source.grad, copy.weight.grad, copy.position.grad])
    for name, found, expected in zip(("output", "input", "weight", "position"), *results[::-1], strict=True):
        apart = float((found.double() - expected).norm() / expected.norm())
        assert apart <= 1e-6, (name, apart)
