"""The frequency domain and the delay kernel on a CUDA device, with Numba's simulator in its place."""

import numpy as np
import pytest
import torch
from torch import Tensor

from snnsim.kernels.cuda_support import SIMULATED
from snnsim.nn import cuda_frequency
from snnsim.nn.cuda import simulated_device
from snnsim.nn.cuda_frequency import FastTransform, MatrixTransform, device_frequency_delay, transform_of
from snnsim.nn.cuda_spikes import mark_spikes
from snnsim.nn.delays import DelayedLinear, delay_kernel
from snnsim.nn.frequency import frequency_delay

pytestmark = pytest.mark.skipif(not SIMULATED, reason="needs NUMBA_ENABLE_CUDASIM=1")

SIZES = [(1, 1, 1, 1, 2), (7, 2, 3, 4, 3), (5, 3, 2, 1, 9), (40, 3, 17, 9, 13)]
"""Steps, samples, sources, targets, slots."""

LIMIT = {torch.float32: 1e-6, torch.float64: 1e-13}


def _in_time(x: Tensor, kernel: Tensor) -> Tensor:
    padded = torch.cat([x.new_zeros(kernel.shape[0] - 1, *x.shape[1:]), x])
    last = kernel.shape[0] - 1
    return sum(padded[last - d : last - d + len(x)] @ kernel[d].t() for d in range(last + 1))


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm().clamp(min=1e-30))


@pytest.fixture(params=["matrix", "fast"])
def way(request, monkeypatch):
    transform_of.cache_clear()
    monkeypatch.setattr(cuda_frequency, "MATRIX_LENGTH", 10_000 if request.param == "matrix" else 0)
    yield request.param
    transform_of.cache_clear()


def _case(size, dtype, seed=0):
    n_steps, batch, n_in, n_out, n_delays = size
    generator = torch.Generator().manual_seed(seed)
    x = (torch.rand(n_steps, batch, n_in, generator=generator) < 0.3).to(dtype)
    x.view(-1)[0] = 1
    kernel = torch.randn(n_delays, n_out, n_in, generator=generator, dtype=torch.float64).to(dtype)
    up = torch.randn(n_steps, batch, n_out, generator=generator, dtype=torch.float64).to(dtype)
    return x, kernel, up


def _gradients(function, x, kernel, up, value=None):
    x, kernel = x.clone().requires_grad_(), kernel.clone().requires_grad_()
    shown = x if value is None else mark_spikes(x * 1.0, value)
    with simulated_device():
        y = function(shown, kernel)
        y.backward(up)
    return y.detach(), x.grad, kernel.grad


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_outputs_and_gradients_equal_the_time_domain(way, size, dtype):
    x, kernel, up = _case(size, dtype)
    n_steps, n_delays = size[0], size[-1]
    kind = MatrixTransform if way == "matrix" else FastTransform
    assert type(transform_of(n_steps, n_delays, dtype, x.device)) is kind
    expected = _gradients(_in_time, x.double(), kernel.double(), up.double())
    for value in (None, 1.0):
        found = _gradients(device_frequency_delay, x, kernel, up, value)
        for one, other in zip(found, expected, strict=True):
            assert one.shape == other.shape
            assert one.dtype == dtype
            assert one.is_contiguous()
            assert _relative(one, other) <= LIMIT[dtype]


def test_blocks_of_rows_do_not_change_the_sums(way, monkeypatch):
    x, kernel, up = _case((40, 3, 17, 9, 13), torch.float64, 1)
    whole = _gradients(device_frequency_delay, x, kernel, up)
    row = (3 * 17 + 17 * 9 + 3 * 9) * 8
    seen = []
    blocks = cuda_frequency.DeviceTransform.blocks

    def counted(self, row_bytes):
        seen.append(len(list(blocks(self, row_bytes))))
        return blocks(self, row_bytes)

    monkeypatch.setattr(cuda_frequency.DeviceTransform, "blocks", counted)
    for limit in (1, 7 * row, 22 * row):
        monkeypatch.setattr(cuda_frequency, "BLOCK_BYTES", limit)
        for one, other in zip(_gradients(device_frequency_delay, x, kernel, up), whole, strict=True):
            assert _relative(one, other) <= 1e-14
    assert len(set(seen)) == 3
    assert min(seen) > 1


