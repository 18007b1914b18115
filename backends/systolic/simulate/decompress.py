"""The decompression unit: from a strip's bytes to the weights of every step, with what it reads for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsec.backends.systolic.isa import Configure, Decompress, Format, LoadWeights, Number
from sparsec.backends.systolic.stream_error import StreamError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Operands:
    """Weights of a strip as the array takes them.

    `index` [steps, lanes]: which row of X (OS, WS) or of Y (IS) a lane stands for, -1 for none. `lane` [steps, rows]: the one
    that a weight multiplies. `values` [steps, rows]. `stored` [steps]: values that are in memory (the others are injected zeros);
    `index_bytes`: what is read besides them.
    """

    index: Array
    lane: Array
    values: Array
    stored: Array
    index_bytes: int


@dataclass
class _Reader:
    """Takes parts off a strip's bytes, one after the other."""

    offset: int
    address: int
    data: bytes
    at: int = 0

    def refuse(self, reason: str) -> StreamError:
        return StreamError(self.offset, f"the weights at 0x{self.address:x}: {reason}")

    def take(self, size: int, what: str) -> bytes:
        if self.at + size > len(self.data):
            raise self.refuse(f"{what} end at byte {self.at + size} of {len(self.data)}")
        self.at += size
        return self.data[self.at - size : self.at]

    def bits(self, count: int, width: int, what: str) -> Array:
        raw = np.frombuffer(self.take((count * width + 7) // 8, what), np.uint8)
        each = np.unpackbits(raw, bitorder="little")
        if each[count * width :].any():
            raise self.refuse(f"{what} are followed by bits that are not 0")
        return each[: count * width].reshape(count, width).astype(np.int64) @ (1 << np.arange(width))

    def numbers(self, count: int, dtype: str, what: str) -> Array:
        return np.frombuffer(self.take(count * np.dtype(dtype).itemsize, what), dtype)


def read_strip(offset: int, op: LoadWeights | Decompress, config: Configure, weights: bytes) -> Operands:
    """The weights that a micro-op at `offset` points at; StreamError when they are not in memory or no strip."""
    dtype = "<f4" if config.weights is Number.F32 else "i1"
    if isinstance(op, LoadWeights):
        size = op.rows * op.steps * np.dtype(dtype).itemsize
    else:
        size = op.size
    if op.address + size > len(weights):
        span = f"0x{op.address:x} to 0x{op.address + size:x}"
        raise StreamError(offset, f"weights from {span} of a memory of 0x{len(weights):x} bytes")
    reader = _Reader(offset, op.address, weights[op.address : op.address + size])
    if isinstance(op, LoadWeights):
        values = reader.numbers(op.steps * op.rows, dtype, "values").reshape(op.steps, op.rows)
        index = op.first + np.arange(op.steps)[:, None]
        return Operands(index, np.zeros(values.shape, np.int64), values, np.full(op.steps, op.rows), 0)
    found = _READERS[op.format](reader, op, dtype, config.lanes)
    if reader.at != size:
        raise reader.refuse(f"the strip takes {reader.at} bytes, not {size}")
    return found


def _bitmap(reader: _Reader, op: Decompress, dtype: str, lanes: int) -> Operands:
    index = np.flatnonzero(reader.bits(op.extent, 1, "column bits"))
    if len(index) != op.steps:
        raise reader.refuse(f"{len(index)} column bits are set, and there are {op.steps} steps")
    mask = _elements(reader, op)
    read = reader.at
    return Operands(index[:, None], np.zeros(mask.shape, np.int64), _spread(reader, mask, dtype), mask.sum(axis=1), read)


def _columns(reader: _Reader, op: Decompress, dtype: str, lanes: int) -> Operands:
    index = reader.numbers(op.steps, _index_type(op), "column indices").astype(np.int64)
    counts = reader.numbers(op.steps, "<u2", "counts").astype(np.int64)
    if (np.diff(index) <= 0).any() or (index >= op.extent).any():
        raise reader.refuse(f"column indices do not ascend below {op.extent}")
    if not counts.all():
        raise reader.refuse(f"step {int(counts.argmin())} has no elements")
    step = np.repeat(np.arange(op.steps), counts)
    rows = reader.numbers(len(step), "u1", "rows").astype(np.int64)
    if (rows >= op.rows).any() or (np.diff(rows)[np.diff(step) == 0] <= 0).any():
        raise reader.refuse(f"rows of a column do not ascend below {op.rows}")
    mask = np.zeros((op.steps, op.rows), bool)
    mask[step, rows] = True
    read = reader.at
    return Operands(index[:, None], np.zeros(mask.shape, np.int64), _spread(reader, mask, dtype), counts, read)


def _packed(reader: _Reader, op: Decompress, dtype: str, lanes: int) -> Operands:
    kind = _index_type(op)
    raw = reader.numbers(op.steps * lanes, kind, "column indices").astype(np.int64).reshape(op.steps, lanes)
    index = np.where(raw == np.iinfo(kind).max, -1, raw)
    if (index >= op.extent).any():
        raise reader.refuse(f"a column index is not below {op.extent}")
    mask = _elements(reader, op)
    lane = np.zeros(mask.shape, np.int64)
    lane[mask] = reader.bits(int(mask.sum()), max(1, (lanes - 1).bit_length()), "lanes")
    if (lane >= lanes).any() or (np.take_along_axis(index, lane, axis=1)[mask] < 0).any():
        raise reader.refuse("an element is on a lane that is not there")
    read = reader.at
    return Operands(index, lane, _spread(reader, mask, dtype), mask.sum(axis=1), read)


def _nm(reader: _Reader, op: Decompress, dtype: str, lanes: int) -> Operands:
    position = reader.bits(op.steps * op.rows, max(1, (op.group - 1).bit_length()), "positions").reshape(op.steps, op.rows)
    if (position >= op.group).any():
        raise reader.refuse(f"a position is not below {op.group}")
    first = np.arange(op.steps) // op.keep * op.group
    index = np.full((op.steps, lanes), -1, np.int64)
    index[:, : op.group] = first[:, None] + np.arange(op.group)
    index[index >= op.extent] = -1
    read = reader.at
    values = reader.numbers(op.steps * op.rows, dtype, "values").reshape(op.steps, op.rows)
    if (np.take_along_axis(index, position, axis=1)[values != 0] < 0).any():
        raise reader.refuse(f"an element is in a column from {op.extent} on")
    return Operands(index, position, values, np.full(op.steps, op.rows), read)


_READERS = {Format.BITMAP: _bitmap, Format.COLUMNS: _columns, Format.PACKED: _packed, Format.NM: _nm}


def _index_type(op: Decompress) -> str:
    return "<u2" if op.extent < 1 << 16 else "<u4"


def _elements(reader: _Reader, op: Decompress) -> Array:
    mask = reader.bits(op.steps * op.rows, 1, "element bits").reshape(op.steps, op.rows).astype(bool)
    if not mask.any(axis=1).all():
        raise reader.refuse(f"step {int(mask.any(axis=1).argmin())} has no elements")
    return mask


def _spread(reader: _Reader, mask: Array, dtype: str) -> Array:
    """The stored values where the mask is set, injected zeros elsewhere."""
    values = np.zeros(mask.shape, dtype)
    values[mask] = reader.numbers(int(mask.sum()), dtype, "values")
    return values
