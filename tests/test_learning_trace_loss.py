"""Losses of a trace in stretches: scores and gradients are those of the whole trace by autograd."""

from __future__ import annotations

import itertools

import pytest
import torch

from snnsim.errors import InputError
from snnsim.learning import Loss, TraceLoss
from snnsim.nn.model import Output
from snnsim.nn.readouts import REDUCTIONS, Reduce, reduce_trace

STEPS, BATCH, CLASSES = 13, 5, 4
CUTS = [(0, 13), (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13), (0, 4, 5, 11, 13)]


def case(masked: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    generator = torch.Generator().manual_seed(3)
    trace = torch.randn(STEPS, BATCH, CLASSES, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, CLASSES, (BATCH,), generator=generator)
    lengths = torch.tensor([13, 3, 8, 5, 12])
    return trace, labels, torch.arange(STEPS)[:, None] < lengths if masked else None


@pytest.mark.parametrize("cuts", CUTS, ids=["whole", "steps", "uneven"])
@pytest.mark.parametrize("masked", [False, True], ids=["full", "masked"])
@pytest.mark.parametrize("skip", [0, 2])
@pytest.mark.parametrize("kind", ["cross_entropy", "per_step"])
@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_stretches_equal_the_whole(reduce: Reduce, kind: str, skip: int, masked: bool, cuts: tuple[int, ...]) -> None:
    trace, labels, mask = case(masked)
    per_step = kind == "per_step"
    loss = Loss(labels, "per_step" if per_step else "cross_entropy", 0.1, 0.05 if per_step else 0.0, total_samples=9)
    leaf = trace.clone().requires_grad_()
    logits = reduce_trace(leaf, reduce, mask=mask, skip_steps=skip)
    total, losses = loss.of(Output(logits, leaf, torch.zeros(0), [], ()), mask, skip)
    (expected,) = torch.autograd.grad(total, leaf)

    running = TraceLoss(loss, reduce, skip, STEPS, mask)
    assert running.couples is not per_step
    parts = list(itertools.pairwise(cuts))
    if running.couples:
        for start, stop in parts:
            running.watch(trace[start:stop], start)
        running.turn()
    found = torch.cat([running.gradient(trace[start:stop], start) for start, stop in parts])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(running.logits, logits.detach(), rtol=0, atol=1e-13)
    torch.testing.assert_close(running.losses, losses, rtol=0, atol=1e-13)
    assert float(expected.abs().max()) > 1e-3


def test_one_hot_and_constant_targets_of_the_squared_error() -> None:
    trace, labels, _ = case(False)
    for target, wanted in (
        ("one", torch.ones(BATCH, CLASSES).double()),
        ("one-hot", torch.eye(CLASSES).double()[labels]),
    ):
        loss = Loss(labels, "per_step", mse_share=1.0, mse_target=target)  # type: ignore[arg-type]
        losses = loss.of_samples(Output(trace[0], trace, torch.zeros(0), [], ()), None)
        torch.testing.assert_close(losses, (trace - wanted).square().mean(dim=2).mean(dim=0))


def test_a_coupled_loss_without_its_first_pass_is_refused() -> None:
    trace, labels, _ = case(False)
    running = TraceLoss(Loss(labels), "mean", 0, STEPS, None)
    with pytest.raises(InputError, match=r"couples the steps; watch\(\) every stretch and turn\(\) first"):
        running.gradient(trace, 0)
    with pytest.raises(InputError, match="mse_share belongs to kind 'per_step'"):
        Loss(labels, mse_share=0.1)
    with pytest.raises(InputError, match="the sample has only 13 steps"):
        TraceLoss(Loss(labels), "mean", 13, STEPS, None)
