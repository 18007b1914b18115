"""The arithmetic of vector instructions, on bytes of registers: products, shifts, rounding."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from sparsec.backends.aie.core.sparse_b import DEPTH, expand
from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import ModelError
from sparsec.compiler.ops.shift import requantise_by_shift

Array = np.ndarray[Any, Any]
BYTES = (np.uint8, np.int8)
BF16 = np.dtype(ml_dtypes.bfloat16)


def saturated(sums: Array, shift: int, signed: int) -> Array:
    """int32 `sums` shifted right by `shift` with halves to even, as saturated bytes (uint8 bits)."""
    return narrowed(sums, shift, DType.I8 if signed else DType.U8).view(np.uint8)


def narrowed(sums: Array, shift: int, dtype: DType) -> Array:
    """int32 `sums` shifted right by `shift` with halves to even, saturated in a type of 8 or 16 bits. ModelError where `shift`
    is no shift of sums."""
    return requantise_by_shift(sums, _shift(shift, -31, 62), 0, dtype)


def shifted(data: Array, shift: int, signed: int) -> Array:
    """int32 [..., 4, 8]: bytes `data` [..., 32] shifted left by `shift`. ModelError where that is no shift of sums."""
    sums: Array = data.view(BYTES[signed]).astype(np.int32).reshape(*data.shape[:-1], 4, 8) << _shift(shift, 0, 31)
    return sums


def _shift(places: int, low: int, high: int) -> int:
    if not low <= places <= high:
        raise ModelError(f"the register holds {places}: expected a shift by {low} to {high} places")
    return places


def products(a: Array, b: Array, signed: int) -> Array:
    """int32 [4, 8]: 32 bytes `a` as [4, 8] times 64 bytes `b` as int8 [8, 8]."""
    sums: Array = a.view(BYTES[signed]).reshape(4, 8).astype(np.int32) @ b.view(np.int8).reshape(8, 8).astype(np.int32)
    return sums


def scaled(data: Array, factor: int) -> Array:
    """int32 [4, 8]: 64 bytes as int16 times the lower half of a register."""
    sums: Array = (data.view(np.int16).astype(np.int32) * ((factor + 2**15) % 2**16 - 2**15)).reshape(4, 8)
    return sums


def products_bf16(a: Array, b: Array) -> Array:
    """float32 [4, 4]: 64 bytes `a` as bfloat16 [4, 8] times 64 bytes `b` as bfloat16 [8, 4]."""
    with np.errstate(all="ignore"):  # of what a core reads beyond its data nothing is kept
        sums: Array = widened(a).reshape(4, 8) @ widened(b).reshape(8, 4)
    return sums


def rows_of(data: Array, kind: Any) -> Array:
    """[..., 4, 16]: vectors [..., bytes] of 4 positions that follow one another, 8 values of each, as rows."""
    values = data.view(kind)
    halves = values.reshape(*values.shape[:-1], 2, 4, DEPTH // 2)
    found: Array = np.moveaxis(halves, -3, -2).reshape(*values.shape[:-1], 4, DEPTH)
    return found


def sparse_products(a: Array, b: Array, mask: Array, signed: int) -> Array:
    """int32 [4, 8]: 64 bytes `a` as [4, 16] times the operand [16, 8] of 64 bytes `b` and a mask."""
    sums: Array = rows_of(a, BYTES[signed]).astype(np.int32) @ expand(mask, b, np.int8).astype(np.int32)
    return sums


def sparse_products_bf16(a: Array, b: Array, mask: Array) -> Array:
    """float32 [4, 4]: 128 bytes `a` as bfloat16 [4, 16] times the operand [16, 4] of 64 bytes `b` and a mask."""
    with np.errstate(all="ignore"):
        sums: Array = rows_of(a, BF16).astype(np.float32) @ expand(mask, b, BF16).astype(np.float32)
    return sums


def lanes_bf16(a: Array, b: Array) -> Array:
    """float32 [2, 8]: 32 bytes `a` times 32 bytes `b`, both bfloat16, one by one."""
    with np.errstate(all="ignore"):
        made: Array = (widened(a) * widened(b)).reshape(2, 8)
    return made


def transposed_bf16(b: Array) -> Array:
    """Bytes [..., 64] that are bfloat16 [4, 8] as those of [8, 4]."""
    values = b.view(BF16).reshape(*b.shape[:-1], 4, 8)
    return np.ascontiguousarray(values.swapaxes(-1, -2)).reshape(*b.shape[:-1], 32).view(np.uint8)


def rounded(sums: Array) -> Array:
    """float32 `sums` as bfloat16, to nearest, ties to even (uint8 bits)."""
    with np.errstate(all="ignore"):
        return np.ascontiguousarray(sums.astype(BF16)).view(np.uint8)


def as_float(bits: int) -> Any:
    """The float32 that a register of 32 bits holds."""
    return np.array(bits, np.int32).view(np.float32)[()]


def widened(data: Array) -> Array:
    """Bytes that are bfloat16 as float32, half as many along the last axis."""
    values: Array = data.view(BF16).astype(np.float32)
    return values
