"""Trainable neurons that draw random numbers: definition, gradients, estimators, threads and batches."""

import numpy as np
import pytest
import torch
from torch import Tensor

from snnsim.engines import simulate
from snnsim.errors import InputError
from snnsim.events import Events, replace_fields
from snnsim.kernels.reference_stochastic import drawn_sum
from snnsim.nn.cells import Cell
from snnsim.nn.context import Context
from snnsim.nn.delays import DelayedLinear, Linear
from snnsim.nn.freeze import freeze
from snnsim.nn.levy_baxter import LevyBaxter
from snnsim.nn.meta import MetaNeuron, log_prob
from snnsim.nn.model import Block, ReadoutBlock, SpikingModel
from snnsim.nn.neurons import LI, LIF
from snnsim.nn.norm import BatchNormTime
from snnsim.nn.recurrent import Recurrent
from snnsim.nn.stochastic_synapses import Draws, drawn_product
from snnsim.nn.thaw import thaw

DT = 0.001
IDS = np.array([5, 1, 9, 2])


def context(batch=4, seed=3, epoch=0):
    return Context(sample_id=torch.from_numpy(IDS[:batch]), seed=seed, epoch=epoch)


def counts(steps=30, batch=4, n_in=8, share=0.3, seed=0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy((rng.random((steps, batch, n_in)) < share) * rng.integers(1, 3, (steps, batch, n_in)) * 1.0)


def events(x):
    times, units = [], []
    for b in range(x.shape[1]):
        step, unit = np.nonzero(x[:, b].numpy())
        n = x[step, b, unit].numpy().astype(int)
        times.append(np.repeat(step, n) * DT)
        units.append(np.repeat(unit, n))
    made = Events.from_lists(times, units, x.shape[2], duration=x.shape[0] * DT, sort=True)
    return replace_fields(made, sample_ids=IDS[: x.shape[1]])


def dense(found, steps, size):
    out = np.zeros((steps, len(found), size))
    for b in range(len(found)):
        out[np.rint(found[b].times / DT).astype(int), b, found[b].units] = 1
    return out


def make_model(kind="linear", mode="stochastic", norm=False, seed=0, **changes):
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    values = {"tau_mem": rng.uniform(0.005, 0.02, 20), "release": rng.uniform(0.4, 0.9, 20), "amplitude": 0.4}
    values |= {"temperature": rng.uniform(0.05, 0.2, 20), "drive_step": 0.02, "t_ref": rng.integers(0, 3, 20) * DT}
    first = MetaNeuron(20, dt=DT, mode=mode, **(values | changes))
    second = LevyBaxter(15, dt=DT, v_threshold=0.4, release=0.7, mode=mode)
    connection = Linear(8, 20, generator=generator)
    if kind == "delayed":
        connection = DelayedLinear(8, 20, max_delay_steps=4, taps=2, learn_delay=False, generator=generator)
    blocks = [Block(connection, first, norm=BatchNormTime(20) if norm else None)]
    blocks.append(Block(Linear(20, 15, generator=generator), second))
    readout = ReadoutBlock(Linear(15, 3, generator=generator), LI(3, dt=DT, tau_mem=0.01), reduce="mean")
    return SpikingModel(blocks, readout, dt=DT).double()


@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_chance_it_is_lif_bit_for_bit(reset, dtype):
    rng = np.random.default_rng(1)
    own = {"tau_mem": rng.uniform(0.005, 0.02, 20), "v_threshold": rng.uniform(0.8, 1.2, 20), "t_ref": 0.002}
    current = torch.randn(40, 4, 20, dtype=dtype, generator=torch.Generator().manual_seed(1)) * 0.6
    spikes = []
    for neuron in (MetaNeuron(20, dt=DT, reset=reset, **own), LIF(20, dt=DT, reset=reset, **own)):
        leaf = current.clone().requires_grad_(True)
        out, state = neuron(leaf)
        out.square().sum().backward()
        spikes.append((out.detach(), state.v, leaf.grad))
    assert spikes[0][0].sum() > 100
    assert torch.equal(spikes[0][0], spikes[1][0])
    assert torch.equal(spikes[0][1], spikes[1][1])
    assert torch.allclose(spikes[0][2], spikes[1][2], rtol=1e-5 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize("kind", ["linear", "delayed"])
@pytest.mark.parametrize("mode", ["stochastic", "mean"])
def test_frozen_network_draws_what_the_model_draws(kind, mode):
    model, x = make_model(kind, mode).eval(), counts()
    with torch.no_grad():
        output = model(x, None, context(), record=True)
    network = freeze(model)
    result = simulate(network, events(x), seed=3)
    for spikes, name in zip(output.spikes, ("hidden1", "hidden2"), strict=True):
        assert spikes.sum() > 0
        assert np.array_equal(dense(result.spikes[name], 30, spikes.shape[2]), spikes.numpy())
    assert np.array_equal(result.logits, output.logits.numpy())
    other = simulate(network, events(x), seed=4)
    same = np.array_equal(other.spikes["hidden1"].times, result.spikes["hidden1"].times)
    assert same == (mode == "mean")
    back = thaw(network)
    with torch.no_grad():
        again = back(x, None, context(), record=True)
    assert all(torch.equal(a, b) for a, b in zip(output.spikes, again.spikes, strict=True))
    assert freeze(back).digest() == network.digest()


def test_batch_norm_is_folded_beside_the_drive_of_the_neurons():
    model, x = make_model(norm=True), counts()
    for epoch in range(3):
        model(x, None, context(epoch=epoch))
    model.eval()
    with torch.no_grad():
        output = model(x, None, context(), record=True)
    network = freeze(model)
    result = simulate(network, events(x), seed=3)
    spikes = output.spikes[0].numpy()
    assert spikes.sum() > 20
    assert np.count_nonzero(dense(result.spikes["hidden1"], 30, 20) != spikes) == 0  # no membrane near its threshold
    drive = network.population("hidden1").neuron.drive_step
    assert np.allclose(drive, model.blocks[0].norm.fold()[1] + 0.02)


def test_state_carries_the_step_so_that_a_stream_may_be_cut():
    for kind in ("linear", "delayed"):
        model, x = make_model(kind).eval(), counts()
        with torch.no_grad():
            whole = model(x, None, context(), record=True)
            first = model(x[:11], None, context(), record=True)
            second = model(x[11:], first.state, context(), record=True)
        for k in range(2):
            assert torch.equal(whole.spikes[k], torch.cat([first.spikes[k], second.spikes[k]]))


def test_draws_depend_on_the_sample_and_the_epoch_and_not_on_the_batch():
    model, x = make_model(), counts()
    whole = model(x, None, context(), record=True).spikes[0]
    part = model(x[:, 2:], None, Context(sample_id=torch.from_numpy(IDS[2:]), seed=3), record=True).spikes[0]
    assert torch.equal(whole[:, 2:], part)
    assert not torch.equal(whole, model(x, None, context(epoch=1), record=True).spikes[0])
    assert not torch.equal(whole, model(x, None, context(seed=4), record=True).spikes[0])
    with pytest.raises(InputError, match="random numbers belong to samples"):
        model(x)


def test_precision_changes_rounding_and_not_draws():
    x = counts()
    weight = torch.randn(6, 8, 1, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    law = (torch.full((6,), 0.6).double(), torch.full((6,), 0.7).double(), torch.full((6,), 0.6).double())
    nothing = torch.zeros(6, 8, 1, dtype=torch.int64)
    double, _ = drawn_product(x, weight, law, nothing, Draws(3, IDS))
    single, _ = drawn_product(x.float(), weight.float(), law, nothing, Draws(3, IDS))
    assert torch.allclose(double, single.double(), atol=1e-5)


@pytest.mark.parametrize("kind", ["linear", "delayed"])
def test_bits_do_not_depend_on_threads(kind):
    x, results = counts(), []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            names = ("tau_mem", "v_threshold", "v_reset", "release", "amplitude", "temperature", "drive_step")
            model = make_model(kind, learn=names)
            model(x, None, context()).logits.square().sum().backward()
            results.append([p.grad for p in model.parameters() if p.grad is not None])
    finally:
        torch.set_num_threads(before)
    assert len(results[0]) >= 9
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_product_is_the_definition():
    rng = np.random.default_rng(4)
    x, weight = counts(12, 3, 5), rng.normal(size=(6, 5, 2))
    steps, law = rng.integers(0, 4, (6, 5, 2)), (rng.uniform(0.2, 1, 6), rng.uniform(0, 1, 6), rng.uniform(0, 2, 6))
    key = {"seed": 8, "projection": 2, "sample": IDS[:3], "first_step": 7}
    defined = drawn_sum(x.numpy(), weight, steps, law, **key)
    laws = tuple(torch.from_numpy(item) for item in law)
    tensors = (x, torch.from_numpy(weight), laws, torch.from_numpy(steps))
    ours, _ = drawn_product(*tensors, Draws(8, IDS[:3]), number=2, first_step=7)
    assert np.array_equal(ours.numpy(), defined)


def test_gradients_of_the_product_are_those_of_the_sum_as_it_was_drawn():
    x = counts(6, 3, 4, 0.5)
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(3, 4, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    low = torch.tensor([0.3, 0.6, 1.0], dtype=torch.float64, requires_grad=True)
    span = torch.tensor([1.4, 0.8, 0.5], dtype=torch.float64, requires_grad=True)
    release = torch.tensor([0.3, 0.7, 0.9], dtype=torch.float64)
    steps = torch.randint(0, 3, (3, 4, 2), generator=generator)

    def run(w: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return drawn_product(x, w, (release, a, b), steps, Draws(1, IDS[:3]))[0]

    assert torch.autograd.gradcheck(run, (weight, low, span))
    # inputs that are not zero: scaling a count is a smooth change; at zeros the mean stands in
    leaf = x.clone().requires_grad_(True)
    upstream = torch.randn(6, 3, 3, generator=generator, dtype=torch.float64)
    y = drawn_product(leaf, weight, (release, low, span), steps, Draws(1, IDS[:3]))[0]
    (y * upstream).sum().backward()
    eps = 1e-6
    for place in torch.nonzero(x).tolist()[:12]:
        moved = x.clone()
        moved[tuple(place)] += eps
        change = (drawn_product(moved, weight, (release, low, span), steps, Draws(1, IDS[:3]))[0] - y) * upstream
        assert np.isclose(float(change.detach().sum()) / eps, float(leaf.grad[tuple(place)]), atol=1e-6)
    gain = (release * (low + 0.5 * span)).detach()
    for t, b, i in torch.nonzero(x == 0).tolist()[:12]:
        expected = 0.0
        for j in range(3):
            for tap in range(2):
                arrival = t + int(steps[j, i, tap])
                if arrival < 6:
                    expected += float(upstream[arrival, b, j] * weight[j, i, tap].detach() * gain[j])
        assert np.isclose(expected, float(leaf.grad[t, b, i]))


NAMES = ("tau_mem", "v_threshold", "v_reset", "release", "amplitude", "temperature", "drive_step")


def make_neuron(mode, reset, estimator="straight-through", detach=True, temperature=0.3, size=5):
    rng = np.random.default_rng(6)
    names = NAMES if reset == "zero" else tuple(name for name in NAMES if name != "v_reset")
    return MetaNeuron(
        size,
        dt=DT,
        tau_mem=rng.uniform(0.004, 0.02, size),
        v_threshold=rng.uniform(0.7, 1.1, size),
        v_reset=rng.uniform(-0.2, 0.2, size),
        release=rng.uniform(0.3, 0.9, size),
        amplitude=rng.uniform(0.2, 0.8, size),
        temperature=temperature,
        drive_step=rng.uniform(-0.1, 0.2, size),
        t_ref=0.001,
        learn=names,
        mode=mode,
        reset=reset,
        estimator=estimator,
        detach_reset=detach,
    ).double()


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_mean_mode_with_smooth_spikes_has_true_gradients_of_every_number(reset):
    neuron = make_neuron("mean", reset, detach=False)
    connection = Linear(8, 5, generator=torch.Generator().manual_seed(7)).double()
    x = counts(8, 3)
    upstream = torch.randn(8, 3, 5, generator=torch.Generator().manual_seed(8), dtype=torch.float64)

    def loss() -> Tensor:
        current, _ = neuron.synapses(connection, x)
        spikes, state = neuron.reference_forward(current, smooth=True)
        return (spikes * upstream).sum() + state.v.square().sum()

    loss().backward()
    checked = 0
    for name, parameter in [*neuron.named_parameters(), ("weight", connection.weight)]:
        flat, grad = parameter.data.view(-1), parameter.grad.view(-1)
        for k in range(min(flat.numel(), 6)):
            start, eps = float(flat[k]), 1e-5
            values = []
            for sign in (1, -1):
                flat[k] = start + sign * eps
                values.append(float(loss().detach()))
            flat[k] = start
            assert np.isclose((values[0] - values[1]) / (2 * eps), float(grad[k]), rtol=1e-6, atol=1e-8), name
            checked += abs(float(grad[k])) > 1e-6
    assert checked >= 25  # all but those of the amplitude, which the mean does not see
    assert torch.count_nonzero(neuron.amplitude_logit.grad) == 0


@pytest.mark.parametrize("mode", ["stochastic", "mean"])
@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize(
    ("estimator", "detach", "temperature"),
    [("straight-through", True, 0.3), ("straight-through", False, [0.3, 0.1, 0.2, 0.4, 0.3]), ("score", True, 0.3)],
)
def test_kernel_is_the_definition_step_by_step(mode, reset, estimator, detach, temperature):
    neuron = make_neuron(mode, reset, estimator, detach, temperature)
    current = torch.randn(20, 4, 5, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    results = []
    for run in (neuron.forward, neuron.reference_forward):
        neuron.zero_grad()
        leaf = current.clone().requires_grad_(True)
        spikes, state = run(leaf, None, context=context())
        spikes, state = run(leaf * 0.5, state, context=context())
        (
            spikes.sum(dim=2).square().sum() + state.v.square().sum() + (state.log_prob * torch.arange(4)).sum()
        ).backward()
        grads = [p.grad.clone() for p in neuron.parameters() if p.grad is not None]
        results.append((spikes.detach(), state.v.detach(), state.refractory, leaf.grad, state.log_prob.detach(), grads))
    ours, defined = results
    assert 20 < ours[0].sum() < 300
    assert all(torch.equal(a, b) for a, b in zip(ours[:3], defined[:3], strict=True))
    for a, b in zip([*ours[3:5], *ours[5]], [*defined[3:5], *defined[5]], strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)
    assert len(ours[5]) >= 4


def exact_loss(numbers, weight, table):
    """Expected loss of one neuron, two synapses and two steps: all releases and spikes, amplitudes by quadrature."""
    beta, theta, v_reset, release, amplitude, temperature, drive = numbers
    nodes, shares = np.polynomial.legendre.leggauss(6)
    u = torch.from_numpy((nodes + 1) / 2)
    grid = torch.cartesian_prod(u, u, u, u).T
    share = torch.cartesian_prod(*[torch.from_numpy(shares / 2)] * 4).prod(dim=1)
    q = 1 - amplitude + 2 * amplitude * grid  # (event, node): step 1 synapses 1 and 2, step 2 the same
    total = torch.zeros((), dtype=torch.float64)
    for pattern in range(16):
        phi = [(pattern >> k) & 1 for k in range(4)]
        chance = torch.ones((), dtype=torch.float64)
        for one in phi:
            chance = chance * (release if one else 1 - release)
        sums = [phi[2 * k] * weight[0] * q[2 * k] + phi[2 * k + 1] * weight[1] * q[2 * k + 1] for k in range(2)]
        first = drive + sums[0]
        p = torch.sigmoid((first - theta) / temperature)
        for z in (0, 1):
            second = (beta * (v_reset if z else first) + drive) + sums[1]
            later = torch.sigmoid((second - theta) / temperature)
            for other in (0, 1):
                both = (p if z else 1 - p) * (later if other else 1 - later)
                total = total + chance * (share * both).sum() * table[z, other]
    return total


def chance_gradients(estimator, groups=40, batch=20_000):
    """Return exact gradients, and mean and standard error of the estimated ones."""
    values = {"tau_mem": 0.004, "v_threshold": 0.9, "v_reset": 0.1, "release": 0.6, "amplitude": 0.5}
    values |= {"temperature": 0.3, "drive_step": 0.15}
    neuron = MetaNeuron(1, dt=DT, learn=NAMES, estimator=estimator, **values).double()
    connection = Linear(2, 1).double()
    connection.weight.data[:] = torch.tensor([[0.7, 0.5]])
    table = torch.tensor([[0.3, 1.0], [-0.5, 2.0]], dtype=torch.float64)
    parameters = [*neuron.parameters(), connection.weight]
    quantities = ("beta", "v_threshold", "v_reset", "release", "amplitude", "temperature", "drive_step")
    numbers = [neuron._value(name) for name in quantities]
    exact = torch.autograd.grad(exact_loss(numbers, connection.weight[0], table), parameters)
    found = []
    x = torch.ones(2, batch, 2, dtype=torch.float64)
    for group in range(groups):
        ids = torch.arange(group * batch, (group + 1) * batch)
        now = Context(sample_id=ids, seed=1)
        neuron.zero_grad()
        connection.zero_grad()
        current, synapses = neuron.synapses(connection, x, None, now)
        spikes, state = neuron(current, None, now)
        z, other = spikes[0, :, 0], spikes[1, :, 0]
        loss = table[0, 0] + (table[1, 0] - table[0, 0]) * z + (table[0, 1] - table[0, 0]) * other
        loss = loss + (table[1, 1] - table[1, 0] - table[0, 1] + table[0, 0]) * z * other
        if estimator == "score":
            loss = (loss.detach() - 0.7) * log_prob((synapses, state))
        loss.mean().backward()
        found.append(torch.cat([p.grad.view(-1) for p in parameters]))
    stacked = torch.stack(found)
    return torch.cat([g.view(-1) for g in exact]), stacked.mean(dim=0), stacked.std(dim=0) / groups**0.5


def test_score_estimator_is_unbiased_for_every_number():
    exact, mean, error = chance_gradients("score")
    assert torch.all(exact.abs() > 4 * error)  # the test can tell them from 0
    assert torch.all((mean - exact).abs() < 3 * error), ((mean - exact) / error).tolist()


def test_straight_through_estimator_is_biased_and_points_the_right_way():
    exact, mean, error = chance_gradients("straight-through", groups=10)
    assert torch.any((mean - exact).abs() > 5 * error)
    cosine = float(torch.dot(exact, mean) / exact.norm() / mean.norm())
    assert cosine > 0.9


def test_levy_baxter_fires_as_often_as_the_closed_form_says():
    p, s, g = 0.3, 0.6, 0.7
    a = p * s
    expected = {1: a * (1 - g), 2: 2 * a * (1 - a) * (1 - g) + a**2 * (1 - g**2 / 2)}
    assert np.allclose([expected[1], expected[2]], [0.054, 0.113022])
    rng = np.random.default_rng(0)
    now = Context(sample_id=torch.arange(200), seed=2)
    for n in (1, 2):
        neuron = LevyBaxter(1, dt=DT, v_threshold=g, release=s)
        x = torch.from_numpy((rng.random((5000, 200, n)) < p).astype(np.float32))
        connection = Linear(n, 1)
        connection.weight.data.fill_(1.0)
        with torch.no_grad():
            drive, _ = neuron.synapses(connection.train(), x, None, now)
            spikes, _ = neuron(drive, None, now)
        rate, trials = float(spikes.double().mean()), 1_000_000
        assert abs(rate - expected[n]) < 3 * (expected[n] * (1 - expected[n]) / trials) ** 0.5
        if n == 2:
            sums = drive.double()
            assert abs(float(sums.mean()) - 0.18) < 3 * (0.1038 / trials) ** 0.5
            assert abs(float(sums.var()) - 0.1038) < 0.002


def test_learned_numbers_start_exactly_and_stay_in_range():
    neuron = make_neuron("stochastic", "zero")
    before = neuron.neuron()
    plain = {
        "release": neuron._base("release"),
        "v_reset": neuron._base("v_reset"),
        "amplitude": neuron._base("amplitude"),
    }
    for name, base in plain.items():
        assert np.array_equal(getattr(before, name), base.numpy()), name
    for sign in (1, -1):
        for parameter in neuron.parameters():
            parameter.data.fill_(sign * 100.0)
        neuron.clamp_()
        record = neuron.neuron()
        assert np.all(record.release > 0)
        assert np.all(record.release <= 1)
        assert np.all(record.amplitude <= 1)
        assert np.all(record.v_reset < record.v_threshold)
        assert np.all(record.temperature > 0)


def test_refusals_name_what_to_do():
    with pytest.raises(InputError, match="inside \\(0, 1\\)"):
        MetaNeuron(3, dt=DT, learn=("release",))
    with pytest.raises(InputError, match="must start above 0"):
        MetaNeuron(3, dt=DT, learn=("temperature",))
    with pytest.raises(InputError, match="v_reset does nothing with reset 'subtract'"):
        MetaNeuron(3, dt=DT, reset="subtract", learn=("v_reset",))
    with pytest.raises(InputError, match="mode: expected one of"):
        MetaNeuron(3, dt=DT, mode="median")
    with pytest.raises(InputError, match="estimator: expected one of"):
        LevyBaxter(3, dt=DT, estimator="guess")
    with pytest.raises(InputError, match="expected spiking neurons such as LIF"):
        Recurrent(MetaNeuron(3, dt=DT))
    with pytest.raises(InputError, match="Cell: MetaNeuron draws its synapses"):
        Cell((1, 1, 3), MetaNeuron(3, dt=DT))
    learned = DelayedLinear(4, 3, max_delay_steps=3)
    neuron = MetaNeuron(3, dt=DT, release=0.5)
    with pytest.raises(InputError, match="positions of learned delays"):
        neuron.synapses(learned, torch.zeros(2, 4, 4), None, context())
    neuron.mode = "mean"
    assert neuron.synapses(learned, torch.zeros(2, 4, 4))[0].shape == (2, 4, 3)
    blocks = [Block(Linear(3, 3), LIF(3, dt=DT), residual=True), Block(Linear(3, 3), MetaNeuron(3, dt=DT))]
    readout = ReadoutBlock(Linear(3, 2), LI(2, dt=DT))
    with pytest.raises(InputError, match="residual"):
        SpikingModel(blocks, readout, dt=DT)
    with pytest.raises(InputError, match="log_prob: expected the state of a model"):
        log_prob((None, ()))


def test_stretches_that_are_run_again_draw_the_same():
    x, found = counts(), []
    for steps in (None, 7):
        model = make_model(learn=("release", "tau_mem"))
        model(x, None, context(), checkpoint_steps=steps).logits.square().sum().backward()
        found.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(found[0]) == 5
    assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(*found, strict=True))
