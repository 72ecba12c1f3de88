"""Real-time recurrent learning for neurons that depend on their own past alone: exact for one hidden layer.

Where the state of a unit depends on no other unit of its layer, its sensitivities to its own parameters are all there
is to carry: one trace a synapse and sample instead of one a synapse, unit and sample (Williams & Zipser 1989; Irie et
al. 2024).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from snnsim.errors import InputError
from snnsim.kernels import dynamics
from snnsim.learning.eligibility import LayerTraces, readout_decays
from snnsim.learning.online import Errors, OnlineRule, spatial_errors
from snnsim.learning.step import OnlineNet
from snnsim.nn.context import Context

__all__ = ["RTRL", "refuse_delayed_currents"]


def refuse_delayed_currents(net: OnlineNet, rule: str) -> None:
    """Refuse layers above the first whose neurons answer an arrival in the next step only: no error within a step."""
    for layer in net.hidden[1:]:
        if layer.neuron.dynamics == dynamics.CUBA:
            raise InputError(
                f"{rule}: {layer.label}: expected neurons whose membrane takes an arrival in its own step, got "
                "CubaLIF, which no error passes within one step; use LIF neurons, one hidden layer, or train.learning "
                "'bptt'"
            )


@dataclass(frozen=True)
class RTRL(OnlineRule):
    """Real-time recurrent learning.

    The gradient of the last hidden layer and of the readout is exactly that of backpropagation through time, resets,
    refractory periods, learned neuron parameters and the memory of the readout included. Layers below get the error
    that passes through the layers above within one step, times traces that the readout has filtered: an approximation.

    A :class:`~snnsim.nn.recurrent.Recurrent` layer must have delay 1 and weights that are zero but on the diagonal;
    only the diagonal is learned.

    Attributes:
        two_pass: See :class:`~snnsim.learning.online.OnlineRule`.
    """

    name: ClassVar[str] = "rtrl"

    def check(self, net: OnlineNet) -> None:
        """Refuse recurrence among different units, and readouts whose units forget differently."""
        for layer in net.hidden:
            if layer.recurrent is None:
                continue
            weight = layer.recurrent.recurrent_weight.detach()
            if layer.delay != 1 or bool((weight - weight.diagonal().diag() != 0).any()):
                raise InputError(
                    f"rtrl: {layer.label}: expected recurrent weights on the diagonal alone, of delay 1; with others "
                    "every unit would need traces of all synapses. Use train.learning 'e-prop', or model.recurrent = "
                    "false"
                )
        refuse_delayed_currents(net, "rtrl")
        readout_decays(net.readout, "rtrl")

    def traces(self, net: OnlineNet, context: Context) -> list[LayerTraces]:
        """Return exact traces, filtered by the readout."""
        decays = readout_decays(net.readout, "rtrl")
        return [LayerTraces(layer, decays, diagonal=True) for layer in net.hidden]

    def errors(self, net: OnlineNet, by_trace: Tensor, penalties: list[Tensor | None]) -> list[Errors]:
        """Return errors of this step, which meet filtered traces."""
        errors = spatial_errors(net, by_trace, [None] * len(penalties))
        return [(penalty, error) for penalty, error in zip(penalties, errors, strict=True)]
