"""How single values are written in C: their types, constants, and what is stored of them."""

from __future__ import annotations

import numpy as np

from sparsec.compiler.dtypes import DType

SMALL_FLOATS = (DType.F16, DType.BF16)


def value_ctype(dtype: DType) -> str:
    """The C type in which scalar programs compute: the storage type, but float for 16-bit floats."""
    return "float" if dtype in SMALL_FLOATS else dtype.c


def load_expression(dtype: DType, stored: str) -> str:
    """A stored element (an lvalue of type `dtype.c`) as a value."""
    return f"spc_f32_from_{dtype.value}({stored})" if dtype in SMALL_FLOATS else stored


def store_expression(dtype: DType, value: str) -> str:
    """A value as what is stored."""
    return f"spc_{dtype.value}_from_f32({value})" if dtype in SMALL_FLOATS else value


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
    if dtype is DType.F32 or dtype in SMALL_FLOATS:
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
