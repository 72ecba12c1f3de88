"""Neuron modules: fused kernels against plain torch, gradients, closed forms, states, records."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from snnsim import neurons as records
from snnsim.errors import InputError
from snnsim.grid import decay, kappa
from snnsim.nn.neurons import IF, LI, LIF, AdaptiveLIF, CubaLI, CubaLIF
from snnsim.nn.parameters import NeuronModule
from snnsim.nn.spiking import SpikingModule
from snnsim.nn.surrogates import ATan, MultiGaussian, Sigmoid, SuperSpike, Surrogate, Triangle

UNITS = 5
TAU = np.linspace(0.003, 0.03, UNITS)
THETA = np.linspace(0.8, 1.2, UNITS)
TOLERANCE = {torch.float64: 1e-12, torch.float32: 5e-5}


def make(kind: str, **options: Any) -> Any:
    common: dict[str, Any] = {"dt": 0.001, **options}
    ends = ("v_threshold", "v_reset") if options.get("reset", "zero") == "zero" else ("v_threshold",)
    if kind == "lif":
        return LIF(UNITS, tau_mem=TAU, v_threshold=THETA, learn=("tau_mem", *ends), **common)
    if kind == "lif scalar":
        return LIF(UNITS, tau_mem=0.01, learn=("tau_mem", *ends), **common)
    if kind == "if":
        return IF(UNITS, v_threshold=THETA, learn=ends, **common)
    if kind == "cuba":
        return CubaLIF(
            UNITS,
            tau_mem=TAU,
            tau_syn=TAU[::-1],
            v_threshold=THETA,
            learn=("tau_mem", "tau_syn", *ends),
            **common,
        )
    adapt = {"tau_mem": TAU, "v_threshold": THETA, "adapt_spike": 0.2}
    learn = ("tau_mem", "tau_adapt", "adapt_v", "adapt_spike", *ends)
    if kind == "adlif":
        return AdaptiveLIF(UNITS, adapt_v=np.linspace(0, 0.1, UNITS), learn=learn, **adapt, **common)
    assert kind == "alif"
    return AdaptiveLIF(
        UNITS, adapt_v=0.01, adapt_threshold=np.linspace(0.2, 1.5, UNITS), learn=(*learn, "adapt_threshold"), **adapt,
        **common,
    )  # fmt: skip


SPIKING = ("lif", "lif scalar", "if", "cuba", "adlif", "alif")


def drive(kind: str, steps: int, batch: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale = 3.0 if kind == "cuba" else 1.0
    return scale * torch.randn(steps, batch, UNITS, dtype=dtype, generator=generator)


def random_state(module: Any, batch: int, dtype: torch.dtype, seed: int = 1) -> Any:
    generator = torch.Generator().manual_seed(seed)
    state = module.initial_state(batch, dtype)
    values = []
    for item in state:
        if item.is_floating_point():
            values.append((0.4 * torch.randn(item.shape, dtype=dtype, generator=generator)).requires_grad_())
        else:
            values.append(torch.randint(0, 3, item.shape, dtype=torch.int32, generator=generator))
    return type(state)(*values)


def everything(module: Any, function: Any, x: Tensor, state: Any, seed: int = 2) -> list[Tensor]:
    """Outputs, last state and all gradients of a random scalar of them."""
    generator = torch.Generator().manual_seed(seed)
    y, end = function(x, state)
    loss = (y * torch.randn(y.shape, dtype=y.dtype, generator=generator)).sum()
    for item in end:
        if item.is_floating_point():
            loss = loss + (item * torch.randn(item.shape, dtype=item.dtype, generator=generator)).sum()
    inputs = [x, *(item for item in state if item.is_floating_point()), *module.parameters()]
    return [y, *end, *torch.autograd.grad(loss, inputs)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
@pytest.mark.parametrize("kind", SPIKING)
def test_fused_equals_step_by_step_on_outputs_and_all_gradients(kind: str, dtype: torch.dtype) -> None:
    fired = 0
    for reset, detach, t_ref in itertools.product(("zero", "subtract"), (True, False), (0.0, 0.002)):
        amount = 0.7 if reset == "subtract" and detach else None
        module = make(kind, reset=reset, detach_reset=detach, t_ref=t_ref, v_reset=0.1, reset_amount=amount).to(dtype)
        x = drive(kind, 23, 3, dtype).requires_grad_()
        state = random_state(module, 3, dtype)
        fused = everything(module, module.forward, x, state)
        plain = everything(module, module.reference_forward, x, state)
        assert torch.equal(fused[0], plain[0]), (reset, detach, t_ref)
        fired += int(fused[0].sum())
        for a, b in zip(fused, plain, strict=True):
            scale = 1 + b.detach().abs().max()
            assert (a - b).detach().abs().max() <= TOLERANCE[dtype] * scale, (reset, detach, t_ref)
    assert fired > 50


@pytest.mark.parametrize(
    "surrogate", [ATan(5.0), SuperSpike(5.0), Sigmoid(4.0), Triangle(1.0), MultiGaussian()], ids=str
)
@pytest.mark.parametrize("kind", ["lif", "cuba", "adlif"])
def test_every_surrogate_reaches_the_backward_pass(kind: str, surrogate: Surrogate) -> None:
    module = make(kind, surrogate=surrogate, detach_reset=False).double()
    x = drive(kind, 15, 2, torch.float64).requires_grad_()
    state = random_state(module, 2, torch.float64)
    fused = everything(module, module.forward, x, state)
    plain = everything(module, module.reference_forward, x, state)
    for a, b in zip(fused, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    assert fused[0].sum() > 0


READOUTS = [
    LI(UNITS, dt=0.001, tau_mem=TAU, learn="tau_mem"),
    CubaLI(UNITS, dt=0.001, tau_mem=TAU, learn=("tau_mem", "tau_syn")),
]


@pytest.mark.parametrize("module", READOUTS, ids=["LI", "CubaLI"])
def test_readouts_pass_gradcheck(module: Any) -> None:
    module = module.double()
    x = drive("lif", 6, 2, torch.float64).requires_grad_()
    state = random_state(module, 2, torch.float64)
    parameters = tuple(module.parameters())

    def run(x: Tensor, *rest: Tensor) -> Any:
        y, end = module(x, type(state)(*rest[: len(state)]))
        return (y, *end)

    assert torch.autograd.gradcheck(run, (x, *state, *parameters))
    fused = everything(module, module.forward, x, state)
    plain = everything(module, module.reference_forward, x, state)
    for a, b in zip(fused, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("kind", SPIKING)
def test_smoothed_neurons_pass_gradcheck(kind: str, reset: str) -> None:
    module = make(kind, reset=reset, detach_reset=False, surrogate=Sigmoid(3.0)).double()
    x = (0.5 * drive(kind, 5, 2, torch.float64)).requires_grad_()
    parameters = tuple(module.parameters())

    def run(x: Tensor, *_: Tensor) -> Tensor:
        y, _end = module.reference_forward(x, smooth=True)
        return y

    assert torch.autograd.gradcheck(run, (x, *parameters))


@pytest.mark.parametrize("kind", [*SPIKING, "li", "cubali"])
def test_chunks_with_carried_state_equal_one_run(kind: str) -> None:
    module: Any
    if kind == "li":
        module = LI(UNITS, dt=0.001, tau_mem=TAU)
    elif kind == "cubali":
        module = CubaLI(UNITS, dt=0.001, tau_mem=TAU)
    else:
        module = make(kind, t_ref=0.003)
    x = drive("cuba", 20, 3, torch.float32)
    whole, end = module(x)
    first, state = module(x[:7])
    none, state = module(x[7:7], state)
    second, last = module(x[7:], state)
    assert none.shape == (0, 3, UNITS)
    assert torch.equal(whole, torch.cat([first, second]))
    assert all(torch.equal(a, b) for a, b in zip(end, last, strict=True))
    order = torch.tensor([2, 0, 1])
    assert torch.equal(module(x[:, order])[0], whole[:, order])
    padded, _ = module(torch.cat([x, torch.zeros(4, 3, UNITS)]))
    assert torch.equal(padded[:20], whole)


def test_gradient_flows_through_a_carried_state() -> None:
    module = make("cuba", t_ref=0.002, detach_reset=False).double()
    x = drive("cuba", 12, 2, torch.float64).requires_grad_()
    whole, _ = module(x)
    first, state = module(x[:5])
    second, _ = module(x[5:], state)
    up = drive("lif", 12, 2, torch.float64, seed=9)
    (one,) = torch.autograd.grad(whole, x, up)
    (two,) = torch.autograd.grad(torch.cat([first, second]), x, up)
    torch.testing.assert_close(one, two, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("kind", SPIKING)
def test_bits_do_not_depend_on_the_number_of_threads(kind: str) -> None:
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            module = make(kind, t_ref=0.001)
            x = drive(kind, 9, 700, torch.float32).requires_grad_()
            results.append(everything(module, module.forward, x, random_state(module, 700, torch.float32)))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_first_spike_under_constant_drive() -> None:
    # continuous first spike at tau ln(I / (I - 1)); the exact discretisation fires in the next whole step
    for tau_steps, want_exact, want_euler in ((10, 11, 11), (5, 6, 5)):
        exact = LIF(1, dt=0.001, tau_mem=0.001 * tau_steps)
        euler = LIF(1, dt=0.001, beta=1 - 1 / tau_steps)
        for module, want in ((exact, want_exact), (euler, want_euler)):
            beta = module.beta().item()
            x = torch.full((40, 1, 1), 1.5 * (1 - beta), dtype=torch.float64)
            spikes, _ = module(x)
            assert int(spikes[:, 0, 0].argmax()) + 1 == want


def test_rate_against_current_with_refractory_period() -> None:
    dt, tau, t_ref, v_reset = 1e-5, 0.01, 0.002, 0.2
    currents = np.array([0.9, 1.0, 1.2, 1.5, 3.0])
    module = LIF(5, dt=dt, tau_mem=tau, t_ref=t_ref, v_reset=v_reset)
    x = torch.from_numpy(currents * (1 - float(decay(tau, dt)))).expand(20_000, 1, 5)
    spikes, _ = module(x)
    assert spikes[:, 0, :2].sum() == 0
    for unit in (2, 3, 4):
        times = torch.nonzero(spikes[:, 0, unit]).flatten().numpy()
        period = t_ref + tau * math.log((currents[unit] - v_reset) / (currents[unit] - 1))
        assert np.diff(times).mean() * dt == pytest.approx(period, abs=1.01 * dt)


def test_postsynaptic_potential_has_the_closed_form() -> None:
    dt = 1e-5
    module = CubaLI(1, dt=dt, tau_mem=0.02, tau_syn=0.005)
    x = torch.zeros(4000, 1, 1, dtype=torch.float64)
    x[0] = 1.0
    v = module(x)[0][:, 0, 0]
    assert float(v.max()) == pytest.approx(0.157490, abs=1e-6)
    assert int(v.argmax()) * dt == pytest.approx(9.241962e-3, abs=dt)
    near = CubaLI(1, dt=dt, tau_mem=0.005, tau_syn=0.005 * (1 + 1e-9))(x)[0]
    same = CubaLI(1, dt=dt, tau_mem=0.005, tau_syn=0.005)(x)[0]
    torch.testing.assert_close(near, same, rtol=1e-7, atol=0)


def test_subthreshold_sum_and_step_size() -> None:
    a, b = drive("lif", 30, 2, torch.float64), drive("lif", 30, 2, torch.float64, seed=5)
    module = CubaLI(UNITS, dt=0.001, tau_mem=TAU)
    torch.testing.assert_close(module(a)[0] + 2 * module(b)[0], module(a + 2 * b)[0], rtol=1e-12, atol=1e-12)
    fine, coarse = CubaLI(1, dt=0.001), CubaLI(1, dt=0.002)
    x = torch.zeros(21, 1, 1, dtype=torch.float64)
    x[0] = 1.0
    torch.testing.assert_close(fine(x)[0][::2], coarse(x[::2])[0], rtol=1e-12, atol=1e-15)


def test_impulse_response_and_conservation_of_charge() -> None:
    x = torch.zeros(10, 1, 1, dtype=torch.float64)
    x[0] = 0.5
    v = LI(1, dt=0.001, beta=0.75)(x)[0].flatten()
    assert torch.equal(v, 0.5 * 0.75 ** torch.arange(10, dtype=torch.float64))
    generator = torch.Generator().manual_seed(3)
    charge = torch.rand(200, 4, 3, dtype=torch.float64, generator=generator) * 0.9
    spikes, state = IF(3, dt=0.001, reset="subtract")(charge)
    assert torch.equal(spikes.sum(dim=0), torch.floor(charge.sum(dim=0)))
    torch.testing.assert_close(state.v, charge.sum(dim=0) - spikes.sum(dim=0), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_two_step_gradient_has_the_closed_form(reset: str, detach: bool) -> None:
    surrogate, beta = ATan(2.0), 0.9
    weight = torch.tensor(1.3, dtype=torch.float64, requires_grad=True)
    module = LIF(1, dt=0.001, beta=beta, v_reset=-0.2, reset=reset, detach_reset=detach, surrogate=surrogate)
    spikes, _ = module((weight * torch.tensor([1.0, 0.4], dtype=torch.float64)).view(2, 1, 1))
    (grad,) = torch.autograd.grad(spikes[1, 0, 0], weight)
    h1 = 1.3
    g1 = float(surrogate.derivative(np.array([h1 - 1.0]))[0])
    if reset == "zero":
        v1, slope = -0.2, 0.0 if detach else (-0.2 - h1) * g1
    else:
        v1, slope = h1 - 1.0, 1.0 if detach else 1.0 - g1
    h2 = beta * v1 + 0.4 * 1.3
    g2 = float(surrogate.derivative(np.array([h2 - 1.0]))[0])
    assert spikes[0].item() == 1.0
    assert float(grad) == pytest.approx(g2 * (beta * slope + 0.4), rel=1e-12)


def test_learned_time_constant_starts_at_the_fixed_one_bit_for_bit() -> None:
    for tau in (0.02, 0.0031, 0.0002, 1.7):
        fixed, learned = LIF(3, dt=0.001, tau_mem=tau), LIF(3, dt=0.001, tau_mem=tau, learn="tau_mem")
        assert torch.equal(fixed.beta(), learned.beta())
        assert fixed.beta().item() == float(decay(tau, 0.001))
    x = drive("lif", 30, 4, torch.float32)[:, :, :3].contiguous()
    assert torch.equal(fixed(x)[0], learned(x)[0])
    # a longer memory keeps more charge: more spikes under positive drive
    learned(x.abs() * 0.2)[0].sum().backward()
    assert learned.tau_mem_log.grad.item() > 0
    assert learned.tau_mem_log.shape == ()


def test_learned_reset_values_keep_their_bits_at_the_start_and_their_distance_to_the_threshold() -> None:
    start = np.array([0.1, -0.7, 0.3])
    module = LIF(3, dt=0.001, v_reset=start, v_threshold=np.array([1.0, 1.1, 0.9]), learn=("v_threshold", "v_reset"))
    assert np.array_equal(module.neuron().v_reset, start)
    with torch.no_grad():
        module.v_threshold_log.fill_(-1.0)
        module.v_reset_log.copy_(torch.tensor([0.0, 0.5, -2.0]))
    record, values = module.neuron(), module.learned_values()
    assert np.all(record.v_reset < record.v_threshold)
    gap = (np.array([1.0, 1.1, 0.9]) - start) * np.exp([0.0, 0.5, -2.0])
    np.testing.assert_allclose(record.v_threshold - record.v_reset, gap, rtol=1e-7)
    assert set(values) == {"v_threshold", "v_reset"}
    assert np.array_equal(values["v_reset"], record.v_reset)
    with pytest.raises(InputError, match="v_reset does nothing with reset 'subtract'; use reset 'zero'"):
        LIF(3, dt=0.001, reset="subtract", learn="v_reset")


def test_learned_values_stay_valid_however_far_they_are_pushed() -> None:
    module = make("alif")
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(-1e4)
    module.clamp_()

    record = module.neuron()
    assert np.all((record.beta > 0) & (record.beta < 1))
    assert np.all(record.v_threshold > 0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(1e4)
    module.clamp_()
    record = module.neuron()
    assert np.all((record.beta > 0) & (record.beta < 1))
    assert np.all(np.isfinite(record.v_threshold))
    moved = LIF(2, dt=0.001, tau_mem=0.01, learn="tau_mem")
    with torch.no_grad():
        moved.tau_mem_log.fill_(math.log(2.0))
    assert moved.beta().item() == pytest.approx(math.exp(-0.05), rel=1e-7)


def test_kappa_follows_learned_time_constants() -> None:
    module = CubaLIF(UNITS, dt=0.001, tau_mem=TAU, tau_syn=TAU[::-1], learn=("tau_mem", "tau_syn")).double()
    assert np.array_equal(module.gain().detach().numpy(), kappa(TAU, TAU[::-1], 0.001))
    with torch.no_grad():
        module.tau_mem_log.copy_(torch.linspace(-0.5, 0.5, UNITS, dtype=torch.float64))
        module.tau_syn_log.copy_(torch.linspace(0.3, -0.2, UNITS, dtype=torch.float64))
    taus = TAU * np.exp(np.linspace(-0.5, 0.5, UNITS)), TAU[::-1] * np.exp(np.linspace(0.3, -0.2, UNITS))
    np.testing.assert_allclose(module.gain().detach().numpy(), kappa(*taus, 0.001), rtol=1e-12)


def test_records_hold_the_numbers_of_the_forward_pass() -> None:
    lif = LIF(2, dt=0.01, beta=1 - 1 / 1.005, t_ref=0.03)
    assert lif.neuron() == records.LIF.from_step(dt=0.01, beta=1 - 1 / 1.005, t_ref=0.03)
    for module in (lif.float(), lif.double(), lif.to(torch.bfloat16)):
        assert module.neuron().beta == 1 - 1 / 1.005
    step = make("cuba", reset="subtract", t_ref=0.002).neuron().step(UNITS, 0.001)
    assert np.array_equal(step.beta, decay(TAU, 0.001))
    assert np.array_equal(step.kappa, kappa(TAU, TAU[::-1], 0.001))
    assert step.refractory_steps.tolist() == [2] * UNITS
    assert np.array_equal(step.reset_amount, THETA)
    assert isinstance(make("if").neuron(), records.IF)
    assert isinstance(LI(2, dt=0.01).neuron(), records.LI)
    assert isinstance(CubaLI(2, dt=0.01).neuron(), records.CubaLI)
    adaptive = make("alif").neuron()
    assert isinstance(adaptive, records.AdaptiveLIF)
    assert np.array_equal(adaptive.adapt_threshold, np.linspace(0.2, 1.5, UNITS))


def test_state_dict_restores_every_bit() -> None:
    module = make("alif")
    with torch.no_grad():
        for index, parameter in enumerate(module.parameters()):
            parameter.add_(0.01 * (index + 1))
    other = AdaptiveLIF(UNITS, dt=0.001, tau_mem=TAU * 2, adapt_v=0.5, adapt_threshold=np.ones(UNITS),
                        v_threshold=THETA, learn=AdaptiveLIF.learnable)  # fmt: skip
    other.load_state_dict(module.state_dict())
    assert other.neuron() == module.neuron()


def test_heterogeneous_time_constants_are_seeded_and_valid() -> None:
    for kind in ("gamma", "uniform", "lognormal"):
        options: dict[str, Any] = {"dt": 0.001, "tau_mem": 0.02, "heterogeneous": kind}
        a, b, c = LIF(4000, seed=1, **options), LIF(4000, seed=1, **options), LIF(4000, seed=2, **options)
        assert torch.equal(a.beta(), b.beta())
        assert not torch.equal(a.beta(), c.beta())
        tau = -0.001 / np.log(a.beta().numpy())
        assert tau.min() >= 0.002 - 1e-12
        assert tau.mean() == pytest.approx(0.02, rel=0.04)
    both = CubaLIF(3, dt=0.001, heterogeneous="gamma")
    assert not torch.equal(both.beta_bits, both.alpha_bits)


def test_trace_shows_the_membrane_after_the_reset() -> None:
    module = LIF(1, dt=0.001, beta=0.5, t_ref=0.001)
    x = torch.tensor([0.8, 0.8, 5.0, 0.6]).view(4, 1, 1)
    spikes, v, state = module.trace(x)
    assert spikes.flatten().tolist() == [0, 1, 0, 0]
    torch.testing.assert_close(v.flatten(), torch.tensor([0.8, 0.0, 0.0, 0.6]))
    assert torch.equal(state.v, v[-1])
    assert torch.equal(spikes, module(x)[0])


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: LIF(0, dt=0.001), "expected a positive number of neurons"),
        (lambda: LIF(2, dt=0.0), "dt: expected a positive"),
        (lambda: LIF(2, dt=0.001, tau_mem=-1.0), "tau_mem: expected positive seconds"),
        (lambda: LIF(2, dt=0.001, tau_mem=[0.1, 0.2, 0.3]), r"array of shape \(2,\), got shape \(3,\)"),
        (lambda: LIF(2, dt=0.001, beta=1.5), "within"),
        (lambda: LIF(2, dt=0.001, beta=math.nan), "finite"),
        (lambda: LIF(2, dt=0.001, reset="soft"), "'zero' or 'subtract'"),
        (lambda: LIF(2, dt=0.001, v_reset=1.0), "v_reset: must lie below"),
        (lambda: LIF(2, dt=0.001, t_ref=-0.1), "t_ref: expected non-negative"),
        (lambda: LIF(2, dt=0.001, learn="tau"), "expected names among"),
        (lambda: LIF(2, dt=0.001, beta=0.0, learn="tau_mem"), "is 0 or 1"),
        (lambda: LIF(2, dt=0.001, beta=0.9, heterogeneous="gamma"), "leave beta out"),
        (lambda: LIF(2, dt=0.001, heterogeneous="normal"), "'gamma', 'uniform'"),
        (lambda: LIF(2, dt=0.001, tau_mem=[0.1, 0.2], heterogeneous="gamma"), "needs one mean"),
        (lambda: LIF(2, dt=0.001, surrogate="ATan"), "expected a record such as ATan"),
        (lambda: CubaLIF(2, dt=0.001, alpha=0.0), "or kappa be given"),
        (lambda: CubaLIF(2, dt=0.001, kappa=0.1, learn="tau_syn"), "cannot follow"),
        (lambda: AdaptiveLIF(2, dt=0.001, learn="adapt_threshold"), "must start above 0"),
        (lambda: LIF(2, dt=0.001)(torch.zeros(3, 2)), "expected input of shape"),
        (lambda: LIF(2, dt=0.001)(torch.zeros(3, 1, 2, dtype=torch.int64)), "float32 or float64"),
    ],
)
def test_mistakes_are_refused_in_a_sentence(build: Any, match: str) -> None:
    with pytest.raises(InputError, match=match):
        build()


def test_huge_inputs_give_no_nan() -> None:
    for kind in ("lif", "if"):
        module = make(kind)
        x = torch.full((4, 1, UNITS), 1e30, requires_grad=True)
        spikes, _ = module(x)
        spikes.sum().backward()
        assert torch.isfinite(x.grad).all()


def test_the_bases_are_abstract() -> None:
    for base in (NeuronModule, SpikingModule):
        with pytest.raises(TypeError, match=rf"abstract class {base.__name__} .*neuron"):
            base(3, 0.01)  # type: ignore[abstract]
