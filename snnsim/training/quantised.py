"""Training on a target's grid: scales are chosen once, then every step sees the numbers that the target will hold.

When the grid begins, delays are rounded and fixed, batch norm becomes the affine map of evaluation, decays move to the
target's grid, and the quantiser chooses a scale for every population from training samples. From then on weights and
biases are on the grid in every pass (:mod:`snnsim.nn.quantised`). The frozen network carries the scales, and
:func:`snnsim.quantize.quantize` takes them from there, so that its integers are those that were trained.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from snnsim.errors import InputError
from snnsim.limits import Profile, load_profile
from snnsim.network import Network
from snnsim.nn.freeze import block_names, freeze
from snnsim.nn.model import SpikingModel
from snnsim.nn.parameters import NeuronModule
from snnsim.nn.quantised import Grid, on_grid
from snnsim.nn.recurrent import Recurrent
from snnsim.nn.trained import TrainedModel
from snnsim.quantize import QuantizeOptions, quantize
from snnsim.recipes import Recipe
from snnsim.recipes.quantize_schema import QuantizeSpec
from snnsim.target_check import check
from snnsim.training.prepare import Prepared, pool_units

if TYPE_CHECKING:
    from snnsim.training.trainer import Trainer

__all__ = ["TrainingGrid", "check_quantize"]

Floats = npt.NDArray[np.float64]
READOUT = "readout"

LEARNED = ("max_delay", "threshold")
"""What training may still change."""


def check_quantize(recipe: Recipe, from_run: bool) -> None:
    """Refuse a recipe that a target cannot follow, before anything is computed.

    Args:
        recipe: Recipe with a table ``quantize``.
        from_run: Whether training starts from the weights of another run.

    Raises:
        InputError: No law, no trained weights to choose scales from, or a delay window beyond the target's.
    """
    spec = recipe.quantize
    assert spec is not None
    profile = load_profile(spec.profile)
    if profile.law is None:
        raise InputError(
            f"quantize.profile: {profile.name!r} has no integer law, so there is no grid to train on; use one with a "
            "law, such as 'loihi2'"
        )
    if profile.law == "xylo":
        raise InputError(
            "quantize.profile: the law 'xylo' has no grid of weights to train on; train without [quantize]"
        )
    if spec.first_epoch(recipe.train.epochs) == 0 and not from_run:
        raise InputError(
            "quantize.start: 0 begins with trained weights; start from a run (--from RUN), or set a part of the epochs "
            "that comes first, such as quantize.start = 0.7"
        )
    neuron = recipe.model.neuron
    taus = [name for name in neuron.learn if name.startswith("tau_")]
    if profile.decay_per == "population" and neuron.learn_per == "neuron" and taus:
        raise InputError(
            f"model.neuron.learn_per: {profile.name} has one time constant a population, {', '.join(taus)} would get "
            "one a neuron; set it to 'layer'"
        )
    if profile.decay_per == "population" and recipe.model.readout.learn:
        raise InputError(
            f"model.readout.learn: {profile.name} has one time constant a population, the readout would get one a "
            "class; set learn = []"
        )
    if profile.reset_value is False and "v_reset" in neuron.learn:
        raise InputError(f"model.neuron.learn: {profile.name} resets to 0; take v_reset out")
    connection = recipe.model.connection
    if connection.kind != "delayed":
        return
    longest = connection.kernel_steps(recipe.data.dt) - 1
    if profile.delay_per == "none" and longest > 0:
        raise InputError(f"model.connection: {profile.name} has no delays; set model.connection.kind = 'linear'")
    shift = max(profile.min_delay or 0, profile.input_delay or 0)  # what a layer adds at least
    if profile.max_delay is not None and longest + shift > profile.max_delay:
        most = (profile.max_delay - shift) * recipe.data.dt
        raise InputError(
            f"model.connection.max_delay: {connection.max_delay} s is {longest} steps, {profile.name} holds "
            f"{profile.max_delay} less {shift} that a layer takes; set it to {most:.6g} or less"
        )


def check_model(model: SpikingModel, spec: QuantizeSpec) -> None:
    """Refuse a model that the target cannot hold whatever it learns, before the first epoch.

    Args:
        model: Model as it begins; it is left as it is.
        spec: Table ``quantize`` of the recipe.

    Raises:
        InputError: Its neurons, connections or sizes are not the target's.
    """
    profile = load_profile(spec.profile)
    twin = copy.deepcopy(model)
    twin.fix_delays()
    _limit_fan_in(twin, spec.fan_in or profile.max_fan_in)
    found = check(freeze(twin), profile).violations
    refused = [item.sentence() for item in found if item.subject not in LEARNED]
    if refused:
        raise InputError(f"quantize.profile: {profile.name} cannot hold this network. {' '.join(refused[:8])}")


class TrainingGrid:
    """The grids of one model for one target.

    Args:
        model: Model; its batch norms and decays are held from now on.
        profile: Target.
        scales: By population, integer units of v per float unit, ``(size,)``.
        units: By population, float value of the weight 1, ``(size,)``.
    """

    def __init__(
        self, model: TrainedModel, profile: Profile, scales: Mapping[str, Any], units: Mapping[str, Any]
    ) -> None:
        assert isinstance(model, SpikingModel)  # a recipe with [quantize] has no other
        self.model, self.profile = model, profile
        self.scales = {name: np.asarray(value, dtype=np.float64) for name, value in scales.items()}
        self.units = {name: np.asarray(value, dtype=np.float64) for name, value in units.items()}
        self.hold()
        self.grids = list(self._grids())

    @classmethod
    def begin(cls, trainer: Trainer) -> TrainingGrid:
        """Choose the scales for a model as it stands, and put its decays and delays on the grid.

        Raises:
            InputError: The target cannot hold the network; the message says why and what to change.
        """
        spec, model, data = trainer.recipe.quantize, trainer.model, trainer.data
        assert spec is not None
        assert isinstance(model, SpikingModel)
        profile = load_profile(spec.profile)
        model.fix_delays()
        _limit_fan_in(model, spec.fan_in or profile.max_fan_in)
        options = QuantizeOptions(scale=spec.scale, calibration_samples=spec.samples)
        few = _few(data, spec)
        integer, report = quantize(
            freeze(model), profile, options=options, calibration=few, tail_steps=int(model.tail_steps)
        )
        errors = {item.population: item for item in report.layers}
        for name, neuron in _neurons(model):
            hold_decays(neuron, errors[name].beta_error, errors[name].alpha_error)
        units = {name: item.unit for name, item in errors.items()}
        if any(unit is None for unit in units.values()):
            raise InputError(f"quantize.profile: the law {profile.law!r} has no grid of weights to train on")
        return cls(model, profile, integer.scale, units)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps, as plain values."""
        plain = {name: value.tolist() for name, value in self.scales.items()}
        return {"scales": plain, "units": {name: value.tolist() for name, value in self.units.items()}}

    def notes(self) -> dict[str, Any]:
        """Return what a frozen network keeps, so that the quantiser finds the same integers again."""
        return {"profile": self.profile.name, **self.state()}

    def hold(self) -> None:
        """Let batch norms be the maps of evaluation, and nothing of the neurons learn; after every ``train()``."""
        for layer in self.model.layers():
            norm = getattr(layer, "norm", None)
            if norm is not None:
                norm.eval()
                norm.weight.requires_grad_(False)
        self.model.fix_delays()
        for _, neuron in _neurons(self.model):
            for parameter in neuron.parameters():
                parameter.requires_grad_(False)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Compute with the numbers of the grid."""
        with on_grid(self.grids):
            yield

    def after_update(self) -> None:
        """Keep what was learned between the ends of the grid."""
        for grid in self.grids:
            grid.clamp_()

    def _grids(self) -> Iterator[Grid]:
        network = freeze(self.model)
        step = 2 if self.profile.weight_even else 1
        weights = (step, -(-self.profile.weight_low // step) * step, self.profile.weight_high // step * step)
        most = 2 ** ((self.profile.bias_bits or 32) - 1)
        for name, layer in zip([*block_names(self.model), READOUT], self.model.layers(), strict=True):
            by_arrival, by_drive = _gains(network, name)
            device = layer.connection.weight.device
            unit, own = (torch.from_numpy(self.units[name] / gain).to(device) for gain in (by_arrival, by_drive))
            connection, norm = layer.connection, getattr(layer, "norm", None)
            scale = torch.ones_like(unit) if norm is None else norm.affine(torch.float64)[0].detach()
            if bool((scale == 0).any()):
                raise InputError(f"quantize: {name}: batch norm multiplies some inputs by 0; prune these neurons first")
            weight = connection.weight
            row = (unit / scale.abs()).view(-1, *[1] * (weight.dim() - 1))
            yield Grid(weight, row, torch.zeros_like(row), *weights)
            neuron = getattr(layer, "neuron", None)
            if isinstance(neuron, Recurrent):
                yield Grid(neuron.recurrent_weight, unit.view(-1, 1), unit.new_zeros(1, 1), *weights)
            if connection.bias is not None:
                shift = torch.zeros_like(own)
                yield Grid(connection.bias, own / scale.abs(), shift, 1, -most, most - 1)
            if norm is not None:
                at_zero = norm.running_mean.double() * scale
                yield Grid(norm.bias, own, at_zero, 1, -most, most - 1)


def _neurons(model: SpikingModel) -> Iterator[tuple[str, NeuronModule]]:
    for name, layer in zip([*block_names(model), READOUT], model.layers(), strict=True):
        neuron = layer.neuron
        yield name, neuron.neuron if isinstance(neuron, Recurrent) else neuron


def _gains(network: Network, name: str) -> tuple[Floats, Floats]:
    """Return what the weight of an arrival and a steady drive are multiplied by on their way to the membrane."""
    population = network.population(name)
    step = population.neuron.step(population.size, network.dt)
    if not step.current:
        return np.ones(population.size), np.ones(population.size)
    return step.kappa, step.kappa / np.where(step.alpha < 1, 1 - step.alpha, 1.0)


def _few(data: Prepared, spec: QuantizeSpec) -> Any:
    events = data.train
    return pool_units(events.subset(np.arange(min(spec.samples, len(events)))), data.pool)


@torch.no_grad()
def hold_decays(neuron: NeuronModule, beta_error: Floats, alpha_error: Floats) -> None:
    """Move the decays per step of neurons by what the target rounds them by; they learn no more."""
    for name, error in (("beta", beta_error), ("alpha", alpha_error)):
        if error.size == 0:
            continue
        value = np.asarray(neuron.number(name), dtype=np.float64)
        moved = value + (error if value.ndim else error.flat[0])
        neuron.fix(name, moved)


@torch.no_grad()
def _limit_fan_in(model: SpikingModel, most: int | None) -> None:
    """Leave every neuron its largest synapses, at most ``most`` of them over all that end at it."""
    if most is None:
        return
    for layer in model.layers():
        connection, neuron = layer.connection, getattr(layer, "neuron", None)
        parts: list[Any] = [connection, *([neuron] if isinstance(neuron, Recurrent) else [])]
        sizes = [part.existing_weight().detach().abs().flatten(1) for part in parts]
        whole: Tensor = torch.cat(sizes, dim=1)
        if int((whole > 0).sum(dim=1).max()) <= most:
            continue
        rank = whole.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        kept = (rank < most) & (whole > 0)
        for part, piece in zip(parts, torch.split(kept, [size.shape[1] for size in sizes], dim=1), strict=True):
            part.set_mask(piece.view_as(part.existing_weight()))
