"""Pair STDP equal to that of NEST's stdp_synapse and stdp_nn_symm_synapse: given trains, the weights at the end.

NEST's delay is dendritic: an arrival counts at its emission, a spike of the target one delay later. With spikes of the
target given, that is our rule without delay and with spikes one delay later. NEST pairs nothing at equal times and we
do, so the trains hold no such pair. NEST brings a weight up to date when something arrives, so every train ends with
one late event. In its nearest-neighbour synapse a spike before the first arrival pairs with an arrival at time 0 that
never was, so every train begins with an event before all spikes.
"""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from event_networks import run

from snnsim.events import Events
from snnsim.network import Input, Network, Population, Projection
from snnsim.neurons import LIF
from snnsim.plasticity import PairSTDP

pytestmark = pytest.mark.skipif(importlib.util.find_spec("nest") is None, reason="needs the extra 'nest'")

SCRIPT = """
import sys
import nest
import numpy as np

given = np.load(sys.argv[1])
nest.ResetKernel()
nest.resolution = 0.1
weights = []
post = nest.Create("parrot_neuron", params={"tau_minus": 34.0})
teacher = nest.Create("spike_generator", params={"spike_times": given["post"]})
nest.Connect(teacher, post, syn_spec={"delay": 1.0})
for k in range(int(given["n"])):
    pre = nest.Create("parrot_neuron")
    train = nest.Create("spike_generator", params={"spike_times": given[f"pre{k}"]})
    nest.Connect(train, pre, syn_spec={"delay": 1.0})
    nest.Connect(pre, post, syn_spec={
        "synapse_model": str(given["model"]), "receptor_type": 1, "delay": float(given["delay"]),
        "weight": float(given["weight"]), "Wmax": float(given["w_max"]), "tau_plus": 17.0,
        "lambda": float(given["lambda"]), "alpha": float(given["alpha"]),
        "mu_plus": float(given["mu"]), "mu_minus": float(given["mu"]),
    })
    weights.append(nest.GetConnections(pre, post))
nest.Simulate(float(given["duration"]))
np.save(sys.argv[2], np.array([item.weight for item in weights]))
"""


@pytest.mark.parametrize(
    ("model", "pairing", "bound"),
    [
        ("stdp_synapse", "all", "additive"),
        ("stdp_synapse", "all", "multiplicative"),
        ("stdp_nn_symm_synapse", "nearest", "additive"),
    ],
)
def test_weights_are_those_of_nest(model: str, pairing: Any, bound: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    n, slots, delay, w_max, weight = 20, 10_000, 1.2, 0.05, 0.02
    pre = [np.sort(rng.choice(np.arange(1, slots // 2), 40, replace=False)) * 2 for _ in range(n)]
    pre = [np.concatenate(([0], train, [2 * slots])) + 20 for train in pre]
    post = np.sort(rng.choice(slots // 2, 60, replace=False)) * 2 + 21
    size, ratio = 0.02, 1.1
    numbers = {"n": n, "delay": delay, "w_max": w_max, "weight": weight, "lambda": size, "alpha": ratio}
    trains = {f"pre{k}": train * 0.1 for k, train in enumerate(pre)} | {"post": post * 0.1}
    np.savez(
        tmp_path / "given.npz",
        **{"model": model, "mu": float(bound == "multiplicative"), "duration": slots * 0.2 + 20, **numbers, **trains},  # type: ignore[arg-type]
    )
    made = tmp_path / "made.npy"
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(tmp_path / "given.npz"), str(made)]
    subprocess.run(command, check=True, capture_output=True)
    wanted = np.load(made)

    unit = w_max if bound == "additive" else 1.0
    rule = PairSTDP(
        *("in->n",),
        **{"a_plus": size * unit, "a_minus": size * ratio * unit, "w_max": w_max, "bound": bound, "pairing": pairing},
        **{"tau_plus": 0.017, "tau_minus": 0.034},
    )
    network = Network(
        (Population("n", 1, LIF(tau_mem=0.001)),),
        (Projection("in", "n", np.full((1, n), weight)), Projection("teacher", "n", np.full((1, 1), 4.0))),
        (Input("in", n), Input("teacher", 1)),
        None,
        1e-3,
    )
    units = np.repeat(np.arange(n), [len(train) for train in pre])
    late = np.rint(post + delay * 10)
    events = {
        "in": Events.from_lists([np.concatenate(pre) * 1e-4], [units], n, duration=2.1, sort=True),
        "teacher": Events.from_lists([late * 1e-4], [np.zeros(len(post), int)], 1, duration=2.1),
    }
    result = run(network, events, 2100, plasticity=rule)
    assert result.spikes["n"].n_events == len(post)
    found = result.weights["in->n"][0][0]
    assert np.abs(found - weight).min() > 1e-5
    np.testing.assert_allclose(found, wanted, rtol=1e-10)
