"""Resize: interpolation along any dimensions, one after the other. Each dimension is a small table of taps and weights."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from sparsec.compiler.axes import FIXED, Access, AxisMap, Dim, Iter
from sparsec.compiler.errors import ModelError
from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.ops.base import Array, InArrays, InTypes, Op, need, normal_axis, register, value
from sparsec.compiler.types import TensorType

MODES = ("nearest", "linear", "cubic")
COORDINATES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_half_pixel_for_nn",
    "tf_crop_and_resize",
)
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")


@register
@dataclass(frozen=True, slots=True)
class Resize(Op):
    """y has the extents `sizes`; along every dimension y[i] = sum over t of weight[i, t] * x[index[i, t]] (see `taps`).

    `scales` are output over input extents as the model states them (they need not divide exactly), `coordinates`, `mode` and
    `rounding` ONNX's coordinate_transformation_mode, mode and nearest_mode. `roi` (starts, then ends) and `extrapolation` serve
    tf_crop_and_resize only, `cubic_a` and `exclude_outside` cubic only.
    """

    sizes: tuple[int, ...]
    scales: tuple[float, ...]
    mode: str = "nearest"
    coordinates: str = "half_pixel"
    rounding: str = "round_prefer_floor"
    cubic_a: float = -0.75
    exclude_outside: bool = False
    extrapolation: float = 0.0
    roi: tuple[float, ...] = ()
    name = "Resize"
    summary = "nearest, linear or cubic interpolation, every coordinate mode of ONNX"

    def infer(self, inputs: InTypes) -> tuple[TensorType, ...]:
        x = need(inputs, 0, "data")
        if len(self.sizes) != x.rank or len(self.scales) != x.rank or any(s < 0 for s in self.sizes):
            raise ModelError(f"sizes {list(self.sizes)} and scales {list(self.scales)} do not fit {x}")
        if self.mode not in MODES or self.coordinates not in COORDINATES or self.rounding not in ROUNDINGS:
            raise ModelError(f"resizing with {self.mode}, {self.coordinates}, {self.rounding} is not defined")
        if any(not s > 0 for s in self.scales) or (0 in x.shape and 0 not in self.sizes):
            raise ModelError(f"scales {list(self.scales)} of {x} must be positive")
        return (TensorType(x.dtype, self.sizes),)

    def workspace(self, inputs: InTypes) -> int:
        """The data, resized along some dimensions and not yet along others, in up to four taps."""
        x = need(inputs, 0, "data")
        return 4 * prod(map(max, x.shape, self.sizes)) * max(x.dtype.itemsize, 4)

    def resized(self, shape: tuple[int, ...]) -> list[int]:
        """The dimensions of data of this shape that change (the others pass through)."""
        cropped = self.coordinates == "tf_crop_and_resize"
        rank = len(shape)
        return [
            i
            for i in range(rank)
            if self.scales[i] != 1 or self.sizes[i] != shape[i] or (cropped and (self.roi[i], self.roi[rank + i]) != (0, 1))
        ]

    def taps(self, axis: int, extent: int) -> tuple[Array, Array, Array]:
        """(index int64 [out, taps], weight float32 [out, taps], inside bool [out]) for a dimension of `extent` elements.

        Outputs that are not inside take the extrapolation value. Coordinates are float32, as in onnxruntime, so that rounding
        falls on the same side.
        """
        x = self._coordinates(axis, extent)
        inside = np.ones(x.shape, np.bool_)
        if self.coordinates == "tf_crop_and_resize":
            inside = (x >= 0) & (x <= extent - 1)
        if self.mode == "nearest":
            rounded = {
                "round_prefer_floor": np.ceil(x - np.float32(0.5)),
                "round_prefer_ceil": np.floor(x + np.float32(0.5)),
                "floor": np.floor(x),
                "ceil": np.ceil(x),
            }[self.rounding]
            index, weight = rounded.astype(np.int64)[:, None], np.ones((len(x), 1), np.float32)
        elif self.mode == "linear":
            x = np.clip(x, 0, extent - 1)
            low = np.floor(x)
            index = low.astype(np.int64)[:, None] + np.arange(2)
            weight = np.stack([1 - (x - low), x - low], axis=1)
        else:
            index, weight = self._cubic(x, extent)
        return np.clip(index, 0, extent - 1), weight.astype(np.float32), inside

    def _cubic(self, x: Array, extent: int) -> tuple[Array, Array]:
        """Keys' cubic convolution kernel (1981) with parameter a, four taps."""
        a, low = np.float32(self.cubic_a), np.floor(x)
        index = low.astype(np.int64)[:, None] + np.arange(-1, 3)
        d = np.abs(x[:, None] - index.astype(np.float32))
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        weight = np.where(d <= 1, near, far)
        if self.exclude_outside:
            weight = np.where((index < 0) | (index >= extent), np.float32(0), weight)
            weight = weight / weight.sum(axis=1, keepdims=True)
        return index, weight

    def _coordinates(self, axis: int, extent: int) -> Array:
        """The place in the data, float32, of every output index along `axis`."""
        out, mode, f = self.sizes[axis], self.coordinates, np.float32
        i, scale = np.arange(out, dtype=f), f(self.scales[axis])
        if mode == "asymmetric":
            return i / scale
        if mode == "align_corners":
            return i * f(extent - 1) / f(out - 1) if out > 1 else np.zeros(out, f)
        if mode == "tf_half_pixel_for_nn":
            return (i + f(0.5)) / scale
        if mode == "tf_crop_and_resize":
            start, end = f(self.roi[axis]), f(self.roi[len(self.sizes) + axis])
            if out > 1:
                return start * f(extent - 1) + i * (end - start) * f(extent - 1) / f(out - 1)
            return np.full(out, f(0.5) * (start + end) * f(extent - 1), f)
        if mode == "pytorch_half_pixel" and out <= 1:
            return np.zeros(out, f)
        half = (i + f(0.5)) / scale - f(0.5)
        if mode == "half_pixel_symmetric":
            return f(extent / 2) * (1 - f(out) / (scale * f(extent))) + half
        return half

    def evaluate(self, inputs: InArrays) -> tuple[Array, ...]:
        x = value(inputs, 0)
        y = x if self.mode == "nearest" else x.astype(np.result_type(x.dtype, np.float32))
        outside = np.zeros(self.sizes, np.bool_)
        for axis in self.resized(x.shape):
            index, weight, inside = self.taps(axis, x.shape[axis])
            column = [1] * x.ndim
            column[axis] = self.sizes[axis]
            outside |= ~inside.reshape(column)
            if self.mode == "nearest":
                y = np.take(y, index[:, 0], axis=axis)
            else:
                parts = [np.take(y, index[:, t], axis=axis) * weight[:, t].reshape(column) for t in range(index.shape[1])]
                y = np.sum(parts, axis=0, dtype=y.dtype)
        if outside.any():
            y = np.where(outside, y.dtype.type(self.extrapolation), y)
        return (np.ascontiguousarray(y.astype(x.dtype, copy=False)),)

    def axes(self, inputs: InTypes) -> AxisMap:
        x = need(inputs, 0, "data")
        changed = self.resized(x.shape)
        dims = tuple(Dim(f"d{i}", n) for i, n in enumerate(x.shape) if i not in changed)
        line: tuple[Access, ...] = tuple(FIXED if i in changed else Iter(f"d{i}") for i in range(x.rank))
        return AxisMap(dims, (line,), (line,))

    def macs(self, inputs: InTypes) -> int:
        x = need(inputs, 0, "data")
        per_dim = {"nearest": 0, "linear": 2, "cubic": 4}[self.mode]
        total = np.prod([int(s) for s in self.sizes], dtype=object) * per_dim ** len(self.resized(x.shape))
        return int(total) if per_dim else 0


