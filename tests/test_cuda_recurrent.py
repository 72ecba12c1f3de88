"""Recurrent neurons on a CUDA device or in Numba's simulator, against the CPU's kernels."""

import copy

import pytest
import torch

from snnsim.device import cuda_problem
from snnsim.kernels import cuda_recurrent
from snnsim.nn.cuda import asked_once, use_device
from snnsim.nn.neurons import LIF, AdaptiveLIF, CubaLIF
from snnsim.nn.recurrent import Recurrent

pytestmark = pytest.mark.skipif(cuda_problem() is not None, reason="needs a device or NUMBA_ENABLE_CUDASIM=1")


def make(kind, size, reset="zero", learn=False, **options):
    common = {"dt": 0.01, "reset": reset, "detach_reset": False}
    if kind == "lif":
        neuron = LIF(size, learn=("tau_mem", "v_threshold") if learn else (), **common)
    elif kind == "cubalif":
        learned = ("tau_mem", "tau_syn", "v_threshold") if learn else ()
        neuron = CubaLIF(size, tau_syn=0.02, v_threshold=0.6, learn=learned, **common)
    else:
        learned = ("tau_mem", "tau_adapt", "adapt_v", "adapt_spike", "v_threshold") if learn else ()
        neuron = AdaptiveLIF(size, adapt_spike=0.3, adapt_v=0.1, learn=learned, **common)
    weight = torch.randn(size, size, generator=torch.Generator().manual_seed(7)) * 0.4
    return Recurrent(neuron, weight, **options)


def run(layer, current, weights):
    given = current.clone().requires_grad_()
    layer.zero_grad()
    spikes, end = layer(given)
    values = [spikes, *(part for part in end.neuron if part.is_floating_point())]
    sum((value * weight).sum() for value, weight in zip(values, weights, strict=False)).backward()
    gradients = [given.grad, *(p.grad for p in layer.parameters())]
    return (
        [value.detach().cpu() for value in [*values, end.history]],
        [None if gradient is None else gradient.cpu() for gradient in gradients],
    )


def compare(layer, n_steps, batch, dtype, tolerance, same_bits=True):
    generator = torch.Generator().manual_seed(3)
    size = layer.size
    current = torch.rand(n_steps, batch, size, generator=generator, dtype=dtype)
    weights = [torch.randn(n_steps, batch, size, generator=generator, dtype=dtype)]
    weights += [torch.randn(batch, size, generator=generator, dtype=dtype) for _ in range(2)]
    expected, slopes = run(layer, current, weights)
    with use_device("cuda") as device:
        moved = copy.deepcopy(layer).to(device)
        found, gradients = run(moved, current.to(device), [weight.to(device) for weight in weights])
    assert torch.equal(expected[0], found[0])
    for a, b in zip(expected[1:], found[1:], strict=True):
        assert torch.equal(a, b) if same_bits else torch.allclose(a, b, rtol=0, atol=tolerance)
    for a, b in zip(slopes, gradients, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert torch.allclose(a, b, rtol=0, atol=tolerance * max(1.0, float(a.abs().max())))
    return expected[0]


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("kind", ["lif", "cubalif", "adlif"])
def test_the_kernel_of_all_steps(kind, reset):
    spikes = compare(make(kind, 4, reset, learn=True, delay_steps=2), 8, 2, torch.float64, 1e-12)
    assert 0 < spikes.sum() < spikes.numel()


def test_float32_and_without_learned_parameters():
    compare(make("lif", 4), 6, 2, torch.float32, 1e-6)
    compare(make("cubalif", 3), 6, 1, torch.float32, 1e-6)


def test_more_units_than_bits_of_a_word():
    layer = make("lif", 34)
    with torch.no_grad():
        layer.recurrent_weight.mul_(0.2)
    spikes = compare(layer, 4, 1, torch.float64, 1e-12)
    assert spikes[1:, :, 32:].sum() > 0


@pytest.mark.parametrize("n_steps", [0, 1])
def test_few_steps(n_steps):
    layer, current = make("lif", 3, delay_steps=2), torch.rand(n_steps, 2, 3)
    expected, _ = layer(current)
    with use_device("cuda") as device:
        assert torch.equal(copy.deepcopy(layer).to(device)(current.to(device))[0].cpu(), expected)


def test_own_delays_and_wide_layers_go_step_by_step(monkeypatch):
    delays = torch.tensor([[1, 2, 3], [2, 2, 1], [3, 1, 1]])
    compare(make("lif", 3, delay_steps=delays, learn=True), 7, 2, torch.float64, 1e-12)
    monkeypatch.setitem(cuda_recurrent.MOST, "float64", 2)
    compare(make("cubalif", 3, learn=True), 6, 2, torch.float64, 1e-12)


def test_learned_delays():
    layer = make("lif", 3, delay_steps=2, learn_delay=True, max_delay_steps=3)
    for mode in (layer.train(), layer.eval()):  # torch's product has another order of summation
        compare(mode, 6, 2, torch.float64, 1e-12, same_bits=False)


def test_a_question_is_asked_again_when_its_tensor_changes():
    class Owner:
        pass

    owner, asked, x = Owner(), [], torch.zeros(2)

    def question(y):
        asked.append(1)
        return float(y.sum())

    assert [asked_once(owner, "_sum", x, question) for _ in range(3)] == [0.0] * 3
    x += 1
    assert asked_once(owner, "_sum", x, question) == 2.0
    assert asked_once(owner, "_sum", torch.ones(3), question) == 3.0
    assert len(asked) == 3


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["lif", "cubalif", "adlif"])
def test_a_layer_of_usual_size(kind):
    layer = make(kind, 256, learn=True)
    with torch.no_grad():
        layer.recurrent_weight.mul_(0.1)
    spikes = compare(layer, 200, 32, torch.float64, 1e-11)
    assert 10_000 < spikes.sum() < spikes.numel()
