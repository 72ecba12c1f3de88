"""Eligibility propagation: recurrent layers forward in time, without the paths between neurons (Bellec et al. 2020).

``grad W_ji += sum_t L_j,t F(e_ji,t)``: the eligibility ``e_ji = psi_j eps_ji`` is the sensitivity of the spike through
the neuron's own past, ``F`` the filter of the readout, ``L_j = sum_k B_jk dloss/dy_k`` the learning signal. That a
spike comes back through recurrent synapses is left out, though these learn too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from snnsim.errors import InputError
from snnsim.kernels.philox import Stream, uniform
from snnsim.learning.eligibility import LayerTraces, readout_decays
from snnsim.learning.online import Errors, OnlineRule, back, spatial_errors, to_spikes
from snnsim.learning.rtrl import refuse_delayed_currents
from snnsim.learning.step import OnlineNet
from snnsim.nn.context import Context

__all__ = ["EProp", "feedback_weights"]


def feedback_weights(seed: int, layer: int, units: int, classes: int, sources: int) -> Tensor:
    """Return fixed random feedback, float64, shape (unit, class): uniform within ``sqrt(6 / sources)``.

    That is the spread of a readout's initial weights from ``sources`` neurons. The numbers are a function of the
    arguments alone (Philox4x32-10) and are stored nowhere.

    Args:
        seed: Seed of the run.
        layer: Index of the hidden layer.
        units: Its neurons.
        classes: Neurons of the readout.
        sources: Sources of the readout.
    """
    unit, label = np.arange(units, dtype=np.int64)[:, None], np.arange(classes, dtype=np.int64)[None, :]
    numbers = uniform(seed, int(Stream.FEEDBACK), layer, 0, unit, label)
    return torch.from_numpy((2 * numbers - 1) * np.sqrt(6.0 / sources))


@dataclass(frozen=True)
class EProp(OnlineRule):
    """Eligibility propagation.

    Equals backpropagation through time for one hidden layer whose recurrent weights are zero. Where
    ``detach_reset`` is off, traces hold the reset's gradient too, which the paper leaves out.

    Attributes:
        two_pass: See :class:`~snnsim.learning.online.OnlineRule`.
        feedback: ``symmetric``: errors go back by the weights of the readout and, to lower layers, within one step by
            those of the layers above. ``random``: every layer hears the classes by fixed random weights.
    """

    feedback: Literal["symmetric", "random"] = "symmetric"
    name: ClassVar[str] = "e-prop"

    def __post_init__(self) -> None:
        if self.feedback not in ("symmetric", "random"):
            raise InputError(f"e-prop: feedback: expected 'symmetric' or 'random', got {self.feedback!r}")

    def check(self, net: OnlineNet) -> None:
        """Refuse layers that no error can reach, and readouts whose units forget differently."""
        if self.feedback == "symmetric":
            refuse_delayed_currents(net, "e-prop with symmetric feedback")
        readout_decays(net.readout, "e-prop")

    def traces(self, net: OnlineNet, context: Context) -> list[LayerTraces]:
        """Return the eligibility traces, filtered by the readout."""
        net.feedback = []
        if self.feedback == "random":
            classes, sources = net.readout.size, int(net.readout.connection.n_in)
            net.feedback = [
                feedback_weights(context.seed, k, layer.size, classes, sources).to(layer.dtype)
                for k, layer in enumerate(net.hidden)
            ]
        decays = readout_decays(net.readout, "e-prop")
        return [LayerTraces(layer, decays) for layer in net.hidden]

    def errors(self, net: OnlineNet, by_trace: Tensor, penalties: list[Tensor | None]) -> list[Errors]:
        """Return the learning signals, which meet filtered traces."""
        if self.feedback == "random":
            signals = [
                to_spikes(layer, back(by_trace, weight.t()))
                for layer, weight in zip(net.hidden, net.feedback, strict=True)
            ]
        else:
            signals = spatial_errors(net, by_trace, [None] * len(penalties))
        return [(penalty, signal) for penalty, signal in zip(penalties, signals, strict=True)]
