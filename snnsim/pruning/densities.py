"""How a budget of synapses is shared out among layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from snnsim.errors import InputError
from snnsim.pruning.masks import budget

__all__ = ["Distribution", "layer_budgets"]

Distribution = Literal["uniform", "erdos-renyi", "erdos-renyi-kernel"]
"""``uniform``: the same share of every layer. ``erdos-renyi``: a layer's density is proportional to
``(n_out + n_in) / (n_out n_in)`` (Mocanu et al. 2018), so that small layers stay denser. ``erdos-renyi-kernel``: to
``(n_out + n_in + taps) / (n_out n_in taps)``, with the extent of the kernel as a third one (Evci et al. 2020)."""


def layer_budgets(
    shapes: Mapping[str, tuple[int, ...]],
    keep: float,
    distribution: Distribution = "uniform",
    capacity: Mapping[str, int] | None = None,
    counted: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Return how many synapses (or taps) every layer keeps.

    Of the Erdos-Renyi distributions the sum is exactly ``round(keep * size of all layers)``, or all that exists if
    that is less; a size is that in ``counted``. A layer that would need more than it has keeps all, the others share
    what is left in the same proportions (Evci et al. 2020), and of the fractions the largest are rounded up, the first
    of equal ones first. ``uniform`` rounds every layer by itself.

    Args:
        shapes: ``(n_out, n_in)`` or ``(n_out, n_in, taps)`` by layer.
        keep: Share of all.
        distribution: How densities differ between layers.
        capacity: Most that a layer can keep; default its size.
        counted: Entries that the share counts, by layer: those of a layer that began without some; default its size.

    Raises:
        InputError: ``keep`` is no share above 0, or so little remains that a layer would keep nothing.

    >>> layer_budgets({"a": (100, 100), "b": (10, 100)}, 0.1, "erdos-renyi")
    {'a': 710, 'b': 390}
    """
    sizes = dict(counted) if counted else {name: int(np.prod(shape)) for name, shape in shapes.items()}
    room = {name: min(size, (capacity or sizes)[name]) for name, size in sizes.items()}
    if distribution == "uniform":
        return {name: min(budget(keep, size), room[name]) for name, size in sizes.items()}
    total = min(budget(keep, sum(sizes.values())), sum(room.values()))
    raw = {name: float(_extent(shape, distribution)) for name, shape in shapes.items()}
    whole: dict[str, int] = {}
    while True:
        free = [name for name in sizes if name not in whole]
        left = total - sum(whole.values())
        scale = left / sum(raw[name] for name in free) if free else 0.0
        full = [name for name in free if scale * raw[name] >= room[name]]
        if not full:
            break
        whole |= {name: room[name] for name in full}
    exact = {name: scale * raw[name] for name in free}
    counts = {name: int(exact[name]) for name in free}
    short = left - sum(counts.values())
    for name in sorted(free, key=lambda name: counts[name] - exact[name])[:short]:
        counts[name] += 1
    counts |= whole
    empty = [name for name in sizes if counts[name] == 0 and room[name]]
    if empty:
        raise InputError(f"pruning: {distribution} would leave {empty[0]} no synapse of {sizes[empty[0]]}; raise keep")
    return {name: counts[name] for name in sizes}


def _extent(shape: tuple[int, ...], distribution: Distribution) -> int:
    """Return a layer's density times its size."""
    if distribution == "erdos-renyi-kernel":
        return sum(shape)
    return sum(shape[:2]) * int(np.prod(shape[2:]))
