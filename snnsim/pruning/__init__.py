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


def _baseline(how: Any) -> Method:
    def method(
        network: Network, population: str, *, keep: float = 0.5, keep_neurons: float = 0.7, **options: Any
    ) -> Any:
        from snnsim.pruning.pool_baselines import prune_pool

        return prune_pool(network, population, how, synapses=keep, neurons=keep_neurons, **options)

    return method


METHODS: dict[str, Method] = {
    "lnp": _lnp,
    **{how: _baseline(how) for how in ("activity", "magnitude", "random", "neurons")},
}
"""Method by name. ``keep`` is a mean share of synapses before neurons go for ``lnp``, the share left in the end for the
others (see :func:`snnsim.pruning.pool_baselines.prune_pool`)."""
