"""Masks: synapses that a layer does not have. They survive training, checkpoints, freeze and thaw.

A masked weight is exactly 0. The forward pass multiplies by the mask, so no gradient reaches it; :func:`enforce_masks`
and every layer's ``clamp_`` put back to 0 what an optimiser's momentum may have moved. The mask is a buffer of the
layer: in its state dict, and restored from one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from snnsim.errors import InputError
from snnsim.nn.sparse import SynapseOrder

if TYPE_CHECKING:
    from snnsim.nn.trained import TrainedModel

__all__ = [
    "MaskedWeights",
    "clear_masked_state",
    "densities",
    "enforce_masks",
    "mask_gradients",
    "masked_layers",
    "revealed",
]


class MaskedWeights(nn.Module):
    """A module one of whose weights may have a mask.

    Attributes:
        mask: Buffer, bool, the weight's shape: which synapses exist; None while all do.
    """

    mask: Tensor | None
    mask_of = "weight"
    """Name of the weight that the mask is for."""

    def _add_mask(self) -> None:
        self.register_buffer("mask", None)
        self._order: SynapseOrder | None = None
        self._revealed = False

    @torch.no_grad()
    def set_mask(self, mask: Any) -> None:
        """Say which synapses exist; the weights of the others become 0.

        Args:
            mask: Bool (or 0 and 1), the weight's shape; of a layer with taps also (n_out, n_in), for all taps of a
                synapse. None: all exist, those that did not have weight 0.

        Raises:
            InputError: The shape is another one.
        """
        weight: Tensor = getattr(self, self.mask_of)
        self._order = None
        if mask is None:
            self.mask = None
            return
        given = torch.as_tensor(mask)
        if given.dim() == 2 and weight.dim() == 3:
            given = given.unsqueeze(2).expand(weight.shape)
        if given.shape != weight.shape:
            raise InputError(
                f"{type(self).__name__}: mask: expected shape {tuple(weight.shape)}, got {tuple(given.shape)}; "
                "it has an entry for every weight [target, source]"
            )
        self.mask = given.to(torch.bool).to(weight.device).clone().contiguous()
        self.enforce_mask_()

    @torch.no_grad()
    def enforce_mask_(self) -> None:
        """Set the weights of missing synapses to exactly 0."""
        if self.mask is not None:
            getattr(self, self.mask_of).masked_fill_(~self.mask, 0.0)

    def existing_weight(self) -> Tensor:
        """Return the weight with 0 for missing synapses; its gradient is 0 there too."""
        weight: Tensor = getattr(self, self.mask_of)
        return weight if self.mask is None or self._revealed else weight.masked_fill(~self.mask, 0.0)

    @property
    def density(self) -> float:
        """Return the share of synapses that exist."""
        return 1.0 if self.mask is None else int(self.mask.sum()) / max(1, self.mask.numel())

    @property
    def pair_density(self) -> float:
        """Return the share of pairs of neurons between which at least one tap exists."""
        if self.mask is None:
            return 1.0
        order = self.order
        return order.n_synapses / max(1, order.n_out * order.n_in)

    @property
    def order(self) -> SynapseOrder:
        """Return the existing synapses by target and by source; of a layer with taps those with at least one."""
        if self._order is None:
            weight: Tensor = getattr(self, self.mask_of)
            exists = np.ones(tuple(weight.shape), bool) if self.mask is None else self.mask.cpu().numpy()
            self._order = SynapseOrder.of(np.asarray(exists.any(axis=2)) if exists.ndim == 3 else exists)
        return self._order

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *arguments: Any) -> None:
        stored = state_dict.get(f"{prefix}mask")
        if stored is None:
            self.mask = None
        elif self.mask is None or self.mask.shape != stored.shape:
            self.mask = torch.ones_like(stored, dtype=torch.bool, device=getattr(self, self.mask_of).device)
        self._order = None
        super()._load_from_state_dict(state_dict, prefix, *arguments)


def masked_layers(model: nn.Module) -> dict[str, MaskedWeights]:
    """Return the modules with a mask by their name in the model."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, MaskedWeights) and module.mask is not None
    }


def enforce_masks(model: nn.Module) -> None:
    """Set all weights of missing synapses to exactly 0; call it after a step of an optimiser of your own."""
    for module in masked_layers(model).values():
        module.enforce_mask_()


@torch.no_grad()
def mask_gradients(model: nn.Module) -> None:
    """Set the gradients of missing synapses to 0; for learning rules that compute gradients of whole matrices."""
    for module in masked_layers(model).values():
        gradient = getattr(module, module.mask_of).grad
        if gradient is not None and module.mask is not None:
            gradient.masked_fill_(~module.mask, 0.0)


@torch.no_grad()
def clear_masked_state(model: nn.Module, optimisers: list[torch.optim.Optimizer]) -> None:
    """Forget momentum and squared gradients of missing synapses, so that one that grows starts from nothing."""
    for module in masked_layers(model).values():
        weight, mask = getattr(module, module.mask_of), module.mask
        for optimiser in optimisers:
            for value in optimiser.state.get(weight, {}).values():
                if mask is not None and isinstance(value, Tensor) and value.shape == weight.shape:
                    value.masked_fill_(~mask, 0.0)


@contextmanager
def revealed(model: nn.Module) -> Iterator[None]:
    """Let gradients reach missing synapses too, whose weights are 0: what says which of them should grow."""
    modules = list(masked_layers(model).values())
    for module in modules:
        module.enforce_mask_()
        module._revealed = True
    try:
        yield
    finally:
        for module in modules:
            module._revealed = False


def densities(model: TrainedModel) -> dict[str, float]:
    """Return the share of existing synapses of every layer that can have a mask, by name (``layer1``, ``readout``)."""
    from snnsim.nn.formulation import maskable_layers

    return {name: module.density for name, module in maskable_layers(model).items()}
