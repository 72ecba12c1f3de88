"""Masked layers: missing synapses stay missing in training, checkpoints, freeze, save, thaw and export."""

from pathlib import Path

import numpy as np
import pytest
import torch

from snnsim.errors import InputError
from snnsim.export.nir import write_nir
from snnsim.export.nir_read import read_nir
from snnsim.export.proof import prove
from snnsim.network import Network, Projection, Sparse
from snnsim.nn.delays import DelayedLinear, Linear
from snnsim.nn.formulation import SPARSE_DENSITY, choose_formulations, maskable_layers
from snnsim.nn.freeze import ModelJudge, freeze
from snnsim.nn.masks import clear_masked_state, densities, mask_gradients, revealed
from snnsim.nn.model import SpikingModel, build_model
from snnsim.nn.neurons import LIF
from snnsim.nn.recurrent import Recurrent
from snnsim.nn.thaw import thaw
from snnsim.recipes import load_recipe


def model_of(recipe: str, *changes: str, seed: int = 0) -> SpikingModel:
    loaded = load_recipe(recipe, ["model.hidden=[24,16]", "model.dropout=0.0", *changes])
    model = build_model(loaded.model, 20, 4, loaded.data.dt, seed)
    assert isinstance(model, SpikingModel)
    return model


def with_masks(model: SpikingModel, keep: float = 0.3) -> SpikingModel:
    generator = torch.Generator().manual_seed(7)
    for layer in maskable_layers(model).values():
        weight = getattr(layer, layer.mask_of)
        layer.set_mask(torch.rand(weight.shape, generator=generator) < keep)
        weight.data *= 3.0
    return model


def counts(model: SpikingModel, steps: int = 40, batch: int = 6) -> torch.Tensor:
    return torch.poisson(torch.full((steps, batch, model.n_inputs), 0.3), generator=torch.Generator().manual_seed(1))


def densified(projection: Projection, dt: float) -> Projection:
    """Return the same synapses as a dense matrix."""
    s = projection.synapses(dt)
    source = np.repeat(np.arange(projection.shape[1]), np.diff(s.indptr))
    weight, delay = np.zeros(projection.shape), np.zeros(projection.shape)
    weight[s.target, source], delay[s.target, source] = s.weight, s.delay_steps * dt
    return Projection(projection.source, projection.target, weight, delay)


