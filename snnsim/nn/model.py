"""The trainable network: blocks of connection, batch norm, neurons and dropout, then a readout.

``SpikingModel`` is an ordinary ``torch.nn.Module``. Nothing is remembered between calls: the state of a
stream is an argument and a result. ``build_model`` makes one from the ``[model]`` table of a recipe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from snnsim.errors import InputError
from snnsim.nn import surrogates
from snnsim.nn.context import Context
from snnsim.nn.cuda import on_cuda
from snnsim.nn.cuda_spikes import mark_output
from snnsim.nn.delays import DelayedLinear, Linear
from snnsim.nn.dropout import SequenceDropout
from snnsim.nn.fused_norm import norm_neurons
from snnsim.nn.fused_sparse import sparse_lif
from snnsim.nn.levy_baxter import LevyBaxter
from snnsim.nn.maps import count_spikes
from snnsim.nn.meta import MetaNeuron, StochasticModule
from snnsim.nn.neurons import IF, LI, LIF, AdaptiveLIF, CubaLI, CubaLIF
from snnsim.nn.neurons_conductance import ConductanceLIF, ReceptorLinear
from snnsim.nn.neurons_meta_dynamic import MetaDynamicNeuron
from snnsim.nn.norm import BatchNormTime
from snnsim.nn.readouts import REDUCTIONS, Reduce, reduce_trace
from snnsim.nn.recurrent import Recurrent
from snnsim.nn.spiking import stack_rows
from snnsim.nn.trained import Output, State, TrainedModel

if TYPE_CHECKING:
    from snnsim.recipes.schema import ConnectionSpec, ModelSpec, NeuronSpec, ReadoutSpec

__all__ = ["Block", "Output", "ReadoutBlock", "SpikingModel", "build_model", "build_neuron", "build_readout"]
__all__ += ["connect"]

Connection = Linear | DelayedLinear | ReceptorLinear


class Block(nn.Module):
    """One hidden layer: connection, batch norm, neurons (with or without recurrence), dropout.

    Args:
        connection: Feed-forward connection.
        neuron: Spiking neurons, possibly wrapped in :class:`~snnsim.nn.recurrent.Recurrent`.
        norm: Batch norm of the current over time and batch, or None.
        dropout: One mask a sequence on the spikes, or None.
        residual: Add the block's input to its output; sizes must agree.
    """

    def __init__(
        self,
        connection: Connection,
        neuron: nn.Module,
        *,
        norm: BatchNormTime | None = None,
        dropout: SequenceDropout | None = None,
        residual: bool = False,
    ) -> None:
        super().__init__()
        if residual and connection.n_in != connection.n_out:
            raise InputError(
                f"residual: a block of {connection.n_in} -> {connection.n_out} units cannot add its input to its "
                "output; use equal sizes"
            )
        if isinstance(connection, ReceptorLinear) != isinstance(neuron, ConductanceLIF):
            raise InputError(
                f"a block of {type(connection).__name__} and {type(neuron).__name__}: ReceptorLinear and "
                "ConductanceLIF belong together"
            )
        if norm is not None and isinstance(connection, ReceptorLinear):
            raise InputError(
                "a block with conductances has no batch norm: conductances are not negative; leave norm out"
            )
        self.connection = connection
        self.norm = norm
        self.neuron = neuron
        self.dropout = dropout
        self.residual = residual

    def current(self, x: Tensor, state: Any = None, context: Context | None = None) -> tuple[Tensor, Any]:
        """Return what reaches the neurons, (time, batch, unit), and the connection's state."""
        current, state = self.connect(x, state, context)
        if self.norm is not None:
            current, _ = self.norm(current, None, context)
        return current, state

    def connect(self, x: Tensor, state: Any = None, context: Context | None = None) -> tuple[Tensor, Any]:
        """Return what the connection gives, (time, batch, unit), and its state; random neurons draw its synapses."""
        if isinstance(self.neuron, StochasticModule):
            return self.neuron.synapses(cast(Linear | DelayedLinear, self.connection), x, state, context)
        current, state = self.connection(x, state, context)
        return current, state

    def forward(
        self, x: Tensor, state: State | None = None, context: Context | None = None
    ) -> tuple[Tensor, Tensor, State]:
        """Return the block's output, its spikes before dropout, and the state that continues the stream."""
        connection_state, neuron_state = (None, None) if state is None else state
        current, connection_state = self.current(x, connection_state, context)
        spikes, neuron_state = self.neuron(current, neuron_state, context)
        y = spikes
        if self.dropout is not None:
            y, _ = self.dropout(y, None, context)
        if self.residual:
            y = y + x
        return y, spikes, (connection_state, neuron_state)

    def fuses(self, x: Tensor) -> bool:
        """Return whether :meth:`run_fused` may stand for :meth:`forward`: in training, feed-forward neurons."""
        neuron = self.neuron
        return (
            self.training
            and neuron.training
            and (self.norm is None or self.norm.training)
            and not self.residual
            and type(neuron) in (LIF, IF, CubaLIF, AdaptiveLIF)
            and not cast(LIF, neuron).waits
            and (x.device.type == "cpu" or on_cuda(x))
            and not any(has_hooks(module) for module in (self, self.norm, neuron, self.dropout) if module is not None)
        )

    def run_fused(
        self, x: Tensor, state: State | None = None, context: Context | None = None
    ) -> tuple[Tensor, Tensor, State]:
        """Return the block's output, the spikes in valid steps of every sample (before dropout), and the state."""
        connection_state, old = (None, None) if state is None else state
        neuron: Any = self.neuron
        if self._fuses_synapses(x):
            return self._run_synapses(x, old, context)
        current, connection_state = self.connection(x, connection_state, context)
        current = current.contiguous()
        neuron._check_input(current)
        start = neuron.initial_state(current.shape[1], current.dtype) if old is None else old
        *begin, waiting = start
        prepared = neuron.prepare(current.dtype)
        norm = self.norm
        y, end, counts = norm_neurons(
            current,
            None if norm is None else norm.weight.to(current.dtype),
            None if norm is None else norm.bias.to(current.dtype),
            tuple(begin),
            prepared.vectors,
            None if self.dropout is None else self.dropout.factors(context, current),
            neuron.dynamics,
            prepared.rule,
            None if norm is None else norm.statistics(current, context),
            None if context is None else context.mask,
        )
        return y, counts, (connection_state, type(start)(*end, waiting))

    def _fuses_synapses(self, x: Tensor) -> bool:
        """Return whether few synapses and LIF neurons without learned parameters go through time together."""
        connection, neuron = self.connection, self.neuron
        return (
            isinstance(connection, Linear)
            and not on_cuda(x)
            and connection.computes_sparse(x)
            and connection.bias is None
            and self.norm is None
            and type(neuron) in (LIF, IF)
            and not any(parameter.requires_grad for parameter in neuron.parameters())
            and not has_hooks(connection)
        )

    def _run_synapses(self, x: Tensor, old: Any, context: Context | None) -> tuple[Tensor, Tensor, State]:
        connection, neuron = cast(Linear, self.connection), cast(Any, self.neuron)
        connection.check_input(x)
        start = neuron.initial_state(x.shape[1], x.dtype) if old is None else old
        prepared = neuron.prepare(x.dtype)
        like = x.new_empty(1, x.shape[1], connection.n_out)
        y, v, counts = sparse_lif(
            x,
            connection.weight,
            connection.order,
            start.v,
            stack_rows(neuron.dynamics, prepared.vectors)[:4],
            None if self.dropout is None else self.dropout.factors(context, like),
            prepared.rule,
            None if context is None else context.mask,
        )
        return y, counts, (None, type(start)(v, start.refractory))


