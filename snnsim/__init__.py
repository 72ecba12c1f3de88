"""snnsim: train, simulate and export spiking neural networks."""

__version__ = "0.1.0"
