"""Codes of integer laws and kinds, and the order of a law's parameters in the table of an integer engine."""

from __future__ import annotations

__all__ = ["CURRENT", "FIXED", "KINDS", "LAWS", "LEFT", "LI", "LIF", "LOIHI2", "PARAMETERS", "STATES", "SYNAPTIC", "V"]
__all__ += ["XYLO"]

LOIHI2, XYLO, FIXED = range(3)
LAWS = {"loihi2": LOIHI2, "xylo": XYLO, "fixed": FIXED}
"""Code of every law."""

LIF, LI = 1, 0
SYNAPTIC = 2
KINDS = {"lif": LIF, "cubalif": LIF + SYNAPTIC, "li": LI, "cubali": LI + SYNAPTIC}
"""Code of every kind: bit 0 says that there is a threshold, bit 1 that there is a synaptic current."""

PARAMETERS: dict[str, tuple[str, ...]] = {
    "loihi2": ("v_decay", "i_decay", "v_threshold", "bias"),
    "xylo": ("dash_mem", "dash_syn", "v_threshold", "bias", "max_spikes"),
    "fixed": (
        *("beta", "alpha", "shift", "v_threshold", "v_reset", "reset_amount", "reset_zero", "refractory_steps"),
        *("drive", "drive_syn"),
    ),
}
"""Rows of the table of parameters by law; a row that a kind does not have is 0."""

V, CURRENT, LEFT = range(3)
STATES = 3
"""Rows of the table of states: membrane, current, refractory steps left."""
