"""Columns of windows of a batch, and their adding up: what turns a convolution's training into matrix products."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Geometry:
    """The windows of images [channels, height, width]: rows and columns of the kernel, of its steps and of its gaps; `pads` are
    rows above, columns left, rows below and columns right."""

    channels: int
    height: int
    width: int
    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def out(self) -> tuple[int, int]:
        """Height and width of the result."""
        high, wide = (
            (extent + self.pads[i] + self.pads[2 + i] - (self.kernel[i] - 1) * self.dilations[i] - 1) // self.strides[i] + 1
            for i, extent in enumerate((self.height, self.width))
        )
        return high, wide

    def columns(self, x: Array) -> Array:
        """[batch, channels, height, width] -> [K, batch * positions], K tap by tap, as W [M, K] has it."""
        padded = np.pad(x, ((0, 0), (0, 0), self.pads[::2], self.pads[1::2]))
        parts = [np.moveaxis(padded[where], 1, 0).reshape(self.channels, -1) for where in self._taps()]
        return np.concatenate(parts)

    def added(self, columns: Array, batch: int) -> Array:
        """The transpose: every column's elements added to where they came from."""
        top, left, bottom, right = self.pads
        padded = np.zeros((batch, self.channels, self.height + top + bottom, self.width + left + right), columns.dtype)
        for where, part in zip(self._taps(), np.split(columns, self.kernel[0] * self.kernel[1]), strict=True):
            padded[where] += np.moveaxis(part.reshape(self.channels, batch, *self.out), 0, 1)
        return padded[:, :, top : top + self.height, left : left + self.width]

    def _taps(self) -> Iterator[tuple[slice, ...]]:
        """The elements of padded images that each tap of all windows reads."""
        high, wide = self.out
        for i, j in product(*map(range, self.kernel)):
            top, left = i * self.dilations[0], j * self.dilations[1]
            rows = slice(top, top + self.strides[0] * (high - 1) + 1, self.strides[0])
            cols = slice(left, left + self.strides[1] * (wide - 1) + 1, self.strides[1])
            yield slice(None), slice(None), rows, cols
