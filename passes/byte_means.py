"""Means of quantised values: windows of bytes summed as integers, where the arithmetic of float32 is exact all the way."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from sparsec.compiler.dtypes import DType
from sparsec.compiler.editor import GraphEditor
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.pool import Pool
from sparsec.compiler.ops.reduce import Reduce
from sparsec.compiler.passing.base import Notes, Pass, Rejected, register_pass
from sparsec.compiler.passing.rules import Rule, apply_rules, merged_origin
from sparsec.compiler.scalar import Arg, Imm, Program, Step, Tmp

_BYTES = (DType.U8, DType.I8)
_MOST = 1 << 16  # bytes whose sum float32 holds whatever they are


@dataclass(frozen=True)
class _Match:
    x: str
    zero: int
    scale: float
    kernel: tuple[int, int]
    strides: tuple[int, int]
    sources: tuple[Node, Node]


class _Mean(Rule[_Match]):
    """quantise(mean(dequantise x)) -> a depthwise convolution with weights of 1."""

    ops = (Map,)

    def match(self, editor: GraphEditor, node: Node) -> _Match | Rejected | None:
        if editor.types[node.output].dtype not in _BYTES or len(node.inputs) != 1:
            return None
        mean = editor.producer(node.inputs[0])
        if mean is None or not isinstance(mean.op, Reduce | Pool):
            return None
        below = editor.producer(mean.inputs[0])
        if below is None or not isinstance(below.op, Map) or len(below.inputs) != 1:
            return None
        x = editor.types[below.inputs[0]]
        if x.dtype not in _BYTES or x.rank != 4:
            return None
        windows = _windows(mean, x.shape)
        if windows is None:  # 1
            return Rejected(f"{mean.name!r} is no mean of whole windows of rows and columns")
        kernel, strides = windows
        affine = _affine(below.op.program)
        if affine is None or not _power_of_two(affine[0]):  # 2
            return Rejected(f"{below.name!r} does not scale its bytes by a power of two")
        count = kernel[0] * kernel[1]
        if not _power_of_two(Fraction(count)) or count > _MOST:  # 3
            return Rejected(f"a mean of {count} is not exact in float32, and its rounding not that of whole numbers")
        scale, zero = affine
        return _Match(below.inputs[0], zero, float(scale / count), kernel, strides, (below, mean))

    def apply(self, editor: GraphEditor, node: Node, match: _Match) -> None:
        assert isinstance(node.op, Map)
        channels = editor.types[match.x].shape[1]
        scaled = Program((Step("cast", (Arg(0),), DType.F32), Step("mul", (Tmp(0), Imm(match.scale)))))
        epilogue = scaled.compose(node.op.program, (Tmp(1),))
        op = Conv(match.strides, (1, 1), (0, 0, 0, 0), channels, epilogue, match.zero)
        ones = editor.add_constant(np.ones((channels, 1, *match.kernel), np.int8), f"{node.output}.ones")
        editor.replace(node, op, [match.x, ones], origin=merged_origin(*match.sources))


def _windows(node: Node, shape: tuple[int, ...]) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """Kernel and strides of a mean of [N, C, H, W]."""
    op = node.op
    if isinstance(op, Reduce):
        whole = op.kind == "mean" and op.over == (2, 3) and op.keepdims
        return ((shape[2], shape[3]), (1, 1)) if whole else None
    assert isinstance(op, Pool)
    if op.kind != "avg" or len(op.kernel) != 2 or any(op.pads) or any(d != 1 for d in op.dilations) or op.ceil:
        return None
    return (op.kernel[0], op.kernel[1]), (op.strides[0], op.strides[1])


def _power_of_two(value: Fraction) -> bool:
    return value > 0 and min(value.numerator, value.denominator) == 1 and _single_bit(value.numerator * value.denominator)


def _single_bit(value: int) -> bool:
    return value & (value - 1) == 0


def _affine(program: Program) -> tuple[Fraction, int] | None:
    """scale and zero of (x - zero) * scale; None for another program."""
    scale, shift = Fraction(1), Fraction(0)  # x * scale + shift
    for i, step in enumerate(program.steps):
        if step.args[0] != (Tmp(i - 1) if i else Arg(0)):
            return None
        if step.fn == "cast" and step.dtype in (DType.F32, DType.I32):
            continue
        number = step.args[1] if len(step.args) == 2 else None
        if not isinstance(number, Imm) or step.fn not in ("add", "sub", "mul"):
            return None
        by = Fraction(number.value)
        if step.fn == "mul":
            scale, shift = scale * by, shift * by
        else:
            shift += by if step.fn == "add" else -by
    zero = -shift / scale if scale else Fraction(1, 2)
    return (scale, int(zero)) if zero.denominator == 1 and -128 <= zero <= 255 else None


@register_pass
@dataclass(frozen=True)
class ByteMeans(Pass):
    """Means of dequantised bytes, quantised again, become depthwise convolutions of the bytes: for machines that sum integers.

    1. The mean is that of whole windows without padding, as a global mean is. 2. The bytes' scale is a power of two, 3. and so is
    the number of positions: sums and means are then exact in float32, and round as the integers do.
    """

    name = "byte_means"
    summary = "means of quantised values as depthwise convolutions of bytes, where float32 is exact"

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        return apply_rules(graph, [_Mean()], notes)
