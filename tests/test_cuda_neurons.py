"""Neurons on a CUDA device or in Numba's simulator: spikes bit for bit those of the CPU's kernels, gradients within
rounding."""

import copy
from dataclasses import replace

import pytest
import torch

from snnsim.device import cuda_problem
from snnsim.errors import InputError
from snnsim.kernels import cuda_neurons
from snnsim.kernels.cuda_support import SIMULATED
from snnsim.nn import fused
from snnsim.nn.cuda import simulated_device, use_device
from snnsim.nn.meta import MetaNeuron
from snnsim.nn.neurons import IF, LI, LIF, AdaptiveLIF, CubaLI, CubaLIF
from snnsim.nn.neurons_meta_dynamic import MetaDynamicNeuron
from snnsim.nn.surrogates import SURROGATES, ATan

pytestmark = pytest.mark.skipif(cuda_problem() is not None, reason="needs a device or NUMBA_ENABLE_CUDASIM=1")
simulated = pytest.mark.skipif(not SIMULATED, reason="needs NUMBA_ENABLE_CUDASIM=1")

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}


def make(kind, size, **options):
    """Return neurons with numbers of their own and everything learned that they can learn."""
    spread = torch.linspace(0.8, 1.2, size).double().numpy()
    common = {"dt": 0.01, "v_threshold": spread, **options}
    if kind == "lif":
        return LIF(size, tau_mem=0.03 * spread, **common)
    if kind == "if":
        return IF(size, **common)
    if kind == "cubalif":
        return CubaLIF(size, tau_mem=0.03 * spread, tau_syn=0.02 * spread, **common)
    if kind == "alif":
        return AdaptiveLIF(size, adapt_v=0.0, adapt_spike=0.3, adapt_threshold=0.5 * spread, **common)
    return AdaptiveLIF(size, tau_mem=0.03, adapt_v=0.1, adapt_spike=0.4, **common)


def run(neuron, current, state, weights):
    """Return everything that comes out and the gradients of everything that goes in."""
    inputs = [current, *(part for part in state or () if part.is_floating_point())]
    for x in inputs:
        x.requires_grad_()
    neuron.zero_grad()
    out, end = neuron(current, state)
    values = [out, *(part for part in end if part.is_floating_point())]
    total = sum((value * weight).sum() for value, weight in zip(values, weights, strict=True))
    if out.numel():
        total.backward()
    gradients = [x.grad for x in inputs] + [p.grad for p in neuron.parameters()]
    return (
        [part.detach().cpu() for part in (out, *end)],
        [None if gradient is None else gradient.cpu() for gradient in gradients],
    )


def copied(x, device):
    """Return a tensor, a state or a list of tensors anew on a device."""
    if x is None:
        return None
    if isinstance(x, torch.Tensor):
        return x.detach().clone().to(device)
    parts = [copied(part, device) for part in x]
    return parts if isinstance(x, list) else type(x)(*parts)


