"""Scores of synapses and neurons by which the usual baselines prune; higher is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from snnsim.pruning.masks import Mask

__all__ = ["magnitude", "neuron_masks", "neuron_norms", "synflow", "whole_synapses"]

Floats = npt.NDArray[np.floating[Any]]


def magnitude(weight: Floats) -> Floats:
    """Return ``|w|``: of a layer with taps one score a tap."""
    return np.abs(weight)


def whole_synapses(scores: Floats) -> Floats:
    """Give all taps of a synapse the sum of their scores, shape (n_out, n_in, taps): kept or removed together."""
    if scores.ndim == 2:
        return scores
    return np.ascontiguousarray(np.broadcast_to(scores.sum(axis=2, keepdims=True), scores.shape))


def synflow(weights: Sequence[Floats], residual: Sequence[int] = ()) -> list[Floats]:
    """Return the synaptic flow of every weight of a chain of layers (Tanaka et al. 2020, equation 3).

    With all weights made positive and all inputs 1 the outputs sum to R; the score is ``|w| dR / d|w|``. No data are
    needed. Neurons count as linear, taps of a synapse as parallel.

    Args:
        weights: Weights of the layers in order, (n_out, n_in) or (n_out, n_in, taps).
        residual: Places of layers whose input is added to their output.

    Returns:
        Scores of the shapes of the weights, float64; divided by R so that they stay in range.
    """
    positive = [np.abs(np.asarray(weight, np.float64)) for weight in weights]
    matrices = [weight.sum(axis=2) if weight.ndim == 3 else weight for weight in positive]
    flows = [np.ones(matrices[0].shape[1])]
    for place, matrix in enumerate(matrices):
        out = matrix @ flows[-1]
        flows.append(out + flows[-1] if place in residual else out)
    total = float(flows[-1].sum()) or 1.0
    back = np.ones(matrices[-1].shape[0]) / total
    scores: list[Floats] = []
    for place in range(len(matrices) - 1, -1, -1):
        share = back[:, None] * flows[place][None, :]
        scores.append(positive[place] * (share[:, :, None] if positive[place].ndim == 3 else share))
        below = matrices[place].T @ back
        back = below + back if place in residual else below
    return scores[::-1]


def neuron_norms(incoming: Floats, outgoing: Floats) -> Floats:
    """Return a score a neuron: the norm of the weights into it times that of the weights out of it.

    Args:
        incoming: Shape (n, n_in) or (n, n_in, taps).
        outgoing: Shape (n_out, n) or (n_out, n, taps).
    """
    into = np.sqrt((np.asarray(incoming, np.float64) ** 2).reshape(incoming.shape[0], -1).sum(axis=1))
    out = np.moveaxis(np.asarray(outgoing, np.float64), 1, 0)
    return np.asarray(into * np.sqrt((out**2).reshape(out.shape[0], -1).sum(axis=1)))


def neuron_masks(
    neurons: Mask, incoming: Mask, outgoing: Mask, recurrent: Mask | None
) -> tuple[Mask, Mask, Mask | None]:
    """Return masks without any synapse into, out of or among removed neurons.

    Args:
        neurons: Which neurons stay, shape (n,).
        incoming: Mask of the connection into them, (n, n_in) or (n, n_in, taps).
        outgoing: Mask of the connection out of them, (n_out, n) or (n_out, n, taps).
        recurrent: Mask among them, (n, n), or None.
    """
    into, out = incoming.copy(), outgoing.copy()
    into[~neurons] = False
    out[:, ~neurons] = False
    if recurrent is None:
        return into, out, None
    return into, out, recurrent & neurons[:, None] & neurons[None, :]
