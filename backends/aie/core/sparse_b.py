"""Compressed B operands: matrices in which at most two of every four consecutive values along k are not zero.

An operand is what a sparse product reads as B: [16, 8] bytes or [16, 4] bfloat16, 128 bytes. Compressed it is a mask of 128 bits,
one for each of these bytes, and 64 bytes of values. That is AIE-ML's sparse format (AMD AM020: a mask of one bit a byte, then the
bytes that it marks) where a mask marks exactly two of every four values, which is what we make: zeros fill up groups that have
fewer, so that all operands are of one size. Ours are also the order, column by column, so that values along k follow one another,
and masks that stand in pairs before the values of both operands.

In a register, two places belong to every four values. The first that the mask marks is in the first place, the second in the
other.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from sparsec.compiler.errors import ModelError, UsageError

Array = np.ndarray[Any, Any]

DEPTH = 16  # values along k
GROUP, KEPT = 4, 2  # of so many consecutive ones, so many are stored
MASK_BYTES, VALUES_BYTES = 16, 64
PAIR_BYTES = 2 * (MASK_BYTES + VALUES_BYTES)  # of two operands

_BITS = np.unpackbits(np.arange(1 << GROUP, dtype=np.uint8)[:, None], axis=1, bitorder="little")[:, :GROUP].astype(np.int64)
_MARKED = _BITS.sum(axis=1)  # how many of four values
_PLACES = np.where(_BITS, np.minimum(np.cumsum(_BITS, axis=1) - 1, KEPT - 1), KEPT)  # of each in a register, KEPT: of none
_TORN = 255  # a mask of values of two bytes that marks one byte of one
_HALVED = np.full(256, _TORN, np.uint8)  # four such values as four bits
_HALVED[_BITS @ (3 << 2 * np.arange(GROUP))] = np.arange(1 << GROUP)


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
            f"column {column} of a sparse B operand has {int(filled[tuple(wrong[0])].sum())} values that are not zero among the "
            f"four from k = {GROUP * group} on, and the array multiplies by {KEPT} of them at most: prune the weights to 2:4"
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
    groups = _groups(masks, size)
    stored = np.ascontiguousarray(values).view(dtype).reshape(-1, KEPT)
    padded = np.zeros((len(stored), KEPT + 1), dtype)
    padded[:, :KEPT] = stored
    places = _PLACES[groups.reshape(-1)] + (KEPT + 1) * np.arange(len(stored))[:, None]
    dense = padded.reshape(-1)[places].reshape(*masks.shape[:-1], -1, DEPTH)
    found: Array = np.moveaxis(dense, -1, -2)
    return found


def _groups(masks: Array, size: int) -> Array:
    """Which of every four values masks mark, as numbers of four bits [..., columns, groups]."""
    if size == 1:
        groups = np.stack((masks & 15, masks >> 4), axis=-1).reshape(*masks.shape[:-1], -1, DEPTH // GROUP)
    else:
        groups = _HALVED[masks].reshape(*masks.shape[:-1], -1, DEPTH // GROUP)
        if (groups == _TORN).any():
            which = np.argwhere((groups == _TORN).any(axis=(-1, -2)))[0]
            told = bytes(masks[tuple(which)]).hex()
            raise ModelError(f"a mask of sparse B marks one byte of a value and not the other: {told}")
    if (wrong := np.argwhere(_MARKED[groups] > KEPT)).size:
        *_, column, group = wrong[0].tolist()
        raise ModelError(
            f"a mask of sparse B marks {_MARKED[groups[tuple(wrong[0])]]} of the four values of column {column} from "
            f"k = {GROUP * group} on, and {KEPT} is the most: the weights are not those that were packed"
        )
    return groups


def as_float(masks: Array, values: Array, dtype: Any) -> Array:
    """As `expand`, in float32, remembered for those that come again: cores have the same weights, and weights many tiles."""
    return _as_float(masks.tobytes(), np.ascontiguousarray(values).tobytes(), masks.shape[:-1], np.dtype(dtype))


@lru_cache(maxsize=512)
def _as_float(masks: bytes, values: bytes, shape: tuple[int, ...], dtype: Any) -> Array:
    marked = np.frombuffer(masks, np.uint8).reshape(*shape, MASK_BYTES)
    stored = np.frombuffer(values, np.uint8).reshape(*shape, VALUES_BYTES)
    found: Array = np.ascontiguousarray(expand(marked, stored, dtype).astype(np.float32))
    found.flags.writeable = False
    return found


def packed(operands: Array) -> bytes:
    """Pairs of operands [n, 2, 16, columns] as a core reads them: both masks, then the values of the first and of the second."""
    masks, values = compress(operands)
    count = len(operands)
    parts = (masks.reshape(count, 2 * MASK_BYTES), values.reshape(count, 2 * VALUES_BYTES))
    return np.concatenate(parts, axis=1).tobytes()
