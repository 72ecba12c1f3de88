"""Schedules: the sequences of the publications and of torch, groups that do not mix, exact continuation."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.optim.lr_scheduler import OneCycleLR

from snnsim.errors import InputError
from snnsim.nn.model import build_model
from snnsim.recipes import load_recipe
from snnsim.recipes.schema import ConnectionSpec, GroupSpec, ModelSpec, ScheduleSpec, TrainSpec
from snnsim.training.checkpoint import restore_state, training_state
from snnsim.training.schedules import (
    build_optimisers,
    build_scheduler,
    clip_gradients,
    gradient_norm,
    parameter_groups,
    sigma_at,
)


@pytest.mark.parametrize(
    ("name", "first", "last_epoch", "factor"),
    [("shd-dcls", 12, 37, 0.898633), ("ssc-dcls", 15, 15, 0.756907), ("gsc-dcls", 15, 25, 0.846107)],
)
def test_sigma_follows_the_published_sequence(name: str, first: int, last_epoch: int, factor: float) -> None:
    recipe = load_recipe(name)
    epochs = recipe.train.epochs
    values = [sigma_at(e, recipe.model.connection, 0.01, epochs) for e in range(epochs)]
    assert values[0] == first
    for before, after in itertools.pairwise(values[: last_epoch + 1]):
        assert after / before == pytest.approx(factor, abs=5e-7)
    assert values[last_epoch:] == [0.23] * (epochs - last_epoch)


def test_constant_sigma_ablation() -> None:
    spec = ConnectionSpec(sigma_init=0.23, sigma_epochs_fraction=0.0)
    assert {sigma_at(e, spec, 0.01, 100) for e in range(100)} == {0.23}


def one_cycle_by_formula(step: int, total: int, top: float, div: float, final: float, peak: float) -> float:
    turn, end = peak * total - 1, total - 1
    if step <= turn:
        low, high, x = top / div, top, step / turn
    else:
        low, high, x = top, top / div / final, (step - turn) / (end - turn)
    return low + (high - low) * (1 - math.cos(math.pi * x)) / 2


def test_one_cycle_is_torchs_and_the_formulas() -> None:
    spec = ScheduleSpec(kind="one-cycle", max_factor=1.0)
    mine = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    a = build_scheduler(mine, spec, 1.0, 10)
    b = OneCycleLR(theirs, max_lr=1.0, total_steps=10)
    for step in range(10):
        group, other = mine.param_groups[0], theirs.param_groups[0]
        assert abs(group["lr"] - other["lr"]) < 1e-12
        assert abs(group["betas"][0] - other["betas"][0]) < 1e-12
        assert group["lr"] == pytest.approx(one_cycle_by_formula(step, 10, 1.0, 25, 1e4, 0.3), abs=1e-12)
        mine.step()
        theirs.step()
        if step < 9:
            a.step()
            b.step()


def test_shd_learning_rates_of_the_paper() -> None:
    recipe = load_recipe("shd-dcls")
    model = build_model(recipe.model.model_copy(update={"hidden": [4]}), 3, 2, 0.01)
    weights, positions = build_optimisers(model, recipe.train, 32)
    assert (weights.name, positions.name) == ("weights", "positions")
    rates, betas, delays = [], [], []
    for _ in range(150):
        rates.append(weights.lr)
        betas.append(weights.optimiser.param_groups[0]["betas"][0])
        delays.append(positions.lr)
        for group in (weights, positions):
            group.optimiser.step()
            group.advance("batch")
            group.advance("epoch")
    assert rates[0] == pytest.approx(2e-4, rel=1e-12)
    assert rates.index(max(rates)) == 44
    assert max(rates) == pytest.approx(5e-3, rel=1e-12)
    assert rates[-1] == pytest.approx(2e-8, rel=1e-9)
    assert (betas[0], betas[-1]) == pytest.approx((0.95, 0.95))
    assert min(betas) == pytest.approx(0.85)
    for epoch in (0, 37, 75, 149):
        assert delays[epoch] == pytest.approx(0.05 * (1 + math.cos(math.pi * epoch / 150)), rel=1e-9)


@pytest.mark.parametrize("unit", ["epoch", "batch"])
def test_two_groups_equal_their_own_schedules(unit: str) -> None:
    spec = TrainSpec(
        epochs=4,
        batch_size=1,
        weights=GroupSpec(schedule=ScheduleSpec(kind="one-cycle", unit=unit)),
        positions=GroupSpec(lr=0.1, schedule=ScheduleSpec(kind="cosine", unit="epoch")),
    )
    model = build_model(ModelSpec(hidden=[3]), 2, 2, 0.01)
    weights, positions = build_optimisers(model, spec, 5)
    alone = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    scheduler = build_scheduler(alone, spec.weights.schedule, 1e-3, 20 if unit == "batch" else 4)
    alone.step()
    seen, expected, delays = [], [], []
    for epoch in range(4):
        for batch in range(5):
            seen.append(weights.lr)
            expected.append(alone.param_groups[0]["lr"])
            delays.append(positions.lr)
            for group in (weights, positions):
                group.optimiser.step()
                group.advance("batch")
            if unit == "batch" and (epoch, batch) != (3, 4):
                scheduler.step()
        for group in (weights, positions):
            group.advance("epoch")
        if unit == "epoch" and epoch < 3:
            scheduler.step()
    assert seen == expected
    assert len(set(delays)) == 4


def test_groups_hold_every_parameter_once_and_decay_only_weights() -> None:
    spec = load_recipe("shd-dcls", ["model.neuron.learn=['v_threshold']"])
    model = build_model(spec.model, 5, 3, 0.01)
    groups = parameter_groups(model)
    listed = [id(p) for parts in groups.values() for part in parts for p in part["params"]]
    assert sorted(listed) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    decayed, plain = groups["weights"]
    assert "weight_decay" not in decayed
    assert plain["weight_decay"] == 0.0
    assert {p.dim() for p in decayed["params"]} == {3}
    optimisers = {group.name: group.optimiser for group in build_optimisers(model, spec.train, 1)}
    assert [g["weight_decay"] for g in optimisers["weights"].param_groups] == [1e-5, 0.0]
    assert [g["weight_decay"] for g in optimisers["positions"].param_groups] == [0.0]
    assert [g["weight_decay"] for g in optimisers["neuron"].param_groups] == [0.0]


def test_nothing_to_train_is_refused() -> None:
    model = build_model(ModelSpec(hidden=[2]), 2, 2, 0.01)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(InputError, match="at least one trainable parameter"):
        build_optimisers(model, TrainSpec(epochs=1, batch_size=1), 1)


def fake_steps(model: torch.nn.Module, optimisers: list[object], first: int, last: int) -> list[float]:
    seen = []
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        for group in optimisers:
            seen.append(group.lr)  # type: ignore[attr-defined]
            group.optimiser.step()  # type: ignore[attr-defined]
            group.advance("batch")  # type: ignore[attr-defined]
    return seen


@pytest.mark.parametrize("kind", ["one-cycle", "cosine", "constant"])
@pytest.mark.parametrize("optimiser", ["adam", "adamw", "sgd"])
def test_continuing_at_step_37_gives_the_same_bits(kind: str, optimiser: str) -> None:
    momentum = 0.9 if optimiser == "sgd" else 0.0
    group = GroupSpec(
        optimiser=optimiser, momentum=momentum, weight_decay=1e-3, schedule=ScheduleSpec(kind=kind, unit="batch")
    )
    spec = TrainSpec(epochs=60, batch_size=1, weights=group, positions=group)

    def fresh() -> tuple[torch.nn.Module, list[object]]:
        model = build_model(ModelSpec(hidden=[3]), 2, 2, 0.01, seed=1)
        return model, build_optimisers(model, spec, 1)  # type: ignore[return-value]

    model, optimisers = fresh()
    fake_steps(model, optimisers, 0, 37)
    tensors, values = training_state(model, optimisers)  # type: ignore[arg-type]
    tensors = {name: value.clone() for name, value in tensors.items()}
    expected = fake_steps(model, optimisers, 37, 60)
    other, again = fresh()
    import json

    restore_state(other, again, tensors, json.loads(json.dumps(values)))  # type: ignore[arg-type]
    assert fake_steps(other, again, 37, 60) == expected
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


def test_clipping_scales_to_the_limit() -> None:
    model = torch.nn.Linear(3, 2)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 2.0)
    before = gradient_norm(model)
    clip_gradients(model, 1.0)
    assert before == pytest.approx(2.0 * math.sqrt(8))
    assert gradient_norm(model) == pytest.approx(1.0, rel=1e-6)
    clip_gradients(model, 5.0)
    assert gradient_norm(model) == pytest.approx(1.0, rel=1e-6)
