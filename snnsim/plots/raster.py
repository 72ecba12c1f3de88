"""Raster and population rates of a large network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.plots.page import CYCLE, MUTED, WIDTH, new_figure, page_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["raster"]


def raster(
    spikes: Mapping[str, Events],
    *,
    start: float = 0.0,
    stop: float | None = None,
    neurons: int = 400,
    bin_width: float = 0.001,
    title: str = "",
) -> Figure:
    """Draw the spikes of some neurons of every population, and the rate of all of them below.

    Args:
        spikes: Population name to events of one sample, as in ``Result.spikes``.
        start: First instant shown, seconds.
        stop: Last one; the sample's duration by default.
        neurons: Neurons drawn of all populations together, shared out by their sizes; each gets at least four.
        bin_width: Of the rates, seconds.
        title: Above the picture.

    Raises:
        InputError: An entry does not hold exactly one sample, or nothing lies between start and stop.
    """
    for name, events in spikes.items():
        if len(events) != 1:
            raise InputError(f"raster: {name!r} holds {len(events)} samples, expected one; take events.subset([i])")
    if not spikes:
        raise InputError("raster: expected at least one population")
    end = float(max(item.duration[0] for item in spikes.values())) if stop is None else float(stop)
    if not 0 <= start < end or bin_width <= 0:
        raise InputError(
            f"raster: expected 0 <= start < stop and a positive bin width, got {start}, {end}, {bin_width}"
        )
    total = sum(item.n_units for item in spikes.values())
    edges = start + bin_width * np.arange(max(1, round((end - start) / bin_width)) + 1)
    with page_style():
        figure = new_figure(WIDTH, 5.2)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        base = 0
        places, names = [], []
        for place, (name, events) in enumerate(spikes.items()):
            colour = CYCLE[place % len(CYCLE)]
            shown = min(events.n_units, max(4, round(neurons * events.n_units / total)))
            inside = (events.times >= start) & (events.times < end)
            times, units = events.times[inside], events.units[inside].astype(np.int64)
            drawn = units < shown
            above.plot(
                times[drawn] * 1e3,
                base + units[drawn],
                linestyle="none",
                marker=".",
                markersize=2.2,
                markeredgewidth=0,
                color=colour,
                rasterized=True,
            )
            places.append(base + shown / 2)
            names.append(name)
            base += shown
            rate = np.histogram(times, edges)[0] / (events.n_units * bin_width)
            below.plot(edges[:-1] * 1e3, rate, color=colour, linewidth=0.9, drawstyle="steps-post", label=name)
        above.set_ylim(base, 0)
        above.set_yticks(places, names)
        above.tick_params(length=0)
        if title:
            above.set_title(title, fontsize=10)
        below.set_xlim(start * 1e3, end * 1e3)
        below.set_ylim(bottom=0)
        below.set_xlabel("time (ms)")
        below.set_ylabel("spikes / s")
        below.grid(axis="y", color=MUTED, alpha=0.25, linewidth=0.6)
    return figure
