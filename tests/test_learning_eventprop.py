"""EventProp: kernels against the definition, the rule against finite differences, frozen networks, refusals."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from eventprop_systems import stack

from snnsim.engines import simulate
from snnsim.engines.event_plan import law_rows
from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.kernels import event_law as law
from snnsim.kernels.eventprop import layer_forward
from snnsim.kernels.eventprop_adjoint import layer_backward
from snnsim.kernels.eventprop_layers import LayerGradients
from snnsim.kernels.eventprop_readout import mean_backward, mean_forward, trace_backward, trace_forward
from snnsim.kernels.eventprop_trains import arrivals, train_of_spikes
from snnsim.kernels.reference_eventprop import (
    eventprop_backward_reference,
    eventprop_forward_reference,
    weighted_means,
)
from snnsim.learning import BPTT, EventProp, Loss, TensorStream, continuous_output, continuous_trains
from snnsim.learning.eventprop_system import neuron_laws
from snnsim.network import Population
from snnsim.nn.context import Context
from snnsim.nn.delays import DelayedLinear, Linear
from snnsim.nn.dropout import SequenceDropout
from snnsim.nn.freeze import freeze
from snnsim.nn.model import Block, ReadoutBlock, SpikingModel
from snnsim.nn.neurons import LI, LIF, CubaLI, CubaLIF
from snnsim.nn.norm import BatchNormTime
from snnsim.nn.recurrent import Recurrent
from snnsim.recipes.schema import RateSpec

DT = 0.001
STOP = 0.06
RATE, BEGIN = 20.0, 0.01


@pytest.mark.parametrize("tau_syn", [0.005, 0.02, 0.0199])
@pytest.mark.parametrize("one_delay", [True, False])
def test_layers_are_blocks_of_one_population(tau_syn: float, one_delay: bool) -> None:
    layers, system, train, inputs = stack(int(1000 * tau_syn), tau_syn, one_delay)
    run = eventprop_forward_reference(system, inputs, STOP)
    trains, into = [train], []
    for layer in layers[:2]:
        into.append(arrivals(trains[-1], layer.delay, STOP))
        spikes, code = layer_forward(layer, trains[-1], into[-1], STOP)
        assert code == 0
        trains.append(spikes)
    into.append(arrivals(trains[2], layers[2].delay, STOP))
    first = [0, 4, 7, 9]
    which = np.zeros(len(run.spikes), dtype=int)  # place of a spike of the reference in its train
    for k in range(2):
        mine = sorted((n, t, i, s) for s, (t, n, i) in enumerate(run.spikes) if first[k] <= n < first[k + 1])
        assert len(mine) > 5
        assert [n - first[k] for n, *_ in mine] == trains[k + 1].units.tolist()
        np.testing.assert_allclose([t for _, t, *_ in mine], trains[k + 1].times, rtol=0, atol=1e-14)
        np.testing.assert_allclose([i for *_, i, _ in mine], trains[k + 1].current, rtol=1e-10)
        for e, (*_, s) in enumerate(mine):
            which[s] = e
    rng = np.random.default_rng(0)
    by_mean, by_trace = rng.normal(size=2), rng.normal(size=(60, 2))
    push = [np.zeros(0), *(rng.normal(0, 0.1, t.n_events) for t in trains[1:])]
    mean = mean_forward(layers[2], trains[2], RATE, BEGIN, STOP)
    np.testing.assert_allclose(mean, weighted_means(system, run, rate=RATE, begin=BEGIN)[7:], rtol=1e-9, atol=1e-12)
    trace = trace_forward(layers[2], trains[2], into[2], DT, 60)
    until = eventprop_forward_reference(system, inputs, 0.04)
    v = weighted_means(system, until, begin=0.04 - 1e-8)[7:]
    np.testing.assert_allclose(trace[40], v, rtol=1e-4, atol=1e-5)

    sums = [LayerGradients.zeros(layer, True, True) for layer in layers]
    worth = [np.zeros(t.n_events) for t in trains]
    mean_backward(layers[2], trains[2], RATE, BEGIN, STOP, by_mean, sums[2], worth[2])
    trace_backward(layers[2], trains[2], into[2], DT, by_trace, sums[2], worth[2])
    for k in (1, 0):
        layer_backward(
            *(layers[k], trains[k], into[k], trains[k + 1], worth[k + 1], push[k + 1], STOP, 1e3, sums[k], worth[k])
        )
    reference = eventprop_backward_reference(
        system,
        run,
        mean=np.concatenate([np.zeros(7), by_mean]),
        rate=RATE,
        begin=BEGIN,
        samples=[(k * DT, 7 + c, by_trace[k, c]) for k in range(60) for c in range(2)],
        push=np.array([push[1 if n < 4 else 2][e] for e, (_, n, _) in zip(which, run.spikes, strict=True)]),
    )
    wanted: list[tuple[np.ndarray, np.ndarray]] = [(worth[0], reference.time)]
    for k in range(3):
        rows = slice(first[k], first[k + 1])
        before = slice(first[k - 1], first[k])
        one, two = (reference.w_in, reference.d_in) if k == 0 else (reference.w[:, before], reference.d[:, before])
        wanted += [(sums[k].weight, one[rows]), (sums[k].delay, two[rows])]
        if k < 2:
            wanted += [(sums[k].recurrent_weight, reference.w[rows, rows])]
            wanted += [(sums[k].recurrent_delay, reference.d[rows, rows])]
    for got, right in wanted:
        assert np.abs(right).max() > 0
        np.testing.assert_allclose(got, right, rtol=1e-9, atol=1e-10 * np.abs(right).max())


def test_another_delay_weight_or_reset_is_noticed() -> None:
    layers, system, train, inputs = stack(5, 0.005, False)
    run = eventprop_forward_reference(system, inputs, STOP)
    right = sorted((n, t) for t, n, _ in run.spikes if n < 4)
    for name, value in (("recurrent_delay", 1e-6), ("weight", 1e-6), ("laws", 1e-6)):
        changed = getattr(layers[0], name).copy()
        changed[0, law.RESET if name == "laws" else 1] += value
        wrong = replace(layers[0], **{name: changed})
        spikes, _ = layer_forward(wrong, train, arrivals(train, wrong.delay, STOP), STOP)
        same = len(right) == spikes.n_events
        assert not same or np.abs(np.array([t for _, t in right]) - spikes.times).max() > 1e-10


def test_arrivals_are_in_order_of_time_then_source() -> None:
    rng = np.random.default_rng(0)
    times = np.sort(rng.choice(np.arange(20) / 20, 300))
    train = train_of_spikes(times, rng.integers(0, 7, 300), np.zeros(300), 7)
    delay = rng.choice([0.0, 0.05, 0.5], (4, 7))
    into = arrivals(train, delay, 0.9)
    for j in range(4):
        part = slice(into.start[j], into.start[j + 1])
        all_of_them = [(t + delay[j, u], u, e) for e, (t, u) in enumerate(zip(train.times, train.units, strict=True))]
        wanted = sorted(arrival for arrival in all_of_them if arrival[0] < 0.9)
        assert into.events[part].tolist() == [e for *_, e in wanted]
        assert into.times[part].tolist() == [t for t, *_ in wanted]
    burst = train_of_spikes(np.full(4000, 0.5), np.repeat(np.arange(4), 1000), np.zeros(4000), 4)
    late = arrivals(burst, rng.uniform(0, 1e-9, (1, 4)), 1.0)
    assert np.all(np.diff(late.times) >= 0)
    assert sorted(late.events.tolist()) == list(range(4000))


def inner(position: torch.Tensor, generator: torch.Generator, low: float, high: float) -> None:
    with torch.no_grad():
        position.uniform_(low, high, generator=generator)


def model_of(
    reduce: Any = "mean", *, drop: float = 0.0, per: Any = "synapse", sizes: tuple[int, ...] = (6, 5), skip: int = 5
) -> SpikingModel:
    """Layers with learned delays, forward and recurrent, away from the ends of their ranges."""
    g = torch.Generator().manual_seed(1)
    blocks, n = [], 10
    for k, size in enumerate(sizes):
        connection = DelayedLinear(n, size, max_delay_steps=20, per=per, generator=g)
        with torch.no_grad():
            connection.weight.normal_(9.0 / n, 6.0 / n, generator=g)
        inner(connection.position, g, -9.5, 9.5)
        loop = Recurrent(CubaLIF(size, dt=DT), delay_steps=3, learn_delay=True, max_delay_steps=12, generator=g)
        inner(loop.position, g, -4.5, 5.5)
        blocks.append(Block(connection, loop, dropout=SequenceDropout(drop, k) if drop else None))
        n = size
    connection = DelayedLinear(n, 3, max_delay_steps=10, generator=g)
    inner(connection.position, g, -4.5, 4.5)
    model = SpikingModel(blocks, ReadoutBlock(connection, CubaLI(3, dt=DT), reduce=reduce, skip_steps=skip), dt=DT)
    return model.double()


def stream_of(steps: int = 80, batch: int = 5) -> TensorStream:
    g = torch.Generator().manual_seed(0)
    x = (torch.rand(steps, batch, 10, generator=g) < 0.08).double() * torch.randint(
        1, 3, (steps, batch, 10), generator=g
    )
    mask = torch.arange(steps)[:, None] < torch.tensor([steps - 7 * b for b in range(batch)])[None]
    return TensorStream(x, Context(mask, torch.arange(batch), 3, 1))


def loss_of(batch: int = 5, **options: Any) -> Loss:
    return Loss(torch.arange(batch) % 3, **{"label_smoothing": 0.1, **options})


CASES: list[tuple[Any, Any, float, Any]] = [
    ("mean", "cross_entropy", 0.0, "synapse"),
    ("mean", "per_step", 0.3, "axon"),
    ("max", "cross_entropy", 0.0, "dendrite"),
    ("sum_softmax", "cross_entropy", 0.0, "synapse"),
    ("last", "cross_entropy", 0.0, "synapse"),
]


@pytest.mark.parametrize(("reduce", "kind", "drop", "per"), CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES])
def test_the_rule_gives_the_derivatives_of_the_loss(reduce: Any, kind: Any, drop: float, per: Any) -> None:
    model, stream, loss = model_of(reduce, drop=drop, per=per), stream_of(), loss_of(kind=kind)
    outcome = EventProp().gradients(model, stream, loss)
    assert outcome.facts["clipped"] == 0
    assert outcome.facts["spikes"] > 100
    mask = stream.context.mask

    def value() -> tuple[float, list[float]]:
        output = continuous_output(model, stream)
        return float(loss.of_samples(output, mask, 5).mean()), output.rates.tolist()

    base, spikes = value()
    assert base == pytest.approx(float(outcome.losses.mean()), abs=1e-12)
    assert outcome.rates.tolist() == spikes
    rng = np.random.default_rng(0)
    for name, parameter in model.named_parameters():
        flat, gradient, checked = parameter.data.view(-1), parameter.grad, 0
        assert gradient is not None
        assert gradient.abs().max() > 0
        for at in rng.choice(flat.numel(), min(8, flat.numel()), replace=False):
            h, old = (1e-5 if "position" in name else 1e-6), float(flat[at])
            values = []
            for sign in (1, -1):
                flat[at] = old + sign * h
                values.append(value())
            flat[at] = old
            if values[0][1] == values[1][1] == spikes:  # else a spike came or went
                wanted = (values[0][0] - values[1][0]) / (2 * h)
                assert float(gradient.view(-1)[at]) == pytest.approx(wanted, abs=1e-7)
                checked += 1
        assert checked >= 2, name


def test_gradients_have_the_same_bits_on_any_number_of_threads() -> None:
    found = []
    for threads in (1, 3):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            model = model_of()
            outcome = EventProp(spike_strength=0.1, spike_target=3).gradients(model, stream_of(60, 40 // 5), loss_of(8))
        finally:
            torch.set_num_threads(before)
        found.append([outcome.losses, outcome.logits, *(p.grad for p in model.parameters())])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def test_a_sample_does_not_depend_on_its_batch() -> None:
    model, stream = model_of(), stream_of()
    alone = TensorStream(stream.x[:, 2:3], Context(stream.context.mask[:, 2:3], torch.tensor([2]), 3, 1))  # type: ignore[index]
    whole, part = continuous_output(model, stream), continuous_output(model, alone)
    assert torch.equal(whole.logits[2], part.logits[0])
    assert torch.equal(whole.trace[:, 2], part.trace[:, 0])


def test_steps_after_the_end_of_a_sample_do_not_count() -> None:
    model, stream = model_of(), stream_of()
    x = stream.x.clone()
    x[~stream.context.mask] = 5.0  # type: ignore[operator]
    assert torch.equal(
        continuous_output(model, TensorStream(x, stream.context)).logits, continuous_output(model, stream).logits
    )


def test_gradients_are_added_and_frozen_parameters_have_none() -> None:
    model, stream, loss = model_of(), stream_of(), loss_of()
    model.blocks[0].connection.position.requires_grad_(False)  # type: ignore[union-attr]
    EventProp().gradients(model, stream, loss)
    once = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    EventProp().gradients(model, stream, loss)
    assert "blocks.0.connection.position" not in once
    assert len(once) == 9
    for name, p in model.named_parameters():
        if name in once:
            torch.testing.assert_close(p.grad, 2 * once[name])


def test_single_precision_parameters_get_the_gradients_of_double_precision() -> None:
    wide, narrow = model_of().float().double(), model_of().float()
    for model in (wide, narrow):
        EventProp().gradients(model, stream_of(), loss_of())
    for a, b in zip(wide.parameters(), narrow.parameters(), strict=True):
        assert b.grad is not None
        assert b.grad.dtype == torch.float32
        torch.testing.assert_close(a.grad.float(), b.grad)  # type: ignore[union-attr]


def test_regularisation_pulls_the_number_of_spikes() -> None:
    """With no loss to speak of, a step down the gradient fires less above the target and more below it."""
    stream, loss = stream_of(), loss_of(label_smoothing=0.0)
    for target, sign in ((0.0, -1), (60.0, 1)):
        model = model_of()
        before = EventProp(spike_strength=1e4, spike_target=target).gradients(model, stream, loss).facts["spikes"]
        with torch.no_grad():
            weight = model.blocks[0].connection.weight  # type: ignore[union-attr]
            weight -= 0.05 * weight.grad / weight.grad.abs().max()  # type: ignore[operator, union-attr, assignment]
        after = float(sum(t[0].n_events for t in continuous_trains(model, stream)))
        first = float(sum(t[0].n_events for t in continuous_trains(model_of(), stream)))
        assert before > 0
        assert sign * (after - first) > 0


def test_neurons_that_were_silent_for_an_epoch_are_woken() -> None:
    model, stream, loss = model_of(), stream_of(), loss_of()
    with torch.no_grad():
        model.blocks[0].connection.weight[2] = -1.0  # type: ignore[union-attr, index]
    rule = EventProp(wake=0.5)
    rule.gradients(model, stream, loss)
    rule.restore(rule.state())
    rule.gradients(model, stream, loss)
    kept = model.blocks[0].connection.weight.detach().clone()  # type: ignore[union-attr, operator]
    assert rule.end_epoch(model) == 1
    moved = model.blocks[0].connection.weight - kept  # type: ignore[union-attr, operator]
    assert torch.allclose(moved[2], torch.tensor(0.5).double())
    assert moved.abs().sum() == moved[2].abs().sum()
    assert rule.end_epoch(model) == 0


def frozen_and_exact(model: SpikingModel, stream: TensorStream) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Unit, time by the event engine and time by EventProp of the spikes of every hidden layer."""
    steps = stream.n_steps
    times, units, offsets = [], [], [0]
    for b in range(stream.batch):
        k, u = np.nonzero(stream.x[:, b].numpy())
        many = stream.x[k, b, u].numpy().astype(int)
        times.append(np.repeat(k * DT, many))
        units.append(np.repeat(u, many))
        offsets.append(offsets[-1] + int(many.sum()))
    events = Events(
        times=np.concatenate(times),
        units=np.concatenate(units).astype(np.int32),
        offsets=np.array(offsets),
        labels=np.zeros(stream.batch, dtype=np.int64),
        n_units=model.n_inputs,
        duration=np.full(stream.batch, steps * DT),
    )
    network = freeze(model.eval(), round_delays=False)
    result = simulate(network, events, engine="event")
    exact = continuous_trains(model, TensorStream(stream.x))
    found = []
    for index in range(len(model.blocks)):
        theirs = result.spikes[f"hidden{index + 1}"]
        parts = []
        for b in range(stream.batch):
            mine, one = exact[b][index], theirs[b]
            order = np.lexsort((one.times, one.units))
            assert one.units[order].tolist() == mine.units.tolist()
            parts.append((mine.units, one.times[order], mine.times))
        found.append(tuple(np.concatenate(column) for column in zip(*parts, strict=True)))
    return found  # type: ignore[return-value]


