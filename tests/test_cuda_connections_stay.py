"""Connections on a device make nothing on another one and read nothing back.

Torch's ``meta`` device stands for one: its tensors have no numbers, so whatever reads one fails, and so does whatever
meets a tensor of the CPU. Kernels are not started.
"""

import importlib
import pkgutil
import sys

import pytest
import torch

from snnsim import nn
from snnsim.kernels.cuda_support import SIMULATED
from snnsim.nn import cuda, cuda_frequency
from snnsim.nn.context import Context
from snnsim.nn.conv import Conv2d, StandardisedConv2d
from snnsim.nn.cuda_frequency import device_frequency_delay, transform_of
from snnsim.nn.cuda_spikes import mark_spikes
from snnsim.nn.delays import DelayedLinear, Linear
from snnsim.nn.dropout import SequenceDropout
from snnsim.nn.neurons_conductance import ReceptorLinear

pytestmark = pytest.mark.skipif(not SIMULATED, reason="needs NUMBA_ENABLE_CUDASIM=1")


KERNELS = {
    *("profile_forward", "profile_backward", "pack_spikes", "unpack_spikes"),
    *("pack_time", "delayed_bits", "delayed_numbers", "dropout_factors"),
}


@pytest.fixture
def started(monkeypatch):
    """Names of the kernels of connections that would have been started."""
    from numba.cuda.simulator.kernel import FakeCUDAKernel

    for info in pkgutil.iter_modules(nn.__path__):
        if info.name.startswith("cuda"):
            importlib.import_module(f"snnsim.nn.{info.name}")  # what is imported later would not be replaced
    names = []

    def start(kernel, _):
        def run(*arguments):
            for argument in arguments:
                assert not isinstance(argument, torch.Tensor) or (argument.is_meta and argument.is_contiguous())
            if kernel.fn.__name__ in KERNELS:
                names.append(kernel.fn.__name__)

        return run

    stand_in = {
        "on_cuda": lambda x: x.is_meta,
        "as_cuda": lambda x: x.detach(),
        "current_stream": lambda x: 0,
    }
    for name, module in list(sys.modules.items()):
        if name.startswith("snnsim.nn."):
            for function, other in stand_in.items():
                if getattr(module, function, None) is getattr(cuda, function) and module is not cuda:
                    monkeypatch.setattr(module, function, other)
    monkeypatch.setattr(FakeCUDAKernel, "__getitem__", start)
    transform_of.cache_clear()
    yield names
    transform_of.cache_clear()


def _run(layer, x, mark=True):
    shown = x.clone().requires_grad_()
    y = layer(mark_spikes(shown * 1.0, 1.0) if mark else shown)[0]
    assert y.is_meta
    if y.requires_grad:
        y.backward(torch.empty_like(y))
        assert shown.grad is not None
        assert shown.grad.shape == x.shape
    return y


def test_the_stand_in_notices_what_it_must():
    x = torch.empty(3, device="meta")
    with pytest.raises(RuntimeError):
        x + torch.zeros(3)
    with pytest.raises(RuntimeError):
        float(x.sum())


@pytest.mark.parametrize("length", [0, 10_000])
@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("per", ["synapse", "axon"])
def test_delay_layers(started, monkeypatch, length, fixed, per):
    monkeypatch.setattr(cuda_frequency, "MATRIX_LENGTH", length)
    layer = DelayedLinear(6, 5, max_delay_steps=4, taps=2, per=per, bias=True).to("meta")
    layer.set_mask(torch.ones(5, 6, dtype=torch.bool))
    if fixed:
        layer.fix_delays()
    x = torch.empty(9, 3, 6, device="meta")
    state = torch.empty(4, 3, 6, device="meta")
    _run(layer, x)
    assert started == [*([] if fixed else ["profile_forward"]), "pack_spikes", "unpack_spikes"] + (
        [] if fixed else ["profile_backward"]
    )
    _run(lambda data: layer(data, state), x)
    layer.clamp_()
    layer.eval()
    started.clear()
    with torch.no_grad():
        assert layer(x, state)[0].shape == (9, 3, 5)
    assert started == ["pack_time", "delayed_bits", "delayed_numbers"]
    _run(layer, x)


def test_other_connections(started):
    x = torch.empty(9, 3, 6, device="meta")
    for made in (Linear(6, 5, bias=True), ReceptorLinear(6, 5)):
        layer = made.to("meta")
        started.clear()
        _run(layer, x)
        assert started == ["pack_spikes", "unpack_spikes"]
        layer.eval()
        started.clear()
        with torch.no_grad():
            layer(x)
        assert started == ["pack_time", "delayed_bits", "delayed_numbers"]


def test_dropout_takes_sample_ids_from_anywhere(started):
    layer = SequenceDropout(0.2)
    x = torch.empty(9, 3, 6, device="meta")
    context = Context(sample_id=torch.arange(3), seed=-1)
    assert layer(x, None, context)[0].shape == x.shape
    assert layer.factors(Context(sample_id=torch.empty(3, dtype=torch.int32, device="meta")), x).is_meta
    assert started == ["dropout_factors"] * 2


@pytest.mark.parametrize("kind", [Conv2d, StandardisedConv2d])
def test_convolutions(started, kind):
    layer = kind(3, 4, 3, bias=True).to("meta")
    _run(layer, torch.empty(5, 2, 3, 6, 6, device="meta"), mark=False)
    assert started == []


def test_the_first_layer_computes_no_gradient_of_the_data(started):
    x = torch.empty(9, 3, 6, device="meta")
    kernel = torch.empty(4, 5, 6, device="meta", requires_grad=True)
    y = device_frequency_delay(x, kernel)
    y.backward(torch.empty_like(y))
    assert kernel.grad.shape == kernel.shape
    assert started == []
