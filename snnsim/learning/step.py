"""A spiking model a few steps at a time, with all that rules which learn forward in time need to know of a step.

The spikes are those of the model's own forward pass, the same bits for stretches of any length; nothing of a stretch is
kept when the next one comes, and no graph is made but that from learned neuron parameters to the numbers of a step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from snnsim.errors import InputError
from snnsim.kernels import dynamics
from snnsim.nn.context import Context
from snnsim.nn.delays import Linear
from snnsim.nn.model import Block, ReadoutBlock, SpikingModel
from snnsim.nn.neurons import IF, LI, LIF, AdaptiveLIF, CubaLI, CubaLIF
from snnsim.nn.products import product
from snnsim.nn.recurrent import Recurrent

__all__ = ["Cell", "HiddenLayer", "Layer", "OnlineNet", "ReadoutLayer", "advance_neurons"]

NAMES: dict[int, tuple[str, ...]] = {
    dynamics.LIF: ("beta",),
    dynamics.CUBA: ("beta", "alpha", "kappa"),
    dynamics.ADAPTIVE: ("beta", "rho", "adapt_v", "adapt_spike", "adapt_threshold"),
}
"""Decays, gain and couplings of a kind of neurons, in the order of ``prepare``."""


class Cell(NamedTuple):
    """What one step of a layer's neurons was; every tensor has shape (batch, unit).

    Attributes:
        v_before: Membrane before the step.
        second_before: Synaptic current or adaptation before the step; empty for LIF.
        h: Membrane before the reset.
        spikes: 0 or 1; of a readout, its membrane.
        v: Membrane after the reset.
        rows: The derivatives ``reference_online.CELL_ROWS``, shape (5, batch, unit).
    """

    v_before: Tensor
    second_before: Tensor
    h: Tensor
    spikes: Tensor
    v: Tensor
    rows: Tensor

    @property
    def psi(self) -> Tensor:
        """Derivative of the spike by the membrane before the reset: the surrogate's, 0 in refractory steps."""
        return self.rows[2]


def advance_neurons(
    neuron: LIF | CubaLIF | AdaptiveLIF, numbers: tuple[Tensor, ...], state: Any, current: Tensor, waits: bool = True
) -> tuple[Cell, Any]:
    """Advance spiking neurons by one step without graph, and give the derivatives of the step.

    Args:
        neuron: The module.
        numbers: Its parameters as its ``prepare`` gives them, detached, shape (unit,) each.
        state: Its state before the step.
        current: What arrives, shape (batch, unit).
        waits: Whether any neuron has a refractory period.

    Returns:
        The step, and the state after it.
    """
    *decays, threshold, v_reset, amount = numbers
    beta, v, wait = decays[0], state.v, state.refractory
    second = v.new_empty(0)
    if neuron.dynamics == dynamics.LIF:
        h = beta * v + current
    elif neuron.dynamics == dynamics.CUBA:
        second = state.i_syn
        h = beta * v + decays[2] * second
    else:
        second = state.w
        on_membrane = (decays[4] <= 0).to(v.dtype)
        h = (beta * v + current) - on_membrane * second
        threshold = threshold + decays[4] * second
    rows = v.new_empty(5, *v.shape)
    rows[0], rows[1], rows[4] = 1, beta, 0
    if waits:
        free = wait <= 0
        h = torch.where(free, h, v)
        rows[0], rows[1] = free, torch.where(free, beta, torch.ones_like(beta))
    distance = h - threshold
    spikes = (distance >= 0).to(v.dtype)
    rows[2] = neuron.surrogate.derivative(distance)
    if waits:
        spikes = spikes * rows[0]
        rows[2] *= rows[0]
        wait = neuron._wait(wait, spikes)
    after = (1 - spikes) * h + spikes * v_reset if neuron.reset == "zero" else h - spikes * amount
    end: Any
    if neuron.dynamics == dynamics.LIF:
        end = type(state)(after, wait)
    elif neuron.dynamics == dynamics.CUBA:
        end = type(state)(after, decays[1] * second + current, wait)
    else:
        end = type(state)(after, (decays[1] * second + decays[2] * after) + decays[3] * spikes, wait)
    rows[3] = 1 - spikes if neuron.reset == "zero" else 1
    if not neuron.detach_reset:
        rows[4] = v_reset - h if neuron.reset == "zero" else -amount
    return Cell(v, second, h, spikes, after, rows), end


