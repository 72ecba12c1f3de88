"""States to begin a run from: values of variables before step 0, by population."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.network import Network

if TYPE_CHECKING:
    from snnsim.engines import Dtype, State

__all__ = ["initial_state", "rest_values"]


def rest_values(network: Network, dtype: Dtype) -> npt.NDArray[Any]:
    """Return every variable one step before step 0, ``(most variables, neurons)``."""
    offset = np.concatenate(([0], np.cumsum([item.size for item in network.populations])))
    rows = np.zeros((max(len(item.neuron.variables) for item in network.populations), offset[-1]), dtype)
    for k, item in enumerate(network.populations):
        rest = item.neuron.rest()
        for place, name in enumerate(item.neuron.variables):
            rows[place, offset[k] : offset[k + 1]] = rest[name]
    return rows


def initial_state(
    network: Network, initial: Mapping[str, npt.ArrayLike], n_samples: int, dtype: Dtype, engine: str
) -> State:
    """Return the state in which some variables have given values and everything else is at rest.

    Args:
        network: Network that will run.
        initial: By ``"population.variable"`` a number, one a neuron ``(size,)`` or one a sample and neuron
            ``(n_samples, size)``. It is the value one step before step 0, as the state of rest is.
        n_samples: Samples.
        dtype: Of the run.
        engine: Of the run.

    Raises:
        InputError: A name or a shape does not fit, or a value is not finite.
    """
    from snnsim.engines import SampleState, State, check_records

    check_records(network, tuple(initial), "initial")
    offset = np.concatenate(([0], np.cumsum([item.size for item in network.populations])))
    place = {item.name: slice(offset[k], offset[k + 1]) for k, item in enumerate(network.populations)}
    rows = np.repeat(rest_values(network, dtype)[None], n_samples, axis=0)
    for name, given in initial.items():
        population, _, variable = name.rpartition(".")
        size = network.population(population).size
        variables = network.population(population).neuron.variables
        try:
            values = np.asarray(given, dtype=np.float64)
        except (TypeError, ValueError):
            raise InputError(f"initial: {name!r}: expected numbers, got {given!r}") from None
        if values.shape not in ((), (size,), (n_samples, size)):
            raise InputError(
                f"initial: {name!r}: expected a number, ({size},) for one a neuron or ({n_samples}, {size}) for one a "
                f"sample and neuron, got shape {values.shape}"
            )
        if not np.isfinite(values).all():
            raise InputError(f"initial: {name!r}: expected finite numbers, got nan or infinity")
        rows[:, variables.index(variable), place[population]] = values
    nothing = np.zeros(0, np.int64)
    samples = tuple(
        SampleState(
            step=0,
            values=rows[b],
            left=np.zeros(offset[-1], np.int64),
            pending_place=nothing,
            pending_value=nothing.astype(dtype),
            readout=None,
        )
        for b in range(n_samples)
    )
    return State(network.digest(), dtype, engine, samples)
