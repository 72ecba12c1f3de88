"""Random synapses between torch layers: sums of randomly released spikes, drawn again in the backward pass.

Training draws are keyed by ``(seed, epoch, sample id)`` like dropout; in evaluation the epoch does not matter, so that
the frozen network draws the same numbers with the same seed. Nothing that was drawn is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from snnsim.errors import InputError
from snnsim.kernels import stochastic_product as kernels
from snnsim.kernels.lanes import run_ranges
from snnsim.kernels.philox import Stream, philox4x32
from snnsim.nn.context import Context
from snnsim.nn.cuda import on_cuda
from snnsim.nn.delays import DelayedLinear, Linear
from snnsim.nn.products import product
from snnsim.nn.reductions import add_bias

__all__ = ["Draws", "SynapseState", "drawn_product", "draws_of", "random_current", "scaled_current"]


@dataclass(frozen=True)
class Draws:
    """What a batch's random numbers depend on.

    Attributes:
        seed: Seed of the run; in training that of the epoch.
        samples: Ids of the samples, int64, shape (batch,).
    """

    seed: int
    samples: npt.NDArray[np.int64]


class SynapseState(NamedTuple):
    """State of a connection whose synapses release at random.

    Attributes:
        inner: State of the connection itself.
        step: Steps done.
        log_prob: Logarithm of the probability of the releases so far; only its gradient by the release probability
            counts, its value is 0. Float64, shape (batch,).
    """

    inner: Any
    step: int
    log_prob: Tensor


def draws_of(context: Context | None, batch: int, training: bool, what: str) -> Draws:
    """Return what the random numbers of a batch depend on.

    Args:
        context: Seed, epoch and sample ids.
        batch: Samples.
        training: Whether to draw anew in every epoch.
        what: Who draws, for messages.

    Raises:
        InputError: The context names no samples.
    """
    if context is None or context.sample_id is None:
        raise InputError(
            f"{what}: expected Context(sample_id=...), got none; random numbers belong to samples: pass the data-set "
            "index of every sample, or set mode='mean'"
        )
    samples = context.sample_id.cpu().numpy().astype(np.int64)
    if samples.shape != (batch,):
        raise InputError(f"{what}: expected sample ids of shape ({batch},), got {tuple(samples.shape)}")
    seed = context.seed & 0xFFFFFFFF
    if training:
        seed = philox4x32((context.epoch, 0, 0, 0), (seed, int(Stream.RUN_SEED)))[0]
    return Draws(seed, samples)


class _Drawn(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        release: Tensor,
        low: Tensor,
        span: Tensor,
        delays: Tensor,
        draws: Draws,
        number: int,
        first_step: int,
        score: bool,
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, weight, release, low, span, delays)
        ctx.key = (draws, number, first_step, score)
        packed, steps, law = _packed(weight, delays, (release, low, span))
        source = x.detach().contiguous().numpy()
        out = torch.empty(x.shape[0], x.shape[1], weight.shape[0], dtype=x.dtype)
        key = (draws.seed, number, draws.samples, first_step)
        arguments = (source, packed, steps, bool(steps.any()), *law, *key, out.numpy())
        run_ranges(kernels.drawn_forward, arguments, x.shape[1], torch.get_num_threads(), 1)
        return out, torch.zeros(x.shape[1], dtype=torch.float64)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:
        x, weight, release, low, span, delays = ctx.saved_tensors
        draws, number, first_step, score = ctx.key
        packed, steps, law = _packed(weight, delays, (release, low, span))
        source, upstream = x.detach().contiguous().numpy(), gradients[0].contiguous().numpy()
        dlog = gradients[1].contiguous().numpy()
        delayed = bool(steps.any())
        threads = torch.get_num_threads()
        key = (draws.seed, number, draws.samples, first_step)
        dx = dweight = None
        laws: list[Tensor | None] = [None, None, None]
        if any(ctx.needs_input_grad[1:5]):
            by_tap, by_law = np.empty_like(packed), np.empty((3, weight.shape[0]))
            arguments = (source, packed, steps, delayed, *law, *key, upstream, score, dlog, by_tap, by_law)
            run_ranges(kernels.drawn_weight_gradient, arguments, weight.shape[0], threads, kernels.TARGETS)
            dweight = torch.from_numpy(by_tap).permute(2, 1, 0).contiguous()
            laws = [torch.from_numpy(row.copy()) for row in by_law]
        if ctx.needs_input_grad[0] and not score:
            dx = torch.empty_like(x)
            if not delayed:
                gain = torch.from_numpy(law[0] * (law[1] + 0.5 * law[2])).to(weight.dtype)
                scaled = weight.detach().sum(dim=2) * gain[:, None]
                dx = product(gradients[0].flatten(0, 1), scaled).view(x.shape).clone()
            arguments = (source, packed, steps, delayed, *law, *key, upstream, dx.numpy())
            run_ranges(kernels.drawn_input_gradient, arguments, x.shape[1], threads, 1)
        return dx, dweight, *laws, None, None, None, None, None


def _packed(
    weight: Tensor, delays: Tensor, law: tuple[Tensor, Tensor, Tensor]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int32], list[npt.NDArray[np.float64]]]:
    """Return weights and delays, shape (taps, n_in, n_out), and the law by target, as the kernels want them."""
    packed = np.ascontiguousarray(weight.detach().numpy().transpose(2, 1, 0))
    steps = np.ascontiguousarray(delays.numpy().transpose(2, 1, 0).astype(np.int32))
    n_out = weight.shape[0]
    rows = [np.ascontiguousarray(item.detach().double().expand(n_out).numpy()) for item in law]
    return packed, steps, rows


def drawn_product(
    x: Tensor,
    weight: Tensor,
    law: tuple[Tensor, Tensor, Tensor],
    delays: Tensor,
    draws: Draws,
    *,
    number: int = 0,
    first_step: int = 0,
    score: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return sums of delayed, weighted, randomly released spikes, differentiable in all but the delays.

    ``y[t, j] = sum phi (c w) q`` over sources and taps, ``phi ~ Bernoulli(release)``, ``q = low + span u``. Gradients
    of weights, ``low`` and ``span`` are those of the sum as it was drawn; that of ``x`` too where x is not zero, with
    the mean ``release E[q]`` where it is and nothing was drawn. The gradient of ``release`` is that of the mean,
    ``sum c w E[q]``, which is biased where what follows is not linear, and that of ``log_prob``; with ``score`` only
    the latter, unbiased for ``loss * log_prob``, and x has no gradient.

    Args:
        x: Counts, shape (time, batch, n_in), on the CPU.
        weight: Shape (n_out, n_in, taps), same type.
        law: Release, low and span, float64, shape (n_out,) each.
        delays: Steps, int64, shape (n_out, n_in, taps).
        draws: Seed and samples.
        number: Place of the first tap's projection in the network.
        first_step: Number of the first step of x.
        score: Leave the gradient of the mean out.

    Returns:
        Sums (time, batch, n_out), and ``log_prob``, zeros of shape (batch,) that carry its gradient.
    """
    y, log_prob = _Drawn.apply(x, weight, *law, delays, draws, number, first_step, score)  # type: ignore[no-untyped-call]
    return y, log_prob


