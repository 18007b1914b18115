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
from sparsec.compiler.ops.map import Map
from sparsec.compiler.ops.matmul import MatMul
from sparsec.compiler.scalar import Arg, Imm, Program, Step, Tmp

Array = np.ndarray[Any, Any]
_EXACT = 1 << 24
_MOST_WEIGHT = 6  # the power of two that a weight of 8 bits holds
_UNIT_BITS = 32
_UNIT = 1 << _UNIT_BITS  # of scales: so they are whole
_SATURATED = 16  # shifts up to this leave 256 and more of what float32 does not hold exactly
_BYTES = {DType.U8: (0, 255), DType.I8: (-128, 127)}


@dataclass(frozen=True, slots=True)
class Scaling:
    """What is done to sums of 16 bits before they are shifted: times `factor`, plus `added`, shifted by `shift` to 16 bits."""

    factor: int
    added: int
    shift: int


@dataclass(frozen=True, slots=True)
class Shifts:
    """`bias` int32 [OC], all constants in it; `residual` is the operand's index among the node's inputs, or None; `bounds` are
    the least and greatest results where they are not those of bytes, or None; `scaling` comes before the shift. Of bfloat16,
    `bias` is float32, products are divided by `divisor`, and nothing is shifted."""

    bias: Array
    shift: int
    residual: int | None = None
    residual_shift: int = 0
    bounds: tuple[float | None, float | None] = (None, None)
    scaling: Scaling | None = None
    divisor: float = 1.0


@dataclass(frozen=True, slots=True)
class Form:
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
    found = interpreted(op.epilogue)
    if y.dtype is DType.I32 and not any(s.fn == "cast" for s in op.epilogue.steps):
        return found if isinstance(found, str) else _whole(graph, node, found)
    if y.dtype not in _BYTES:
        return f"its result is {y.dtype.value}, the array stores bytes and sums"
    if isinstance(found, str):
        return found
    bounds = _bounds(found, y.dtype)
    made = bounds if isinstance(bounds, str) else _powers(graph, node, found)
    return made if isinstance(made, str) or isinstance(bounds, str) else replace(made, bounds=bounds)


def bytewise(graph: Graph, node: Node) -> tuple[int, int, Shifts] | str:
    """How the array computes a Map of one or two bytes a result: which input is multiplied by what, and how sums are finished;
    or why it cannot, as a clause. The input that counts less is multiplied, the other is added."""
    op, y = node.op, graph.types[node.output]
    assert isinstance(op, Map)
    if y.dtype not in _BYTES or any(graph.types[v].dtype not in _BYTES for v in node.inputs):
        return "it does not make bytes of bytes, element by element"
    found = interpreted(op.program)
    bounds = found if isinstance(found, str) else _bounds(found, y.dtype)
    if isinstance(found, str) or isinstance(bounds, str):
        return found if isinstance(found, str) else str(bounds)
    used = sorted((f, i) for i, f in found.factors if f)
    if y.rank != 4 or not 1 <= len(used) <= 2 or any(graph.types[node.inputs[i]].shape != y.shape for _, i in used):
        return "it does not make bytes of one or two images of its own shape"
    powers = [_exponent(f * _UNIT) for f, _ in used]
    if any(p is None for p in powers):
        return f"its scales {', '.join(f'{float(f):.6g}' for f, _ in used)} are not powers of two: quantise with --power-of-two"
    first, last = (int(p or 0) - _UNIT_BITS for p in (powers[0], powers[-1]))
    shift = max(0, -first)
    bias = (found.constant + found.offset) * (1 << shift)
    worst = (255 << shift + last) * len(used) + abs(bias)
    if first > _MOST_WEIGHT or bias.denominator != 1 or worst >= _EXACT or (found.offset % 2 and shift):
        return (
            f"its scales {float(used[0][0]):.6g} and {float(used[-1][0]):.6g} or its zero point {found.offset} do not fit shifts"
        )
    biases = np.full(y.shape[1], int(bias), np.int32)
    residual, moved = (used[1][1], shift + last) if len(used) > 1 else (None, 0)
    return used[0][1], 1 << max(0, first), Shifts(biases, shift, residual, moved, bounds)


