"""Online training through time: the error of a step times a trace of the inputs (Xiao et al. 2022).

``grad W += e_t a_t`` with ``a_t = lambda a_{t-1} + s_t``, the inputs forgotten as the target neurons forget, and the
error ``e_t = psi_t dloss_t/ds_t`` sent back through the layers within the step alone.
The trace knows no reset.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from snnsim.errors import InputError
from snnsim.learning.eligibility import LayerTraces
from snnsim.learning.online import Errors, OnlineRule, spatial_errors
from snnsim.learning.step import OnlineNet
from snnsim.nn.context import Context
from snnsim.nn.neurons import IF, LI, LIF

__all__ = ["OTTT"]


@dataclass(frozen=True)
class OTTT(OnlineRule):
    """Online training through time.

    For LIF and IF neurons without recurrence and a readout of leaky integrators. Memory of the traces: one number a
    sample and source of a layer whose neurons share one time constant, else one a sample and synapse. The readout's own
    weights get their exact gradient; the error that hidden layers get is that of the potential in the same step.

    Attributes:
        two_pass: See :class:`~snnsim.learning.online.OnlineRule`.
    """

    name: ClassVar[str] = "ottt"

    def check(self, net: OnlineNet) -> None:
        """Refuse recurrence, other neurons than LIF and IF, and learned neuron parameters."""
        for layer in net.hidden:
            if layer.recurrent is not None:
                raise InputError(
                    f"ottt: {layer.label}: expected no recurrent connection; use train.learning 'e-prop', or "
                    "model.recurrent = false"
                )
            if type(layer.neuron) not in (LIF, IF):
                raise InputError(
                    f"ottt: {layer.label}: expected LIF or IF neurons, got {type(layer.neuron).__name__}; use "
                    "train.learning 'rtrl' or 'e-prop'"
                )
            if any(vector.requires_grad for vector in layer.vectors.values()):
                raise InputError(
                    f"ottt: {layer.label}: expected fixed neuron parameters, for which the rule has no trace; set "
                    "model.neuron.learn = [] or use train.learning 'rtrl'"
                )
        if not isinstance(net.readout.neuron, LI):
            raise InputError(
                "ottt: expected a readout of LI neurons, got CubaLI, whose potential does not depend on the spikes of "
                "its own step; set model.readout.neuron = 'li'"
            )

    def traces(self, net: OnlineNet, context: Context) -> list[LayerTraces]:
        """Return traces of the inputs that know no reset."""
        return [LayerTraces(layer, ignore_reset=True) for layer in net.hidden]

    def errors(self, net: OnlineNet, by_trace: Tensor, penalties: list[Tensor | None]) -> list[Errors]:
        """Return the errors of this step alone."""
        return [(error, None) for error in spatial_errors(net, by_trace, penalties)]
