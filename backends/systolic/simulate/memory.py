"""The data memory, read by im2col on the fly, and the output memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from sparsec.backends.systolic.isa import Output, Windows
from sparsec.backends.systolic.stream_error import StreamError

Array = np.ndarray[Any, Any]
MAX_EXTENT, MAX_ELEMENTS = 1 << 24, 1 << 28  # of X: what a corrupt stream may make the simulator allocate


@dataclass(frozen=True)
class DataUnit:
    """X[K, N] as `op` finds it in the data memory; `zero` is subtracted from what is read, and what is outside is 0."""

    op: Windows
    memory: Array
    zero: int
    offset: int

    def __post_init__(self) -> None:
        op = self.op
        if max(self.extent, self.positions) > MAX_EXTENT:
            raise StreamError(self.offset, f"X would be {self.extent} x {self.positions}, and both are {MAX_EXTENT} at most")
        last = op.base + (op.images - 1) * op.image_stride + (op.channels - 1) * op.channel_stride
        last += (op.height - 1) * op.row_stride + (op.width - 1) * op.column_stride
        if last >= self.memory.size:
            raise StreamError(self.offset, f"the windows reach element {last} of a data memory of {self.memory.size}")

    @property
    def extent(self) -> int:
        """K."""
        return self.op.kernel_h * self.op.kernel_w * self.op.channels

    @property
    def positions(self) -> int:
        """N."""
        return self.op.images * self.op.out_h * self.op.out_w

    @cached_property
    def _reach(self) -> tuple[Array, Array]:
        """Rows y [kernel_h, out_h] and columns x [kernel_w, out_w] of the windows, before the limits."""
        op = self.op
        y = np.arange(op.kernel_h)[:, None] * op.dilation_h + np.arange(op.out_h) * op.stride_h - op.pad_top
        x = np.arange(op.kernel_w)[:, None] * op.dilation_w + np.arange(op.out_w) * op.stride_w - op.pad_left
        return y, x

    @cached_property
    def inside(self) -> Array:
        """[K]: how many of the N elements of a row of X are read rather than injected."""
        op, (y, x) = self.op, self._reach
        rows, cols = ((y >= 0) & (y < op.height)).sum(axis=1), ((x >= 0) & (x < op.width)).sum(axis=1)
        return np.repeat(op.images * rows[:, None] * cols, op.channels)

    def gather(self, k: Array, n: Array) -> tuple[Array, Array]:
        """(values, whether each was read) of the elements (k, n), which broadcast; k = -1 is nothing, and 0."""
        op = self.op
        tap, channel = np.divmod(np.maximum(k, 0), op.channels)
        kernel_row, kernel_column = np.divmod(tap, op.kernel_w)
        image, position = np.divmod(n, op.out_h * op.out_w)
        row, column = np.divmod(position, op.out_w)
        y = row * op.stride_h + kernel_row * op.dilation_h - op.pad_top
        x = column * op.stride_w + kernel_column * op.dilation_w - op.pad_left
        read = (y >= 0) & (y < op.height) & (x >= 0) & (x < op.width) & (k >= 0)
        address = op.base + image * op.image_stride + channel * op.channel_stride + y * op.row_stride + x * op.column_stride
        values = self.memory[np.where(read, address, 0)]
        return np.where(read, self._centred(values), 0), read

    def _centred(self, values: Array) -> Array:
        return values.astype(np.int32) - self.zero if values.dtype != np.float32 else values

    @cached_property
    def whole(self) -> Array:
        """X."""
        op, (ys, xs) = self.op, self._reach
        if self.extent * self.positions > MAX_ELEMENTS:
            shape = f"{self.extent} x {self.positions}"
            raise StreamError(self.offset, f"X would be {shape}, more elements than the {MAX_ELEMENTS} that fit the simulator")
        strides = (op.image_stride, op.channel_stride, op.row_stride, op.column_stride)
        view = np.lib.stride_tricks.as_strided(
            self.memory[op.base :],
            (op.images, op.channels, op.height, op.width),
            tuple(s * self.memory.itemsize for s in strides),
            writeable=False,
        )
        number = np.float32 if view.dtype == np.float32 else np.int32
        out = np.zeros((op.kernel_h, op.kernel_w, op.channels, op.images, op.out_h, op.out_w), number)
        for i, y in enumerate(ys):
            rows = np.flatnonzero((y >= 0) & (y < op.height))
            for j, x in enumerate(xs):
                cols = np.flatnonzero((x >= 0) & (x < op.width))
                if len(rows) and len(cols):
                    part = view[:, :, y[rows[0]] : y[rows[-1]] + 1 : op.stride_h, x[cols[0]] : x[cols[-1]] + 1 : op.stride_w]
                    out[i, j, :, :, rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1] = self._centred(np.moveaxis(part, 0, 1))
        return out.reshape(self.extent, self.positions)


@dataclass(frozen=True)
class OutputUnit:
    """Y[M, N] as `op` places it in the output memory."""

    op: Output
    memory: Array
    offset: int

    def addresses(self, rows: Array, columns: Array) -> Array:
        """Of the elements (row, column), [rows, columns]; StreamError when one is not in memory."""
        op = self.op
        image, position = np.divmod(columns, op.positions)
        found = op.base + rows[:, None] * op.row_stride + image * op.image_stride + position * op.column_stride
        if found.size and found.max() >= self.memory.size:
            raise StreamError(self.offset, f"element {int(found.max())} of an output memory of {self.memory.size} is written")
        return np.asarray(found)

    def put(self, rows: Array, columns: Array, sums: Array, add: bool) -> None:
        """Store, or add, sums [rows, columns]."""
        at = self.addresses(rows, columns)
        self.memory[at] = self.memory[at] + sums if add else sums
