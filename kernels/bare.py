"""Compiling kernels that allocate nothing, without counting references to their arrays.

Numba counts references to every array that a compiled function hands on, with an atomic operation each; in kernels
that call one another for single neurons these take most of the time. A kernel that neither makes an array nor
slices one needs none of it: whoever called it holds the arrays. Division by zero is not tested for either.
"""

from __future__ import annotations

from numba import njit

__all__ = ["bare", "bare_inline"]

bare = njit(cache=True, nogil=True, _nrt=False, error_model="numpy")
"""Decorator for kernels without arrays of their own."""

bare_inline = njit(cache=True, nogil=True, _nrt=False, error_model="numpy", inline="always")
"""The same, copied into the kernels that call it."""
