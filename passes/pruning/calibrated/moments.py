"""First and second moments of what a layer reads and of what it should give, over rows drawn from calibration samples."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from sparsec.compiler.graph import Node
from sparsec.compiler.ops.conv import Conv

Array = np.ndarray[Any, Any]
_CHUNK = 4096  # rows whose products are summed in float32


class Moments:
    """Running moments of rows x [groups, K], K = taps * input channels of a group (taps first), and targets t [OC].

    Products of a few thousand rows, taken from an early mean, are summed in float32, and those sums in float64: the result is
    that of float64 to about 1e-6.
    """

    def __init__(self, groups: int, columns: int, outputs: int) -> None:
        self.groups, self.columns, self.outputs = groups, columns, outputs
        self.count = 0
        self._x0 = np.zeros((groups, columns), np.float32)
        self._t0 = np.zeros(outputs, np.float32)
        self._x, self._xx = np.zeros((groups, columns)), np.zeros((groups, columns, columns))
        self._t, self._tt = np.zeros(outputs), np.zeros(outputs)
        self._tx = np.zeros((groups, outputs // groups, columns))

    def add(self, x: Array, t: Array) -> None:
        """Take rows x [n, groups, K] and their targets t [n, OC] in."""
        for begin in range(0, len(x), _CHUNK):
            with np.errstate(over="ignore", invalid="ignore"):  # `finite` tells
                self._add(x[begin : begin + _CHUNK].astype(np.float32), t[begin : begin + _CHUNK].astype(np.float32))

    def _add(self, x: Array, t: Array) -> None:
        if not self.count and len(x):
            self._x0, self._t0 = x.mean(axis=0), t.mean(axis=0)
        self.count += len(x)
        x, t = x - self._x0, t - self._t0
        by_group = np.ascontiguousarray(x.transpose(1, 0, 2))
        targets = np.ascontiguousarray(t.reshape(len(t), self.groups, -1).transpose(1, 2, 0))
        self._xx += by_group.transpose(0, 2, 1) @ by_group
        self._tx += targets @ by_group
        self._x += x.sum(axis=0, dtype=np.float64)
        self._t += t.sum(axis=0, dtype=np.float64)
        self._tt += np.square(t).sum(axis=0, dtype=np.float64)

    @property
    def finite(self) -> bool:
        """Whether no row held NaN or infinity."""
        return bool(np.isfinite(self._xx).all() and np.isfinite(self._tt).all())

    @property
    def mean(self) -> Array:
        """E[x], [groups, K]."""
        return self._x0 + self._x / self.count

    @property
    def target_mean(self) -> Array:
        """E[t], [OC]."""
        return self._t0 + self._t / self.count

    @property
    def target_variance(self) -> Array:
        """Var[t], [OC]."""
        return np.maximum(self._tt / self.count - np.square(self._t / self.count), 0)

    @property
    def covariance(self) -> Array:
        """E[x x'] - E[x] E[x]', [groups, K, K]."""
        mean = self._x / self.count
        return self._xx / self.count - mean[:, :, None] * mean[:, None, :]

    @property
    def cross_covariance(self) -> Array:
        """E[t x'] - E[t] E[x]', [groups, OC / groups, K]."""
        mean, target = self._x / self.count, (self._t / self.count).reshape(self.groups, -1)
        return self._tx / self.count - target[:, :, None] * mean[:, None, :]


class RowSampler:
    """Which output positions of a layer are looked at: the same ones for all values of a batch, at most `limit` in all."""

    def __init__(self, limit: int, batches: int, seed: int) -> None:
        self._quota, self._seed = max(limit // max(batches, 1), 1), seed

    def rows(self, batch: int, positions: int) -> Array:
        """Ascending row numbers below `positions`, drawn without repetition."""
        if positions <= self._quota:
            return np.arange(positions)
        rng = np.random.default_rng((self._seed, batch, positions))
        return np.sort(rng.choice(positions, self._quota, replace=False))


def output_positions(node: Node, shape: Sequence[int]) -> int:
    """Rows that a result of `shape` has: one an output position, of all samples."""
    total = int(np.prod(shape, dtype=np.int64))
    return total // shape[1 if isinstance(node.op, Conv) else -1]


def output_rows(node: Node, result: Array, rows: Array) -> Array:
    """The chosen rows of a layer's result (or of a value of that shape), [rows, OC]."""
    if not isinstance(node.op, Conv):
        return result.reshape(-1, result.shape[-1])[rows]
    sample, place = np.divmod(rows, int(np.prod(result.shape[2:], dtype=np.int64)))
    return np.asarray(result.reshape(*result.shape[:2], -1)[sample, :, place])


def input_rows(node: Node, x: Array, kernel: Sequence[int], out: Sequence[int], rows: Array) -> Array:
    """What the chosen rows of a layer's result are computed from, [rows, groups, taps * IC].

    `kernel` and `out` are the spatial extents of the weights and of the result of a convolution (empty for a product).
    """
    op = node.op
    if not isinstance(op, Conv):
        return x.reshape(-1, x.shape[-1])[rows][:, None, :]
    n, channels = len(op.strides), x.shape[1] // op.groups
    padded = np.pad(x, [(0, 0), (0, 0), *((op.pads[i], op.pads[n + i]) for i in range(n))])
    last = np.ascontiguousarray(np.moveaxis(padded, 1, -1))
    sample, *place = np.unravel_index(rows, (len(x), *out))
    found = np.empty((len(rows), op.groups, int(np.prod(kernel, dtype=np.int64)), channels), x.dtype)
    for tap, offset in enumerate(product(*map(range, kernel))):
        at = [p * s + o * d for p, s, o, d in zip(place, op.strides, offset, op.dilations, strict=True)]
        found[:, :, tap] = last[(sample, *at)].reshape(len(rows), op.groups, channels)
    return found.reshape(len(rows), op.groups, -1)
