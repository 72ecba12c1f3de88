"""What a training step will need, said before the first one."""

from __future__ import annotations

from typing import Any

from snnsim.learning import estimate_memory
from snnsim.learning.memory_estimate import format_bytes
from snnsim.machine import available_memory
from snnsim.nn.model import SpikingModel
from snnsim.recipes import Recipe

__all__ = ["expected_memory", "memory_warning"]

ESTIMATED = ("bptt", "sltt", "sltt-k", "ottt", "rtrl", "e-prop")


def expected_memory(model: Any, recipe: Recipe, n_steps: int, batch: int) -> dict[str, int]:
    """Return the bytes that a training step is expected to need, with the recipe's rule first, then with others.

    Args:
        model: Model of the run; only networks of blocks are estimated.
        recipe: Its recipe.
        n_steps: Steps of the longest batch.
        batch: Samples of a batch in this process.

    Returns:
        Name of a rule to bytes; empty where nothing is known.
    """
    spec = recipe.train
    if not isinstance(model, SpikingModel) or spec.learning not in ESTIMATED:
        return {}
    moments = 1 if spec.weights.optimiser == "sgd" else 2
    found: dict[str, int] = {}
    for rule in dict.fromkeys((spec.learning, "bptt", "sltt")):
        own = rule == spec.learning
        found[rule] = estimate_memory(
            model,
            rule,
            n_steps=n_steps,
            batch=batch,
            checkpoint_steps=spec.checkpoint_steps if own else None,
            chunk_steps=spec.rule.chunk_steps if own else None,
            moments=moments,
        ).total
    return found


def memory_warning(expected: dict[str, int], available: int | None = None) -> str | None:
    """Return a warning if the first of the expected sizes does not fit into what is free, else None.

    Args:
        expected: From :func:`expected_memory`.
        available: Free bytes; default what the system says.
    """
    free = available_memory() if available is None else available
    if not expected or free is None:
        return None
    rule, need = next(iter(expected.items()))
    if need <= free:
        return None
    advice = [f"train.learning = '{name}' needs {format_bytes(size)}" for name, size in expected.items() if size < free]
    advice += ["use train.checkpoint_steps"] if rule == "bptt" else []
    advice += ["use a smaller train.batch_size"]
    return (
        f"a training step needs about {format_bytes(need)} with {rule}, {format_bytes(free)} are free; "
        + ", or ".join(advice)
    )
