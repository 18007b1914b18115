"""What the array does with sums of byte products: shift, saturate, and add a residual first.

A product's epilogue is read as a linear form of the sums, the bias and residuals, rounded and saturated to a byte. The array
computes it where every factor is a power of two: y = saturate((acc + bias + (residual << a)) >> shift) with halves to even,
then cut to bounds within the bytes. Bounds of what is rounded later are rounded themselves, as rounding keeps order.
That equals the float32 arithmetic of the interpreter as long as sums stay below 2^24, where float32 holds every integer, or
as long as what is larger saturates anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from sparsec.compiler.dtypes import DType
from sparsec.compiler.graph import Graph, Node
from sparsec.compiler.ops.conv import Conv
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.scalar import Arg, Imm, Program, Step, Tmp

Array = np.ndarray[Any, Any]
_EXACT = 1 << 24
_SATURATED = 16  # shifts up to this leave 256 and more of what float32 does not hold exactly
_BYTES = {DType.U8: (0, 255), DType.I8: (-128, 127)}


@dataclass(frozen=True, slots=True)
class Shifts:
    """`bias` int32 [OC], all constants in it; `residual` is the operand's index among the node's inputs, or None; `bounds` are
    the least and greatest results where they are not those of bytes, or None. Of bfloat16, `bias` is float32, and nothing is
    shifted."""

    bias: Array
    shift: int
    residual: int | None = None
    residual_shift: int = 0
    bounds: tuple[float | None, float | None] = (None, None)


@dataclass(frozen=True, slots=True)
class _Form:
    """factors . arguments + constant, then `rounded`, then `offset` added; and bounds of that (None: unbounded)."""

    factors: tuple[tuple[int, Fraction], ...] = ()
    constant: Fraction = Fraction(0)
    rounded: bool = False
    offset: Fraction = Fraction(0)
    low: Fraction | None = None
    high: Fraction | None = None

    @property
    def bounded(self) -> bool:
        """Whether it has any bound."""
        return self.low is not None or self.high is not None

    def moved(self, by: Callable[[Fraction], Fraction]) -> tuple[Fraction | None, Fraction | None]:
        """Its bounds behind a function that keeps order."""
        return None if self.low is None else by(self.low), None if self.high is None else by(self.high)


def shifts_of(graph: Graph, node: Node) -> Shifts | str:
    """How the array finishes the node's sums; or why it cannot, as a clause."""
    op, y = node.op, graph.types[node.output]
    assert isinstance(op, Conv | MatMul)
    found = _interpret(graph, node, op.epilogue)
    if y.dtype is DType.I32 and not any(s.fn == "cast" for s in op.epilogue.steps):
        return found if isinstance(found, str) else _whole(graph, node, found)
    if y.dtype not in _BYTES:
        return f"its result is {y.dtype.value}, the array stores bytes and sums"
    if isinstance(found, str):
        return found
    if not found.rounded:
        return "its result is not rounded before it becomes bytes"
    made = _powers(graph, node, found)
    low, high = _BYTES[y.dtype]
    least = int(found.low) if found.low is not None and found.low > low else None
    greatest = int(found.high) if found.high is not None and found.high < high else None
    return made if isinstance(made, str) else replace(made, bounds=(least, greatest))


def _whole(graph: Graph, node: Node, form: _Form) -> Shifts | str:
    """Sums as they are, with a bias: float32 has no part in them, so they may be of any size."""
    made = _powers(graph, node, form, exact=True)
    if isinstance(made, str) or (made.shift == 0 and made.residual is None and not form.rounded and not form.bounded):
        return made
    return "its result are sums to which more is done than adding a bias"


def _powers(graph: Graph, node: Node, form: _Form, *, exact: bool = False) -> Shifts | str:
    factors = dict(form.factors)
    scale = factors.pop(0, Fraction(0))
    shift = _exponent(1 / scale) if scale > 0 else None
    if shift is None or not 0 <= shift < 31:
        return f"its scale {float(scale):.6g} is not a power of two up to 1: quantise with --power-of-two"
    y = graph.types[node.output]
    channels = y.shape[1] if isinstance(node.op, Conv) else y.shape[-1]
    bias = np.zeros(channels, np.int64)
    if form.offset % 2 and shift:
        return (
            f"its zero point {form.offset} is odd, and is added before halves are rounded to even: quantise with --power-of-two"
        )
    total = form.constant + form.offset
    residual: tuple[int, int] | None = None
    for index, factor in factors.items():
        value = node.inputs[1 + index]
        ratio = factor / scale
        if value in graph.constants:
            data = (
                np.broadcast_to(np.squeeze(graph.constants[value]), (channels,))
                if graph.constants[value].size in (1, channels)
                else None
            )
            if data is None or ratio.denominator != 1:
                return f"it adds the constant {value!r}, which is not a whole number of its sums for every channel"
            bias += data.astype(np.int64) * int(ratio)
            continue
        power = _exponent(ratio)
        if residual is not None or power is None or not 0 <= power < 24:
            return (
                f"it adds {value!r} with a factor of {float(ratio):.6g} against its sums: "
                "one operand and a power of two from 1 on fit"
            )
        if graph.types[value].dtype not in _BYTES or graph.types[value].shape != y.shape:
            return f"it adds {value!r}, which is not bytes of its own shape"
        residual = (1 + index, power)
    constant = total / scale
    if constant.denominator != 1:
        return f"it adds {float(total):.6g}, which is not a whole number of its sums"
    bias += int(constant)
    bias -= _zero_share(graph, node)
    worst = _largest_sum(graph, node, bias, residual[1] if residual else None)
    if not exact and worst >= _EXACT and (residual is not None or shift > _SATURATED or worst >= 1 << 31):
        return f"its sums may reach {worst}, and float32, in which they are scaled, holds whole numbers up to {_EXACT}"
    return Shifts(bias.astype(np.int32), shift, *(residual or (None, 0)))