def test_a_frozen_network_has_the_spikes_that_were_trained() -> None:
    model, stream = model_of(), TensorStream(stream_of().x)
    delays = freeze(model, round_delays=False).projections[0].delay
    assert np.abs(np.asarray(delays) / DT - np.rint(np.asarray(delays) / DT)).max() > 0.1
    for _, theirs, ours in frozen_and_exact(model, stream):
        assert ours.size > 50
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-9)


def test_a_frozen_network_with_rounded_delays_has_other_spikes() -> None:
    """The comparison above is not blind."""
    model, stream = model_of(), TensorStream(stream_of().x)
    trains = continuous_trains(model, stream)
    for block in model.blocks:
        block.connection.position.data.round_()  # type: ignore[union-attr]
    moved = continuous_trains(model, stream)
    assert any(
        a.n_events != b.n_events or np.abs(a.times - b.times).max() > 1e-5
        for one, two in zip(trains, moved, strict=True)
        for a, b in zip(one, two, strict=True)
    )


@pytest.mark.slow
def test_a_larger_frozen_network_has_the_spikes_that_were_trained() -> None:
    g = torch.Generator().manual_seed(5)
    model = model_of(sizes=(80, 60, 50))
    x = (torch.rand(400, 4, 10, generator=g) < 0.1).double()
    found = frozen_and_exact(model, TensorStream(x))
    for _, theirs, ours in found:
        assert ours.size > 10_000
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-9)


