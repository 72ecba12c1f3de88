"""Pruning: which synapses and neurons a network can do without."""
