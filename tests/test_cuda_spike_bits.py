"""Spikes as bits on a CUDA device, in Numba's simulator, and what a connection keeps of its input."""

import numpy as np
import pytest
import torch

from snnsim.kernels.cuda_spike_bits import PIECE
from snnsim.kernels.cuda_support import SIMULATED
from snnsim.kernels.spike_bits import pack_spikes
from snnsim.nn.cuda import simulated_device
from snnsim.nn.cuda_spikes import keep_spikes, mark_spikes, restore_spikes, spike_value
from snnsim.nn.delays import Linear
from snnsim.nn.products import product, row_product

pytestmark = pytest.mark.skipif(not SIMULATED, reason="needs NUMBA_ENABLE_CUDASIM=1")


@pytest.mark.parametrize(
    ("n", "dtype", "one"),
    [
        *((n, dtype, 1 / 0.7) for n in (1, 31, 64, 65, 700) for dtype in (torch.float32, torch.float64)),
        (PIECE + 33, torch.float32, 1.0),
    ],
)
def test_words_are_those_of_the_cpu_and_come_back(n, dtype, one):
    x = (torch.rand(n) < 0.4).to(dtype) * torch.tensor(one, dtype=dtype)
    x[-1] = one
    with simulated_device():
        words, form = keep_spikes(x, one)
        back = restore_spikes(words, form)
    expected = pack_spikes(x.numpy(), one, 1)
    assert np.array_equal(words.numpy().view(np.uint64), expected)
    assert torch.equal(back, x)
    assert back.dtype == dtype


def test_unknown_numbers_and_empty_arrays_are_kept_as_they_are():
    for x, one in ((torch.rand(5), None), (torch.zeros(0, 3), 1.0)):
        with simulated_device():
            kept, form = keep_spikes(x, one)
            assert kept is x
            assert restore_spikes(kept, form) is x


def test_a_mark_names_one_tensor_as_it_was():
    x = mark_spikes(torch.zeros(4), 1.25)
    assert spike_value(x) == 1.25
    assert spike_value(x + 1) is None
    assert spike_value(x.view(2, 2)) is None
    x[0] = 3.0
    assert spike_value(x) is None


@pytest.mark.parametrize("one", [None, 1.5])
def test_products_keep_bits_and_have_the_gradients_of_numbers(one):
    x = (torch.rand(40, 8) < 0.3).float() * 1.5
    up = torch.randn(40, 6)
    weight = torch.randn(6, 8)
    saved = []

    def pack(tensor):
        saved.append(tensor.numel() * tensor.element_size())
        return tensor

    with simulated_device():
        a, b = x.clone().requires_grad_(), weight.clone().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            y = row_product(a, b, one)
        y.backward(up)
    assert sum(saved) == weight.numel() * 4 + (x.numel() * 4 if one is None else x.numel() // 8)
    for found, expected in ((y, x @ weight.T), (a.grad, up @ weight), (b.grad, up.T @ x)):
        torch.testing.assert_close(found.detach(), expected, rtol=1e-5, atol=1e-5)


def test_a_product_on_the_device_is_torchs():
    a, b = torch.randn(5, 7), torch.randn(7, 3)
    with simulated_device():
        assert torch.equal(product(a, b), torch.mm(a, b))


def test_a_connection_hands_on_the_mark_of_its_input():
    layer = Linear(8, 6)
    x = ((torch.rand(5, 16, 8) < 0.3).float() * 2.0).requires_grad_()
    saved = []

    def pack(tensor):
        saved.append(tensor.dtype)
        return tensor

    with simulated_device(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(mark_spikes(x * 1.0, 2.0))
        assert torch.int64 in saved
        saved.clear()
        layer(x * 1.0)
        assert torch.int64 not in saved
