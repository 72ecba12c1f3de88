"""Products out of tiles, and products of sparse inputs: values, gradients, and what chooses between them."""

import numpy as np
import pytest
import torch

from snnsim.errors import InputError
from snnsim.kernels.event_product import list_events
from snnsim.nn.delays import DelayedLinear, Linear
from snnsim.nn.formulation import EVENT_DENSITY, choose_formulations, set_formulations
from snnsim.nn.model import build_model
from snnsim.nn.products import event_row_product, product, row_product
from snnsim.recipes import load_recipe


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("m", "depth", "n"), [(1, 1, 1), (7, 5, 3), (9, 300, 40), (100, 513, 150), (64, 64, 64), (3, 0, 2)]
)
def test_products_of_every_layout(m: int, depth: int, n: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-14
    for turned_a in (False, True):
        for turned_b in (False, True):
            a = torch.randn((depth, m) if turned_a else (m, depth), generator=generator, dtype=dtype)
            b = torch.randn((n, depth) if turned_b else (depth, n), generator=generator, dtype=dtype)
            a, b = (a.t() if turned_a else a), (b.t() if turned_b else b)
            wanted = a.double() @ b.double()
            assert float((product(a, b) - wanted).norm()) <= tolerance * float(wanted.norm())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("rows", "n_in", "n_out"), [(1, 1, 1), (50, 30, 7), (300, 70, 150), (5, 3, 64), (40, 9, 20), (0, 4, 3)]
)
def test_event_products_are_products(rows: int, n_in: int, n_out: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.poisson(torch.full((rows, n_in), 0.1), generator=generator).to(dtype)
    weight = torch.randn(n_out, n_in, generator=generator, dtype=dtype).requires_grad_()
    upstream = torch.randn(rows, n_out, generator=generator, dtype=dtype)
    before, seen = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            y = event_row_product(x, weight)
            seen.append((y.detach(), *torch.autograd.grad(y, weight, upstream)))
    finally:
        torch.set_num_threads(before)
    for other in seen[1:]:
        assert all(torch.equal(a, b) for a, b in zip(seen[0], other, strict=True))
    dense = row_product(x, weight)
    wanted = (dense.detach(), *torch.autograd.grad(dense, weight, upstream))
    tolerance = 1e-6 if dtype == torch.float32 else 1e-14
    for got, value in zip(seen[0], wanted, strict=True):
        assert float((got - value).norm()) <= tolerance * float(value.norm())


def test_lists_of_events_hold_every_entry_in_order() -> None:
    x = np.random.default_rng(0).poisson(0.2, (300, 40)).astype(np.float32)
    first, column, value = list_events(x, 2)
    rows, columns = np.nonzero(x)
    assert np.array_equal(np.repeat(np.arange(300), np.diff(first)), rows)
    assert np.array_equal(column, columns)
    assert np.array_equal(value, x[rows, columns])


def test_the_first_layer_lists_events_where_the_data_are_sparse() -> None:
    recipe = load_recipe("shd-lif", ["model.hidden=[8,8]"])
    model = build_model(recipe.model, 12, 3, recipe.data.dt)
    few = choose_formulations(model, EVENT_DENSITY / 2)
    assert few == {"layer1": "events", "layer2": "dense", "readout": "dense"}
    assert choose_formulations(model, EVENT_DENSITY) == dict.fromkeys(few, "dense")
    recipe = load_recipe("shd-dcls", ["model.hidden=[8]"])
    model = build_model(recipe.model, 12, 3, recipe.data.dt)
    assert set(choose_formulations(model, 0.01).values()) == {"frequency"}
    with pytest.raises(InputError, match="between 0 and 1"):
        choose_formulations(model, 1.5)


def test_rates_of_the_epoch_before_choose_for_the_layers_behind() -> None:
    recipe = load_recipe("shd-lif", ["model.hidden=[8,8]", "model.dropout=0.5"])
    model = build_model(recipe.model, 12, 3, recipe.data.dt)
    chosen = choose_formulations(model, 1.0, [1.9 * EVENT_DENSITY, 2.1 * EVENT_DENSITY])  # half of it is dropped
    assert chosen == {"layer1": "dense", "layer2": "events", "readout": "dense"}
    assert [layer.connection.formulation for layer in model.layers()] == list(chosen.values())
    assert set(choose_formulations(model, 1.0, wish="events").values()) == {"events"}
    assert set(choose_formulations(model, 0.0, [0.0, 0.0], "dense").values()) == {"dense"}
    loaded = load_recipe("shd-lif", ["model.hidden=[8,8]", "model.dropout=0.9"])
    unknown = choose_formulations(build_model(loaded.model, 12, 3, loaded.data.dt), 1.0)
    assert set(unknown.values()) == {"dense"}  # no rate is known yet, whatever dropout takes away
    with pytest.raises(InputError, match="one a hidden layer"):
        choose_formulations(model, 1.0, [0.1])
    with pytest.raises(InputError, match="expected one of auto"):
        choose_formulations(model, 1.0, wish="fast")  # type: ignore[arg-type]


def test_a_residual_layer_hands_on_what_it_got() -> None:
    recipe = load_recipe("shd-lif", ["model.hidden=[8,8,8]", "model.dropout=0.0", "model.residual=true"])
    model = build_model(recipe.model, 12, 3, recipe.data.dt)
    share = 0.6 * EVENT_DENSITY
    chosen = choose_formulations(model, 1.0, [share, share, share])
    assert chosen == {"layer1": "dense", "layer2": "events", "layer3": "dense", "readout": "dense"}


def test_formulations_of_a_checkpoint_must_fit_the_model() -> None:
    recipe = load_recipe("shd-lif", ["model.hidden=[8]", "model.recurrent=true"])
    model = build_model(recipe.model, 12, 3, recipe.data.dt)
    chosen = choose_formulations(model, 1.0, [EVENT_DENSITY / 2])
    assert chosen == {"layer1": "dense", "layer1 recurrence": "events", "readout": "events"}
    with pytest.raises(InputError, match="expected those of layer1, layer1 recurrence, readout"):
        set_formulations(model, {"layer1": "dense"})
    with pytest.raises(InputError, match="expected one of dense, events, sparse, got 'frequency'"):
        set_formulations(model, {**chosen, "layer1": "frequency"})


def test_a_layer_of_events_gives_the_input_its_gradient_by_the_dense_product() -> None:
    layer = Linear(6, 5)
    layer.formulation = "events"
    x = torch.poisson(torch.full((9, 2, 6), 0.3)).requires_grad_()
    layer(x)[0].sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad[0, 0], layer.weight.sum(dim=0).detach())


def test_a_model_of_events_has_the_gradients_of_the_dense_one() -> None:
    recipe = load_recipe("shd-lif", ["model.hidden=[40,24]", "model.recurrent=true", "model.dropout=0.0"])
    x = torch.poisson(torch.full((30, 4, 70), 0.3), generator=torch.Generator().manual_seed(0))
    seen = []
    for wish in ("dense", "events"):
        model = build_model(recipe.model, 70, 5, recipe.data.dt)
        assert set(choose_formulations(model, 0.5, wish=wish).values()) == {wish}
        output = model(x)
        output.logits.square().sum().backward()
        assert float(output.rates.min()) > 0
        seen.append([parameter.grad for parameter in model.parameters()])
    for got, wanted in zip(*seen, strict=True):
        assert wanted is not None
        assert float((got - wanted).norm()) <= 1e-5 * float(wanted.norm())


def test_the_state_of_a_delay_layer_does_not_keep_its_whole_input() -> None:
    _, state = DelayedLinear(4, 3, max_delay_steps=5)(torch.rand(50, 2, 4))
    assert state.untyped_storage().nbytes() == state.numel() * 4
