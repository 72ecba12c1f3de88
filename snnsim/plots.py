"""Pictures of spikes, potentials, delays and learning.

Every function takes plain values, events or a network and returns a matplotlib `Figure`; nothing is drawn on a
screen and no global state is changed. :func:`to_svg` turns a figure into inline SVG whose ink follows the page
(light or dark). Colours are the colour-blind-safe set of Okabe and Ito (2008); lines also differ in dashes.

matplotlib is an optional library (extra ``report``) and is imported where it is used.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError, MissingLibraryError
from snnsim.events import Events
from snnsim.network import Network

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "COLOURS",
    "confusion",
    "delay_histogram",
    "delay_map",
    "learning_curves",
    "membrane_traces",
    "rates",
    "sample",
    "to_png",
    "to_svg",
]

Floats = npt.NDArray[np.float64]

COLOURS = {
    "blue": "#0072b2",
    "vermillion": "#d55e00",
    "green": "#009e73",
    "purple": "#cc79a7",
    "orange": "#e69f00",
    "sky": "#56b4e9",
}
INK = "#1a1b1c"  # replaced by the page's text colour in to_svg
MUTED = "#8a8b8c"  # replaced by the page's muted colour
WIDTH = 9.8  # inches: the width of a page of text
CYCLE = list(COLOURS.values())
DASHES = ["-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)), (0, (3, 1)), (0, (8, 2))]
SETTINGS: dict[str, Any] = {
    "font.size": 9,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "snnsim",
    "lines.linewidth": 1.4,
}


@contextmanager
def _style() -> Iterator[None]:
    """Our settings inside, the caller's afterwards."""
    try:
        import matplotlib
    except ImportError as error:
        raise MissingLibraryError("matplotlib", "report", "drawing") from error
    with matplotlib.rc_context(SETTINGS):
        yield


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _headroom(axes: Any, share: float) -> None:
    """Stretch the upper end of the vertical axis, to make room for a legend."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + share * (high - low))


def _line_style(place: int) -> dict[str, Any]:
    return {"color": CYCLE[place % len(CYCLE)], "linestyle": DASHES[place % len(DASHES)]}


def learning_curves(
    loss: Mapping[str, Sequence[float]], accuracy: Mapping[str, Sequence[float]], *, chance: float | None = None
) -> Figure:
    """Draw loss and accuracy against the epoch, one line a data split.

    Args:
        loss: Split name to one value an epoch; NaN leaves a gap.
        accuracy: Split name to one value in [0, 1] an epoch.
        chance: Accuracy of guessing, drawn as a thin line.
    """

    with _style():
        from matplotlib.ticker import MaxNLocator, PercentFormatter

        figure = _figure(WIDTH, 3.0)
        left, right = figure.subplots(1, 2)
        for axes, curves, title in ((left, loss, "Loss"), (right, accuracy, "Accuracy")):
            for place, (name, values) in enumerate(curves.items()):
                epochs = np.arange(1, len(values) + 1)
                marker = {"marker": "o", "markersize": 3.5} if len(values) <= 12 else {}
                axes.plot(epochs, np.asarray(values, dtype=float), label=name, **_line_style(place), **marker)
            axes.set_title(title)
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(axis="y", color=MUTED, alpha=0.25, linewidth=0.6)
            if curves:
                axes.legend(loc="best")
        right.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        right.set_ylim(0, 1.02)
        if chance is not None:
            right.axhline(chance, color=MUTED, linewidth=0.8)
            right.annotate(
                "chance", (0.99, chance), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=7.5
            )
        return figure


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
    with _style():
        figure = _figure(4.6, 0.55 + sum(heights))
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
                _headroom(axes, 0.45)
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
    with _style():
        figure = _figure(WIDTH, 0.7 + 0.74 * len(units))
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


def _delays_ms(network: Network) -> dict[str, tuple[Floats, Floats]]:
    """Delay (ms) and weight of every synapse, by projection name, parallel projections together."""
    found: dict[str, list[tuple[Floats, Floats]]] = {}
    for projection in network.projections:
        synapses = projection.synapses(network.dt)
        delay = np.asarray(synapses.delay_steps * network.dt * 1e3, dtype=np.float64)
        found.setdefault(projection.name, []).append((delay, synapses.weight))
    return {
        name: (np.concatenate([item[0] for item in items]), np.concatenate([item[1] for item in items]))
        for name, items in found.items()
    }


def _with_delays(network: Network) -> list[str]:
    return [name for name, (delay, _) in _delays_ms(network).items() if delay.size and delay.max() > 0]


def delay_histogram(after: Network, before: Network | None = None) -> Figure:
    """Draw how many synapses have which delay, before and after training, one panel a delayed projection.

    Raises:
        InputError: The network has no delays.
    """
    names = _with_delays(after)
    if not names:
        raise InputError("delay_histogram: the network has no delays")
    new, old = _delays_ms(after), _delays_ms(before) if before is not None else {}
    with _style():
        figure = _figure(min(WIDTH, 1.0 + 4.2 * len(names)), 2.8)
        panels = figure.subplots(1, len(names), squeeze=False)[0]
        for axes, name in zip(panels, names, strict=True):
            delay = new[name][0]
            longest = max(float(delay.max()), float(old[name][0].max()) if name in old else 0.0)
            step = after.dt * 1e3
            bins = min(round(longest / step) + 1, 50)
            edges = np.linspace(-step / 2, longest + step / 2, bins + 1)
            if name in old:
                axes.stairs(np.histogram(old[name][0], edges)[0], edges, color=INK, linewidth=1.1, label="before")
            counts = np.histogram(delay, edges)[0]
            axes.stairs(counts, edges, fill=True, color=COLOURS["blue"], alpha=0.65, label="after training")
            axes.set_title(name.replace("->", " → "))
            axes.set_xlabel("delay (ms)")
            axes.set_ylabel("synapses")
            axes.set_ylim(0, None)
            if name in old:
                _headroom(axes, 0.2)
                axes.legend(loc="upper right", ncols=2, borderaxespad=0.1)
        return figure


def _strongest(network: Network, name: str) -> tuple[Floats, Floats]:
    """Delay (ms) and weight of the strongest synapse for each pair, (n_target, n_source); NaN and 0 where none."""
    group = [item for item in network.projections if item.name == name]
    shape = group[0].shape
    delay, weight = np.full(shape, np.nan), np.zeros(shape)
    for projection in group:
        synapses = projection.synapses(network.dt)
        source = np.repeat(np.arange(shape[1]), np.diff(synapses.indptr))
        order = np.argsort(np.abs(synapses.weight), kind="stable")
        target, source = synapses.target[order], source[order]
        values, delays = synapses.weight[order], synapses.delay_steps[order] * network.dt * 1e3
        keep = np.abs(values) >= np.abs(weight[target, source])
        weight[target[keep], source[keep]] = values[keep]
        delay[target[keep], source[keep]] = delays[keep]
    return delay, weight


def delay_map(network: Network) -> Figure:
    """Draw each synapse's delay with its weight as opacity, and how weight and delay go together.

    One row a delayed projection. Left: targets down, sources across; where there are several synapses a pair
    (taps), the strongest. Right: number of synapses for each weight and delay, on a logarithmic scale.

    Raises:
        InputError: The network has no delays.
    """
    from matplotlib import colormaps

    names = _with_delays(network)
    if not names:
        raise InputError("delay_map: the network has no delays")
    everything = _delays_ms(network)
    with _style():
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import LogNorm, Normalize
        from matplotlib.ticker import MaxNLocator

        figure = _figure(WIDTH, 0.3 + 3.1 * len(names))
        rows = figure.subplots(len(names), 2, squeeze=False, width_ratios=[1.25, 1])
        for (left, right), name in zip(rows, names, strict=True):
            delay, weight = _strongest(network, name)
            norm = Normalize(0, float(np.nanmax(delay)))
            scale = float(np.quantile(np.abs(weight[weight != 0]), 0.95))
            image = colormaps["viridis"](norm(np.nan_to_num(delay)))
            image[..., 3] = np.where(np.isnan(delay), 0.0, np.clip(np.abs(weight) / scale, 0.0, 1.0))
            left.imshow(image, aspect="auto", interpolation="none")
            left.set_title(f"{name.replace('->', ' → ')}: delay, opacity |weight|")
            left.set_xlabel("source unit")
            left.set_ylabel("target unit")
            left.xaxis.set_major_locator(MaxNLocator(integer=True))
            left.yaxis.set_major_locator(MaxNLocator(integer=True))
            figure.colorbar(ScalarMappable(norm, colormaps["viridis"]), ax=left, label="delay (ms)", pad=0.01)
            delays, weights = everything[name]
            limit = float(np.quantile(np.abs(weights), 0.999))
            bins = min(round(float(delays.max()) / (network.dt * 1e3)) + 1, 40)
            edges = np.linspace(-0.5 * network.dt * 1e3, float(delays.max()) + 0.5 * network.dt * 1e3, bins + 1)
            counts, x_edges, y_edges = np.histogram2d(delays, weights, [edges, np.linspace(-limit, limit, 42)])
            shown = np.ma.masked_equal(counts.T, 0)
            extent = (x_edges[0], x_edges[-1], y_edges[0], y_edges[-1])
            density = right.imshow(
                shown,
                origin="lower",
                extent=extent,
                aspect="auto",
                interpolation="none",
                cmap="cividis",
                norm=LogNorm(1, max(2.0, float(counts.max()))),
            )
            right.set_title("weight against delay")
            right.set_xlabel("delay (ms)")
            right.set_ylabel("weight")
            figure.colorbar(density, ax=right, label="synapses", pad=0.01)
        return figure


def rates(values: Mapping[str, npt.ArrayLike]) -> Figure:
    """Draw the firing rate of every neuron, sorted, one line a population; the legend names the silent share.

    Args:
        values: Population name to mean rates in Hz, shape (size,).
    """

    with _style():
        from matplotlib.ticker import PercentFormatter

        figure = _figure(5.4, 2.8)
        axes = figure.subplots()
        for place, (name, rate) in enumerate(values.items()):
            ordered = np.sort(np.asarray(rate, dtype=np.float64))[::-1]
            silent = float(np.mean(ordered == 0)) if ordered.size else 0.0
            share = (np.arange(ordered.size) + 0.5) / max(ordered.size, 1)
            mean = float(ordered.mean()) if ordered.size else 0.0
            text = f"{name}: mean {mean:.1f} Hz, {silent:.0%} silent"
            axes.plot(share, ordered, label=text, **_line_style(place))
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set_xlim(0, 1)
        axes.set_ylim(0, None)
        axes.set_xlabel("neurons, most active first")
        axes.set_ylabel("rate (Hz)")
        axes.set_title("Firing rates")
        axes.grid(axis="y", color=MUTED, alpha=0.25, linewidth=0.6)
        if values:
            _headroom(axes, 0.1 * (1 + len(values)))
            axes.legend(loc="upper right", borderaxespad=0.1)
        return figure


def confusion(matrix: npt.ArrayLike, class_names: Sequence[str] = ()) -> Figure:
    """Draw a confusion matrix, rows the true classes, columns the predicted ones, with counts in the cells.

    Args:
        matrix: Counts, int, shape (n_classes, n_classes).
        class_names: One name a class; numbers by default.
    """
    counts = np.asarray(matrix, dtype=np.int64)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise InputError(f"confusion: expected a square matrix of counts, got shape {counts.shape}")
    n = counts.shape[0]
    names = list(class_names) if len(class_names) == n else [str(place) for place in range(n)]
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with _style():
        side = min(7.4, 1.6 + 0.33 * n)
        figure = _figure(side, side)
        axes = figure.subplots()
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1, interpolation="none")
        if n <= 40:
            size = 8 if n <= 12 else 6.5 if n <= 24 else 5
            for row, column in np.argwhere(counts > 0):
                ink = "#ffffff" if share[row, column] > 0.55 else "#202122"
                axes.text(column, row, str(counts[row, column]), ha="center", va="center", color=ink, fontsize=size)
            axes.set_xticks(range(n), names, rotation=90 if n > 12 else 45, ha="center" if n > 12 else "right")
            axes.set_yticks(range(n), names)
            if n <= 12:
                axes.set_xticks(range(n), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.tick_params(length=0)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        total, right = int(counts.sum()), int(np.trace(counts))
        axes.set_title(f"{right} of {total} right" if total else "no samples")
        return figure


def to_svg(figure: Figure, name: str, description: str) -> str:
    """Return a figure as inline SVG for one HTML page.

    Text stays text; ink and muted lines follow the page's ``color`` and ``--muted``, palette colours follow
    ``--plot-<name>`` where the page sets them. Every id gets `name` as a prefix, so that several pictures fit
    on one page.

    Args:
        figure: The picture.
        name: Short word, unique on the page.
        description: What the picture shows, for people who cannot see it.
    """
    buffer = io.StringIO()
    with _style():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = re.sub(r'xlink:href="#([^"]+)"', rf'xlink:href="#{name}-\1"', text)
    text = re.sub(r"(\d+\.\d\d)\d+", r"\1", text)
    text = text.replace(INK, "currentColor").replace(MUTED, f"var(--muted, {MUTED})")
    for word, colour in COLOURS.items():
        text = text.replace(colour, f"var(--plot-{word}, {colour})")
    escaped = description.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return text.replace("<svg ", f'<svg role="img" aria-label="{escaped}" ', 1).strip()


def to_png(figure: Figure, *, dpi: int = 144) -> bytes:
    """Return a figure as a PNG file with a white background, for documents and slides."""
    buffer = io.BytesIO()
    with _style():
        figure.savefig(buffer, format="png", dpi=dpi, facecolor="#ffffff", metadata={"Software": None})
    return buffer.getvalue()
