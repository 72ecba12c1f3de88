"""Trainable neurons that draw random numbers (torch): the MetaNeuron, and what all of them share.

The laws are those of :mod:`snnsim.neurons_stochastic`. A block asks its neurons for the sums of their random synapses
(:meth:`StochasticModule.synapses`) and hands them what comes of it. Two estimators of the gradient:

- ``"straight-through"``: a spike has the derivative ``p (1 - p) / temperature`` of its probability (the surrogate's at
  temperature 0), a release that of its mean. Low variance, biased.
- ``"score"``: nothing passes through spikes; the gradient of the mean loss is that of
  ``mean(loss + loss.detach() * log_prob)`` with :func:`log_prob` from the states that the model returns (Williams 1992,
  REINFORCE). Unbiased, high variance.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from snnsim import neurons as records
from snnsim.errors import InputError
from snnsim.kernels import neurons_stochastic as kernels
from snnsim.kernels.lanes import run_ranges
from snnsim.kernels.reference_stochastic import fires_reference
from snnsim.kernels.stochastic import FIRING, stream_of
from snnsim.kernels.surrogates import surrogate_numbers
from snnsim.neurons_stochastic import MODES, Mode
from snnsim.nn.context import Context
from snnsim.nn.cuda import on_cuda
from snnsim.nn.delays import DelayedLinear, Linear
from snnsim.nn.parameters import Heterogeneous, Values
from snnsim.nn.spiking import Prepared, SpikingModule
from snnsim.nn.stochastic_synapses import Draws, SynapseState, draws_of, random_current, scaled_current
from snnsim.nn.surrogates import ATan, Surrogate

__all__ = ["Estimator", "MetaNeuron", "StochasticModule", "StochasticState", "log_prob"]

Estimator = Literal["straight-through", "score"]
ESTIMATORS: tuple[Estimator, ...] = ("straight-through", "score")

NOBODY = Draws(0, np.zeros(0, np.int64))


class StochasticState(NamedTuple):
    """State of neurons that may draw, after a step.

    Attributes:
        v: Membrane after the reset, shape (batch, unit).
        refractory: Steps still to be skipped, int32, shape (batch, unit).
        step: Steps done.
        log_prob: Logarithm of the probability of what fired and what did not, float64, shape (batch,).
    """

    v: Tensor
    refractory: Tensor
    step: int
    log_prob: Tensor


@dataclass(frozen=True)
class _Run:
    """What a call of the kernels needs besides tensors."""

    wait_steps: Tensor
    reset_zero: bool
    detach: bool
    noisy: bool
    score: bool
    surrogate: Surrogate
    draws: Draws
    stream: int
    first_step: int


class _Neurons(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, current: Tensor, v: Tensor, wait: Tensor, run: _Run, *rows: Tensor) -> Any:
        numbers = torch.stack([row.detach() for row in rows]).contiguous()
        source, n_batch = current.detach().contiguous(), current.shape[1]
        v_end, wait_end = v.detach().clone(), wait.clone()
        spikes, h = torch.empty_like(source), torch.empty_like(source)
        free = torch.empty(source.shape, dtype=torch.uint8)
        log = torch.zeros(n_batch, dtype=torch.float64)
        samples = run.draws.samples if run.noisy else np.zeros(n_batch, np.int64)
        arguments = (
            *(source.numpy(), numbers.numpy(), run.wait_steps.numpy(), run.reset_zero, run.noisy, run.draws.seed),
            *(run.stream, samples, run.first_step, v_end.numpy(), wait_end.numpy(), spikes.numpy(), h.numpy()),
            *(free.numpy(), log.numpy()),
        )
        run_ranges(kernels.stochastic_forward, arguments, n_batch, torch.get_num_threads(), 1)
        ctx.save_for_backward(numbers, v.detach(), spikes, h, free)
        ctx.run = run
        ctx.mark_non_differentiable(wait_end)
        return spikes, v_end, wait_end, log

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:
        numbers, v_start, spikes, h, free = ctx.saved_tensors
        run: _Run = ctx.run
        dspikes, dv_end, _, dlog = gradients
        dtype = numpy_type(spikes)
        dv, dcurrent = dv_end.contiguous().clone(), torch.empty_like(spikes)
        rows = np.empty((len(kernels.ROWS), *dv.shape))
        code, coefficients = run.surrogate.code, surrogate_numbers(run.surrogate.code, run.surrogate.parameters, dtype)
        arguments = (
            *(dspikes.contiguous().numpy(), dlog.contiguous().numpy(), numbers.numpy(), v_start.contiguous().numpy()),
            *(spikes.numpy(), h.numpy(), free.numpy(), run.reset_zero, run.detach, run.noisy, run.score, code),
            *(coefficients, dv.numpy(), dcurrent.numpy(), rows),
        )
        run_ranges(kernels.stochastic_backward, arguments, spikes.shape[1], torch.get_num_threads(), 1)
        sums = torch.from_numpy(rows.sum(axis=1)).to(numbers.dtype)
        return dcurrent, dv, None, None, *sums.unbind()


def numpy_type(x: Tensor) -> Any:
    """Return the NumPy type of a tensor's numbers."""
    return np.float64 if x.dtype == torch.float64 else np.float32


