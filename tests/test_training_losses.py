"""Losses: masks, label mixtures and rate penalties against plain formulas."""

from __future__ import annotations

import pytest
import torch

from snnsim.learning import class_loss, rate_penalty, training_loss
from snnsim.nn.model import Output
from snnsim.recipes.schema import RateSpec, TrainSpec


def output(trace: torch.Tensor, logits: torch.Tensor, spikes: list[torch.Tensor] | None = None) -> Output:
    return Output(logits, trace, torch.zeros(1), spikes or [], ())


def test_cross_entropy_takes_classes_or_probabilities() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, generator=generator)
    labels = torch.tensor([0, 2, 1, 1])
    one_hot = torch.nn.functional.one_hot(labels, 3).float()
    a = class_loss(output(torch.zeros(1, 4, 3), logits), labels, None)
    b = class_loss(output(torch.zeros(1, 4, 3), logits), one_hot, None)
    expected = -torch.log_softmax(logits, 1)[torch.arange(4), labels]
    assert torch.allclose(a, expected, atol=1e-6)
    assert torch.allclose(b, expected, atol=1e-6)


def test_per_step_loss_counts_valid_steps_only() -> None:
    generator = torch.Generator().manual_seed(1)
    trace = torch.randn(5, 2, 3, generator=generator)
    labels = torch.tensor([1, 2])
    mask = torch.tensor([[1, 1], [1, 1], [1, 0], [1, 0], [0, 0]], dtype=torch.bool)
    full = class_loss(output(trace, trace[0]), labels, mask, "per_step")
    for sample, steps in ((0, 4), (1, 2)):
        terms = [-torch.log_softmax(trace[t, sample], 0)[labels[sample]] for t in range(steps)]
        assert full[sample] == pytest.approx(float(torch.stack(terms).mean()), rel=1e-5)
    changed = trace.clone()
    changed[4] = 99.0
    assert torch.equal(class_loss(output(changed, trace[0]), labels, mask, "per_step"), full)
    skipped = class_loss(output(trace, trace[0]), labels, mask, "per_step", skip_steps=1)
    assert skipped[1] == pytest.approx(float(-torch.log_softmax(trace[1, 1], 0)[2]), rel=1e-5)


def test_rate_penalty_is_zero_inside_and_quadratic_outside() -> None:
    spikes = torch.zeros(10, 1, 3)
    spikes[:5, 0, 0] = 1  # 0.5 spikes a step
    spikes[:1, 0, 1] = 1  # 0.1
    spec = RateSpec(strength=2.0, lower=0.05, upper=0.3)
    expected = 2.0 * ((0.5 - 0.3) ** 2 + 0.0 + 0.05**2) / 3
    assert float(rate_penalty([spikes], None, spec)) == pytest.approx(expected, rel=1e-5)
    half = torch.zeros(10, 1, dtype=torch.bool)
    half[:5] = True  # masked: rates 1.0, 0.2, 0
    expected = 2.0 * (0.7**2 + 0.05**2) / 3
    assert float(rate_penalty([spikes], half, spec)) == pytest.approx(expected, rel=1e-5)


def test_parts_of_a_batch_add_up_to_the_whole() -> None:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(6, 3, generator=generator)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    spec = TrainSpec(epochs=1, batch_size=6)
    whole, _ = training_loss(output(torch.zeros(1, 6, 3), logits), labels, None, spec, 6)
    parts = [
        training_loss(output(torch.zeros(1, 3, 3), logits[i : i + 3]), labels[i : i + 3], None, spec, 6)[0]
        for i in (0, 3)
    ]
    assert float(parts[0] + parts[1]) == pytest.approx(float(whole), rel=1e-6)