MODELS = {
    "linear": ("shd-lif", ()),
    "recurrent": ("shd-lif", ("model.recurrent=true",)),
    "delayed": ("shd-dcls", ("model.connection.max_delay=0.1", "model.connection.taps=2")),
    "axonal": ("shd-dcls", ("model.connection.max_delay=0.1", "model.connection.per=axon")),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_an_optimiser_never_moves_a_missing_synapse(name: str, optimiser: str) -> None:
    recipe, changes = MODELS[name]
    model = with_masks(model_of(recipe, *changes)).train()
    parameters = list(model.parameters())
    step: torch.optim.Optimizer
    if optimiser == "adam":
        step = torch.optim.Adam(parameters, lr=0.01, weight_decay=0.1)
    else:
        step = torch.optim.SGD(parameters, lr=0.01, momentum=0.9, weight_decay=0.1)
    x = counts(model)
    before = [getattr(layer, layer.mask_of).detach().clone() for layer in maskable_layers(model).values()]
    for _ in range(3):
        step.zero_grad()
        model(x).logits.square().sum().backward()
        step.step()
        model.clamp_()
    for old, layer in zip(before, maskable_layers(model).values(), strict=True):
        weight = getattr(layer, layer.mask_of)
        assert layer.mask is not None
        assert not weight[~layer.mask].any()
        assert not torch.equal(weight[layer.mask], old[layer.mask])


def test_momentum_from_before_the_mask_is_without_effect_and_can_be_forgotten() -> None:
    layer = Linear(6, 5, generator=torch.Generator().manual_seed(0))
    step = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    x = torch.ones(4, 2, 6)
    layer(x)[0].sum().backward()
    step.step()
    layer.set_mask(torch.arange(30).view(5, 6) % 2 == 0)
    step.zero_grad()
    layer(x)[0].sum().backward()
    step.step()
    assert layer.mask is not None
    assert layer.weight[~layer.mask].any()  # the momentum did move them,
    assert not layer.existing_weight()[~layer.mask].any()  # but they do not act
    layer.clamp_()
    assert not layer.weight[~layer.mask].any()
    clear_masked_state(layer, [step])
    assert not step.state[layer.weight]["momentum_buffer"][~layer.mask].any()
    assert step.state[layer.weight]["momentum_buffer"][layer.mask].all()


@pytest.mark.parametrize("name", MODELS)
def test_masks_are_in_the_state_dict_and_come_back(name: str) -> None:
    recipe, changes = MODELS[name]
    model = with_masks(model_of(recipe, *changes))
    fresh = model_of(recipe, *changes, seed=3)
    fresh.load_state_dict(model.state_dict())
    x = counts(model)
    assert torch.equal(model.eval()(x).logits, fresh.eval()(x).logits)
    assert densities(fresh) == densities(model)
    plain = model_of(recipe, *changes, seed=5)
    fresh.load_state_dict(plain.state_dict())  # without a mask: all synapses again
    assert set(densities(fresh).values()) == {1.0}


@pytest.mark.parametrize("name", MODELS)
def test_frozen_masks_leave_sparse_synapses_and_the_same_spikes(name: str, tmp_path: Path) -> None:
    recipe, changes = MODELS[name]
    model = with_masks(model_of(recipe, *changes)).double().eval()
    network = freeze(model)
    assert all(isinstance(item.weight, Sparse) for item in network.projections)
    stored = sum(item.weight.nnz for item in network.projections if isinstance(item.weight, Sparse))
    kept = sum(int(layer.mask.sum()) for layer in maskable_layers(model).values() if layer.mask is not None)
    assert stored == kept
    again = Network.load(network.save(tmp_path / "masked.snn.h5"))
    assert again == network
    proof = prove(again, ModelJudge(model), n_samples=8, n_steps=60, mutate=False)
    assert proof.equal
    assert all(count > 20 for name, count in proof.spikes.items() if name.startswith("hidden")), proof.spikes
    dense = network.replace(projections=tuple(densified(item, network.dt) for item in network.projections))
    assert prove(dense, ModelJudge(model), n_samples=8, n_steps=60, mutate=False).equal
    thawed = thaw(network)
    for mine, other in zip(maskable_layers(model).values(), maskable_layers(thawed).values(), strict=True):
        assert mine.mask is not None
        assert other.mask is not None
        assert torch.equal(mine.mask, other.mask)
    assert prove(freeze(thawed), ModelJudge(model), n_samples=8, n_steps=60, mutate=False).equal


def test_gradients_reach_missing_synapses_only_when_revealed() -> None:
    layer = Linear(4, 3)
    layer.set_mask(torch.tensor([[1, 0, 1, 0]] * 3))
    x = torch.ones(5, 2, 4)
    layer(x)[0].sum().backward()
    assert layer.weight.grad is not None
    assert not layer.weight.grad[:, 1].any()
    layer.weight.grad = None
    with revealed(layer):
        layer(x)[0].sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.eq(10).all()
    mask_gradients(layer)
    assert not layer.weight.grad[:, 1].any()
    assert layer.weight.grad[:, 0].eq(10).all()


def test_masks_of_another_shape_are_refused() -> None:
    with pytest.raises(InputError, match=r"Linear: mask: expected shape \(3, 4\), got \(4, 3\)"):
        Linear(4, 3).set_mask(torch.ones(4, 3))
    delayed = DelayedLinear(4, 3, max_delay_steps=5, taps=2)
    delayed.set_mask(torch.eye(3, 4))
    assert delayed.density == pytest.approx(0.25)
    with pytest.raises(InputError, match=r"expected shape \(3, 3\)"):
        Recurrent(LIF(3, dt=0.001)).set_mask([True])
    delayed.set_mask(None)
    assert delayed.mask is None


def test_few_synapses_choose_the_sparse_product() -> None:
    model = model_of("shd-lif")
    layers = maskable_layers(model)
    layers["layer2"].set_mask(torch.arange(16 * 24).view(16, 24) % 10 == 0)
    chosen = choose_formulations(model, 1.0)
    assert chosen == {"layer1": "dense", "layer2": "sparse", "readout": "dense"}
    layers["layer2"].set_mask(torch.arange(16 * 24).view(16, 24) % 20 < 20 * SPARSE_DENSITY + 1)
    assert choose_formulations(model, 1.0)["layer2"] == "dense"
    layers["layer1"].set_mask(torch.arange(24 * 20).view(24, 20) % 10 == 0)
    assert choose_formulations(model, 1.0)["layer1"] == "sparse"
    assert choose_formulations(model, 0.001)["layer1"] == "events"  # its input is emptier still


def test_an_exported_network_has_the_masked_synapses_only(tmp_path: Path) -> None:
    model = with_masks(model_of("shd-lif", "model.batch_norm=false")).double().eval()
    network = freeze(model)
    write_nir(network, tmp_path / "masked.nir")
    read = read_nir(tmp_path / "masked.nir")
    assert sum(item.n_synapses for item in read.projections) == sum(item.n_synapses for item in network.projections)
