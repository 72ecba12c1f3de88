"""Pictures of learning: curves over epochs, and what is taken for what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from snnsim.errors import InputError
from snnsim.plots.page import MUTED, WIDTH, line_style, new_figure, page_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["confusion", "learning_curves"]


def learning_curves(
    loss: Mapping[str, Sequence[float]], accuracy: Mapping[str, Sequence[float]], *, chance: float | None = None
) -> Figure:
    """Draw loss and accuracy against the epoch, one line a data split.

    Args:
        loss: Split name to one value an epoch; NaN leaves a gap.
        accuracy: Split name to one value in [0, 1] an epoch.
        chance: Accuracy of guessing, drawn as a thin line.
    """

    with page_style():
        from matplotlib.ticker import MaxNLocator, PercentFormatter

        figure = new_figure(WIDTH, 3.0)
        left, right = figure.subplots(1, 2)
        for axes, curves, title in ((left, loss, "Loss"), (right, accuracy, "Accuracy")):
            for place, (name, values) in enumerate(curves.items()):
                epochs = np.arange(1, len(values) + 1)
                marker = {"marker": "o", "markersize": 3.5} if len(values) <= 12 else {}
                axes.plot(epochs, np.asarray(values, dtype=float), label=name, **line_style(place), **marker)
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
    with page_style():
        side = min(7.4, 1.6 + 0.33 * n)
        figure = new_figure(side, side)
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
