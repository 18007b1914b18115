"""Sums of few bytes times a number that is no power of two, as in means of 49: multiplied by 16 bits, shifted, and exact.

The array makes x = sum + `centre` of 16 bits, u = (x * `factor` + `added`) >> `shift`, saturated to 16 bits, and y = u >> what is
left, saturated to bytes; both shifts round halves to even. That multiplication by a rounded reciprocal divides exactly where
the range is small enough is long known (Granlund and Montgomery, Division by Invariant Integers using Multiplication, PLDI 1994).
Here it is not argued but tried: a way is taken only if it gives what the epilogue gives in float32 for every sum that bytes can
have, of which there are 65,536 at most. With one rounding no result may lie halfway between two; where some do, the first shift
leaves so many bits that what is not halfway does not become so.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from sparsec.backends.aie.lower.shifts import Scaling, Shifts, interpreted, per_output
from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.quantize import RANGES
from sparsec.compiler.ops.shift import requantise_by_shift, rounding_shift
from sparsec.compiler.scalar import Arg, Program

Array = np.ndarray[Any, Any]
_BYTES = (DType.U8, DType.I8)
_WORD, _HALF = 1 << 31, 1 << 15
_MOST_LEFT = 12  # bits behind the first of two shifts


def scaled_of(graph: Graph, node: Node) -> Shifts | str:
    """How the array finishes sums of a depthwise convolution of bytes whose scale is no power of two; or why it cannot."""
    op, y = node.op, graph.types[node.output]
    assert isinstance(op, Conv)
    w = per_output(node, graph)
    low, high = RANGES[graph.types[node.inputs[0]].dtype]
    zero = op.zero * w.sum(axis=1)
    least = int((np.minimum(w * low, w * high).sum(axis=1) - zero).min())
    greatest = int((np.maximum(w * low, w * high).sum(axis=1) - zero).max())
    if greatest - least >= 2 * _HALF:
        return f"its sums are from {least} to {greatest}, and cores multiply sums of 16 bits"
    return _scaled(op.epilogue, np.arange(least, greatest + 1, dtype=np.int32), y.dtype, zero)


def scaled_bytes(graph: Graph, node: Node) -> Shifts | str:
    """How the array makes bytes of an image of bytes whose scale is no power of two of theirs; or why it cannot."""
    op, x, y = node.op, graph.types[node.inputs[0]], graph.types[node.output]
    assert isinstance(op, Map)
    if len(node.inputs) != 1 or x.dtype not in _BYTES or x.shape != y.shape or y.rank != 4:
        return "it does not make bytes of one image of bytes"
    low, high = RANGES[x.dtype]
    return _scaled(op.program, np.arange(low, high + 1).astype(x.dtype.numpy), y.dtype, np.zeros(y.shape[1], np.int64))


def _scaled(program: Program, sums: Array, dtype: DType, zero: Array) -> Shifts | str:
    """How `program` is carried out on any of `sums`, which are consecutive, and those of channels more by `zero` before."""
    form = interpreted(program)
    if isinstance(form, str):
        return form
    if any(isinstance(a, Arg) and a.index for s in program.steps for a in s.args):
        return "it adds something to sums whose scale is not a power of two: quantise with --power-of-two"
    if dtype not in _BYTES or not form.rounded:
        return f"its result is {dtype.value}, the array rounds sums to bytes"
    results = program.evaluate([sums]).astype(np.int64)
    whole = sums.astype(np.int64)
    centre = -((int(whole[0]) + int(whole[-1]) + 1) // 2)
    scale = dict(form.factors).get(0, Fraction(0))
    found = fitting(whole + centre, results, dtype, scale, form.constant + form.offset - scale * centre)
    if found is None:
        return f"no multiplication by 16 bits scales its sums by {float(scale):.6g} and rounds all of them as float32 does"
    made, left = found
    return Shifts((centre - zero).astype(np.int32), left, scaling=made)


def fitting(x: Array, results: Array, dtype: DType, scale: Fraction, constant: Fraction) -> tuple[Scaling, int] | None:
    """A multiplication and shifts, the second behind them, that make `results` of every one of `x`, int64, which are about
    scale * x + constant; None where none was found."""
    for bits in range(_MOST_LEFT):
        for factor, shift in _factors(scale * (1 << bits), constant * (1 << bits), x):
            for added in _added(x, results, factor, shift) if bits == 0 else (round(constant * (1 << bits + shift)),):
                way = Scaling(factor, added, shift)
                if abs(added) < _WORD and np.array_equal(finished(x, way, bits, dtype), results):
                    return way, bits
    return None


def finished(x: Array, way: Scaling, shift: int, dtype: DType) -> Array:
    """What the array makes of sums `x`, int64; sums outside of 32 bits make it none of the type's values."""
    products = x * way.factor + way.added
    narrow = requantise_by_shift(products, way.shift, 0, DType.I16)
    made = np.clip(rounding_shift(narrow, shift), *RANGES[dtype])
    whole: Array = np.where(np.abs(products) < _WORD, made, 1 << 16)
    return whole


def _factors(scale: Fraction, constant: Fraction, x: Array) -> Iterator[tuple[int, int]]:
    """Factors of 16 bits and shifts by which `scale` is multiplied, the most precise first, whose products fit 32 bits."""
    most = int(np.abs(x).max())
    for shift in range(30, -1, -1):
        exact = scale * (1 << shift)
        if exact >= _HALF - 1 or exact * most + abs(constant) * (1 << shift) >= _WORD:
            continue
        if exact < 1:
            return
        yield from ((n, shift) for n in dict.fromkeys((round(exact), int(exact), int(exact) + 1)))


def _added(x: Array, results: Array, factor: int, shift: int) -> Iterator[int]:
    """The middle of what may be added so that products round to the results, if there is any: where results change, the
    product before is no more than half a unit above its own, and the one behind no more than that below its own."""
    steps = np.flatnonzero(np.diff(results))
    if shift == 0 or not steps.size:
        return
    lowest = int((((2 * results[steps + 1] - 1) << shift - 1) - x[steps + 1] * factor).max())
    highest = int((((2 * results[steps] + 1) << shift - 1) - x[steps] * factor).min())
    if lowest <= highest:
        yield (lowest + highest) // 2
