"""Pictures of the study of Lyapunov noise pruning: results by seed; spectra, degrees, time constants of the pools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from snnsim.network import Network
from snnsim.plots.page import COLOURS, new_figure, page_style
from snnsim.studies.lnp import Cell
from snnsim.studies.statistics import summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["pool_figures", "result_figure"]

DRAWN = ("dense", "lnp", "lnp without timescales", "magnitude", "random", "activity")
TINTS = {"heterogeneous": COLOURS["blue"], "homogeneous": COLOURS["vermillion"]}


def result_figure(values: dict[Cell, list[float]], label: str) -> Figure:
    """Draw means, intervals and single seeds, a line a cell: ``het.`` (heterogeneous) or ``hom.`` and its way.

    Args:
        values: By cell, in the order of seeds.
        label: Of the axis.
    """
    with page_style():
        figure = new_figure(width=9.8, height=0.7 + 0.24 * len(values))
        axes = figure.subplots()
        for place, (cell, own) in enumerate(values.items()):
            found, tint = summary(own), TINTS[cell.kind]
            axes.plot(own, [place] * len(own), ".", color=tint, alpha=0.4, ms=4)
            axes.plot([found.low, found.high], [place, place], "-", color=tint, lw=1.5)
            axes.plot(found.mean, place, "o", color=tint, ms=4.5)
        axes.set_yticks(range(len(values)))
        axes.set_yticklabels([f"{cell.kind[:3]}. {cell.way}" for cell in values])
        axes.invert_yaxis()
        axes.set_xlabel(label)
    return figure


def _recurrent(network: Network) -> npt.NDArray[np.float64]:
    item = next(item for item in network.projections if item.source == "pool")
    return np.asarray(item.weight, np.float64)


def pool_figures(folder: Path, seed: int = 0) -> list[tuple[str, Figure, str]]:
    """Return name, figure and description of the pictures of the heterogeneous pools of one seed.

    Args:
        folder: The study's pools.
        seed: Which.
    """
    found: dict[str, Network] = {}
    for way in DRAWN:
        path = folder / f"{Cell('heterogeneous', way).name}-{seed}.snn.h5"
        if path.is_file():
            found[way] = Network.load(path)
    if not found:
        return []
    with page_style():
        return [
            ("spectra", _spectra(found), "Eigenvalues of the recurrent weights; the circle has radius 1."),
            ("degrees", _degrees(found), "Synapses into and out of a neuron, share of the neurons."),
            ("timescales", _timescales(found), "Membrane time constants, share of the neurons."),
        ]


def _panels(found: dict[str, Network], height: float) -> tuple[Figure, list[tuple[str, Network, Any]]]:
    figure = new_figure(width=9.8, height=height * (-(-len(found) // 3)))
    axes = np.atleast_1d(figure.subplots(-(-len(found) // 3), min(3, len(found)), sharex=True, sharey=True)).reshape(-1)
    for spare in axes[len(found) :]:
        spare.set_visible(False)
    return figure, [(way, network, axis) for (way, network), axis in zip(found.items(), axes, strict=False)]


def _spectra(found: dict[str, Network]) -> Figure:
    figure, panels = _panels(found, 2.7)
    turn = np.linspace(0, 2 * np.pi, 200)
    for way, network, axes in panels:
        values = np.linalg.eigvals(_recurrent(network))
        axes.plot(np.cos(turn), np.sin(turn), "-", color=COLOURS["orange"], lw=0.8)
        axes.plot(values.real, values.imag, ".", color=COLOURS["blue"], ms=2.5)
        axes.set_title(f"{way}: radius {np.abs(values).max():.2f}")
        axes.set_aspect("equal")
    return figure


def _degrees(found: dict[str, Network]) -> Figure:
    figure, panels = _panels(found, 1.9)
    for way, network, axes in panels:
        exists = _recurrent(network) != 0
        for name, axis, tint in (("in", 1, COLOURS["blue"]), ("out", 0, COLOURS["vermillion"])):
            degree = exists.sum(axis=axis)
            share = np.bincount(degree) / degree.shape[0]
            axes.step(np.arange(share.shape[0]), share, where="mid", color=tint, label=name)
        axes.set_title(f"{way}: {int(exists.sum())} synapses")
    panels[0][2].legend(frameon=False)
    return figure


def _timescales(found: dict[str, Network]) -> Figure:
    figure, panels = _panels(found, 1.9)
    edges = np.linspace(0, 80, 33)
    for way, network, axes in panels:
        size, neuron = network.population("pool").size, network.population("pool").neuron
        tau = 1000 * np.broadcast_to(np.asarray(neuron.parameters()["tau_mem"], np.float64), (size,))
        share = np.histogram(np.minimum(tau, 79.9), edges)[0] / size
        axes.stairs(share, edges, color=COLOURS["blue"], fill=True)
        axes.set_title(f"{way}: mean {tau.mean():.1f} ms")
        axes.set_xlabel("ms")
    return figure