class Layer(ABC):
    """What a hidden layer and the readout share: connection, neurons, their numbers and the steps just made.

    Attributes:
        label: How errors name the layer.
        vectors: Numbers of the neurons by name, shape (unit,) each, with graph where they are learned.
        numbers: The same without graph, in order.
        x: What the layer's connection received in these steps, shape (time, batch, n_in).
        cells: What its neurons did, one a step.
    """

    x: Tensor
    cells: list[Cell]

    def __init__(self, block: Block | ReadoutBlock, neuron: Any, label: str, batch: int, dtype: torch.dtype) -> None:
        if not isinstance(block.connection, Linear):
            raise InputError(
                f"{label}: expected a connection without delays, got {type(block.connection).__name__}, whose "
                "positions have no gradient forward in time; use connection.kind 'linear' or train.learning 'bptt'"
            )
        self.block, self.neuron, self.label = block, neuron, label
        self.connection: Any = block.connection
        self.batch, self.dtype = batch, dtype
        self.reload()
        self.reset()

    @property
    def size(self) -> int:
        """Neurons."""
        return int(self.neuron.size)

    @abstractmethod
    def _prepare(self) -> tuple[tuple[str, ...], tuple[Tensor, ...]]:
        """Return the names and values of the neurons' numbers."""

    def reload(self) -> None:
        """Take the neurons' numbers from their parameters, which may have changed."""
        with torch.enable_grad():
            names, vectors = self._prepare()
        self.vectors = dict(zip(names, vectors, strict=True))
        self.numbers = tuple(vector.detach() for vector in vectors)

    def reset(self) -> None:
        """Go back to the zero state."""
        self.state: Any = self.neuron.initial_state(self.batch, self.dtype)

    def uniform(self, name: str) -> bool:
        """Return whether a number is the same for all units, and stays so when it is learned."""
        vector = self.vectors[name]
        one = self.neuron.gain() if name == "kappa" else self.neuron._value(name)
        return one.dim() == 0 or (not vector.requires_grad and bool((vector == vector[0]).all()))


class HiddenLayer(Layer):
    """A hidden block, step by step.

    Attributes:
        arrived: Spikes that arrived over the recurrent connection, (batch, unit) a step; empty without one.
        factors: Factors of dropout for the sequence, shape (batch, unit), or None.
    """

    def __init__(self, block: Block, label: str, batch: int, dtype: torch.dtype, context: Context) -> None:
        if block.norm is not None:
            raise InputError(
                f"{label}: expected no batch norm, whose statistics need the steps to come; set model.batch_norm = "
                "false or use train.learning 'bptt'"
            )
        self.recurrent: Recurrent | None = block.neuron if isinstance(block.neuron, Recurrent) else None
        neuron: Any = block.neuron if self.recurrent is None else self.recurrent.neuron
        if type(neuron) not in (LIF, IF, CubaLIF, AdaptiveLIF):
            raise InputError(
                f"{label}: expected LIF, IF, CubaLIF or AdaptiveLIF neurons, got {type(neuron).__name__}; use "
                "train.learning 'bptt'"
            )
        self.delay = 0
        if self.recurrent is not None:
            steps = self.recurrent.delay_steps
            if self.recurrent.learn_delay or steps.dim():
                raise InputError(
                    f"{label}: expected recurrent synapses of one common, fixed delay; use train.learning 'bptt'"
                )
            self.delay = int(steps)
        self.residual = block.residual
        self.factors: Tensor | None = None
        if block.dropout is not None:
            self.factors = block.dropout.factors(context, torch.empty(1, batch, neuron.size, dtype=dtype))
        self.arrived: list[Tensor] = []
        self.waits = bool(neuron.refractory_steps.any())
        super().__init__(block, neuron, label, batch, dtype)

    def _prepare(self) -> tuple[tuple[str, ...], tuple[Tensor, ...]]:
        names = (*NAMES[self.neuron.dynamics], "threshold", "v_reset", "reset_amount")
        return names, self.neuron.prepare(self.dtype).vectors

    def uniform(self, name: str) -> bool:
        """Return whether a number is the same for all units, and stays so when it is learned."""
        return super().uniform({"threshold": "v_threshold"}.get(name, name))

    def reset(self) -> None:
        """Go back to the zero state."""
        super().reset()
        silence = torch.zeros(self.batch, self.size, dtype=self.dtype)
        self.past = deque([silence] * self.delay, maxlen=self.delay)

    def advance(self, x: Tensor) -> Tensor:
        """Make some steps: from the inputs (time, batch, n_in) to the block's output (time, batch, unit)."""
        self.x, self.cells, self.arrived = x, [], []
        for current in self.connection(x)[0]:
            if self.recurrent is not None:
                arrived = self.past[0]
                self.arrived.append(arrived)
                current = current + product(arrived, self.recurrent.recurrent_weight.detach().to(x.dtype).t())
            cell, self.state = advance_neurons(self.neuron, self.numbers, self.state, current, self.waits)
            self.cells.append(cell)
            if self.recurrent is not None:
                self.past.append(cell.spikes)
        y = self.spikes()
        y = y if self.factors is None else y * self.factors
        return y + x if self.residual else y

    def spikes(self) -> Tensor:
        """Return the spikes of the steps just made, shape (time, batch, unit)."""
        return torch.stack([cell.spikes for cell in self.cells])

    def psi(self) -> Tensor:
        """Return the derivatives of the spikes by the membranes, shape (time, batch, unit)."""
        return torch.stack([cell.psi for cell in self.cells])


