"""Pictures of spikes, potentials, delays and learning.

Every function takes plain values, events or a network and returns a matplotlib `Figure`; nothing is drawn on a
screen and no global state is changed. :func:`to_svg` turns a figure into inline SVG whose ink follows the page
(light or dark). Colours are the colour-blind-safe set of Okabe and Ito (2008); lines also differ in dashes.

matplotlib is an optional library (extra ``report``) and is imported where it is used.
"""

from __future__ import annotations

from snnsim.plots.activity import membrane_traces, rates, sample
from snnsim.plots.delays import delay_histogram, delay_map
from snnsim.plots.learning import confusion, learning_curves
from snnsim.plots.page import COLOURS, to_png, to_svg
from snnsim.plots.raster import raster

__all__ = [
    "COLOURS",
    "confusion",
    "delay_histogram",
    "delay_map",
    "learning_curves",
    "membrane_traces",
    "raster",
    "rates",
    "sample",
    "to_png",
    "to_svg",
]
