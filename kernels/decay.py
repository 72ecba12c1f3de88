"""exp(x) for x <= 0 in plain arithmetic, the same bits alone and in a vectorised loop.

A library's exp is a call that no loop can vectorise. Here x = k ln 2 + r with |r| <= ln 2 / 2, and e^r is its Taylor
polynomial of degree 13 (what is left out is below 1e-17), summed in pairs; the error is about one unit in the last
place. Below -708 the result is that at -708, 3e-308.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from snnsim.kernels.bare import bare, bare_inline

__all__ = ["decay", "decays"]

LOG2_E = 1.0 / math.log(2.0)
LN2_HIGH = 0.693147180369123816490  # its last bits are zero: k times it is exact
LN2_LOW = 1.90821492927058770002e-10
C2, C3, C4, C5, C6, C7 = (1.0 / math.factorial(n) for n in range(2, 8))
C8, C9, C10, C11, C12, C13 = (1.0 / math.factorial(n) for n in range(8, 14))


@intrinsic
def power_of_two(typing: Any, k: Any) -> Any:
    """Return 2^k for a whole float64 k within -1022..1023."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        whole = builder.fptosi(args[0], ir.IntType(64))
        bits = builder.shl(builder.add(whole, ir.Constant(ir.IntType(64), 1023)), ir.Constant(ir.IntType(64), 52))
        return builder.bitcast(bits, ir.DoubleType())

    return types.float64(types.float64), generate


@bare_inline
def decay(x):  # type: ignore[no-untyped-def]
    """Return e^x for x <= 0."""
    x = max(x, -708.0)
    k = math.floor(x * LOG2_E + 0.5) * 1.0
    r = (x - k * LN2_HIGH) - k * LN2_LOW
    r2 = r * r
    r4 = r2 * r2
    low = ((1.0 + r) + (C2 + C3 * r) * r2) + ((C4 + C5 * r) + (C6 + C7 * r) * r2) * r4
    high = ((C8 + C9 * r) + (C10 + C11 * r) * r2) + (C12 + C13 * r) * r4
    return (low + high * (r4 * r4)) * power_of_two(k)


@bare
def decays(x, begin, end):  # type: ignore[no-untyped-def]
    """Replace ``x[begin : end]``, none of which is positive, by e^x."""
    for i in range(begin, end):
        u = np.uint64(i)  # a signed index is tested for being negative, and then nothing is vectorised
        x[u] = decay(x[u])