class ReadoutBlock(nn.Module):
    """The output layer: connection into leaky integrators whose trace is reduced to scores.

    Args:
        connection: Connection from the last hidden layer.
        neuron: Integrators without threshold (LI or CubaLI), one a class.
        reduce: See :func:`~snnsim.nn.readouts.reduce_trace`.
        skip_steps: First steps left out of the reduction.
    """

    def __init__(
        self, connection: Connection, neuron: LI | CubaLI, *, reduce: Reduce = "sum_softmax", skip_steps: int = 0
    ) -> None:
        super().__init__()
        if reduce not in REDUCTIONS:
            raise InputError(f"readout: expected reduce to be one of {', '.join(REDUCTIONS)}, got {reduce!r}")
        self.connection = connection
        self.neuron = neuron
        self.reduce: Reduce = reduce
        self.skip_steps = skip_steps

    def forward(
        self, x: Tensor, state: State | None = None, context: Context | None = None
    ) -> tuple[Tensor, Tensor, State]:
        """Return scores (batch, class), the trace (time, batch, class) and the state."""
        trace, state = self.integrate(x, state, context)
        return self.scores(trace, context), trace, state

    def integrate(self, x: Tensor, state: State | None = None, context: Context | None = None) -> tuple[Tensor, State]:
        """Return the trace (time, batch, class) and the state."""
        connection_state, neuron_state = (None, None) if state is None else state
        current, connection_state = self.connection(x, connection_state, context)
        trace, neuron_state = self.neuron(current, neuron_state, context)
        return trace, (connection_state, neuron_state)

    def scores(self, trace: Tensor, context: Context | None = None) -> Tensor:
        """Return the scores of a whole trace, (batch, class)."""
        mask = None if context is None else context.mask
        return reduce_trace(trace, self.reduce, mask=mask, skip_steps=self.skip_steps)


