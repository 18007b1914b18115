"""Scalar programs as C statements: over `vec` float32 values, and over single values of any element type.

Both forms take the names of variables that hold the arguments (an argument may be read several times, so it must be free of
side effects) and use what `prelude` declares. One table a form says how each function is written; a pair of function and
element type that no table holds is an UnsupportedError.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import UnsupportedError
from sparsec.compiler.scalar import Arg, Imm, Operand, Program, Step, Tmp, operand_dtype, step_dtype


@dataclass(frozen=True, slots=True)
class Emitted:
    """C statements, one a line and without indentation, and the expression and element type of the result after them."""

    statements: tuple[str, ...]
    result: str
    dtype: DType

    def text(self, indent: int) -> str:
        """The statements as lines of C, indented by `indent` spaces."""
        return "".join(f"{' ' * indent}{s}\n" for s in self.statements)


def emit_vec(program: Program, args: Sequence[str], dtypes: Sequence[DType] | None = None, prefix: str = "t") -> Emitted:
    """The program over vectors: float32 arguments are `vec` variables, bool ones `vmask`; so is the result.

    `dtypes` are the arguments' element types (all F32 when not given), `prefix` begins the names of temporaries.
    """
    return _emit(program, args, dtypes or [DType.F32] * len(args), prefix, _VEC)


def emit_scalar(program: Program, args: Sequence[str], dtypes: Sequence[DType], prefix: str = "t") -> Emitted:
    """The program over single values, whose variables have the type `value_ctype(dtype)`."""
    return _emit(program, args, dtypes, prefix, _SCALAR)


def value_ctype(dtype: DType) -> str:
    """The C type in which scalar programs compute: the storage type, but float for 16-bit floats."""
    return "float" if dtype in _SMALL_FLOATS else dtype.c


def load_expression(dtype: DType, stored: str) -> str:
    """A stored element (an lvalue of type `dtype.c`) as a value."""
    return f"spc_f32_from_{dtype.value}({stored})" if dtype in _SMALL_FLOATS else stored


def store_expression(dtype: DType, value: str) -> str:
    """A value as what is stored."""
    return f"spc_{dtype.value}_from_f32({value})" if dtype in _SMALL_FLOATS else value


def float_literal(value: float) -> str:
    """A float32 constant in C, exact."""
    v = np.float32(value)
    if np.isnan(v):
        return "NAN"
    if np.isinf(v):
        return "INFINITY" if v > 0 else "(-INFINITY)"
    text = f"{v!s}f"
    return f"({text})" if text.startswith("-") else text


def scalar_literal(value: float, dtype: DType) -> str:
    """A constant of any element type in C, exact."""
    v = np.asarray(value).astype(dtype.numpy) if isinstance(value, float) else np.asarray(value, dtype=dtype.numpy)
    if dtype is DType.F32 or dtype in _SMALL_FLOATS:
        return float_literal(float(v))
    if dtype is DType.F64:
        d = float(v)
        return float_literal(d) if not np.isfinite(d) else f"({d!r})" if d < 0 or str(d).startswith("-") else repr(d)
    i = int(v)
    if dtype is DType.I64:
        return "INT64_MIN" if i == -(2**63) else f"INT64_C({i})"
    if dtype is DType.U64:
        return f"UINT64_C({i})"
    if dtype is DType.I32:
        return "INT32_MIN" if i == -(2**31) else f"({i})" if i < 0 else str(i)
    return f"{i}u" if dtype is DType.U32 else f"({dtype.c}){i}" if i >= 0 else f"({dtype.c})({i})"


_SMALL_FLOATS = (DType.F16, DType.BF16)
_FLOATS = (DType.F32, DType.F64, *_SMALL_FLOATS)
_INTS = (DType.I8, DType.U8, DType.I16, DType.U16, DType.I32, DType.U32, DType.I64, DType.U64)
_SIGNED = (DType.I8, DType.I16, DType.I32, DType.I64)


@dataclass(frozen=True, slots=True)
class _Form:
    """How one of the two forms writes constants, types and steps."""

    what: str
    ctype: Callable[[DType], str]
    literal: Callable[[float, DType], str]
    tables: Mapping[DType, Mapping[str, str]]  # by the operands' element type, then the function
    casts: Callable[[DType, DType], str | None]
    immediate: Callable[[Step, DType], str | None]  # a shorter text when an operand is a known number


def _emit(program: Program, args: Sequence[str], dtypes: Sequence[DType], prefix: str, form: _Form) -> Emitted:
    types: list[DType] = []
    for step in program.steps:
        types.append(step_dtype(step, dtypes, types))
    statements = []
    for i in _live(program):
        step = program.steps[i]
        like = operand_dtype(step, dtypes, types)
        template = _template(step, like, form)
        operands = []
        for k, a in enumerate(step.args):
            of = DType.BOOL if step.fn == "where" and k == 0 else like
            operands.append(form.literal(a.value, of) if isinstance(a, Imm) else _name(a, args, prefix))
        statements.append(f"const {form.ctype(types[i])} {prefix}{i} = {template.format(*operands)};")
    result = program.result
    dtype = types[-1] if types else dtypes[0]
    return Emitted(tuple(statements), _name(result, args, prefix), dtype)


def _name(operand: Operand, args: Sequence[str], prefix: str) -> str:
    if isinstance(operand, Tmp):
        return f"{prefix}{operand.index}"
    assert isinstance(operand, Arg)
    return args[operand.index]


def _live(program: Program) -> list[int]:
    """The steps that the result needs, in order: an unused variable would be a warning."""
    needed: set[int] = set()
    pending = [len(program.steps) - 1] if program.steps else []
    while pending:
        i = pending.pop()
        if i not in needed:
            needed.add(i)
            pending += [a.index for a in program.steps[i].args if isinstance(a, Tmp)]
    return sorted(needed)


def _template(step: Step, like: DType, form: _Form) -> str:
    if step.fn == "cast":
        assert step.dtype is not None
        text = form.casts(like, step.dtype)
    else:
        text = form.immediate(step, like) or form.tables.get(like, {}).get(step.fn)
    if text is None:
        target = f" to {step.dtype.value}" if step.dtype else ""
        raise UnsupportedError(
            f"the function {step.fn}{target} on {like.value} has no C form over {form.what}: cast its operand to f32 first"
        )
    return text


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
_VEC_CASTS = {
    (DType.F32, DType.F32): "{0}",
    (DType.BOOL, DType.BOOL): "{0}",
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


_VEC = _Form(
    "float32 vectors",
    lambda dtype: "vmask" if dtype is DType.BOOL else "vec",
    lambda value, dtype: f"m_set1({int(bool(value))})" if dtype is DType.BOOL else f"v_set1({float_literal(value)})",
    {DType.F32: _VEC_F32, DType.BOOL: _VEC_MASK},
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
    single = dtype is DType.F32 or dtype in _SMALL_FLOATS
    marks = {
        "@F": "f" if single else "",
        "@S": "f32" if single else dtype.value,
        "@T": value_ctype(dtype),
        "@U": "uint64_t" if dtype.itemsize == 8 else "uint32_t",
    }
    for fn, text in values.items():
        for mark, replacement in marks.items():
            text = text.replace(mark, replacement)
        values[fn] = f"spc_round_{dtype.value}({text})" if dtype in _SMALL_FLOATS else text
    return {**_ANY, **_COMPARE, **values, **(_FLOAT_TESTS if dtype in _FLOATS else {})}


def _scalar_cast(source: DType, target: DType) -> str | None:
    if source is target:
        return "{0}"
    if target is DType.BOOL:
        return "(uint8_t)({0} != 0)"
    if target in _SMALL_FLOATS:
        return f"spc_round_{target.value}((float){{0}})"
    if target in _FLOATS or source not in _FLOATS:
        return f"({target.c}){{0}}"
    if target in (DType.I64, DType.U64):
        return f"spc_{target.value}_from_float({{0}})"
    wide = "i64" if target is DType.U32 else "i32"  # narrower integers keep the low bits
    return f"({target.c})spc_{wide}_from_float({{0}})"


_SCALAR = _Form(
    "single values",
    value_ctype,
    scalar_literal,
    {dtype: _scalar_table(dtype) for dtype in DType},
    _scalar_cast,
    lambda step, like: None,
)
