"""Delay and recurrent layers along their synapses equal masked dense ones: values, gradients, choice, threads."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from snnsim.errors import InputError
from snnsim.kernels import reference_sparse
from snnsim.kernels.sparse_spectral import sparse_spectra_backward, sparse_spectra_forward, sparse_spectra_weights
from snnsim.nn.delays import DelayedLinear
from snnsim.nn.formulation import (
    DELAY_SPARSE_DENSITY,
    RECURRENT_SPARSE_DENSITY,
    choose_formulations,
    maskable_layers,
    set_formulations,
)
from snnsim.nn.masks import revealed
from snnsim.nn.model import SpikingModel, build_model
from snnsim.nn.neurons import LIF, AdaptiveLIF, CubaLIF
from snnsim.nn.recurrent import Recurrent
from snnsim.nn.sparse import SynapseOrder
from snnsim.nn.sparse_delays import sparse_delay
from snnsim.recipes import load_recipe

TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-10}


@contextmanager
def threads_back() -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def near(got: torch.Tensor, wanted: torch.Tensor, tolerance: float) -> bool:
    return float((got - wanted).norm()) <= tolerance * float(wanted.norm())


def mask_of(shape: tuple[int, ...], density: float) -> torch.Tensor:
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(5)) < density
    mask[shape[0] // 2] = False  # a target without synapses
    mask[:, 1] = False  # and a source
    return mask


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("batch", [3, 70])
def test_spectral_products_are_those_of_the_reference(dtype: type, batch: int) -> None:
    rng, frequencies, n_in, n_out = np.random.default_rng(0), 3, 9, 37
    mask = rng.random((n_out, n_in)) < 0.3
    order = SynapseOrder.of(mask)
    source, target = (part.astype(np.int32) for part in np.nonzero(mask.T))

    def spectra(*shape: int) -> tuple[np.ndarray, np.ndarray]:
        values = rng.standard_normal((frequencies, 2, *shape)).astype(dtype)
        return values.reshape(-1), values[:, 0].astype(np.float64) + 1j * values[:, 1]

    (x, cx), (h, ch), (up, cup) = spectra(batch, n_in), spectra(order.n_synapses), spectra(batch, n_out)
    y, dx, dh, again = (np.zeros_like(part) for part in (up, x, h, h))
    rows = {"x": batch * n_in, "h": order.n_synapses, "y": batch * n_out}
    ends = (order.by_target, order.source, order.along_source, batch, n_in, n_out)
    sparse_spectra_forward(x, rows["x"], h, rows["h"], *ends, y, rows["y"], 0, frequencies)
    by_source = (order.by_source, order.target, batch, n_in, n_out)
    given = (x, rows["x"], up, rows["y"])
    sparse_spectra_backward(*given, h, rows["h"], *by_source, dx, rows["x"], dh, 0, frequencies)
    sparse_spectra_weights(*given, rows["h"], *by_source, again, 0, frequencies)
    wanted = (
        reference_sparse.sparse_spectra_forward(cx, target, source, ch, n_out),
        *reference_sparse.sparse_spectra_backward(cx, cup, target, source, ch),
    )
    for got, value in zip((y, dx, dh), wanted, strict=True):
        parts = got.reshape(frequencies, 2, *value.shape[1:]).astype(np.float64)
        difference = parts[:, 0] + 1j * parts[:, 1] - value
        assert np.linalg.norm(difference) <= (1e-6 if dtype is np.float32 else 1e-14) * np.linalg.norm(value)
    np.testing.assert_array_equal(again, dh)


def test_the_layer_is_the_causal_sum_over_its_synapses() -> None:
    mask = mask_of((6, 5), 0.5).numpy()
    order, rng = SynapseOrder.of(mask), np.random.default_rng(1)
    source, target = (part.astype(np.int32) for part in np.nonzero(mask.T))
    for n_steps in (1, 4, 30):
        x, kernel = rng.standard_normal((n_steps, 2, 5)), rng.standard_normal((7, order.n_synapses))
        y = sparse_delay(torch.from_numpy(x), torch.from_numpy(kernel), order)
        np.testing.assert_allclose(y.numpy(), reference_sparse.sparse_delay(x, target, source, kernel, 6), atol=1e-12)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("version", "taps", "per", "fixed"),
    [
        ("gauss", 1, "synapse", False),
        ("gauss", 2, "synapse", True),
        ("max", 3, "axon", False),
        ("v0", 2, "dendrite", False),
    ],
)
def test_a_masked_delay_layer_has_the_gradients_of_the_dense_one(
    dtype: torch.dtype, version: str, taps: int, per: str, fixed: bool
) -> None:
    generator = torch.Generator().manual_seed(0)
    kinds = {"version": version, "taps": taps, "per": per}
    layer = DelayedLinear(23, 31, max_delay_steps=12, sigma=1.5, generator=generator, **kinds).to(dtype).train()
    layer.set_mask(mask_of((31, 23, taps), 0.2))
    if fixed:
        layer.fix_delays()
    x = (torch.rand(40, 70, 23, generator=generator) < 0.2).to(dtype)
    upstream = torch.randn(40, 70, 31, generator=generator, dtype=dtype)
    with threads_back():
        for learns in (True, False):
            x.requires_grad_(learns)
            values = [value for value in (x, layer.weight, layer.position) if value.requires_grad]
            found = {}
            for way, threads in (("frequency", 1), ("sparse", 1), ("sparse", 3)):
                layer.formulation = way
                torch.set_num_threads(threads)
                y, _ = layer(x)
                found[way, threads] = [y.detach(), *torch.autograd.grad(y, values, upstream)]
            for a, b in zip(found["sparse", 1], found["frequency", 1], strict=True):
                assert near(a, b, TOLERANCE[dtype])
            for a, b in zip(found["sparse", 1], found["sparse", 3], strict=True):
                assert torch.equal(a, b)
            assert not found["sparse", 1][1 + learns][~layer.mask].any()


def test_a_delay_layer_without_synapses_or_steps_and_growing_ones_compute_densely() -> None:
    layer = DelayedLinear(4, 3, max_delay_steps=5).train()
    layer.formulation = "sparse"
    layer.set_mask(torch.zeros(3, 4, dtype=torch.bool))
    x = torch.rand(6, 2, 4)
    assert not layer(x)[0].any()
    layer.weight.data.fill_(1.0)
    layer.set_mask(mask_of((3, 4), 0.9))
    assert layer(x[:0])[0].shape == (0, 2, 3)
    with revealed(layer):
        y, _ = layer(x)
        (gradient,) = torch.autograd.grad(y.square().sum(), layer.weight)
    assert gradient[~layer.mask].any()  # where a synapse could grow


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", [LIF, CubaLIF, AdaptiveLIF])
@pytest.mark.parametrize("delay", [1, 3])
def test_a_masked_recurrent_layer_has_the_gradients_of_the_dense_one(
    dtype: torch.dtype, kind: type, delay: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(37, 37, generator=generator) * 0.3
    layer = Recurrent(kind(37, dt=0.001, learn=["tau_mem"]), weight, delay_steps=delay).to(dtype).train()
    layer.set_mask(mask_of((37, 37), 0.2))
    scale = 4.0 if kind is CubaLIF else 0.6
    x = (torch.rand(25, 70, 37, generator=generator) * scale).to(dtype).requires_grad_()
    upstream = torch.randn(25, 70, 37, generator=generator, dtype=dtype)
    values = [x, *layer.parameters()]
    found = {}
    with threads_back():
        for way, threads in (("dense", 1), ("sparse", 1), ("sparse", 3)):
            layer.formulation = way
            torch.set_num_threads(threads)
            y, _ = layer(x)
            found[way, threads] = [y.detach(), *torch.autograd.grad(y, values, upstream)]
    assert torch.equal(found["sparse", 1][0], found["dense", 1][0])
    assert 0.01 < float(found["dense", 1][0].mean()) < 0.5
    for a, b in zip(found["sparse", 1], found["dense", 1], strict=True):
        assert near(a, b, TOLERANCE[dtype])
    for a, b in zip(found["sparse", 1], found["sparse", 3], strict=True):
        assert torch.equal(a, b)
    short, _ = layer(x[:delay])  # nothing has arrived yet: no gradient of the weights
    assert not torch.autograd.grad(short.sum(), layer.recurrent_weight)[0].any()


def model_of(recipe: str, *changes: str) -> SpikingModel:
    loaded = load_recipe(recipe, ["model.hidden=[24,16]", "model.dropout=0.0", *changes])
    model = build_model(loaded.model, 20, 4, loaded.data.dt, 0)
    assert isinstance(model, SpikingModel)
    return model


def test_sparse_delay_and_recurrent_layers_are_chosen_by_what_their_masks_have_left() -> None:
    model = model_of("shd-dcls", "model.connection.taps=2")
    layers = maskable_layers(model)
    assert set(choose_formulations(model, 1.0).values()) == {"frequency"}
    layers["layer1"].set_mask(torch.arange(24 * 20).reshape(24, 20) < 480 * DELAY_SPARSE_DENSITY - 1)
    layers["layer2"].set_mask(torch.arange(16 * 24).reshape(16, 24) < 384 * DELAY_SPARSE_DENSITY + 1)
    one = torch.rand(4, 16, 2, generator=torch.Generator().manual_seed(0)) < 0.3  # half of the pairs have a tap
    layers["readout"].set_mask(one)
    assert layers["readout"].pair_density > DELAY_SPARSE_DENSITY > layers["readout"].density
    chosen = choose_formulations(model, 1.0)
    assert chosen == {"layer1": "sparse", "layer2": "frequency", "readout": "frequency"}
    assert choose_formulations(model, 1.0, wish="dense")["layer1"] == "frequency"
    set_formulations(model, chosen)
    assert layers["layer1"].formulation == "sparse"
    with pytest.raises(InputError, match="layer1: expected one of frequency, sparse, got 'dense'"):
        set_formulations(model, {**chosen, "layer1": "dense"})

    loop = model_of("shd-lif", "model.recurrent=true")
    inner = maskable_layers(loop)["layer1 recurrence"]
    assert choose_formulations(loop, 1.0)["layer1 recurrence"] == "dense"
    inner.set_mask(torch.arange(576).reshape(24, 24) < 576 * RECURRENT_SPARSE_DENSITY - 1)
    assert choose_formulations(loop, 1.0, [0.01, 0.01])["layer1 recurrence"] == "sparse"
    inner.set_mask(torch.arange(576).reshape(24, 24) < 576 * RECURRENT_SPARSE_DENSITY + 1)
    assert choose_formulations(loop, 1.0, [0.01, 0.01])["layer1 recurrence"] == "events"


@pytest.mark.parametrize("kind", ["delay", "recurrent"])
def test_twenty_steps_of_training_end_at_the_same_weights(kind: str) -> None:
    ends = {}
    for sparse in (False, True):
        generator = torch.Generator().manual_seed(3)
        layer: DelayedLinear | Recurrent
        if kind == "delay":
            layer = DelayedLinear(16, 16, max_delay_steps=6, sigma=1.0, generator=generator)
        else:
            layer = Recurrent(LIF(16, dt=0.001), torch.randn(16, 16, generator=generator))
        layer = layer.double().train()
        layer.set_mask(mask_of((16, 16), 0.3))
        layer.formulation = "sparse" if sparse else "frequency" if kind == "delay" else "dense"
        begin = layer.weight.detach().clone()
        optimiser = torch.optim.Adam([p for p in layer.parameters() if p.requires_grad], lr=1e-2)
        for _ in range(20):
            x = torch.rand(15, 8, 16, dtype=torch.float64, generator=generator)
            loss = (layer(x)[0].mean(dim=0) - 0.2).square().sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            layer.clamp_()
        ends[sparse] = torch.cat([p.detach().reshape(-1) for p in layer.parameters()])
        assert float((layer.weight.detach() - begin).abs().max()) > 0.05
    torch.testing.assert_close(ends[True], ends[False], rtol=1e-8, atol=1e-8)
