"""What all trainable models share: their output, their forward pass over stretches of time, groups of parameters."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from snnsim.errors import InputError
from snnsim.nn.context import Context
from snnsim.nn.delays import DelayedLinear
from snnsim.nn.precision import Precision, product_dtype, products
from snnsim.nn.recurrent import Recurrent

if TYPE_CHECKING:
    from snnsim.nn.model import ReadoutBlock

__all__ = ["Output", "State", "TrainedModel"]

State = tuple[Any, ...]


@dataclass
class Output:
    """What a model returns for one batch.

    Attributes:
        logits: Scores, shape (batch, class).
        trace: Potentials of the readout, shape (time, batch, class).
        rates: Mean spikes a valid neuron-step of each block, detached, float64, shape (blocks,).
        spikes: Spikes of each block before dropout, (time, batch, unit); empty unless recorded.
        state: What continues the stream.
    """

    logits: Tensor
    trace: Tensor
    rates: Tensor
    spikes: list[Tensor]
    state: State


class TrainedModel(nn.Module):
    """A model that training and evaluation know: hidden layers of spiking neurons and a readout.

    Attributes:
        readout: Output layer.
        dt: Time step, seconds.
        tail_steps: Empty steps that batches append to every sample.
    """

    readout: ReadoutBlock
    dt: float
    tail_steps: int

    @property
    @abstractmethod
    def n_inputs(self) -> int:
        """Return the number of input channels."""

    @property
    def n_classes(self) -> int:
        """Return the number of classes."""
        return int(self.readout.connection.n_out)

    @abstractmethod
    def hidden_sizes(self) -> list[int]:
        """Return the neurons of every hidden layer, in the order of :attr:`Output.rates`."""

    @abstractmethod
    def stretches_depend(self) -> str | None:
        """Return what lets stretches of time depend on each other besides the state, or None."""

    @abstractmethod
    def run_stretch(
        self, x: Tensor, state: State | None, context: Context | None, record: bool
    ) -> tuple[Tensor, Tensor, list[Tensor], State]:
        """Do what :meth:`forward` does, without scores, so that a stretch may be as short as one step.

        Returns:
            The trace, (time, batch, class); the spikes of every hidden layer in valid steps, float64, (layers,); the
            recorded spikes; the state.
        """

    def delay_layers(self) -> list[DelayedLinear]:
        """Return the connections with delays, in order."""
        return []

    def forward(
        self,
        x: Tensor,
        state: State | None = None,
        context: Context | None = None,
        *,
        record: bool = False,
        checkpoint_steps: int | None = None,
    ) -> Output:
        """Run all layers over all steps of ``x``, shape (time, batch, n_inputs).

        Args:
            x: Counts a step.
            state: State of the stream, or None for silence before step 0.
            context: Mask of valid steps and keys of dropout.
            record: Keep the spikes of every block in :attr:`Output.spikes`.
            checkpoint_steps: In training, keep only the states between stretches of this many steps and run a
                stretch again when its gradient is due: the same gradients within rounding, least memory at about the
                root of the number of steps. For models without delays and batch norm.
        """
        if checkpoint_steps is not None and self.training and torch.is_grad_enabled():
            return self._forward_in_stretches(x, state, context, checkpoint_steps, record)
        trace, counts, recorded, new = self.run_stretch(x, state, context, record)
        return Output(self.readout.scores(trace, context), trace, self._rates(counts, x, context), recorded, new)

    def _rates(self, counts: Tensor, x: Tensor, context: Context | None) -> Tensor:
        mask = None if context is None else context.mask
        if x.is_cuda:  # without a number that the host knows: nobody waits, and a graph of the device can hold it
            whole = x.new_full((), x.shape[0] * x.shape[1], dtype=torch.int64)
            pairs = whole if mask is None else mask.sum()
            parts = zip(counts, self.hidden_sizes(), strict=True)
            shares = [count / (pairs * size).clamp(min=1) for count, size in parts]
            return torch.stack(shares) if shares else counts.float()
        steps = x.shape[0] * x.shape[1] if mask is None else int(mask.sum())
        sizes = torch.tensor([max(1, steps * size) for size in self.hidden_sizes()])
        return counts / sizes if counts.numel() else counts.float()

    def _forward_in_stretches(
        self, x: Tensor, state: State | None, context: Context | None, steps: int, record: bool
    ) -> Output:
        """Run stretch after stretch; a stretch keeps its first state only and is run again in the backward pass."""
        if steps < 1:
            raise InputError(f"checkpoint_steps: expected at least 1, got {steps}")
        if record:
            raise InputError("checkpoint_steps: recorded spikes of all steps would keep what checkpoints save")
        if self.stretches_depend() is not None:
            raise InputError(
                "checkpoint_steps: expected layers without delays and without batch norm, whose stretches are "
                "independent but for the state; train this model without it"
            )
        precision: Precision = "float32" if product_dtype() is None else "bf16"

        def run(*arguments: Any) -> Any:
            with products(precision):  # the backward pass of a device runs in a thread of its own
                return self.run_stretch(*arguments)

        traces, total = [], torch.zeros(len(self.hidden_sizes()), dtype=torch.float64, device=x.device)
        for start in range(0, max(1, x.shape[0]), steps):
            part = context
            if context is not None and context.mask is not None:
                part = replace(context, mask=context.mask[start : start + steps])
            trace, counts, _, state = checkpoint(
                run,
                x[start : start + steps],
                state,
                part,
                False,
                use_reentrant=False,
                preserve_rng_state=False,
            )
            traces.append(trace)
            total = total + counts.detach()
        trace = torch.cat(traces)
        rates = self._rates(total, x, context)
        return Output(self.readout.scores(trace, context), trace, rates, [], cast(State, state))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the trained parameters by role.

        ``weights``: synaptic weights; ``norm``: batch norm, biases and gains; ``positions``: delay positions;
        ``neuron``: time constants, thresholds and other learned neuron parameters.
        """
        groups: dict[str, list[nn.Parameter]] = {"weights": [], "norm": [], "positions": [], "neuron": []}
        for name, parameter in self.named_parameters():
            if not parameter.requires_grad:
                continue
            leaf = name.rsplit(".", 1)[-1]
            if leaf == "position":
                group = "positions"
            elif ".norm." in name or leaf in ("bias", "gain", "skip_gain"):
                group = "norm"
            elif leaf in ("weight", "recurrent_weight", "exc_weight", "inh_weight"):
                group = "weights"
            else:
                group = "neuron"
            groups[group].append(parameter)
        return groups

    def clamp_(self) -> None:
        """Bring delay positions and neuron parameters back into range; call after every optimiser step."""
        for module in self.modules():
            clamp: Any = getattr(module, "clamp_", None)
            if module is not self and clamp is not None:
                clamp()

    def set_sigma(self, sigma: float) -> None:
        """Set the stored width SIG of every connection with learned delays, recurrent ones too (steps)."""
        for name, buffer in self.named_buffers():
            if name.endswith(".sigma"):
                buffer.fill_(sigma)

    def fix_delays(self) -> None:
        """Round every learned delay and leave it so; the weights go on learning with the delays of evaluation."""
        for module in self.modules():
            if isinstance(module, (DelayedLinear, Recurrent)):
                module.fix_delays()

    def mean_delay(self) -> float:
        """Return the mean delay over all taps of the feed-forward delay layers, in seconds (0 without any)."""
        total, count = 0.0, 0
        for layer in self.delay_layers():
            total += float((layer.n_delays // 2 - layer.position.detach().double()).mean()) * layer.weight.numel()
            count += layer.weight.numel()
        return total / count * self.dt if count else 0.0
