"""Modules of meta-dynamic neurons and of neurons with conductances: gradients, records, freezing, recipes."""

import numpy as np
import pytest
import torch

from snnsim.datasets import open_dataset
from snnsim.engines import simulate
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.network import Network, Population, Projection
from snnsim.nn.delays import Linear
from snnsim.nn.freeze import ModelJudge, freeze
from snnsim.nn.initialise import initialise_rates
from snnsim.nn.model import Block, ReadoutBlock, SpikingModel, build_model
from snnsim.nn.neurons import LI, LIF, ConductanceLIF, MetaDynamicNeuron, ReceptorLinear
from snnsim.nn.norm import BatchNormTime
from snnsim.nn.recurrent import Recurrent
from snnsim.nn.surrogates import Sigmoid
from snnsim.nn.thaw import thaw
from snnsim.recipes import load_recipe
from snnsim.recipes.schema import ModelSpec
from snnsim.training import train

DT = 0.001
THETAS = ("theta_v", "theta_u", "theta_r", "theta_s")
LEARNED = ("tau_mem", "tau_exc", "tau_inh", "e_exc", "e_inh", "v_threshold")


def shaken(module, seed=0):
    """Move every parameter of a module a little, so that nothing learned is at its start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter))
    return module


def conductance(size, **values):
    return ConductanceLIF(size, dt=DT, **({"tau_mem": 0.01, "learn": LEARNED} | values))


def meta(size, **values):
    return MetaDynamicNeuron(size, dt=DT, **({"time_unit": 0.005, "learn": THETAS} | values))


MAKERS = {
    "meta": lambda size: meta(size, t_ref=2 * DT),
    "types": lambda size: meta(
        size, types=np.arange(size) % 3, theta_v=[0.2, -0.2, 0.0], theta_u=[0.3, 0.5, 0.7], theta_r=0.02
    ),
    "exact": lambda size: conductance(size, t_ref=2 * DT),
    "fused": lambda size: conductance(size, solver="fused", substeps=3, tau_mem=np.linspace(0.01, 0.03, size)),
}


def current_of(neuron, rng, steps, batch):
    width = neuron.size * (2 if isinstance(neuron, ConductanceLIF) else 1)
    arrivals = rng.uniform(0, 0.3, (steps, batch, width)) * (rng.random((steps, batch, width)) < 0.5)
    arrivals[:, :, neuron.size :] *= 0.2  # little inhibition
    return torch.from_numpy(arrivals)


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("detach", [True, False])
def test_gradients_of_smooth_spikes(name, detach):
    neuron = shaken(MAKERS[name](4)).double()
    neuron.surrogate, neuron.detach_reset = Sigmoid(4.0), detach
    current = current_of(neuron, np.random.default_rng(1), 4, 2).requires_grad_()
    names = [item for item, _ in neuron.named_parameters()]
    values = [value.detach().clone().requires_grad_() for value in neuron.parameters()]
    assert len(names) == (4 if isinstance(neuron, MetaDynamicNeuron) else 6)

    class Run(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = neuron

        def forward(self, current):
            spikes, end = self.inner.reference_forward(current, smooth=True)
            return spikes, *end[:-1]

    module = Run()

    def run(current, *values):
        named = {f"inner.{key}": value for key, value in zip(names, values, strict=True)}
        return torch.func.functional_call(module, named, (current,))

    if detach:  # a detached reset has no true gradient to compare with
        run(current, *values)[0].sum().backward()
        assert all(float(value.grad.abs().sum()) > 0 for value in values)
    else:
        assert torch.autograd.gradcheck(run, (current, *values))


@pytest.mark.parametrize("name", MAKERS)
def test_the_surrogate_gradient_reaches_every_parameter(name):
    neuron = MAKERS[name](6)
    current = current_of(neuron, np.random.default_rng(2), 60, 3).float().requires_grad_()
    spikes, _ = neuron(current)
    assert float(spikes.detach().sum()) > 20
    (spikes * torch.rand(spikes.shape, generator=torch.Generator().manual_seed(1))).sum().backward()
    assert float(current.grad.abs().sum()) > 0
    for key, parameter in neuron.named_parameters():
        assert torch.isfinite(parameter.grad).all(), key
        assert float(parameter.grad.abs().sum()) > 0, key


@pytest.mark.parametrize("name", MAKERS)
def test_a_stream_can_be_cut_and_no_steps_are_no_steps(name):
    neuron = MAKERS[name](5)
    current = current_of(neuron, np.random.default_rng(3), 40, 2).float()
    with torch.no_grad():
        whole, end = neuron(current)
        first, state = neuron(current[:17])
        rest, last = neuron(current[17:], state)
        assert torch.equal(whole, torch.cat([first, rest]))
        assert all(torch.equal(one, two) for one, two in zip(end, last, strict=True))
        assert neuron(current[:0])[0].shape == (0, 2, 5)


def model_of(name, seed=0, recurrent=False):
    torch.manual_seed(seed)
    blocks, n_in = [], 12
    for size in (16, 10):
        neuron = MAKERS[name](size)
        if isinstance(neuron, ConductanceLIF):
            connection = ReceptorLinear(n_in, size, scale=6.0)
        else:
            connection = Linear(n_in, size)
        blocks.append(Block(connection, Recurrent(neuron, delay_steps=2) if recurrent else neuron))
        n_in = size
    return SpikingModel(blocks, ReadoutBlock(Linear(n_in, 4), LI(4, dt=DT, tau_mem=0.01)), dt=DT)


def trains(seed, batch=3, steps=80):
    return (np.random.default_rng(seed).random((steps, batch, 12)) < 0.15).astype(np.float64)


def as_events(counts):
    found = [np.nonzero(counts[:, sample]) for sample in range(counts.shape[1])]
    return Events.from_lists([step * DT for step, _ in found], [unit for _, unit in found], 12, duration=0.08)


@pytest.mark.parametrize(("name", "recurrent"), [*((name, False) for name in MAKERS), ("types", True)])
def test_frozen_spikes_are_those_of_the_model_and_thawed_ones_too(name, recurrent, tmp_path):
    model = shaken(model_of(name, recurrent=recurrent), 3)
    counts = trains(4)
    network = freeze(model)
    network.save(tmp_path / "network.npz")
    loaded = Network.load(tmp_path / "network.npz")
    judge = ModelJudge(model).run(counts)
    result = simulate(loaded, as_events(counts), n_steps=80, record=["readout.v"])
    again = ModelJudge(thaw(loaded)).run(counts)
    for layer in ("hidden1", "hidden2"):
        ours = np.zeros_like(judge[layer])
        spikes = result.spikes[layer]
        sample = np.repeat(np.arange(3), np.diff(spikes.offsets))
        ours[np.rint(spikes.times / DT).astype(int), sample, spikes.units] = 1
        assert judge[layer].sum() > 50
        assert np.array_equal(ours, judge[layer])
        assert np.array_equal(again[layer], judge[layer])
    for sample in range(3):
        assert np.array_equal(result.records["readout.v"][sample], judge["readout"][:, sample])


def test_types_share_what_they_learn():
    neuron = shaken(MAKERS["types"](7), 5)
    assert neuron.theta_v_gain.shape == (3,)
    assert neuron.theta_r_gain.shape == (3,)
    record = neuron.neuron()
    for theta in THETAS:
        values = getattr(record, theta)
        assert values.shape == (7,)
        assert np.array_equal(values, values[[0, 1, 2, 0, 1, 2, 0]])
        assert len(np.unique(values)) == 3


def test_learned_values_stay_where_the_laws_are_safe():
    neuron = meta(4, theta_r=0.1)
    with torch.no_grad():
        for parameter in neuron.parameters():
            parameter.fill_(4.0)
    neuron.clamp_()
    record = neuron.neuron()
    record.step(4, DT)
    assert record.theta_r < record.v_threshold
    assert record.theta_u * record.rate <= 1
    cells = conductance(3)
    with torch.no_grad():
        for parameter in cells.parameters():
            parameter.fill_(-9.0)
    cells.clamp_()
    record = cells.neuron()
    assert record.e_exc == 3.0
    assert record.e_inh == -1.0
    assert abs(record.tau_mem - 0.01 * np.exp(-3)) < 1e-12


def test_conductances_are_never_negative_and_both_products_agree():
    torch.manual_seed(6)
    layer = ReceptorLinear(9, 5).double()
    with torch.no_grad():
        layer.exc_weight.sub_(0.3)
    assert float(layer.exc_weight.detach().min()) < 0
    assert float(layer.weight.detach().min()) >= 0
    x = torch.from_numpy((np.random.default_rng(7).random((6, 2, 9)) < 0.5).astype(np.float64))
    trained, _ = layer(x)
    with torch.no_grad():
        tested, _ = layer.eval()(x)
    assert trained.shape == (6, 2, 10)
    assert torch.allclose(trained, tested, rtol=1e-13, atol=0)
    assert torch.allclose(tested[:, :, :5], x @ layer.exc_weight.detach().abs().t(), rtol=1e-13, atol=0)


@pytest.mark.parametrize("kind", ["meta-dynamic", "liquid"])
def test_recipes_build_them_and_an_update_lowers_the_loss(kind):
    table = {"hidden": [20], "batch_norm": False, "connection": {"kind": "linear"}}
    own = {"learn": list(THETAS), "types": 4, "tau_mem": 0.005}
    own = own if kind == "meta-dynamic" else {"learn": list(LEARNED), "solver": "fused", "substeps": 2}
    model = build_model(ModelSpec(**table, neuron={"kind": kind, **own}), 12, 3, DT)
    sizes = {name: len(group) for name, group in model.parameter_groups().items() if group}
    assert sizes == ({"weights": 2, "neuron": 4} if kind == "meta-dynamic" else {"weights": 3, "neuron": 6})
    x, target = torch.from_numpy(trains(8, 6)).float(), torch.tensor([0, 1, 2] * 2)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(12):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x).logits, target)
        loss.backward()
        optimiser.step()
        model.clamp_()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.02, losses


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"neuron": {"kind": "meta-dynamic", "reset": "subtract"}}, "'meta-dynamic' cannot change 'reset'"),
        ({"neuron": {"kind": "meta-dynamic", "learn": ["tau_mem"]}}, "'meta-dynamic' cannot change 'tau_mem'"),
        ({"neuron": {"kind": "meta-dynamic", "substeps": 2}}, "'meta-dynamic' has no 'substeps'"),
        ({"neuron": {"kind": "lif", "types": 2}}, "'lif' has no 'types'"),
        ({"neuron": {"kind": "lif", "learn": ["theta_v"]}}, "'lif' has no 'theta_v'"),
        ({"neuron": {"kind": "liquid", "tau_law": "euler"}}, "'liquid' cannot change 'tau_law'"),
        ({"neuron": {"kind": "liquid"}, "connection": {"kind": "delayed"}}, "connections without delays"),
        ({"neuron": {"kind": "liquid"}, "batch_norm": True}, "'liquid' has no batch_norm"),
        ({"neuron": {"kind": "liquid"}, "initial": {"input": {"mean": 0.0, "std": 1.0}}}, "draws its own weights"),
    ],
)
def test_recipes_refuse_what_they_do_not_have(change, sentence):
    table = {"hidden": [4], "batch_norm": False, "connection": {"kind": "linear"}} | change
    with pytest.raises(ValueError, match=sentence):
        ModelSpec(**table)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: meta(3, types=[0, 2, 2]), "types: expected numbers from 0 on without a gap"),
        (lambda: meta(3, types=[0, 1]), "types: expected 3 whole numbers"),
        (lambda: meta(3, types=[0, 1, 1], theta_v=[1.0, 2.0, 3.0]), r"theta_v: expected a finite number or one a type"),
        (lambda: meta(3, time_unit=0.0), "time_unit: expected positive seconds"),
        (lambda: meta(3, time_unit=0.001), "a step of 0.001 s is 1 time units"),
        (lambda: meta(3, learn=["v_threshold"]), "learn: expected names among"),
        (lambda: conductance(3, v_threshold=7.0), "e_exc: must lie above v_threshold, or no input makes a spike"),
        (lambda: conductance(3, solver="heun"), "solver: expected 'exact' or 'fused'"),
        (lambda: conductance(3)(torch.zeros(1, 1, 3)), r"expected input of shape \(time, batch, 6\)"),
        (lambda: ReceptorLinear(3, 2, scale=0.0), "scale: expected a positive number"),
        (lambda: ReceptorLinear(3, 2)(torch.zeros(1, 1, 2)), r"ReceptorLinear: expected input of shape"),
        (lambda: Block(Linear(3, 2), conductance(2)), "ReceptorLinear and ConductanceLIF belong together"),
        (lambda: Block(ReceptorLinear(3, 2), LIF(2, dt=DT)), "ReceptorLinear and ConductanceLIF belong together"),
        (lambda: Block(ReceptorLinear(3, 2), conductance(2), norm=BatchNormTime(2)), "conductances has no batch norm"),
        (lambda: Recurrent(conductance(2)), "Recurrent: expected spiking neurons"),
        (
            lambda: initialise_rates(model_of("exact"), torch.zeros(3, 1, 12), target=0.1),
            "initial rate: hidden1 has conductances",
        ),
    ],
)
def test_refusals(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()


def test_thaw_refuses_recurrence_drives_and_delays_of_conductances():
    network = freeze(model_of("exact"))
    hidden, rest = network.populations[0], network.populations[1:]
    loop = Projection("hidden1", "hidden1", np.ones((16, 16)), DT, "exc")
    late = Projection("input", "hidden1", np.ones((16, 12)), 2 * DT, "exc")
    driven = Population("hidden1", 16, hidden.neuron.replace(drive=1.0))
    for changed, sentence in (
        (network.replace(projections=(*network.projections, loop)), "Recurrent: expected spiking neurons"),
        (network.replace(projections=(late, *network.projections[1:])), "one tap and no delay"),
        (network.replace(populations=(driven, *rest)), "a layer with conductances has none"),
    ):
        with pytest.raises(InputError, match=sentence):
            thaw(changed)


@pytest.mark.parametrize("rule", ["sltt", "ottt", "rtrl", "e-prop", "eventprop"])
@pytest.mark.parametrize("kind", ["meta-dynamic", "liquid"])
def test_other_rules_refuse_them_before_a_run(kind, rule, tmp_path):
    changes = [f"model.neuron.kind={kind}", "model.batch_norm=false", "model.connection.kind=linear"]
    changes += ["model.neuron.tau_law=exact", "model.initial_rate=none", "model.neuron.tau_mem=0.05"]
    name = "MetaDynamicNeuron" if kind == "meta-dynamic" else "ConductanceLIF"
    changes += ["train.loss=per_step"] if rule == "sltt" else []
    recipe = load_recipe("spoken-digits", [*changes, f"train.learning={rule}", "train.epochs=1", "model.hidden=[8]"])
    with pytest.raises(InputError, match=f"{name} neurons, which this rule does not know|got {name}"):
        train(recipe, open_dataset("toy"), tmp_path / "run", seed=0)
