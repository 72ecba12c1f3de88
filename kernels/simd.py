"""Vectors of the processor's own width inside Numba functions, and the tile product that matrix products are made of.

LLVM vectorises plain loops over one or two arrays, but not the many strands of a butterfly or of a register-blocked
product. Here such code is written with explicit vectors: :func:`load`, :func:`store`, :func:`splat`, ``+``, ``-``,
``*``, ``/``, and :func:`fma` and :func:`fms` (``a * b + c`` and ``a * b - c``, fused where the processor can). The
width follows from the processor (512, 256 or 128 bits) and the dtype; offsets count elements of flat contiguous
arrays, which nothing checks: callers stay inside.

The order of operations is written out, so a result depends on the width at most where it decides a block size, never
on threads.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

__all__ = [
    "TILE_ROWS",
    "TILE_VECTORS",
    "aligned_empty",
    "count_bits",
    "exponential",
    "fma",
    "fms",
    "lanes_of",
    "load",
    "lowest_bit",
    "nonzero_bits",
    "splat",
    "store",
    "tile_product",
    "total_of",
    "turn",
    "vector_lanes",
    "where_greater",
    "where_not_less",
    "where_set",
]


def _vector_bytes() -> int:
    features = llvm.get_host_cpu_features()
    if features.get("avx512f", False):
        return 64
    return 32 if features.get("avx", False) else 16


VECTOR_BYTES = _vector_bytes()
"""Width of a vector in bytes."""

TILE_ROWS = 6 if VECTOR_BYTES == 32 else 8
"""Rows of a tile: with 32 registers (512 bits) 16 of them hold sums, with 16 registers 12."""

TILE_VECTORS = 2 if VECTOR_BYTES >= 32 else 1
"""Vectors across a tile."""


def vector_lanes(dtype: Any) -> int:
    """Return how many numbers of a dtype a vector holds."""
    return VECTOR_BYTES // int(np.dtype(dtype).itemsize)


class Vector(types.Type):  # type: ignore[misc]
    """Numba type of a vector."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        self.lanes = VECTOR_BYTES * 8 // dtype.bitwidth
        super().__init__(name=f"Vector({dtype}, {self.lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, fe_type: Vector) -> None:
        super().__init__(manager, fe_type, _vector_ir(fe_type.dtype))


def _float_ir(dtype: Any) -> Any:
    return ir.FloatType() if dtype.bitwidth == 32 else ir.DoubleType()


def _vector_ir(dtype: Any) -> Any:
    return ir.VectorType(_float_ir(dtype), VECTOR_BYTES * 8 // dtype.bitwidth)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [offset])


def _as_vector(builder: Any, pointer: Any, dtype: Any) -> Any:
    return builder.bitcast(pointer, _vector_ir(dtype).as_pointer())


def _splat(builder: Any, scalar: Any, dtype: Any) -> Any:
    vector = _vector_ir(dtype)
    empty = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(empty, scalar, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(first, empty, zeros)


def _fma(builder: Any, dtype: Any, a: Any, b: Any, c: Any) -> Any:
    vector = _vector_ir(dtype)
    name = f"llvm.fmuladd.v{vector.count}f{dtype.bitwidth}"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), name)
    return builder.call(function, [a, b, c])


@intrinsic
def lanes_of(typing: Any, array: Any) -> Any:
    """Return how many numbers of an array's dtype a vector holds, a constant for the compiler."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(ir.IntType(64), _vector_ir(array.dtype).count)

    return types.intp(array), generate


@njit(cache=True, nogil=True)
def aligned_empty(n, array):  # type: ignore[no-untyped-def]
    """Return ``n`` numbers of an array's dtype that begin on a cache line: a vector across two lines costs twice."""
    lines = 64 // array.itemsize
    raw = np.empty(n + lines, array.dtype)
    first = (-(raw.ctypes.data // raw.itemsize)) % lines
    return raw[first : first + n]


@intrinsic
def load(typing: Any, array: Any, offset: Any) -> Any:
    """Return the vector that starts at an offset of a flat array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], *arguments)
        value = builder.load(_as_vector(builder, pointer, array.dtype))
        value.align = array.dtype.bitwidth // 8
        return value

    return Vector(array.dtype)(array, types.intp), generate


@intrinsic
def store(typing: Any, array: Any, offset: Any, vector: Any) -> Any:
    """Write a vector at an offset of a flat array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], *arguments[:2])
        written = builder.store(arguments[2], _as_vector(builder, pointer, array.dtype))
        written.align = array.dtype.bitwidth // 8
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@intrinsic
def splat(typing: Any, scalar: Any) -> Any:
    """Return a vector of equal numbers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _splat(builder, arguments[0], scalar)

    return Vector(scalar)(scalar), generate


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """Return ``a * b + c``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _fma(builder, a.dtype, *arguments)

    return a(a, b, c), generate


@intrinsic
def fms(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """Return ``a * b - c``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, y, z = arguments
        return _fma(builder, a.dtype, x, y, builder.fneg(z))

    return a(a, b, c), generate


def _binary(method: str) -> Any:
    @intrinsic
    def apply(typing: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return getattr(builder, method)(*arguments)

        return a(a, b), generate

    return apply


_add, _sub, _mul, _div = _binary("fadd"), _binary("fsub"), _binary("fmul"), _binary("fdiv")


@intrinsic
def where_greater(typing: Any, a: Any, b: Any, yes: Any, no: Any) -> Any:
    """Return ``yes`` where ``a > b`` and ``no`` elsewhere, lane by lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        left, right, chosen, other = arguments
        return builder.select(builder.fcmp_ordered(">", left, right), chosen, other)

    return a(a, b, yes, no), generate


@intrinsic
def where_not_less(typing: Any, a: Any, b: Any, yes: Any, no: Any) -> Any:
    """Return ``yes`` where ``a >= b`` and ``no`` elsewhere, lane by lane; what is no number is never ``>=``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        left, right, chosen, other = arguments
        return builder.select(builder.fcmp_ordered(">=", left, right), chosen, other)

    return a(a, b, yes, no), generate


@intrinsic
def where_set(typing: Any, bits: Any, yes: Any, no: Any) -> Any:
    """Return ``yes`` in the lanes whose bit is set and ``no`` elsewhere; lane k has bit k of a whole number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word, chosen, other = arguments
        lanes = chosen.type.count
        each = builder.bitcast(builder.trunc(word, ir.IntType(lanes)), ir.VectorType(ir.IntType(1), lanes))
        return builder.select(each, chosen, other)

    return yes(types.uint64, yes, no), generate


@intrinsic
def turn(typing: Any, source: Any, start: Any, stride: Any, out: Any, out_start: Any, out_stride: Any) -> Any:
    """Transpose a square of as many rows as a vector has lanes: ``out``'s row k holds element k of every source row.

    ``source`` and ``out`` are flat arrays of one dtype; rows begin at ``start + k stride`` and at
    ``out_start + k out_stride``.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, first, step, y, out_first, out_step = arguments
        lanes = _vector_ir(source.dtype).count
        size = source.dtype.bitwidth // 8
        rows = []
        for k in range(lanes):
            at = builder.add(first, builder.mul(step, ir.Constant(step.type, k)))
            loaded = builder.load(_as_vector(builder, _pointer(context, builder, source, x, at), source.dtype))
            loaded.align = size
            rows.append(loaded)
        mixed = [lane // 2 + lane % 2 * lanes for lane in range(2 * lanes)]
        low, high = (ir.Constant(ir.VectorType(ir.IntType(32), lanes), part) for part in (mixed[:lanes], mixed[lanes:]))
        for _ in range(lanes.bit_length() - 1):  # a perfect shuffle of the rows and of their elements
            half = [(rows[k], rows[k + lanes // 2]) for k in range(lanes // 2)]
            rows = [builder.shuffle_vector(a, b, part) for a, b in half for part in (low, high)]
        for k, row in enumerate(rows):
            at = builder.add(out_first, builder.mul(out_step, ir.Constant(out_step.type, k)))
            pointer = _as_vector(builder, _pointer(context, builder, out, y, at), source.dtype)
            builder.store(row, pointer).align = size
        return context.get_dummy_value()

    return types.void(source, types.intp, types.intp, out, types.intp, types.intp), generate


@intrinsic
def total_of(typing: Any, vector: Any) -> Any:
    """Return the sum of the lanes: halves are added until one number is left, the same order everywhere."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (value,) = arguments
        lanes = value.type.count
        while lanes > 1:
            lanes //= 2
            places = [[*range(first, first + lanes)] for first in (0, lanes)]
            halves = (ir.Constant(ir.VectorType(ir.IntType(32), lanes), half) for half in places)
            empty = ir.Constant(value.type, ir.Undefined)
            value = builder.fadd(*(builder.shuffle_vector(value, empty, half) for half in halves))
        return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))

    return vector.dtype(vector), generate


