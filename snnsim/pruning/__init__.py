"""Pruning: which synapses and neurons a network can do without, and the spectral tools that tell.

:data:`METHODS` lists the ways to prune a network by name; each is imported when it is first used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from snnsim.network import Network
from snnsim.pruning.result import PruneResult

__all__ = ["METHODS", "Method", "PruneResult"]

Method = Callable[..., PruneResult]
"""``method(network, population, **options)``: a pruned copy of a network."""


def _lnp(network: Network, population: str, **options: Any) -> PruneResult:
    from snnsim.pruning.lnp import prune_lnp

    return prune_lnp(network, population, **options)


METHODS: dict[str, Method] = {"lnp": _lnp}
"""Method by name."""
