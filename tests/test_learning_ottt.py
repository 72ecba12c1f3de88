"""OTTT: its gradient is that of a graph in which inputs are traces and nothing else is carried through time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from online_models import (
    BATCH,
    CLASSES,
    DT,
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
from torch import Tensor

from snnsim.errors import InputError
from snnsim.learning import BPTT, OTTT, RTRL, Loss
from snnsim.learning.losses import step_losses
from snnsim.nn.context import Context
from snnsim.nn.neurons import IF, LI, LIF, CubaLI
from snnsim.nn.surrogates import spike


def through(trace: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """The current of ``x``, whose gradient by the weights is that of the trace and by ``x`` its own."""
    by_weight = trace.detach() @ weight.t()
    return by_weight - by_weight.detach() + x @ weight.detach().t()


def by_definition(network: Any, x: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    """Gradients of the mean step loss through one graph a step, all membranes detached."""
    network.zero_grad(set_to_none=True)
    loss = Loss(LABELS, "per_step")
    layers = [*network.blocks, network.readout]
    size = [layer.neuron.size for layer in layers]
    v = [torch.zeros(BATCH, n).double() for n in size]
    traces = [torch.zeros(BATCH, layer.connection.n_in).double() for layer in layers]
    count = torch.full((BATCH,), float(len(x))) if mask is None else mask.sum(0).double()
    for t, sent in enumerate(x):
        for k, layer in enumerate(layers):
            neuron = layer.neuron
            beta = neuron.beta().reshape(-1)
            if beta.numel() > 1:  # one trace a unit: shape (unit, batch, source)
                traces[k] = beta[:, None, None] * traces[k] + sent.detach()
                by_weight = torch.einsum("ubi,ui->bu", traces[k], layer.connection.weight)
                current = by_weight - by_weight.detach() + sent @ layer.connection.weight.detach().t()
            else:
                traces[k] = beta * traces[k] + sent.detach()
                current = through(traces[k], sent, layer.connection.weight)
            h = beta * v[k] + current
            if k + 1 == len(layers):
                v[k], sent = h.detach(), h
                continue
            sent = spike(h - neuron.threshold(), neuron.surrogate)
            fired, at = sent.detach(), h.detach()
            v[k] = at * (1 - fired) if neuron.reset == "zero" else at - fired * neuron.threshold()
        valid = torch.ones(BATCH) if mask is None else mask[t]
        ((step_losses(sent.unsqueeze(0), LABELS, loss)[0] * valid / count).sum() / BATCH).backward()
    return {name: p.grad.clone() for name, p in network.named_parameters()}


@pytest.mark.parametrize("masked", [False, True], ids=["full", "masked"])
@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_gradient_is_its_definition(reset: str, masked: bool) -> None:
    mask = MASK if masked else None
    unequal = torch.linspace(0.5, 0.95, 8).tolist()
    for first in (neurons("lif", 8, reset=reset), LIF(8, dt=DT, beta=unequal, reset=reset), IF(8, dt=DT, reset=reset)):
        network = model(first, LIF(6, dt=DT, beta=0.8, v_threshold=0.5, reset=reset, detach_reset=False))
        outcome, got = found(OTTT(), network, spikes(), Loss(LABELS, "per_step"), Context(mask))
        wanted = by_definition(network, spikes(), mask)
        assert set(got) == set(wanted)
        for name, value in wanted.items():
            assert float(value.norm()) > 1e-4
            assert difference(value, got[name]) < 1e-12, name
        assert float(outcome.rates.min()) > 0.01
        exact, of_bptt = found(BPTT(), network, spikes(), Loss(LABELS, "per_step"), Context(mask))
        torch.testing.assert_close(exact.losses, outcome.losses, rtol=1e-12, atol=1e-12)
        end = "readout.connection.weight"
        assert difference(of_bptt[end], got[end]) < 1e-12
        there = "blocks.0.connection.weight"
        assert 0.3 < cosine(of_bptt[there], got[there]) < 0.9999


def test_two_passes_give_the_gradient_of_coupled_scores() -> None:
    """Where scores are the mean of potentials, errors of single steps are known: they are the same at every step."""
    network = model(neurons("lif", 8), reduce="mean")
    _, got = found(OTTT(two_pass=True), network, spikes())
    outcome, exact = found(RTRL(two_pass=True), network, spikes())
    end, there = "readout.connection.weight", "blocks.0.connection.weight"
    assert difference(exact[end], got[end]) < 1e-12
    assert 0.3 < cosine(exact[there], got[there]) < 0.9999
    assert outcome.facts["passes"] == 2


def test_it_is_rtrl_where_a_reset_carries_nothing_and_the_readout_has_no_memory() -> None:
    network = model(neurons("lif", 8, reset="subtract"), readout=LI(CLASSES, dt=DT, beta=0.0))
    _, got = found(OTTT(), network, spikes(), Loss(LABELS, "per_step"))
    _, exact = found(RTRL(), network, spikes(), Loss(LABELS, "per_step"))
    for name, value in exact.items():
        assert torch.equal(value, got[name])


@pytest.mark.parametrize(
    ("hidden", "readout", "match"),
    [
        (looped(neurons("lif", 6)), None, "layer 0: expected no recurrent connection.*'e-prop'"),
        (neurons("alif", 6), None, "expected LIF or IF neurons, got AdaptiveLIF.*'rtrl'"),
        (neurons("lif", 6, learn=True), None, "expected fixed neuron parameters.*learn = \\[\\]"),
        (neurons("lif", 6), CubaLI(CLASSES, dt=DT), "expected a readout of LI neurons.*neuron = 'li'"),
    ],
)
def test_refusals(hidden: Any, readout: Any, match: str) -> None:
    with pytest.raises(InputError, match=match):
        found(OTTT(two_pass=True), model(hidden, readout=readout), spikes())