@intrinsic
def nonzero_bits(typing: Any, vector: Any) -> Any:
    """Return a whole number whose bit k says whether lane k is not zero."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (value,) = arguments
        lanes = value.type.count
        zero = ir.Constant(value.type, [ir.Constant(value.type.element, 0.0)] * lanes)
        bits = builder.bitcast(builder.fcmp_unordered("!=", value, zero), ir.IntType(lanes))
        return builder.zext(bits, ir.IntType(64))

    return types.int64(vector), generate


def _of_bits(name: str, *more: Any) -> Any:
    @intrinsic
    def apply(typing: Any, bits: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            whole = ir.IntType(64)
            kind = ir.FunctionType(whole, [whole, *(value.type for value in more)])
            function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.i64")
            return builder.call(function, [*arguments, *more])

        return types.int64(types.int64), generate

    return apply


count_bits = _of_bits("ctpop")
"""Return how many bits are set."""

lowest_bit = _of_bits("cttz", ir.Constant(ir.IntType(1), 0))
"""Return the place of the lowest bit that is set."""


@intrinsic
def exponential(typing: Any, x: Any) -> Any:
    """Return ``exp(x)`` of each lane for ``x <= 0``; below the smallest normal number it is 0.

    ``x = n ln 2 + r`` with ``|r| <= ln(2) / 2``, a Taylor polynomial of r, and n added to the exponent: relative
    error about one unit in the last place.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (value,) = arguments
        dtype, vector = x.dtype, _vector_ir(x.dtype)
        single = dtype.bitwidth == 32
        integer = ir.VectorType(ir.IntType(dtype.bitwidth), vector.count)

        def constant(number: float) -> Any:
            return ir.Constant(vector, [ir.Constant(_float_ir(dtype), number)] * vector.count)

        lowest = constant(-87.0 if single else -708.0)
        tiny = builder.fcmp_ordered("<", value, lowest)
        value = builder.select(tiny, lowest, value)
        name = f"llvm.rint.v{vector.count}f{dtype.bitwidth}"
        rint = cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector]), name)
        n = builder.call(rint, [builder.fmul(value, constant(math.log2(math.e)))])
        high = 0.693359375 if single else 0.6931471803691238
        low = math.log(2.0) - high if single else 1.9082149292705877e-10
        rest = _fma(builder, dtype, n, constant(-high), value)
        rest = _fma(builder, dtype, n, constant(-low), rest)
        degree = 7 if single else 13
        result = constant(1.0 / math.factorial(degree))
        for power in range(degree - 1, -1, -1):
            result = _fma(builder, dtype, result, rest, constant(1.0 / math.factorial(power)))
        mantissa, bias = (23, 127) if single else (52, 1023)
        whole = builder.fptosi(n, integer)
        biased = builder.add(whole, ir.Constant(integer, [bias] * vector.count))
        power_of_two = builder.bitcast(builder.shl(biased, ir.Constant(integer, [mantissa] * vector.count)), vector)
        return builder.select(tiny, constant(0.0), builder.fmul(result, power_of_two))

    return x(x), generate


