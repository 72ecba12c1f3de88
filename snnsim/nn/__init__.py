"""Trainable modules (torch): surrogates, neurons, delays, norms, readouts, and the bridge to Network."""
