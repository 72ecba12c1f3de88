"""A readout in closed form: ridge regression of the classes on what the last hidden layer gives, no gradients.

With scores that are linear in the readout's weights (reduction ``mean`` or ``last``), a sample's score of class c is
``b_c G + sum_n w_cn f_n`` with features ``f_n = sum_t g_t s_nt``: the spikes of neuron n, weighted by what a unit of
current in step t adds to the score (``g_t``: the integrators' response up to the steps that count), and ``G = sum_t
g_t`` for the bias. Over all samples, with one-hot rows Y::

    (H^T H + ridge m I) W = H^T Y        m = mean over n of (H^T H)_nn; the bias is not regularised

Source: Jaeger, "Short term memory in echo state networks", 2001 (linear readout of a reservoir by regression).
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from snnsim.errors import InputError
from snnsim.kernels.positive_solve import solve_positive
from snnsim.learning.losses import Loss
from snnsim.learning.protocol import Outcome, Stream
from snnsim.nn.context import Context
from snnsim.nn.model import SpikingModel

__all__ = ["Ridge", "readout_features"]

Floats = npt.NDArray[np.float64]

PIVOT = 1e-14
"""Share of a feature's mean square that must not be explained by the features before it."""


def _gains(model: SpikingModel, like: Tensor, context: Context) -> Tensor:
    """Return what a unit of current in every step adds to a sample's score, float64, shape (time, batch)."""
    current = torch.zeros(*like.shape[:2], model.n_classes, dtype=like.dtype, requires_grad=True)
    with torch.enable_grad():
        trace, _ = model.readout.neuron(current)
        model.readout.scores(trace, context)[:, 0].sum().backward()  # type: ignore[no-untyped-call]
    assert current.grad is not None
    return current.grad[:, :, 0].double()


@torch.no_grad()
def readout_features(model: SpikingModel, x: Tensor, context: Context) -> tuple[Floats, Tensor]:
    """Return the features that the scores are linear in, and the spikes of the hidden layers.

    Args:
        model: Network without dropout and batch norm.
        x: Inputs, shape (time, batch, unit).
        context: Mask of valid steps and sample ids.

    Returns:
        float64, shape (batch, neuron + 1), the last column for the bias; spikes a valid neuron-step of every hidden
        layer, float64, shape (layers,).
    """
    training = model.training
    model.eval()
    try:
        output = model(x, None, context, record=True)
        last = output.spikes[-1]
        gains = _gains(model, last, context)
    finally:
        model.train(training)
    features = np.einsum("tbn,tb->bn", last.double().numpy(), gains.numpy())
    return np.column_stack([features, gains.sum(dim=0).numpy()]), output.rates.double()


class Ridge:
    """Ridge regression of the readout; hidden layers stay as they are.

    A pass over the samples adds up what :meth:`solve` needs: memory goes with the square of the last layer's neurons,
    not with the samples.

    Args:
        ridge: Regularisation as share of the mean square of a feature.
    """

    name = "ridge"

    def __init__(self, ridge: float = 1e-3) -> None:
        self.ridge = ridge
        self._gram: Floats | None = None
        self._cross: Floats | None = None

    def gradients(self, model: Any, stream: Stream, loss: Loss, update: Callable[[], None] | None = None) -> Outcome:
        """Add one batch to the sums; no gradient is filled and the outcome's losses and scores are 0.

        Raises:
            InputError: The scores are not linear in the readout's weights.
        """
        if not isinstance(model, SpikingModel) or model.delay_layers():
            raise InputError("ridge: expected blocks and a readout without delays; use connection.kind = 'linear'")
        if model.readout.reduce not in ("mean", "last"):
            raise InputError(
                f"ridge: expected linear scores, readout.reduce 'mean' or 'last', got {model.readout.reduce!r}"
            )
        if any(block.norm is not None or block.dropout is not None or block.residual for block in model.blocks):
            raise InputError("ridge: expected hidden layers without batch norm, dropout and residual connections")
        features, rates = readout_features(model, stream.chunk(0, stream.n_steps), stream.context)
        if model.readout.connection.bias is None:
            features[:, -1] = 0.0
        target = loss.target.numpy()
        wanted = np.eye(model.n_classes)[target] if target.ndim == 1 else target.astype(np.float64)
        gram = np.einsum("bi,bj->ij", features, features)
        cross = np.einsum("bi,bc->ic", features, wanted)
        self._gram = gram if self._gram is None else self._gram + gram
        self._cross = cross if self._cross is None or self._cross.shape != cross.shape else self._cross + cross
        batch = target.shape[0]
        return Outcome(torch.zeros(batch), torch.zeros(batch, model.n_classes), rates, {})

    @torch.no_grad()
    def solve(self, model: SpikingModel) -> None:
        """Write the solution of all that has been added into the readout, and forget the sums.

        Missing synapses of a readout with a mask stay 0 (their features are left out class by class).

        Raises:
            InputError: Nothing was added, no feature is ever above 0, or features depend on each other.
        """
        if self._gram is None or self._cross is None:
            raise InputError("ridge: expected at least one batch before solve()")
        gram, cross = self._gram, self._cross
        n = gram.shape[0] - 1
        size = float(np.mean(np.diag(gram)[:n]))
        if not size > 0:
            raise InputError(
                "ridge: no neuron of the last hidden layer ever fires; raise model.pool.input_weight or set "
                "model.initial_rate = 0.05"
            )
        connection = model.readout.connection
        has_bias = connection.bias is not None
        mask: Tensor | None = getattr(connection, "mask", None)
        weight = np.zeros((n + 1, cross.shape[1]))
        for group in _classes_by_mask(mask, cross.shape[1]):
            classes = np.array(group)
            used = np.arange(n) if mask is None else np.flatnonzero(mask[group[0]].numpy())
            used = np.append(used, n) if has_bias else used
            system = gram[np.ix_(used, used)].copy()
            inside = used < n
            system[np.diag_indices(used.size)] += np.where(inside, self.ridge * size, 0.0)
            solution = cross[np.ix_(used, classes)]
            if solve_positive(system, solution, PIVOT) >= 0:
                raise InputError(
                    f"ridge: the features of {int(inside.sum())} neurons depend on each other; raise train.rule.ridge "
                    f"above {self.ridge}"
                )
            weight[np.ix_(used, classes)] = solution
        connection.weight.copy_(torch.from_numpy(weight[:n].T.copy()))
        if connection.bias is not None:
            connection.bias.copy_(torch.from_numpy(weight[n]))
        self._gram = self._cross = None

    def state(self) -> dict[str, Any]:
        """Return the sums as JSON values, for a checkpoint."""
        if self._gram is None or self._cross is None:
            return {}
        both = np.column_stack([self._gram, self._cross])
        return {"rows": both.shape[0], "sums": base64.b64encode(both.tobytes()).decode()}

    def restore(self, values: dict[str, Any]) -> None:
        """Go back to what :meth:`state` gave."""
        self._gram = self._cross = None
        if values:
            rows = int(values["rows"])
            both = np.frombuffer(base64.b64decode(values["sums"]), np.float64).reshape(rows, -1)
            self._gram, self._cross = both[:, :rows].copy(), both[:, rows:].copy()


def _classes_by_mask(mask: Tensor | None, n_classes: int) -> list[list[int]]:
    """Return groups of classes that have the same synapses."""
    if mask is None:
        return [list(range(n_classes))]
    groups: dict[bytes, list[int]] = {}
    for index in range(n_classes):
        groups.setdefault(mask[index].numpy().tobytes(), []).append(index)
    return list(groups.values())
