"""The initial rate of a recipe: scale a fresh network on its first training batch, before the first update."""

from __future__ import annotations

from snnsim.datasets.batches import Batch
from snnsim.nn.context import Context
from snnsim.nn.initialise import LayerRate, initialise_rates
from snnsim.nn.trained import TrainedModel
from snnsim.recipes import Recipe
from snnsim.training.distributed import World
from snnsim.training.upload import device_of, upload

__all__ = ["scale_to_rate"]


def scale_to_rate(model: TrainedModel, batch: Batch, recipe: Recipe, seed: int, world: World) -> list[LayerRate]:
    """Scale the hidden layers of ``model`` to ``model.initial_rate`` spikes a neuron-step on one batch.

    Every process takes its part of the batch; spikes are counted over all of them, so that all find the same factors.
    A layer that cannot reach the rate gets as close to it as it can; if it stays silent, the run says so by itself.

    Args:
        model: Fresh network; its gains are changed in place.
        batch: First training batch of epoch 0, the same in every process.
        recipe: Recipe; without ``model.initial_rate`` nothing is done.
        seed: Seed of the run.
        world: This process among those that train together.

    Returns:
        Rates before and after, and the factor, of every hidden layer.
    """
    target = recipe.model.initial_rate
    if target is None:
        return []
    part = world.part(len(batch))
    device = device_of(model)
    seen = upload(batch.mask[:, part], device) if recipe.train.padding == "masked" else None
    context = Context(seen, upload(batch.sample_id[part], device), seed, 0)
    x = upload(batch.x[:, part], device)
    return initialise_rates(model, x, context, target=target, nearest=True, total=world.sum)
