"""Products of narrow numbers that are summed in wider ones: what Conv and MatMul compute on bytes and, where asked, on bfloat16.

8-bit integers: int32 sums of (x - zero) * w. bfloat16 (`wide`): float32 sums of products that are exact in float32, in any
order. How a sum is rounded in between is left to the target, and so is whether denormal numbers count as zero.
"""

from __future__ import annotations

import numpy as np

from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import ModelError
from sparsec.compiler.ops.base import Array
from sparsec.compiler.types import TensorType

DATA = (DType.U8, DType.I8)  # what data of an 8-bit product may be; its weights are int8
_RANGES = {DType.U8: (0, 255), DType.I8: (-128, 127)}


def accumulator(x: TensorType, w: TensorType, zero: int, what: str, *, wide: bool = False) -> DType:
    """The element type of the sums: the operands' own, int32 for 8-bit data (zero point `zero`) and int8 weights, or float32 for
    bfloat16 when `wide`.

    ModelError, which begins with `what`, for operands that do not go together.
    """
    if wide and (x.dtype, w.dtype, zero) != (DType.BF16, DType.BF16, 0):
        raise ModelError(f"{what} sums bfloat16 in float32, not data {x} and weights {w} with the zero point {zero}")
    if wide:
        return DType.F32
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


def centred(x: Array, w: Array, zero: int, *, wide: bool = False) -> tuple[Array, Array]:
    """The factors to multiply: (x - zero, w) as float64 for 8-bit operands, whose sums it holds exactly; float32 when `wide`;
    else as they are.

    float64, because numpy multiplies integer matrices without a library: 2^53 holds sums of 2^38 products.
    """
    if wide:
        return x.astype(np.float32), w.astype(np.float32)
    if x.dtype not in (np.uint8, np.int8):
        return x, w
    return x.astype(np.float64) - zero, w.astype(np.float64)


def summed(acc: Array, dtype: np.dtype[np.generic]) -> Array:
    """Sums of `centred` factors of operands of type `dtype` as the accumulator's type: int32 that wrap, or `dtype`."""
    if dtype in (np.uint8, np.int8):
        return acc.astype(np.int64).astype(np.int32)
    return acc.astype(dtype, copy=False)
