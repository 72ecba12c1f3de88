"""Networks given to snnTorch: equal spikes, in its own modules, and refusals by name."""

from typing import Any

import numpy as np
import pytest
import torch

from snnsim.errors import InputError
from snnsim.export.proof import MIN_NEURON_STEPS, MIN_SPIKES, prove
from snnsim.network import Input, Network, Population, Projection
from snnsim.neurons import IF, LI, LIF, AdaptiveLIF, CubaLI, CubaLIF, Neuron

pytest.importorskip("snntorch")

from snnsim.nn.snntorch import SnnTorchChain, to_snntorch

DT = 1e-3
SIZES = (24, 48, 40, 6)


class Judge:
    """A snnTorch model."""

    name = "snnTorch"

    def __init__(self, model: SnnTorchChain) -> None:
        self.model, self.latency = model, model.latency

    @torch.no_grad()
    def run(self, inputs: Any) -> dict[str, Any]:
        return {name: value.numpy() for name, value in self.model(torch.from_numpy(inputs)).items()}


def chain(records: list[Neuron], starts: tuple[int, ...] = (0, 0, 0), scale: float = 1.0, **projection: Any) -> Network:
    rng = np.random.default_rng(0)
    names = ("in", "first", "second", "out")[: len(records) + 1]
    populations = [
        Population(name, size, record, start_step=start)
        for name, size, record, start in zip(names[1:], SIZES[1:], records, starts, strict=False)
    ]
    projections = []
    for source, target, n, m in zip(names, names[1:], SIZES, SIZES[1:], strict=False):
        weight = rng.normal(0.1 * scale, 0.4 * scale, (m, n))
        projections.append(Projection(source, target, weight, **projection))
    inputs = (Input("in", SIZES[0]),)
    return Network(tuple(populations), tuple(projections), inputs, readout=None, dt=DT)


def delta(reset: Any = "zero", strict: bool = False) -> Network:
    rng = np.random.default_rng(1)
    beta, threshold = rng.uniform(0.5, 0.95, SIZES[1]), rng.uniform(0.8, 1.3, SIZES[1])
    options: dict[str, Any] = {"reset": reset, "strict": strict, "v_threshold": threshold}
    if reset == "subtract":
        options["reset_amount"] = threshold / beta
    first = LIF.from_step(dt=DT, beta=beta, drive_step=rng.normal(0.02, 0.05, SIZES[1]), **options)
    return chain([first, IF(v_threshold=3.0, drive=20.0, reset=reset), LI.from_step(dt=DT, beta=0.9, drive_step=0.1)])


def current() -> Network:
    rng = np.random.default_rng(1)
    decays = {"beta": rng.uniform(0.5, 0.95, SIZES[1]), "alpha": rng.uniform(0.3, 0.8, SIZES[1])}
    first = CubaLIF.from_step(dt=DT, **decays, drive_syn_step=rng.normal(0.02, 0.1, SIZES[1]))
    second = CubaLIF.from_step(dt=DT, beta=0.8, alpha=0.6, drive_syn_step=0.05, reset="subtract", reset_amount=1.25)
    return chain([first, second, CubaLI.from_step(dt=DT, beta=0.9, alpha=0.5)], (0, 1, 0), 3.0)


NETWORKS = {
    "zero": delta,
    "subtract": lambda: delta("subtract"),
    "strict": lambda: delta(strict=True),
    "current": current,
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_networks_given_to_snntorch_have_equal_spikes_and_planted_errors_are_caught(kind: str) -> None:
    network = NETWORKS[kind]()
    model = to_snntorch(network)
    assert sum(model.latency.values()) == (6 if kind == "current" else 0)
    proof = prove(network, Judge(model), n_samples=220, n_steps=60)
    assert proof.equal, proof.sentences()
    assert proof.compared >= MIN_NEURON_STEPS
    assert min(proof.spikes.values()) >= MIN_SPIKES
    assert len(proof.mutations) == 3
    assert all(item.caught for item in proof.mutations)


def test_a_membrane_exactly_at_the_threshold_fires_as_here() -> None:
    network = Network(
        (Population("cells", 1, LIF.from_step(dt=DT, beta=0.5)),),
        (Projection("in", "cells", np.ones((1, 1))),),
        (Input("in", 1),),
        readout=None,
        dt=DT,
    )
    ones = torch.ones(3, 1, 1, dtype=torch.float64)
    assert to_snntorch(network)(ones)["cells"].flatten().tolist() == [1, 1, 1]
    above = network.replace(populations=(Population("cells", 1, LIF.from_step(dt=DT, beta=0.5, strict=True)),))
    assert to_snntorch(above)(ones)["cells"].flatten().tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (chain([LIF()], delay=0.002), r"'in->first' has delays"),
        (chain([LIF(t_ref=0.003)]), "'first': stop and refractory steps"),
        (chain([LIF(v_reset=-0.5)]), "resets to 0, this population to v_reset = -0.5"),
        (chain([LIF(reset="subtract")]), "'first': snnTorch takes the threshold off in the next step"),
        (chain([AdaptiveLIF()]), "'first': AdaptiveLIF cannot be given"),
        (chain([CubaLIF(drive=1.0)]), "no drive on its membrane"),
        (chain([LIF(drive=1.0)], (2,)), "'first': starts at step 2, in snnTorch it would be step 0"),
    ],
)
def test_what_snntorch_cannot_hold_is_refused(network: Network, message: str) -> None:
    with pytest.raises(InputError, match=message):
        to_snntorch(network)


def test_only_chains_are_given() -> None:
    network = chain([LIF(), LIF()])
    skip = Projection("in", "second", np.ones((SIZES[2], SIZES[0])))
    with pytest.raises(InputError, match="expected one projection, from 'first'"):
        to_snntorch(network.replace(projections=(*network.projections, skip)))
