"""Evaluation of connections on a CUDA device, in Numba's simulator: the bits of the CPU."""

import numpy as np
import pytest
import torch

from snnsim.errors import InputError
from snnsim.kernels import cuda_delays
from snnsim.kernels.cuda_support import SIMULATED, device_array, launch
from snnsim.kernels.delays import delayed_sum, pack_taps
from snnsim.kernels.reference_delays import delayed_sum as reference_sum
from snnsim.nn.cuda import simulated_device
from snnsim.nn.cuda_delays import device_delayed_sum
from snnsim.nn.delays import DelayedLinear, Linear

pytestmark = pytest.mark.skipif(not SIMULATED, reason="needs NUMBA_ENABLE_CUDASIM=1")


def _inputs(size, dtype, longest, kind, seed=0):
    n_steps, batch, n_in, n_out, taps = size
    rng = np.random.default_rng(seed)
    x = (rng.random((n_steps, batch, n_in)) < 0.4).astype(dtype)
    if kind == "silence":
        x[:] = 0
    elif kind == "all":
        x[:] = 1
    elif kind == "counts":
        x *= rng.integers(1, 5, x.shape)
        x.reshape(-1)[:1] = 3
    elif kind == "analogue":
        x *= rng.normal(size=x.shape)
    weight = rng.normal(size=(n_out, n_in, taps)).astype(dtype)
    return x, weight, rng.integers(0, longest + 1, weight.shape)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("size", "longest", "kind"),
    [
        ((7, 2, 5, 3, 2), 4, "spikes"),
        ((33, 1, 9, 4, 1), 40, "spikes"),
        ((64, 2, 3, 2, 1), 32, "spikes"),
        ((3, 2, 4, 1, 1), 0, "spikes"),
        ((5, 1, 1, 2, 1), 64, "spikes"),
        ((9, 2, 4, 3, 1), 3, "counts"),
        ((9, 2, 4, 3, 2), 12, "analogue"),
        ((9, 2, 4, 3, 1), 3, "silence"),
        ((34, 1, 4, 3, 1), 33, "all"),
        ((0, 2, 4, 3, 1), 3, "spikes"),
        ((4, 0, 4, 3, 1), 3, "spikes"),
    ],
)
def test_sums_have_the_bits_of_the_cpu(dtype, size, longest, kind):
    x, weight, delay = _inputs(size, dtype, longest, kind)
    packed, steps = pack_taps(weight, delay)
    expected = delayed_sum(x, packed, steps)
    assert np.array_equal(expected, reference_sum(x, weight, delay))
    with simulated_device():
        found = device_delayed_sum(torch.from_numpy(x), torch.from_numpy(weight), torch.from_numpy(delay), longest)
    assert found.numpy().tobytes() == expected.tobytes()


@pytest.mark.parametrize("kind", ["spikes", "counts"])
def test_the_order_matters_and_is_kept(kind):
    """A sum in the order of the sources alone gives other bits for the same input."""
    x, weight, delay = _inputs((20, 1, 12, 2, 2), np.float32, 9, kind, 5)
    packed, steps = pack_taps(weight, delay)
    with simulated_device():
        found = device_delayed_sum(torch.from_numpy(x), torch.from_numpy(weight), torch.from_numpy(delay), 9).numpy()
    other = np.zeros_like(found)
    for step in range(20):
        for source in range(12):
            for tap in range(2):
                for target in range(2):
                    emission = step - delay[target, source, tap]
                    if emission >= 0:
                        other[step, 0, target] += x[emission, 0, source] * weight[target, source, tap]
    assert np.array_equal(found, delayed_sum(x, packed, steps))
    np.testing.assert_allclose(found, other, rtol=1e-5, atol=1e-5)
    assert not np.array_equal(found, other)


def test_weights_that_are_not_finite_reach_only_what_spikes():
    x, weight, delay = _inputs((12, 1, 3, 2, 1), np.float64, 2, "spikes")
    weight[1, 0, 0] = np.inf
    x[:, :, 0] = 0
    for factor in (1, 2):
        with simulated_device():
            found = device_delayed_sum(
                torch.from_numpy(factor * x), torch.from_numpy(weight), torch.from_numpy(delay), 2
            )
        assert bool(torch.isfinite(found).all())


def test_packed_words_and_the_flag():
    x = np.zeros((35, 2, 3), np.float32)
    x[0, 1, 2] = x[31, 1, 2] = x[34, 0, 0] = 1
    for other, raised in ((1.0, 0), (2.0, 1), (0.5, 1), (-1.0, 1)):
        x[33, 0, 1] = other
        words = device_array(np.full((2, 3, 3), 7, np.uint32))
        flag = device_array(np.zeros(1, np.int32))
        launch(cuda_delays.pack_time, 18, (device_array(x), 1, words, flag))
        expected = np.zeros((2, 3, 3), np.uint32)
        expected[1, 1, 2] = 2**31 + 1
        expected[0, 2, 0] = 4
        expected[0, 2, 1] = 2
        assert np.array_equal(words.copy_to_host(), expected)
        assert flag.copy_to_host()[0] == raised


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_layers_evaluate_with_the_bits_of_the_cpu(dtype):
    torch.manual_seed(3)
    delayed = DelayedLinear(6, 5, max_delay_steps=7, taps=2, per="axon", bias=True).to(dtype).eval()
    delayed.set_mask(torch.rand(5, 6) < 0.6)
    plain = Linear(6, 5, bias=True).to(dtype).eval()
    plain.set_mask(torch.rand(5, 6) < 0.6)
    x = (torch.rand(13, 3, 6) < 0.3).to(dtype)
    state = (torch.rand(7, 3, 6) < 0.3).to(dtype)
    for layer, old in ((delayed, state), (delayed, None), (plain, None)):
        with torch.no_grad():
            expected, _ = layer(x, old)
            with simulated_device():
                found, _ = layer(x, old)
        assert torch.equal(found, expected)


@pytest.mark.parametrize("layer", [DelayedLinear(6, 5, max_delay_steps=7), Linear(6, 5)])
def test_other_ways_fall_to_the_dense_ones(layer):
    """Gradients in evaluation, few synapses, listed events: the device has one way, equal within rounding."""
    layer = layer.double()
    layer.set_mask(torch.rand(5, 6) < 0.3)
    x = (torch.rand(13, 3, 6) < 0.3).double()
    for training in (True, False):
        layer.train(training)
        layer.formulation = "frequency" if isinstance(layer, DelayedLinear) else "dense"
        expected, _ = layer(x)
        for formulation in ("sparse",) if isinstance(layer, DelayedLinear) else ("sparse", "events"):
            layer.formulation = formulation
            assert layer.computes_sparse(x) is (formulation == "sparse")
            with simulated_device():
                assert not layer.computes_sparse(x)
                found, _ = layer(x)
                found.sum().backward()
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_codes_that_do_not_fit_are_refused():
    x, weight = torch.zeros(1, 1, 1 << 20), torch.zeros(1, 1 << 20, 1)
    with simulated_device(), pytest.raises(InputError, match="1048576 sources with delays of up to 3200 steps"):
        device_delayed_sum(x, weight, torch.zeros_like(weight, dtype=torch.int64), 3200)
