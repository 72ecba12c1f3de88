"""Pictures of activity: spikes of one sample through the layers, membranes, firing rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.events import Events
from snnsim.plots.page import COLOURS, CYCLE, INK, MUTED, WIDTH, headroom, line_style, new_figure, page_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["membrane_traces", "rates", "sample"]

Floats = npt.NDArray[np.float64]


def _ticks(axes: Any, times: Floats, units: npt.NDArray[Any], colour: str, height: float) -> None:
    """Draw spikes as short vertical strokes in one path, broken by NaN: small files, any number of spikes."""
    x = np.repeat(np.asarray(times, dtype=np.float64) * 1e3, 3)
    y = np.repeat(np.asarray(units, dtype=np.float64), 3)
    y[0::3] -= height / 2
    y[1::3] += height / 2
    y[2::3] = np.nan
    axes.plot(x, y, color=colour, linewidth=0.9, solid_capstyle="butt")


def sample(
    spikes: Mapping[str, Events],
    *,
    trace: npt.ArrayLike | None = None,
    dt: float = 0.001,
    class_names: Sequence[str] = (),
    label: int = -1,
    prediction: int = -1,
    trace_label: str = "readout",
) -> Figure:
    """Draw one sample on its way through a network: a raster for each layer and the readout below.

    Args:
        spikes: Layer name to events of one sample, in the order of the signal.
        trace: Readout, shape (n_steps, n_classes), or None.
        dt: Seconds a step of the trace.
        class_names: Names for the legend of the readout.
        label: True class, -1 if unknown.
        prediction: Predicted class, -1 if there is none.
        trace_label: Name of the readout's axis.

    Raises:
        InputError: An entry of `spikes` does not hold exactly one sample.
    """
    for name, events in spikes.items():
        if len(events) != 1:
            raise InputError(f"sample: {name!r} holds {len(events)} samples, expected one; take events[i]")
    values = None if trace is None else np.asarray(trace, dtype=np.float64)
    heights = [1.5 if place == 0 else 1.15 for place in range(len(spikes))] + ([1.3] if values is not None else [])
    lengths = [float(events.duration[0]) for events in spikes.values()]
    end = 1e3 * max([*lengths, 0.0 if values is None else values.shape[0] * dt])
    with page_style():
        figure = new_figure(4.6, 0.55 + sum(heights))
        all_axes = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
        for place, (axes, (name, events)) in enumerate(zip(all_axes, spikes.items(), strict=False)):
            colour = INK if place == 0 else CYCLE[(place - 1) % len(CYCLE)]
            _ticks(axes, events.times, events.units, colour, max(1.0, events.n_units / 45))
            axes.set_ylim(events.n_units - 0.5, -0.5)
            axes.set_title(f"{name}: {events.n_events:,} spikes, {events.n_units} units", fontweight="normal")
            axes.set_ylabel("unit")
        if values is not None:
            axes = all_axes[-1]
            instants = np.arange(values.shape[0]) * dt * 1e3
            for place in range(values.shape[1]):
                if place not in (label, prediction):
                    axes.plot(instants, values[:, place], color=MUTED, alpha=0.45, linewidth=0.7)
            drawn = {label: ("green", "-", "true"), prediction: ("vermillion", (0, (4, 1.5)), "predicted")}
            if label == prediction:
                drawn = {label: ("green", "-", "true and predicted")}
            for place, (colour, dash, role) in drawn.items():
                if 0 <= place < values.shape[1]:
                    name = class_names[place] if place < len(class_names) else str(place)
                    style = {"color": COLOURS[colour], "linestyle": dash, "label": f"{name} ({role})"}
                    axes.plot(instants, values[:, place], linewidth=1.7, **style)
            axes.set_title(f"{trace_label}: one line a class", fontweight="normal")
            if axes.get_legend_handles_labels()[0]:
                headroom(axes, 0.45)
                axes.legend(loc="upper left", handlelength=2.4, borderaxespad=0.1)
        all_axes[-1].set_xlim(0, end)
        all_axes[-1].set_xlabel("time (ms)")
        return figure


def membrane_traces(
    v: npt.ArrayLike,
    dt: float,
    *,
    spikes: Events | None = None,
    units: Sequence[int] | None = None,
    threshold: float | npt.ArrayLike | None = None,
    name: str = "",
) -> Figure:
    """Draw the membrane potential of a few neurons, one row each, with their spikes as strokes above.

    Args:
        v: Potential after each step, shape (n_steps, size).
        dt: Seconds a step.
        spikes: The population's spikes in this sample, one sample.
        units: Which neurons; by default the five with the most spikes (largest variance without spikes).
        threshold: Firing threshold, one or one a neuron, drawn as a thin line.
        name: Name of the population, for the title.
    """
    values = np.asarray(v, dtype=np.float64)
    if values.ndim != 2:
        raise InputError(f"membrane_traces: expected v of shape (n_steps, size), got {values.shape}")
    if units is None:
        if spikes is not None and spikes.n_events:
            activity = np.bincount(spikes.units, minlength=values.shape[1]).astype(np.float64)
        else:
            activity = values.var(axis=0)
        units = np.argsort(-activity, kind="stable")[:5].tolist()
    with page_style():
        figure = new_figure(WIDTH, 0.7 + 0.74 * len(units))
        rows = figure.subplots(len(units), 1, sharex=True, squeeze=False)[:, 0]
        instants = np.arange(values.shape[0]) * dt * 1e3
        for axes, unit in zip(rows, units, strict=True):
            line = values[:, unit]
            top = float(np.max(line, initial=0.0))
            if threshold is not None:
                level = float(np.broadcast_to(np.asarray(threshold), (values.shape[1],))[unit])
                axes.axhline(level, color=MUTED, linewidth=0.7, linestyle=(0, (3, 2)))
                top = max(top, level)
            axes.plot(instants, line, color=COLOURS["blue"], linewidth=1.0)
            bottom = float(np.min(line, initial=0.0))
            span = max(top - bottom, 1e-9)
            if spikes is not None:
                own = spikes.times[spikes.units == unit] * 1e3
                axes.vlines(own, top + 0.1 * span, top + 0.4 * span, color=COLOURS["vermillion"], linewidth=1.2)
            axes.set_ylim(bottom - 0.08 * span, top + 0.5 * span)
            axes.set_ylabel(f"neuron {unit}", rotation=0, ha="right", va="center", fontsize=8)
        rows[0].set_title(f"Membrane potential{f' of {name}' if name else ''}; strokes are spikes")
        rows[-1].set_xlabel("time (ms)")
        rows[-1].set_xlim(0, instants[-1] if instants.size else 1)
        return figure


def rates(values: Mapping[str, npt.ArrayLike]) -> Figure:
    """Draw the firing rate of every neuron, sorted, one line a population; the legend names the silent share.

    Args:
        values: Population name to mean rates in Hz, shape (size,).
    """

    with page_style():
        from matplotlib.ticker import PercentFormatter

        figure = new_figure(5.4, 2.8)
        axes = figure.subplots()
        for place, (name, rate) in enumerate(values.items()):
            ordered = np.sort(np.asarray(rate, dtype=np.float64))[::-1]
            silent = float(np.mean(ordered == 0)) if ordered.size else 0.0
            share = (np.arange(ordered.size) + 0.5) / max(ordered.size, 1)
            mean = float(ordered.mean()) if ordered.size else 0.0
            text = f"{name}: mean {mean:.1f} Hz, {silent:.0%} silent"
            axes.plot(share, ordered, label=text, **line_style(place))
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set_xlim(0, 1)
        axes.set_ylim(0, None)
        axes.set_xlabel("neurons, most active first")
        axes.set_ylabel("rate (Hz)")
        axes.set_title("Firing rates")
        axes.grid(axis="y", color=MUTED, alpha=0.25, linewidth=0.6)
        if values:
            headroom(axes, 0.1 * (1 + len(values)))
            axes.legend(loc="upper right", borderaxespad=0.1)
        return figure
