"""How much memory a learning rule needs, before anything runs.

The counts are of what the rules keep; factors of what passes by (currents, gradients, spectra) were fitted to the
resident memory of training steps. Expect the truth within a third.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from snnsim.learning.runs import ROWS
from snnsim.nn.delays import DelayedLinear
from snnsim.nn.neurons import AdaptiveLIF
from snnsim.nn.recurrent import Recurrent

if TYPE_CHECKING:
    from snnsim.nn.model import SpikingModel

__all__ = ["MemoryEstimate", "estimate_memory", "format_bytes"]


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of a training step.

    Attributes:
        model: Parameters, their gradients and what the optimiser keeps of them.
        inputs: Counts of the batch, or of one stretch where the rule asks for no more.
        sequence: What a rule keeps to find the gradient of the batch.
    """

    model: int
    inputs: int
    sequence: int

    @property
    def total(self) -> int:
        """Return all of it."""
        return self.model + self.inputs + self.sequence


def format_bytes(number: float) -> str:
    """Return a size for people.

    >>> format_bytes(3.94e9)
    '3.9 GB'
    """
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:.2g} {unit}" if number < 10 * size else f"{number / size:.0f} {unit}"
    return f"{number / 1e3:.0f} kB"


def estimate_memory(
    model: SpikingModel,
    learning: str,
    *,
    n_steps: int,
    batch: int,
    checkpoint_steps: int | None = None,
    chunk_steps: int | None = None,
    moments: int = 2,
    bytes_a_number: int = 4,
) -> MemoryEstimate:
    """Estimate the memory of one training step.

    Args:
        model: A network of blocks.
        learning: Name of the rule, as in recipes.
        n_steps: Steps of the batch, tail included.
        batch: Samples.
        checkpoint_steps: Of ``bptt``: steps between stored states.
        chunk_steps: Of ``sltt``: steps computed together.
        moments: Numbers that the optimiser keeps for each parameter: 2 for Adam, 1 for SGD with momentum.
        bytes_a_number: 4 in float32.
    """
    layers: list[Any] = model.layers()
    parameters = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    whole = parameters + (1 + moments) * trained
    n_inputs = layers[0].connection.n_in
    hidden = [layer.connection.n_out for layer in layers[:-1]]
    if learning == "bptt":
        numbers = _bptt(layers, hidden, n_steps if checkpoint_steps is None else min(checkpoint_steps, n_steps), batch)
        if checkpoint_steps is not None:
            numbers += -(-n_steps // checkpoint_steps) * batch * 2.0 * sum(hidden)
    elif learning in ("sltt", "sltt-k"):
        numbers = _sltt(layers, hidden, n_steps, batch, chunk_steps)
    else:
        numbers = _traces(layers, hidden, batch, learning)
    held = n_steps if learning == "bptt" else min(n_steps, chunk_steps or -(-ROWS // batch))
    inputs = held * batch * n_inputs
    return MemoryEstimate(whole * bytes_a_number, inputs * bytes_a_number, int(numbers) * bytes_a_number)


def _delayed(layers: list[Any]) -> list[Any]:
    return [layer for layer in layers if isinstance(layer.connection, DelayedLinear)]


def _bptt(layers: list[Any], hidden: list[int], steps: int, batch: int) -> float:
    """Membranes and spikes of all steps, spectra of the inputs of delays, the widest layer's currents and gradients."""
    widest = max(hidden, default=layers[-1].connection.n_out)
    passing = 1.4
    if any(isinstance(layer.neuron, Recurrent) for layer in layers):
        passing = 2.5
    if _delayed(layers):
        passing = 5.3
    spectra = sum(1.15 * layer.connection.n_in for layer in _delayed(layers))
    kernels = sum(2.0 * layer.connection.n_delays * layer.connection.weight.numel() for layer in _delayed(layers))
    return float(steps * batch * (2.0 * sum(hidden) + spectra + passing * widest) + kernels)


def _sltt(layers: list[Any], hidden: list[int], n_steps: int, batch: int, chunk_steps: int | None) -> float:
    """What one stretch keeps, and with delays the stretches that wait for later errors."""
    histories = [layer.connection.n_delays - 1 if layer in _delayed(layers) else 0 for layer in layers]
    size = min(n_steps, chunk_steps or max(-(-ROWS // batch), max(histories) // 2))
    weights = sum(layer.connection.weight.numel() for layer in layers)
    if not any(histories):
        widest = max([*hidden, layers[0].connection.n_in])
        return float(size * batch * (2.5 * sum(hidden) + 1.5 * widest) + weights)
    total, lag = 0.0, 0
    for index in range(len(layers) - 1, -1, -1):
        n_in, n_out = layers[index].connection.n_in, layers[index].connection.n_out
        waiting = min(n_steps, size * (1 + -(-lag // size)))
        total += waiting * batch * (2.0 * n_out + 1.15 * n_in * (1 + histories[index] / size))
        lag += histories[index]
    return total + _bptt(layers, hidden, min(n_steps, size + max(histories)), batch)


def _traces(layers: list[Any], hidden: list[int], batch: int, learning: str) -> float:
    """One step of everything, and the traces: one a source, or one a synapse where neurons adapt or leaks differ."""
    total = 4.0 * batch * sum(hidden)
    for layer in layers:
        connection, neuron = layer.connection, layer.neuron
        cells = neuron.neuron if isinstance(neuron, Recurrent) else neuron
        sources = connection.n_in + (connection.n_out if isinstance(neuron, Recurrent) else 0)
        a_synapse = learning in ("e-prop", "rtrl") and (isinstance(cells, AdaptiveLIF) or learning == "rtrl")
        total += batch * sources * (connection.n_out if a_synapse and layer is not layers[-1] else 1)
    return total
