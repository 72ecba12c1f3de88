"""Eligibility traces: how the spikes of a layer depend on its own parameters, carried forward in time.

A trace is the sensitivity of a neuron's state to one of its parameters through the neuron's own past; what other
neurons do in answer is not in it. The equations are those of :func:`snnsim.kernels.reference_online.trace_step`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from snnsim.errors import InputError
from snnsim.kernels import dynamics
from snnsim.kernels.lanes import run_ranges
from snnsim.kernels.online import trace_gradient
from snnsim.kernels.reference_online import filter_step, trace_step
from snnsim.learning.step import HiddenLayer, Layer, ReadoutLayer
from snnsim.nn.neurons import LI
from snnsim.nn.products import product

__all__ = ["LayerTraces", "add_gradient", "readout_decays"]

UNITS = 4
"""Units that are one piece of work for a thread."""


def readout_decays(readout: ReadoutLayer, rule: str) -> Tensor:
    """Return the decays by which a readout filters what its sources send: ``(beta,)`` or ``(beta, alpha, kappa)``.

    Raises:
        InputError: The units of the readout differ, so that every class would need traces of its own.
    """
    for name, vector in readout.vectors.items():
        if not readout.uniform(name):
            raise InputError(
                f"{rule}: expected a readout whose units share one {name}, got {len(set(vector.tolist()))} values; "
                "traces are filtered once for all classes. Use a single time constant or train.learning 'bptt'"
            )
    decays = torch.stack([number[0] for number in readout.numbers])
    if isinstance(readout.neuron, LI) and float(decays[0]) == 0 and not readout.vectors["beta"].requires_grad:
        return decays[:0]  # no memory: filtered traces are the traces
    return decays


def add_gradient(parameter: torch.nn.Parameter, gradient: Tensor) -> None:
    """Add to ``.grad`` of a parameter that is trained."""
    if not parameter.requires_grad:
        return
    gradient = gradient.to(parameter.dtype).reshape(parameter.shape)
    parameter.grad = gradient.clone() if parameter.grad is None else parameter.grad + gradient


class LayerTraces:
    """Traces of one layer and the gradients they have given since the last :meth:`flush`.

    Weights, the bias, recurrent weights (from other neurons: what a spike brings counts, not why it came) and learned
    neuron parameters have traces. Where every unit forgets alike and no reset enters, one trace a source serves all
    units: memory ``batch x sources``; else ``batch x units x sources`` (and the same again for an adaptation, a
    synaptic current, and for the filter of a readout with memory).

    Args:
        layer: The layer, whose steps are made elsewhere.
        decays: Of the readout that sees this layer's spikes, see :func:`readout_decays`; empty for none.
        ignore_reset: Leave the reset and refractory periods out of the traces.
        diagonal: Take the recurrent weights to be zero but on the diagonal, follow these exactly and learn only them.
    """

    def __init__(
        self, layer: Layer, decays: Tensor | None = None, *, ignore_reset: bool = False, diagonal: bool = False
    ) -> None:
        self.layer, self.ignore_reset = layer, ignore_reset
        self.recurrent = layer.recurrent if isinstance(layer, HiddenLayer) else None
        self.diagonal = diagonal and self.recurrent is not None
        neuron, units, batch = layer.neuron, layer.size, layer.batch
        self.two = neuron.dynamics != dynamics.LIF
        spiking = isinstance(layer, HiddenLayer)
        resets = spiking and not (neuron.reset == "subtract" and neuron.detach_reset)
        waits = spiking and bool(neuron.refractory_steps.any())
        alike = neuron.dynamics != dynamics.ADAPTIVE and all(
            layer.uniform(name) for name in layer.vectors if name in ("beta", "alpha", "kappa")
        )
        self.shared = alike and not self.diagonal and (ignore_reset or not (resets or waits))
        self.learned = [name for name, vector in layer.vectors.items() if vector.requires_grad]
        self.sources = layer.connection.n_in + (layer.connection.bias is not None)
        if self.recurrent is not None and not self.diagonal:
            self.sources += units
        numbers: Any = np.float64 if layer.dtype == torch.float64 else np.float32
        self.decays = np.zeros(0, numbers) if decays is None else decays.numpy().astype(numbers)
        shape = (units, batch, self.sources)
        rows = (1, batch, self.sources) if self.shared else shape

        def zeros(wanted: bool, size: tuple[int, ...]) -> Any:
            return np.zeros(size if wanted else (0, 0, 0), numbers)

        self.v, self.w = zeros(True, rows), zeros(self.two, rows)
        self.e = zeros(self.diagonal, rows)
        self.f, self.f2 = zeros(len(self.decays) > 0, shape), zeros(len(self.decays) == 3, shape)
        own = (units, batch, len(self.learned) + self.diagonal)
        self.own = [np.zeros(own, numbers) for _ in range(5)]
        self.clear()

    def clear(self) -> None:
        """Forget the gradients, not the traces."""
        layer = self.layer
        self.gradient = np.zeros((layer.size, self.sources), self.v.dtype)
        self.own_gradient = np.zeros((layer.size, self.own[0].shape[2]), self.v.dtype)

    @property
    def bytes(self) -> int:
        """Memory of the traces; it does not depend on the number of steps."""
        return sum(int(part.nbytes) for part in (self.v, self.w, self.e, self.f, self.f2, *self.own))

    def _units(self, k: int) -> tuple[Any, Any]:
        """Return the rows of a step by sample and unit, and by unit."""
        layer, numbers = self.layer, self.layer.numbers
        cell = layer.cells[k].rows
        if self.ignore_reset:
            cell = cell.clone()
            cell[0], cell[1], cell[3], cell[4] = 1, numbers[0], 1, 0
        unit = torch.zeros(8, layer.size, dtype=layer.dtype)
        if layer.neuron.dynamics == dynamics.CUBA:
            unit[0], unit[2], unit[6] = numbers[2], numbers[1], 1
        elif layer.neuron.dynamics == dynamics.ADAPTIVE:
            on_membrane = (numbers[4] <= 0).to(layer.dtype)
            unit[0], unit[1], unit[2], unit[3], unit[4] = -on_membrane, numbers[4], *numbers[1:4]
        unit[5] = 1 - unit[6]
        if self.diagonal and self.recurrent is not None:
            unit[7] = self.recurrent.recurrent_weight.detach().diagonal()
        return cell.numpy(), unit.numpy()

    def _sent(self, k: int) -> Tensor:
        """Return what every source sends in a step, shape (batch, sources)."""
        layer = self.layer
        parts = [layer.x[k]]
        if layer.connection.bias is not None:
            parts.append(layer.x.new_ones(layer.batch, 1))
        if isinstance(layer, HiddenLayer) and layer.arrived and not self.diagonal:
            parts.append(layer.arrived[k])
        return parts[0].contiguous() if len(parts) == 1 else torch.cat(parts, dim=1)

    def step(self, k: int, direct: Tensor | None = None, filtered: Tensor | None = None) -> None:
        """Take over a step that the layer has made and add its part of the gradients.

        Args:
            k: Which of the steps that the layer has just made; all are taken over, in order.
            direct: Derivative of the loss by the layer's spikes of this step, shape (batch, unit).
            filtered: Derivative by them through the readout's memory: what multiplies the filtered traces. Without
                memory it is added to ``direct``.
        """
        if filtered is not None and len(self.decays) == 0:
            direct, filtered = filtered if direct is None else direct + filtered, None
        cell, unit = self._units(k)
        sent = self._sent(k)
        if self.own[0].shape[2]:
            self._step_own(k, cell, unit, direct, filtered)
        nothing = np.zeros((0, 0), self.v.dtype)
        to_spikes = nothing if direct is None else direct.contiguous().numpy()
        to_filtered = nothing if filtered is None else filtered.contiguous().numpy()
        v, w, x = self.v, self.w, sent.numpy()
        if self.shared:
            x = self._step_shared(x)
            if len(self.decays) == 0:
                if direct is not None:
                    error = (direct * torch.from_numpy(cell[2])).t()
                    self.gradient += product(error, torch.from_numpy(x)).numpy()
                return
            v = w = np.zeros((0, 0, 0), self.v.dtype)
        arguments = (x, cell, unit, self.decays, v, w, self.e, self.f, self.f2, to_spikes, to_filtered, self.gradient)
        run_ranges(trace_gradient, arguments, self.layer.size, torch.get_num_threads(), UNITS)

    def _step_shared(self, x: Any) -> Any:
        """Advance one trace a source for all units; return the sensitivity before the reset, shape (batch, source)."""
        first = [number[0].numpy() for number in self.layer.numbers]
        if not self.two:
            self.v[0] = first[0] * self.v[0] + x
        else:
            self.v[0] = first[0] * self.v[0] + first[2] * self.w[0]
            self.w[0] = first[1] * self.w[0] + x
        return self.v[0]

    def _step_own(self, k: int, cell: Any, unit: Any, direct: Tensor | None, filtered: Tensor | None) -> None:
        """Advance the traces of the neurons' own parameters."""
        names = [*self.learned, *(["self"] if self.diagonal else [])]
        inject = np.zeros((4, self.layer.size, self.layer.batch, len(names)), self.v.dtype)
        for column, name in enumerate(names):
            row, value = self._injected(name, k)
            if name == "self" and unit[6, 0]:
                row = 3
            inject[row, :, :, column] = value.t().numpy() if value.dim() else float(value)
        v, w, e, f, f2 = self.own
        v, w, e = trace_step((inject[0], inject[1], inject[2], inject[3]), cell, unit, v, w, e)
        if len(self.decays):
            f, f2 = filter_step(self.decays, e, f, f2)
        self.own = [v, w, e, f, f2]
        for error, trace in ((direct, e), (filtered, f)):
            if error is not None:
                self.own_gradient += np.einsum("bu,ubk->uk", error.numpy(), trace)

    def _injected(self, name: str, k: int) -> tuple[int, Tensor]:
        """Return which of a step's equations a parameter enters directly, and its factor there."""
        made = self.layer.cells[k]
        if name == "beta":
            return 0, made.v_before
        if name == "kappa":
            return 0, made.second_before
        if name in ("alpha", "rho"):
            return 3, made.second_before
        if name == "adapt_v":
            return 3, made.v
        if name == "adapt_spike":
            return 3, made.spikes
        if name == "adapt_threshold":
            return 1, made.second_before
        if name == "threshold":
            return 1, torch.ones(())
        if name == "reset_amount":
            return 2, -made.spikes if self.layer.neuron.reset == "subtract" else torch.zeros(())
        if isinstance(self.layer, HiddenLayer) and self.layer.arrived:
            return 0, self.layer.arrived[k]
        raise InputError(f"{self.layer.label}: no trace of {name}")

    def flush(self) -> None:
        """Add the gradients to ``.grad`` of the parameters and forget them; the traces stay."""
        connection = self.layer.connection
        gradient = torch.from_numpy(self.gradient)
        n = connection.n_in
        add_gradient(connection.weight, gradient[:, :n])
        if connection.bias is not None:
            add_gradient(connection.bias, gradient[:, n])
            n += 1
        own = torch.from_numpy(self.own_gradient)
        if self.recurrent is not None:
            part = torch.diag(own[:, -1]) if self.diagonal else gradient[:, n:]
            add_gradient(self.recurrent.recurrent_weight, part)
        if self.learned:
            vectors = [self.layer.vectors[name] for name in self.learned]
            with torch.enable_grad():
                torch.autograd.backward(vectors, [own[:, k].contiguous() for k in range(len(vectors))])
        self.clear()
