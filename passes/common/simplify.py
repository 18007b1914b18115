"""Expressions that simplify as they are built: neutral elements, powers, divisions by numbers, clips, casts.

Arithmetic stays within rounding: no sums are regrouped, products of numbers are, and a division by a number becomes a product
with its reciprocal (one more rounding).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from sparsec.compiler.dtypes import DType
from sparsec.compiler.scalar import COMMUTATIVE
from sparsec.passes.common.expr import Call, Exprs, Num

_INTEGER_BITS = {
    DType.I8: 7,
    DType.U8: 8,
    DType.I16: 15,
    DType.U16: 16,
    DType.I32: 31,
    DType.U32: 32,
    DType.I64: 63,
    DType.U64: 64,
}
_FLOAT_BITS = {DType.BF16: 8, DType.F16: 11, DType.F32: 24, DType.F64: 53}  # significand
_SIGNED = {DType.I8, DType.I16, DType.I32, DType.I64}


def lossless(a: DType, b: DType) -> bool:
    """Whether every value of type `a` is one of type `b`."""
    if a is b or (a is DType.BOOL):
        return True
    if b is DType.BOOL or (a.is_float and not b.is_float):
        return False
    if a.is_float:
        return _FLOAT_BITS[a] < _FLOAT_BITS[b] and (a, b) != (DType.BF16, DType.F16)
    if b.is_float:
        return _INTEGER_BITS[a] <= _FLOAT_BITS[b] and not (b is DType.F16 and _INTEGER_BITS[a] > 11)
    return _INTEGER_BITS[a] <= _INTEGER_BITS[b] and (a not in _SIGNED or b in _SIGNED)


class Simplifier(Exprs):
    """Expressions in a simplified form. `divides`: divisions stay, which round once."""

    def __init__(self, *, divides: bool = False) -> None:
        """Start empty."""
        super().__init__()
        self.divides = divides

    def call(self, fn: str, *args: int, cast: DType | None = None) -> int:
        if fn in COMMUTATIVE:
            args = tuple(sorted(args, key=lambda a: (self.dtypes[a] is None, a)))  # numbers last
        if fn == "cast" and cast is not None:
            return self._cast(args[0], cast)
        rule = _RULES.get(fn)
        found = rule(self, *args) if rule is not None else None
        return found if found is not None else super().call(fn, *args)

    def floating(self, e: int) -> bool:
        """Whether an expression is of floating-point type."""
        t = self.dtypes[e]
        return t is not None and t.is_float

    def _cast(self, x: int, to: DType) -> int:
        inner = self.is_call(x, "cast")
        if self.dtypes[x] is to:
            return x
        source = self.dtypes[inner.args[0]] if inner is not None else None
        if inner is not None and inner.cast is not None and source is not None and lossless(source, inner.cast):
            return self._cast(inner.args[0], to)
        return super().call("cast", x, cast=to)

    def _reciprocal_number(self, c: float, like: int) -> float | None:
        """1 / c, when it is a normal number of the type of `like`."""
        t = self.dtypes[like]
        if t is None or not t.is_float or c == 0 or math.isinf(c) or math.isnan(c):
            return None
        info = np.finfo(np.float32) if t is not DType.F64 else np.finfo(np.float64)
        value = 1.0 / c
        return value if float(info.tiny) <= abs(value) <= float(info.max) else None


def _identity(s: Simplifier, x: int) -> int:
    return x


def _add(s: Simplifier, x: int, y: int) -> int | None:
    return x if s.number(y) == 0 and s.dtypes[x] is not None else None


def _sub(s: Simplifier, x: int, y: int) -> int | None:
    c = s.number(y)
    if c is None or s.dtypes[x] is None:
        return None
    if c == 0:
        return x
    return s.call("add", x, s.num(-c)) if s.floating(x) else None


def _mul(s: Simplifier, x: int, y: int) -> int | None:
    c = s.number(y)
    if c is None or s.dtypes[x] is None:
        return None
    if c == 1:
        return x
    inner = s.is_call(x, "mul")
    c2 = s.number(inner.args[1]) if inner is not None else None
    if inner is not None and c2 is not None and s.floating(x) and 1e-30 < abs(c * c2) < 1e30:
        return s.call("mul", inner.args[0], s.num(c * c2))
    return None


def _div(s: Simplifier, x: int, y: int) -> int | None:
    c = s.number(y)
    if c is not None and s.dtypes[x] is not None:
        if c == 1:
            return x
        if s.divides:
            return None
        inverse = s._reciprocal_number(c, x)
        return s.call("mul", x, s.num(inverse)) if inverse is not None else None
    return s.call("reciprocal", y) if s.number(x) == 1 and s.floating(y) else None


def _reciprocal(s: Simplifier, x: int) -> int | None:
    inner = s.is_call(x, "sqrt")
    return s.call("rsqrt", inner.args[0]) if inner is not None else None


def _pow(s: Simplifier, x: int, y: int) -> int | None:
    if not s.floating(x):
        return None
    table: dict[float, Callable[[], int]] = {
        1.0: lambda: x,
        2.0: lambda: s.call("mul", x, x),
        3.0: lambda: s.call("mul", s.call("mul", x, x), x),
        0.5: lambda: s.call("sqrt", x),
        -0.5: lambda: s.call("rsqrt", x),
        -1.0: lambda: s.call("reciprocal", x),
    }
    made = table.get(c) if (c := s.number(y)) is not None else None
    return made() if made is not None else None


def _neg(s: Simplifier, x: int) -> int | None:
    inner = s.is_call(x, "neg")
    return inner.args[0] if inner is not None else None


def _relu(s: Simplifier, x: int) -> int | None:
    return x if s.is_call(x, "relu") else None


def _max(s: Simplifier, x: int, y: int) -> int | None:
    c, inner = s.number(y), s[x]
    if c is None or not s.floating(x):
        return None
    if c == -math.inf:
        return x
    if isinstance(inner, Call) and inner.fn == "max" and (c2 := s.number(inner.args[1])) is not None:
        return s.call("max", inner.args[0], s.num(max(c, c2)))
    if isinstance(inner, Call) and inner.fn == "min" and (c2 := s.number(inner.args[1])) is not None and c <= c2:
        return s.call("min", s.call("max", inner.args[0], y), inner.args[1])  # a clip takes the lower bound first
    return s.call("relu", x) if c == 0 else None


def _min(s: Simplifier, x: int, y: int) -> int | None:
    c, inner = s.number(y), s.is_call(x, "min")
    if c is None or not s.floating(x):
        return None
    if c == math.inf:
        return x
    c2 = s.number(inner.args[1]) if inner is not None else None
    return s.call("min", inner.args[0], s.num(min(c, c2))) if inner is not None and c2 is not None else None


def _where(s: Simplifier, c: int, x: int, y: int) -> int | None:
    return x if x == y and not isinstance(s[x], Num) else None


def _not(s: Simplifier, x: int) -> int | None:
    inner = s.is_call(x, "not")
    return inner.args[0] if inner is not None else None


_RULES: dict[str, Callable[..., int | None]] = {
    "identity": _identity,
    "add": _add,
    "sub": _sub,
    "mul": _mul,
    "div": _div,
    "reciprocal": _reciprocal,
    "pow": _pow,
    "neg": _neg,
    "relu": _relu,
    "max": _max,
    "min": _min,
    "where": _where,
    "not": _not,
}