@pytest.mark.parametrize("tau_syn", [0.005, 0.0195])
def test_laws_are_those_of_the_event_engine(tau_syn: float) -> None:
    cells = CubaLIF(3, dt=DT, tau_mem=0.02, tau_syn=tau_syn, v_reset=-0.2, heterogeneous="uniform", seed=1)
    theirs, ours = law_rows(Population("hidden", 3, cells.neuron())), neuron_laws(cells)
    columns = [law.KIND, law.TAU, law.RATE_M, law.RATE_E, law.GAIN_E, law.GAP, law.RESET, law.RESET_ZERO]
    assert np.array_equal(theirs[:, columns], ours[:, columns])


def simple(neuron: Any = None, connection: Any = None, readout: Any = None, **options: Any) -> SpikingModel:
    block = Block(connection or Linear(10, 4), neuron or CubaLIF(4, dt=DT), **options)
    return SpikingModel([block], ReadoutBlock(Linear(4, 3), readout or CubaLI(3, dt=DT), reduce="mean"), dt=DT)


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (lambda: simple(LIF(4, dt=DT)), r"hidden1: expected CubaLIF .* got LIF.*use kind = 'cubalif'"),
        (lambda: simple(readout=LI(3, dt=DT)), r"readout: expected CubaLIF .* got LI"),
        (lambda: simple(norm=BatchNormTime(4)), r"hidden1: batch norm .* batch_norm = false"),
        (lambda: simple(CubaLIF(4, dt=DT, reset="subtract")), "expected reset 'zero', got 'subtract'"),
        (lambda: simple(CubaLIF(4, dt=DT, t_ref=0.002)), "no refractory time"),
        (lambda: simple(CubaLIF(4, dt=DT, learn=("tau_mem",))), "remove neuron.learn"),
        (lambda: simple(CubaLIF(4, dt=DT, kappa=0.1)), "gain kappa"),
        (lambda: simple(CubaLIF(4, dt=DT, v_threshold=-0.1, v_reset=-1.0)), "thresholds above 0"),
        (lambda: simple(connection=Linear(10, 4, bias=True)), "a bias is a drive"),
        (lambda: simple(connection=DelayedLinear(10, 4, max_delay_steps=3, taps=2)), "one tap a synapse, got 2"),
        (lambda: simple(CubaLIF(10, dt=DT), Linear(10, 10), residual=True), "10"),
    ],
)
def test_what_has_no_exact_gradient_is_refused(model: Any, match: str) -> None:
    if match == "10":  # the readout does not fit; a residual model is made by hand
        block = Block(Linear(10, 10), CubaLIF(10, dt=DT), residual=True)
        made = SpikingModel([block], ReadoutBlock(Linear(10, 3), CubaLI(3, dt=DT), reduce="mean"), dt=DT)
        match = "residual"
    else:
        made = model()
    with pytest.raises(InputError, match=match):
        EventProp().gradients(made, stream_of(), loss_of())