def compare(neuron, n_steps, batch, dtype, *, gain=1.0, state=None, slack=1.0):
    generator = torch.Generator().manual_seed(3)
    size = neuron.size
    current = (torch.rand(n_steps, batch, size, generator=generator, dtype=dtype) * gain).contiguous()
    shapes = [(n_steps, batch, size), (batch, size), (batch, size)]
    weights = [torch.randn(shape, generator=generator, dtype=dtype) for shape in shapes]
    floats = 1 if isinstance(neuron, (LIF, LI)) else 2
    weights = weights[: 1 + floats]
    given = None if state is None else state(batch, size, dtype)
    expected, slopes = run(neuron, *(copied(x, "cpu") for x in (current, given, weights)))
    with use_device("cuda") as device:
        moved = copy.deepcopy(neuron).to(device)
        found, gradients = run(moved, *(copied(x, device) for x in (current, given, weights)))
    for a, b in zip(expected, found, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)
    for a, b in zip(slopes, gradients, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            assert torch.allclose(a, b, rtol=0, atol=slack * TOLERANCE[dtype] * max(1.0, float(a.abs().max())))
    return expected[0]


LEARNED = {
    "lif": ("tau_mem", "v_threshold"),
    "if": ("v_threshold",),
    "cubalif": ("tau_mem", "tau_syn", "v_threshold"),
    "adlif": ("tau_mem", "tau_adapt", "adapt_v", "adapt_spike", "v_threshold"),
    "alif": ("tau_mem", "tau_adapt", "adapt_spike", "adapt_threshold", "v_threshold"),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("kind", list(LEARNED))
def test_all_kinds_with_learned_parameters(kind, reset, dtype):
    learn = (*LEARNED[kind], "v_reset") if reset == "zero" else LEARNED[kind]
    neuron = make(kind, 3, reset=reset, learn=learn, detach_reset=kind == "if")
    spikes = compare(neuron, 35, 2, dtype, gain=1.2)
    assert 0 < spikes.sum() < spikes.numel()


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("kind", ["lif", "cubalif", "adlif"])
def test_refractory_periods_and_a_state_that_is_given(kind, reset):
    neuron = make(kind, 3, reset=reset, t_ref=0.03, learn=LEARNED[kind], detach_reset=False)

    def state(batch, size, dtype):
        zero = neuron.initial_state(batch, dtype)
        floats = [torch.linspace(-0.5, 0.5, batch * size, dtype=dtype).reshape(batch, size) for _ in zero[:-1]]
        return type(zero)(*floats, (torch.arange(batch * size, dtype=torch.int32) % 3).reshape(batch, size))

    spikes = compare(neuron, 34, 2, torch.float64, gain=1.5, state=state)
    assert 0 < spikes.sum() < spikes.numel() / 3


@pytest.mark.parametrize("name", list(SURROGATES))
def test_every_surrogate(name):
    compare(make("lif", 2, surrogate=SURROGATES[name]()), 9, 2, torch.float64)


@pytest.mark.parametrize(("n_steps", "batch", "size"), [(0, 2, 3), (1, 1, 1), (32, 1, 1), (33, 3, 1), (64, 1, 2)])
def test_edges(n_steps, batch, size):
    compare(make("lif", size), n_steps, batch, torch.float32)
    compare(make("cubalif", size), n_steps, batch, torch.float32)


@simulated
def test_no_spikes_and_all_spikes():
    assert compare(make("lif", 2), 12, 2, torch.float64, gain=0.0).sum() == 0
    always = LIF(2, dt=0.01, v_threshold=1e-3, v_reset=0.0)
    with simulated_device():
        assert always(torch.ones(9, 2, 2))[0].sum() == 36


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("learn", [(), ("tau_mem",)])
def test_readouts(learn, dtype):
    compare(LI(3, dt=0.01, learn=learn), 35, 2, dtype)
    compare(CubaLI(3, dt=0.01, learn=(*learn, "tau_syn") if learn else ()), 35, 2, dtype)


@simulated
def test_without_gradient_nothing_is_kept():
    neuron = make("lif", 3)
    with simulated_device():
        out, _ = neuron(torch.rand(5, 2, 3))
        assert not out.requires_grad
        with torch.no_grad():
            out, _ = neuron(torch.rand(5, 2, 3, requires_grad=True))
        assert not out.requires_grad


@simulated
def test_kept_for_the_backward_pass_is_a_thirty_second():
    kept = []

    def note(x):
        kept.append(x.numel())
        return x

    current = torch.rand(64, 2, 3, requires_grad=True)
    with simulated_device(), torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        make("lif", 3)(current)
    per_step = 2 * 3
    assert sorted(kept) == [3, 2 * per_step, 9 * 3, 64 * per_step]  # refractory_steps, states, parameters, current


@simulated
def test_the_memory_free_rule_carries_nothing():
    rule = fused.SpikeRule(reset_zero=True, detach_reset=True, refractory=False, surrogate=ATan(5.0), carry=False)
    current = torch.rand(6, 2, 3, dtype=torch.float64)
    neuron = make("lif", 3)
    prepared = neuron.prepare(torch.float64)
    state = neuron.initial_state(2, torch.float64)

    def gradient(rule):
        x = current.clone().requires_grad_()
        fused.lif(x, state.v, state.refractory, neuron.refractory_steps, rule, *prepared.vectors)[0].sum().backward()
        return x.grad

    expected = gradient(rule)
    with simulated_device():
        assert torch.allclose(gradient(rule), expected, rtol=0, atol=1e-12)
        assert not torch.allclose(gradient(replace(rule, carry=True)), expected, rtol=0, atol=1e-3)


def test_the_refractory_period_is_asked_for_once_and_again_when_it_changes():
    neuron = make("lif", 2)
    assert not neuron.waits
    neuron.refractory_steps.fill_(2)
    assert neuron.waits
    neuron.load_state_dict(make("lif", 2).state_dict())
    assert not neuron.waits


@simulated
def test_other_neurons_go_step_by_step_or_refuse():
    current = torch.rand(4, 2, 3)
    other = MetaDynamicNeuron(3, dt=0.001)
    expected, _ = other(current)
    with simulated_device():
        assert torch.equal(other(current)[0], expected)
        with pytest.raises(InputError, match="expected tensors on the CPU, got cpu; random neurons have no kernel"):
            MetaNeuron(3, dt=0.01)(current)


def test_a_module_knows_its_kernels_by_their_names():
    made = cuda_neurons.forward_kernel("float32", 0, True, True, False, False, False, False, False, True)
    assert cuda_neurons.neurons_forward__float32_0_1_1_0_0_0_0_0_1 is made
    for name in ("neurons_forward", "neurons_sideways__float32_0", "neurons_forward__float32_0"):
        with pytest.raises(AttributeError, match=name):
            getattr(cuda_neurons, name)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("kind", list(LEARNED))
def test_a_layer_of_usual_size(kind, reset, dtype):
    neuron = make(kind, 300, reset=reset, learn=LEARNED[kind] if dtype == torch.float64 else ())
    spikes = compare(neuron, 250, 64, dtype, slack=4.0)  # sums over 16 000 steps and samples
    assert 10_000 < spikes.sum() < spikes.numel()
