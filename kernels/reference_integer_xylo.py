"""The integer law ``xylo`` in plain NumPy: the neurons of Xylo Audio 2 (core v2), as xylosim 0.1.3 computes them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from snnsim.kernels.integer_tables import CURRENT, V

__all__ = ["HIGH", "LOW", "xylo"]

Integers = npt.NDArray[np.int64]

HIGH, LOW = 2**15 - 1, -(2**15)
"""Range of membrane and current."""


def _loss(value: Integers, dash: Integers) -> Integers:
    """Return what a decay takes: ``value >> dash``, at least one step toward zero; 0 from 0."""
    shifted = value >> dash
    return np.where((shifted == 0) & (value > 0), 1, shifted)


def xylo(
    parameters: Mapping[str, Integers], kind: str, state: Integers, arrivals: Integers
) -> tuple[Integers, Integers, npt.NDArray[np.bool_]]:
    """Move neurons as Xylo does; every sum is cut to -32768..32767::

        i = i + arrivals;  i = i - loss(i, dash_syn)
        change = -loss(v, dash_mem) + i;  change = change + bias;  v = v + change
        n = min(v // v_threshold, max_spikes) if v >= v_threshold else 0;  v = v - n v_threshold

    with ``loss(x, d) = x >> d`` (arithmetic shift), and 1 where that is 0 and x > 0.

    xylosim cuts the current after every single spike, in the order of its sources; here the arrivals are summed first.
    The two are equal as long as no partial sum of a step leaves the range. Sums that do are counted as overflow
    where the whole sum leaves it.
    """
    i = state[CURRENT] + arrivals
    current = np.clip(i, LOW, HIGH)
    over = current != i
    current = current - _loss(current, parameters["dash_syn"])
    lost = -_loss(state[V], parameters["dash_mem"])
    lost = np.where(lost > HIGH, LOW, lost)  # 32768 does not fit: xylosim's 16 bits make it -32768
    change = np.clip(lost + current, LOW, HIGH)
    over |= change != lost + current
    with_bias = change + parameters["bias"]
    change = np.clip(with_bias, LOW, HIGH)
    over |= change != with_bias
    v = np.clip(state[V] + change, LOW, HIGH)
    over |= v != state[V] + change
    spikes = np.where(
        v >= parameters["v_threshold"], np.minimum(v // parameters["v_threshold"], parameters["max_spikes"]), 0
    )
    moved = np.zeros_like(state)
    moved[V] = v - spikes * parameters["v_threshold"]
    moved[CURRENT] = current
    return moved, np.asarray(spikes, np.int64), over
