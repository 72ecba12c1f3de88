"""The look of all pictures, and how a figure gets onto a page: colours, sizes, SVG and PNG."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from snnsim.errors import MissingLibraryError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "COLOURS",
    "CYCLE",
    "INK",
    "MUTED",
    "WIDTH",
    "headroom",
    "line_style",
    "new_figure",
    "page_style",
    "to_png",
    "to_svg",
]

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
def page_style() -> Iterator[None]:
    """Our settings inside, the caller's afterwards."""
    try:
        import matplotlib
    except ImportError as error:
        raise MissingLibraryError("matplotlib", "report", "drawing") from error
    with matplotlib.rc_context(SETTINGS):
        yield


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of this size in inches, which belongs to no screen."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def headroom(axes: Any, share: float) -> None:
    """Stretch the upper end of the vertical axis, to make room for a legend."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + share * (high - low))


def line_style(place: int) -> dict[str, Any]:
    """Return colour and dashes of the line number ``place``; both go round."""
    return {"color": CYCLE[place % len(CYCLE)], "linestyle": DASHES[place % len(DASHES)]}


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
    with page_style():
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
    with page_style():
        figure.savefig(buffer, format="png", dpi=dpi, facecolor="#ffffff", metadata={"Software": None})
    return buffer.getvalue()
