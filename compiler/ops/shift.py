"""Requantising by shifts: what hardware without floating point makes of sums whose scale is a power of two.

The graph says saturate(round(float32(acc) * scale) + zero). Where scale = 2^-k that is the rounding shift here, to the last bit,
for every |acc| < 2^24, which float32 holds; and for every int32 where k <= 16, since larger sums saturate either way. Beyond, a
sum that float32 rounds to halfway between two results may come out one unit apart.
"""

from __future__ import annotations

import numpy as np

from sparsec.compiler.dtypes import DType
from sparsec.compiler.ops.base import Array
from sparsec.compiler.ops.quantize import RANGES


def rounding_shift(acc: Array, shift: Array | int) -> Array:
    """acc / 2^shift rounded to integers, ties to even, int64. `acc` are int32, shifts from -31 to 62; both broadcast."""
    if isinstance(shift, int) and shift > 0:  # most of them, and much faster
        sums = acc.astype(np.int64)
        made: Array = (sums + ((1 << shift - 1) - 1) + (sums >> shift & 1)) >> shift
        return made
    wide, k = np.broadcast_arrays(acc.astype(np.int64), np.asarray(shift, np.int64))
    right, left = np.maximum(k, 0), np.maximum(-k, 0)
    half = np.where(right > 0, np.left_shift(np.int64(1), np.maximum(right, 1) - 1) - 1, 0)
    odd = np.where(right > 0, np.right_shift(wide, right) & 1, 0)
    rounded: Array = np.right_shift(wide + half + odd, right) << left
    return rounded


def requantise_by_shift(acc: Array, shift: Array | int, zero: int, dtype: DType) -> Array:
    """saturate(rounding_shift(acc, shift) + zero) in the 8- or 16-bit type `dtype`."""
    low, high = RANGES[dtype]
    limited: Array = np.minimum(np.maximum(rounding_shift(acc, shift) + zero, low), high)
    return limited.astype(dtype.numpy)
