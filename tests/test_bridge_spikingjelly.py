"""SpikingJelly models imported and made: equal spikes, the delay paper's growing sequence included."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from snnsim.errors import InputError
from snnsim.export.proof import MIN_NEURON_STEPS, MIN_SPIKES, prove
from snnsim.network import Input, Network, Population, Projection
from snnsim.neurons import IF, LI, LIF
from snnsim.nn.spikingjelly import from_spikingjelly, to_spikingjelly

pytest.importorskip("spikingjelly")

from spikingjelly.activation_based import functional, layer, neuron, surrogate

DT = 0.01
SIZES = (24, 40, 32)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def norm(size: int) -> nn.Module:
    made = layer.BatchNorm1d(size, step_mode="m")
    with torch.no_grad():
        made.weight.uniform_(0.7, 1.6)
        made.bias.uniform_(0.0, 0.5)
        made.running_mean.normal_(0, 0.1)
        made.running_var.uniform_(0.4, 1.5)
    return made  # type: ignore[no-any-return]


class Judge:
    """A SpikingJelly model on sequences that its layers may lengthen."""

    name = "SpikingJelly"
    latency: dict[str, int] = {}  # noqa: RUF012

    def __init__(self, modules: nn.Sequential, tail: int = 0, padding: tuple[int, int] | None = None) -> None:
        self.modules, self.tail, self.padding = modules.double().eval(), tail, padding

    @torch.no_grad()
    def run(self, inputs: Any) -> dict[str, Any]:
        functional.reset_net(self.modules)
        n_steps = inputs.shape[0]
        assert not inputs[n_steps - self.tail :].any() or not self.tail
        x = torch.from_numpy(inputs[: n_steps - self.tail].copy())
        result: dict[str, Any] = {}
        for module in self.modules:
            if type(module).__name__ == "Dcls1d":
                x = x.permute(1, 2, 0)
                if self.padding is not None:
                    x = nn.functional.pad(x, self.padding)
                x = module(x).permute(2, 0, 1)
            else:
                x = module(x)
            if isinstance(module, neuron.BaseNode):
                integrates = module.v_threshold > 1e6
                value = (module.v_seq if integrates else x).numpy()
                padded = np.zeros((max(n_steps, len(value)), *value.shape[1:]))
                padded[: len(value)] = value
                result["readout" if integrates else f"layer{len(result) + 1}"] = padded
        return result


def lif(**options: Any) -> nn.Module:
    options.setdefault("surrogate_function", surrogate.ATan())
    return neuron.LIFNode(**options, step_mode="m")  # type: ignore[no-any-return]


def connection(n_in: int, n_out: int, bias: bool = True) -> nn.Module:
    made = layer.Linear(n_in, n_out, bias=bias, step_mode="m")
    with torch.no_grad():
        made.weight.normal_(0.15, 0.4)
    return made  # type: ignore[no-any-return]


NODES: dict[str, Any] = {
    "lif": lambda: lif(tau=1.7, decay_input=False),
    "lif decaying input": lambda: lif(tau=1.7, decay_input=True, v_threshold=0.4),
    "lif soft reset": lambda: lif(tau=2.3, decay_input=False, v_reset=None),
    "lif reset value": lambda: lif(tau=2.3, decay_input=False, v_reset=-0.3),
    "lif reset value, decaying": lambda: lif(tau=2.3, decay_input=True, v_reset=0.1, v_threshold=0.5),
    "plif": lambda: neuron.ParametricLIFNode(init_tau=1.9, decay_input=False, step_mode="m"),
    "plif decaying input": lambda: neuron.ParametricLIFNode(init_tau=1.9, v_threshold=0.4, step_mode="m"),
    "if": lambda: neuron.IFNode(v_threshold=2.0, step_mode="m"),
    "if soft reset": lambda: neuron.IFNode(v_threshold=2.0, v_reset=None, step_mode="m"),
    "if reset value": lambda: neuron.IFNode(v_threshold=2.0, v_reset=-0.5, step_mode="m"),
}


@pytest.mark.parametrize("kind", NODES)
def test_every_neuron_is_imported_with_equal_spikes(kind: str) -> None:
    torch.manual_seed(1)
    a, b, c = SIZES
    modules = nn.Sequential(
        connection(a, b),
        norm(b),
        NODES[kind](),
        layer.Dropout(0.3, step_mode="m"),
        connection(b, c, False),
        NODES[kind](),
    )
    network = from_spikingjelly(modules.double(), dt=DT)
    assert network.notes["tail_steps"] == 0
    assert network.readout is not None
    assert (network.readout.variable, network.readout.population) == ("spikes", "layer2")
    proof = prove(network, Judge(modules), n_samples=10, n_steps=60, mutate=False)
    assert proof.equal, proof.sentences()
    assert proof.compared >= MIN_NEURON_STEPS
    assert min(proof.spikes.values()) >= MIN_SPIKES
    assert "1 dropout layers" in "\n".join(network.notes["imported"])


def delay_paper(n_in: int, hidden: int, n_out: int, length: int, taps: int, tau: float = 1.005) -> nn.Sequential:
    """The delay paper's network, made of PyPI packages only, as it stands after training."""
    dcls = pytest.importorskip("DCLS.construct.modules")
    modules: list[nn.Module] = []
    for source, target, last in ((n_in, hidden, False), (hidden, hidden, False), (hidden, n_out, True)):
        made = dcls.Dcls1d(
            source, target, kernel_count=taps, groups=1, dilated_kernel_size=length, bias=False, version="gauss"
        )
        nn.init.kaiming_uniform_(made.weight, nonlinearity="relu")
        nn.init.uniform_(made.P, -length // 2, length // 2)
        made.clamp_parameters()
        modules.append(made)
        options = {
            "v_reset": 0.0,
            "decay_input": False,
            "surrogate_function": surrogate.ATan(5.0),
            "detach_reset": True,
        }
        if last:
            modules.append(lif(tau=tau, v_threshold=1e9, store_v_seq=True, **options))
        else:
            dropout = layer.Dropout(0.4, step_mode="m")
            modules += [norm(target), lif(tau=tau, v_threshold=1.0, **options), dropout]
    return nn.Sequential(*modules)


def in_evaluation(modules: nn.Sequential) -> nn.Sequential:
    """Do what the paper's code does before an evaluation: width 0, version max, positions rounded."""
    for module in modules:
        if type(module).__name__ == "Dcls1d":
            with torch.no_grad():
                module.SIG.zero_()
                module.P.round_()
                module.clamp_parameters()
            module.version = module.DCK.version = "max"
    return modules


@pytest.mark.parametrize("taps", [1, 2])
def test_delay_papers_model_has_equal_spikes_and_planted_errors_are_caught(taps: int) -> None:
    torch.manual_seed(0)
    length, n_steps = 25, 60
    modules = delay_paper(24, 64, 10, length, taps).double()
    network = from_spikingjelly(modules, dt=DT, n_steps=n_steps)
    tail = network.notes["tail_steps"]
    assert tail == 3 * (length - 1) // 2
    assert [item.stop_step for item in network.populations] == [n_steps + 12, n_steps + 24, None]
    assert [item.name for item in network.populations] == ["layer1", "layer2", "readout"]
    assert len(network.projections) == 3 * taps
    judge = Judge(in_evaluation(modules), tail, (length - 1, (length - 1) // 2))
    proof = prove(network, judge, n_samples=60)
    assert proof.holds, proof.sentences()
    assert proof.n_steps == n_steps + tail


def test_without_the_stop_steps_spikes_differ() -> None:
    torch.manual_seed(0)
    modules = delay_paper(24, 64, 10, 25, 1).double()
    network = from_spikingjelly(modules, dt=DT, n_steps=40)
    tail = network.notes["tail_steps"]
    running_on = tuple(Population(item.name, item.size, item.neuron) for item in network.populations)
    judge = Judge(in_evaluation(modules), tail, (24, 12))
    assert not prove(network.replace(populations=running_on), judge, n_samples=5, mutate=False).equal


@pytest.mark.slow
def test_delay_papers_model_at_full_size() -> None:
    torch.manual_seed(0)
    modules = delay_paper(140, 256, 20, 25, 1).double()
    network = from_spikingjelly(modules, dt=DT, n_steps=100)
    tail = network.notes["tail_steps"]
    proof = prove(network, Judge(in_evaluation(modules), tail, (24, 12)), n_samples=200)
    assert proof.holds, proof.sentences()


def test_weights_are_divided_as_the_kernel_is() -> None:
    modules = delay_paper(3, 4, 2, 5, 1).double()
    network = from_spikingjelly(modules, dt=DT, n_steps=10)
    weight = modules[7 + 1].weight.detach().numpy()[:, :, 0]
    assert np.array_equal(network.projections[2].weight, weight * (1 / (1 + 1e-7)))
    narrow = from_spikingjelly(modules, dt=DT, n_steps=10, peer_dtype="float32")
    factor = narrow.projections[2].weight / weight  # type: ignore[operator]
    np.testing.assert_allclose(factor, 0.9999999, rtol=0, atol=3e-8)
    assert not np.array_equal(narrow.projections[2].weight, network.projections[2].weight)


@pytest.mark.parametrize("padding", [(4, 0), (2, 2), (0, 4), (6, 1), (1, 1)])
def test_any_padding_is_imported(padding: tuple[int, int]) -> None:
    """Also such that a layer looks ahead (it starts later here) or shortens the sequence."""
    torch.manual_seed(2)
    modules = delay_paper(10, 24, 5, 5, 1).double()
    network = from_spikingjelly(modules, dt=DT, n_steps=30, padding=padding)
    modules = in_evaluation(modules)
    rng = np.random.default_rng(0)
    total = 30 + network.notes["tail_steps"]
    inputs = np.zeros((total, 4, 10))
    inputs[:30] = rng.random((30, 4, 10)) < 0.3
    theirs = Judge(modules, 0, padding).run(inputs[:30])
    from snnsim.engines import simulate
    from snnsim.events import Events, bin_events

    step, unit = zip(*(np.nonzero(inputs[:, i]) for i in range(4)), strict=True)
    events = Events.from_lists([item * DT for item in step], unit, 10, duration=total * DT)
    spikes = simulate(network, events, n_steps=total, threads=1).spikes
    for name in ("layer1", "layer2"):
        population = network.population(name)
        ours = np.asarray(bin_events(spikes[name], DT, total))[population.start_step : population.stop_step]
        their = theirs[name][: len(ours)]
        assert ours.sum() > 50
        assert np.array_equal(ours, their)


def test_pad_modules_containers_and_other_readouts() -> None:
    dcls = pytest.importorskip("DCLS.construct.modules")
    inner = dcls.Dcls1d(4, 6, kernel_count=1, dilated_kernel_size=7, bias=True, version="v0")
    body = nn.Sequential(nn.ConstantPad1d((6, 0), 0.0), inner, lif(tau=1.5, decay_input=False))
    model = nn.Module()
    model.model = nn.Sequential(body, connection(6, 3))
    network = from_spikingjelly(model, dt=DT)
    assert network.notes["tail_steps"] == 0
    assert all(item.stop_step is None for item in network.populations)
    assert isinstance(network.populations[1].neuron, LI)
    weight, bias = inner.weight.detach().double().numpy()[:, :, 0], inner.bias.detach().double().numpy()
    assert np.array_equal(network.projections[0].weight, weight)
    assert np.array_equal(network.population("layer1").neuron.step(6, DT).drive_step, bias)
    direct = from_spikingjelly(nn.Sequential(neuron.IFNode()), dt=DT, n_inputs=5)
    assert np.array_equal(direct.projections[0].weight, np.eye(5))
    silent = from_spikingjelly(nn.Sequential(connection(4, 2), neuron.NonSpikingLIFNode(tau=4.0)), dt=DT)
    assert silent.population("readout").neuron.step(2, DT).beta.tolist() == [0.75, 0.75]


def test_lattice_weights_are_reported() -> None:
    made = connection(4, 4, False)
    with torch.no_grad():
        made.weight.copy_((made.weight * 16).round() / 16)
    coarse = from_spikingjelly(nn.Sequential(made, lif(tau=1.5, decay_input=False)), dt=DT)
    assert any("lattice" in line for line in coarse.notes["imported"])
    dyadic = from_spikingjelly(nn.Sequential(made, lif(tau=2.0, decay_input=False)), dt=DT)
    assert not any("lattice" in line for line in dyadic.notes["imported"])


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ([nn.Conv1d(1, 1, 3)], r"0: Conv1d cannot be imported"),
        ([connection(3, 4), connection(4, 5)], "1: two connections without a neuron"),
        ([connection(3, 4), neuron.IFNode(), connection(5, 6)], "2: expects 5 inputs, the layer before it gives 4"),
        ([neuron.IFNode()], "pass n_inputs"),
        ([layer.BatchNorm1d(3)], "without a Linear or Dcls1d"),
        ([connection(3, 4), layer.BatchNorm1d(4, track_running_stats=False)], "without running statistics"),
        ([connection(3, 4), neuron.QIFNode()], "QIFNode cannot be imported"),
        ([connection(3, 4), neuron.IFNode(v_threshold=1e9, v_reset=0.5)], "integrator with v_reset"),
    ],
)
def test_what_cannot_be_imported_is_named(modules: list[nn.Module], message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_spikingjelly(nn.Sequential(*modules), dt=DT)


def test_bad_arguments_are_refused() -> None:
    model = nn.Sequential(connection(3, 4), neuron.IFNode())
    with pytest.raises(InputError, match="peer_dtype"):
        from_spikingjelly(model, dt=DT, peer_dtype="float16")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="padding: expected"):
        from_spikingjelly(model, dt=DT, padding=(-1, 0))
    with pytest.raises(InputError, match="expected 1 names"):
        from_spikingjelly(model, dt=DT, names=["a", "b"])
    with pytest.raises(InputError, match="n_steps: layers change the length"):
        from_spikingjelly(delay_paper(3, 4, 2, 5, 1), dt=DT)


def chain(first: Any = None, delay: float = 0.0) -> Network:
    rng = np.random.default_rng(0)
    return Network(
        populations=(
            Population("layer1", 20, first or LIF.from_step(dt=DT, beta=0.6, drive_step=rng.uniform(0, 0.1, 20))),
            Population("layer2", 15, IF(v_threshold=3.0, reset="subtract")),
            Population("readout", 4, LI.from_step(dt=DT, beta=0.8)),
        ),
        projections=(
            Projection("in", "layer1", rng.normal(0.2, 0.4, (20, 12)), delay),
            Projection("layer1", "layer2", rng.normal(0.2, 0.4, (15, 20))),
            Projection("layer2", "readout", rng.normal(0, 1, (4, 15))),
        ),
        inputs=(Input("in", 12),),
        readout=None,
        dt=DT,
    )


def test_networks_given_to_spikingjelly_have_equal_spikes_there_and_back() -> None:
    network = chain()
    modules = to_spikingjelly(network)
    proof = prove(network, Judge(modules), n_samples=10, n_steps=60)
    assert proof.equal, proof.sentences()
    assert all(item.caught for item in proof.mutations)
    back = from_spikingjelly(modules, dt=DT)
    assert prove(back, Judge(modules), n_samples=4, n_steps=60, mutate=False).equal


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (chain(delay=0.02), "'in->layer1' has delays; export to NIR"),
        (chain(LIF(t_ref=0.03)), "refractory steps have no place"),
        (chain(LIF.from_step(dt=DT, beta=np.linspace(0.1, 0.9, 20))), "needs uniform beta"),
        (chain(LIF(v_reset=-0.5)), "starts at v_reset = -0.5"),
    ],
)
def test_what_spikingjelly_cannot_hold_is_refused(network: Network, message: str) -> None:
    with pytest.raises(InputError, match=message):
        to_spikingjelly(network)
