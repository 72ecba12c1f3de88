"""e-prop: exact without recurrent weights, and near the direction of the gradient with them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from online_models import (
    CLASSES,
    DT,
    INPUTS,
    KINDS,
    LABELS,
    MASK,
    cosine,
    difference,
    found,
    looped,
    model,
    neurons,
    spikes,
)

from snnsim.errors import InputError
from snnsim.learning import BPTT, RTRL, EProp, Loss, eprop
from snnsim.learning.eprop import feedback_weights
from snnsim.nn.context import Context
from snnsim.nn.neurons import LI, CubaLI
from snnsim.nn.recurrent import Recurrent
from snnsim.nn.surrogates import ATan

TWO = EProp(two_pass=True)
INPUT, LOOP, OUTPUT = "blocks.0.connection.weight", "blocks.0.neuron.recurrent_weight", "readout.connection.weight"


@pytest.mark.parametrize("delay", [1, 3])
@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("kind", KINDS)
def test_exact_without_recurrent_weights(kind: str, reset: str, delay: int) -> None:
    for learn, detach, mask in ((False, True, None), (True, False, MASK)):
        neuron = neurons(kind, 6, learn=learn, reset=reset, detach_reset=detach)
        readout = CubaLI(CLASSES, dt=DT) if kind == "cuba" else None
        network = model(Recurrent(neuron, torch.zeros(6, 6), delay_steps=delay), bias=learn, readout=readout)
        _, wanted = found(BPTT(), network, spikes(), context=Context(mask))
        _, got = found(TWO, network, spikes(), context=Context(mask))
        assert set(got) == set(wanted)
        for name, value in wanted.items():
            assert float(value.norm()) > 1e-6
            assert difference(value, got[name]) < 1e-10, name


@pytest.mark.parametrize("kind", KINDS)
def test_between_zero_and_one_with_recurrent_weights(kind: str) -> None:
    network = model(looped(neurons(kind, 16, surrogate=ATan(2.0)), scale=0.1, diagonal=False))
    outcome, got = found(TWO, network, spikes())
    _, wanted = found(BPTT(), network, spikes())
    assert float(outcome.rates[0]) > 0.02
    for name in (INPUT, LOOP):
        assert 0.2 < cosine(wanted[name], got[name]) < 0.999
    assert difference(wanted[OUTPUT], got[OUTPUT]) < 1e-12


def test_the_paths_between_neurons_alone_are_left_out() -> None:
    """A unit's synapse onto itself is a path within the neuron that RTRL keeps and e-prop leaves out."""
    network = model(looped(neurons("lif", 8)))
    _, kept = found(RTRL(two_pass=True), network, spikes())
    _, left = found(TWO, network, spikes())
    assert difference(kept[INPUT], left[INPUT]) > 1e-2
    with torch.no_grad():
        network.get_parameter(LOOP).zero_()
    _, kept = found(RTRL(two_pass=True), network, spikes())
    _, left = found(TWO, network, spikes())
    assert difference(kept[INPUT], left[INPUT]) < 1e-14
    assert difference(kept[LOOP].diagonal(), left[LOOP].diagonal()) < 1e-12


def test_random_feedback_takes_the_place_of_the_weights_of_the_readout(monkeypatch: pytest.MonkeyPatch) -> None:
    network = model(neurons("lif", 8))
    rule = EProp(two_pass=True, feedback="random")
    seeds = [found(rule, network, spikes(), context=Context(seed=seed))[1] for seed in (3, 3, 4)]
    assert torch.equal(seeds[0][INPUT], seeds[1][INPUT])
    assert difference(seeds[0][INPUT], seeds[2][INPUT]) > 0.1
    _, symmetric = found(TWO, network, spikes())
    assert torch.equal(seeds[0][OUTPUT], symmetric[OUTPUT])
    assert difference(seeds[0][INPUT], symmetric[INPUT]) > 0.1
    weight = network.readout.connection.weight.detach()
    monkeypatch.setattr(eprop, "feedback_weights", lambda *_: weight.t().clone())
    assert difference(found(rule, network, spikes())[1][INPUT], symmetric[INPUT]) < 1e-14


def test_random_feedback_reaches_every_layer() -> None:
    network = model(neurons("cuba", 8), neurons("cuba", 8, v_threshold=0.2), readout=CubaLI(CLASSES, dt=DT))
    _, got = found(EProp(two_pass=True, feedback="random"), network, spikes())
    assert float(got["blocks.0.connection.weight"].norm()) > 1e-4
    with pytest.raises(InputError, match=r"symmetric feedback: layer 1: .*got CubaLIF"):
        found(TWO, network, spikes())


def test_feedback_weights_have_the_spread_of_a_readout() -> None:
    weights = feedback_weights(1, 0, 200, 50, 24)
    assert weights.shape == (200, 50)
    assert float(weights.abs().max()) < 0.5
    assert float(weights.abs().max()) > 0.495
    assert abs(float(weights.mean())) < 0.01
    assert difference(weights, feedback_weights(1, 1, 200, 50, 24)) > 1
    assert torch.equal(weights[:7, :9], feedback_weights(1, 0, 7, 9, 24))


def test_memory_of_adaptive_neurons_is_one_trace_a_synapse() -> None:
    bytes_of: dict[str, float] = {}
    for kind in ("lif", "alif"):
        network = model(looped(neurons(kind, 6, reset="subtract"), diagonal=False))
        outcome, _ = found(TWO, network, spikes())
        bytes_of[kind] = outcome.facts["trace_bytes"] - 8 * 4 * 6
    synapses = 4 * 6 * (INPUTS + 6)
    assert bytes_of["alif"] == 8 * 3 * synapses
    assert bytes_of["lif"] == 8 * (synapses + 4 * (INPUTS + 6))


def test_refusals() -> None:
    with pytest.raises(InputError, match="feedback: expected 'symmetric' or 'random', got 'both'"):
        EProp(feedback="both")  # type: ignore[arg-type]
    unequal: Any = LI(CLASSES, dt=DT, tau_mem=[0.01, 0.02, 0.03])
    for rule in (TWO, RTRL(two_pass=True)):
        with pytest.raises(InputError, match="expected a readout whose units share one beta, got 3 values"):
            found(rule, model(neurons("lif", 6), readout=unequal), spikes())
    with pytest.raises(InputError, match=r"couples the steps.*two_pass = true.*'per_step'"):
        found(EProp(), model(neurons("lif", 6)), spikes(), Loss(LABELS))