def _exponent(value: Fraction) -> int | None:
    """n when `value` is 2^n, n >= 0."""
    n = value.numerator.bit_length() - 1
    return n if value.denominator == 1 and value.numerator == 1 << n else None


def per_output(node: Node, graph: Graph) -> Array:
    """The weights as int64 [OC, products of one output]."""
    w = graph.constants[node.inputs[1]].astype(np.int64)
    if isinstance(node.op, MatMul) and not node.op.trans_b:
        w = np.swapaxes(w, -1, -2)
    return w.reshape(w.shape[0], -1)


def _zero_share(graph: Graph, node: Node) -> Array:
    """What the data's zero point adds to every channel's sums, int64 [OC]."""
    op = node.op
    assert isinstance(op, Conv | MatMul)
    share: Array = per_output(node, graph).sum(axis=1) * op.zero
    return share


def _largest_sum(graph: Graph, node: Node, bias: Array, residual_shift: int | None) -> int:
    low, high = _BYTES[graph.types[node.inputs[0]].dtype]
    sums = np.abs(per_output(node, graph)).sum(axis=1) * max(-low, high) + np.abs(bias)
    return int(sums.max()) + (0 if residual_shift is None else 255 << residual_shift)


def _interpret(graph: Graph, node: Node, program: Program) -> _Form | str:
    """The epilogue as a form; argument i is the node's input 1 + i, argument 0 the sums."""
    values: list[_Form] = []

    def operand(a: object) -> _Form:
        if isinstance(a, Tmp):
            return values[a.index]
        if isinstance(a, Arg):
            return _Form(((a.index, Fraction(1)),))
        assert isinstance(a, Imm)
        return _Form(constant=Fraction(a.value))

    for step in program.steps:
        made = _step(step, [operand(a) for a in step.args])
        if isinstance(made, str):
            return made
        values.append(made)
    return values[-1] if values else _Form(((0, Fraction(1)),))


def _step(step: Step, args: list[_Form]) -> _Form | str:
    refusal = f"its epilogue's step {step} is none that the array has"
    first = args[0]
    if step.fn == "cast":
        return first
    if step.fn in ("add", "sub"):
        return _added(first, args[1], -1 if step.fn == "sub" else 1) or refusal
    if step.fn in ("mul", "div"):
        number = args[1] if step.fn == "div" else next((a for a in args if not a.factors), None)
        other = args[1] if number is first else first
        if number is None or number.factors or number.constant <= 0 or other.rounded:
            return refusal
        scale = 1 / number.constant if step.fn == "div" else number.constant
        factors = tuple((i, f * scale) for i, f in other.factors)
        low, high = other.moved(lambda v: v * scale)
        return _Form(factors, other.constant * scale, low=low, high=high)
    if step.fn == "round" and not first.rounded:
        low, high = first.moved(lambda v: Fraction(round(v)))  # halves to even, as the step does
        return _Form(first.factors, first.constant, True, low=low, high=high)
    if step.fn == "relu":
        return _clamped(first, Fraction(0), None) or refusal
    if step.fn in ("min", "max") and not args[1].factors:
        bound = args[1].constant
        return _clamped(first, *((None, bound) if step.fn == "min" else (bound, None))) or refusal
    return refusal


def _clamped(form: _Form, low: Fraction | None, high: Fraction | None) -> _Form | None:
    least = max((v for v in (form.low, low) if v is not None), default=None)
    greatest = min((v for v in (form.high, high) if v is not None), default=None)
    if least is not None and greatest is not None and least > greatest:
        return None
    return replace(form, low=least, high=greatest)


def _added(a: _Form, b: _Form, sign: int) -> _Form | None:
    """a + sign * b; a whole number behind rounding moves the result."""
    if a.rounded or b.rounded:
        if b.rounded or b.factors or b.constant.denominator != 1:
            return None
        low, high = a.moved(lambda v: v + sign * b.constant)
        return replace(a, offset=a.offset + sign * b.constant, low=low, high=high)
    if a.bounded or b.bounded:
        return None
    factors = dict(a.factors)
    for i, f in b.factors:
        factors[i] = factors.get(i, Fraction(0)) + sign * f
    return _Form(tuple(factors.items()), a.constant + sign * b.constant)
