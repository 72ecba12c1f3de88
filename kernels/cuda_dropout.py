"""Dropout's masks on a CUDA device: those of the CPU, bit for bit.

Random numbers on a device are those of :mod:`snnsim.kernels.philox`, by the same functions: Numba compiles them for a
device as they stand.
"""

from __future__ import annotations

from numba import cuda

from snnsim.kernels.philox import uniform_scalar

__all__ = ["dropout_factors"]


@cuda.jit
def dropout_factors(sample, seed, stream, epoch, layer, p, kept, out):  # type: ignore[no-untyped-def]
    """Fill what every unit of every sample is multiplied by: 0 with probability ``p``, else ``kept``.

    One thread a (sample, unit) pair, units side by side.

    Args:
        sample: Sample ids, int64, shape (batch,).
        seed: Seed of the run.
        stream: Stream of dropout.
        epoch: Epoch.
        layer: Index of the layer.
        p: Probability of 0.
        kept: ``1 / (1 - p)``.
        out: Written, float32 or float64, shape (batch, unit).
    """
    i = cuda.grid(1)
    n_units = out.shape[1]
    if i < out.shape[0] * n_units:
        row = i // n_units
        unit = i - row * n_units
        number = uniform_scalar(seed, stream, sample[row], epoch, unit, layer)
        out[row, unit] = kept if number >= p else 0.0
