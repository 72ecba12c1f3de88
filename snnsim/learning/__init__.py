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
=========== ============================================= ================================== ===========================

``docs/learning.md`` says what each costs and how near it comes to BPTT.
"""

from snnsim.learning.bptt import BPTT
from snnsim.learning.diagnostics import gradient_cosine
from snnsim.learning.eprop import EProp
from snnsim.learning.eventprop import EventProp, continuous_output, continuous_trains
from snnsim.learning.losses import Loss
from snnsim.learning.memory_estimate import MemoryEstimate, estimate_memory
from snnsim.learning.ottt import OTTT
from snnsim.learning.protocol import Outcome, Rule, Stream, TensorStream
from snnsim.learning.rtrl import RTRL
from snnsim.learning.rules import make_rule
from snnsim.learning.sltt import SLTT, SLTTK
from snnsim.learning.trace_loss import TraceLoss

__all__ = [
    "BPTT",
    "OTTT",
    "RTRL",
    "SLTT",
    "SLTTK",
    "EProp",
    "EventProp",
    "Loss",
    "MemoryEstimate",
    "Outcome",
    "Rule",
    "Stream",
    "TensorStream",
    "TraceLoss",
    "continuous_output",
    "continuous_trains",
    "estimate_memory",
    "gradient_cosine",
    "make_rule",
]
