"""Columns of windows of a batch, and their adding up: what turns a convolution's training into matrix products."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Geometry:
    """A square convolution of images [channels, height, width] by `kernel` x `kernel`."""

    channels: int
    height: int
    width: int
    kernel: int
    stride: int = 1
    pad: int = 0

    @property
    def out(self) -> tuple[int, int]:
        """Height and width of the result."""
        high, wide = ((n + 2 * self.pad - self.kernel) // self.stride + 1 for n in (self.height, self.width))
        return high, wide

    def columns(self, x: Array) -> Array:
        """[batch, channels, height, width] -> [K, batch * positions], K tap by tap, as W [M, K] has it."""
        padded = np.pad(x, ((0, 0), (0, 0), (self.pad, self.pad), (self.pad, self.pad)))
        parts = [np.moveaxis(padded[where], 1, 0).reshape(self.channels, -1) for where in self._taps()]
        return np.concatenate(parts)

    def added(self, columns: Array, batch: int) -> Array:
        """The transpose: every column's elements added to where they came from."""
        shape = (batch, self.channels, self.height + 2 * self.pad, self.width + 2 * self.pad)
        padded = np.zeros(shape, columns.dtype)
        for where, part in zip(self._taps(), np.split(columns, self.kernel**2), strict=True):
            padded[where] += np.moveaxis(part.reshape(self.channels, batch, *self.out), 0, 1)
        inner = slice(self.pad, -self.pad or None)
        return padded[:, :, inner, inner]

    def _taps(self) -> Iterator[tuple[slice, ...]]:
        """The elements of padded images that each tap of all windows reads."""
        (high, wide), step = self.out, self.stride
        for i in range(self.kernel):
            for j in range(self.kernel):
                rows, cols = slice(i, i + step * (high - 1) + 1, step), slice(j, j + step * (wide - 1) + 1, step)
                yield slice(None), slice(None), rows, cols
