"""Pictures of the delays of a network: how many synapses have which, and which weights go with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.network import Network
from snnsim.plots.page import COLOURS, INK, WIDTH, headroom, new_figure, page_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["delay_histogram", "delay_map", "strongest"]

Floats = npt.NDArray[np.float64]


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
    with page_style():
        figure = new_figure(min(WIDTH, 1.0 + 4.2 * len(names)), 2.8)
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
                headroom(axes, 0.2)
                axes.legend(loc="upper right", ncols=2, borderaxespad=0.1)
        return figure


def strongest(network: Network, name: str) -> tuple[Floats, Floats]:
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
    with page_style():
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import LogNorm, Normalize
        from matplotlib.ticker import MaxNLocator

        figure = new_figure(WIDTH, 0.3 + 3.1 * len(names))
        rows = figure.subplots(len(names), 2, squeeze=False, width_ratios=[1.25, 1])
        for (left, right), name in zip(rows, names, strict=True):
            delay, weight = strongest(network, name)
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
