"""ScatterElements: a copy of a tensor with single elements of lines replaced or combined."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsec.compiler.errors import ModelError
from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.ops.base import Array, InArrays, InTypes, Op, need, register, value
from sparsec.compiler.ops.gather import check_indices, clamp_indices
from sparsec.compiler.ops.scatter import check_reduction, update
from sparsec.compiler.ops.slice import positive_axis
from sparsec.compiler.types import TensorType


@register
@dataclass(frozen=True, slots=True)
class ScatterElements(Op):
    """y = x; y[i... with position `axis` (>= 0) replaced by indices[i...]] = updates[i...], or combined by `reduction`.

    `reduction` is none, add, mul, min or max. Where none meets equal indices, the last in row-major order stays.
    """

    axis: int
    reduction: str = "none"
    name = "ScatterElements"
    summary = "single elements of lines replaced, or combined by add, mul, min, max"

    def infer(self, inputs: InTypes) -> tuple[TensorType, ...]:
        x, i, u = need(inputs, 0, "data"), check_indices(need(inputs, 1, "indices")), need(inputs, 2, "updates")
        check_reduction(self.reduction)
        others = [k for k in range(x.rank) if k != self.axis]
        if i.shape != u.shape or i.rank != x.rank or not 0 <= self.axis < x.rank or u.dtype != x.dtype:
            raise ModelError(f"cannot scatter elements {u} by {i} into {x} along axis {self.axis}")
        if any(i.shape[k] > x.shape[k] for k in others) or (x.shape[self.axis] == 0 and i.elements > 0):
            raise ModelError(f"indices {i} are larger than {x}")
        return (TensorType(x.dtype, x.shape),)

    def evaluate(self, inputs: InArrays) -> tuple[Array, ...]:
        y, i = value(inputs, 0).copy(), value(inputs, 1)
        grid: list[Array] = list(np.indices(i.shape, sparse=True))
        grid[self.axis] = clamp_indices(i, y.shape[self.axis])
        update(y, tuple(grid), value(inputs, 2), self.reduction)
        return (y,)


@onnx_rule("ScatterElements", "Scatter", becomes="ScatterElements", constraints="indices int32 or int64")
def _import_scatter_elements(ctx: ImportContext, node: OnnxNode) -> str:
    axis = positive_axis(int(node.attr("axis", 0)), ctx.type(node.inputs[0]).rank)
    return ctx.emit(ScatterElements(axis, node.attr("reduction", "none")), *node.inputs[:3])