def _from_sizes(node: OnnxNode, shape: tuple[int, ...], axes: list[int], sizes: list[int]) -> tuple[list[int], list[float]]:
    """(sizes, scales) along `axes` under the keep_aspect_ratio_policy: one scale for all axes unless it is `stretch`."""
    policy = node.attr("keep_aspect_ratio_policy", "stretch")
    scales = [s / shape[a] if shape[a] else 1.0 for s, a in zip(sizes, axes, strict=True)]
    if policy == "stretch":
        return sizes, scales
    if policy not in ("not_larger", "not_smaller"):
        raise node.refuse(f"its keep_aspect_ratio_policy is {policy!r}, expected stretch, not_larger or not_smaller")
    scale = min(scales) if policy == "not_larger" else max(scales)
    return [int(np.floor(scale * shape[a] + 0.5)) for a in axes], [scale] * len(axes)


@onnx_rule("Resize", "Upsample", becomes="Resize", constraints="scales or sizes, and roi, constant; no antialias")
def _import_resize(ctx: ImportContext, node: OnnxNode) -> str:
    shape = ctx.type(node.inputs[0]).shape
    rank = len(shape)
    if node.attr("antialias", 0):
        raise node.refuse("it has antialias set, which is not supported")
    axes = [normal_axis(int(a), rank) for a in node.attr("axes", range(rank))]
    sizes, scales, roi = list(shape), [1.0] * rank, [0.0] * rank + [1.0] * rank
    if node.has(3) and ctx.type(node.inputs[3]).elements:
        wanted = [int(s) for s in node.need_const(ctx, 3, "sizes").reshape(-1)]
        wanted, factors = _from_sizes(node, shape, axes, wanted)
    elif node.has(2):
        factors = [float(s) for s in node.need_const(ctx, 2, "scales").reshape(-1)]
        wanted = [int(np.floor(np.float32(shape[a]) * np.float32(s))) for a, s in zip(axes, factors, strict=True)]
    else:
        raise node.refuse("it has neither scales nor sizes")
    cropped = node.attr("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
    crop = [float(r) for r in node.need_const(ctx, 1, "roi").reshape(-1)] if cropped else [0.0] * len(axes) + [1.0] * len(axes)
    for i, a in enumerate(axes):
        sizes[a], scales[a] = wanted[i], factors[i]
        roi[a], roi[rank + a] = crop[i], crop[len(axes) + i]
    op = Resize(
        tuple(sizes),
        tuple(scales),
        node.attr("mode", "nearest"),
        node.attr("coordinate_transformation_mode", "half_pixel"),
        node.attr("nearest_mode", "round_prefer_floor"),
        float(node.attr("cubic_coeff_a", -0.75)),
        bool(node.attr("exclude_outside", 0)),
        float(node.attr("extrapolation_value", 0.0)),
        tuple(roi) if cropped else (),
    )
    return ctx.emit(op, node.inputs[0])
