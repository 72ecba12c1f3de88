"""bfloat16 factors: exactly rounded, forward and backward, only where a recipe's products are."""

from __future__ import annotations

import pytest
import torch
from device_check import pretended_device

from snnsim.datasets.toy import make_toy
from snnsim.errors import InputError
from snnsim.nn.delays import Linear
from snnsim.nn.neurons import LIF
from snnsim.nn.precision import product_dtype, products, rounded
from snnsim.nn.products import product, row_product
from snnsim.nn.recurrent import Recurrent
from snnsim.recipes import load_recipe
from snnsim.training.prepare import prepare
from snnsim.training.trainer import Trainer

SHORT = torch.bfloat16


def short(x: torch.Tensor) -> torch.Tensor:
    return x.to(SHORT).to(x.dtype)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 2), (40, 7, 33)])
def test_factors_are_rounded_and_sums_are_not(shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    a, b = torch.randn(m, k), torch.randn(k, n)
    found = product(a, b, SHORT)
    assert torch.equal(found, product(short(a), short(b)))
    assert found.dtype == torch.float32
    exact = short(a).double() @ short(b).double()
    assert torch.allclose(found.double(), exact, rtol=1e-5, atol=1e-5)
    assert torch.equal(product(a.double(), b.double(), SHORT), product(a.double(), b.double()))


def test_rounding_is_to_the_nearest_with_ties_to_even() -> None:
    step = 2.0**-7
    x = torch.tensor([1 + 0.5 * step, 1 + 1.5 * step, 1 + 0.51 * step, 3e38])
    assert rounded(x, SHORT)[:3].tolist() == [1.0, 1 + 2 * step, 1 + step]
    assert torch.isfinite(rounded(x, SHORT)).all()
    assert rounded(x, None) is x


def test_gradients_keep_the_precision_of_their_product() -> None:
    x, weight, up = torch.randn(6, 4), torch.randn(3, 4), torch.randn(6, 3)
    leaves = [item.clone().requires_grad_() for item in (x, weight)]
    with products("bf16"):
        assert product_dtype() == SHORT
        y = row_product(*leaves)
    assert product_dtype() is None
    y.backward(up)
    assert torch.equal(y, product(short(x), short(weight).t()))
    assert torch.equal(leaves[0].grad, product(short(up), short(weight)))
    assert torch.equal(leaves[1].grad, product(short(up).t(), short(x)))


def test_spikes_are_packed_as_ever() -> None:
    x = (torch.rand(6, 4) < 0.5).float().requires_grad_()
    weight, up = torch.randn(3, 4, requires_grad=True), torch.randn(6, 3)
    with products("bf16"):
        row_product(x, weight).backward(up)
    assert torch.equal(weight.grad, product(short(up).t(), x.detach()))


def test_a_device_computes_the_same() -> None:
    x, weight, up = torch.randn(6, 4), torch.randn(3, 4), torch.randn(6, 3)
    found = []
    for device in ("cpu", "cuda:0"):
        with pretended_device(), products("bf16"):
            leaves = [item.clone().to(device).requires_grad_() for item in (x, weight)]
            y = row_product(*leaves)
            y.backward(up.to(device))
            found.append([item.detach().cpu() for item in (y, leaves[0].grad, leaves[1].grad)])
    for here, there in zip(*found, strict=True):
        torch.testing.assert_close(here, there, rtol=1e-6, atol=1e-6)


def test_recurrent_products_are_rounded_too() -> None:
    layer = Recurrent(LIF(5, dt=0.01, tau_mem=0.05), torch.randn(5, 5)).train()
    current = torch.rand(20, 3, 5) * 0.6
    layer.recurrent_weight.data = short(layer.recurrent_weight.data)
    expected = layer(current)[0]
    with products("bf16"):
        assert torch.equal(layer(current)[0], expected)  # spikes and these weights are bfloat16 numbers already
        layer.recurrent_weight.data = torch.full((5, 5), 0.5 + 2.0**-11)
        found = layer(current)[0]
    layer.recurrent_weight.data = torch.full((5, 5), 0.5)
    assert torch.equal(layer(current)[0], found)


def test_layers_with_delays_and_evaluation_stay_float32() -> None:
    layer = Linear(4, 3).eval()
    x = torch.rand(5, 2, 4)
    with torch.no_grad():
        expected = layer(x)[0]
        with products("bf16"):
            assert torch.equal(layer(x)[0], expected)


@pytest.mark.parametrize("learning", ["bptt", "sltt"])
def test_a_recipe_trains_with_it(learning: str) -> None:
    toy = make_toy(n_classes=2, n_groups=4, channels_per_group=2, n_train=20, n_test=6)
    changes = ["model.hidden=[8]", "model.batch_norm=false", "train.batch_size=8", "train.loss=per_step"]
    changes += [f"train.learning={learning}"]
    found = {}
    for precision in ("float32", "bf16"):
        recipe = load_recipe("shd-lif", [*changes, f"train.precision={precision}", "train.weights.lr=1e-4"])
        trainer = Trainer(recipe, prepare(recipe, toy, 0), 0)
        trainer.begin_epoch()
        assert precision == "float32" or set(trainer.formulations.values()) == {"dense"}
        trainer.forward_backward(next(trainer.batches.epoch(0)))
        found[precision] = torch.cat([parameter.grad.flatten() for parameter in trainer.model.parameters()])
        assert all(value.dtype == torch.float32 for value in trainer.model.parameters())
    a, b = found.values()
    assert not torch.equal(a, b)
    assert torch.nn.functional.cosine_similarity(a, b, dim=0) > 0.9


@pytest.mark.parametrize(
    ("recipe", "changes", "message"),
    [
        ("shd-dcls", [], "'bf16' has no effect here: it is about products without delays"),
        ("shd-eventprop", [], "is known for learning 'bptt', 'sltt' and 'sltt-k', not for 'eventprop'"),
        ("shd-lif", ["train.formulation=events"], "'bf16' multiplies dense matrices"),
        ("digits-vgg", [], "convolutions train in float32"),
        ("digits-meta", [], "draw their synapses"),
        ("shd-lif", ["train.precision=fp8"], "float32"),
    ],
)
def test_where_it_does_nothing_it_is_refused(recipe: str, changes: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe(recipe, ["train.precision=bf16", *changes])
    assert load_recipe("shd-dcls", ["train.precision=bf16", "model.readout.connection=linear"])


def test_another_precision_is_refused() -> None:
    with pytest.raises(InputError, match="precision: expected 'float32' or 'bf16', got 'half'"), products("half"):
        pass
