"""TopK: the largest or smallest elements of each line, with their positions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsec.compiler.axes import AxisMap
from sparsec.compiler.dtypes import DType
from sparsec.compiler.errors import ModelError
from sparsec.compiler.onnx_rules import ImportContext, OnnxNode, onnx_rule
from sparsec.compiler.ops.base import Array, InArrays, InTypes, Op, need, register, value
from sparsec.compiler.ops.cumsum import line_axes
from sparsec.compiler.ops.slice import positive_axis
from sparsec.compiler.types import TensorType


@register
@dataclass(frozen=True, slots=True)
class TopK(Op):
    """The `k` largest (or smallest) elements of every line along `axis` (>= 0), best first, and their int64 positions.

    Of equal elements the one at the lower position comes first.
    """

    k: int
    axis: int
    largest: bool = True
    name = "TopK"
    summary = "the k largest or smallest elements of each line, sorted, and their positions"

    def infer(self, inputs: InTypes) -> tuple[TensorType, ...]:
        x = need(inputs, 0, "data")
        if not 0 <= self.axis < x.rank or not 0 <= self.k <= x.shape[self.axis]:
            raise ModelError(f"cannot take the top {self.k} along axis {self.axis} of {x}")
        shape = (*x.shape[: self.axis], self.k, *x.shape[self.axis + 1 :])
        return TensorType(x.dtype, shape), TensorType(DType.I64, shape)

    def evaluate(self, inputs: InArrays) -> tuple[Array, ...]:
        x = value(inputs, 0)
        line = np.flip(x, self.axis) if self.largest else x
        order = np.argsort(line, axis=self.axis, kind="stable")
        if self.largest:  # ascending order of the flipped line, read backwards: descending, lower position first
            order = x.shape[self.axis] - 1 - np.flip(order, self.axis)
        best = order[(slice(None),) * self.axis + (slice(0, self.k),)].astype(np.int64)
        return np.take_along_axis(x, best, axis=self.axis), np.ascontiguousarray(best)

    def axes(self, inputs: InTypes) -> AxisMap:
        return line_axes(need(inputs, 0, "data").shape, self.axis, outputs=2)


@onnx_rule("TopK", becomes="TopK", constraints="k constant")
def _import_topk(ctx: ImportContext, node: OnnxNode) -> tuple[str, ...]:
    k = int(node.need_const(ctx, 1, "k").reshape(()))
    axis = positive_axis(int(node.attr("axis", -1)), ctx.type(node.inputs[0]).rank)
    return ctx.emit_all(TopK(k, axis, bool(node.attr("largest", 1))), node.inputs[:1])
