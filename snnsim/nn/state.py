"""The state that a model carries from one stretch of time to the next."""

from __future__ import annotations

from typing import Any

from torch import Tensor

__all__ = ["detach_state"]


def detach_state(state: Any) -> Any:
    """Return the same state without its past: equal values that pass no gradient to what came before.

    Args:
        state: What a model or a layer returned as its state: tensors in tuples, named tuples, lists and dictionaries of
            any depth; anything else (None, numbers) is kept as it is.

    >>> import torch
    >>> w = torch.ones(2, requires_grad=True)
    >>> [part.requires_grad for part in detach_state((w * 2, (w, None)))[1][:1]]
    [False]
    """
    if isinstance(state, Tensor):
        return state.detach()
    if isinstance(state, tuple):
        parts = [detach_state(part) for part in state]
        return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
    if isinstance(state, list):
        return [detach_state(part) for part in state]
    if isinstance(state, dict):
        return {key: detach_state(part) for key, part in state.items()}
    return state
