"""Connections: :class:`Linear` without delays and :class:`DelayedLinear` with learnable ones (DCLS).

A delay is learned as in "Dilated Convolution with Learnable Spacings" (Khalfaoui-Hassani et al. 2023) and
"Learning Delays in Spiking Neural Networks using DCLS" (Hammouamri et al. 2024): every tap of a synapse has
a weight and a position ``p``; its delay is ``n_delays // 2 - p`` steps. In training a tap is spread over
the delay slots by an interpolation kernel of width sigma, so that ``p`` has a gradient; in evaluation
delays are rounded and the kernel is an exact delta. The rounding happens on the way and never touches the
parameters.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from snnsim.errors import InputError
from snnsim.kernels.delay_profile import kernel_backward, kernel_forward
from snnsim.kernels.delays import delayed_sum, pack_taps
from snnsim.kernels.reference_delays import VERSIONS
from snnsim.nn.context import Context
from snnsim.nn.cuda import on_cuda, on_host
from snnsim.nn.cuda_delays import device_delayed_sum
from snnsim.nn.cuda_profile import device_delay_kernel
from snnsim.nn.cuda_spikes import spike_value
from snnsim.nn.frequency import frequency_delay
from snnsim.nn.masks import MaskedWeights
from snnsim.nn.products import event_row_product, row_product
from snnsim.nn.reductions import add_bias
from snnsim.nn.sparse import sparse_row_product
from snnsim.nn.sparse_delays import sparse_delay, sparse_delay_kernel

__all__ = ["DelayFormulation", "DelayedLinear", "Formulation", "Linear", "delay_kernel"]

Version = Literal["v0", "v1", "max", "gauss"]
Per = Literal["synapse", "axon", "dendrite"]
Formulation = Literal["dense", "events", "sparse"]
"""How a product with the input is computed: all of it, only the input's entries that are not zero, or only the synapses
that a mask has left."""
DelayFormulation = Literal["frequency", "sparse"]
"""How a layer with delays trains: in the frequency domain, with all synapses or those that a mask has left."""


class _DelayKernel(torch.autograd.Function):
    """Dense kernel by delay slot from weights, positions and sigma, with closed-form gradients."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, position: Tensor, sigma: Tensor, version: str, n_delays: int) -> Tensor:
        ctx.save_for_backward(weight, position, sigma)
        ctx.version = version
        rows = _rows(weight), _rows(position.expand_as(weight))
        kernel = kernel_forward(*rows, float(sigma), version, n_delays, torch.get_num_threads())
        return torch.from_numpy(kernel).view(n_delays, weight.shape[0], weight.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight, position, sigma = ctx.saved_tensors
        dkernel = gradients[0].contiguous().view(gradients[0].shape[0], -1).numpy()
        dweight, dposition, dsigma = kernel_backward(
            *(_rows(weight), _rows(position.expand_as(weight)), float(sigma), ctx.version, dkernel),
            torch.get_num_threads(),
        )
        by_position = dposition.reshape(weight.shape)
        for axis in (0, 1):
            if position.shape[axis] == 1:  # NumPy's sum: one thread, so that the bits do not depend on their number
                by_position = by_position.sum(axis=axis, keepdims=True)
        by_weight = torch.from_numpy(dweight).view(weight.shape)
        return by_weight, torch.from_numpy(by_position), sigma.new_tensor(dsigma), None, None


def _rows(tensor: Tensor) -> npt.NDArray[np.floating]:
    rows: npt.NDArray[np.floating] = tensor.detach().reshape(-1, tensor.shape[2]).contiguous().numpy()
    return rows


def delay_kernel(weight: Tensor, position: Tensor, sigma: Tensor, version: Version, n_delays: int) -> Tensor:
    """Return the dense kernel of a delay layer, differentiable in weight, position and sigma.

    ``kernel[d, j, i] = sum_c weight[j, i, c] share[d, j, i, c]``; the shares are defined by
    :func:`snnsim.kernels.reference_delays.delay_profile`.

    Args:
        weight: Shape (n_out, n_in, taps).
        position: Shape (n_out | 1, n_in | 1, taps), in steps, 0 is the middle delay.
        sigma: Stored width SIG, shape ().
        version: Interpolation kernel.
        n_delays: Number of delay slots.

    Returns:
        Shape (n_delays, n_out, n_in); slot d is the delay of d steps.
    """
    if on_cuda(weight):
        return device_delay_kernel(weight, position, sigma, version, n_delays)
    kernel: Tensor = _DelayKernel.apply(weight, position, sigma, version, n_delays)  # type: ignore[no-untyped-call]
    return kernel


class Linear(MaskedWeights):
    """Connection without delay: ``y[t] = x[t] W^T + b``; one matrix product over all time steps.

    ``set_mask`` says which synapses exist (:mod:`snnsim.nn.masks`).

    Args:
        n_in: Number of sources.
        n_out: Number of targets.
        bias: Whether a drive per target is learned.
        generator: torch generator for the initial weights (Kaiming uniform for ReLU).
    """

    def __init__(self, n_in: int, n_out: int, *, bias: bool = False, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.n_in, self.n_out = _checked_sizes(n_in, n_out)
        self.weight = nn.Parameter(_kaiming_uniform((n_out, n_in), n_in, generator))
        self.bias = nn.Parameter(torch.zeros(n_out)) if bias else None
        self.formulation: Formulation = "dense"
        self._add_mask()

    @torch.no_grad()
    def clamp_(self) -> None:
        """Keep missing synapses at 0; to be called after every optimiser step."""
        self.enforce_mask_()

    def check_input(self, x: Tensor) -> None:
        """Refuse input of another shape or precision."""
        _check_input(self, x, self.n_in)

    def computes_sparse(self, x: Tensor) -> bool:
        """Return whether training goes along the synapses of the mask."""
        return self.formulation == "sparse" and on_host(x) and not self._revealed

    def forward(self, x: Tensor, state: None = None, context: Context | None = None) -> tuple[Tensor, None]:
        """Map (time, batch, n_in) to (time, batch, n_out); there is no state."""
        _check_input(self, x, self.n_in)
        if not torch.is_grad_enabled() and not self.training:
            y = self._exact(x)
        else:
            rows, weight = x.flatten(0, 1), self.weight
            if self.computes_sparse(x):
                y = sparse_row_product(rows, weight, self.order)
            elif self.formulation == "events" and on_host(x):
                y = event_row_product(rows, self.existing_weight())
            else:
                y = row_product(rows, self.existing_weight(), spike_value(x))
            y = y.view(x.shape[0], x.shape[1], self.n_out)
        return (y if self.bias is None else add_bias(y, self.bias)), None

    def _exact(self, x: Tensor) -> Tensor:
        """Sum in the canonical order of sources, so that bits do not depend on the batch."""
        weight = self.existing_weight().detach().to(x.dtype).unsqueeze(2)
        if on_cuda(x):
            return device_delayed_sum(x, weight)
        return _delayed_sum(x, weight, torch.zeros(weight.shape, dtype=torch.int64))

    def delay_steps(self) -> Tensor:
        """Return zeros, int64, shape (n_out, n_in, 1)."""
        return torch.zeros(self.n_out, self.n_in, 1, dtype=torch.int64, device=self.weight.device)

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"{self.n_in} -> {self.n_out}, bias={self.bias is not None}"


class DelayedLinear(MaskedWeights):
    """Connection whose synapses have learnable delays of 0 .. max_delay_steps steps (DCLS).

    Args:
        n_in: Number of sources.
        n_out: Number of targets.
        max_delay_steps: Longest delay; the papers' dilated kernel size is ``max_delay_steps + 1``.
        taps: Taps (delayed weights) a synapse, the papers' kernel count.
        version: Interpolation kernel in training: "v0", "v1", "max" or "gauss".
        per: One delay per "synapse", per source ("axon") or per target ("dendrite").
        learn_delay: False keeps the initial delays, rounded (fixed random delays).
        sigma: Initial stored width SIG; default ``n_delays // 2``. The Gaussian's true width is SIG + 0.27.
        init: "uniform": positions from U(-(L // 2) - 1, L // 2) with Python's floor of -L / 2 as in the
            published code, then clamped; "normal": N(0, 0.5) clamped, the DCLS library's
            default; "zero": no delay.
        bias: Whether a drive per target is learned.
        generator: torch generator for the initial values.

    Attributes:
        weight: Parameter, shape (n_out, n_in, taps).
        position: Parameter, shape (n_out | 1, n_in | 1, taps); delay = n_delays // 2 - position.
        sigma: Buffer, shape (): the schedule sets it; it has no gradient.
        delays_fixed: Whether :meth:`fix_delays` was called.

    In training the layer works in the frequency domain (:mod:`snnsim.nn.frequency`), with few synapses along these
    (:mod:`snnsim.nn.sparse_delays`, ``formulation``); evaluation without
    gradient runs in the time domain over spikes only, in the canonical order of summation.
    """

    sigma: Tensor

    def __init__(
        self,
        n_in: int,
        n_out: int,
        *,
        max_delay_steps: int,
        taps: int = 1,
        version: Version = "gauss",
        per: Per = "synapse",
        learn_delay: bool = True,
        sigma: float | None = None,
        init: Literal["uniform", "normal", "zero"] = "uniform",
        bias: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self._add_mask()
        self.n_in, self.n_out = _checked_sizes(n_in, n_out)
        if max_delay_steps < 1:
            raise InputError(f"max_delay_steps: expected at least 1, got {max_delay_steps}; use Linear without delays")
        if taps < 1:
            raise InputError(f"taps: expected at least 1, got {taps}")
        if version not in VERSIONS:
            raise InputError(f"version: expected one of {', '.join(VERSIONS)}, got {version!r}")
        if per not in ("synapse", "axon", "dendrite"):
            raise InputError(f"per: expected 'synapse', 'axon' or 'dendrite', got {per!r}")
        if init not in ("uniform", "normal", "zero"):
            raise InputError(f"init: expected 'uniform', 'normal' or 'zero', got {init!r}")
        self.n_delays = max_delay_steps + 1
        self.taps, self.version, self.per, self.learn_delay = taps, version, per, learn_delay
        self.delays_fixed = False
        self.formulation: DelayFormulation = "frequency"
        rows = 1 if per == "axon" else n_out
        columns = 1 if per == "dendrite" else n_in
        self.weight = nn.Parameter(_kaiming_uniform((n_out, n_in, taps), n_in * taps, generator))
        position = torch.empty(rows, columns, taps)
        if init == "uniform":
            position.uniform_(float(-self.n_delays // 2), float(self.n_delays // 2), generator=generator)
        elif init == "normal":
            position.normal_(0.0, 0.5, generator=generator)
        else:
            position.fill_(self.n_delays // 2)
        self.position = nn.Parameter(position, requires_grad=learn_delay)
        self.clamp_()
        if not learn_delay:
            with torch.no_grad():
                self.position.round_()
        self.register_buffer("sigma", torch.tensor(float(self.n_delays // 2 if sigma is None else sigma)))
        self.bias = nn.Parameter(torch.zeros(n_out)) if bias else None

    @property
    def position_limits(self) -> tuple[int, int]:
        """Return the lowest and highest position: the longest and the shortest delay."""
        high = self.n_delays // 2
        return high - (self.n_delays - 1), high

    @torch.no_grad()
    def clamp_(self) -> None:
        """Bring positions back into range, missing synapses back to 0; to be called after every optimiser step."""
        self.position.clamp_(*self.position_limits)
        self.enforce_mask_()

    @torch.no_grad()
    def fix_delays(self) -> None:
        """Round the positions and leave them so: from now on training runs with the delays of evaluation."""
        self.position.round_()
        self.position.requires_grad_(False)
        self.delays_fixed = True

    @torch.no_grad()
    def delay_steps(self) -> Tensor:
        """Return the delays of evaluation: rounded (ties to even), int64, shape (n_out, n_in, taps)."""
        low, high = self.position_limits
        steps = (self.n_delays // 2 - self.position.round().clamp(low, high)).to(torch.int64)
        return steps.expand(self.n_out, self.n_in, self.taps)

    def dense_kernel(self) -> Tensor:
        """Return the training kernel, shape (n_delays, n_out, n_in), with its graph."""
        if self.delays_fixed or not self.learn_delay:
            return self._delta_kernel()
        return delay_kernel(self.existing_weight(), self.position, self.sigma, self.version, self.n_delays)

    def computes_sparse(self, x: Tensor) -> bool:
        """Return whether training goes along the synapses of the mask."""
        if self.formulation != "sparse" or not on_host(x) or self._revealed or not x.shape[0]:
            return False
        return self.order.n_synapses > 0

    def _sparse_kernel(self) -> Tensor:
        fixed = self.delays_fixed or not self.learn_delay
        return sparse_delay_kernel(
            *(self.weight, self.position, self.sigma, self.mask, self.order, self.version, self.n_delays),
            self.delay_steps() if fixed else None,
        )

    def _delta_kernel(self) -> Tensor:
        weight = self.existing_weight()
        kernel = weight.new_zeros(self.n_delays, self.n_out, self.n_in)
        index = self.delay_steps().permute(2, 0, 1)
        for tap in range(self.taps):
            kernel = kernel.scatter_add(0, index[tap : tap + 1], weight[:, :, tap].unsqueeze(0))
        return kernel

    def forward(self, x: Tensor, state: Tensor | None = None, context: Context | None = None) -> tuple[Tensor, Tensor]:
        """Delay and sum spikes.

        Args:
            x: Spikes or counts, shape (time, batch, n_in).
            state: The last ``n_delays - 1`` steps of input, (n_delays - 1, batch, n_in); None: silence.
            context: Unused here; every layer takes it.

        Returns:
            Currents (time, batch, n_out), and the state that continues the stream.
        """
        _check_input(self, x, self.n_in)
        history = self.n_delays - 1
        padded = x if state is None else torch.cat([state.to(x.dtype), x])
        if self.training and self.computes_sparse(padded):
            y = sparse_delay(padded, self._sparse_kernel(), self.order)
        elif self.training:
            y = frequency_delay(padded, self.dense_kernel())
        elif torch.is_grad_enabled() and (self.weight.requires_grad or padded.requires_grad):
            y = _delta_convolution(padded, self._delta_kernel())
        elif on_cuda(x):
            weight = self.existing_weight().detach().to(x.dtype)
            y = device_delayed_sum(padded, weight, self.delay_steps(), self.n_delays - 1)
        else:
            y = _delayed_sum(padded, self.existing_weight().detach().to(x.dtype), self.delay_steps())
        y = y[padded.shape[0] - x.shape[0] :]
        if padded.shape[0] < history:
            silence = padded.new_zeros(history - padded.shape[0], *padded.shape[1:])
            padded = torch.cat([silence, padded])
        end = padded[padded.shape[0] - history :].detach().clone()  # a view would keep all steps alive
        return (y if self.bias is None else add_bias(y, self.bias)), end

    def extra_repr(self) -> str:
        """Return the sizes and the kind of delay."""
        return (
            f"{self.n_in} -> {self.n_out}, delays 0..{self.n_delays - 1} per {self.per}, taps={self.taps}, "
            f"version={self.version}, learn_delay={self.learn_delay}"
        )


def _checked_sizes(n_in: int, n_out: int) -> tuple[int, int]:
    if n_in < 1 or n_out < 1:
        raise InputError(f"connection: expected at least one source and one target, got {n_in} -> {n_out}")
    return n_in, n_out


def _check_input(layer: Linear | DelayedLinear, x: Tensor, n_in: int) -> None:
    if x.dim() != 3 or x.shape[2] != n_in:
        raise InputError(
            f"{type(layer).__name__}: expected input (time, batch, {n_in}), got shape {tuple(x.shape)}; "
            "does the data set have the channel count the model was built for?"
        )
    _check_dtype(layer, x)


def _check_dtype(layer: Linear | DelayedLinear, x: Tensor) -> None:
    if x.dtype not in (torch.float32, torch.float64):
        raise InputError(f"{type(layer).__name__}: expected input of float32 or float64, got {x.dtype}; convert it")


def _kaiming_uniform(shape: tuple[int, ...], fan_in: int, generator: torch.Generator | None) -> Tensor:
    """Uniform in +-sqrt(6 / fan_in): He et al. 2015 for ReLU, as the delay paper initialises its weights."""
    bound = math.sqrt(6.0 / fan_in)
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


def _delayed_sum(x: Tensor, weight: Tensor, delay_steps: Tensor) -> Tensor:
    packed, steps = pack_taps(weight.numpy(), delay_steps.numpy())
    threads = torch.get_num_threads()
    return torch.from_numpy(delayed_sum(x.detach().contiguous().numpy(), packed, steps, threads))


def _delta_convolution(x: Tensor, kernel: Tensor) -> Tensor:
    """Time-domain convolution that keeps the graph; dense, for gradients in evaluation mode."""
    n_delays = kernel.shape[0]
    padded = nn.functional.pad(x.permute(1, 2, 0), (n_delays - 1, 0))
    y = nn.functional.conv1d(padded, kernel.flip(0).permute(1, 2, 0))
    return y.permute(2, 0, 1)
