"""Liquid time-constant units: continuous, non-spiking neurons with graded conductance synapses (torch).

Hasani, Lechner, Amini, Rus and Grosu, "Liquid Time-constant Networks", AAAI 2021. Solver, initial ranges and limits are
those of the authors' published code. The spiking form is :class:`snnsim.nn.neurons_conductance.ConductanceLIF`.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from snnsim.errors import InputError
from snnsim.grid import check_dt

__all__ = ["LTC"]

LIMITS = {"weight": (1e-5, 1e3), "in_weight": (1e-5, 1e3), "g_leak": (1e-5, 1e3), "capacity": (1e-6, 1e3)}
"""Where :meth:`LTC.clamp_` keeps the parameters that must not be negative."""


class LTC(nn.Module):
    """Liquid time-constant units.

    With ``s(v; mu, sigma) = 1 / (1 + exp(-sigma (v - mu)))`` and inputs ``x <- x in_scale + in_shift``::

        C_i dv_i/dt = g_i (v_leak_i - v_i) + sum_j W_ij s(v_j) (E_ij - v_i) + sum_k Win_ik s(x_k) (Ein_ik - v_i)

    Given the activations this is linear in ``v_i``, with ``G = g + sum W s`` and ``pull = g v_leak + sum W s E``, the
    time constant ``C / G`` and the end ``pull / G``. A sample that lasts ``elapsed`` seconds is cut into ``substeps``
    parts of h; in each, the inputs are those of the sample and the recurrent activations are computed anew::

        fused:  v <- ((C / h) v + pull) / (C / h + G)                     semi-implicit, first order in h
        exact:  v <- v_end + (v - v_end) exp(-h G / C)                    exact for the part's activations

    Both stay within the lowest and the highest of v, v_leak and all E, for any h, as long as W and g are not negative:
    call :meth:`clamp_` after every optimiser step.

    Args:
        n_in: Number of inputs.
        size: Number of units.
        period: Duration of a sample in seconds where ``elapsed`` is not given. The trained ``capacity`` is C divided
            by the h of such a sample, as in the authors' code; other durations rescale it.
        substeps: Parts of a sample.
        solver: ``"fused"`` or ``"exact"``.
        generator: torch generator for the initial values.

    Attributes:
        weight: W, shape (size, size), ``[target, source]``, from U(0.01, 1).
        reversal: E, shape (size, size), -1 or 1.
        mu: Shape (size, size), from U(0.3, 0.8).
        sigma: Shape (size, size), from U(3, 8).
        in_weight: Win, shape (size, n_in); ``in_reversal``, ``in_mu`` and ``in_sigma`` likewise, same ranges.
        in_scale: Shape (n_in,), ones; ``in_shift`` likewise, zeros.
        g_leak: Shape (size,), ones.
        v_leak: Shape (size,), from U(-0.2, 0.2).
        capacity: ``C / h`` at ``period``, shape (size,), 0.5.

    Raises:
        InputError: A size, the period, the number of parts or the solver is not acceptable.
    """

    weight: Tensor
    reversal: Tensor
    mu: Tensor
    sigma: Tensor
    in_weight: Tensor
    in_reversal: Tensor
    in_mu: Tensor
    in_sigma: Tensor

    def __init__(
        self,
        n_in: int,
        size: int,
        *,
        period: float,
        substeps: int = 6,
        solver: Literal["fused", "exact"] = "fused",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("n_in", n_in), ("size", size), ("substeps", substeps)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"LTC: {name}: expected a positive whole number, got {value!r}")
        if solver not in ("fused", "exact"):
            raise InputError(f"LTC: solver: expected 'fused' or 'exact', got {solver!r}")
        self.n_in, self.size, self.substeps, self.solver = n_in, size, substeps, solver
        self.period = check_dt(period)

        def uniform(low: float, high: float, *shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape).uniform_(low, high, generator=generator))

        for prefix, sources in (("", size), ("in_", n_in)):
            shape = (size, sources)
            setattr(self, f"{prefix}weight", uniform(0.01, 1.0, *shape))
            sign = torch.randint(0, 2, shape, generator=generator).to(torch.get_default_dtype()) * 2 - 1
            setattr(self, f"{prefix}reversal", nn.Parameter(sign))
            setattr(self, f"{prefix}mu", uniform(0.3, 0.8, *shape))
            setattr(self, f"{prefix}sigma", uniform(3.0, 8.0, *shape))
        self.in_scale, self.in_shift = nn.Parameter(torch.ones(n_in)), nn.Parameter(torch.zeros(n_in))
        self.g_leak, self.v_leak = nn.Parameter(torch.ones(size)), uniform(-0.2, 0.2, size)
        self.capacity = nn.Parameter(torch.full((size,), 0.5))

    @torch.no_grad()
    def clamp_(self) -> None:
        """Bring conductances and capacities back into the limits of the authors' code."""
        for name, (low, high) in LIMITS.items():
            getattr(self, name).clamp_(low, high)

    def initial_state(self, batch: int) -> Tensor:
        """Return the zero state, shape (batch, size)."""
        return self.g_leak.new_zeros(batch, self.size)

    def forward(self, x: Tensor, state: Tensor | None = None, elapsed: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return v at the end of every sample, (time, batch, size), and v after the last, (batch, size).

        Args:
            x: Input, shape (time, batch, n_in), in the dtype of the parameters.
            state: v before the first sample, shape (batch, size); None is zero.
            elapsed: Duration of every sample in seconds, positive, shape (time,) or (time, batch); None is ``period``.

        Raises:
            InputError: A shape, the dtype or a duration is not acceptable.
        """
        if x.dim() != 3 or x.shape[2] != self.n_in:
            raise InputError(f"LTC: expected input of shape (time, batch, {self.n_in}), got {tuple(x.shape)}")
        if x.dtype != self.g_leak.dtype:
            raise InputError(f"LTC: expected input of {self.g_leak.dtype}, as the parameters have, got {x.dtype}")
        v = self.initial_state(x.shape[1]) if state is None else state
        if v.shape != (x.shape[1], self.size):
            raise InputError(f"LTC: expected a state of shape ({x.shape[1]}, {self.size}), got {tuple(v.shape)}")
        capacity = self._capacity(x, elapsed)
        inputs = (x * self.in_scale + self.in_shift).unsqueeze(2)
        open_in = self.in_weight * torch.sigmoid(self.in_sigma * (inputs - self.in_mu))
        total_in = self.g_leak + open_in.sum(dim=3)
        pull_in = self.g_leak * self.v_leak + (open_in * self.in_reversal).sum(dim=3)
        trace = []
        for total, pull, rate in zip(total_in, pull_in, capacity, strict=True):
            for _ in range(self.substeps):
                v = self._part(v, total, pull, rate)
            trace.append(v)
        return (torch.stack(trace) if trace else x.new_zeros(0, x.shape[1], self.size)), v

    def _capacity(self, x: Tensor, elapsed: Tensor | None) -> Tensor:
        """Return ``C / h`` of every sample, shape (time, batch or 1, size)."""
        if elapsed is None:
            return self.capacity.expand(x.shape[0], 1, self.size)
        if elapsed.shape not in (x.shape[:1], x.shape[:2]):
            raise InputError(
                f"LTC: elapsed: expected seconds of shape ({x.shape[0]},) or ({x.shape[0]}, {x.shape[1]}), got "
                f"{tuple(elapsed.shape)}"
            )
        if not bool(torch.all(elapsed > 0)) or not bool(torch.all(torch.isfinite(elapsed))):
            raise InputError("LTC: elapsed: expected positive finite seconds; drop samples that last no time")
        ratio = (self.period / elapsed.to(x.dtype)).reshape(x.shape[0], -1, 1)
        return ratio * self.capacity

    def _part(self, v: Tensor, total: Tensor, pull: Tensor, capacity: Tensor) -> Tensor:
        """Return v after one part; ``total`` and ``pull`` are those of leak and inputs."""
        mu, sigma = self.mu, self.sigma
        opened = self.weight * torch.sigmoid(sigma * (v.unsqueeze(1) - mu))
        total = total + opened.sum(dim=2)
        pull = pull + (opened * self.reversal).sum(dim=2)
        if self.solver == "fused":
            return (capacity * v + pull) / (capacity + total)
        end = pull / total
        return end + (v - end) * torch.exp(-total / capacity)

    def time_constant(self, x: Tensor, v: Tensor) -> Tensor:
        """Return ``C / G`` in seconds for inputs (batch, n_in) and v (batch, size), shape (batch, size)."""
        inputs = (x * self.in_scale + self.in_shift).unsqueeze(1)
        total = self.g_leak + (self.in_weight * torch.sigmoid(self.in_sigma * (inputs - self.in_mu))).sum(dim=2)
        gate = torch.sigmoid(self.sigma * (v.unsqueeze(1) - self.mu))
        total = total + (self.weight * gate).sum(dim=2)
        return self.capacity * (self.period / self.substeps) / total

    def extra_repr(self) -> str:
        """Return what ``print(module)`` shows."""
        return f"{self.n_in} -> {self.size}, period={self.period}, substeps={self.substeps}, solver={self.solver}"
