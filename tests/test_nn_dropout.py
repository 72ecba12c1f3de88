"""Sequence dropout: one mask a sequence, keyed by sample and epoch, never by the place in a batch."""

import pytest
import torch

from snnsim.errors import InputError
from snnsim.nn.context import Context
from snnsim.nn.dropout import SequenceDropout


def test_mask_holds_for_the_whole_sequence_and_keeps_the_mean() -> None:
    layer = SequenceDropout(0.4, layer=3)
    y, state = layer(torch.ones(6, 50, 80), None, Context(sample_id=torch.arange(50)))
    assert state is None
    assert torch.equal(y, y[:1].expand_as(y))
    assert set(y.unique().tolist()) == {0.0, torch.tensor(1 / 0.6).item()}
    assert float((y == 0).float().mean()) == pytest.approx(0.4, abs=0.03)


def test_mask_belongs_to_the_sample_the_epoch_the_seed_and_the_layer() -> None:
    layer, x = SequenceDropout(0.5), torch.ones(1, 4, 200)
    ids = torch.tensor([7, 3, 900_000, 12])
    y = layer(x, None, Context(sample_id=ids))[0]
    order = torch.tensor([2, 0, 3, 1])
    assert torch.equal(layer(x, None, Context(sample_id=ids[order]))[0], y[:, order])
    assert torch.equal(layer(x[:, :1], None, Context(sample_id=ids[1:2]))[0], y[:, 1:2])
    assert torch.equal(layer(x[:, :, :20], None, Context(sample_id=ids))[0], y[:, :, :20])
    assert not torch.equal(y[:, 0], y[:, 1])
    for other in (
        layer(x, None, Context(sample_id=ids, epoch=1))[0],
        layer(x, None, Context(sample_id=ids, seed=1))[0],
        SequenceDropout(0.5, layer=1)(x, None, Context(sample_id=ids))[0],
    ):
        assert 0.4 < float((other == y).float().mean()) < 0.6


def test_gradient_is_the_mask() -> None:
    layer, x = SequenceDropout(0.3), torch.ones(3, 2, 40, dtype=torch.float64, requires_grad=True)
    y, _ = layer(x, None, Context(sample_id=torch.tensor([1, 2])))
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(grad, y.detach())


def test_evaluation_and_zero_probability_change_nothing() -> None:
    x = torch.ones(3, 2, 4)
    assert SequenceDropout(0.5).eval()(x)[0] is x
    assert SequenceDropout(0.0)(x)[0] is x


def test_mistakes_are_refused() -> None:
    with pytest.raises(InputError, match=r"probability in \[0, 1\), got 1"):
        SequenceDropout(1)
    with pytest.raises(InputError, match="layer index >= 0"):
        SequenceDropout(0.1, layer=-1)
    with pytest.raises(InputError, match=r"expected Context\(sample_id=...\) in training"):
        SequenceDropout(0.1)(torch.ones(1, 1, 1))
    with pytest.raises(InputError, match=r"sample ids of shape \(2,\), got \(3,\)"):
        SequenceDropout(0.1)(torch.ones(1, 2, 1), None, Context(sample_id=torch.arange(3)))
