"""SpikingJelly modules in and out: imported networks give the same spikes (Fang et al., Science Advances 2023).

SpikingJelly's LIF computes ``h = v - (v - v_reset) / tau + x`` and, with ``decay_input``, ``h = v + (x - (v -
v_reset)) / tau``; it fires at ``h >= v_threshold`` and resets in the same step. Here that is ``beta = 1 - 1 / tau``
with the input scaled by 1 or ``1 / tau``. Both round differently in the last bit, so equal spikes are promised
for weights that do not lie on a coarse lattice, where a membrane can meet the threshold exactly.

The delay paper's model (Hammouamri, Khalfaoui-Hassani & Masquelier, ICLR 2024) pads every layer's input and
so lengthens the sequence layer by layer; earlier layers stop sooner. An import keeps that as the populations'
start and stop steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from snnsim.errors import InputError, MissingLibraryError
from snnsim.grid import check_dt
from snnsim.network import Input, Network, Population, Projection, Readout, Reduce, Sparse
from snnsim.neurons import IF, LI, LIF, Neuron

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["from_spikingjelly", "to_spikingjelly"]

Floats = npt.NDArray[np.float64]
Padding = Literal["paper"] | tuple[int, int]

NEVER_FIRES = 1e6
"""A last layer with at least this threshold is an integrator: its membrane is the readout."""

LATTICE = 2.0**12
"""Weights that are all multiples of one over this are reported as lattice weights."""


@dataclass
class _Layer:
    """What was gathered for one population."""

    weight: list[Floats] = field(default_factory=list)
    delay: list[npt.NDArray[np.int64]] = field(default_factory=list)
    bias: Floats | None = None
    size: int = 0
    start: int = 0
    stop: int = 0


def from_spikingjelly(
    module: nn.Module,
    *,
    dt: float,
    n_inputs: int | None = None,
    n_steps: int | None = None,
    padding: Padding = "paper",
    reduce: Reduce | None = None,
    peer_dtype: Literal["float64", "float32"] = "float64",
    names: Sequence[str] | None = None,
) -> Network:
    """Import a SpikingJelly model as a frozen network with the same evaluation spikes.

    Understood, in the order of the module's children (``nn.Sequential`` and SpikingJelly's containers, nested,
    or a module that keeps them in ``.model`` as the delay paper's code does): ``Linear``, ``Dcls1d`` (package
    dcls), ``BatchNorm1d``, ``ConstantPad1d`` before a ``Dcls1d``, ``LIFNode``, ``ParametricLIFNode``,
    ``IFNode``, ``NonSpikingLIFNode``; ``Dropout`` and ``Identity`` are left out. A last layer whose threshold
    is at least a million is an integrator, and its membrane the readout.

    Delays are evaluated as the delay paper does: positions rounded, kernel width zero, version ``max``. That
    kernel is divided by ``1 + 1e-7``; so are the weights here.

    Args:
        module: The model; it is not changed. Its neurons are taken in their reset state.
        dt: Length of a step in seconds (SpikingJelly counts in steps).
        n_inputs: Number of input channels; needed only if the first layer has no weights.
        n_steps: Steps of a sample before padding; needed if layers lengthen the sequence.
        padding: Steps padded (before, after) the input of every ``Dcls1d`` that has no pad module of its own;
            ``"paper"`` is ``(L - 1, (L - 1) // 2)`` for a kernel of L slots, as the paper's code pads.
        reduce: How class scores are read; default ``sum_softmax`` of an integrator's membrane, ``mean`` of spikes.
        peer_dtype: Precision in which the model is run by SpikingJelly: decides the bits of the kernel's norm.
        names: Names of the populations; default layer1, layer2, ..., and readout for an integrator.

    Returns:
        A network; ``notes["tail_steps"]`` says how many empty steps follow a sample, ``notes["imported"]`` in
        sentences what was done.

    Raises:
        InputError: A module or an option of it cannot be imported; the message names its place.
    """
    importer = _Importer(check_dt(dt), n_inputs, n_steps, padding, peer_dtype)
    leaves = list(_leaves(getattr(module, "model", module), ""))
    if not leaves:
        raise InputError(f"from_spikingjelly: {type(module).__name__} has no layers to import")
    for name, leaf in leaves:
        importer.take(name, leaf)
    return importer.network(reduce, names)


def _leaves(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    containers = ("Sequential", "ModuleList", "SeqToANNContainer", "MultiStepContainer", "StepModeContainer")
    if type(module).__name__ in containers:
        for key, child in module.named_children():
            yield from _leaves(child, f"{name}.{key}" if name else key)
    else:
        yield name or "module", module


def _array(tensor: torch.Tensor) -> Floats:
    return tensor.detach().cpu().to(torch.float64).numpy().copy()


class _Importer:
    def __init__(self, dt: float, n_inputs: int | None, n_steps: int | None, padding: Padding, peer_dtype: str) -> None:
        self.dt, self.n_steps, self.padding = dt, n_steps, padding
        if padding != "paper" and (len(padding) != 2 or min(padding) < 0):
            raise InputError(f"padding: expected 'paper' or (before, after) in steps, got {padding!r}")
        if peer_dtype not in ("float64", "float32"):
            raise InputError(f"peer_dtype: expected 'float64' or 'float32', got {peer_dtype!r}")
        kind = np.dtype(peer_dtype).type
        self.norm = float(kind(1) / (kind(1) + kind(1e-7)))
        self.n_inputs = n_inputs
        self.width = n_inputs
        self.layer: _Layer | None = None
        self.pad: tuple[int, int] | None = None
        self.done: list[tuple[_Layer, Neuron]] = []
        self.offset, self.steps = 0, n_steps or 0  # of what flows: its first step, its number of steps
        self.sentences: list[str] = []
        self.dropped = self.moved = self.taps = self.norms = 0
        self.grows = False

    def take(self, name: str, module: nn.Module) -> None:
        """Take the next module of the chain."""
        kind = type(module).__name__
        if kind in ("Dropout", "Dropout1d", "Identity"):
            self.dropped += kind != "Identity"
        elif kind in ("ConstantPad1d", "ZeroPad1d"):
            if getattr(module, "value", 0.0) != 0:
                raise InputError(f"{name}: ConstantPad1d pads with {module.value}; only zeros can be imported")
            before, after = module.padding  # type: ignore[misc]
            self.pad = (int(before), int(after))
        elif kind == "Linear" and isinstance(module, nn.Linear):
            self.open(name, module.in_features)
            self.connect(_array(module.weight)[None], [0], module.bias)
        elif kind == "Dcls1d":
            self.dcls(name, module)
        elif kind == "BatchNorm1d" and isinstance(module, nn.BatchNorm1d):
            self.batch_norm(name, module)
        elif kind in ("LIFNode", "ParametricLIFNode", "IFNode", "NonSpikingLIFNode"):
            self.neuron(name, module, kind)
        else:
            raise InputError(
                f"{name}: {kind} cannot be imported; supported are Linear, Dcls1d, BatchNorm1d, Dropout, "
                "ConstantPad1d, LIFNode, ParametricLIFNode, IFNode and NonSpikingLIFNode"
            )

    def open(self, name: str, width: int) -> None:
        if self.layer is not None:
            raise InputError(f"{name}: two connections without a neuron between them cannot be imported; merge them")
        if self.width is not None and self.width != width:
            raise InputError(f"{name}: expects {width} inputs, the layer before it gives {self.width}")
        if self.n_inputs is None:
            self.n_inputs = width
        self.width = width
        self.layer = _Layer(start=self.offset, stop=self.offset + self.steps)

    def connect(self, taps: Floats, delays: list[Any], bias: torch.Tensor | None) -> None:
        """Set the taps (tap, target, source) and their delays of the open layer."""
        layer = self.layer
        if layer is None:
            return
        for weight, delay in zip(taps, delays, strict=True):
            layer.weight.append(weight)
            layer.delay.append(np.asarray(delay, dtype=np.int64))
        layer.size = taps.shape[1]
        layer.bias = None if bias is None else _array(bias)

    def dcls(self, name: str, module: Any) -> None:
        for option, wanted in (("stride", (1,)), ("groups", 1), ("padding_mode", "zeros")):
            if getattr(module, option) != wanted:
                raise InputError(f"{name}: Dcls1d with {option}={getattr(module, option)} cannot be imported")
        self.open(name, int(module.in_channels))
        length = int(module.dilated_kernel_size[0])
        default = (length - 1, (length - 1) // 2) if self.padding == "paper" else self.padding
        before, after = self.pad or (default if module.padding[0] == 0 else (0, 0))
        before, after = before + int(module.padding[0]), after + int(module.padding[0])
        self.pad = None
        position, weight = _array(module.P)[0], _array(module.weight)
        self.taps += position.size
        self.moved += int(np.count_nonzero(position != np.rint(position)))
        slot = np.clip(np.rint(position), -(length // 2), length // 2).astype(np.int64) + length // 2
        weight = np.where(slot < length, weight * (1.0 if module.version == "v0" else self.norm), 0.0)
        late = max(0, int(slot.max()) - before)  # a kernel that looks ahead makes the whole layer late
        delay = before - slot + late
        self.grows |= before + after != length - 1 or late > 0
        self.steps += before + after - (length - 1)
        self.offset += late
        if self.layer is not None:
            self.layer.start, self.layer.stop = self.offset, self.offset + self.steps
        taps = np.moveaxis(weight, 2, 0)
        self.connect(taps, list(np.moveaxis(delay, 2, 0)), module.bias)

    def batch_norm(self, name: str, module: nn.BatchNorm1d) -> None:
        if self.layer is None:
            raise InputError(f"{name}: BatchNorm1d without a Linear or Dcls1d before it cannot be imported")
        if module.running_mean is None or module.running_var is None:
            raise InputError(f"{name}: BatchNorm1d without running statistics cannot be imported; track them")
        scale = 1 / np.sqrt(_array(module.running_var) + module.eps)
        if module.weight is not None:
            scale = _array(module.weight) * scale
        bias = np.zeros(self.layer.size) if self.layer.bias is None else self.layer.bias
        bias = scale * (bias - _array(module.running_mean))
        if module.bias is not None:
            bias = bias + _array(module.bias)
        self.layer.bias = bias
        self.layer.weight = [weight * scale[:, None] for weight in self.layer.weight]
        self.norms += 1

    def neuron(self, name: str, module: Any, kind: str) -> None:
        if self.layer is None:
            if self.width is None:
                raise InputError(f"{name}: the first layer has no weights; pass n_inputs")
            self.open(name, self.width)
            self.connect(np.eye(self.width)[None], [0], None)
        layer = self.layer
        if layer is None:
            return
        leak = 0.0
        if kind in ("LIFNode", "NonSpikingLIFNode"):
            leak = 1.0 / float(module.tau)
        elif kind == "ParametricLIFNode":
            leak = float(module.w.detach().double().sigmoid())
        if kind == "NonSpikingLIFNode" or (kind != "IFNode" and module.decay_input):
            layer.weight = [weight * leak for weight in layer.weight]
            layer.bias = None if layer.bias is None else layer.bias * leak
        drive = np.zeros(layer.size) if layer.bias is None else layer.bias
        self.lattice(name, layer, leak)
        silent = kind == "NonSpikingLIFNode" or float(module.v_threshold) >= NEVER_FIRES
        v_reset = None if silent and kind == "NonSpikingLIFNode" else module.v_reset
        record: Neuron
        if silent:
            if v_reset:
                raise InputError(f"{name}: an integrator with v_reset = {v_reset} cannot be imported; use 0")
            record = LI.from_step(dt=self.dt, beta=1.0 - leak, drive_step=drive)
        else:
            threshold = float(module.v_threshold)
            firing: dict[str, Any] = {"reset": "subtract" if v_reset is None else "zero", "v_reset": 0.0}
            if v_reset:
                threshold -= v_reset
                self.sentences.append(f"{name}: potentials are counted from its v_reset = {v_reset}, where it starts.")
            firing["v_threshold"] = threshold
            if kind == "IFNode":
                record = IF.from_step(dt=self.dt, drive_step=drive, **firing)
            else:
                record = LIF.from_step(dt=self.dt, beta=1.0 - leak, drive_step=drive, **firing)
        self.done.append((layer, record))
        self.width, self.layer = layer.size, None

    def lattice(self, name: str, layer: _Layer, leak: float) -> None:
        coarse = all(np.array_equal(weight * LATTICE, np.rint(weight * LATTICE)) for weight in layer.weight)
        if coarse and leak and np.log2(leak) != np.rint(np.log2(leak)):
            self.sentences.append(
                f"{name}: its weights lie on a coarse lattice; where a membrane meets the threshold exactly, "
                "rounding may decide otherwise than in SpikingJelly. Count such spikes with a proof."
            )

    def network(self, reduce: Reduce | None, names: Sequence[str] | None) -> Network:
        """Return the network of everything taken."""
        if self.layer is not None:
            drive = np.zeros(self.layer.size) if self.layer.bias is None else self.layer.bias
            self.done.append((self.layer, LI.from_step(dt=self.dt, beta=0.0, drive_step=drive)))
            self.sentences.append("The last layer has no neurons; its currents are read as they are.")
        if not self.done:
            raise InputError("from_spikingjelly: found no neurons")
        if self.grows and self.n_steps is None:
            raise InputError("n_steps: layers change the length of the sequence; pass the steps of a sample")
        end = max(self.n_steps or 0, *(layer.stop for layer, _ in self.done))
        labels = list(names) if names is not None else [f"layer{index + 1}" for index in range(len(self.done))]
        if names is None and not self.done[-1][1].spiking:
            labels[-1] = "readout"
        if len(labels) != len(self.done):
            raise InputError(f"names: expected {len(self.done)} names, got {len(labels)}")
        populations, projections = [], []
        source, width = "input", int(self.n_inputs or 0)
        for label, (layer, record) in zip(labels, self.done, strict=True):
            stop = layer.stop if self.grows and layer.stop < end else None
            populations.append(Population(label, layer.size, record, start_step=layer.start, stop_step=stop))
            for weight, delay in zip(layer.weight, layer.delay, strict=True):
                projections.append(Projection(source, label, weight, np.asarray(delay * self.dt, dtype=np.float64)))
            source = label
        spiking = self.done[-1][1].spiking
        readout = (
            Readout(source, "spikes", reduce or "mean") if spiking else Readout(source, "v", reduce or "sum_softmax")
        )
        tail = end - (self.n_steps or 0) if self.grows else 0
        return Network(
            populations=tuple(populations),
            projections=tuple(projections),
            inputs=(Input("input", width),),
            readout=readout,
            dt=self.dt,
            notes={"imported": self.report(tail), "tail_steps": tail, "n_steps": self.n_steps if self.grows else None},
        )

    def report(self, tail: int) -> list[str]:
        """Return what was done, in sentences."""
        lines = ["Imported from SpikingJelly: decays are 1 - 1 / tau, spikes at v >= v_threshold."]
        if self.taps:
            lines.append(
                f"{self.moved} of {self.taps} delay positions were rounded; weights of Dcls1d layers were divided "
                "by 1 + 1e-7, as its kernel is."
            )
        if self.norms:
            lines.append(f"{self.norms} batch norms were folded into weights and a drive per step.")
        if self.dropped:
            lines.append(f"{self.dropped} dropout layers were removed.")
        if self.grows:
            lines.append(
                f"Layers lengthen the sequence: samples have {self.n_steps} steps and {tail} empty ones after them; "
                "populations start and stop as the padded layers do."
            )
        return lines + self.sentences


def to_spikingjelly(network: Network) -> nn.Sequential:
    """Return a SpikingJelly model (multi-step, float64) with the spikes of a chain without delays.

    Args:
        network: One input and a chain of IF, LIF or LI populations with uniform parameters, ``zero`` or
            ``subtract`` reset, no delays, no recurrence. NIR (:func:`snnsim.export.nir.write_nir`) carries more.

    Returns:
        ``layer.Linear`` and ``LIFNode`` / ``IFNode`` modules in float64; input is (time, batch, unit). An
        integrator becomes a LIFNode with threshold 1e9 that keeps its membranes in ``v_seq``.

    Raises:
        InputError: The network is not such a chain; the message names the population or projection.
        MissingLibraryError: SpikingJelly is not installed.
    """
    try:
        from spikingjelly.activation_based import layer, neuron
    except ImportError as error:
        raise MissingLibraryError("spikingjelly", "peers", "making a SpikingJelly model") from error
    if len(network.inputs) != 1:
        raise InputError(f"to_spikingjelly: expected one input, got {len(network.inputs)}")
    modules: list[nn.Module] = []
    before, width = network.inputs[0].name, network.inputs[0].size
    for population in network.order():
        what = f"to_spikingjelly: population {population.name!r}"
        incoming = [item for item in network.projections if item.target == population.name]
        if [item.source for item in incoming] != [before]:
            raise InputError(f"{what}: expected one projection, from {before!r}; export to NIR instead")
        projection = incoming[0]
        if np.any(projection.synapses(network.dt).delay_steps):
            raise InputError(f"to_spikingjelly: projection {projection.name!r} has delays; export to NIR instead")
        p = population.neuron.step(population.size, network.dt)
        if population.start_step or population.stop_step is not None or np.any(p.refractory_steps):
            raise InputError(f"{what}: start, stop and refractory steps have no place in SpikingJelly")
        if population.neuron.kind not in ("IF", "LIF", "LI"):
            raise InputError(f"{what}: {population.neuron.kind} cannot be given to SpikingJelly; use IF, LIF or LI")
        uneven = [key for key in ("beta", "v_threshold", "v_reset") if np.unique(getattr(p, key)).size > 1]
        if uneven or p.strict or (p.spiking and not p.reset_zero and not np.array_equal(p.reset_amount, p.v_threshold)):
            raise InputError(f"{what}: SpikingJelly needs uniform beta, threshold and reset, and fires at >=")
        if np.any(p.v_reset):
            raise InputError(f"{what}: SpikingJelly starts at v_reset = {p.v_reset[0]}, this network at 0")
        weight = projection.weight
        if isinstance(weight, Sparse):
            dense = np.zeros(projection.shape)
            np.add.at(dense, (weight.target, weight.source), weight.weight)
            weight = dense
        linear = layer.Linear(width, population.size, bias=bool(np.any(p.drive_step)), step_mode="m").double()
        linear.weight.data = torch.from_numpy(weight.copy())
        if linear.bias is not None:
            linear.bias.data = torch.from_numpy(p.drive_step.copy())
        values: dict[str, Any] = {
            "v_threshold": float(p.v_threshold[0]) if p.spiking else 1e9,
            "v_reset": 0.0 if p.reset_zero else None,
            "step_mode": "m",
            "store_v_seq": not p.spiking,
        }
        beta = float(p.beta[0])
        if beta <= 0 and p.spiking is False:
            raise InputError(f"{what}: SpikingJelly needs beta > 0, got {beta}")
        node = neuron.IFNode(**values) if beta == 1 else neuron.LIFNode(tau=1 / (1 - beta), decay_input=False, **values)
        modules += [linear, node]
        before, width = population.name, population.size
    return nn.Sequential(*modules)
