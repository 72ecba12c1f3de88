"""RTRL: the gradients of backpropagation through time, found forward in time, and where they are not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from online_models import (
    BATCH,
    CLASSES,
    DT,
    INPUTS,
    KINDS,
    LABELS,
    MASK,
    STEPS,
    cosine,
    difference,
    found,
    looped,
    model,
    neurons,
    source,
    spikes,
)

from snnsim.learning import BPTT, RTRL, Loss
from snnsim.learning import step as stepping
from snnsim.nn.context import Context
from snnsim.nn.delays import Linear
from snnsim.nn.dropout import SequenceDropout
from snnsim.nn.model import Block, SpikingModel
from snnsim.nn.neurons import IF, LI, LIF, CubaLI
from snnsim.recipes.schema import RateSpec

TOLERANCE = 1e-10
TWO = RTRL(two_pass=True)


def compare(network: Any, x: Any = None, loss: Any = None, context: Any = None, rule: Any = TWO) -> dict[str, float]:
    """Relative differences to BPTT by parameter; of recurrent weights on the diagonal, elsewhere there is nothing."""
    given = spikes() if x is None else x
    exact, wanted = found(BPTT(), network, given, loss, context)
    outcome, got = found(rule, network, given, loss, context)
    torch.testing.assert_close(outcome.losses, exact.losses, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(outcome.logits, exact.logits, rtol=1e-12, atol=1e-12)
    assert torch.equal(outcome.rates, exact.rates)
    assert float(exact.rates.min()) > 0.005
    assert set(got) == set(wanted)
    differences = {}
    for name, value in wanted.items():
        here = got[name]
        if "recurrent_weight" in name:
            assert torch.equal(here, here.diagonal().diag())
            value, here = value.diagonal(), here.diagonal()
        assert float(value.norm()) > 1e-6
        differences[name] = difference(value, here)
    return differences


@pytest.mark.parametrize("loop", [False, True], ids=["", "with V"])
@pytest.mark.parametrize("detach", [True, False], ids=["detached", "full"])
@pytest.mark.parametrize("reset", ["zero", "subtract"])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_backpropagation_through_time(kind: str, reset: str, detach: bool, loop: bool) -> None:
    readout = CubaLI(CLASSES, dt=DT, tau_mem=0.01) if kind == "cuba" else None
    for t_ref, learn in ((0.0, False), (0.0 if loop else 0.002, True)):  # a refractory neuron does not hear itself
        neuron = neurons(kind, 6, learn=learn, reset=reset, detach_reset=detach, t_ref=t_ref)
        network = model(looped(neuron) if loop else neuron, readout=readout, bias=learn)
        assert max(compare(network).values()) < TOLERANCE


@pytest.mark.parametrize("kind", ["lif", "alif"])
def test_unequal_neurons_masks_dropout_and_learned_readouts(kind: str) -> None:
    values = torch.linspace(0.004, 0.03, 6).tolist()
    neuron = neurons(kind, 6, learn=True, tau_mem=values, v_threshold=[0.8, 0.9, 1.0, 1.1, 0.7, 1.0])
    readout = LI(CLASSES, dt=DT, tau_mem=0.02, learn=("tau_mem",))
    block = Block(Linear(INPUTS, 6, bias=True, generator=source(3)), neuron, dropout=SequenceDropout(0.3))
    network = model(block, readout=readout)
    context = Context(MASK, torch.tensor([5, 3, 9, 2]), 7, 1)
    dropped = model(block, readout=readout)
    assert max(compare(network, context=context).values()) < TOLERANCE
    other = Context(None, torch.tensor([50, 30, 90, 20]), 7, 1)
    assert max(compare(dropped, context=other).values()) < TOLERANCE
    _, one = found(TWO, network, spikes(), context=context)
    _, two = found(TWO, network, spikes(), context=Context(MASK, torch.tensor([5, 3, 9, 2]), 8, 1))
    assert difference(one["readout.connection.weight"], two["readout.connection.weight"]) > 1e-3


@pytest.mark.parametrize("reduce", ["sum_softmax", "mean", "max", "last"])
def test_every_reduction_and_loss(reduce: Any) -> None:
    network = model(neurons("lif", 6, reset="subtract"), reduce=reduce)
    network.readout.skip_steps = 8  # before it all potentials are 0, and autograd shares the gradient of a maximum
    for mask in (None, MASK):
        for loss in (
            Loss(LABELS, label_smoothing=0.1, total_samples=9),
            Loss(LABELS, "per_step", mse_share=0.1),
            Loss(LABELS, rate=RateSpec(strength=3.0, lower=0.3, upper=0.4)),
            Loss(LABELS, "per_step", rate=RateSpec(strength=3.0, lower=0.0, upper=0.01), total_samples=8),
        ):
            assert max(compare(network, loss=loss, context=Context(mask)).values()) < TOLERANCE


def test_if_neurons_and_a_readout_without_memory() -> None:
    for beta in (0.0, 1.0):
        network = model(IF(6, dt=DT, v_threshold=3.0, reset="subtract"), readout=LI(CLASSES, dt=DT, beta=beta))
        assert max(compare(network).values()) < TOLERANCE


def test_traces_are_small_where_all_units_forget_alike() -> None:
    sizes = {}
    for reset, beta in (("subtract", 0.0), ("subtract", 0.9), ("zero", 0.0), ("zero", 0.9)):
        network = model(neurons("lif", 6, reset=reset), readout=LI(CLASSES, dt=DT, beta=beta))
        outcome, _ = found(TWO, network, spikes())
        sizes[reset, beta] = outcome.facts["trace_bytes"] - 8 * BATCH * 6  # the readout's own
    assert sizes["subtract", 0.0] == 8 * BATCH * INPUTS
    assert sizes["subtract", 0.9] == 8 * BATCH * INPUTS * (1 + 6)
    assert sizes["zero", 0.0] == 8 * BATCH * INPUTS * 6
    assert sizes["zero", 0.9] == 8 * BATCH * INPUTS * 12


def two_layers(leak: float, memory: float, reset: str = "subtract", seed: int = 2) -> SpikingModel:
    first, second = neurons("lif", 12, reset=reset), LIF(10, dt=DT, beta=leak, reset=reset)
    network: SpikingModel = model(first, second, readout=LI(CLASSES, dt=DT, beta=memory), seed=seed)
    return network


def test_two_layers_are_exact_where_the_second_has_no_memory() -> None:
    for reset in ("zero", "subtract"):
        assert max(compare(two_layers(0.0, 0.0, reset)).values()) < TOLERANCE
        there = compare(two_layers(0.9, 0.9, reset))
        first = there.pop("blocks.0.connection.weight")
        assert max(there.values()) < TOLERANCE
        assert first > 1e-2


def test_the_first_of_two_layers_gets_nearly_the_direction() -> None:
    cosines = []
    for leak in (0.0, 0.5, 0.9):
        network = two_layers(leak, 0.0)
        _, wanted = found(BPTT(), network, spikes())
        _, got = found(TWO, network, spikes())
        exact, near = (part["blocks.0.connection.weight"] for part in (wanted, got))
        cosines.append(cosine(exact, near))
        assert 0.7 < float(near.norm() / exact.norm()) / (1 - leak) < 1.4  # the second layer's memory is left out
    assert cosines[0] > 1 - 1e-12
    assert cosines[0] > cosines[1] > cosines[2] > 0.8


def test_residual_blocks_pass_errors_down() -> None:
    first = Block(Linear(INPUTS, 8, generator=source(1)), neurons("lif", 8, reset="subtract"))
    second = Block(Linear(8, 8, generator=source(2)), LIF(8, dt=DT, beta=0.0), residual=True)
    network = model(first, second, readout=LI(CLASSES, dt=DT, beta=0.0))
    assert max(compare(network).values()) < TOLERANCE


def test_without_leak_it_is_the_gradient_of_single_steps() -> None:
    x = spikes()
    network = model(LIF(6, dt=DT, beta=0.0, v_threshold=0.7), readout=LI(CLASSES, dt=DT, beta=0.0))
    loss = Loss(LABELS, "per_step")
    _, got = found(RTRL(), network, x, loss)
    network.zero_grad()
    for arrivals in x:  # a sequence of one step each: nothing is carried
        output = network(arrivals.unsqueeze(0))
        (loss.of(output, None)[0] / STEPS).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None
        assert difference(parameter.grad, got[name]) < 1e-12


def test_the_trace_of_a_constant_input_has_a_closed_form(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    monkeypatch.setattr(RTRL, "traces", lambda *a: made.append(original(*a)) or made[-1])  # type: ignore[func-returns-value]
    x = torch.full((STEPS, BATCH, INPUTS), 0.25, dtype=torch.float64)
    for reset in ("zero", "subtract"):  # one trace for all units, and one each
        network = model(LIF(6, dt=DT, beta=0.9, v_threshold=1e9, reset=reset, detach_reset=reset == "subtract"))
        found(TWO, network, x)
        trace = made[-1][0].v
        expected = 0.25 * (1 - 0.9**STEPS) / (1 - 0.9)
        assert abs(trace - expected).max() < 1e-12
        assert trace.shape == ((6 if reset == "zero" else 1), BATCH, INPUTS)


original = RTRL.traces


@pytest.mark.parametrize("row", range(5))
def test_a_wrong_derivative_is_noticed(row: int, monkeypatch: pytest.MonkeyPatch) -> None:
    right = stepping.advance_neurons

    def wrong(*arguments: Any) -> Any:
        cell, state = right(*arguments)
        rows = cell.rows.clone()
        rows[row] = rows[row] * 0.99
        return cell._replace(rows=rows), state

    network = model(neurons("lif", 6, reset="zero", detach_reset=False))
    assert max(compare(network).values()) < TOLERANCE
    monkeypatch.setattr(stepping, "advance_neurons", wrong)
    assert max(compare(network).values()) > 1e-5


def test_single_precision_is_close() -> None:
    network = model(neurons("alif", 6, learn=True)).float()
    _, wanted = found(BPTT(), network, spikes().float())
    _, got = found(TWO, network, spikes().float())
    for name, value in wanted.items():
        assert got[name].dtype == torch.float32
        assert difference(value, got[name]) < 1e-4


def copy_task(seed: int, steps: int, wait: int, samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One of three patterns on seven channels for four steps, then silence but for a cue at the end."""
    labels = torch.arange(samples) % CLASSES
    x = torch.zeros(steps, samples, INPUTS, dtype=torch.float64)
    patterns = (torch.rand(CLASSES, 4, INPUTS - 1, generator=source(0)) < 0.5).double()
    noise = (torch.rand(4, samples, INPUTS - 1, generator=source(seed)) < 0.05).double()
    x[:4, :, :-1] = (patterns[labels].transpose(0, 1) - noise).abs()
    x[4 + wait :, :, -1] = 1.0
    return x, labels


@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_delayed_copy_learns_the_weights_of_backpropagation(reset: str) -> None:
    """The experiment of Irie et al. 2024 in small: recall after a silence, the loss on the recall alone."""
    weights = []
    for rule in (BPTT(), RTRL()):
        leaks = torch.linspace(0.9, 0.999, 24).tolist()
        network = model(
            LIF(24, dt=DT, beta=leaks, reset=reset, detach_reset=False), readout=LI(CLASSES, dt=DT, beta=0.5)
        )
        network.readout.skip_steps = 24
        optimiser = torch.optim.Adam(network.parameters(), lr=3e-2)
        losses = []
        for update in range(20):
            x, labels = copy_task(update, steps=30, wait=20, samples=12)
            outcome, _ = found(rule, network, x, Loss(labels, "per_step"))
            losses.append(float(outcome.losses.mean()))
            optimiser.step()
        assert losses[-1] < 0.8 * losses[0]
        weights.append(torch.cat([p.detach().flatten() for p in network.parameters()]))
    assert float((weights[0] - weights[1]).abs().max()) < 1e-8
