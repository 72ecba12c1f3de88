"""From scores to masks under an exact budget, and whether a mask still leads from the input to every output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.kernels.philox import Stream, uniform

__all__ = ["Scope", "budget", "keep_largest", "kept_share", "random_scores", "unreached_outputs"]

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating[Any]]
Scope = Literal["layer", "global"]
"""Whether every layer keeps the same share, or all layers together."""


def budget(keep: float, total: int) -> int:
    """Return how many of ``total`` are kept: ``keep * total``, rounded, at least one."""
    if not 0 < keep <= 1:
        raise InputError(f"keep: expected a share above 0 and up to 1, got {keep!r}")
    return max(1, round(keep * total)) if total else 0


def kept_share(done: int, rounds: int, keep: float) -> float:
    """Return the share kept after round ``done`` of ``rounds``, each removing the same part of what is left.

    ``keep^(done / rounds)``: the iterative pruning of Frankle & Carbin 2019.

    >>> round(kept_share(1, 2, 0.25), 3)
    0.5
    """
    return float(keep ** (done / rounds))


def keep_largest(
    scores: Mapping[str, Floats],
    keep: float,
    scope: Scope = "layer",
    candidates: Mapping[str, Mask] | None = None,
    numbers: Mapping[str, int] | None = None,
    whole: Mapping[str, Mask] | None = None,
) -> dict[str, Mask]:
    """Return masks that keep exactly ``round(keep * size)`` entries of the highest score; of equal ones the first.

    Args:
        scores: One array a layer.
        keep: Share of all entries that are kept.
        scope: Budget of every ``layer``, or one ``global`` budget.
        candidates: What may be kept, one mask a layer; default everything. Shares still count all entries.
        numbers: How many each layer keeps, instead of the share of each ``layer``.
        whole: Entries that shares count, one mask a layer: those of a layer that began without some; default all.

    Returns:
        Masks of the shapes of the scores.
    """
    allowed = {name: np.ones(score.shape, bool) for name, score in scores.items()}
    allowed |= dict(candidates or {})
    sizes = {name: int(whole[name].sum()) if whole and name in whole else score.size for name, score in scores.items()}
    if scope == "layer":
        many = numbers or {name: budget(keep, sizes[name]) for name in scores}
        return {name: _highest({name: score}, many[name], allowed)[name] for name, score in scores.items()}
    return _highest(scores, budget(keep, sum(sizes.values())), allowed)


def _highest(scores: Mapping[str, Floats], number: int, allowed: Mapping[str, Mask]) -> dict[str, Mask]:
    flat = np.concatenate([np.asarray(score, np.float64).reshape(-1) for score in scores.values()])
    able = np.concatenate([allowed[name].reshape(-1) for name in scores])
    if not np.isfinite(flat).all():
        raise InputError("pruning: expected finite scores; has training diverged?")
    number = min(number, int(able.sum()))
    order = np.argsort(np.where(able, -flat, np.inf), kind="stable")
    chosen = np.zeros(flat.size, bool)
    chosen[order[:number]] = True
    masks, at = {}, 0
    for name, score in scores.items():
        masks[name] = chosen[at : at + score.size].reshape(score.shape)
        at += score.size
    return masks


def random_scores(shape: Sequence[int], seed: int, layer: int, step: int = 0) -> Floats:
    """Return uniform numbers that depend on seed, layer, step and place alone (Philox4x32-10), shape ``shape``."""
    places = np.arange(int(np.prod(shape)), dtype=np.int64)
    numbers = uniform(seed, int(Stream.PRUNING), layer, step, places // 2**31, places % 2**31)
    return np.asarray(numbers, dtype=np.float64).reshape(tuple(shape))


def unreached_outputs(
    layers: Sequence[Mask], recurrent: Mapping[int, Mask] | None = None, residual: Sequence[int] = ()
) -> npt.NDArray[np.int64]:
    """Return the outputs of a chain of layers to which no path leads from any input.

    Args:
        layers: Masks of the connections in order, ``(n_out, n_in)`` or ``(n_out, n_in, taps)``.
        recurrent: Masks within a layer's neurons, by the layer's place.
        residual: Places of layers whose input is added to their output.
    """
    reached = np.ones(layers[0].shape[1], bool)
    for place, mask in enumerate(layers):
        exists = np.asarray(mask.any(axis=2) if mask.ndim == 3 else mask)
        now: Mask = np.asarray(exists[:, reached].any(axis=1))
        loop = (recurrent or {}).get(place)
        while loop is not None:
            more = now | loop[:, now].any(axis=1)
            if np.array_equal(more, now):
                break
            now = more
        reached = now | reached if place in residual else now
    return np.flatnonzero(~reached)