def test_bad_input_is_refused() -> None:
    model, stream, loss = simple(), stream_of(), loss_of()
    rule = EventProp()
    with pytest.raises(InputError, match="cannot update within"):
        rule.gradients(model, stream, loss, lambda: None)
    with pytest.raises(InputError, match=r"train\.rule\.spike_strength"):
        rule.gradients(model, stream, loss_of(rate=RateSpec(strength=1.0)))
    with pytest.raises(InputError, match=r"expected input \(time, batch, 10\)"):
        rule.gradients(model, TensorStream(torch.zeros(5, 5, 9)), loss)
    with pytest.raises(InputError, match="finite counts"):
        rule.gradients(model, TensorStream(torch.full((5, 5, 10), torch.nan)), loss)
    with pytest.raises(InputError, match="expected 5 targets, got 3"):
        rule.gradients(model, stream, loss_of(3))
    mask = stream.context.mask.clone()  # type: ignore[union-attr]
    mask[3, 1] = False
    with pytest.raises(InputError, match="come first, without gaps"):
        rule.gradients(model, TensorStream(stream.x, Context(mask)), loss)
    with pytest.raises(InputError, match="sample 0: expected steps"):
        rule.gradients(model_of(), TensorStream(torch.zeros(5, 5, 10)), loss)
    for options in ({"shaping": "linear"}, {"clip": 0.0}, {"wake": -1.0}, {"spike_strength": float("nan")}):
        with pytest.raises(InputError, match=f"eventprop: {next(iter(options))}"):
            EventProp(**options)  # type: ignore[arg-type]
    with torch.no_grad():
        model.blocks[0].connection.weight.fill_(1e30)  # type: ignore[union-attr, operator]
    with pytest.raises(InputError, match=r"hidden1, sample .: a neuron fires twice.*smaller weights"):
        rule.gradients(model, stream, loss)