class SpikingModel(TrainedModel):
    """Hidden blocks and a readout.

    Args:
        blocks: Hidden layers, in order.
        readout: Output layer.
        dt: Time step, seconds.
        tail_steps: Empty steps that are appended once to every sample at the input, so that delayed spikes
            still reach the readout; the batches bring them, the model only knows their number.

    Input is (time, batch, unit): counts of spikes (or analogue frames) per step.
    """

    def __init__(self, blocks: list[Block], readout: ReadoutBlock, *, dt: float, tail_steps: int = 0) -> None:
        super().__init__()
        sizes = [block.connection.n_out for block in blocks]
        for index, block in enumerate(blocks[1:], start=1):
            if block.connection.n_in != sizes[index - 1]:
                raise InputError(
                    f"model: block {index} expects {block.connection.n_in} inputs, block {index - 1} has "
                    f"{sizes[index - 1]} neurons"
                )
        last = sizes[-1] if sizes else readout.connection.n_in
        if readout.connection.n_in != last:
            raise InputError(f"model: the readout expects {readout.connection.n_in} inputs, got {last} neurons")
        _number_random(blocks)
        self.blocks = nn.ModuleList(blocks)
        self.readout = readout
        self.dt = dt
        self.tail_steps = tail_steps

    @property
    def n_inputs(self) -> int:
        """Return the number of input channels."""
        return int(self.layers()[0].connection.n_in)

    def layers(self) -> list[Any]:
        """Return the hidden blocks and the readout, in order."""
        return [*self.blocks, self.readout]

    def delay_layers(self) -> list[DelayedLinear]:
        """Return the connections with delays, in order."""
        return [layer.connection for layer in self.layers() if isinstance(layer.connection, DelayedLinear)]

    def run_stretch(
        self, x: Tensor, state: State | None, context: Context | None, record: bool
    ) -> tuple[Tensor, Tensor, list[Tensor], State]:
        """Return the trace, the spikes of every block in valid steps, the recorded spikes and the state."""
        states = [None] * (len(self.blocks) + 1) if state is None else list(state)
        mask = None if context is None else context.mask
        counts, recorded, new = [], [], []
        for block, old in zip(cast(list[Block], list(self.blocks)), states, strict=False):
            if not record and block.fuses(x):
                x, fired, after = block.run_fused(x, old, context)
                counts.append(fired.sum().double())
            else:
                x, spikes, after = block(x, old, context)
                counts.append(count_spikes(spikes, mask))
                if record:
                    recorded.append(spikes)
            mark_output(block, x)
            new.append(after)
        trace, after = self.readout.integrate(x, states[-1], context)
        new.append(after)
        fired = torch.stack(counts) if counts else torch.zeros(0, dtype=torch.float64, device=trace.device)
        return trace, fired, recorded, tuple(new)

    def hidden_sizes(self) -> list[int]:
        """Return the neurons of every hidden block."""
        return [int(block.connection.n_out) for block in self.layers()[:-1]]

    def stretches_depend(self) -> str | None:
        """Return what lets stretches of time depend on each other besides the state, or None."""
        if self.delay_layers() or any(block.norm is not None for block in cast(list[Block], list(self.blocks))):
            return "delays or batch norm"
        return None

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the hidden blocks and the readout."""
        return iter(self.layers())


def _number_random(blocks: list[Block]) -> None:
    """Tell random neurons their place, and that of the projections into them, in the frozen network."""
    number, sources = 0, 1
    for place, block in enumerate(blocks):
        if isinstance(block.neuron, StochasticModule):
            if sources > 1:
                raise InputError(
                    f"model: block {place} has {block.neuron.kind} neurons behind a residual connection, whose sources "
                    "would release apart from each other; set residual = false"
                )
            block.neuron.population, block.neuron.projection = place, number
        number += sources * int(getattr(block.connection, "taps", 1)) + isinstance(block.neuron, Recurrent)
        sources = sources + 1 if block.residual else 1


def has_hooks(module: nn.Module) -> bool:
    """Return whether somebody listens to a module's calls; a fused layer does not make them."""
    names = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, name) for name in names)


