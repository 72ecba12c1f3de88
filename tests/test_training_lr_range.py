"""Range test: the oracles of a quadratic, the suggestion, and a trainer that is bitwise as before."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from snnsim.datasets.toy import make_toy
from snnsim.errors import InputError
from snnsim.recipes import load_recipe
from snnsim.training.lr_range import find_learning_rate, lr_range_test, rates, suggest, sweep
from snnsim.training.prepare import prepare
from snnsim.training.trainer import Trainer

SMALL = ["model.hidden=[12, 10]", "model.connection.max_delay=0.08", "train.batch_size=16", "train.epochs=4"]


@pytest.mark.parametrize("k", [0.5, 1.0, 4.0])
def test_quadratic_diverges_between_two_and_six_over_k(k: float) -> None:
    w = 1.0

    def step(lr: float) -> dict[str, Any]:
        nonlocal w
        loss = 0.5 * k * w * w
        w -= lr * k * w
        return {"loss": loss}

    result = sweep(step, rates(1e-3 / k, 10 / k, 100, linear=True))
    assert result.stopped_at is not None
    assert 2 / k <= result.stopped_at <= 6 / k
    assert result.steepest is not None
    assert result.steepest < 2 / k
    assert result.careful is not None
    assert result.careful < 2 / k


def test_rates_are_geometric_or_linear() -> None:
    values = rates(1e-7, 10.0, 100)
    assert values[0] == pytest.approx(1e-7)
    assert values[-1] == pytest.approx(10.0)
    assert np.allclose(values[1:] / values[:-1], (10.0 / 1e-7) ** (1 / 99))
    assert np.allclose(np.diff(rates(0.1, 1.0, 10, linear=True)), 0.1)
    with pytest.raises(InputError, match="0 < from < to"):
        rates(1.0, 0.1, 10)


def test_smoothing_is_bias_corrected_and_stops_when_not_finite() -> None:
    losses = [1.0, 3.0, math.inf]
    result = sweep(lambda lr: {"loss": losses[int(lr) - 1]}, [1.0, 2.0, 3.0])
    assert result.table[0]["smoothed"] == pytest.approx(1.0)
    expected = (0.02 * 3 + 0.98 * 0.02 * 1) / (1 - 0.98**2)
    assert result.table[1]["smoothed"] == pytest.approx(expected)
    assert result.stopped_at == 3.0


def test_suggestion_is_the_steepest_fall_and_the_lowest_over_ten() -> None:
    lr = [10.0**i for i in range(-5, 2)]
    assert suggest(lr, [1.0, 1.0, 0.95, 0.5, 0.1, 0.3, 0.9]) == (10.0**-2, 10.0**-2)
    assert suggest(lr, [1.0] * 7) == (None, None)
    assert suggest(lr[:2], [1.0, 0.5]) == (None, None)


@pytest.mark.parametrize("group", ["weights", "positions"])
@pytest.mark.parametrize("started", [False, True])
def test_everything_is_bitwise_as_before(group: str, started: bool) -> None:
    toy = make_toy(n_train=60, n_test=20)
    recipe = load_recipe("shd-dcls", SMALL)
    trainer = Trainer(recipe, prepare(recipe, toy, 0), 0)
    if started:
        trainer.begin_epoch()
        for batch in trainer.batches.epoch(0):
            trainer.train_batch(batch)

    def snapshot() -> Any:
        tensors, values = trainer.state()
        random = (torch.get_rng_state().clone(), np.random.get_state()[1].copy())  # noqa: NPY002
        return {name: value.clone() for name, value in tensors.items()}, values, random

    before = snapshot()
    result = lr_range_test(trainer, group=group, first=1e-5, last=1e-1, steps=12)
    after = snapshot()
    assert len(result.table) >= 3
    assert all(row["gradient_norm"] > 0 for row in result.table)
    assert before[0].keys() == after[0].keys()
    assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])
    assert before[1] == after[1]
    assert torch.equal(before[2][0], after[2][0])
    assert np.array_equal(before[2][1], after[2][1])
    assert all(parameter.grad is None for parameter in trainer.model.parameters())


def test_silent_layer_ends_the_test_with_its_name() -> None:
    toy = make_toy(n_train=60, n_test=20)
    recipe = load_recipe("shd-dcls", [*SMALL, "model.neuron.v_threshold=90.0", "model.batch_norm=false"])
    result = find_learning_rate(recipe, toy, first=1e-5, last=1e-1, steps=12)
    assert len(result.table) == 1
    assert "hidden layer 1 of 2 (12 neurons) is silent" in result.warning


def test_repeats_average_and_unknown_group_is_refused() -> None:
    toy = make_toy(n_train=60, n_test=20)
    recipe = load_recipe("shd-dcls", SMALL)
    options: dict[str, Any] = {"first": 1e-4, "last": 1e-1, "steps": 6}
    single = [find_learning_rate(recipe, toy, seed=seed, **options) for seed in (0, 1)]
    both = find_learning_rate(recipe, toy, seed=0, repeats=2, **options)
    mean = (single[0].table[0]["smoothed"] + single[1].table[0]["smoothed"]) / 2
    assert both.table[0]["smoothed"] == pytest.approx(mean)
    with pytest.raises(InputError, match="group 'neuron' is not trained in this recipe; it has weights, positions"):
        find_learning_rate(recipe, toy, group="neuron")


def test_command_prints_table_and_json(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    from snnsim.cli.main import run

    words = ["lr-find", "shd-dcls", "--data", "toy", "--from", "1e-5", "--to", "1e-1", "--steps", "8"]
    sets = [word for change in SMALL for word in ("--set", change)]
    table = tmp_path / "table.jsonl"
    assert run([*words, *sets, "--out", str(table), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["group"] == "weights"
    assert [json.loads(line) for line in table.read_text().splitlines()] == result["table"]
