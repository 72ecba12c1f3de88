"""Recurrent connections inside a layer, with whole-step delays of at least one step.

A spike of unit i at step t adds ``recurrent_weight[j, i]`` to the input of unit j at step
``t + delay_steps[j, i]``. Within the shortest delay no neuron can affect another, so that many steps run as
one stretch: one matrix product and one call of the fused neuron kernel.

Learned delays follow DelRec (Queant et al. 2025) with the interpolation of DCLS: in training a synapse is spread
over the delay slots 1 .. ``max_delay_steps`` by a kernel of width sigma; in evaluation delays are rounded.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from snnsim.errors import InputError
from snnsim.kernels import dynamics
from snnsim.nn.context import Context
from snnsim.nn.cuda import asked_once, on_cuda
from snnsim.nn.delays import Formulation, Version, delay_kernel
from snnsim.nn.fused_recurrent import recurrent_spikes
from snnsim.nn.masks import MaskedWeights
from snnsim.nn.neurons import IF, LIF, AdaptiveLIF, CubaLIF
from snnsim.nn.neurons_meta_dynamic import MetaDynamicNeuron
from snnsim.nn.precision import product_dtype
from snnsim.nn.products import row_product

__all__ = ["Recurrent", "RecurrentState"]


class RecurrentState(NamedTuple):
    """State of a recurrent layer after a step.

    Attributes:
        neuron: State of the neurons.
        history: Spikes of the last ``max(delay_steps)`` steps, oldest first, (steps, batch, unit).
    """

    neuron: Any
    history: Tensor


class Recurrent(MaskedWeights):
    """Spiking neurons with recurrent connections among them.

    Args:
        neuron: LIF, CubaLIF, AdaptiveLIF or MetaDynamicNeuron.
        weight: Initial weights ``[target, source]``, shape (unit, unit); default uniform in
            ``+-1 / sqrt(unit)``.
        delay_steps: Delay in steps, at least 1: one number or one a synapse, shape (unit, unit).
        learn_delay: Learn one delay a synapse, starting at ``delay_steps``.
        max_delay_steps: Longest learned delay in steps; default the longest initial one.
        version: Interpolation kernel of learned delays in training, see :class:`~snnsim.nn.delays.DelayedLinear`.
        sigma: Initial stored width of that kernel; default half the number of delay slots.
        generator: torch generator for the default weights.

    Attributes:
        recurrent_weight: Parameter, shape (unit, unit).
        position: Parameter of learned delays, shape (unit, unit, 1): delay = 1 + n_delays // 2 - position.
        sigma: Buffer of learned delays, shape ().
        mask: Buffer, bool, shape (unit, unit): which recurrent synapses exist, see ``set_mask``; None: all.
        formulation: How gradients are computed in training with one common delay: "dense"; "events", that of the
            weights over spikes, where these are few; "sparse", along the synapses that a mask has left (see
            :mod:`snnsim.nn.formulation`).

    Raises:
        InputError: A shape or a delay is not acceptable.
    """

    sigma: Tensor
    fixed_delay: Tensor
    mask_of = "recurrent_weight"

    def __init__(
        self,
        neuron: nn.Module,
        weight: npt.ArrayLike | Tensor | None = None,
        *,
        delay_steps: int | npt.ArrayLike | Tensor = 1,
        learn_delay: bool = False,
        max_delay_steps: int | None = None,
        version: Version = "gauss",
        sigma: float | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self._add_mask()
        if not isinstance(neuron, (LIF, CubaLIF, AdaptiveLIF, MetaDynamicNeuron)):
            raise InputError(f"Recurrent: expected spiking neurons such as LIF, got {type(neuron).__name__}")
        self.neuron: Any = neuron
        size = self.size = neuron.size
        if weight is None:
            bound = size**-0.5
            values = torch.empty(size, size).uniform_(-bound, bound, generator=generator)
        else:
            values = torch.as_tensor(weight).detach().clone()
            values = values if values.is_floating_point() else values.to(torch.float32)
            if values.shape != (size, size):
                raise InputError(f"Recurrent: expected weights of shape ({size}, {size}), got {tuple(values.shape)}")
        self.recurrent_weight = nn.Parameter(values)
        given = np.asarray(delay_steps)
        if given.shape not in ((), (size, size)):
            raise InputError(f"Recurrent: expected one delay or a matrix ({size}, {size}), got shape {given.shape}")
        if not np.all(given == np.rint(given)) or np.any(given < 1):
            raise InputError("Recurrent: expected delays of whole steps, at least 1")
        steps = torch.from_numpy(given.astype(np.int64))
        self.formulation: Formulation = "dense"
        self.learn_delay = learn_delay
        self.delays_fixed = False
        self.version: Version = version
        if not learn_delay:
            if max_delay_steps is not None or sigma is not None:
                raise InputError("Recurrent: max_delay_steps and sigma belong to learn_delay=True")
            self.register_buffer("fixed_delay", steps)
            return
        self.n_delays = int(steps.max()) if max_delay_steps is None else int(max_delay_steps)
        if self.n_delays < 2 or int(steps.max()) > self.n_delays:
            raise InputError(
                f"Recurrent: expected max_delay_steps >= 2 and >= every initial delay, got {self.n_delays}"
            )
        start = (self.n_delays // 2 + 1 - steps).to(torch.float32).expand(size, size)
        self.position = nn.Parameter(start.unsqueeze(2).clone())
        self.register_buffer("sigma", torch.tensor(float(self.n_delays // 2 if sigma is None else sigma)))

    @property
    def weight(self) -> Tensor:
        """The recurrent weights ``[target, source]``."""
        return self.recurrent_weight

    @property
    def delay_steps(self) -> Tensor:
        """Delays of evaluation in steps, int64, shape () or (unit, unit)."""
        if not self.learn_delay:
            return self.fixed_delay
        low, high = self.position_limits
        rounded = self.position.detach().squeeze(2).round().clamp(low, high)
        return (high + 1 - rounded).to(torch.int64)

    @property
    def position_limits(self) -> tuple[int, int]:
        """Lowest and highest position of learned delays: delays ``n_delays`` and 1."""
        high = self.n_delays // 2
        return high - (self.n_delays - 1), high

    @torch.no_grad()
    def clamp_(self) -> None:
        """Bring learned positions back into range, missing synapses back to 0; call it after every optimiser step."""
        self.enforce_mask_()
        if self.learn_delay:
            self.position.clamp_(*self.position_limits)

    @torch.no_grad()
    def fix_delays(self) -> None:
        """Round learned positions and leave them so: from now on training runs with the delays of evaluation."""
        if self.learn_delay:
            self.position.round_()
            self.position.requires_grad_(False)
            self.delays_fixed = True

    def extra_repr(self) -> str:
        """Return what ``print(module)`` shows."""
        steps = self.delay_steps
        return f"delays {int(steps.min())}..{int(steps.max())} steps, learn_delay={self.learn_delay}"

    def _slots(self) -> tuple[list[int], Tensor]:
        """Return the delays in use, ascending, and their weights, shape (delays, source, target)."""
        if self.learn_delay and self.training and not self.delays_fixed:
            weight = self.existing_weight().unsqueeze(2)
            kernel = delay_kernel(weight, self.position, self.sigma, self.version, self.n_delays)
            return list(range(1, self.n_delays + 1)), kernel.transpose(1, 2)
        steps, weight = self.delay_steps, self.existing_weight()
        delays = self._delays_in_use()
        if steps.dim() == 0:
            return delays, weight.t().unsqueeze(0)
        chosen = torch.stack([steps.t() == delay for delay in delays])
        return delays, weight.t().unsqueeze(0) * chosen.to(weight.dtype)

    def _delays_in_use(self) -> list[int]:
        """Return the delays of evaluation, ascending; fixed ones of a device are asked for once."""
        if self.learn_delay:
            return [int(delay) for delay in torch.unique(self.delay_steps)]
        return asked_once(self, "_delays", self.fixed_delay, lambda steps: [int(d) for d in torch.unique(steps)])

    def _fits(self, current: Tensor) -> bool:
        """Return whether one kernel takes a layer of this size: on a device it holds one in a block of threads."""
        if not on_cuda(current):
            return True
        from snnsim.kernels.cuda_recurrent import MOST

        return self.size <= MOST[str(current.dtype).removeprefix("torch.")]

    def initial_state(self, batch: int, dtype: torch.dtype = torch.float32) -> RecurrentState:
        """Return the zero state for ``batch`` samples."""
        longest = self.n_delays if self.learn_delay else self._delays_in_use()[-1]
        device = self.recurrent_weight.device
        history = torch.zeros(longest, batch, self.size, dtype=dtype, device=device)
        return RecurrentState(self.neuron.initial_state(batch, dtype), history)

    def forward(
        self, current: Tensor, state: RecurrentState | None = None, context: Context | None = None
    ) -> tuple[Tensor, RecurrentState]:
        """Return spikes (time, batch, unit) and the state after the last step.

        Args:
            current: Input without recurrence, shape (time, batch, unit).
            state: State before the first step; None is the zero state.
            context: Not used.
        """
        fused = current.device.type == "cpu" or (self.neuron.cuda_kernel and on_cuda(current))
        return self._run(current, state, fused=fused, smooth=False)

    def reference_forward(
        self, current: Tensor, state: RecurrentState | None = None, *, smooth: bool = False
    ) -> tuple[Tensor, RecurrentState]:
        """Compute :meth:`forward` with the step-by-step neurons; ``smooth`` as in ``LIF.reference_forward``."""
        return self._run(current, state, fused=False, smooth=smooth)

    def _run(
        self, current: Tensor, state: RecurrentState | None, *, fused: bool, smooth: bool
    ) -> tuple[Tensor, RecurrentState]:
        self.neuron._check_input(current)
        whole = (self.training or current.dtype == torch.float32) and product_dtype() is None
        if fused and state is None and whole and self.has_kernel and self._fits(current):
            return self._run_in_one_kernel(current)
        dtype, neuron = current.dtype, self.neuron
        cells, history = self.initial_state(current.shape[1], dtype) if state is None else state
        delays, slots = self._slots()
        weights = slots.to(dtype).reshape(len(delays) * self.size, self.size).t()
        longest, shortest = history.shape[0], delays[0]
        prepared = neuron.prepare(dtype, None if state is None else cells)
        rows = list(history)
        # split, not slices: the gradient of a slice is as large as the whole input
        for stretch in torch.split(current, shortest) if current.shape[0] else ():
            n, at = stretch.shape[0], len(rows)
            past = [torch.stack(rows[at - delay : at - delay + n]) for delay in delays]
            sources = past[0] if len(past) == 1 else torch.cat(past, dim=2)
            total = stretch + row_product(sources.flatten(0, 1), weights).view_as(stretch)
            if fused:
                spikes, cells = neuron.advance(total, cells, prepared)
            else:
                spikes, cells = neuron.reference_forward(total, cells, smooth=smooth)
            rows.extend(spikes)
        spikes = torch.stack(rows[longest:]) if current.shape[0] else torch.zeros_like(current)
        return spikes, RecurrentState(cells, torch.stack(rows[len(rows) - longest :]))

    @property
    def has_kernel(self) -> bool:
        """Whether one call takes all steps in training: known neurons, one common delay, no refractory period."""
        return (
            type(self.neuron) in (LIF, IF, CubaLIF, AdaptiveLIF)
            and not self.learn_delay
            and self.delay_steps.dim() == 0
            and not self.neuron.waits
        )

    def _run_in_one_kernel(self, current: Tensor) -> tuple[Tensor, RecurrentState]:
        (delay,), neuron = self._delays_in_use(), self.neuron
        prepared, events = neuron.prepare(current.dtype), self.formulation == "events"
        order = self.order if self.formulation == "sparse" and not self._revealed else None
        weight = self.existing_weight()
        spikes, v, w = recurrent_spikes(
            current, weight, prepared.vectors, delay, neuron.dynamics, prepared.rule, events, order
        )
        cells, history = self.initial_state(current.shape[1], current.dtype)
        past = torch.cat([history, spikes[-delay:]])[-delay:]
        second = () if neuron.dynamics == dynamics.LIF else (w,)
        return spikes, RecurrentState(type(cells)(v, *second, cells.refractory), past)
