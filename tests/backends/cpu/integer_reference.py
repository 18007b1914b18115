"""Layers that sum products of bytes, in plain numpy: what kernels and the interpreter are held against."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
F = np.float32


def convolved(
    x: Array, w: Array, strides: Sequence[int], dilations: Sequence[int], pads: Sequence[int], groups: int, zero: int
) -> Array:
    """int64 sums of (x - zero) * w: x [N, IC, H, W], w [OC, IC / groups, KH, KW], pads before and after as Conv has them."""
    n, oc = x.shape[0], w.shape[0]
    padded = np.pad(x.astype(np.int64) - zero, ((0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])))
    spans = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], dilations, strict=True)]
    oh, ow = ((size - span) // s + 1 for size, span, s in zip(padded.shape[2:], spans, strides, strict=True))
    total = np.zeros((n, groups, oc // groups, oh, ow), np.int64)
    for i, j in product(*map(range, w.shape[2:])):
        rows = slice(i * dilations[0], i * dilations[0] + (oh - 1) * strides[0] + 1, strides[0])
        columns = slice(j * dilations[1], j * dilations[1] + (ow - 1) * strides[1] + 1, strides[1])
        inputs = padded[:, :, rows, columns].reshape(n, groups, -1, oh, ow)
        total += np.einsum("ngihw,goi->ngohw", inputs, w[:, :, i, j].astype(np.int64).reshape(groups, oc // groups, -1))
    return total.reshape(n, oc, oh, ow)


def quantised(real: Array, zero: int, low: int = 0, high: int = 255) -> Array:
    """saturate(round(real) + zero) of float32, as float32."""
    return np.clip(np.rint(real.astype(F)) + F(zero), F(low), F(high)).astype(F)


def _residual(acc: Array, bias: Array, scale: Array, r: Array) -> Array:
    other = ((r.astype(np.int32) - 117).astype(F) * F(0.37)).astype(F)
    return quantised(np.maximum((acc + bias).astype(F) * scale + other, F(0)), 3)


def _twice(acc: Array, bias: Array, scale: Array, r: Array) -> Array:
    inner = quantised(acc.astype(F) * scale, 90)
    return quantised((inner - F(90)) * F(0.25), 128)


def _real(acc: Array, bias: Array, scale: Array, r: Array) -> Array:
    return (acc.astype(F) * scale + (bias.astype(F) * F(0.001)).astype(F)).astype(F)


Epilogue = Callable[[Array, Array, Array, Array], Array]
EPILOGUES: dict[str, tuple[Epilogue, Any]] = {
    "sums": (lambda acc, bias, scale, r: acc, np.int32),
    "bytes": (lambda acc, bias, scale, r: quantised(np.maximum((acc + bias).astype(F) * scale, F(0)), 0), np.uint8),
    "shifted": (lambda acc, bias, scale, r: quantised((acc + bias).astype(F) * scale, 131), np.uint8),
    "clipped": (lambda acc, bias, scale, r: quantised(np.clip((acc + bias).astype(F) * scale, F(0), F(60.5)), 7), np.uint8),
    "residual": (_residual, np.uint8),
    "twice": (_twice, np.uint8),
    "signed": (lambda acc, bias, scale, r: quantised(acc.astype(F) * scale, 0, -128, 127), np.int8),
    "signed low": (lambda acc, bias, scale, r: quantised(acc.astype(F) * scale, -128, -128, 127), np.int8),
    "signed high": (lambda acc, bias, scale, r: quantised(acc.astype(F) * scale, 127, -128, 127), np.int8),
    "ties": (lambda acc, bias, scale, r: quantised(acc.astype(F) * F(0.5), 128), np.uint8),
    "ties low": (lambda acc, bias, scale, r: quantised(acc.astype(F) * F(0.5), 0), np.uint8),
    "ties high": (lambda acc, bias, scale, r: quantised(acc.astype(F) * F(0.5), 255), np.uint8),
    "real": (_real, F),
    "real residual": (lambda acc, bias, scale, r: _real(acc, bias, scale, r) + (r.astype(np.int32) - 9).astype(F), F),
}
"""By name: what becomes of int32 sums [N, OC, ...], given bias and scale of the outputs and a residual; and its type."""
