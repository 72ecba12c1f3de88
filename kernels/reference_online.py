"""Sensitivities of neurons to what enters them, carried forward in time: the definition, in plain NumPy.

The laws are those of :mod:`snnsim.kernels.reference_neurons`; a sensitivity of a quantity is its derivative with
respect to one number (a weight, a decay, a threshold), where the spike has the derivative psi, its surrogate's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["CELL_ROWS", "UNIT_ROWS", "filter_step", "trace_step"]

Floats = npt.NDArray[np.floating[Any]]

CELL_ROWS = ("free", "carry", "psi", "passed", "jumped")
"""What depends on sample and unit in a step: 1 where the neuron is not refractory, else 0; derivative of the membrane
before the reset by that of the step before; derivative of the spike by the membrane; of the membrane after the reset by
that before it, and by the spike."""

UNIT_ROWS = ("gain", "raise", "decay", "by_v", "by_spike", "to_v", "to_second", "self")
"""What depends on the unit alone: derivative of the membrane by the second state (synaptic current or adaptation); of
the threshold by it; its decay, its derivatives by membrane and spike; whether arrivals reach the membrane in the step
of their arrival, or the second state; weight of a unit's synapse onto itself, of one step delay."""


def trace_step(
    inject: tuple[Any, Any, Any, Any], cell: Floats, unit: Floats, v: Floats, w: Floats, e: Floats
) -> tuple[Floats, Floats, Floats]:
    """Advance sensitivities by one step.

    With ``h`` the membrane before the reset, ``u`` the second state and primes for the sensitivities after the step::

        h  = carry v + free (gain w + x_h + to_v self e)
        e' = psi (h - raise w - x_theta)
        v' = passed h + jumped e' + x_v
        w' = decay w + by_v v' + by_spike e' + x_w + to_second self e

    Real-time recurrent learning (Williams & Zipser 1989) for neurons that depend on their own past alone.

    Args:
        inject: Direct derivatives ``x_h``, ``x_theta``, ``x_v`` and ``x_w`` of membrane, threshold, membrane after the
            reset and second state, shape (unit, batch, n) or what broadcasts to it.
        cell: Rows :data:`CELL_ROWS`, shape (5, batch, unit).
        unit: Rows :data:`UNIT_ROWS`, shape (8, unit).
        v: Sensitivity of the membrane after the step before, shape (unit, batch, n).
        w: Of the second state.
        e: Of the spike.

    Returns:
        ``v'``, ``w'`` and ``e'``.
    """
    free, carry, psi, passed, jumped = np.swapaxes(cell, 1, 2)[..., None]
    gain, lift, decay, by_v, by_spike, to_v, to_second, own = unit[..., None, None]
    x_h, x_threshold, x_v, x_w = inject
    h = carry * v + free * (gain * w + x_h + to_v * own * e)
    spike = psi * (h - lift * w - x_threshold)
    membrane = passed * h + jumped * spike + x_v
    second = decay * w + by_v * membrane + by_spike * spike + x_w + to_second * own * e
    return membrane, second, spike


def filter_step(decays: Floats, e: Floats, f: Floats, f2: Floats) -> tuple[Floats, Floats]:
    """Pass sensitivities of spikes through a readout of unit weight.

    ``f' = beta f + e`` for leaky integrators; ``f' = beta f + kappa f2``, ``f2' = alpha f2 + e`` for those with a
    synaptic current.

    Args:
        decays: ``(beta,)`` or ``(beta, alpha, kappa)``.
        e: Sensitivities of spikes, any shape.
        f: State before the step, same shape.
        f2: Synaptic current before the step; not used for a leaky integrator.

    Returns:
        ``f'`` and ``f2'``.
    """
    if len(decays) == 1:
        return decays[0] * f + e, f2
    return decays[0] * f + decays[2] * f2, decays[1] * f2 + e