def test_spikes_on_a_fine_grid_approach_the_exact_ones() -> None:
    """The step-by-step model at a tenth of dt: same counts of spikes, at most one fine step late."""
    coarse = simple().double()
    with torch.no_grad():
        coarse.blocks[0].connection.weight.copy_(torch.linspace(0.2, 1.6, 40).view(4, 10))  # type: ignore[union-attr, operator]
    fine = simple(CubaLIF(4, dt=DT / 10), readout=CubaLI(3, dt=DT / 10)).double()
    fine.load_state_dict({k: v for k, v in coarse.state_dict().items() if "weight" in k}, strict=False)
    x = stream_of().x
    stretched = torch.zeros(10 * x.shape[0], *x.shape[1:], dtype=x.dtype)
    stretched[::10] = x
    spikes = fine.eval()(stretched, record=True).spikes[0]
    exact = continuous_trains(coarse, TensorStream(x))
    late = []
    for b in range(x.shape[1]):
        for unit in range(4):
            times = spikes[:, b, unit].nonzero()[:, 0].numpy() * DT / 10
            part = slice(exact[b][0].offsets[unit], exact[b][0].offsets[unit + 1])
            if len(times) == part.stop - part.start:
                late.append(times - exact[b][0].times[part])
    assert len(late) >= 15
    first = np.array([one[0] for one in late if one.size])
    assert np.all(first > -1e-12)
    assert np.all(first < DT / 10 + 1e-12)


def test_it_is_another_gradient_than_that_of_a_surrogate() -> None:
    torch.manual_seed(0)  # over thirty seeds the readout's cosine lies between 0.977 and 0.9995
    model, stream, loss = simple().double(), TensorStream(stream_of().x), loss_of()
    with torch.no_grad():
        model.blocks[0].connection.weight.copy_(torch.linspace(0.2, 1.2, 40).view(4, 10))  # type: ignore[union-attr, operator]
    found = []
    for rule in (EventProp(shaping="none"), BPTT()):
        model.zero_grad()
        rule.gradients(model, stream, loss)
        found.append([p.grad.clone() for p in model.parameters()])  # type: ignore[union-attr]
    readout = torch.nn.functional.cosine_similarity(found[0][1].flatten(), found[1][1].flatten(), dim=0)
    hidden = torch.nn.functional.cosine_similarity(found[0][0].flatten(), found[1][0].flatten(), dim=0)
    assert readout > 0.99
    assert hidden < 0.99