def connect(
    spec: ConnectionSpec, n_in: int, n_out: int, dt: float, generator: torch.Generator, *, bias: bool = False
) -> Linear | DelayedLinear:
    """Return a connection of a recipe's ``[model.connection]`` table; ``bias`` adds a learned drive a target."""
    if spec.kind == "linear":
        return Linear(n_in, n_out, bias=bias, generator=generator)
    return DelayedLinear(
        n_in,
        n_out,
        max_delay_steps=spec.kernel_steps(dt) - 1,
        taps=spec.taps,
        version=spec.version,
        per=spec.per,
        learn_delay=spec.learn_delay,
        sigma=spec.first_sigma(dt),
        init=spec.delay_init,
        bias=bias,
        generator=generator,
    )


def _special(spec: NeuronSpec, size: int, dt: float, surrogate: Any, value: Callable[[str, float], Any]) -> nn.Module:
    """Return neurons of a kind with parameters of its own."""
    shared: dict[str, Any] = {"dt": dt, "v_threshold": value("v_threshold", spec.v_threshold), "t_ref": spec.t_ref}
    shared |= {"surrogate": surrogate, "detach_reset": spec.detach_reset, "learn": tuple(spec.learn)}
    if spec.kind == "liquid":
        numbers = {"tau_mem": spec.tau_mem, "tau_exc": spec.tau_syn, "tau_inh": spec.tau_syn, "v_reset": spec.v_reset}
        numbers |= {"e_exc": 6.0, "e_inh": -2.0}
        own: dict[str, Any] = {name: value(name, number) for name, number in numbers.items()}
        return ConductanceLIF(size, solver=spec.solver, substeps=spec.substeps, **own, **shared)
    if spec.types is not None and spec.types > size:
        raise InputError(f"model.neuron.types: expected at most one a neuron of the layer ({size}), got {spec.types}")
    types = None if spec.types is None else np.arange(size) % spec.types
    return MetaDynamicNeuron(size, time_unit=spec.tau_mem, types=types, **shared)


def build_neuron(spec: NeuronSpec, size: int, dt: float, seed: int) -> nn.Module:
    """Return the neurons of a recipe's ``[model.neuron]`` table."""
    surrogate = getattr(surrogates, spec.surrogate.name)(**spec.surrogate.arguments())

    def value(name: str, number: float) -> Any:
        return np.full(size, number) if name in spec.learn and spec.learn_per == "neuron" else number

    if spec.kind in ("meta-dynamic", "liquid"):
        return _special(spec, size, dt, surrogate, value)
    if spec.kind == "levy-baxter":
        values = {name: value(name, getattr(spec, name)) for name in ("v_threshold", "release", "drive_step")}
        return LevyBaxter(size, dt=dt, surrogate=surrogate, mode=spec.mode, learn=tuple(spec.learn), **values)
    common: dict[str, Any] = {
        "dt": dt,
        "v_threshold": value("v_threshold", spec.v_threshold),
        "v_reset": value("v_reset", spec.v_reset),
        "reset": spec.reset,
        "t_ref": spec.t_ref,
        "surrogate": surrogate,
        "detach_reset": spec.detach_reset,
        "learn": tuple(spec.learn),
        "heterogeneous": spec.heterogeneous,
        "seed": seed,
    }
    if spec.tau_law == "euler":
        common["beta"] = value("tau_mem", spec.beta(dt))
    else:
        common["tau_mem"] = spec.tau_mem if spec.heterogeneous else value("tau_mem", spec.tau_mem)
    if spec.kind == "lif":
        return LIF(size, **common)
    if spec.kind == "meta":
        names = ("release", "amplitude", "temperature", "drive_step")
        return MetaNeuron(size, mode=spec.mode, **common, **{name: value(name, getattr(spec, name)) for name in names})
    if spec.kind == "cubalif":
        return CubaLIF(size, tau_syn=spec.tau_syn if spec.heterogeneous else value("tau_syn", spec.tau_syn), **common)
    return AdaptiveLIF(
        size,
        tau_adapt=spec.tau_adapt if spec.heterogeneous else value("tau_adapt", spec.tau_adapt),
        adapt_v=value("adapt_v", spec.adapt_v),
        adapt_spike=value("adapt_spike", spec.adapt_spike),
        adapt_threshold=value("adapt_threshold", spec.adapt_threshold),
        **common,
    )