def random_current(
    connection: Linear | DelayedLinear,
    x: Tensor,
    state: SynapseState | None,
    law: tuple[Tensor, Tensor, Tensor],
    draws: Draws,
    *,
    number: int,
    score: bool,
) -> tuple[Tensor, SynapseState]:
    """Return what a connection gives with random synapses, (time, batch, n_out), and its state.

    Raises:
        InputError: The connection has delays that are still being learned, or is not on the CPU.
    """
    if x.dim() != 3 or x.shape[2] != connection.n_in:
        raise InputError(
            f"random synapses: expected input (time, batch, {connection.n_in}), got shape {tuple(x.shape)}"
        )
    if x.device.type != "cpu" or on_cuda(x):
        raise InputError(f"random synapses: expected tensors on the CPU, got {x.device}; use mode='mean' elsewhere")
    inner, step, before = (None, 0, None) if state is None else state
    weight = connection.existing_weight()
    history = 0
    if isinstance(connection, DelayedLinear):
        if torch.is_grad_enabled() and connection.position.requires_grad and not connection.delays_fixed:
            raise InputError(
                "random synapses: the positions of learned delays have no gradient here; use connection.learn_delay = "
                "false, a connection of kind 'linear', or mode = 'mean'"
            )
        history = connection.n_delays - 1
        delays = connection.delay_steps()
    else:
        weight = weight.unsqueeze(2)
        delays = connection.delay_steps()
    padded = x if inner is None else torch.cat([inner.to(x.dtype), x])
    past = padded.shape[0] - x.shape[0]
    y, log_prob = drawn_product(
        *(padded, weight.to(x.dtype), law, delays, draws), number=number, first_step=step - past, score=score
    )
    end = None
    if history:
        whole = padded
        if padded.shape[0] < history:
            whole = torch.cat([padded.new_zeros(history - padded.shape[0], *padded.shape[1:]), padded])
        end = whole[whole.shape[0] - history :].detach().clone()
    y = y[past:]
    y = y if connection.bias is None else add_bias(y, connection.bias)
    return y, SynapseState(end, step + x.shape[0], log_prob if before is None else before + log_prob)


class _Scale(torch.autograd.Function):
    """Weights times a factor a target; the sum of the factor's gradient is NumPy's, the same bits for any threads.

    On a device it is torch's, which has a fixed order there.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, gain: Tensor) -> Tensor:
        ctx.save_for_backward(weight, gain)
        return weight * gain.to(weight.dtype).view(-1, *[1] * (weight.dim() - 1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:
        weight, gain = ctx.saved_tensors
        (upstream,) = gradients
        dweight = upstream * gain.to(weight.dtype).view(-1, *[1] * (weight.dim() - 1))
        products = (upstream.detach().double() * weight.detach().double()).flatten(1)
        if products.is_cuda:
            return dweight, products.sum(dim=1).to(gain.dtype)
        return dweight, torch.from_numpy(products.numpy().sum(axis=1)).to(gain.dtype)


def scaled_current(
    connection: nn.Module, x: Tensor, state: Any, context: Context | None, gain: Tensor
) -> tuple[Tensor, Any]:
    """Return what a connection gives with every weight times the mean of a release, and its state.

    Args:
        connection: Linear or DelayedLinear; its bias is not multiplied.
        x: Input, (time, batch, n_in).
        state: Its state.
        context: Passed on.
        gain: Mean of a release by target, shape (n_out,).
    """
    weight: Tensor = connection.weight  # type: ignore[assignment]
    scaled = _Scale.apply(weight, gain)  # type: ignore[no-untyped-call]
    out: tuple[Tensor, Any] = torch.func.functional_call(connection, {"weight": scaled}, (x, state, context))
    return out
