"""Learning rules: what fills the gradients of a model from a stream of inputs and a loss.

=========== ============================================= ================================== ===========================
rule        keeps                                         drops                              memory besides weights
=========== ============================================= ================================== ===========================
BPTT        the whole gradient                            nothing                            all steps
SLTT        errors of a step, through delays too          all paths through carried states   one stretch, longest delays
SLTTK       SLTT at K steps                               the other steps                    as SLTT
OTTT        the membrane's leak, by presynaptic traces    resets, states of layers above     a trace a source
RTRL        all paths inside a neuron                     states of layers above             a trace a synapse
EProp       RTRL's, in recurrent layers                   paths through other neurons        a trace a synapse
EventProp   the whole gradient, in continuous time        spikes that appear or vanish       spikes
Ridge       the readout, in closed form                   hidden layers: nothing learns      neurons squared
=========== ============================================= ================================== ===========================

``docs/learning.md`` says what each costs and how near it comes to BPTT.

Rules that need no torch, on spikes alone: :class:`Tempotron`, :class:`STDPLayer` (with :class:`STDP`) and
:class:`SpikeProp`; ``docs/local-rules.md``. A name is imported from its module when it is first used, so that these
three do not load torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snnsim.learning.bptt import BPTT
    from snnsim.learning.diagnostics import gradient_cosine
    from snnsim.learning.eprop import EProp
    from snnsim.learning.eventprop import EventProp, continuous_output, continuous_trains
    from snnsim.learning.losses import Loss
    from snnsim.learning.memory_estimate import MemoryEstimate, estimate_memory
    from snnsim.learning.ottt import OTTT
    from snnsim.learning.protocol import Outcome, Rule, Stream, TensorStream
    from snnsim.learning.ridge import Ridge
    from snnsim.learning.rtrl import RTRL
    from snnsim.learning.rules import make_rule
    from snnsim.learning.sltt import SLTT, SLTTK
    from snnsim.learning.spikeprop import SpikeProp
    from snnsim.learning.stdp import STDP
    from snnsim.learning.stdp_layer import STDPLayer
    from snnsim.learning.tempotron import Tempotron
    from snnsim.learning.tempotron_layer import TempotronLayer
    from snnsim.learning.trace_loss import TraceLoss

__all__ = [
    "BPTT",
    "OTTT",
    "RTRL",
    "SLTT",
    "SLTTK",
    "STDP",
    "EProp",
    "EventProp",
    "Loss",
    "MemoryEstimate",
    "Outcome",
    "Ridge",
    "Rule",
    "STDPLayer",
    "SpikeProp",
    "Stream",
    "Tempotron",
    "TempotronLayer",
    "TensorStream",
    "TraceLoss",
    "continuous_output",
    "continuous_trains",
    "estimate_memory",
    "gradient_cosine",
    "make_rule",
]

_HOME = {
    "BPTT": "bptt",
    "EProp": "eprop",
    "EventProp": "eventprop",
    "Loss": "losses",
    "MemoryEstimate": "memory_estimate",
    "OTTT": "ottt",
    "Outcome": "protocol",
    "RTRL": "rtrl",
    "Ridge": "ridge",
    "Rule": "protocol",
    "SLTT": "sltt",
    "SLTTK": "sltt",
    "STDP": "stdp",
    "STDPLayer": "stdp_layer",
    "SpikeProp": "spikeprop",
    "Stream": "protocol",
    "Tempotron": "tempotron",
    "TempotronLayer": "tempotron_layer",
    "TensorStream": "protocol",
    "TraceLoss": "trace_loss",
    "continuous_output": "eventprop",
    "continuous_trains": "eventprop",
    "estimate_memory": "memory_estimate",
    "gradient_cosine": "diagnostics",
    "make_rule": "rules",
}


def __getattr__(name: str) -> Any:
    """Import a name from its module when it is first used, so that rules without torch do not load it."""
    if name in _HOME:
        return getattr(importlib.import_module(f"snnsim.learning.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
