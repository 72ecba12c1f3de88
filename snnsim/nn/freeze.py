"""From a trained model to a frozen network with the same evaluation spikes.

Delays are rounded, batch norm is folded (``y = scale x + shift`` becomes ``weight * scale`` and a drive per
step), dropout disappears, every number becomes float64. A folded weight is rounded once where the model
rounds twice, so a spike could differ only where a membrane meets its threshold within rounding; the proof
(:mod:`snnsim.export.proof` with :class:`ModelJudge`) counts such spikes.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from snnsim.errors import InputError
from snnsim.network import Input, Network, Population, Projection, Readout, Sparse
from snnsim.neurons import Neuron
from snnsim.nn.context import Context
from snnsim.nn.conv_model import ConvSpikingModel
from snnsim.nn.delays import DelayedLinear, Linear
from snnsim.nn.freeze_maps import freeze_maps
from snnsim.nn.masks import MaskedWeights
from snnsim.nn.model import SpikingModel
from snnsim.nn.neurons_conductance import ReceptorLinear
from snnsim.nn.recurrent import Recurrent
from snnsim.nn.trained import TrainedModel

__all__ = ["ModelJudge", "block_names", "freeze"]

Floats = npt.NDArray[np.float64]

INPUT = "input"
READOUT = "readout"


def block_names(model: TrainedModel) -> list[str]:
    """Return the names that the hidden layers have as populations: hidden1, hidden2, ..."""
    return [f"hidden{index}" for index in range(1, len(model.hidden_sizes()) + 1)]


@dataclass
class _Count:
    """What freezing did, for the notes."""

    rounds: bool = True
    moved: int = 0
    taps: int = 0
    largest: float = 0.0
    folded: int = 0
    dropout: int = 0
    widened: bool = False
    synapses: int = 0
    missing: int = 0

    def existing(self, module: MaskedWeights) -> npt.NDArray[np.bool_] | None:
        """Return which synapses of a layer exist, or None if all do; count them."""
        if module.mask is None:
            return None
        mask: npt.NDArray[np.bool_] = module.mask.cpu().numpy()
        self.synapses += mask.size
        self.missing += int(np.count_nonzero(~mask))
        return mask

    def round(self, position: Floats) -> Floats:
        """Return the positions of a layer as they are frozen; count them and how far they are from whole steps."""
        off = np.abs(position - np.rint(position))
        self.taps += position.size
        self.moved += int(np.count_nonzero(off))
        self.largest = max(self.largest, float(off.max(initial=0.0)))
        return np.rint(position) if self.rounds else position


def freeze(model: TrainedModel, *, round_delays: bool = True) -> Network:
    """Return the network that computes what ``model`` computes in evaluation.

    The model itself is not changed, and may be in training mode or in float32.

    Args:
        model: Blocks of Linear or DelayedLinear, optional BatchNormTime, neurons (recurrent or not), optional
            dropout and residual connections, and a readout of integrators.
        round_delays: Round learned delays to whole steps. False keeps them as they are, for the event engine in
            continuous time, as ``eventprop`` trained them; a grid rounds them anyway.

    Returns:
        Input ``input``; populations ``hidden1``, ``hidden2``, ... and ``readout``; a layer with k taps has k
        projections; delays that are one per source or target stay compact; a layer with a mask becomes a sparse
        projection of the synapses that exist. ``notes["frozen"]`` says in
        sentences what was done, ``notes["tail_steps"]`` how many empty steps follow every sample.

    Raises:
        InputError: A module that cannot be frozen; the message names the block.
    """
    if isinstance(model, ConvSpikingModel):
        return _freeze_maps(model)
    assert isinstance(model, SpikingModel)
    count = _Count(rounds=round_delays, widened=any(p.dtype != torch.float64 for p in model.parameters()))
    populations: list[Population] = []
    projections: list[Projection] = []
    layers: list[dict[str, Any]] = []
    sources = [INPUT]
    hidden: list[Any] = list(model.blocks)
    for name, block in zip(block_names(model), hidden, strict=True):
        connection, neuron = block.connection, block.neuron
        scale, drive = np.ones(connection.n_out), _bias(connection)
        if block.norm is not None:
            if isinstance(connection, ReceptorLinear):
                raise InputError(f"freeze: {name}: a batch norm of conductances cannot be folded; build without it")
            scale, shift = block.norm.fold()
            drive = scale * drive + shift
            count.folded += 1
        count.dropout += int(block.dropout is not None)
        cells = neuron.neuron if isinstance(neuron, Recurrent) else neuron
        populations.append(Population(name, connection.n_out, _driven(_record(name, cells), drive)))
        for source in sources:
            projections += _projections(source, name, connection, scale, model.dt, count)
        if isinstance(neuron, Recurrent):
            projections.append(_recurrent(name, neuron, model.dt, count))
        layers.append(_layer(name, connection))
        if isinstance(neuron, Recurrent) and neuron.mask is not None:
            layers[-1]["masked_recurrence"] = True
        sources = [*sources, name] if block.residual else [name]
    readout = model.readout
    connection = readout.connection
    record = _driven(_record(READOUT, readout.neuron), _bias(connection))
    populations.append(Population(READOUT, connection.n_out, record))
    for source in sources:
        projections += _projections(source, READOUT, connection, np.ones(connection.n_out), model.dt, count)
    layers.append(_layer(READOUT, connection))
    return Network(
        populations=tuple(populations),
        projections=tuple(projections),
        inputs=(Input(INPUT, model.n_inputs),),
        readout=Readout(READOUT, "v", readout.reduce, readout.skip_steps),
        dt=model.dt,
        notes={"frozen": _sentences(count, model), "tail_steps": int(model.tail_steps), "layers": layers},
    )


def _freeze_maps(model: ConvSpikingModel) -> Network:
    """Freeze a convolutional model: one population a cell, sparse synapses."""
    names = block_names(model)
    frozen = freeze_maps(model, names, INPUT)
    populations, projections = [], []
    for name, flow, neuron in zip(names, frozen.flows, frozen.neurons, strict=False):
        populations.append(Population(name, neuron.size, _driven(_record(name, neuron), flow.constant)))
        projections += frozen.projections(flow, name)
    readout, last = model.readout, frozen.flows[-1]
    weight = _array(readout.connection.weight)
    drive = _bias(readout.connection) + weight @ last.constant
    populations.append(Population(READOUT, readout.connection.n_out, _driven(_record(READOUT, readout.neuron), drive)))
    for source, part in last.parts.items():
        projections.append(Projection(source, READOUT, np.ascontiguousarray((part.T @ weight.T).T)))
    widened = any(p.dtype != torch.float64 for p in model.parameters())
    count = _Count(folded=frozen.folded, dropout=frozen.dropout, widened=widened)
    return Network(
        populations=tuple(populations),
        projections=tuple(projections),
        inputs=(Input(INPUT, model.n_inputs),),
        readout=Readout(READOUT, "v", readout.reduce, readout.skip_steps),
        dt=model.dt,
        notes={"frozen": _sentences(count, model), "tail_steps": int(model.tail_steps)},
    )


def _array(tensor: torch.Tensor) -> Floats:
    return tensor.detach().cpu().to(torch.float64).numpy().copy()


def _bias(connection: Linear | DelayedLinear | ReceptorLinear) -> Floats:
    if connection.bias is None:
        return np.zeros(connection.n_out)
    return _array(connection.bias)


def _record(name: str, module: Any) -> Neuron:
    if not hasattr(module, "neuron") or isinstance(module.neuron, torch.nn.Module):
        raise InputError(
            f"freeze: {name}: {type(module).__name__} is not a neuron layer of snnsim.nn; use LIF or the like"
        )
    record = module.neuron()
    if not isinstance(record, Neuron):
        raise InputError(f"freeze: {name}: {type(module).__name__}.neuron() gave {type(record).__name__}, not a record")
    return record


def _driven(record: Neuron, drive: Floats) -> Neuron:
    """Return the record with ``drive`` as its authoritative drive per step (of the current, if it has one)."""
    if not np.any(drive):
        return record
    values = {name: value for name, value in record.parameters().items() if value is not None}
    if not record.current and np.any(values.get("drive_step", 0.0)):
        drive = drive + values["drive_step"]
    for derived in ("tau_mem", "tau_syn", "tau_adapt", "drive", "drive_syn", "drive_step", "drive_syn_step"):
        values.pop(derived, None)
    values["drive_syn_step" if record.current else "drive_step"] = drive
    made: Neuron = type(record).from_step(**values)  # type: ignore[attr-defined]
    return made


def _projections(
    source: str,
    target: str,
    connection: Linear | DelayedLinear | ReceptorLinear,
    scale: Floats,
    dt: float,
    count: _Count,
) -> list[Projection]:
    if isinstance(connection, ReceptorLinear):
        exc, inh = np.abs(_array(connection.exc_weight)), np.abs(_array(connection.inh_weight))
        return [Projection(source, target, exc, 0.0, "exc"), Projection(source, target, inh, 0.0, "inh")]
    exists = count.existing(connection)
    if isinstance(connection, Linear):
        return [_projection(source, target, _array(connection.weight) * scale[:, None], 0.0, exists)]
    if not isinstance(connection, DelayedLinear):
        raise InputError(f"freeze: {target}: {type(connection).__name__} cannot be frozen; use Linear or DelayedLinear")
    low, high = connection.position_limits
    steps = high - np.clip(count.round(_array(connection.position)), low, high)
    weight = _array(connection.weight) * scale[:, None, None]
    result = []
    for tap in range(connection.taps):
        delay = steps[:, :, tap] * dt
        value: float | Floats = float(delay[0, 0]) if delay.size == 1 else delay
        result.append(
            _projection(source, target, weight[:, :, tap], value, None if exists is None else exists[:, :, tap])
        )
    return result


def _projection(
    source: str, target: str, weight: Floats, delay: float | Floats, exists: npt.NDArray[np.bool_] | None
) -> Projection:
    """Return a dense projection, or with a mask a sparse one of the synapses that exist, by source."""
    if exists is None:
        return Projection(source, target, weight, delay)
    sources, targets = np.nonzero(exists.T)
    sparse = Sparse.from_triples(sources, targets, weight[targets, sources], (weight.shape[0], weight.shape[1]))
    if np.shape(delay) == weight.shape:
        delay = np.asarray(delay)[targets, sources]
    return Projection(source, target, sparse, delay)


def _recurrent(name: str, module: Recurrent, dt: float, count: _Count) -> Projection:
    weight = _array(module.recurrent_weight)
    if module.learn_delay:
        low, high = module.position_limits
        steps = high + 1 - np.clip(count.round(_array(module.position)[:, :, 0]), low, high)
    else:
        steps = np.asarray(module.delay_steps.detach().cpu().numpy(), dtype=np.float64)
    delay: float | Floats = float(steps) * dt if steps.ndim == 0 else np.asarray(steps * dt)
    return _projection(name, name, weight, delay, count.existing(module))


def _layer(name: str, connection: Linear | DelayedLinear | ReceptorLinear) -> dict[str, Any]:
    """Return what :func:`snnsim.nn.thaw.thaw` needs besides the network to build the same layer."""
    layer: dict[str, Any] = {"population": name, "kind": "linear"}
    if isinstance(connection, DelayedLinear):
        layer = {
            "population": name,
            "kind": "delayed",
            "max_delay_steps": connection.n_delays - 1,
            "per": connection.per,
            "version": connection.version,
            "sigma": float(connection.sigma),
            "learn_delay": connection.learn_delay,
        }
    if isinstance(connection, MaskedWeights) and connection.mask is not None:
        layer["masked"] = True
    return layer


def _sentences(count: _Count, model: TrainedModel) -> list[str]:
    sentences = []
    if count.widened:
        sentences.append("Parameters were widened to float64 without changing a value.")
    if count.taps and not count.rounds:
        sentences.append(
            f"{count.moved} of {count.taps} delays are not whole steps of {model.dt} s (by up to {count.largest:.3g} "
            "steps) and were kept: run the event engine in continuous time."
        )
    elif count.taps:
        sentences.append(
            f"{count.moved} of {count.taps} delays were rounded to whole steps of {model.dt} s, "
            f"by up to {count.largest:.3g} steps."
        )
    if count.missing:
        sentences.append(f"{count.missing} of {count.synapses} synapses were masked and left out.")
    if count.folded:
        sentences.append(f"Batch norm of {count.folded} layers was folded into weights and a drive per step.")
    if count.dropout:
        sentences.append(f"Dropout of {count.dropout} layers was removed.")
    if model.tail_steps:
        sentences.append(f"{model.tail_steps} empty steps belong at the end of every sample (tail_steps).")
    return sentences


class ModelJudge:
    """A model in evaluation and float64 as the judge of its frozen network.

    Works on a copy; the model keeps its mode and its precision.

    Args:
        model: The model that was frozen.

    Attributes:
        name: What to call this judge in a report.
        latency: No population is early or late.
    """

    def __init__(self, model: TrainedModel) -> None:
        self.model = copy.deepcopy(model).cpu().double().eval()
        self.name = f"the torch model (torch {torch.__version__.split('+')[0]}, float64)"
        self.latency: Mapping[str, int] = {}

    @torch.no_grad()
    def run(self, inputs: Floats) -> dict[str, npt.NDArray[Any]]:
        """Run counts (time, batch, unit); return spikes of the blocks and the trace of the readout."""
        context = Context(sample_id=torch.arange(inputs.shape[1]))  # random neurons draw by sample, from seed 0
        x = torch.from_numpy(np.ascontiguousarray(inputs, dtype=np.float64))
        output = self.model(x, None, context, record=True)
        result = dict(zip(block_names(self.model), (spikes.numpy() for spikes in output.spikes), strict=True))
        result[READOUT] = output.trace.numpy()
        return result
