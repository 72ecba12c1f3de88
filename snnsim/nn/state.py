"""States of streams: nested tuples of tensors."""

from __future__ import annotations

from typing import Any

from torch import Tensor

__all__ = ["detach_state"]


def detach_state(state: Any) -> Any:
    """Return the state with the same values and no graph: what follows counts it as a constant.

    Args:
        state: Tensor, None, or a (named) tuple of such.
    """
    if isinstance(state, Tensor):
        return state.detach()
    if isinstance(state, tuple):
        items = [detach_state(item) for item in state]
        return type(state)(*items) if hasattr(state, "_fields") else type(state)(items)
    return state
