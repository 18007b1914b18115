"""A matrix product as the array sees it: W[M, K], and where X[K, N] and Y[M, N] are in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sparsec.backends.systolic.isa import Number, Output, Windows

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Gemm:
    """Y = W X. `w` [M, K] is float32 or int8; `data` and `zero` are the element type of X and what stands for 0 in it."""

    name: str
    w: Array
    windows: Windows
    output: Output
    data: Number
    zero: int = 0

    @property
    def m(self) -> int:
        """Rows of W and Y."""
        return int(self.w.shape[0])

    @property
    def k(self) -> int:
        """Columns of W, rows of X."""
        return int(self.w.shape[1])

    @property
    def n(self) -> int:
        """Columns of X and Y."""
        return self.windows.images * self.windows.out_h * self.windows.out_w

    @property
    def reach(self) -> int:
        """Elements of the data memory up to the last one that X holds."""
        x = self.windows
        last = x.base + (x.images - 1) * x.image_stride + (x.channels - 1) * x.channel_stride
        return last + (x.height - 1) * x.row_stride + (x.width - 1) * x.column_stride + 1

    @property
    def weights(self) -> Number:
        """The element type of W."""
        return Number.F32 if self.w.dtype == np.float32 else Number.I8


def plain_windows(k: int, n: int, *, base: int = 0, across: int = 1, down: int | None = None) -> Windows:
    """X [K, N] as a matrix: `across` elements between columns, `down` (N by default) between rows."""
    row = n if down is None else down
    return Windows(base, 1, k, 1, n, 0, row, 0, across, 1, 1, 1, 1, 1, 1, 0, 0, 1, n)


def plain_output(n: int, *, base: int = 0, across: int = 1, down: int | None = None) -> Output:
    """Y [M, N] as a matrix, likewise."""
    return Output(base, n if down is None else down, across, n, 0)


def product(w: Array, x: Array, name: str = "product", zero: int = 0) -> Gemm:
    """W X with x [K, N], row-major, as the whole data memory, and Y, row-major, as the whole output memory."""
    k, n = x.shape
    number = {np.dtype(np.float32): Number.F32, np.dtype(np.int8): Number.I8, np.dtype(np.uint8): Number.U8}[x.dtype]
    return Gemm(name, w, plain_windows(k, n), plain_output(n), number, zero)