@overload(operator.add, strict=False)
def _overload_add(a: Any, b: Any) -> Any:
    if isinstance(a, Vector) and isinstance(b, Vector):
        return lambda a, b: _add(a, b)
    return None


@overload(operator.sub, strict=False)
def _overload_sub(a: Any, b: Any) -> Any:
    if isinstance(a, Vector) and isinstance(b, Vector):
        return lambda a, b: _sub(a, b)
    return None


@overload(operator.truediv, strict=False)
def _overload_div(a: Any, b: Any) -> Any:
    if isinstance(a, Vector) and isinstance(b, Vector):
        return lambda a, b: _div(a, b)
    return None


@overload(operator.mul, strict=False)
def _overload_mul(a: Any, b: Any) -> Any:
    if isinstance(a, Vector) and isinstance(b, Vector):
        return lambda a, b: _mul(a, b)
    return None


@intrinsic
def tile_product(
    typing: Any,
    a: Any,
    a_start: Any,
    a_row: Any,
    a_step: Any,
    b: Any,
    b_start: Any,
    depth: Any,
    c: Any,
    c_start: Any,
    c_row: Any,
    add: Any,
) -> Any:
    """Multiply some rows by a packed panel of columns into one tile, all sums in registers.

    ``c[c_start + m c_row + n] (+)= sum_k a[a_start + m a_row + k a_step] b[b_start + k columns + n]`` with
    ``m < TILE_ROWS`` and ``n < columns = TILE_VECTORS * lanes``; summed over k in order, each step fused where
    the processor can.

    Args:
        typing: Numba's.
        a: Flat array with the rows.
        a_start: Offset of the first one.
        a_row: Distance of neighbouring rows.
        a_step: Distance of neighbours along a row.
        b: Flat array with the panel of columns.
        b_start: Its offset.
        depth: Number of products that are summed.
        c: Flat array that receives the tile.
        c_start: Offset of the tile.
        c_row: Distance of its rows.
        add: Whether to add to what is there, after the sum.
    """
    dtype = a.dtype
    at_type = types.intp
    signature = types.void(*(a, at_type, at_type, at_type, b, at_type, at_type, c, at_type, at_type, types.boolean))

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, a_start, a_row, a_step, b, b_start, depth, c, c_start, c_row, add = arguments
        rows_at = _pointer(context, builder, signature.args[0], a, a_start)
        columns_at = _pointer(context, builder, signature.args[4], b, b_start)
        out = _pointer(context, builder, signature.args[7], c, c_start)
        vector, index = _vector_ir(dtype), ir.IntType(64)
        lanes, size = vector.count, dtype.bitwidth // 8

        def at(k: int) -> Any:
            return ir.Constant(index, k)

        zero = ir.Constant(vector, [ir.Constant(_float_ir(dtype), 0.0)] * lanes)
        rows = [builder.gep(rows_at, [builder.mul(a_row, at(m))]) for m in range(TILE_ROWS)]
        sums = [[cgutils.alloca_once_value(builder, zero) for _ in range(TILE_VECTORS)] for _ in range(TILE_ROWS)]
        with cgutils.for_range(builder, depth) as loop:
            shift = builder.mul(loop.index, a_step)
            column = builder.gep(columns_at, [builder.mul(loop.index, at(TILE_VECTORS * lanes))])
            across = []
            for v in range(TILE_VECTORS):
                value = builder.load(_as_vector(builder, builder.gep(column, [at(v * lanes)]), dtype))
                value.align = size
                across.append(value)
            for m in range(TILE_ROWS):
                one = _splat(builder, builder.load(builder.gep(rows[m], [shift])), dtype)
                for v in range(TILE_VECTORS):
                    place = sums[m][v]
                    builder.store(_fma(builder, dtype, one, across[v], builder.load(place)), place)
        for m in range(TILE_ROWS):
            row = builder.gep(out, [builder.mul(c_row, at(m))])
            for v in range(TILE_VECTORS):
                place = _as_vector(builder, builder.gep(row, [at(v * lanes)]), dtype)
                value = builder.load(sums[m][v])
                with builder.if_else(add) as (then, otherwise):
                    with then:
                        old = builder.load(place)
                        old.align = size
                        summed = builder.fadd(old, value)
                        after_add = builder.block
                    with otherwise:
                        after_write = builder.block
                chosen = builder.phi(vector)
                chosen.add_incoming(summed, after_add)
                chosen.add_incoming(value, after_write)
                written = builder.store(chosen, place)
                written.align = size
        return context.get_dummy_value()

    return signature, generate
