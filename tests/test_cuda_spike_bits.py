"""Spikes as bits on a CUDA device, in Numba's simulator, and what a connection keeps of its input."""

import numpy as np
import pytest
import torch

from snnsim.kernels.cuda_spike_bits import PIECE
from snnsim.kernels.cuda_support import SIMULATED
from snnsim.kernels.spike_bits import pack_spikes
from snnsim.nn.context import Context
from snnsim.nn.cuda import simulated_device
from snnsim.nn.cuda_spikes import keep_spikes, mark_spikes, restore_spikes, spike_value
from snnsim.nn.delays import Linear
from snnsim.nn.model import SpikingModel, build_model
from snnsim.nn.products import product, row_product
from snnsim.recipes.schema import ModelSpec

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
    with torch.inference_mode():
        assert spike_value(mark_spikes(torch.zeros(4), 1.0)) is None


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


def _model(**changes) -> SpikingModel:
    table = {
        "hidden": [12, 12, 12],
        "neuron": {"tau_mem": 0.02},
        "connection": {"max_delay": 0.05},
        "readout": {"tau_mem": 0.02},
        **changes,
    }
    return build_model(ModelSpec.model_validate(table), 8, 5, 0.01, 0).double()


@pytest.mark.parametrize("kind", ["dcls", "linear"])
def test_a_model_keeps_bits_between_its_layers_and_learns_as_on_the_cpu(kind):
    changes = {"dropout": 0.3} if kind == "dcls" else {"dropout": 0.3, "connection": {"kind": "linear"}}
    model = _model(**changes)
    x = torch.poisson(torch.full((24, 3, 8), 0.5)).double()
    context = Context(sample_id=torch.arange(3), seed=1)
    results, words = [], []

    def pack(tensor):
        if tensor.dtype == torch.int64 and tensor.dim() == 1 and tensor.numel() == -(-24 * 3 * 12 // 64):
            words.append(tensor)
        return tensor

    for on_device in (False, True):
        model.zero_grad()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            if on_device:
                words.clear()
                with simulated_device():
                    output = model(x, None, context)
                    output.logits.square().sum().backward()
            else:
                output = model(x, None, context)
                output.logits.square().sum().backward()
        results.append([output.logits.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    assert len(words) == 3  # of the second and third layer and of the readout; the first has the data
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_the_sum_of_a_residual_layer_is_not_taken_for_spikes():
    model = _model(residual=True, hidden=[8, 8])
    x = torch.poisson(torch.full((6, 2, 8), 0.5)).double()
    seen = []
    with simulated_device():
        for block in model.blocks:
            block.connection.register_forward_pre_hook(lambda _, inputs: seen.append(spike_value(inputs[0])))
        model.readout.connection.register_forward_pre_hook(lambda _, inputs: seen.append(spike_value(inputs[0])))
        model(x, None, Context(sample_id=torch.arange(2)))
    assert seen == [None, 1.0, None]  # data, spikes, spikes plus spikes
