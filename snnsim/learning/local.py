"""What the local learning rules share: weight bounds, the order of samples, labels, threads."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.kernels.philox import Stream, uniform
from snnsim.kernels.weight_bounds import NONE, NORM, SUM

__all__ = ["Normalise", "WeightBounds", "check_events", "check_labels", "in_blocks", "number", "sample_order", "whole"]

Normalise = Literal["sum", "norm"]
Floats = npt.NDArray[np.float64]


def number(owner: str, name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    """Return a finite float in ``low .. high``, or refuse it with the name of what it is for."""
    good = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not good or not math.isfinite(value) or not low <= value <= high:
        room = "a finite number" if (low, high) == (-math.inf, math.inf) else f"a number from {low} to {high}"
        raise InputError(f"{owner}: {name}: expected {room}, got {value!r}")
    return float(value)


def whole(owner: str, name: str, value: Any, low: int) -> int:
    """Return a whole number of at least ``low``, or refuse it with the name of what it is for."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < low:
        raise InputError(f"{owner}: {name}: expected a whole number of at least {low}, got {value!r}")
    return int(value)


@dataclass(frozen=True, kw_only=True)
class WeightBounds:
    """Limits of the incoming weights of each neuron, kept after each sample.

    Weights are put into ``w_min .. w_max``, then scaled so that their sum (``normalise="sum"``) or the root of the sum
    of their squares (``"norm"``) is ``total``, then put into the bounds again: the bounds win.

    Attributes:
        w_min: Smallest weight.
        w_max: Largest weight.
        normalise: ``"sum"``, ``"norm"`` or None.
        total: What the sum or norm becomes; needed with ``normalise``.

    Raises:
        InputError: A value is out of range; the sentence says which.
    """

    w_min: float = -math.inf
    w_max: float = math.inf
    normalise: Normalise | None = None
    total: float | None = None

    def __post_init__(self) -> None:
        for name in ("w_min", "w_max"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or math.isnan(value):
                raise InputError(f"WeightBounds: {name}: expected a number, got {value!r}")
        if self.w_min >= self.w_max:
            raise InputError(f"WeightBounds: expected w_min < w_max, got {self.w_min} and {self.w_max}")
        if self.normalise is None:
            if self.total is not None:
                raise InputError("WeightBounds: total belongs to normalise='sum' or 'norm'; give both or none")
            return
        if self.normalise not in get_args(Normalise):
            raise InputError(f"WeightBounds: normalise: expected 'sum', 'norm' or None, got {self.normalise!r}")
        if number("WeightBounds", "total", self.total) <= 0:
            raise InputError(f"WeightBounds: total: expected a number above 0, got {self.total}")
        if self.normalise == "sum" and self.w_min < 0:
            raise InputError(
                f"WeightBounds: normalise='sum' needs weights that are not negative, got w_min {self.w_min}; "
                "use w_min=0 or normalise='norm'"
            )

    @property
    def kind(self) -> int:
        """The number of the normalisation in the kernels."""
        return {None: NONE, "sum": SUM, "norm": NORM}[self.normalise]

    @property
    def size(self) -> float:
        """The total as a number, 1 where nothing is scaled."""
        return 1.0 if self.total is None else float(self.total)


def check_events(owner: str, events: Any, n_inputs: int) -> Events:
    """Return events after checking that they are Events of the right number of units."""
    if not isinstance(events, Events):
        raise InputError(f"{owner}: expected snnsim.events.Events, got {type(events).__name__}")
    if events.n_units != n_inputs:
        raise InputError(f"{owner}: expected events of {n_inputs} units, got {events.n_units}; was it made for them?")
    return events


def check_labels(owner: str, events: Events, n_classes: int) -> npt.NDArray[np.int64]:
    """Return the labels of samples after checking that each has one of the classes."""
    if len(events) and not (events.labels.min() >= 0 and events.labels.max() < n_classes):
        raise InputError(
            f"{owner}: expected a label from 0 to {n_classes - 1} for every sample, got "
            f"{events.labels.min()}..{events.labels.max()} (-1 means none)"
        )
    return np.ascontiguousarray(events.labels)


def sample_order(seed: int, epoch: int, n_samples: int) -> npt.NDArray[np.int64]:
    """Return the order in which an epoch shows its samples: a permutation drawn by seed, epoch and position."""
    draws = uniform(seed, Stream.ORDER, 0, epoch, np.arange(n_samples))
    return np.argsort(draws, kind="stable").astype(np.int64)


def in_blocks(call: Callable[[int, int], Any], count: int, threads: int | None) -> list[Any]:
    """Call ``call(first, end)`` for blocks of ``0 .. count``, at once in several threads; results in order.

    What is in one block must not depend on what is in another.
    """
    workers = min((os.cpu_count() or 1) if threads is None else threads, count)
    if workers < 0 or (threads is not None and threads < 1):
        raise InputError(f"threads: expected at least 1, got {threads}")
    if workers <= 1:
        return [call(0, count)] if count else []
    edges = np.linspace(0, count, workers + 1).astype(int)
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda block: call(int(edges[block]), int(edges[block + 1])), range(workers)))
