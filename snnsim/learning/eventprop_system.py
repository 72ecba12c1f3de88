"""A trained model as EventProp sees it: exact neurons and delays of any length, in arrays; and gradients back.

What has no exact gradient in continuous time is refused here, with what to do instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from snnsim.errors import InputError
from snnsim.kernels import event_law as law
from snnsim.kernels.eventprop_layers import Layer, LayerGradients
from snnsim.nn.delays import DelayedLinear, Linear
from snnsim.nn.model import SpikingModel
from snnsim.nn.neurons import CubaLI, CubaLIF
from snnsim.nn.recurrent import Recurrent

__all__ = ["System", "neuron_laws", "system_of"]

Floats = npt.NDArray[np.float64]

NEAR = 0.1  # relative distance of two time constants below which the difference of their decays is not used
NO_LOOP = np.zeros((0, 0))


@dataclass(frozen=True)
class System:
    """Layers of a model in continuous time.

    Attributes:
        layers: Hidden layers and the readout.
        learns: For every layer whether its feed-forward and its recurrent delays are learned.
        modules: The connection and the recurrent module (or None) of every layer.
        dt: Seconds.
    """

    layers: tuple[Layer, ...]
    learns: tuple[tuple[bool, bool], ...]
    modules: tuple[tuple[Linear | DelayedLinear, Recurrent | None], ...]
    dt: float

    def zeros(self) -> list[LayerGradients]:
        """Return sums of nothing for every layer."""
        return [LayerGradients.zeros(layer, *learns) for layer, learns in zip(self.layers, self.learns, strict=True)]

    def give(self, gradients: list[LayerGradients]) -> None:
        """Add derivatives to ``.grad`` of the model's parameters; those by delays become those by positions.

        A delay is ``(constant - position) dt``, so the derivative by position is ``-dt`` times the sum over the
        synapses that share the delay.
        """
        for (connection, loop), learns, sums in zip(self.modules, self.learns, gradients, strict=True):
            _add(connection.weight, sums.weight.reshape(connection.weight.shape))
            if learns[0]:
                position: Any = connection.position
                by_delay = sums.delay
                for axis in (0, 1):
                    if position.shape[axis] == 1:
                        by_delay = by_delay.sum(axis=axis, keepdims=True)
                _add(position, -self.dt * by_delay[:, :, None])
            if loop is not None:
                _add(loop.recurrent_weight, sums.recurrent_weight)
                if learns[1]:
                    _add(loop.position, -self.dt * sums.recurrent_delay[:, :, None])


def _add(parameter: Tensor, gradient: Floats) -> None:
    if not parameter.requires_grad:
        return
    value = torch.from_numpy(np.ascontiguousarray(gradient)).to(parameter.dtype)
    parameter.grad = value if parameter.grad is None else parameter.grad + value


def _array(tensor: Tensor) -> Floats:
    return np.ascontiguousarray(tensor.detach().cpu().to(torch.float64).numpy())


def neuron_laws(module: CubaLIF | CubaLI) -> Floats:
    """Return the continuous-time numbers of every neuron, see :mod:`snnsim.kernels.event_law`, (size, COLUMNS)."""
    p = module.neuron().parameters()
    rows = np.zeros((module.size, law.COLUMNS))
    tau_mem, tau_syn = (np.broadcast_to(np.asarray(p[name], float), module.size) for name in ("tau_mem", "tau_syn"))
    if not (np.all(np.isfinite([tau_mem, tau_syn])) and np.all(tau_mem > 0) and np.all(tau_syn > 0)):
        raise InputError("eventprop: expected decays per step between 0 and 1, which have time constants")
    rows[:, law.KIND], rows[:, law.RESET_ZERO] = law.CURRENT, 1.0
    rows[:, law.TAU], rows[:, law.RATE_M] = tau_mem, 1.0 / tau_mem
    rows[:, law.RATE_E] = 1.0 / tau_syn
    near = np.abs(tau_mem - tau_syn) < NEAR * np.maximum(tau_mem, tau_syn)
    rows[:, law.GAIN_E] = np.where(near, 0.0, tau_syn / np.where(near, 1.0, tau_mem - tau_syn))
    rows[:, law.GAP] = np.inf
    if isinstance(module, CubaLIF):
        rows[:, law.GAP], rows[:, law.RESET] = p["v_threshold"], p["v_reset"]
    return rows


def _refuse(name: str, what: str, remedy: str) -> InputError:
    return InputError(f"eventprop: {name}: {what}; {remedy}")


def _check_neuron(name: str, module: Any) -> None:
    """Refuse what has no exact gradient here."""
    kind = type(module).__name__
    if not isinstance(module, (CubaLIF, CubaLI)):
        raise _refuse(
            name,
            f"expected CubaLIF (a readout: CubaLI), got {kind}: the derivative of a spike's time is 1 / (dv/dt), which "
            "arrivals that jump over the threshold or an adapting threshold do not give",
            "use kind = 'cubalif' and readout.neuron = 'cubali', or learning = 'bptt'",
        )
    if any(parameter.requires_grad for parameter in module.parameters()):
        raise _refuse(name, "time constants and thresholds have no gradient here", "remove neuron.learn")
    if module.own_kappa:
        raise _refuse(name, "its gain kappa is not that of its time constants", "leave kappa out")
    if isinstance(module, CubaLIF):
        if module.reset != "zero":
            raise _refuse(
                name, f"expected reset 'zero', got {module.reset!r}", "at an exact crossing both are the same"
            )
        if bool(module.refractory_steps.any()):
            raise _refuse(name, "expected no refractory time", "set t_ref = 0")
        if bool((module.threshold() <= 0).any()):
            raise _refuse(name, "expected thresholds above 0, where every neuron begins", "raise v_threshold")


def _connection(name: str, module: Any, dt: float) -> tuple[Floats, Floats, bool]:
    if not isinstance(module, (Linear, DelayedLinear)):
        raise _refuse(name, f"expected Linear or DelayedLinear, got {type(module).__name__}", "use one of them")
    if module.bias is not None:
        raise _refuse(name, "a bias is a drive that never stops", "use bias=False")
    if isinstance(module, Linear):
        return _array(module.weight), np.zeros((1, 1)), False
    if module.taps != 1:
        raise _refuse(name, f"expected one tap a synapse, got {module.taps}", "use taps = 1")
    low, high = module.position_limits
    delay = (high - np.clip(_array(module.position)[:, :, 0], low, high)) * dt
    return _array(module.weight)[:, :, 0], delay, bool(module.position.requires_grad)


def _loop(name: str, module: Recurrent, dt: float) -> tuple[Floats, Floats, bool]:
    if not module.learn_delay:
        steps = np.atleast_2d(np.asarray(module.delay_steps.cpu().numpy(), dtype=np.float64))
        return _array(module.recurrent_weight), steps * dt, False
    low, high = module.position_limits
    delay = (high + 1 - np.clip(_array(module.position)[:, :, 0], low, high)) * dt
    return _array(module.recurrent_weight), delay, bool(module.position.requires_grad)


def system_of(model: SpikingModel) -> System:
    """Return the layers of a model in continuous time, with delays that are not rounded.

    Raises:
        InputError: A part of the model has no exact gradient; the message says what to change.
    """
    if not isinstance(model, SpikingModel):
        raise InputError(
            f"eventprop: expected a network of blocks (SpikingModel), got {type(model).__name__}; use train.learning "
            "'bptt' or 'sltt'"
        )
    layers, learns, modules = [], [], []
    blocks: list[Any] = list(model.blocks)
    for index, block in enumerate(blocks, start=1):
        name = f"hidden{index}"
        if block.norm is not None:
            raise _refuse(name, "batch norm couples samples and steps", "set batch_norm = false")
        if block.residual:
            raise _refuse(name, "residual connections are not supported", "set residual = false")
        loop = block.neuron if isinstance(block.neuron, Recurrent) else None
        cells = block.neuron if loop is None else loop.neuron
        _check_neuron(name, cells)
        if isinstance(cells, CubaLI):
            raise _refuse(name, "expected neurons that fire", "use CubaLIF")
        weight, delay, learned = _connection(name, block.connection, model.dt)
        again = (NO_LOOP, np.zeros((1, 1)), False) if loop is None else _loop(name, loop, model.dt)
        layers.append(Layer(neuron_laws(cells), weight, delay, *again[:2]))
        learns.append((learned, again[2]))
        modules.append((block.connection, loop))
    readout = model.readout
    _check_neuron("readout", readout.neuron)
    integrators: Any = readout.neuron
    weight, delay, learned = _connection("readout", readout.connection, model.dt)
    layers.append(Layer(neuron_laws(integrators), weight, delay, NO_LOOP, np.zeros((1, 1))))
    learns.append((learned, False))
    modules.append((readout.connection, None))
    return System(tuple(layers), tuple(learns), tuple(modules), model.dt)
