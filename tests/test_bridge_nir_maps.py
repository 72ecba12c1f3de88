"""Convolutions, pools and other nodes of NIR files, unrolled, beside torch; and the large proofs of NIR."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from snnsim.engines import simulate
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.export import nir_maps, prove_export
from snnsim.export.nir import build_nir, write_nir
from snnsim.export.nir_graph import Graph, write_graph
from snnsim.export.nir_maps import convolution, flattened, pool
from snnsim.export.nir_read import read_nir
from snnsim.export.proof import prove
from snnsim.network import Input, Network, Population, Projection, Readout
from snnsim.neurons import LI, LIF

DT = 1e-3


@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        ((3, 3), {}),
        ((3, 2), {"stride": (2, 1), "padding": (1, 0)}),
        ((2, 3), {"dilation": (2, 2), "padding": (2, 1)}),
        ((3, 3), {"groups": 2, "padding": (1, 1)}),
        ((4, 3), {"padding": "same"}),
        ((3, 3), {"padding": "valid"}),
        ((3,), {"stride": (2,), "padding": (2,)}),
    ],
)
def test_convolutions_are_those_of_torch(kernel: tuple[int, ...], options: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    groups = options.get("groups", 1)
    shape = (4, 7, 6)[: len(kernel) + 1]
    weight = rng.normal(size=(6, 4 // groups, *kernel))
    ones = (1,) * len(kernel)
    settings = {"stride": ones, "padding": (0,) * len(kernel), "dilation": ones, "groups": 1} | options
    matrix, out = convolution(weight, shape, **settings)
    x = rng.normal(size=shape)
    function = nn.functional.conv2d if len(kernel) == 2 else nn.functional.conv1d
    if options.get("padding") == "same":
        with pytest.warns(UserWarning, match="padding='same'"):
            theirs = function(torch.from_numpy(x)[None], torch.from_numpy(weight), **options)[0].numpy()
    else:
        theirs = function(torch.from_numpy(x)[None], torch.from_numpy(weight), **options)[0].numpy()
    assert out == theirs.shape
    np.testing.assert_allclose(matrix.apply(x.reshape(-1)), theirs.reshape(-1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("average", [False, True])
def test_pools_are_those_of_torch(average: bool) -> None:
    x = np.random.default_rng(0).normal(size=(3, 7, 6))
    matrix, out = pool(x.shape, kernel=(3, 2), stride=(2, 2), padding=(1, 1), average=average)
    theirs = nn.functional.avg_pool2d(torch.from_numpy(x), (3, 2), (2, 2), (1, 1)).numpy() * (1 if average else 6)
    assert out == theirs.shape
    np.testing.assert_allclose(matrix.apply(x.reshape(-1)), theirs.reshape(-1), rtol=0, atol=1e-12)


def test_flattened_shapes() -> None:
    assert flattened((2, 3, 4), 0, -1) == (24,)
    assert flattened((2, 3, 4), 1, 2) == (2, 12)
    assert flattened((6,), 1, -1) == (6,)


def test_impossible_maps_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = np.ones((2, 3, 3, 3))
    plain: dict[str, Any] = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    for shape, changes, message in (
        ((4, 5, 5), {}, "does not fit an input of shape"),
        ((3, 5), {}, "does not fit an input of shape"),
        ((3, 2, 5), {}, "larger than its input"),
        ((3, 5, 5), {"stride": (0, 1)}, "stride and dilation: expected positive"),
        ((3, 5, 5), {"padding": (-1, 0)}, "padding: expected no negative"),
        ((3, 5, 5), {"padding": "full"}, "padding: expected numbers"),
        ((3, 5, 5), {"groups": 2}, "2 groups does not fit"),
    ):
        with pytest.raises(InputError, match=message):
            convolution(weight, shape, **(plain | changes))
    with pytest.raises(InputError, match="does not fit an input of shape"):
        pool((4,), kernel=(2, 2), stride=(2, 2), padding=(0, 0), average=True)
    monkeypatch.setattr(nir_maps, "MAX_UNROLLED", 100)
    with pytest.raises(InputError, match="this one would have 486, the limit is 100"):
        convolution(weight, (3, 5, 5), **plain)


def conv_model(path: Path) -> Any:
    """A SpikingJelly model with maps, exported by SpikingJelly."""
    pytest.importorskip("nir")
    pytest.importorskip("spikingjelly")
    from spikingjelly.activation_based import neuron
    from spikingjelly.activation_based.nir_exchange import export_to_nir

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 5, 3, stride=2, padding=1),
        neuron.LIFNode(tau=2.3, decay_input=False),
        nn.AvgPool2d(2),
        nn.Conv2d(5, 8, 3, padding=1),
        neuron.IFNode(v_threshold=1.5),
        nn.Flatten(),
        nn.Linear(8 * 3 * 3, 12),
        neuron.LIFNode(tau=1.7, decay_input=False),
    ).double()
    with torch.no_grad():
        for part, scale in ((model[0], 0.4), (model[3], 0.4), (model[6], 0.4)):
            part.weight.normal_(0.1, scale)
            part.bias.normal_(0.02, 0.03)
    export_to_nir(model, torch.zeros(1, 2, 12, 12, dtype=torch.float64), path, dt=DT)
    return model


class MapJudge:
    name = "SpikingJelly"

    def __init__(self, model: Any, labels: list[str]) -> None:
        self.model, self.labels, self.latency = model, labels, dict[str, int]()

    @torch.no_grad()
    def run(self, inputs: Any) -> dict[str, Any]:
        from spikingjelly.activation_based import functional

        functional.reset_net(self.model)
        found: list[list[Any]] = []
        for x in torch.from_numpy(inputs):
            value, step = x.reshape(-1, 2, 12, 12), []
            for part in self.model:
                value = part(value)
                if hasattr(part, "v_threshold"):
                    step.append(value.reshape(len(value), -1).numpy())
            found.append(step)
        return {label: np.stack([step[i] for step in found]) for i, label in enumerate(self.labels)}


@pytest.mark.parametrize("samples", [6, pytest.param(None, marks=pytest.mark.slow)])
def test_a_convolutional_file_of_spikingjelly_has_its_spikes(samples: int | None, tmp_path: Path) -> None:
    model = conv_model(tmp_path / "f.nir")
    network = read_nir(tmp_path / "f.nir", DT, convention="spikingjelly")
    assert [item.size for item in network.populations] == [5 * 36, 8 * 9, 12]
    judge = MapJudge(model, [item.name for item in network.populations])
    events = None
    if samples:
        rng = np.random.default_rng(0)
        times = [np.sort(rng.integers(0, 40, 1500)) * DT for _ in range(samples)]
        events = Events.from_lists(times, [rng.integers(0, 288, 1500) for _ in times], 288, duration=40 * DT)
    proof = prove(network, judge, events=events, n_samples=10, n_steps=40)
    assert proof.equal, proof.sentences()
    assert min(proof.spikes.values()) > 500
    assert proof.enough or samples, proof.sentences()
    assert all(item.caught for item in proof.mutations)


def nodes(*chain: tuple[str, dict[str, Any]], shape: tuple[int, ...]) -> Graph:
    graph = Graph()
    names = [graph.add("in", "Input", shape=np.array(shape))]
    names += [graph.add("node", kind, **values) for kind, values in chain]
    graph.connect(*names)
    return graph


def spikes(graph: Graph, path: Path, dense: Any, **options: Any) -> Any:
    write_graph(path, graph)
    network = read_nir(path, DT, **options)
    step, unit = np.nonzero(dense)
    result = simulate(network, Events.from_lists([step * DT], [unit], dense.shape[1], duration=len(dense) * DT))
    found = result.spikes[network.populations[-1].name]
    return [(round(time / DT), int(unit)) for time, unit in zip(found.times, found.units, strict=True)]


def test_thresholds_and_integrators_without_leak_are_read(tmp_path: Path) -> None:
    dense = np.array([[1, 0], [1, 1], [0, 0], [1, 1]])
    graph = nodes(
        ("Scale", {"scale": np.array([0.5, 2.0])}), ("Threshold", {"threshold": np.array([0.5, 1.0])}), shape=(2,)
    )
    assert spikes(graph, tmp_path / "f.nir", dense) == [(1, 1), (3, 1)]  # above it, not at it
    integrator = ("LI", {"tau": np.full(2, 2e-3), "r": np.full(2, 2.0), "v_leak": np.zeros(2)})
    graph = nodes(integrator, ("Threshold", {"threshold": np.array([1.2, 0.9])}), shape=(2,))
    # v = v / 2 + x, never reset
    assert spikes(graph, tmp_path / "f.nir", dense) == [(1, 0), (1, 1), (3, 0), (3, 1)]
    write_graph(tmp_path / "f.nir", nodes(("I", {"r": np.full(2, 1 / DT)}), shape=(2,)))
    network = read_nir(tmp_path / "f.nir", DT)
    assert network.populations[0].neuron.step(2, DT).beta.tolist() == [1.0, 1.0]


def test_an_integrator_without_leak_is_written_as_i(tmp_path: Path) -> None:
    network = Network(
        (Population("cells", 3, LI.from_step(dt=DT, beta=1.0, drive_step=0.5)),),
        (Projection("in", "cells", np.ones((3, 2))),),
        (Input("in", 2),),
        readout=Readout("cells", "v", "last"),
        dt=DT,
    )
    graph, _, _ = build_nir(network)
    assert graph.nodes["cells"].kind == "I"
    write_nir(network, tmp_path / "f.nir")
    back = read_nir(tmp_path / "f.nir")
    assert back.populations[0].neuron.step(3, DT).beta.tolist() == [1.0] * 3
    assert np.array_equal(back.populations[0].neuron.step(3, DT).drive_step, np.full(3, 0.5))


def test_shapes_that_do_not_fit_name_the_node(tmp_path: Path) -> None:
    weight = {"weight": np.ones((2, 3, 3, 3)), "bias": np.zeros(2), "stride": np.array([1, 1]), "groups": np.array(1)}
    graph = nodes(
        ("Conv2d", weight), ("IF", {"r": np.ones((2, 3, 3)), "v_threshold": np.ones((2, 3, 3))}), shape=(3, 6, 5)
    )
    write_graph(tmp_path / "f.nir", graph)
    with pytest.raises(InputError, match=r"node 'node_2': takes 18 values, but 'node' gives 24"):
        read_nir(tmp_path / "f.nir", DT)
    graph = nodes(("Conv2d", weight), ("IF", {"r": np.ones(24), "v_threshold": np.ones(24)}), shape=(2, 6, 5))
    write_graph(tmp_path / "f.nir", graph)
    with pytest.raises(InputError, match=r"node 'node': a convolution with weights \(2, 3, 3, 3\)"):
        read_nir(tmp_path / "f.nir", DT)


# -- the large proof -----------------------------------------------------------------------------------


def large(hidden: int) -> Network:
    """Delays of single synapses, two hidden layers, the second recurrent, and a readout."""
    rng = np.random.default_rng(11)

    def weights(target: int, source: int, scale: float = 1.0) -> Any:
        return rng.normal(0.3, 1.0, (target, source)) * scale / np.sqrt(source)

    def delays(target: int, source: int, least: int = 0) -> Any:
        return rng.integers(least, 26, (target, source)) * DT

    first, second = (
        LIF.from_step(dt=DT, beta=0.85, drive_step=rng.normal(0.02, 0.02, hidden)),
        LIF.from_step(dt=DT, beta=rng.uniform(0.6, 0.95, hidden), drive_step=rng.normal(0.02, 0.02, hidden)),
    )
    populations = (
        Population("first", hidden, first),
        Population("second", hidden, second),
        Population("readout", 20, LI.from_step(dt=DT, beta=0.95)),
    )
    projections = (
        Projection("sound", "first", weights(hidden, 70), delays(hidden, 70)),
        Projection("first", "second", weights(hidden, hidden), delays(hidden, hidden)),
        Projection("second", "second", weights(hidden, hidden, 0.5), delays(hidden, hidden, 1)),
        Projection("second", "readout", weights(20, hidden), delays(20, hidden)),
    )
    inputs = (Input("sound", 70),)
    return Network(populations, projections, inputs, readout=Readout("readout", "v", "sum_softmax"), dt=DT)


@pytest.mark.parametrize("form", ["line", "branch"])
@pytest.mark.slow
def test_synapse_delays_two_hidden_layers_and_recurrence_on_200_samples(form: str, tmp_path: Path) -> None:
    pytest.importorskip("nirtorch")
    pytest.importorskip("spikingjelly")
    network, options = large(64), {"form": form}
    write_nir(network, tmp_path / "n.nir", **options)
    proof = prove_export(network, "nir", tmp_path / "n.nir", options=options, n_samples=200, n_steps=100)
    print(*proof.sentences(), sep="\n")
    assert proof.holds, proof.sentences()
    assert proof.mismatches == 0
    assert proof.n_samples >= 200
