"""Weights as int8 and biases as int32."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
LARGEST = 127  # symmetric: -128 is not used
REDUCED = 64  # two of them sum to at most 128, so that 16 bits hold the sum of two products with uint8
_BIAS_LIMIT = 2**30  # leaves as much again to the sums


@dataclass(frozen=True)
class QuantisedWeights:
    """int8 `data` times `scale` (float32, [OC] or [], along `axis`)."""

    data: Array
    scale: Array
    axis: int

    @property
    def real(self) -> Array:
        """The float32 numbers that the integers stand for."""
        return (self.data.astype(np.float32) * _column(self.scale, self.data.ndim, self.axis)).astype(np.float32)


def quantise_weights(
    weights: Array,
    axis: int,
    *,
    per_channel: bool = True,
    power_of_two: bool = False,
    reduce_range: bool = False,
    bias: Array | None = None,
    x_scale: float = 1.0,
) -> QuantisedWeights:
    """Symmetric int8 weights, one scale for each output channel or one for all. Zeros stay zeros.

    The scale is max|w| / 127, or / 64 to `reduce_range`, and larger where the channel's bias in units of x_scale * scale
    would not fit its int32.
    """
    most = REDUCED if reduce_range else LARGEST
    rows = np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1).astype(np.float64)
    largest = np.abs(rows).max(axis=1) if rows.size else np.zeros(len(rows))
    need = np.abs(bias).astype(np.float64) / (x_scale * _BIAS_LIMIT) if bias is not None else np.zeros(len(rows))
    if not per_channel:
        largest, need = largest.max(keepdims=True), need.max(keepdims=True)
    scale = np.maximum(largest / most, need)
    if bias is not None:  # a channel without weights is its bias
        fine = np.abs(bias).astype(np.float64) / (x_scale * 2**20)
        scale = np.where(scale > need, scale, np.maximum(need, fine if per_channel else fine.max()))
    scale = np.where(scale > np.finfo(np.float32).tiny, scale, 1.0)
    if power_of_two:
        scale = _nearest_power(rows if per_channel else rows.reshape(1, -1), scale, need, most)
    stored = scale.astype(np.float32) if per_channel else scale.astype(np.float32)[0]
    wide = np.rint(weights / _column(np.asarray(stored), weights.ndim, axis))
    return QuantisedWeights(np.clip(wide, -most, most).astype(np.int8), np.asarray(stored), axis)


def quantise_bias(bias: Array, x_scale: float, w_scale: Array) -> tuple[Array, Array]:
    """int32 [OC] and its scale, float32 x_scale * w_scale of the shape of w_scale."""
    scale = (np.float32(x_scale) * w_scale.astype(np.float32)).astype(np.float32)
    wide = np.rint(bias.astype(np.float64) / scale)
    return np.clip(wide, -(2**31) + 1, 2**31 - 1).astype(np.int32), scale


def _nearest_power(rows: Array, scale: Array, need: Array, most: int) -> Array:
    """For each row, of the powers of two next to the scale the one with the smaller squared error."""
    below = np.exp2(np.floor(np.log2(scale)))
    above = np.exp2(np.ceil(np.log2(scale)))
    errors = []
    for s in (below, above):
        q = np.clip(np.rint(rows / s[:, None]), -most, most)
        errors.append(((q * s[:, None] - rows) ** 2).sum(axis=1))
    return np.where((errors[0] < errors[1]) & (below >= need), below, above)


def _column(scale: Array, rank: int, axis: int) -> Array:
    return scale if scale.ndim == 0 else scale.reshape([-1 if i == axis % rank else 1 for i in range(rank)])


def sqnr(signal: float, noise: float) -> float:
    """Signal to quantisation noise in dB from sums of squares; infinite without noise."""
    return math.inf if noise <= 0 else 10 * math.log10(max(signal, 1e-300) / noise)
