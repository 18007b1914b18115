"""Compressed B operands: matrices in which at most two of every four consecutive values along k are not zero.

An operand is what a sparse product reads as B: [16, 8] bytes or [16, 4] bfloat16, 128 bytes. Compressed it is a mask of 128 bits,
one for each of these bytes, and 64 bytes of values. That is AIE-ML's sparse format (AMD AM020: a mask of one bit a byte, then the
bytes that it marks) where a mask marks exactly two of every four values, which is what we make: zeros fill up groups that have
fewer, so that all operands are of one size. Ours are also the order, column by column, so that values along k follow one another,
and masks that stand in pairs before the values of both operands.

In a register, two places belong to every four values. The first that the mask marks is in the first place, the second in the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsec.compiler.errors import ModelError, UsageError

Array = np.ndarray[Any, Any]

DEPTH = 16  # values along k
GROUP, KEPT = 4, 2  # of so many consecutive ones, so many are stored
MASK_BYTES, VALUES_BYTES = 16, 64
PAIR_BYTES = 2 * (MASK_BYTES + VALUES_BYTES)  # of two operands


def compress(operands: Array) -> tuple[Array, Array]:
    """Masks uint8 [..., 16] and values uint8 [..., 64] of operands [..., 16, n] of bytes (n = 8) or of two bytes each (n = 4).

    UsageError says where more than two of four are not zero.
    """
    columns = np.ascontiguousarray(np.moveaxis(operands, -1, -2))
    groups = columns.reshape(*columns.shape[:-1], DEPTH // GROUP, GROUP)
    filled = groups != 0
    if (wrong := np.argwhere(filled.sum(axis=-1) > KEPT)).size:
        *_, column, group = wrong[0].tolist()
        raise UsageError(
            f"column {column} of a sparse B operand has {int(filled[tuple(wrong[0])].sum())} values that are not zero among the four "
            f"from k = {GROUP * group} on, and the array multiplies by {KEPT} of them at most: prune the weights to 2:4"
        )
    which = np.sort(np.argsort(~filled, axis=-1, kind="stable")[..., :KEPT], axis=-1)
    values = np.ascontiguousarray(np.take_along_axis(groups, which, axis=-1))
    marked = np.zeros(groups.shape, np.bool_)
    np.put_along_axis(marked, which, True, axis=-1)
    shape, size = operands.shape[:-2], operands.dtype.itemsize
    bits = np.repeat(marked.reshape(*shape, -1), size, axis=-1)
    return np.packbits(bits, axis=-1, bitorder="little"), values.view(np.uint8).reshape(*shape, VALUES_BYTES)


def expand(masks: Array, values: Array, dtype: Any) -> Array:
    """Operands [..., 16, n] of masks uint8 [..., 16] and values uint8 [..., 64], of a type of one byte or two.

    ModelError says where a mask marks more than two of four, or one byte of a value and not the other.
    """
    size = np.dtype(dtype).itemsize
    bits = np.unpackbits(np.ascontiguousarray(masks), axis=-1, bitorder="little")
    marked = bits.reshape(*masks.shape[:-1], -1, size)
    if (marked != marked[..., :1]).any():
        raise ModelError(f"a mask of sparse B marks one byte of a value and not the others: {_text(masks, bits)}")
    groups = marked[..., 0].reshape(*masks.shape[:-1], -1, DEPTH // GROUP, GROUP).astype(np.bool_)
    if (wrong := np.argwhere(groups.sum(axis=-1) > KEPT)).size:
        *_, column, group = wrong[0].tolist()
        raise ModelError(
            f"a mask of sparse B marks {int(groups[tuple(wrong[0])].sum())} of the four values of column {column} from "
            f"k = {GROUP * group} on, and {KEPT} is the most: the weights are not those that were packed"
        )
    stored = np.ascontiguousarray(values).view(dtype).reshape(*groups.shape[:-1], KEPT)
    place = np.clip(np.cumsum(groups, axis=-1) - 1, 0, KEPT - 1)
    dense = np.where(groups, np.take_along_axis(stored, place, axis=-1), np.zeros((), dtype))
    found: Array = np.moveaxis(dense.reshape(*groups.shape[:-2], DEPTH), -1, -2)
    return found


def packed(operands: Array) -> bytes:
    """Pairs of operands [n, 2, 16, columns] as a core reads them: both masks, then the values of the first and of the second."""
    masks, values = compress(operands)
    count = len(operands)
    parts = (masks.reshape(count, 2 * MASK_BYTES), values.reshape(count, 2 * VALUES_BYTES))
    return np.concatenate(parts, axis=1).tobytes()


def _text(masks: Array, bits: Array) -> str:
    """The first of some masks in which bytes of a value differ."""
    pairs = bits.reshape(-1, bits.shape[-1] // 2, 2)
    which = int(np.flatnonzero((pairs[..., 0] != pairs[..., 1]).any(axis=-1))[0])
    return bytes(masks.reshape(-1, masks.shape[-1])[which]).hex()
