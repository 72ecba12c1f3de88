"""Learning rules: what fills the gradients of a model from a stream of inputs and a loss."""

from snnsim.learning.bptt import BPTT
from snnsim.learning.eventprop import EventProp, continuous_output, continuous_trains
from snnsim.learning.losses import Loss
from snnsim.learning.protocol import Outcome, Rule, Stream, TensorStream
from snnsim.learning.rules import make_rule
from snnsim.learning.sltt import SLTT, SLTTK
from snnsim.learning.trace_loss import TraceLoss

__all__ = [
    "BPTT",
    "SLTT",
    "SLTTK",
    "EventProp",
    "Loss",
    "Outcome",
    "Rule",
    "Stream",
    "TensorStream",
    "TraceLoss",
    "continuous_output",
    "continuous_trains",
    "make_rule",
]
