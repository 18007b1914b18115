"""Reshape to a static shape. Squeeze, Unsqueeze and Flatten become one too."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import prod
from operator import mul

import numpy as np

from sparsec.compiler.axes import FIXED, Access, AxisMap, Dim, Iter, Merged
from sparsec.compiler.errors import ModelError
from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.ops.base import Array, InArrays, InTypes, Op, need, register, value
from sparsec.compiler.types import TensorType


@register
@dataclass(frozen=True, slots=True)
class Reshape(Op):
    """y = x with the same elements in row-major order, in `shape` (no -1 or 0: all static)."""

    shape: tuple[int, ...]
    name = "Reshape"
    summary = "the same elements in another static shape"

    def infer(self, inputs: InTypes) -> tuple[TensorType, ...]:
        x = need(inputs, 0, "data")
        if prod(self.shape) != x.elements or any(d < 0 for d in self.shape):
            raise ModelError(f"cannot reshape {x} ({x.elements} elements) to {list(self.shape)}")
        return (TensorType(x.dtype, self.shape),)

    def evaluate(self, inputs: InArrays) -> tuple[Array, ...]:
        return (np.reshape(value(inputs, 0), self.shape),)

    def axes(self, inputs: InTypes) -> AxisMap:
        x = need(inputs, 0, "data")
        dims, left, right = factor(x.shape, self.shape)
        return AxisMap(dims, (left,), (right,))


def factor(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[tuple[Dim, ...], tuple[Access, ...], tuple[Access, ...]]:
    """Common iteration dimensions of two shapes of equal size: each side's dimension is one of them or a merger of several.

    Works run by run: the shortest runs of dimensions with equal products. Inside a run, the boundaries of both sides, as products
    of the extents before them, must divide each other; else all of the run is Fixed.
    """
    dims: list[Dim] = []
    left: list[Access] = [FIXED] * len(a)
    right: list[Access] = [FIXED] * len(b)
    if 0 in a:
        return (), tuple(left), tuple(right)
    i = j = 0
    while i < len(a) and j < len(b):
        i0, j0, pa, pb = i, j, a[i], b[j]
        i, j = i + 1, j + 1
        while pa != pb:
            if pa < pb:
                pa, i = pa * a[i], i + 1
            else:
                pb, j = pb * b[j], j + 1
        edges = [1, *sorted({*accumulate(a[i0:i], mul), *accumulate(b[j0:j], mul)} - {1})]
        if any(outer % inner for inner, outer in pairwise(edges)):
            continue
        found = [Dim(f"r{len(dims) + k}", outer // inner) for k, (inner, outer) in enumerate(pairwise(edges))]
        found = found or [Dim(f"r{len(dims)}", 1)]
        left[i0:i] = _mergers(a[i0:i], found)
        right[j0:j] = _mergers(b[j0:j], found)
        dims += found
    return tuple(dims), tuple(left), tuple(right)


def _mergers(extents: tuple[int, ...], dims: list[Dim]) -> list[Access]:
    """What of `dims` each extent merges; an extent of 1 beside others is Fixed."""
    if len(extents) == len(dims) == 1:
        return [Iter(dims[0].name)]
    found: list[Access] = []
    rest = iter(dims)
    for extent in extents:
        names: list[str] = []
        while extent > 1:
            dim = next(rest)
            names.append(dim.name)
            extent //= dim.extent
        found.append(Iter(names[0]) if len(names) == 1 else Merged(tuple(names)) if names else FIXED)
    return found


def resolve_shape(target: list[int], source: tuple[int, ...], allow_zero: bool) -> tuple[int, ...]:
    """ONNX Reshape's target with 0 (copy) and -1 (infer) resolved."""
    shape = [source[i] if d == 0 and not allow_zero and i < len(source) else d for i, d in enumerate(target)]
    if shape.count(-1) > 1:
        raise ModelError(f"the target shape {target} has more than one -1")
    if -1 in shape:
        rest = prod(d for d in shape if d != -1)
        if rest == 0 or prod(source) % rest:
            raise ModelError(f"cannot infer -1 in target shape {target} for {list(source)}")
        shape[shape.index(-1)] = prod(source) // rest
    return tuple(shape)


@onnx_rule("Reshape", becomes="Reshape", constraints="the target shape is constant once dimensions are bound")
def _import_reshape(ctx: ImportContext, node: OnnxNode) -> str:
    x = ctx.type(node.inputs[0])
    target = [int(d) for d in node.need_const(ctx, 1, "target shape").reshape(-1)]
    return ctx.emit(Reshape(resolve_shape(target, x.shape, bool(node.attr("allowzero", 0)))), node.inputs[0])


@onnx_rule("Flatten", becomes="Reshape")
def _import_flatten(ctx: ImportContext, node: OnnxNode) -> str:
    shape = ctx.type(node.inputs[0]).shape
    axis = node.attr("axis", 1)
    axis += len(shape) if axis < 0 else 0
    return ctx.emit(Reshape((prod(shape[:axis]), prod(shape[axis:]))), node.inputs[0])


def _axes_of(ctx: ImportContext, node: OnnxNode) -> list[int] | None:
    return [int(a) for a in node.need_const(ctx, 1, "axes").reshape(-1)] if node.has(1) else None


@onnx_rule("Squeeze", becomes="Reshape", constraints="axes constant")
def _import_squeeze(ctx: ImportContext, node: OnnxNode) -> str:
    shape = ctx.type(node.inputs[0]).shape
    axes = _axes_of(ctx, node)
    drop = {a % len(shape) for a in axes} if axes is not None else {i for i, d in enumerate(shape) if d == 1}
    if any(shape[a] != 1 for a in drop):
        raise ModelError(f"cannot squeeze axes {sorted(drop)} of {list(shape)}: each must have extent 1")
    return ctx.emit(Reshape(tuple(d for i, d in enumerate(shape) if i not in drop)), node.inputs[0])


@onnx_rule("Unsqueeze", becomes="Reshape", constraints="axes constant")
def _import_unsqueeze(ctx: ImportContext, node: OnnxNode) -> str:
    shape = list(ctx.type(node.inputs[0]).shape)
    axes = _axes_of(ctx, node) or []
    rank = len(shape) + len(axes)
    for a in sorted(a % rank for a in axes):
        shape.insert(a, 1)
    return ctx.emit(Reshape(tuple(shape)), node.inputs[0])
