"""Choices, masks, convolutions and conductances on a CUDA device, with Numba's simulator in its place."""

import pytest
import torch

from snnsim.errors import InputError
from snnsim.kernels.cuda_support import SIMULATED
from snnsim.nn import convolution
from snnsim.nn.conv import Conv2d, GlobalAverage, Pool2d, StandardisedConv2d
from snnsim.nn.cuda import simulated_device
from snnsim.nn.delays import DelayedLinear, Linear
from snnsim.nn.formulation import choose_formulations, set_formulations
from snnsim.nn.inference import infers
from snnsim.nn.masks import enforce_masks
from snnsim.nn.model import SpikingModel, build_model
from snnsim.nn.neurons_conductance import ReceptorLinear
from snnsim.recipes.schema import ModelSpec

pytestmark = pytest.mark.skipif(not SIMULATED, reason="needs NUMBA_ENABLE_CUDASIM=1")


def _model(**changes) -> SpikingModel:
    table = {"hidden": [10, 10], "neuron": {"tau_mem": 0.02}, "readout": {"tau_mem": 0.02}, **changes}
    model = build_model(ModelSpec.model_validate(table), 8, 5, 0.01, 0)
    for layer in model.layers():
        layer.connection.set_mask(torch.rand(layer.connection.weight.shape[:2]) < 0.1)
    return model


@pytest.mark.parametrize(
    ("changes", "on_cpu", "on_device"),
    [
        ({"connection": {"max_delay": 0.05}}, {"sparse"}, {"frequency"}),
        ({"connection": {"kind": "linear"}, "recurrent": True}, {"sparse", "events"}, {"dense"}),
    ],
)
def test_a_device_has_dense_ways_only(changes, on_cpu, on_device):
    model = _model(**changes)
    chosen = choose_formulations(model, 0.01)
    assert on_cpu <= set(chosen.values())
    with simulated_device():
        assert set(choose_formulations(model, 0.01).values()) == on_device
        assert set(choose_formulations(model, 0.01, wish="dense").values()) == on_device
        with pytest.raises(InputError, match="'events' has no kernels on a CUDA device; use 'auto' or 'dense'"):
            choose_formulations(model, 0.01, wish="events")
        set_formulations(model, chosen)  # a checkpoint of the CPU
        y = model(torch.ones(3, 2, 8)).logits
    set_formulations(model, chosen)
    assert y.shape == (2, 5)


def test_whole_models_are_not_evaluated_by_the_kernels_of_the_cpu():
    model = _model(connection={"max_delay": 0.05}).eval()
    assert infers(model)
    with simulated_device():
        assert not infers(model)


@pytest.mark.parametrize("connection", [Linear(6, 5), DelayedLinear(6, 5, max_delay_steps=4, taps=2)])
def test_masks_hold_on_the_device(connection):
    mask = torch.rand(5, 6) < 0.5
    x = (torch.rand(9, 2, 6) < 0.4).float()
    with simulated_device():
        connection.set_mask(mask)
        y, _ = connection(x)
        y.sum().backward()
        with torch.no_grad():
            connection.weight += 1.0
        connection.clamp_()
        enforce_masks(connection)
    missing = ~connection.mask
    assert bool(missing.any())
    assert not bool(connection.weight.grad[missing].any())
    assert not bool(connection.weight[missing].any())
    assert bool(connection.weight[connection.mask].all())


def test_conductances_are_evaluated_with_the_bits_of_the_cpu():
    layer = ReceptorLinear(7, 4)
    x = torch.poisson(torch.full((12, 3, 7), 0.3))
    for training in (True, False):
        layer.train(training)
        results = []
        for on_device in (False, True):
            with torch.set_grad_enabled(training):
                if on_device:
                    with simulated_device():
                        results.append(layer(x)[0])
                else:
                    results.append(layer(x)[0])
        torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)
        assert training or torch.equal(*results)


@pytest.mark.parametrize("kind", [Conv2d, StandardisedConv2d])
def test_convolutions_compute_float32_and_the_same_bits_in_every_run(kind, monkeypatch):
    layer = kind(3, 4, 3, bias=True).double()
    x = torch.randn(5, 40, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    flags = []
    backward = convolution.torch.ops.aten.convolution_backward

    def convolve(*arguments):
        flags.append((torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32))
        return backward(*arguments)

    results = []
    for on_device in (False, True):
        layer.zero_grad()
        x.grad = None
        if on_device:
            monkeypatch.setattr(convolution.torch.ops.aten, "convolution_backward", convolve)
            with simulated_device():
                y, _ = layer(x)
                y.square().sum().backward()
        else:
            y, _ = layer(x)
            y.square().sum().backward()
        results.append([y.detach(), x.grad, *(p.grad for p in layer.parameters())])
    assert flags == [(True, False)] * 2
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_pools_have_no_kernels_of_the_cpu():
    x = torch.randn(4, 2, 3, 6, 6)
    for layer in (Pool2d("average", 2), Pool2d("max", 3, stride=1), GlobalAverage()):
        expected, _ = layer(x)
        with simulated_device():
            found, _ = layer(x)
        assert torch.equal(found, expected)
