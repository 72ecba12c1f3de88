"""What the kernels that know several kinds of neurons call them, and where they expect the parameters.

The equations are those of :mod:`snnsim.kernels.reference_neurons`.
"""

from __future__ import annotations

__all__ = ["ADAPTIVE", "CUBA", "LIF", "PARAMETERS", "ROWS"]

LIF, CUBA, ADAPTIVE = 0, 1, 2
"""Membrane alone; with a synaptic current; with an adaptation."""

PARAMETERS = 9
"""Rows of parameters: beta, threshold, v_reset, reset_amount; then, of the second state, its decay (alpha or rho), its
gain on the membrane (kappa; 1 where the adaptation is subtracted, 0 where it moves the threshold), adapt_v, adapt_spike
and adapt_threshold. Rows that a kind does not have are 0."""

ROWS = {LIF: (0,), CUBA: (0, 4, 5), ADAPTIVE: (0, 4, 6, 7, 8)}
"""Rows of a module's decays, gain and couplings, in the order in which its ``prepare`` gives them; threshold, v_reset
and reset_amount follow."""
