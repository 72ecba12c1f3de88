"""How far the gradient of a rule is from that of backpropagation through time."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from snnsim.learning.bptt import BPTT
from snnsim.learning.losses import Loss
from snnsim.learning.protocol import Rule, Stream

__all__ = ["gradient_cosine"]


def gradient_cosine(rule: Rule, model: Any, stream: Stream, loss: Loss) -> dict[str, float]:
    """Return the cosine between the gradients of a rule and of BPTT on one batch, parameter by parameter.

    Both run on copies of the model: its parameters, gradients and running averages stay as they are. It takes the
    memory of BPTT.

    Args:
        rule: Learning rule.
        model: Model in training mode.
        stream: The batch.
        loss: What is minimised.

    Returns:
        Name of a parameter to cosine, ``"all"`` for all of them together. A parameter that one of the two leaves
        without a gradient has the cosine 0; one that both leave without is not named.
    """
    found = []
    for each in (rule, BPTT()):
        twin = copy.deepcopy(model)
        twin.zero_grad(set_to_none=True)
        each.gradients(twin, stream, loss)
        found.append({name: p.grad for name, p in twin.named_parameters() if p.requires_grad})
    ours, exact = found
    cosines, products = {}, torch.zeros(3, dtype=torch.float64, device=loss.target.device)
    for name in exact:
        a, b = _flat(ours[name]), _flat(exact[name])
        if a is None and b is None:
            continue
        a = torch.zeros_like(b) if a is None and b is not None else a
        b = torch.zeros_like(a) if b is None and a is not None else b
        assert a is not None
        assert b is not None
        sums = torch.stack([a @ b, a @ a, b @ b])
        products += sums
        cosines[name] = _cosine(sums)
    cosines["all"] = _cosine(products)
    return cosines


def _flat(gradient: Tensor | None) -> Tensor | None:
    return None if gradient is None else gradient.double().flatten()


def _cosine(sums: Tensor) -> float:
    size = float((sums[1] * sums[2]).sqrt())
    return float(sums[0]) / size if size > 0 else 0.0
