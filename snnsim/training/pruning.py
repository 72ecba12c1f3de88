"""Pruning inside a training run: when masks change, how they are chosen, and what they do to the rest of the state.

Everything follows from the recipe, the seed, the step and the model; nothing is kept between calls, so a run that was
stopped and resumed prunes the same synapses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from snnsim.errors import InputError
from snnsim.nn.formulation import maskable_layers
from snnsim.nn.masks import MaskedWeights, clear_masked_state
from snnsim.nn.model import SpikingModel
from snnsim.nn.recurrent import Recurrent
from snnsim.pruning import baselines
from snnsim.pruning.densities import layer_budgets
from snnsim.pruning.dynamic import deep_r_update, rigl_fraction, rigl_update
from snnsim.pruning.masks import Mask, keep_largest, kept_share, random_scores, unreached_outputs
from snnsim.training.pruning_scores import neuron_rates, snip_scores

if TYPE_CHECKING:
    from snnsim.recipes.schema import PruneSpec
    from snnsim.training.trainer import Trainer

__all__ = ["Pruner"]

Floats = npt.NDArray[np.floating[Any]]


class Pruner:
    """Changes the masks of a run's model as its recipe says.

    Args:
        spec: The recipe's ``[prune]`` table.
        model: Model of the run.
        steps: Optimiser steps of the whole run.

    Attributes:
        initial: Weights before the first update by their name in the model; set before training begins.

    Raises:
        InputError: A layer is unknown, or the method cannot prune it.
    """

    def __init__(self, spec: PruneSpec, model: Any, steps: int) -> None:
        assert isinstance(model, SpikingModel)
        self.spec, self.model = spec, model
        self.end = max(1, int(spec.stop * steps))
        self.initial: Mapping[str, Tensor] = {}
        known = maskable_layers(model)
        for name in spec.layers:
            if name not in known:
                raise InputError(f"prune.layers: expected some of {', '.join(known)}, got {name!r}")
        chosen = spec.layers or [name for name in known if name != "readout"]
        if spec.method in ("activity", "neurons", "synflow"):
            what = "hidden layers such as layer1" if spec.method != "synflow" else "layers that feed forward"
            whole = [name for name in chosen if "recurrence" not in name]
            bad = [name for name in spec.layers if "recurrence" in name or (name == "readout" and what[0] == "h")]
            if bad:
                raise InputError(f"prune.layers: method {spec.method!r} prunes {what}, got {bad[0]!r}; leave it out")
            chosen = whole
        if not chosen:
            raise InputError(
                "prune.layers: expected at least one layer besides the readout; name 'readout' to prune it"
            )
        self.layers = {name: known[name] for name in known if name in chosen}
        fixed = [name for name, module in self.layers.items() if not getattr(module, module.mask_of).requires_grad]
        if fixed and spec.method in ("rigl", "deep-r", "snip"):
            raise InputError(
                f"prune.layers: method {spec.method!r} follows gradients, and the weights of {fixed[0]} are not "
                "trained; name the layers that are, or use method 'magnitude' or 'random'"
            )
        self.whole = {name: _exists(module) for name, module in self.layers.items()}  # a pool begins without some
        self.places = {name: place for place, name in enumerate(known)}
        self.parameters = {name: f"{path}.{module.mask_of}" for name, (path, module) in _paths(model, known).items()}

    @property
    def needs_initial(self) -> bool:
        """Return whether :attr:`initial` must be set."""
        return self.spec.rewind or self.spec.method == "deep-r"

    def round_of(self, epoch: int) -> int | None:
        """Return the round, counted from 1, that comes at the beginning of an epoch, or None."""
        since = epoch - self.spec.start
        if self.spec.method in ("random", "snip", "synflow", "rigl", "deep-r"):
            return 1 if epoch == 0 else None
        if since < 0 or since % self.spec.every or since // self.spec.every >= self.spec.rounds:
            return None
        return since // self.spec.every + 1

    def begin_epoch(self, trainer: Trainer) -> bool:
        """Do the round of pruning that is due at the beginning of the trainer's epoch; return whether there was one.

        Raises:
            InputError: What is left has no path to some class.
        """
        done = self.round_of(trainer.epoch)
        if done is None:
            return False
        spec = self.spec
        rounds = 1 if spec.method == "synflow" else spec.rounds
        share = kept_share(done, rounds, spec.keep)
        masks = self._masks(trainer, share)
        self._check_paths(masks, share)
        for name, mask in masks.items():
            maskable_layers(self.model)[name].set_mask(mask)
        optimisers = [group.optimiser for group in trainer.optimisers]
        if spec.rewind:
            self._rewind()
            for optimiser in optimisers:
                optimiser.state.clear()
        clear_masked_state(self.model, optimisers)
        return True

    def _masks(self, trainer: Trainer, share: float) -> dict[str, Mask]:
        spec = self.spec
        exists = {name: _exists(module) for name, module in self.layers.items()}
        if spec.method in ("activity", "neurons"):
            return self._neuron_masks(trainer, share)
        if spec.method == "synflow":
            return self._flow_masks(exists)
        scores: dict[str, Floats]
        if spec.method == "magnitude":
            scores = {name: baselines.magnitude(_weight(module)) for name, module in self.layers.items()}
        elif spec.method == "snip":
            found = snip_scores(trainer)
            scores = {name: found[name] for name in self.layers}
        else:
            scores = {
                name: random_scores(_weight(module).shape, trainer.seed, self.places[name])
                for name, module in self.layers.items()
            }
        if spec.unit == "synapse":
            return self._by_synapse(scores, share, exists)
        return self._largest(scores, share, exists, self.whole)

    def _largest(
        self, scores: dict[str, Floats], share: float, exists: dict[str, Mask], whole: dict[str, Mask]
    ) -> dict[str, Mask]:
        """Keep the highest scores under the budgets of the recipe; shares count the entries in ``whole``."""
        numbers = None
        if self.spec.distribution != "uniform":
            shapes = {name: score.shape for name, score in scores.items()}
            left = {name: int(mask.sum()) for name, mask in exists.items()}
            sizes = {name: int(whole[name].sum()) for name in scores}
            numbers = layer_budgets(shapes, share, self.spec.distribution, left, sizes)
        return keep_largest(scores, share, self.spec.scope, exists, numbers, whole)

    def _by_synapse(self, scores: dict[str, Floats], share: float, exists: dict[str, Mask]) -> dict[str, Mask]:
        """Choose among whole synapses, so that the budget counts them."""
        flat = {name: baselines.whole_synapses(score) for name, score in scores.items()}
        flat = {name: score[:, :, 0] if score.ndim == 3 else score for name, score in flat.items()}
        left = {name: np.asarray(mask.any(axis=2) if mask.ndim == 3 else mask) for name, mask in exists.items()}
        whole = {name: np.asarray(mask.any(axis=2) if mask.ndim == 3 else mask) for name, mask in self.whole.items()}
        kept = self._largest(flat, share, left, whole)
        return {
            name: np.repeat(mask[:, :, None], exists[name].shape[2], axis=2) & exists[name]
            if exists[name].ndim == 3
            else mask
            for name, mask in kept.items()
        }

    def _flow_masks(self, exists: dict[str, Mask]) -> dict[str, Mask]:
        """Prune by synaptic flow in rounds, so that no layer is emptied (Tanaka et al. 2020)."""
        chain = [name for name in maskable_layers(self.model) if "recurrence" not in name]
        weights = {name: _weight(maskable_layers(self.model)[name]).astype(np.float64) for name in chain}
        residual = self._residual()
        masks = exists
        for done in range(1, self.spec.rounds + 1):
            flow = baselines.synflow([weights[name] for name in chain], residual)
            scores = {name: score for name, score in zip(chain, flow, strict=True) if name in self.layers}
            masks = self._largest(scores, kept_share(done, self.spec.rounds, self.spec.keep), masks, self.whole)
            for name, mask in masks.items():
                weights[name] = weights[name] * mask
        return masks

    def _neuron_masks(self, trainer: Trainer, share: float) -> dict[str, Mask]:
        known = maskable_layers(self.model)
        chain = [name for name in known if "recurrence" not in name]
        masks = {name: _exists(module) for name, module in known.items()}
        rates = neuron_rates(trainer) if self.spec.method == "activity" else None
        for name in self.layers:
            place = chain.index(name)
            after, loop = chain[place + 1], f"{name} recurrence"
            into_all = masks[name].reshape(masks[name].shape[0], -1)
            incoming = _weight(known[name]).reshape(into_all.shape)
            if loop in masks and not self.whole[name].reshape(into_all.shape).any(axis=1).all():
                into_all = np.concatenate([into_all, masks[loop]], axis=1)  # of a pool, part of which has no input
                incoming = np.concatenate([incoming, _weight(known[loop])], axis=1)
            score = baselines.neuron_norms(incoming, _weight(known[after])) if rates is None else rates[place]
            alive = np.asarray(into_all.any(axis=1))
            neurons = keep_largest({name: score}, share, "layer", {name: alive})[name]
            into, out, among = baselines.neuron_masks(neurons, masks[name], masks[after], masks.get(loop))
            masks[name], masks[after] = into, out
            if among is not None:
                masks[loop] = among
        return masks

    def _residual(self) -> list[int]:
        return [place for place, block in enumerate(self.model.layers()[:-1]) if block.residual]

    def _check_paths(self, masks: dict[str, Mask], share: float) -> None:
        known = maskable_layers(self.model)
        every = {name: masks.get(name, _exists(module)) for name, module in known.items()}
        chain = [name for name in known if "recurrence" not in name]
        loops = {chain.index(name.removesuffix(" recurrence")): every[name] for name in known if name not in chain}
        lost = unreached_outputs([every[name] for name in chain], loops, self._residual())
        if lost.size:
            raise InputError(
                f"prune: keeping {share:.3g} of {', '.join(self.layers)} leaves class {int(lost[0])}"
                + (f" and {lost.size - 1} others" if lost.size > 1 else "")
                + " without a path from the input; raise prune.keep, use scope = 'layer', or prune fewer layers"
            )

    @torch.no_grad()
    def _rewind(self) -> None:
        """Put all parameters back to their initial values; masks stay."""
        for name, parameter in self.model.named_parameters():
            parameter.copy_(self.initial[name])
        for module in maskable_layers(self.model).values():
            module.enforce_mask_()

    def grows_at(self, step: int) -> bool:
        """Return whether a step replaces synapses by their gradients instead of learning (``rigl``)."""
        return self.spec.method == "rigl" and step > 0 and step % self.spec.interval == 0 and step < self.end

    def regrow(self, trainer: Trainer) -> None:
        """Replace synapses by weights and gradients, which must have been computed for missing ones too."""
        fraction = rigl_fraction(trainer.step, self.end, self.spec.fraction)
        for module in self.layers.values():
            weight: Tensor = getattr(module, module.mask_of)
            gradient = np.zeros(weight.shape) if weight.grad is None else weight.grad.cpu().numpy()
            module.set_mask(rigl_update(_weight(module), gradient, _exists(module), fraction))
        clear_masked_state(self.model, [group.optimiser for group in trainer.optimisers])

    @torch.no_grad()
    def after_update(self, trainer: Trainer) -> None:
        """Move synapses after an optimiser's step (``deep-r``)."""
        if self.spec.method != "deep-r":
            return
        lr = next(group.lr for group in trainer.optimisers if group.name == "weights")
        for name, module in self.layers.items():
            sign = np.where(self.initial[self.parameters[name]].cpu().numpy() < 0, -1.0, 1.0)
            before = _exists(module)
            weight, mask = deep_r_update(
                *(_weight(module), sign.astype(_weight(module).dtype), before),
                lr=lr,
                l1=self.spec.l1,
                temperature=self.spec.temperature,
                seed=trainer.seed,
                layer=self.places[name],
                step=trainer.step,
            )
            parameter: Tensor = getattr(module, module.mask_of)
            parameter.copy_(torch.from_numpy(weight))
            if not np.array_equal(mask, before):
                module.set_mask(mask)
        clear_masked_state(self.model, [group.optimiser for group in trainer.optimisers])


def _weight(module: MaskedWeights) -> Floats:
    weight: Floats = getattr(module, module.mask_of).detach().cpu().numpy()
    return weight


def _exists(module: MaskedWeights) -> Mask:
    if module.mask is None:
        return np.ones(tuple(getattr(module, module.mask_of).shape), bool)
    mask: Mask = module.mask.cpu().numpy().copy()
    return mask


def _paths(model: SpikingModel, known: Mapping[str, MaskedWeights]) -> dict[str, tuple[str, MaskedWeights]]:
    names = {id(module): path for path, module in model.named_modules()}
    return {name: (names[id(cast(Recurrent, module))], module) for name, module in known.items()}
