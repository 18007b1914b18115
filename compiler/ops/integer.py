"""8-bit integer products: int32 sums of (x - zero) * w, what Conv and MatMul compute on quantised data and weights."""

from __future__ import annotations

import numpy as np

from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import ModelError
from sparsec.compiler.ops.base import Array
from sparsec.compiler.types import TensorType

DATA = (DType.U8, DType.I8)  # what data of an 8-bit product may be; its weights are int8
_RANGES = {DType.U8: (0, 255), DType.I8: (-128, 127)}


def accumulator(x: TensorType, w: TensorType, zero: int, what: str) -> DType:
    """The element type of the sums: the operands' own, or int32 for 8-bit data (zero point `zero`) and int8 weights.

    ModelError, which begins with `what`, for operands that do not go together.
    """
    if x.dtype in DATA and w.dtype is DType.I8:
        low, high = _RANGES[x.dtype]
        if not low <= zero <= high:
            raise ModelError(f"{what} data {x} cannot have the zero point {zero}: it is from {low} to {high}")
        return DType.I32
    if x.dtype != w.dtype:
        raise ModelError(f"{what} data {x} and weights {w} differ in element type")
    if zero:
        raise ModelError(f"{what} data {x} cannot have a zero point: 8-bit integers can")
    return x.dtype


def centred(x: Array, w: Array, zero: int) -> tuple[Array, Array]:
    """The factors to multiply: (x - zero, w) as float64 for 8-bit operands, whose sums it holds exactly; else as they are.

    float64, because numpy multiplies integer matrices without a library: 2^53 holds sums of 2^38 products.
    """
    if x.dtype not in (np.uint8, np.int8):
        return x, w
    return x.astype(np.float64) - zero, w.astype(np.float64)


def summed(acc: Array, dtype: np.dtype[np.generic]) -> Array:
    """Sums of `centred` factors of operands of type `dtype` as the accumulator's type: int32 that wrap, or `dtype`."""
    if dtype in (np.uint8, np.int8):
        return acc.astype(np.int64).astype(np.int32)
    return acc.astype(dtype, copy=False)