def build_readout(spec: ReadoutSpec, connection: Connection, dt: float) -> ReadoutBlock:
    """Return the output layer of a recipe's ``[model.readout]`` table behind a connection."""
    membrane: dict[str, Any] = {"beta": spec.beta(dt)} if spec.tau_law == "euler" else {"tau_mem": spec.tau_mem}
    size = connection.n_out
    membrane = {name: np.full(size, value) for name, value in membrane.items()} if "tau_mem" in spec.learn else membrane
    output: LI | CubaLI
    if spec.neuron == "cubali":
        tau_syn = np.full(size, spec.tau_syn) if "tau_syn" in spec.learn else spec.tau_syn
        output = CubaLI(size, dt=dt, tau_syn=tau_syn, learn=tuple(spec.learn), **membrane)
    else:
        output = LI(size, dt=dt, learn=tuple(spec.learn), **membrane)
    return ReadoutBlock(connection, output, reduce=spec.reduce, skip_steps=spec.skip_steps)


def build_model(spec: ModelSpec, n_inputs: int, n_classes: int, dt: float, seed: int = 0) -> TrainedModel:
    """Build the network that a recipe's ``[model]`` table describes.

    Args:
        spec: The table.
        n_inputs: Input channels (after pooling).
        n_classes: Classes.
        dt: Time step, seconds.
        seed: Seed of the initial weights, delays and heterogeneous parameters.

    Returns:
        A float32 model in training mode: :class:`SpikingModel`, or
        :class:`~snnsim.nn.conv_model.ConvSpikingModel` where the table has ``conv``.
    """
    if spec.conv is not None:
        from snnsim.nn.conv_presets import build_conv_model

        return build_conv_model(spec, n_inputs, n_classes, dt, seed)
    if spec.pool is not None:
        from snnsim.nn.pool_model import build_pool_model

        return build_pool_model(spec, n_inputs, n_classes, dt, seed)
    generator = torch.Generator().manual_seed(seed)
    blocks = []
    n_in = n_inputs
    for index, size in enumerate(spec.hidden):
        connection: Connection
        if spec.neuron.kind == "liquid":
            connection = ReceptorLinear(n_in, size, scale=spec.neuron.conductance, generator=generator)
        else:
            connection = connect(spec.connection, n_in, size, dt, generator)
        neuron = build_neuron(spec.neuron, size, dt, seed + index)
        if spec.recurrent:
            delay = dt if spec.recurrent_delay is None else spec.recurrent_delay
            neuron = Recurrent(neuron, delay_steps=max(1, round(delay / dt)), generator=generator)
        blocks.append(
            Block(
                connection,
                neuron,
                norm=BatchNormTime(size) if spec.batch_norm else None,
                dropout=SequenceDropout(spec.dropout, layer=index) if spec.dropout > 0 else None,
                residual=spec.residual and n_in == size and index > 0,
            )
        )
        n_in = size
    connection = connect(spec.readout_connection(), n_in, n_classes, dt, generator)
    readout = build_readout(spec.readout, connection, dt)
    model = SpikingModel(blocks, readout, dt=dt, tail_steps=spec.tail(dt))
    _draw_weights(model, spec, generator)
    if not spec.connection.learn_weight:
        for block in blocks:
            for name, parameter in block.named_parameters():
                if name in ("connection.weight", "neuron.recurrent_weight"):
                    parameter.requires_grad_(False)
    return model


@torch.no_grad()
def _draw_weights(model: SpikingModel, spec: ModelSpec, generator: torch.Generator) -> None:
    """Draw the weights anew that the recipe gives a distribution for."""
    initial = spec.initial
    for index, layer in enumerate(model.layers()):
        last = index == len(model.blocks)
        drawn = initial.readout if last else initial.hidden if index else initial.input
        if drawn is not None:
            layer.connection.weight.normal_(drawn.mean, drawn.std, generator=generator)
        if initial.recurrent is not None and not last:
            layer.neuron.recurrent_weight.normal_(initial.recurrent.mean, initial.recurrent.std, generator=generator)
