"""SLTT against autograd through a graph of plain torch operations whose carried states are detached."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from snnsim.errors import InputError
from snnsim.learning import BPTT, SLTT, SLTTK, Loss, Rule, TensorStream
from snnsim.learning.fused_stages import fits
from snnsim.nn.context import Context
from snnsim.nn.delays import DelayedLinear
from snnsim.nn.model import SpikingModel, build_model
from snnsim.nn.readouts import reduce_trace
from snnsim.nn.recurrent import Recurrent
from snnsim.nn.state import detach_state
from snnsim.recipes import load_recipe
from snnsim.recipes.schema import RateSpec

STEPS, BATCH, INPUTS, CLASSES = 14, 4, 11, 5

PLAIN = ["model.batch_norm=false", "model.connection.kind='linear'", "model.hidden=[9, 8]", "model.tail_steps=0"]


def make(changes: list[str], dtype: torch.dtype = torch.float64, seed: int = 1) -> SpikingModel:
    recipe = load_recipe("shd-dcls", [*PLAIN, "model.dropout=0.0", *changes])
    model = build_model(recipe.model, INPUTS, CLASSES, recipe.data.dt, seed).to(dtype)
    with torch.no_grad():
        for layer in model.layers():
            layer.connection.weight *= 2.5  # so that all layers fire
    return model.train()


def stream(masked: bool = False, dtype: torch.dtype = torch.float64, steps: int = STEPS) -> TensorStream:
    generator = torch.Generator().manual_seed(5)
    x = torch.poisson(torch.full((steps, BATCH, INPUTS), 0.4), generator=generator).to(dtype)
    mask = None
    if masked:
        mask = torch.arange(steps)[:, None] < torch.tensor([steps, steps - 5, 3, steps - 1])
        x = x * mask.unsqueeze(2)
    return TensorStream(x, Context(mask, torch.arange(BATCH) + 3, 7, 2))


LABELS = torch.tensor([0, 3, 1, 4])
PER_STEP = Loss(LABELS, "per_step", 0.1, 0.05)


def gradients(model: SpikingModel, rule: Rule, data: TensorStream, loss: Loss) -> tuple[dict[str, Tensor], Any]:
    model.zero_grad(set_to_none=True)
    outcome = rule.gradients(model, data, loss)
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}, outcome


def expected(model: SpikingModel, data: TensorStream, loss: Loss, chosen: list[int] | None = None) -> dict[str, Tensor]:
    """Differentiate the whole graph, step by step, with every carried state detached and spikes of the past kept."""
    model.zero_grad(set_to_none=True)
    mask = data.context.mask
    layers = model.layers()
    states: list[Any] = [layer.neuron.initial_state(BATCH, data.x.dtype) for layer in layers]
    seen: list[list[Tensor]] = [[] for _ in layers]
    kernels = [layer.connection.dense_kernel() if delayed(layer) else None for layer in layers]
    trace = []
    fired: list[list[Tensor]] = [[] for _ in model.blocks]
    for t in range(data.n_steps):
        y = data.x[t]
        for index, layer in enumerate(layers):
            seen[index].append(y)
            kernel = kernels[index]
            if kernel is None:
                current = y @ layer.connection.weight.T
            else:
                terms = [seen[index][t - d] @ kernel[d].T for d in range(min(t + 1, kernel.shape[0]))]
                current = torch.stack(terms).sum(dim=0)
            if index < len(model.blocks) and layer.norm is not None:
                rows = current if mask is None else current[mask[t]]
                mean, variance = rows.mean(dim=0), rows.var(dim=0, unbiased=False)
                current = (current - mean) / torch.sqrt(variance + layer.norm.eps) * layer.norm.weight + layer.norm.bias
            neuron = layer.neuron
            run = neuron.reference_forward
            out, state = run(current.unsqueeze(0), detach_state(states[index]))
            states[index] = state
            if index < len(model.blocks):
                fired[index].append(out[0])
                below = y
                y = out[0]
                if layer.dropout is not None and layer.dropout.p > 0:
                    y = y * layer.dropout.factors(data.context, out)
                if layer.residual:
                    y = y + below
            else:
                y = out[0]
        trace.append(y)
    whole = torch.stack(trace)
    if chosen is not None:
        whole = torch.stack([row if t in chosen else row.detach() for t, row in enumerate(trace)])
    from snnsim.nn.model import Output

    logits = reduce_trace(whole, model.readout.reduce, mask=mask, skip_steps=model.readout.skip_steps)
    spikes = [torch.stack(rows) for rows in fired]
    total, _ = loss.of(Output(logits, whole, torch.zeros(0), spikes, ()), mask, model.readout.skip_steps)
    total.backward()  # type: ignore[no-untyped-call]
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def delayed(layer: Any) -> bool:
    return isinstance(layer.connection, DelayedLinear)


def same(found: dict[str, Tensor], wanted: dict[str, Tensor], atol: float = 1e-14) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=atol, msg=lambda m, name=name: f"{name}: {m}")
        assert float(value.abs().max()) > 1e-8, name


DELAYED = ["model.connection.kind='delayed'", "model.connection.max_delay=0.05", "model.connection.sigma_init=1.0"]
CASES = {
    "zero": [],
    "subtract": ["model.neuron.reset='subtract'"],
    "refractory": ["model.neuron.t_ref=0.02"],
    "dropout": ["model.dropout=0.4"],
    "residual": ["model.hidden=[11, 11]", "model.residual=true"],
    "norm": ["model.batch_norm=true"],
    "learned-tau": ["model.neuron.tau_law='exact'", "model.neuron.learn=['tau_mem', 'v_threshold']"],
    "adaptive": [
        *("model.neuron.kind='adlif'", "model.neuron.adapt_v=0.1", "model.neuron.adapt_spike=0.2"),
        "model.neuron.tau_law='exact'",
    ],
    "recurrent": ["model.recurrent=true"],
    "delays": DELAYED,
    "delays-everything": [*DELAYED, "model.dropout=0.3", "model.hidden=[11, 11]", "model.residual=true"],
}


@pytest.mark.parametrize("masked", [False, True], ids=["full", "masked"])
@pytest.mark.parametrize("case", CASES)
def test_gradients_equal_autograd_with_detached_states(case: str, masked: bool) -> None:
    model, data = make(CASES[case]), stream(masked)
    atol = 1e-11 if "delays" in case else 1e-14  # delays go through short Fourier transforms
    if masked and case == "norm":
        data = replace(
            data, context=replace(data.context, mask=torch.arange(STEPS)[:, None] < torch.tensor([14, 9, 5, 14]))
        )
    wanted = expected(model, data, PER_STEP)
    for size in (None, 1, 5):
        fresh = make(CASES[case])
        found, outcome = gradients(fresh, SLTT(chunk_steps=size), data, PER_STEP)
        same(found, wanted, atol)
        assert float(outcome.rates.min()) > 0.02
        for layer in fresh.layers():
            layer.connection.formulation = "events"
        assert fits(fresh) is (case in ("zero", "subtract", "dropout"))
        found, again = gradients(fresh, SLTT(chunk_steps=size), data, PER_STEP)
        same(found, wanted, atol)
        torch.testing.assert_close(again.rates, outcome.rates, rtol=1e-12, atol=0)
        torch.testing.assert_close(again.losses, outcome.losses, rtol=1e-12, atol=0)


@pytest.mark.parametrize("reduce", ["sum_softmax", "mean", "max", "last"])
@pytest.mark.parametrize("delays", [[], DELAYED], ids=["plain", "delays"])
def test_two_passes_of_a_coupled_loss(reduce: str, delays: list[str]) -> None:
    # silent steps share their largest value, which a Fourier transform blurs: max begins after them
    silent = 10 if reduce == "max" else 0
    model = make([f"model.readout.reduce='{reduce}'", f"model.readout.skip_steps={silent}", *delays])
    data = stream(reduce != "max")
    loss = Loss(LABELS, rate=RateSpec(strength=0.7, lower=0.3, upper=0.4))
    wanted = expected(model, data, loss)
    for size in (None, 3):
        found, outcome = gradients(model, SLTT(two_pass=True, chunk_steps=size), data, loss)
        same(found, wanted, 1e-11)
    output = model(data.x, None, data.context)
    torch.testing.assert_close(outcome.logits, output.logits.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(outcome.rates, output.rates.double(), rtol=1e-6, atol=1e-9)
    with pytest.raises(InputError, match="couples the steps, while this rule goes back step by step"):
        SLTT().gradients(model, data, loss)


@pytest.mark.parametrize("delays", [[], DELAYED], ids=["plain", "delays"])
def test_sltt_k(delays: list[str]) -> None:
    from snnsim.learning.sltt import chosen_steps

    model, data = make(delays), stream()
    whole, _ = gradients(model, SLTT(), data, PER_STEP)
    same(gradients(model, SLTTK(STEPS), data, PER_STEP)[0], whole, 1e-13)
    chosen = chosen_steps(3, STEPS, data)
    wanted = expected(model, data, PER_STEP, chosen)
    plain, outcome = gradients(model, SLTTK(3), data, PER_STEP)
    for name, value in wanted.items():
        torch.testing.assert_close(plain[name], value, rtol=1e-9, atol=1e-11)
    scaled, _ = gradients(model, SLTTK(3, rescale=True), data, PER_STEP)
    for name, value in plain.items():
        torch.testing.assert_close(scaled[name], value * (STEPS / 3), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(outcome.losses, SLTT().gradients(model, data, PER_STEP).losses, rtol=1e-12, atol=0)
    with pytest.raises(InputError, match="expected 1 to 14 steps that learn"):
        SLTTK(15).gradients(model, data, PER_STEP)


def test_chosen_steps_are_drawn_without_bias() -> None:
    from snnsim.learning.sltt import chosen_steps

    data = stream()
    counts = torch.zeros(STEPS)
    for batch in range(2000):
        chosen = chosen_steps(4, STEPS, replace(data, context=replace(data.context, batch=batch)))
        assert len(set(chosen)) == 4
        counts[chosen] += 1
    p = 4 / STEPS
    assert float((counts / 2000 - p).abs().max()) < 4 * (p * (1 - p) / 2000) ** 0.5


def test_one_step_and_no_leak_equal_bptt_and_spikes_are_the_same() -> None:
    one = stream(steps=1)
    model = make([])
    same(gradients(model, SLTT(), one, PER_STEP)[0], gradients(model, BPTT(), one, PER_STEP)[0])
    leakless = ["model.neuron.tau_mem=0.01", "model.readout.tau_mem=0.01"]  # Euler: beta = 1 - dt / tau_mem = 0
    model, data = make(leakless), stream()
    assert float(model.blocks[0].neuron.beta()) == 0
    found, outcome = gradients(model, SLTT(), data, PER_STEP)
    wanted, exact = gradients(model, BPTT(), data, PER_STEP)
    same(found, wanted)
    assert torch.equal(outcome.rates, exact.rates)
    leaky = make([])
    a, b = gradients(leaky, SLTT(), data, PER_STEP)[1], gradients(leaky, BPTT(), data, PER_STEP)[1]
    assert torch.equal(a.rates, b.rates)
    torch.testing.assert_close(a.logits, b.logits, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(a.losses, b.losses, rtol=1e-12, atol=1e-13)


def test_a_readout_without_leak_learns_as_with_bptt() -> None:
    model, data = make(["model.readout.tau_mem=0.01"]), stream()
    found, wanted = gradients(model, SLTT(), data, PER_STEP)[0], gradients(model, BPTT(), data, PER_STEP)[0]
    torch.testing.assert_close(
        found["readout.connection.weight"], wanted["readout.connection.weight"], rtol=0, atol=1e-15
    )
    assert not torch.allclose(found["blocks.0.connection.weight"], wanted["blocks.0.connection.weight"])


def test_delays_of_at_least_one_step_teach_the_layers_below() -> None:
    model = make(DELAYED)
    with torch.no_grad():
        for layer in model.layers():
            layer.connection.position.clamp_(max=1.0)  # delays 1.. steps
            layer.connection.sigma.fill_(0.0)
    found, _ = gradients(model, SLTT(chunk_steps=2), stream(), PER_STEP)
    assert float(found["blocks.0.connection.weight"].abs().max()) > 1e-4
    assert float(found["blocks.0.connection.position"].abs().max()) >= 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kernels_give_the_same_bits_for_any_number_of_threads(dtype: torch.dtype) -> None:
    model = make(["model.hidden=[130, 70]", "model.dropout=0.3"], dtype)
    model.blocks[0].connection.formulation = "events"
    data = stream(True, dtype)
    assert fits(model)
    before = torch.get_num_threads()
    seen = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            seen.append(gradients(model, SLTT(chunk_steps=3), data, PER_STEP))
    finally:
        torch.set_num_threads(before)
    for found, outcome in seen[1:]:
        assert all(torch.equal(found[name], value) for name, value in seen[0][0].items())
        assert torch.equal(outcome.losses, seen[0][1].losses)
    model.blocks[0].connection.formulation = "dense"
    wanted, _ = gradients(model, SLTT(chunk_steps=3), data, PER_STEP)
    for name, value in wanted.items():
        scale = float(value.abs().max())
        torch.testing.assert_close(
            seen[0][0][name], value, rtol=0, atol=scale * (2e-5 if dtype == torch.float32 else 1e-13)
        )


def test_kernels_with_two_passes_and_chosen_steps() -> None:
    data = stream(True)
    for rule, loss in ((SLTT(two_pass=True, chunk_steps=3), Loss(LABELS)), (SLTTK(4), PER_STEP), (SLTTK(14), PER_STEP)):
        model = make(["model.dropout=0.3"])
        wanted, slow = gradients(model, rule, data, loss)
        model.blocks[0].connection.formulation = "events"
        found, quick = gradients(model, rule, data, loss)
        same(found, wanted, 1e-14)
        torch.testing.assert_close(quick.logits, slow.logits, rtol=1e-12, atol=1e-13)


def test_running_statistics_normalise_training_as_evaluation() -> None:
    model, data = make(["model.batch_norm=true"], seed=4), stream()
    norm: Any = model.blocks[0].norm
    rule = SLTT(norm="running")
    gradients(model, rule, data, PER_STEP)
    currents = data.x @ model.blocks[0].connection.weight.T
    torch.testing.assert_close(norm.running_mean, currents.mean(dim=(0, 1)), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(norm.running_var, currents.flatten(0, 1).var(dim=0), rtol=1e-6, atol=1e-7)
    model.eval()
    with torch.no_grad():
        wanted = model(data.x, None, data.context).logits
    model.train()
    _, outcome = gradients(model, rule, data, PER_STEP)
    torch.testing.assert_close(outcome.logits, wanted, rtol=1e-9, atol=1e-9)
    assert int(norm.num_batches_tracked) == 2


def test_what_does_not_fit_is_refused() -> None:
    data = stream()
    cuba = make(["model.neuron.kind='cubalif'", "model.neuron.tau_law='exact'"])
    with pytest.raises(InputError, match=r"hidden1 has CubaLIF neurons.*gradient of a single step is zero; use LIF"):
        SLTT().gradients(cuba, data, PER_STEP)
    elsewhere = TensorStream(data.x.to("meta"), data.context)
    with pytest.raises(InputError, match="expected inputs on cpu, where the model is, got meta"):
        SLTT().gradients(make([]), elsewhere, PER_STEP)
    with pytest.raises(InputError, match="it updates once a batch"):
        SLTT().gradients(make([]), data, PER_STEP, lambda: None)
    for wrong, words in (
        (["train.learning='bptt'", "train.rule.steps=3"], "learning 'bptt' has no 'steps'"),
        (["train.learning='sltt-k'"], "belongs to learning 'sltt-k', which needs it"),
        (["train.learning='sltt'", "train.checkpoint_steps=5"], "keeps no sequence"),
        (["train.learning='slt'"], "learning"),
    ):
        with pytest.raises(InputError, match=words):
            load_recipe("shd-dcls", wrong)


def test_recurrence_is_in_the_network() -> None:
    assert isinstance(make(["model.recurrent=true"]).blocks[0].neuron, Recurrent)
