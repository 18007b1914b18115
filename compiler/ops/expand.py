"""Expand: a tensor repeated along broadcast dimensions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsec.compiler.axes import AxisMap, Dim, Iter
from sparsec.compiler.errors import ModelError
from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.ops.base import (
    Array,
    InArrays,
    InTypes,
    Op,
    broadcast_shapes,
    broadcasts_to,
    need,
    register,
    value,
)
from sparsec.compiler.ops.map import broadcast_access
from sparsec.compiler.types import TensorType


@register
@dataclass(frozen=True, slots=True)
class Expand(Op):
    """y = x broadcast to `shape` by numpy's rule."""

    shape: tuple[int, ...]
    name = "Expand"
    summary = "broadcast to a static shape"

    def infer(self, inputs: InTypes) -> tuple[TensorType, ...]:
        x = need(inputs, 0, "data")
        if not broadcasts_to(x.shape, self.shape):
            raise ModelError(f"cannot expand {x} to {list(self.shape)}")
        return (TensorType(x.dtype, self.shape),)

    def evaluate(self, inputs: InArrays) -> tuple[Array, ...]:
        return (np.ascontiguousarray(np.broadcast_to(value(inputs, 0), self.shape)).reshape(self.shape),)

    def axes(self, inputs: InTypes) -> AxisMap:
        dims = tuple(Dim(f"d{i}", n) for i, n in enumerate(self.shape))
        x = need(inputs, 0, "data")
        return AxisMap(dims, (broadcast_access(x.shape, self.shape),), (tuple(Iter(d.name) for d in dims),))


def extents(array: Array) -> tuple[int, ...]:
    """A shape given as a tensor; extents must not be negative."""
    shape = tuple(int(n) for n in array.reshape(-1))
    if any(n < 0 for n in shape):
        raise ModelError(f"the shape {list(shape)} has a negative extent")
    return shape


@onnx_rule("Expand", becomes="Expand", constraints="shape constant")
def _import_expand(ctx: ImportContext, node: OnnxNode) -> str:
    """The data and the shape broadcast together: either may be the larger."""
    x = ctx.type(node.inputs[0])
    shape = broadcast_shapes(x.shape, extents(node.need_const(ctx, 1, "shape")))
    return node.inputs[0] if shape == x.shape else ctx.emit(Expand(shape), node.inputs[0])


@onnx_rule("ConstantOfShape", becomes="Expand", constraints="shape constant")
def _import_constant_of_shape(ctx: ImportContext, node: OnnxNode) -> str:
    """One element, expanded: a large one costs nothing until something needs it."""
    fill = np.asarray(node.attr("value", np.zeros(1, np.float32)))
    if fill.size != 1:
        raise ModelError(f"the value to fill with has {fill.size} elements, expected 1")
    return ctx.emit(Expand(extents(node.need_const(ctx, 0, "shape"))), ctx.constant(fill.reshape(())))