def test_only_wanted_gradients_are_computed(way):
    x, kernel, up = _case((9, 2, 4, 3, 4), torch.float64, 2)
    both = _gradients(device_frequency_delay, x, kernel, up)
    for wanted in (0, 1):
        arguments = [x.clone(), kernel.clone()]
        arguments[wanted].requires_grad_()
        with simulated_device():
            device_frequency_delay(*arguments).backward(up)
        assert torch.equal(arguments[wanted].grad, both[1 + wanted])
        assert arguments[1 - wanted].grad is None


def test_spikes_of_a_layer_are_kept_as_bits():
    x, kernel, _ = _case((40, 3, 17, 9, 13), torch.float32)
    saved = []

    def pack(tensor):
        saved.append(tensor)
        return tensor

    def kept(value):
        saved.clear()
        y = (x * 2.0).requires_grad_()
        shown = y if value is None else mark_spikes(y * 1.0, value)
        with simulated_device(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            device_frequency_delay(shown, kernel.clone().requires_grad_())
        return sum(t.numel() * t.element_size() for t in saved) - kernel.numel() * 4

    assert kept(2.0) == -(-x.numel() // 64) * 8
    assert kept(None) == x.numel() * 4


def test_a_layer_on_the_device_takes_this_way():
    x, kernel, _ = _case((9, 2, 4, 3, 4), torch.float32)
    with simulated_device():
        found = frequency_delay(x, kernel)
    assert torch.equal(found, device_frequency_delay(x, kernel))
    assert _relative(found, frequency_delay(x, kernel).double()) <= 1e-6


@pytest.mark.parametrize("version", ["v0", "v1", "max", "gauss"])
@pytest.mark.parametrize("per", ["synapse", "axon", "dendrite"])
def test_delay_kernels_and_their_gradients_are_those_of_the_cpu(version, per):
    for dtype, taps, sigma in ((torch.float64, 1, 1.3), (torch.float64, 2, -0.7), (torch.float32, 2, 0.4)):
        layer = DelayedLinear(5, 4, max_delay_steps=6, taps=taps, version=version, per=per, sigma=sigma).to(dtype)
        with torch.no_grad():
            layer.position.view(-1)[0] = 1.0  # a kink of the triangle
        results = []
        up = torch.randn(7, 4, 5, dtype=dtype)
        for on_device in (False, True):
            weight, position = layer.weight.detach().requires_grad_(), layer.position.detach().requires_grad_()
            width = layer.sigma.detach().clone().requires_grad_()
            weight.grad = position.grad = None
            if on_device:
                with simulated_device():
                    kernel = delay_kernel(weight, position, width, version, 7)
                    kernel.backward(up)
            else:
                kernel = delay_kernel(weight, position, width, version, 7)
                kernel.backward(up)
            results.append((kernel.detach(), weight.grad, position.grad, width.grad))
        for one, other in zip(results[1], results[0], strict=True):
            assert one.dtype == other.dtype
            limit = 1e-5 if dtype == torch.float32 else 1e-12
            np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=limit, atol=limit)
        assert bool((results[0][2] != 0).any())


@pytest.mark.parametrize("fixed", [False, True])
def test_a_delay_layer_learns_as_on_the_cpu(fixed):
    layer = DelayedLinear(6, 5, max_delay_steps=4, taps=2, bias=True, sigma=1.0).double()
    layer.set_mask(torch.rand(5, 6) < 0.7)
    if fixed:
        layer.fix_delays()
    x = (torch.rand(11, 3, 6) < 0.3).double().requires_grad_()
    start = (torch.rand(4, 3, 6) < 0.3).double()
    results = []
    for on_device in (False, True):
        layer.zero_grad()
        x.grad = None
        if on_device:
            with simulated_device():
                y, end = layer(x, start)
                (y * y).sum().backward()
                layer.clamp_()
        else:
            y, end = layer(x, start)
            (y * y).sum().backward()
        grads = [layer.weight.grad, layer.bias.grad, x.grad, *([] if fixed else [layer.position.grad])]
        results.append([y.detach(), end, *(gradient.clone() for gradient in grads)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)
