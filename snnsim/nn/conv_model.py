"""The trainable convolutional network: spiking layers on feature maps, then a readout.

:class:`ConvSpikingModel` is called as :class:`~snnsim.nn.model.SpikingModel` is: inputs and state in, scores, trace,
rates and state out. :func:`~snnsim.nn.conv_presets.build_conv_model` makes one from the ``[model.conv]`` table of a
recipe.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from snnsim.errors import InputError
from snnsim.nn.cells import Cell, Chain
from snnsim.nn.context import Context
from snnsim.nn.dropout import SequenceDropout
from snnsim.nn.map_synapses import mean_fan_out
from snnsim.nn.maps import MapShape, Watch, to_units
from snnsim.nn.model import ReadoutBlock
from snnsim.nn.trained import State, TrainedModel

__all__ = ["ConvSpikingModel"]


class ConvSpikingModel(TrainedModel):
    """Layers on feature maps and a readout of the last maps' values.

    Args:
        body: Layers on maps; its cells are the hidden layers.
        readout: Output layer; its sources are the values of the last maps in the order of
            :mod:`snnsim.nn.maps`.
        input_shape: Channels, height and width of the input.
        dt: Time step, seconds.
        dropout: One mask a sequence on what the readout gets, or None.
        tail_steps: Empty steps that batches append to every sample.

    Input is (time, batch, unit), unit ``(channel * height + y) * width + x`` as for event cameras, or (time, batch,
    channel, height, width): counts of events or analogue values a step, the current of the first convolution.

    In evaluation a run in one piece and a run step by step with the state handed on give the same output; in training
    too, where batch norm takes its statistics step by step.
    """

    def __init__(
        self,
        body: Chain,
        readout: ReadoutBlock,
        *,
        input_shape: MapShape,
        dt: float,
        dropout: SequenceDropout | None = None,
        tail_steps: int = 0,
    ) -> None:
        super().__init__()
        channels, height, width = body.out_shape(input_shape)
        sources = channels * height * width
        if readout.connection.n_in != sources:
            raise InputError(
                f"model: the readout expects {readout.connection.n_in} inputs, the last maps have "
                f"{channels} x {height} x {width} values"
            )
        self.body = body
        self.dropout = dropout
        self.readout = readout
        self.input_shape = input_shape
        self.dt = dt
        self.tail_steps = tail_steps

    @property
    def n_inputs(self) -> int:
        """Return the number of values of one input step."""
        channels, height, width = self.input_shape
        return channels * height * width

    def cells(self) -> list[Cell]:
        """Return the hidden layers, in the order in which they run."""
        return [module for module in self.body.modules() if isinstance(module, Cell)]

    def hidden_sizes(self) -> list[int]:
        """Return the neurons of every cell."""
        return [cell.size for cell in self.cells()]

    def fan_out(self) -> list[float]:
        """Return the synapses of one value of the input and of one neuron of every cell, mean over places.

        Synapses into hidden neurons and into the readout count, pooling does not add any.
        """
        return mean_fan_out(self.body, self.input_shape, self.n_classes)

    def stretches_depend(self) -> str | None:
        """Return "batch norm" if there is one: stretches that run twice would move its averages twice."""
        return "batch norm" if any(cell.norm is not None for cell in self.cells()) else None

    def maps(self, x: Tensor) -> Tensor:
        """Return the input as maps (time, batch, channel, height, width).

        Raises:
            InputError: Another number of values a step.
        """
        if x.dim() == 5 and tuple(x.shape[2:]) == self.input_shape:
            return x
        if x.dim() != 3 or x.shape[2] != self.n_inputs:
            channels, height, width = self.input_shape
            raise InputError(
                f"model: expected input of shape (time, batch, {self.n_inputs}) or (time, batch, {channels}, {height}, "
                f"{width}), got {tuple(x.shape)}; model.conv.input says what the maps of the data are"
            )
        return x.reshape(x.shape[0], x.shape[1], *self.input_shape)

    def run_body(
        self, x: Tensor, state: State | None, context: Context | None, watch: Watch
    ) -> tuple[Tensor, Tensor, State]:
        """Return what the readout gets and its trace, (time, batch, unit) each, and the state."""
        body_state, factors, readout_state = (None, None, None) if state is None else state
        maps, body_state = self.body(self.maps(x), body_state, context, watch)
        values = to_units(maps)
        if self.dropout is not None and self.training:
            factors = self.dropout.factors(context, values) if factors is None else factors
            values = values if factors is None else values * factors
        trace, readout_state = self.readout.integrate(values, readout_state, context)
        return values, trace, (body_state, factors, readout_state)

    def run_stretch(
        self, x: Tensor, state: State | None, context: Context | None, record: bool
    ) -> tuple[Tensor, Tensor, list[Tensor], State]:
        """Run all layers without reducing the trace; see the base class."""
        watch = Watch(record=record)
        _, trace, new = self.run_body(x, state, context, watch)
        counts = torch.stack(watch.counts) if watch.counts else x.new_zeros(0, dtype=torch.float64)
        return trace, counts, watch.spikes, new

    def extra_repr(self) -> str:
        """Return what ``print(module)`` shows."""
        return f"input={' x '.join(map(str, self.input_shape))}, dt={self.dt}"

    def layers(self) -> list[Any]:
        """Return the cells and the readout, in order."""
        return [*self.cells(), self.readout]