class ReadoutLayer(Layer):
    """The readout, step by step; in its steps "spikes" are membranes, whose derivative by themselves is 1."""

    def __init__(self, block: ReadoutBlock, batch: int, dtype: torch.dtype) -> None:
        if not isinstance(block.neuron, (LI, CubaLI)):
            raise InputError(f"readout: expected LI or CubaLI, got {type(block.neuron).__name__}")
        super().__init__(block, block.neuron, "readout", batch, dtype)

    def _prepare(self) -> tuple[tuple[str, ...], tuple[Tensor, ...]]:
        if isinstance(self.neuron, LI):
            return ("beta",), (self.neuron._vector(self.neuron.beta(), self.dtype),)
        return ("beta", "alpha", "kappa"), self.neuron.decays(self.dtype)

    def advance(self, x: Tensor) -> Tensor:
        """Make some steps: from the inputs (time, batch, n_in) to the potentials (time, batch, class)."""
        self.x, self.cells = x, []
        beta = self.numbers[0]
        rows = x.new_ones(5, self.batch, self.size)
        rows[1] = beta
        rows[4] = 0
        for current in self.connection(x)[0]:
            v = self.state.v
            second = v.new_empty(0)
            if isinstance(self.neuron, LI):
                after = beta * v + current
                self.state = type(self.state)(after)
            else:
                second = self.state.i_syn
                after = beta * v + self.numbers[2] * second
                self.state = type(self.state)(after, self.numbers[1] * second + current)
            self.cells.append(Cell(v, second, after, after, after, rows))
        return torch.stack([cell.v for cell in self.cells])


class OnlineNet:
    """A model a few steps at a time, from the zero state.

    Args:
        model: The model, in training mode; its dropout masks are those of ``context``.
        batch: Samples.
        dtype: Precision of the run.
        context: Sample ids, seed and epoch.

    Attributes:
        hidden: The hidden layers, in order.
        readout: The readout.
        feedback: Weights from classes to the units of each hidden layer, for rules that have them.

    Raises:
        InputError: The model has batch norm, delays, or neurons that cannot be run this way.
    """

    def __init__(self, model: SpikingModel, batch: int, dtype: torch.dtype, context: Context) -> None:
        blocks = cast(list[Block], list(model.blocks))
        if not blocks:
            raise InputError("online rules: expected a model with at least one hidden layer")
        self.hidden = [HiddenLayer(block, f"layer {k}", batch, dtype, context) for k, block in enumerate(blocks)]
        self.readout = ReadoutLayer(model.readout, batch, dtype)
        self.feedback: list[Tensor] = []

    def layers(self) -> list[Layer]:
        """Return the hidden layers and the readout, in order."""
        return [*self.hidden, self.readout]

    @torch.no_grad()
    def advance(self, x: Tensor) -> Tensor:
        """Make some steps: from the inputs (time, batch, n_inputs) to the potentials (time, batch, class)."""
        for layer in self.hidden:
            x = layer.advance(x)
        return self.readout.advance(x)

    def reset(self) -> None:
        """Go back to the zero state."""
        for layer in self.layers():
            layer.reset()

    def reload(self) -> None:
        """Take the neurons' numbers from their parameters, which may have changed."""
        for layer in self.layers():
            layer.reload()