class StochasticModule(SpikingModule[StochasticState]):
    """Abstract base of trainable neurons whose synapses or thresholds are random.

    Attributes:
        mode: ``"stochastic"`` draws; ``"mean"`` puts expectations in the place of releases and fires at the threshold.
            It may be set at any time.
        estimator: Which gradient; see the module.
        population: Place of these neurons among the populations of the frozen network; part of the key of firings.
        projection: Place of the first projection into them; part of the key of releases.
    """

    random_synapses = True
    estimator: Estimator
    population: int
    projection: int

    def _set_random(self, mode: str, estimator: str) -> None:
        if mode not in MODES:
            raise InputError(f"{self.label}: mode: expected one of {', '.join(MODES)}, got {mode!r}")
        if estimator not in ESTIMATORS:
            raise InputError(f"{self.label}: estimator: expected one of {', '.join(ESTIMATORS)}, got {estimator!r}")
        self._mode: Mode = "mean" if mode == "mean" else "stochastic"
        self.estimator = "score" if estimator == "score" else "straight-through"
        self.population = self.projection = 0

    @property
    def mode(self) -> Mode:
        """Whether random numbers are drawn, in training and in evaluation."""
        return self._mode

    @mode.setter
    def mode(self, value: str) -> None:
        if value not in MODES:
            raise InputError(f"{self.label}: mode: expected one of {', '.join(MODES)}, got {value!r}")
        self._mode = "mean" if value == "mean" else "stochastic"

    @abstractmethod
    def law(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return release, lowest amplitude and span, float64, shape (unit,) each; differentiable if learned."""

    @abstractmethod
    def certain(self) -> bool:
        """Return whether synapses always release, always alike, and nothing about that is learned."""

    @abstractmethod
    def _rows(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """Return the numbers of the fused kernel, shape (unit,) each, see :data:`kernels.ROWS`."""

    def synapses(
        self,
        connection: Linear | DelayedLinear,
        x: Tensor,
        state: SynapseState | None = None,
        context: Context | None = None,
    ) -> tuple[Tensor, Any]:
        """Return what arrives over a connection, (time, batch, unit), and the state that continues the stream.

        Args:
            connection: Connection into these neurons.
            x: Counts, shape (time, batch, n_in).
            state: State that an earlier call returned; None before step 0.
            context: Seed, epoch and sample ids; they are needed where something is drawn.
        """
        if self.certain():
            inner = None if state is None else state.inner
            y, end = connection(x, inner, context)
        elif self.mode == "mean":
            release, low, span = self.law()
            inner = None if state is None else state.inner
            y, end = scaled_current(connection, x, inner, context, release * (low + 0.5 * span))
        else:
            draws = draws_of(context, x.shape[1], self.training, self.label)
            score = self.estimator == "score"
            return random_current(connection, x, state, self.law(), draws, number=self.projection, score=score)
        step = 0 if state is None else state.step
        return y, SynapseState(end, step + x.shape[0], torch.zeros(x.shape[1], dtype=torch.float64))

    def initial_state(self, batch: int, dtype: torch.dtype = torch.float32) -> StochasticState:
        """Return the zero state for ``batch`` samples."""
        v = torch.zeros(batch, self.size, dtype=dtype, device=self.device)
        nothing = torch.zeros(batch, dtype=torch.float64, device=self.device)
        return StochasticState(v, torch.zeros_like(v, dtype=torch.int32), 0, nothing)

    @property
    def noisy(self) -> bool:
        """Whether firing itself is drawn."""
        return self.mode == "stochastic" and bool((self._rows(torch.float64)[5] > 0).any())

    def forward(
        self, current: Tensor, state: StochasticState | None = None, context: Context | None = None
    ) -> tuple[Tensor, StochasticState]:
        """Return spikes (time, batch, unit) and the state after the last step.

        Args:
            current: Arrivals, shape (time, batch, unit).
            state: State before the first step; None is the zero state.
            context: Seed, epoch and sample ids; they are needed where firing is drawn.
        """
        self._check_input(current)
        if current.device.type != "cpu" or on_cuda(current):
            raise InputError(
                f"{self.label}: expected tensors on the CPU, got {current.device}; random neurons have no kernel for "
                "devices"
            )
        start = self.initial_state(current.shape[1], current.dtype) if state is None else state
        rows = self._rows(current.dtype)
        run = self._run(current, start, context)
        spikes, v, wait, log = _Neurons.apply(current, start.v, start.refractory, run, *rows)  # type: ignore[no-untyped-call]
        return spikes, StochasticState(v, wait, start.step + current.shape[0], start.log_prob + log)

    def _run(self, current: Tensor, start: StochasticState, context: Context | None) -> _Run:
        noisy = self.noisy
        draws = draws_of(context, current.shape[1], self.training, self.label) if noisy else NOBODY
        return _Run(
            wait_steps=self.refractory_steps,
            reset_zero=self.reset == "zero",
            detach=self.detach_reset,
            noisy=noisy,
            score=self.estimator == "score" and self.mode == "stochastic",
            surrogate=self.surrogate,
            draws=draws,
            stream=stream_of(FIRING, self.population),
            first_step=start.step,
        )

    def advance(self, current: Tensor, state: StochasticState, prepared: Prepared) -> tuple[Tensor, StochasticState]:
        """Refuse: random neurons need a context, see :meth:`forward`."""
        raise InputError(f"{self.label}: runs by forward(current, state, context) only")

    def _dynamics(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        return (self._rows(dtype)[0],)

    def _steps(
        self, current: Tensor, state: StochasticState | None, smooth: bool, context: Context | None = None
    ) -> tuple[Tensor, Tensor, StochasticState]:
        self._check_input(current)
        start = self.initial_state(current.shape[1], current.dtype) if state is None else state
        run = self._run(current, start, context)
        beta, drive, theta, v_reset, amount, temperature = self._rows(current.dtype)
        v, wait, log = start.v, start.refractory, start.log_prob
        warm = temperature > 0
        safe = torch.where(warm, temperature, torch.ones_like(temperature))
        spikes, membrane = [], []
        for k, arrivals in enumerate(current):
            free = wait <= 0
            h = torch.where(free, (beta * v + drive) + arrivals, v)
            x = (h - theta) / safe
            p = torch.where(warm, torch.sigmoid(x), self.surrogate.primitive(h - theta))
            z = (h >= theta).to(h.dtype)
            if run.noisy:
                drawn = fires_reference(
                    *(h.detach().numpy(), theta.detach().numpy(), temperature.detach().numpy(), run.draws.seed),
                    *(self.population, run.draws.samples[:, None], start.step + k),
                )
                z = torch.from_numpy(drawn).to(h.dtype)
                chosen = torch.where(z > 0, x, -x)
                kept = torch.where(free & warm, torch.nn.functional.logsigmoid(chosen), torch.zeros_like(h))
                log = log + kept.double().sum(dim=1)
            fired = p if smooth else z if run.score else (p - p.detach()) + z
            fired = torch.where(free, fired, torch.zeros_like(fired))
            v = torch.where(free, self._reset(h, fired, v_reset, amount), h)
            wait = self._wait(wait, torch.zeros_like(fired) if smooth else fired.detach())
            spikes.append(fired)
            membrane.append(v)
        end = StochasticState(v, wait, start.step + current.shape[0], log)
        return self._stack(spikes, current), self._stack(membrane, current), end

    def reference_forward(
        self,
        current: Tensor,
        state: StochasticState | None = None,
        *,
        smooth: bool = False,
        context: Context | None = None,
    ) -> tuple[Tensor, StochasticState]:
        """Compute :meth:`forward` step by step in plain torch.

        Args:
            current: As in :meth:`forward`.
            state: As in :meth:`forward`.
            smooth: Put the probability of a spike (the primitive of the surrogate at temperature 0) in the place of
                the spike: its true gradient is what the straight-through estimator takes.
            context: As in :meth:`forward`.
        """
        spikes, _, end = self._steps(current, state, smooth, context)
        return spikes, end


class MetaNeuron(StochasticModule):
    """LIF neurons with random synapses and a soft threshold, whose internal numbers can be learned.

    The law is that of :class:`snnsim.neurons.MetaNeuron`, our reconstruction; with ``release = 1``, ``amplitude = 0``
    and ``temperature = 0`` they are :class:`~snnsim.nn.neurons.LIF`, bit for bit. Learned numbers start exactly at the
    given ones and cannot leave their range: ``tau_mem`` and ``temperature`` change by a factor, ``release`` and
    ``amplitude`` by their logit, ``v_threshold`` by its distance to the first ``v_reset``, ``v_reset`` by its distance
    below the threshold (it moves with the threshold), ``drive_step`` by a share, or by an amount where it starts at 0.

    Args:
        size: Number of neurons.
        dt: Step in seconds.
        tau_mem: Membrane time constant in seconds.
        beta: Decay per step; given directly it is authoritative.
        v_threshold: Threshold; with a temperature the membrane at which ``p = 1/2``.
        v_reset: Value after a ``zero`` reset.
        reset: ``"zero"`` or ``"subtract"``.
        reset_amount: Amount of a ``subtract`` reset; default ``v_threshold``.
        t_ref: Refractory period in seconds.
        release: Probability that a synapse releases, in (0, 1].
        amplitude: Spread of amplitudes around 1, in [0, 1].
        temperature: Softness of the threshold, 0 or more; above 0 it takes the place of the surrogate.
        drive_step: Added to the membrane every step.
        mode: ``"stochastic"`` or ``"mean"``, in training and in evaluation.
        estimator: ``"straight-through"`` or ``"score"``.
        surrogate: Stand-in for the derivative of the spike at temperature 0.
        detach_reset: Whether the reset passes no gradient to the spike.
        learn: Names among ``learnable``.
        heterogeneous: Draw the time constants by neuron, as in :class:`~snnsim.nn.neurons.LIF`.
        seed: Seed of these draws.

    Raises:
        InputError: A value is not acceptable; a number to be learned starts at the edge of its range.
    """

    kind = "MetaNeuron"
    learnable: ClassVar[tuple[str, ...]] = (
        *("tau_mem", "v_threshold", "v_reset"),
        *("release", "amplitude", "temperature", "drive_step"),
    )

    def __init__(
        self,
        size: int,
        *,
        dt: float,
        tau_mem: Values = 0.02,
        beta: Values | None = None,
        v_threshold: Values = 1.0,
        v_reset: Values = 0.0,
        reset: str = "zero",
        reset_amount: Values | None = None,
        t_ref: Values = 0.0,
        release: Values = 1.0,
        amplitude: Values = 0.0,
        temperature: Values = 0.0,
        drive_step: Values = 0.0,
        mode: str = "stochastic",
        estimator: str = "straight-through",
        surrogate: Surrogate = ATan(5.0),  # noqa: B008 - immutable
        detach_reset: bool = True,
        learn: Iterable[str] = (),
        heterogeneous: Heterogeneous = None,
        seed: int = 0,
    ) -> None:
        super().__init__(size, dt)
        names = self._learn(learn)
        self._set_random(mode, estimator)
        self._add_decay("beta", "tau_mem", tau_mem, beta, names, heterogeneous, seed)
        self._set_spiking(
            v_threshold=v_threshold,
            v_reset=v_reset,
            reset=reset,
            reset_amount=reset_amount,
            t_ref=t_ref,
            surrogate=surrogate,
            detach_reset=detach_reset,
            learn=names,
        )
        self._add("release", release, "logit" if "release" in names else None)
        self._add("amplitude", amplitude, "logit" if "amplitude" in names else None)
        self._add("temperature", temperature, "ratio" if "temperature" in names else None)
        self._add("drive_step", drive_step, "gain" if "drive_step" in names else None)
        self.neuron()

    def law(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return release, lowest amplitude and span, float64, shape (unit,) each; differentiable if learned."""
        amplitude = self._vector(self._value("amplitude"), torch.float64)
        return self._vector(self._value("release"), torch.float64), 1 - amplitude, 2 * amplitude

    def certain(self) -> bool:
        """Return whether synapses always release, always alike."""
        return bool((self._base("release") == 1).all() and (self._base("amplitude") == 0).all())

    def _rows(self, dtype: torch.dtype) -> tuple[Tensor, ...]:
        names = ("beta", "drive_step", "v_threshold", "v_reset", "", "temperature")
        values = (self._reset_amount() if not name else self._value(name) for name in names)
        return tuple(self._vector(value, dtype) for value in values)

    def neuron(self) -> records.Neuron:
        """Return the record of these neurons with the float64 numbers per step."""
        names = ("beta", "drive_step", "release", "amplitude", "temperature")
        values = {name: self._number(name) for name in names}
        return records.MetaNeuron.from_step(mode=self.mode, **values, **self._spiking_record())


def log_prob(state: Any) -> Tensor:
    """Return the sum of the logarithms of the probability of everything that was drawn, from a model's states.

    Add ``(loss.detach() - baseline) * log_prob(output.state)`` to the loss of every sample, shape (batch,), to get the
    gradient of the mean loss with ``estimator="score"``. A baseline that does not depend on the sample's own draws
    lowers the variance and adds no bias.

    Raises:
        InputError: No state holds one: no neurons of the model draw.
    """
    found: list[Tensor] = []

    def walk(part: Any) -> None:
        if isinstance(part, (StochasticState, SynapseState)):
            found.append(part.log_prob)
        elif isinstance(part, (tuple, list)):
            for item in part:
                walk(item)

    walk(state)
    if not found:
        raise InputError("log_prob: expected the state of a model with neurons that draw, such as MetaNeuron")
    return torch.stack(found).sum(dim=0)
