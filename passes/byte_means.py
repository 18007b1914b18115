"""Means of quantised values: windows of bytes summed as integers, where that makes the same bytes as float32 does."""

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
from sparsec.passes.common.windows import Windows, mean_windows

_BYTES = {DType.U8: (0, 255), DType.I8: (-128, 127)}
_MOST = 1 << 16  # bytes whose sum float32 holds whatever they are
_MOST_TRIED = 1 << 12  # bytes all of whose sums are tried
_UNIT = 2.0**-24  # of float32's rounding
_KEEPING_ORDER = ("cast", "round", "relu", "add", "sub", "mul", "div", "min", "max")


@dataclass(frozen=True)
class _Match:
    x: str
    zero: int
    windows: Windows
    scaled: Program  # of sums of bytes without their zero point: means
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
        windows = mean_windows(mean, x.shape)
        if isinstance(windows, str):  # 1
            return Rejected(f"{mean.name!r} {windows}")
        affine = _affine(below.op.program)
        if affine is None:  # 2
            return Rejected(f"{below.name!r} does more to its bytes than to take off a zero point and to scale them")
        assert isinstance(node.op, Map)
        scaled = _scaled(*affine, x.dtype, windows.count, below.op.program, node.op.program)
        if isinstance(scaled, str):  # 3
            return Rejected(f"{mean.name!r} {scaled}")
        return _Match(below.inputs[0], affine[1], windows, scaled, (below, mean))

    def apply(self, editor: GraphEditor, node: Node, match: _Match) -> None:
        assert isinstance(node.op, Map)
        channels, windows = editor.types[match.x].shape[1], match.windows
        epilogue = match.scaled.compose(node.op.program, (Tmp(-1),))
        op = Conv(windows.strides, (1, 1), windows.pads, channels, epilogue, match.zero)
        ones = editor.add_constant(np.ones((channels, 1, *windows.kernel), np.int8), f"{node.output}.ones")
        editor.replace(node, op, [match.x, ones], origin=merged_origin(*match.sources))


def refusal(graph: Graph, mean: Node) -> str | None:
    """Why a mean of dequantised bytes that are quantised again stays as it is; None for another node."""
    found = [_Mean().match(GraphEditor(graph), user) for user in graph.users[mean.output] if isinstance(user.op, Map)]
    return next((f.reason for f in found if isinstance(f, Rejected)), None)


def _scaled(scale: Fraction, zero: int, dtype: DType, count: int, before: Program, behind: Program) -> Program | str:
    """Sums of bytes without their zero point as means: float32 rounds them as it rounds means of dequantised bytes, or `behind`
    makes the same bytes of both. Else why not, as a clause."""
    if count > _MOST:
        return f"is one of {count} positions, whose sums float32 does not hold"
    if _power_of_two(scale) and _power_of_two(Fraction(count)):
        return Program((Step("cast", (Arg(0),), DType.F32), Step("mul", (Tmp(0), Imm(float(scale / count))))))
    number = float(np.float32(float(scale)))
    steps = (Step("cast", (Arg(0),), DType.F32), Step("mul", (Tmp(0), Imm(number))), Step("div", (Tmp(1), Imm(float(count)))))
    made = Program(steps)
    if _power_of_two(scale) or _same_bytes(number, zero, dtype, count, before, behind, made):
        return made
    return f"scales its bytes by {float(scale):.6g}, no power of two, and rounds differently in float32 by the order of its sum"


def _same_bytes(scale: float, zero: int, dtype: DType, count: int, before: Program, behind: Program, made: Program) -> bool:
    """Whether `behind` makes the same bytes of `made` sums and of means of dequantised bytes, in any order of addition.

    Dequantised bytes are off by e at most from what their scale says, a float32 sum of n by n e and g = n u / (1 - n u) of the
    sum of absolute values (Higham, Accuracy and Stability of Numerical Algorithms, 2nd edition, section 4.2), and the quotient
    by a rounding more: for every sum of bytes, both ends of what its mean may be have to become one byte.
    """
    low, high = _BYTES[dtype]
    if count > _MOST_TRIED or scale <= 0 or not _keeps_order(behind):
        return False
    values = np.arange(low, high + 1)
    there = before.evaluate([values.astype(dtype.numpy)]).astype(np.float64)
    off = float(abs(there - scale * (values - zero)).max())
    sums = np.arange(count * (low - zero), count * (high - zero) + 1)
    exact = scale * sums.astype(np.float64)
    sizes = exact + count * off if there.min() >= 0 else np.full(exact.shape, count * abs(there).max())
    reach = count * off + sizes * (count * _UNIT / (1 - count * _UNIT))
    ends = []
    for sign in (-1, 1):
        mean = (exact + sign * reach) / count
        ends.append(np.nextafter((mean + sign * 2 * _UNIT * abs(mean)).astype(np.float32), np.float32(sign * np.inf)))
    wanted = behind.evaluate([made.evaluate([sums.astype(np.int32)])])
    return all(np.array_equal(behind.evaluate([end]), wanted) for end in ends)


def _keeps_order(program: Program) -> bool:
    """Whether a greater number never becomes a lesser one: a line of steps with numbers, positive ones where they scale."""
    for i, step in enumerate(program.steps):
        others = [a for a in step.args if a != (Tmp(i - 1) if i else Arg(0))]
        if step.fn not in _KEEPING_ORDER or len(others) != len(step.args) - 1 or step.args[0] in others:
            return False
        if any(not isinstance(a, Imm) or (step.fn in ("mul", "div") and a.value <= 0) for a in others):
            return False
    return True


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

    1. All windows have as many positions as the mean divides by, as a global mean does, and a mean that counts its padding.
    2. The bytes are dequantised by a scale and a zero point. 3. The scale is a power of two, so that sums are exact in float32;
    or it is another, but so that no rounding of the sums, in whatever order, changes a byte.
    """

    name = "byte_means"
    summary = "means of quantised values as depthwise convolutions of bytes, where float32 rounds alike"

    def rewrite(self, graph: Graph, notes: Notes) -> Graph:
        return apply_rules(graph, [_Mean()], notes)
