"""Learning rules and losses."""

from snnsim.learning.bptt import class_loss, rate_penalty, training_loss

__all__ = ["class_loss", "rate_penalty", "training_loss"]
