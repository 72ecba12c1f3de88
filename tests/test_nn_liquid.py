"""Liquid time-constant units: closed forms, order of the solvers, bounds, gradients."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from snnsim.errors import InputError  # noqa: E402
from snnsim.nn.liquid import LTC  # noqa: E402


def unit(substeps, solver, *, weight=0.8, period=0.4):
    """Return one unit without recurrence whose time constant and end are constant."""
    made = LTC(1, 1, period=period, substeps=substeps, solver=solver).double()
    with torch.no_grad():
        made.weight.zero_()
        made.in_weight.fill_(weight)
        made.in_reversal.fill_(1.0)
        made.in_mu.fill_(0.5)
        made.in_sigma.fill_(4.0)
        made.v_leak.fill_(-0.2)
        made.g_leak.fill_(1.0)
        made.capacity.fill_(0.5 / (period / substeps))  # C = 0.5
    return made


def closed_form(period, weight=0.8, v0=-0.7):
    total = 1 + weight / (1 + np.exp(-4.0 * (0.9 - 0.5)))
    end = (-0.2 + (total - 1)) / total
    return end + (v0 - end) * np.exp(-period * total / 0.5)


@torch.no_grad()
def end_of(module, v0=-0.7):
    return float(
        module(torch.full((1, 1, 1), 0.9, dtype=torch.float64), torch.full((1, 1), v0, dtype=torch.float64))[1]
    )


def test_the_fused_step_is_of_first_order_and_the_exponential_step_exact():
    errors = [abs(end_of(unit(n, "fused")) - closed_form(0.4)) for n in (6, 12, 24, 48, 96, 192)]
    ratios = np.array(errors[:-1]) / np.array(errors[1:])
    assert np.all((ratios > 1.7) & (ratios < 2.3)), errors
    assert abs(ratios[-1] - 2) < 0.05
    for n in (1, 6):
        assert abs(end_of(unit(n, "exact")) - closed_form(0.4)) < 1e-12


def test_an_isolated_unit_of_the_code_falls_by_a_third_to_the_sixth():
    made = LTC(1, 1, period=0.1).double()
    with torch.no_grad():
        made.weight.zero_()
        made.in_weight.zero_()
        made.v_leak.zero_()
        _, v = made(torch.zeros(1, 1, 1).double(), torch.ones(1, 1).double())
    assert abs(float(v) - (1 / 3) ** 6) < 1e-15


@pytest.mark.parametrize("solver", ["fused", "exact"])
def test_v_stays_between_the_potentials_with_conductances_20_times_larger(solver):
    torch.manual_seed(1)
    made = LTC(3, 8, period=0.1, substeps=1, solver=solver).double()
    with torch.no_grad():
        made.weight.mul_(20)
        made.in_weight.mul_(20)
        trace, _ = made(torch.randn(2000, 2, 3).double(), elapsed=0.1 * torch.rand(2000).double() + 1e-3)
    assert float(trace.min()) >= -1
    assert float(trace.max()) <= 1
    assert float(trace.std()) > 0.1


def test_the_time_constant_lies_between_its_bounds():
    torch.manual_seed(2)
    made = LTC(3, 8, period=0.6).double()
    tau = made.time_constant(3 * torch.randn(500, 3).double(), torch.randn(500, 8).double()).detach()
    c = 0.5 * 0.1
    least = c / (1 + made.weight.sum(1) + made.in_weight.sum(1)).detach()
    assert bool(torch.all(tau >= least))
    assert bool(torch.all(tau <= c))
    assert float(tau.max() - tau.min()) > 0.1 * c


def test_shunting_moves_the_time_constant_and_not_the_end():
    made, more = unit(1, "exact", period=100.0), unit(1, "exact", weight=3.0, period=100.0)
    x, v, taus = torch.full((1, 1), 0.9, dtype=torch.float64), torch.zeros(1, 1).double(), []
    for item in (made, more):
        with torch.no_grad():
            item.in_reversal.copy_(item.v_leak.view(1, 1))
            assert abs(end_of(item) + 0.2) < 1e-14
            taus.append(float(item.time_constant(x, v)))
    assert taus[1] < 0.6 * taus[0]


def test_without_conductances_it_is_a_leaky_integrator():
    made = unit(3, "exact", weight=0.0)
    assert abs(end_of(made) - (-0.2 - 0.5 * np.exp(-0.4 / 0.5))) < 1e-15


def test_at_the_reversal_potential_a_synapse_carries_no_current():
    made = unit(4, "fused", weight=7.0)
    with torch.no_grad():
        made.v_leak.fill_(1.0)
    assert end_of(made, v0=1.0) == 1.0


def test_durations_of_samples_are_those_of_the_exact_solution():
    made = unit(2, "exact", period=0.4)
    x = torch.full((2, 2, 1), 0.9, dtype=torch.float64)
    start = torch.full((2, 1), -0.7, dtype=torch.float64)
    with torch.no_grad():
        trace, v = made(x, start, torch.tensor([[0.1, 0.3], [0.25, 0.05]], dtype=torch.float64))
        assert torch.equal(trace[1], v)
        for elapsed in ([0.3, 0.1], [[0.3] * 2, [0.1] * 2]):
            again, _ = made(x, start, torch.tensor(elapsed, dtype=torch.float64))
            assert abs(float(again[1, 0]) - closed_form(0.4)) < 1e-12
    for time, value in ((0.1, trace[0, 0]), (0.3, trace[0, 1]), (0.35, trace[1, 0]), (0.35, trace[1, 1])):
        assert abs(float(value) - closed_form(time)) < 1e-12


@pytest.mark.parametrize("solver", ["fused", "exact"])
def test_gradients(solver):
    generator = torch.Generator().manual_seed(3)
    made = LTC(2, 3, period=0.5, substeps=2, solver=solver, generator=generator).double()
    names = [name for name, _ in made.named_parameters()]
    x = torch.randn(3, 2, 2, generator=generator).double().requires_grad_()
    elapsed = (torch.rand(3, 2, generator=generator).double() + 0.3).requires_grad_()
    v = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)

    def run(x, v, elapsed, *values):
        return torch.func.functional_call(made, dict(zip(names, values, strict=True)), (x, v, elapsed))[0]

    values = [value.detach().clone().requires_grad_() for value in made.parameters()]
    assert torch.autograd.gradcheck(run, (x, v, elapsed, *values))


def test_training_stays_within_the_limits_and_a_stream_can_be_cut():
    torch.manual_seed(4)
    made = LTC(2, 4, period=0.1)
    optimiser = torch.optim.Adam(made.parameters(), lr=0.5)
    x = torch.randn(6, 3, 2)
    for _ in range(5):
        optimiser.zero_grad()
        made(x)[0].square().sum().backward()
        optimiser.step()
        made.clamp_()
    for name in ("weight", "in_weight", "g_leak", "capacity"):
        assert float(getattr(made, name).detach().min()) >= 0.99e-6
    with torch.no_grad():
        whole, _ = made(x)
        first, state = made(x[:2])
        rest, _ = made(x[2:], state)
    assert torch.equal(whole, torch.cat([first, rest]))
    again = LTC(2, 4, period=0.1)
    again.load_state_dict(made.state_dict())
    assert torch.equal(again(x)[0], made(x)[0])


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: LTC(0, 1, period=1.0), "LTC: n_in: expected a positive whole number"),
        (lambda: LTC(1, 1, period=1.0, substeps=0), "LTC: substeps: expected a positive whole number"),
        (lambda: LTC(1, 1, period=1.0, solver="euler"), "LTC: solver: expected 'fused' or 'exact', got 'euler'"),
        (lambda: LTC(1, 1, period=-1.0), "dt"),
        (lambda: LTC(1, 1, period=1.0)(torch.zeros(2, 3)), "LTC: expected input of shape"),
        (lambda: LTC(1, 1, period=1.0)(torch.zeros(2, 3, 1).double()), "LTC: expected input of torch.float32"),
        (lambda: LTC(1, 1, period=1.0)(torch.zeros(2, 3, 1), torch.zeros(3, 2)), "LTC: expected a state of shape"),
        (lambda: LTC(1, 1, period=1.0)(torch.zeros(2, 3, 1), None, torch.ones(3)), "LTC: elapsed: expected seconds"),
        (lambda: LTC(1, 1, period=1.0)(torch.zeros(2, 3, 1), None, torch.zeros(2)), "LTC: elapsed: expected positive"),
    ],
)
def test_refusals(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()
