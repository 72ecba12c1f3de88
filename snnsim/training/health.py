"""Diagnosis of layers that cannot learn: silent or saturated."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["FIRST_STEPS", "SATURATED", "SILENT", "diagnose"]

SILENT = 1e-4
"""Spikes a neuron and step below which a layer counts as silent."""

SATURATED = 0.5
"""Spikes a neuron and step above which a layer counts as saturated."""

FIRST_STEPS = 10
"""Optimiser steps after which the first diagnosis is complete."""


def diagnose(rates: Sequence[float], sizes: Sequence[int]) -> list[tuple[int, str]]:
    """Name the layers whose mean rate is too low or too high to learn.

    Args:
        rates: Spikes a neuron and step of every hidden layer.
        sizes: Neurons of every hidden layer.

    Returns:
        Index of each such layer, from 0, and a sentence that names it and says what to try.

    >>> diagnose([0.1, 0.0], [8, 8])[0][0]
    1
    """
    found = []
    for index, (rate, size) in enumerate(zip(rates, sizes, strict=True)):
        name = f"hidden layer {index + 1} of {len(sizes)} ({size} neurons)"
        if rate < SILENT:
            found.append(
                (
                    index,
                    f"{name} is silent: {rate:.2g} spikes a neuron and step; no gradient passes it. Try a lower "
                    "v_threshold, a longer tau_mem, batch_norm = true or model.initial_rate = 0.05",
                )
            )
        elif rate > SATURATED:
            found.append(
                (
                    index,
                    f"{name} is saturated: {rate:.2g} spikes a neuron and step. Try a higher v_threshold, a "
                    "shorter tau_mem or a lower learning rate",
                )
            )
    return found
