"""Losses: masks, label mixtures and rate penalties against plain formulas."""

from __future__ import annotations

import pytest
import torch

from snnsim.learning import Loss
from snnsim.nn.model import Output
from snnsim.recipes.schema import RateSpec


def output(trace: torch.Tensor, logits: torch.Tensor, spikes: list[torch.Tensor] | None = None) -> Output:
    return Output(logits, trace, torch.zeros(1), spikes or [], ())


def test_cross_entropy_takes_classes_or_probabilities() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, generator=generator)
    labels = torch.tensor([0, 2, 1, 1])
    one_hot = torch.nn.functional.one_hot(labels, 3).float()
    a = Loss(labels).of_samples(output(torch.zeros(1, 4, 3), logits), None)
    b = Loss(one_hot).of_samples(output(torch.zeros(1, 4, 3), logits), None)
    expected = -torch.log_softmax(logits, 1)[torch.arange(4), labels]
    assert torch.allclose(a, expected, atol=1e-6)
    assert torch.allclose(b, expected, atol=1e-6)


def test_per_step_loss_counts_valid_steps_only() -> None:
    generator = torch.Generator().manual_seed(1)
    trace = torch.randn(5, 2, 3, generator=generator)
    labels = torch.tensor([1, 2])
    mask = torch.tensor([[1, 1], [1, 1], [1, 0], [1, 0], [0, 0]], dtype=torch.bool)
    full = Loss(labels, "per_step").of_samples(output(trace, trace[0]), mask)
    for sample, steps in ((0, 4), (1, 2)):
        terms = [-torch.log_softmax(trace[t, sample], 0)[labels[sample]] for t in range(steps)]
        assert full[sample] == pytest.approx(float(torch.stack(terms).mean()), rel=1e-5)
    changed = trace.clone()
    changed[4] = 99.0
    assert torch.equal(Loss(labels, "per_step").of_samples(output(changed, trace[0]), mask), full)
    skipped = Loss(labels, "per_step").of_samples(output(trace, trace[0]), mask, 1)
    assert skipped[1] == pytest.approx(float(-torch.log_softmax(trace[1, 1], 0)[2]), rel=1e-5)


def test_rate_penalty_is_zero_inside_and_quadratic_outside() -> None:
    spikes = torch.zeros(10, 1, 3)
    spikes[:5, 0, 0] = 1  # 0.5 spikes a step
    spikes[:1, 0, 1] = 1  # 0.1
    spec = RateSpec(strength=2.0, lower=0.05, upper=0.3)
    expected = 2.0 * ((0.5 - 0.3) ** 2 + 0.0 + 0.05**2) / 3
    assert float(Loss(torch.zeros(1), rate=spec).rate_penalty([spikes], None)) == pytest.approx(expected, rel=1e-5)
    half = torch.zeros(10, 1, dtype=torch.bool)
    half[:5] = True  # masked: rates 1.0, 0.2, 0
    expected = 2.0 * (0.7**2 + 0.05**2) / 3
    assert float(Loss(torch.zeros(1), rate=spec).rate_penalty([spikes], half)) == pytest.approx(expected, rel=1e-5)


def test_parts_of_a_batch_add_up_to_the_whole() -> None:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(6, 3, generator=generator)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    whole, _ = Loss(labels, total_samples=6).of(output(torch.zeros(1, 6, 3), logits), None)
    parts = [
        Loss(labels[i : i + 3], total_samples=6).of(output(torch.zeros(1, 3, 3), logits[i : i + 3]), None)[0]
        for i in (0, 3)
    ]
    assert float(parts[0] + parts[1]) == pytest.approx(float(whole), rel=1e-6)
