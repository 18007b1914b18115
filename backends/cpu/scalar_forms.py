"""How every scalar function is written in C, over `vec` float32 values and over single values: one table a form.

What is not in a table has no C form. The texts use what `prelude` declares.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sparsec.backends.cpu.scalar_text import SMALL_FLOATS, float_literal, scalar_literal, value_ctype
from sparsec.compiler.dtypes import DType
from sparsec.compiler.scalar import Imm, Step

_FLOATS = (DType.F32, DType.F64, *SMALL_FLOATS)
_INTS = (DType.I8, DType.U8, DType.I16, DType.U16, DType.I32, DType.U32, DType.I64, DType.U64)
_SIGNED = (DType.I8, DType.I16, DType.I32, DType.I64)


@dataclass(frozen=True, slots=True)
class Form:
    """How one of the two forms writes constants, types and steps."""

    what: str
    ctype: Callable[[DType], str]
    literal: Callable[[float, DType], str]
    tables: Mapping[DType, Mapping[str, str]]  # by the operands' element type, then the function
    casts: Callable[[DType, DType], str | None]
    immediate: Callable[[Step, DType], str | None]  # a shorter text when an operand is a known number


# ---- over vectors -----------------------------------------------------------------------------------------------------------

_VEC_UNARY = (
    *("neg", "abs", "sign", "sqrt", "exp", "log", "floor", "ceil", "round", "sin", "cos", "tan", "asin", "acos", "atan", "sinh"),
    *("cosh", "asinh", "acosh", "atanh", "relu", "sigmoid", "tanh", "erf", "gelu", "silu", "hard_swish", "softplus", "softsign"),
    *("isnan", "isinf"),
)
_VEC_F32 = {
    **{fn: f"v_{fn}({{0}}, {{1}})" for fn in ("add", "sub", "mul", "div", "pow", "mod", "fmod", "eq", "lt", "le", "gt", "ge")},
    **{fn: f"v_{fn}({{0}})" for fn in _VEC_UNARY},
    "identity": "{0}",
    "min": "v_min_nan({0}, {1})",
    "max": "v_max_nan({0}, {1})",
    "rsqrt": "v_div(v_set1(1.0f), v_sqrt({0}))",
    "reciprocal": "v_div(v_set1(1.0f), {0})",
    "hard_sigmoid": "v_min(v_set1(1.0f), v_max(v_zero(), v_fma({1}, {0}, {2})))",
    "leaky_relu": "v_select(v_lt({0}, v_zero()), v_mul({1}, {0}), {0})",
    "elu": "v_elu({0}, {1})",
    "where": "v_select({0}, {1}, {2})",
}
_VEC_MASK = {
    "identity": "{0}",
    "and": "m_and({0}, {1})",
    "or": "m_or({0}, {1})",
    "xor": "m_xor({0}, {1})",
    "not": "m_not({0})",
    "eq": "m_not(m_xor({0}, {1}))",
    "bitand": "m_and({0}, {1})",
    "bitor": "m_or({0}, {1})",
    "bitxor": "m_xor({0}, {1})",
    "bitnot": "m_not({0})",
    "where": "m_or(m_and({0}, {1}), m_and(m_not({0}), {2}))",
}
# Integers of 8 and 32 bits are vectors of int32; what is cast to 8 bits keeps the low ones, as in C.
_VEC_I32 = {
    "identity": "{0}",
    "add": "(vint)((vuint){0} + (vuint){1})",
    "sub": "(vint)((vuint){0} - (vuint){1})",
    "mul": "(vint)((vuint){0} * (vuint){1})",
    "min": "vi_min({0}, {1})",
    "max": "vi_max({0}, {1})",
    "relu": "vi_max(vi_set1(0), {0})",
}
_VEC_INTEGERS = (DType.I32, DType.U8, DType.I8)
_NARROW = {DType.I32: "{0}", DType.U8: "({0} & 255)", DType.I8: "(vint)((vuint){0} << 24) >> 24"}
_VEC_CASTS = {
    (DType.F32, DType.F32): "{0}",
    (DType.F32, DType.BF16): "v_round_bf16({0})",
    (DType.BF16, DType.F32): "{0}",
    (DType.BF16, DType.BF16): "{0}",
    (DType.BOOL, DType.BOOL): "{0}",
    **{(source, DType.F32): "v_float({0})" for source in _VEC_INTEGERS},
    **{(DType.F32, target): text.replace("{0}", "v_trunc({0})") for target, text in _NARROW.items()},
    **{(source, target): text for source in _VEC_INTEGERS for target, text in _NARROW.items()},
    (DType.U8, DType.U8): "{0}",
    (DType.I8, DType.I8): "{0}",
    (DType.BOOL, DType.F32): "v_select({0}, v_set1(1.0f), v_zero())",
    (DType.F32, DType.BOOL): "v_ne({0}, v_zero())",
}
_VEC_POWERS = {
    1.0: "{0}",
    2.0: "v_mul({0}, {0})",
    3.0: "v_mul(v_mul({0}, {0}), {0})",
    0.5: "v_sqrt({0})",
    -1.0: "v_div(v_set1(1.0f), {0})",
}


def _vec_immediate(step: Step, like: DType) -> str | None:
    """`v_min` and `v_max` keep a NaN second operand, so a number goes first; common powers are products and roots."""
    if like is not DType.F32:
        return None
    if step.fn == "pow" and isinstance(step.args[1], Imm):
        return _VEC_POWERS.get(float(step.args[1].value))
    if step.fn in ("min", "max"):
        if isinstance(step.args[0], Imm):
            return f"v_{step.fn}({{0}}, {{1}})"
        if isinstance(step.args[1], Imm):
            return f"v_{step.fn}({{1}}, {{0}})"
    return None


def _vec_type(dtype: DType) -> str:
    return "vmask" if dtype is DType.BOOL else "vint" if dtype in _VEC_INTEGERS else "vec"


def _vec_literal(value: float, dtype: DType) -> str:
    if dtype is DType.BOOL:
        return f"m_set1({int(bool(value))})"
    return f"vi_set1({int(value)})" if dtype in _VEC_INTEGERS else f"v_set1({float_literal(value)})"


VEC = Form(
    "vectors of float32, bfloat16 and integers up to 32 bits",
    _vec_type,
    _vec_literal,
    {DType.F32: _VEC_F32, DType.BOOL: _VEC_MASK, DType.I32: _VEC_I32},
    lambda source, target: _VEC_CASTS.get((source, target)),
    _vec_immediate,
)

# ---- over single values -----------------------------------------------------------------------------------------------------

_COMPARE = {
    "eq": "(uint8_t)({0} == {1})",
    "lt": "(uint8_t)({0} < {1})",
    "le": "(uint8_t)({0} <= {1})",
    "gt": "(uint8_t)({0} > {1})",
    "ge": "(uint8_t)({0} >= {1})",
    "and": "(uint8_t)({0} != 0 && {1} != 0)",
    "or": "(uint8_t)({0} != 0 || {1} != 0)",
    "xor": "(uint8_t)(({0} != 0) != ({1} != 0))",
    "not": "(uint8_t)({0} == 0)",
}
_ANY = {"identity": "{0}", "where": "{0} ? {1} : {2}"}
_LIBM_UNARY = (
    *("sqrt", "exp", "log", "floor", "ceil", "sin", "cos", "tan", "sinh", "cosh", "asinh", "acosh", "atanh", "asin", "acos"),
    *("atan", "tanh", "erf"),
)
# @F: libm's suffix, @S: the helpers' suffix, @T: the C type, @U: the unsigned type in which it computes
_FLOAT_VALUES = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "neg": "-{0}",
    "abs": "fabs@F({0})",
    "pow": "pow@F({0}, {1})",
    "fmod": "fmod@F({0}, {1})",
    "rsqrt": "1 / sqrt@F({0})",
    "reciprocal": "1 / {0}",
    "round": "rint@F({0})",
    **{fn: f"spc_{fn}_@S({{0}}, {{1}})" for fn in ("min", "max", "mod")},
    **{fn: f"{fn}@F({{0}})" for fn in _LIBM_UNARY},
    **{fn: f"spc_{fn}_@S({{0}})" for fn in ("sign", "sigmoid", "softplus")},
    "relu": "{0} < 0 ? 0 : {0}",
    "gelu": "(@T)0.5 * {0} * (1 + erf@F({0} * (@T)0.70710678118654752))",
    "silu": "{0} / (1 + exp@F(-{0}))",
    "hard_sigmoid": "spc_clip01_@S({1} * {0} + {2})",
    "hard_swish": "{0} * spc_clip01_@S({0} / 6 + (@T)0.5)",
    "leaky_relu": "{0} < 0 ? {1} * {0} : {0}",
    "elu": "{0} < 0 ? {1} * expm1@F({0}) : {0}",
    "softsign": "{0} / (1 + fabs@F({0}))",
}
_FLOAT_TESTS = {"isnan": "(uint8_t)(isnan({0}) != 0)", "isinf": "(uint8_t)(isinf({0}) != 0)"}
_INT_VALUES = {  # computed without a sign, where overflow wraps as numpy's does
    "add": "(@T)((@U){0} + (@U){1})",
    "sub": "(@T)((@U){0} - (@U){1})",
    "mul": "(@T)((@U){0} * (@U){1})",
    "neg": "(@T)(0u - (@U){0})",
    "min": "{0} < {1} ? {0} : {1}",
    "max": "{0} > {1} ? {0} : {1}",
    **{fn: f"spc_{fn}_@S({{0}}, {{1}})" for fn in ("div", "mod", "fmod", "pow", "shl", "shr")},
    "bitand": "(@T)({0} & {1})",
    "bitor": "(@T)({0} | {1})",
    "bitxor": "(@T)({0} ^ {1})",
    "bitnot": "(@T)~{0}",
}
_SIGNED_VALUES = {
    "abs": "{0} < 0 ? (@T)(0u - (@U){0}) : {0}",
    "sign": "(@T)(({0} > 0) - ({0} < 0))",
    "relu": "{0} < 0 ? (@T)0 : {0}",
}
_UNSIGNED_VALUES = {"abs": "{0}", "sign": "(@T)({0} > 0)", "relu": "{0}"}
_BOOL_VALUES = {
    "min": "{0} < {1} ? {0} : {1}",
    "max": "{0} > {1} ? {0} : {1}",
    "bitand": "(uint8_t)({0} & {1})",
    "bitor": "(uint8_t)({0} | {1})",
    "bitxor": "(uint8_t)({0} ^ {1})",
    "bitnot": "(uint8_t)!{0}",
}


def _scalar_table(dtype: DType) -> dict[str, str]:
    if dtype is DType.BOOL:
        return {**_ANY, **_COMPARE, **_BOOL_VALUES}
    values = (
        dict(_FLOAT_VALUES) if dtype in _FLOATS else {**_INT_VALUES, **(_SIGNED_VALUES if dtype in _SIGNED else _UNSIGNED_VALUES)}
    )
    single = dtype is DType.F32 or dtype in SMALL_FLOATS
    marks = {
        "@F": "f" if single else "",
        "@S": "f32" if single else dtype.value,
        "@T": value_ctype(dtype),
        "@U": "uint64_t" if dtype.itemsize == 8 else "uint32_t",
    }
    for fn, text in values.items():
        for mark, replacement in marks.items():
            text = text.replace(mark, replacement)
        values[fn] = f"spc_round_{dtype.value}({text})" if dtype in SMALL_FLOATS else text
    return {**_ANY, **_COMPARE, **values, **(_FLOAT_TESTS if dtype in _FLOATS else {})}


def _scalar_cast(source: DType, target: DType) -> str | None:
    if source is target:
        return "{0}"
    if target is DType.BOOL:
        return "(uint8_t)({0} != 0)"
    if target in SMALL_FLOATS:
        return f"spc_round_{target.value}((float){{0}})"
    if target in _FLOATS or source not in _FLOATS:
        return f"({target.c}){{0}}"
    if target in (DType.I64, DType.U64):
        return f"spc_{target.value}_from_float({{0}})"
    wide = "i64" if target is DType.U32 else "i32"  # narrower integers keep the low bits
    return f"({target.c})spc_{wide}_from_float({{0}})"


SCALAR = Form(
    "single values",
    value_ctype,
    scalar_literal,
    {dtype: _scalar_table(dtype) for dtype in DType},
    _scalar_cast,
    lambda step, like: None,
)
