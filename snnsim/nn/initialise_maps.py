"""Rate-targeted initialisation of convolutional networks; see :mod:`snnsim.nn.initialise`.

The gain of a cell is the weight of its batch norm, else the gain of the standardised convolution that drives it (biases
are zero in a fresh network). Where the current is a sum that earlier gains have set already (the further blocks of a
stage without batch norm) there is none: the rate is measured and stays.
"""

from __future__ import annotations

from torch import Tensor

from snnsim.nn.cells import Cell, Chain, ResidualBlock, ScaledResidualBlock
from snnsim.nn.context import Context
from snnsim.nn.conv import Conv2d, StandardisedConv2d
from snnsim.nn.conv_model import ConvSpikingModel
from snnsim.nn.maps import MapLayer, Watch, to_units
from snnsim.nn.rate_search import LayerRate, RateSearch

__all__ = ["scale_cells"]


class _Reached(Exception):  # noqa: N818 - no error: it ends a run at the cell that is wanted
    """A run has reached the next cell without batch norm."""


def scale_cells(model: ConvSpikingModel, x: Tensor, context: Context | None, search: RateSearch) -> list[LayerRate]:
    """Scale the cells of ``model`` in order, to the rate of ``search`` on the inputs ``x``.

    Dropout is off; the caller restores modes and running averages.
    """
    drivers: dict[int, StandardisedConv2d] = {}
    _find_drivers(model.body, None, drivers)
    places = {id(cell): place for place, cell in enumerate(model.cells())}
    results: list[LayerRate] = []
    for cell in model.cells():
        if cell.dropout is not None:
            cell.dropout.eval()
    if model.dropout is not None:
        model.dropout.eval()

    def before(cell: Cell, maps: Tensor, seen: Context | None) -> None:
        place = places[id(cell)]
        if place < len(results):
            return
        driver = drivers.get(id(cell))
        gain = driver.gain if cell.norm is None and driver is not None else None
        if cell.norm is not None:
            gain = cell.norm.weight
        if gain is None:
            rate = search.rate(cell.neuron(to_units(maps), None, seen)[0])
            results.append(LayerRate(rate, rate, 1.0))
            return
        start = gain.clone()

        def run(factor: float) -> tuple[float, None]:
            gain.copy_(start * factor)
            current = to_units(maps * factor) if cell.norm is None else cell.current(maps, seen)
            return search.rate(cell.neuron(current, None, seen)[0]), None

        results.append(search.find(run, place, maps)[0])
        if cell.norm is None and results[-1].factor != 1.0:
            raise _Reached  # what was computed up to here holds no longer

    while len(results) < len(places):
        try:
            model.run_body(x, None, context, Watch(before=before))
        except _Reached:
            continue
    return results


def _find_drivers(layer: MapLayer, last: Conv2d | None, drivers: dict[int, StandardisedConv2d]) -> Conv2d | None:
    """Note the convolution that alone drives a cell; return the one that alone makes the layer's output."""
    if isinstance(layer, Chain):
        for part in layer:
            last = _find_drivers(part, last, drivers)
        return last
    if isinstance(layer, Conv2d):
        return layer
    if isinstance(layer, Cell):
        if isinstance(last, StandardisedConv2d):
            drivers[id(layer)] = last
        return None
    if isinstance(layer, ResidualBlock | ScaledResidualBlock):
        _find_drivers(layer.first, last, drivers)
        _find_drivers(layer.second, layer.conv1, drivers)
        starts_at_zero = isinstance(layer, ScaledResidualBlock)
        return layer.shortcut if starts_at_zero else None
    return last