def _bounds(form: Form, dtype: DType) -> tuple[int | None, int | None] | str:
    """The bounds of results that those of bytes do not imply."""
    low, high = _BYTES[dtype]
    if not form.rounded:
        return "its result is not rounded before it becomes bytes"
    if (form.low is not None and form.low > high) or (form.high is not None and form.high < low):
        return f"its activation cuts to {form.low} .. {form.high}, outside of the range of bytes"
    least = int(form.low) if form.low is not None and form.low > low else None
    return least, int(form.high) if form.high is not None and form.high < high else None


def _whole(graph: Graph, node: Node, form: Form) -> Shifts | str:
    """Sums as they are, with a bias: float32 has no part in them, so they may be of any size."""
    made = _powers(graph, node, form, exact=True)
    if isinstance(made, str) or (made.shift == 0 and made.residual is None and not form.rounded and not form.bounded):
        return made
    return "its result are sums to which more is done than adding a bias"


def _powers(graph: Graph, node: Node, form: Form, *, exact: bool = False) -> Shifts | str:
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
            data = _each_channel(graph.constants[value], -3 if isinstance(node.op, Conv) else -1, channels)
            added = None if data is None else _whole_numbers(data, ratio)
            if added is None:
                return f"it adds the constant {value!r}, which is not a whole number of its sums for every channel"
            bias += added
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


def _each_channel(constant: Array, axis: int, channels: int) -> Array | None:
    """A constant that is added to every channel alike, as [channels]; None when it differs along another axis than `axis`."""
    along = constant.ndim >= -axis and constant.shape[axis] == constant.size == channels
    return np.broadcast_to(constant.reshape(-1), (channels,)) if along or constant.size == 1 else None


def _whole_numbers(data: Array, factor: Fraction) -> Array | None:
    """int64 `data` times `factor`; None where a product is not a whole number of 32 bits."""
    if not np.isfinite(data).all():
        return None
    products = [Fraction(v) * factor for v in data.tolist()]
    whole = all(p.denominator == 1 and abs(p) < 1 << 31 for p in products)
    return np.array([int(p) for p in products], np.int64) if whole else None


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


def interpreted(program: Program) -> Form | str:
    """A program as a form of its arguments."""
    values: list[Form] = []

    def operand(a: object) -> Form:
        if isinstance(a, Tmp):
            return values[a.index]
        if isinstance(a, Arg):
            return Form(((a.index, Fraction(1)),))
        assert isinstance(a, Imm)
        return Form(constant=Fraction(a.value))

    for step in program.steps:
        made = _step(step, [operand(a) for a in step.args])
        if isinstance(made, str):
            return made
        values.append(made)
    return values[-1] if values else Form(((0, Fraction(1)),))


def _step(step: Step, args: list[Form]) -> Form | str:
    refusal = f"its epilogue's step {step} is none that the array has"
    first = args[0]
    if step.fn == "cast":
        return first
    if step.fn in ("add", "sub"):
        return _added(first, args[1], -1 if step.fn == "sub" else 1) or refusal
    if step.fn in ("mul", "div"):
        number = args[1] if step.fn == "div" else next((a for a in args if not a.factors), None)
        other = args[1] if number is first else first
        if number is not None and not number.factors and number.constant == 1:
            return other
        if number is None or number.factors or number.constant <= 0 or other.rounded:
            return refusal
        scale = 1 / number.constant if step.fn == "div" else number.constant
        factors = tuple((i, f * scale) for i, f in other.factors)
        low, high = other.moved(lambda v: v * scale)
        return Form(factors, other.constant * scale, low=low, high=high)
    if step.fn == "round":
        if first.rounded:
            return first
        low, high = first.moved(lambda v: Fraction(round(v)))  # halves to even, as the step does
        return Form(first.factors, first.constant, True, low=low, high=high)
    if step.fn == "relu":
        return _clamped(first, Fraction(0), None)
    if step.fn in ("min", "max") and not args[1].factors:
        bound = args[1].constant
        return _clamped(first, *((None, bound) if step.fn == "min" else (bound, None)))
    return refusal


def _clamped(form: Form, low: Fraction | None, high: Fraction | None) -> Form:
    """The greater of a form and `low`, or the lesser of it and `high`: one bound moves the other where they would cross."""
    least, greatest = form.low, form.high
    if low is not None:
        least, greatest = low if least is None else max(least, low), None if greatest is None else max(greatest, low)
    if high is not None:
        least, greatest = None if least is None else min(least, high), high if greatest is None else min(greatest, high)
    return replace(form, low=least, high=greatest)


def _added(a: Form, b: Form, sign: int) -> Form | None:
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
    return Form(tuple(factors.items()), a.constant + sign * b.constant)
